//! What a person decides: undo, refused changes, conflicts.

use crate::support::{Device, Office};

#[test]
fn a_change_that_is_undone_offline_never_leaves_and_one_that_left_is_taken_back_there_too() {
    let office = Office::open();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    ann.ok("add Budi new 1200");
    ann.ok("sync");
    ann.ok("offline");
    ann.ok("set budi stage won");
    ann.ok("add Citra new 300");
    assert!(ann.ok("undo").contains("undone before it was sent: added Citra"));
    assert!(ann.ok("undo").contains("undone before it was sent: stage of Budi is won"));
    assert!(ann.ok("status").contains("0 changes on this device only"));
    ann.ok("online");
    ann.ok("set budi amount 5");
    ann.ok("sync");
    assert!(ann.ok("undo").contains("undone by another change: amount of Budi is 5"));
    ann.ok("sync");
    ben.ok("sync");
    let list = ben.ok("list");
    assert!(list.contains("new    Budi                           1200\n"), "{list}");
    assert!(!list.contains("Citra"), "{list}");
    ann.ok("undo");
    assert!(ann.say("undo").contains("error: there is no change of yours"));
}

#[test]
fn a_refused_change_is_listed_with_its_content_and_is_corrected_or_given_up() {
    let office = Office::open();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("add Budi new 5000000");
    ann.ok("add Citra new 7000000");
    ann.ok("sync");
    let list = ann.ok("list");
    assert_eq!(list.matches("  failed").count(), 2, "{list}");
    let failed = ann.ok("failed");
    let first = "1   Budi: create by ann {\"amount\":5000000,\"name\":\"Budi\",\"phone\":\"\",";
    assert!(failed.contains(first) && failed.contains("2   Citra: create by ann"), "{failed}");
    assert!(failed.contains("check_failed"), "{failed}");
    assert!(failed.contains("Type `retry 1`, `correct 1 FIELD VALUE`, `discard 1`."), "{failed}");

    ann.ok("correct 1 amount 500000");
    ann.ok("discard 2");
    ann.ok("sync");
    assert!(ann.ok("failed").contains("nothing failed"));
    assert!(ann.ok("status").contains("everything is at the server"));
    let mut ben = office.device("ben.book", "ben");
    ben.ok("sync");
    let list = ben.ok("list");
    assert!(list.contains("new    Budi                         500000\n"), "{list}");
    assert!(!list.contains("Citra"), "{list}");

    // What is sent again unchanged is refused again.
    ben.ok("set budi amount 5000001");
    ben.ok("sync");
    ben.ok("failed");
    ben.ok("retry 1");
    ben.ok("sync");
    assert!(ben.ok("failed").contains("1   Budi: update by ben {\"amount\":5000001}"));
}

/// Ann and Ben have set the stage of the same lead, both offline. Ben's was first at the server.
fn in_conflict(office: &Office) -> (Device, Device) {
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    ann.ok("add Budi new 1200");
    ann.ok("sync");
    ben.ok("sync");
    ann.ok("offline");
    ben.ok("offline");
    ann.ok("set budi stage hot");
    ben.ok("set budi stage lost");
    for device in [&mut ben, &mut ann] {
        device.ok("online");
        device.ok("sync");
    }
    let row = "hot    Budi                           1200                    conflict\n";
    assert!(ann.ok("list").contains(row));
    let shown = ann.ok("conflicts");
    let sides = r#"1   Budi
    before  {"stage":"new"}
    mine    {"stage":"hot"}
    theirs  {"stage":"lost"}, by ben
    Type `mine 1`, `theirs 1`.
"#;
    assert!(shown.contains(sides), "{shown}");
    (ann, ben)
}

#[test]
fn mine_sends_this_side_of_a_conflict_to_everybody() {
    let office = Office::open();
    let (mut ann, mut ben) = in_conflict(&office);
    ann.ok("mine 1");
    ann.ok("sync");
    ben.ok("sync");
    for device in [&mut ann, &mut ben] {
        assert!(device.ok("list").contains("hot    Budi                           1200\n"));
        assert!(device.ok("conflicts").contains("no conflicts"));
    }
    let again = ann.say("mine 1");
    assert!(
        again.contains("error: there is no number 1: `conflicts` shows the numbers"),
        "{again}"
    );
}

#[test]
fn theirs_takes_the_other_side_of_a_conflict_and_sends_nothing() {
    let mut office = Office::open();
    let (mut ann, mut ben) = in_conflict(&office);
    // The choice needs no server.
    office.stop_server();
    ann.ok("theirs 1");
    assert!(ann.ok("status").contains("0 changes on this device only"));
    assert!(ann.say("theirs 1").contains("error: this conflict is resolved already"));
    office.start_server();
    ann.ok("sync");
    ben.ok("sync");
    for device in [&mut ann, &mut ben] {
        assert!(device.ok("list").contains("lost   Budi                           1200\n"));
    }
}
