//! Two devices, and a server that is not always there.

use crate::support::Office;

#[test]
fn edits_made_without_a_server_survive_a_kill_and_arrive_after_its_restart() {
    let mut office = Office::open();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("add \"Budi Santoso\" new 1200 \"021 555 0100\"");
    ann.ok("sync");
    assert!(!ann.ok("list").contains("waits"));

    office.stop_server();
    ann.ok("set budi phone \"0812 3456\"");
    let tried = ann.ok("sync");
    assert!(tried.contains("the server cannot be reached: 1 change not sent yet"), "{tried}");
    ann.ok("offline");
    ann.ok("add Kovács hot 300");
    let list = ann.ok("list");
    assert!(list.contains("ann (offline, 2 unsent)> list"), "{list}");
    assert_eq!(list.matches("  waits").count(), 2, "{list}");
    ann.kill();

    office.start_server();
    let mut ann = office.device("ann.book", "ann");
    ann.ok("sync");
    assert!(
        ann.ok("status").contains("everything is at the server\n0 changes on this device only")
    );
    let mut ben = office.device("ben.book", "ben");
    ben.ok("sync");
    let list = ben.ok("list");
    assert!(list.contains("hot    Kovács                          300\n"), "{list}");
    let budi = "new    Budi Santoso                   1200  0812 3456\n";
    assert!(list.contains(budi), "{list}");
    for device in [ann, ben] {
        device.quit();
    }
}

#[test]
fn the_totals_and_the_list_of_one_user_move_while_the_other_one_writes() {
    let mut office = Office::open();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    ann.ok("add Budi new 1200");
    ann.ok("add Citra new 300");
    ann.ok("sync");
    let totals = ann.ok("totals");
    assert!(totals.contains("new          2         1500\n"), "{totals}");
    assert!(totals.contains("all          2         1500\n"), "{totals}");

    ben.ok("sync");
    ben.ok("set budi stage won");
    let moved = ann.wait_for("all          2         1500");
    assert!(
        moved.contains("new          1          300\nwon          1         1200\n"),
        "{moved}"
    );

    // The same while the server was away in between.
    assert!(ann.ok("list won").contains("won    Budi"));
    office.stop_server();
    ben.ok("set budi amount 2000");
    office.start_server();
    for device in [&mut ben, &mut ann] {
        device.ok("sync");
    }
    let at_end = ann.ok("totals");
    assert!(at_end.contains("won          1         2000\n"), "{at_end}");

    // Her own change is told before the next command, with its badge.
    ann.ok("offline");
    let own = ann.ok("set citra stage won");
    assert!(
        own.contains("+ won    Citra                           300                    waits\n"),
        "{own}"
    );
    assert!(own.contains("won          2         2300\n"), "{own}");
    ann.ok("quiet");
    assert!(!ann.ok("delete budi").contains("won"));
}

#[test]
fn what_was_written_offline_leaves_by_itself_and_moves_in_the_list_of_the_other_user() {
    let office = Office::open();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    assert!(ben.ok("list new").contains("no leads: `add` makes one"));
    ann.ok("offline");
    ann.ok("add Budi new 1200");
    ann.ok("online");
    ben.wait_for("+ new    Budi                           1200");
    ann.ok("set budi amount 5");
    ben.wait_for("~ new    Budi                              5");
    ann.ok("set budi stage won");
    ben.wait_for("- new    Budi                              5");
}

#[test]
fn a_server_that_restarts_amid_the_work_loses_nothing_and_takes_nothing_twice() {
    let mut office = Office::open();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    for round in 1..=3 {
        for lead in 1..=5 {
            ann.ok(&format!("add \"Ann {round}.{lead}\" new 100"));
            ben.ok(&format!("add \"Ben {round}.{lead}\" hot 1"));
        }
        office.stop_server();
        ann.ok(&format!("set \"Ann {round}.1\" amount 200"));
        ben.ok(&format!("delete \"Ben {round}.1\""));
        office.start_server();
    }
    ann.ok("sync");
    for device in [&mut ben, &mut ann] {
        assert!(device.ok("sync").contains("everything is at the server"));
    }
    for device in [&mut ann, &mut ben] {
        let totals = device.ok("totals");
        assert!(
            totals.contains("hot         12           12\nnew         15         1800\n"),
            "{totals}"
        );
    }
}

#[test]
fn search_finds_what_was_written_here_and_there_with_mistakes() {
    let office = Office::open();
    let (mut ann, mut ben) = (office.device("ann.book", "ann"), office.device("ben.book", "ben"));
    ben.ok("add \"Éva Kovács\" hot 300 \"+62 812-3456-789\"");
    ben.ok("sync");
    ann.ok("sync");
    ann.ok("offline");
    ann.ok("add \"Budi Santoso\" new 1200");
    for (asked, found) in
        [("kovasc", "Éva Kovács"), ("0812 3456", "Éva Kovács"), ("sant", "Budi Santoso")]
    {
        let hits = ann.ok(&format!("search {asked}"));
        assert!(hits.contains(found) && hits.lines().count() == 4, "{hits}");
    }
    assert!(ann.ok("search budi").contains("waits"));
    assert!(ann.ok("search kovacs budi").contains("nothing found"));
}
