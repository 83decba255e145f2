//! Two users of one device, and leaving it.

use crate::support::Office;

#[test]
fn the_next_user_of_a_device_neither_sends_nor_owns_what_the_one_before_left() {
    let office = Office::open();
    let mut device = office.device("front.book", "ann");
    device.ok("offline");
    device.ok("add Budi new 1200");
    let change = device.ok("user ben");
    assert!(change.contains("1 change of ann not sent, until ann is back"), "{change}");
    assert!(device.say("undo").contains("error: there is no change of yours"));
    device.ok("online");
    device.ok("add Citra hot 300");
    device.ok("sync");

    let list = device.ok("list");
    assert!(
        list.contains("Budi                           1200                    waits for ann\n"),
        "{list}"
    );
    assert!(list.contains("Citra                           300\n"), "{list}");
    let failed = device.ok("failed");
    assert!(failed.contains("1   Budi: create by ann {\"amount\":1200"), "{failed}");
    assert!(failed.contains("Type `take 1`, `discard 1`."), "{failed}");
    let mut other = office.device("other.book", "cid");
    other.ok("sync");
    let list = other.ok("list");
    assert!(list.contains("Citra") && !list.contains("Budi"), "{list}");

    // Ann is back: what she left is sent as hers.
    device.ok("user ann");
    other.wait_for("+ new    Budi                           1200");
    other.ok("quiet");
    device.ok("sync");
    assert!(device.ok("failed").contains("nothing failed"));

    // If she never comes back, somebody takes her changes over.
    device.ok("offline");
    device.ok("set budi phone 021");
    device.ok("user ben");
    device.ok("failed");
    assert!(device.ok("take 1").contains("1 taken over: ben sends it"));
    device.ok("online");
    device.ok("sync");
    other.ok("sync");
    assert!(other.ok("show budi").contains("phone   021\n"));
}

#[test]
fn leaving_removes_the_book_only_when_everything_is_sent_or_exported() {
    let office = Office::open();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("offline");
    ann.ok("add Budi new 1200");
    ann.ok("list");
    ann.ok("totals");
    let refused = ann.say("leave");
    assert!(
        refused.contains("error: 1 change was not sent: 1 of ann: `sync`, or `leave FILE`"),
        "{refused}"
    );
    let export = office.path("ann.log");
    ann.end_with(&format!("leave \"{}\"", export.display()));
    assert!(!office.path("ann.book").exists() && export.exists());

    let mut ben = office.device("ben.book", "ben");
    ben.ok("add Citra hot 300");
    ben.ok("sync");
    ben.end_with("leave");
    assert!(!office.path("ben.book").exists());

    // Quitting keeps everything.
    let mut cid = office.device("cid.book", "cid");
    cid.ok("offline");
    cid.ok("add Dewi new 1");
    cid.end_with("quit");
    assert!(office.device("cid.book", "cid").ok("list").contains("Dewi"));
}
