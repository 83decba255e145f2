//! The history page: `view`. What a browser shows of it is checked by `tests/page`.

use serde_json::Value;

use crate::looks::with_a_conflict;
use crate::settle::with_a_dead_letter;
use crate::support::Folder;

/// Returns the data of a page's block.
fn block(folder: &Folder, name: &str, number: usize) -> Value {
    use std::io::Read;
    let page = String::from_utf8(folder.bytes(name)).unwrap();
    let begin = format!("<script type=\"text/plain\" id=\"fieldbook-data-{number}\">");
    let text = page.split(&begin).nth(1).unwrap().split('<').next().unwrap();
    let deflated = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let mut json = String::new();
    flate2::read::DeflateDecoder::new(deflated.as_slice()).read_to_string(&mut json).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Returns the value of a column of rows at a position: that of the last row at or before it.
fn at(rows: &Value, stride: usize, position: u64) -> Option<&[Value]> {
    let rows = rows.as_array().unwrap().chunks(stride);
    rows.take_while(|row| row[0].as_u64().unwrap() <= position).last()
}

/// Returns the fields of a record at a position.
fn fields_at(main: &Value, record: &Value, position: u64) -> Option<Value> {
    at(&record[2], 2, position)?[1].as_array()?;
    let mut fields = serde_json::Map::new();
    let rows = record[2].as_array().unwrap().chunks(2);
    for row in rows.take_while(|row| row[0].as_u64().unwrap() <= position) {
        let Some(patch) = row[1].as_array() else {
            fields.clear();
            continue;
        };
        let mut items = patch.iter();
        while let Some(number) = items.next() {
            let number = number.as_i64().unwrap();
            let name =
                |of: i64| main["fields"][usize::try_from(of).unwrap()].as_str().unwrap().to_owned();
            if number < 0 {
                fields.remove(&name(-1 - number));
            } else {
                fields.insert(name(number), items.next().unwrap().clone());
            }
        }
    }
    Some(Value::Object(fields))
}

#[test]
fn every_record_state_and_number_of_a_page_is_the_programs_own_at_every_entry() {
    for folder in [with_a_conflict(), with_a_dead_letter()] {
        folder.ok(&["view", "ann.book", "-o", "ann.html"]);
        let main = block(&folder, "ann.html", 0);
        let last = main["entries"]["wall"].as_array().unwrap().len() as u64;
        assert!(last > 5);
        for position in 1..=last {
            let moment = position.to_string();
            let status = folder.one_json(&["status", "ann.book", "--json", "--at", &moment]);
            let numbers = at(&main["numbers"], 6, position).unwrap();
            let names = ["pending", "dead_letters", "conflicts", "open_conflicts"];
            for (number, name) in numbers[2..].iter().zip(names) {
                assert_eq!(*number, status[name], "{name} at entry {position}");
            }
            for record in main["records"].as_array().unwrap() {
                let kind = usize::try_from(record[0].as_u64().unwrap()).unwrap();
                let key = format!(
                    "{}/{}",
                    main["types"][kind].as_str().unwrap(),
                    record[1].as_str().unwrap()
                );
                let got = folder.run(&["get", "ann.book", &key, "--json", "--at", &moment]);
                let Some(fields) = fields_at(&main, record, position) else {
                    assert_eq!(got.code, 1, "{key} at entry {position}");
                    continue;
                };
                let got: Value = serde_json::from_str(&got.out).unwrap();
                assert_eq!(fields, got["fields"], "{key} at entry {position}");
                let state = at(&record[4], 5, position).unwrap();
                let words = &main["states"][usize::try_from(state[1].as_u64().unwrap()).unwrap()];
                assert_eq!(words[1], got["status"]["state"], "{key} at entry {position}");
                assert_eq!(state[3], got["pending"], "{key} at entry {position}");
            }
        }
    }
}

#[test]
fn a_page_of_an_exported_log_is_that_of_its_book_but_for_what_to_do() {
    let folder = with_a_conflict();
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    folder.ok(&["view", "ann.book", "-o", "book.html"]);
    folder.ok(&["view", "ann.log", "-o", "log.html"]);
    let (mut book, mut log) = (block(&folder, "book.html", 0), block(&folder, "log.html", 0));
    assert_eq!(log["about"]["name"], "ann.log");
    book["about"]["name"].take();
    log["about"]["name"].take();
    assert_eq!(book, log);
    assert_eq!(block(&folder, "book.html", 1), block(&folder, "log.html", 1));
}

#[test]
fn a_page_begins_and_ends_where_it_is_told_to() {
    let folder = with_a_conflict();
    folder.ok(&["view", "ann.book", "-o", "all.html"]);
    let said = folder.ok(&["view", "ann.book", "-o", "part.html", "--since", "3", "--until", "6"]);
    assert!(said.starts_with("3 entries and "), "{said}");
    let (all, part) = (block(&folder, "all.html", 0), block(&folder, "part.html", 0));
    assert_eq!(part["about"]["first"], 3);
    for position in 3..=6 {
        for (record, whole) in
            part["records"].as_array().unwrap().iter().zip(all["records"].as_array().unwrap())
        {
            assert_eq!(fields_at(&part, record, position), fields_at(&all, whole, position));
        }
    }
    let ran = folder.run(&["view", "ann.book", "-o", "no.html", "--since", "6", "--until", "3"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!folder.names().contains(&"no.html".to_owned()));
}

#[test]
fn a_page_overwrites_nothing_unless_it_is_told_to_and_never_a_book() {
    let folder = with_a_conflict();
    let before = folder.bytes("ann.book");
    folder.ok(&["view", "ann.book", "-o", "ann.html"]);
    let ran = folder.run(&["view", "ann.book", "-o", "ann.html"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("--force"), "{ran:?}");
    folder.ok(&["view", "ann.book", "-o", "ann.html", "--force"]);
    assert_eq!(folder.run(&["view", "ann.book", "-o", "ann.book", "--force"]).code, 1);
    assert_eq!(folder.bytes("ann.book"), before, "looking changes no byte");
}

#[test]
fn a_value_is_nowhere_in_the_markup_of_a_page() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book", "--actor", "<b>ann"]);
    let value = r#"{"<i>f":"</script><img src=x onerror=alert(1)>"}"#;
    folder.ok(&["put", "ann.book", "lead/<u>1", value]);
    folder.ok(&["view", "ann.book", "-o", "ann.html"]);
    let page = String::from_utf8(folder.bytes("ann.html")).unwrap();
    for part in ["<b>ann", "<i>f", "onerror", "<u>1"] {
        assert!(!page.contains(part), "{part}");
    }
    assert_eq!(page.matches("</script>").count(), page.matches("<script").count());
    let main = block(&folder, "ann.html", 0);
    assert_eq!(main["records"][0][2][1][1], "</script><img src=x onerror=alert(1)>");
}
