//! Bundles for support: what never leaves, and that it is enough to help.

use data_encoding::{BASE64_NOPAD, HEXLOWER};
use fieldbook::record::Mutation;
use fieldbook::schema::Reference;
use fieldbook::sync::protocol::{ExchangeRequest, Failure, Outcome};
use fieldbook::sync::{FnRemote, RunOptions};
use fieldbook::{Book, EntityRules, EntityType, Schema};
use serde_json::{Value, json};

use crate::looks::server;
use crate::settle::{answering, refusing_with, with_an_open_conflict};
use crate::support::{
    Folder, Serving, StillClock, ann_and_ben, book, book_with, fields, key, sync,
};

/// What nobody but the user may see. `in_name` is an object's name, `in_list` is within a list.
const CANARIES: [&str; 20] = [
    "qZcanary-name",
    "qZcanary-phone-5550101",
    "qZcanary-note-Käse",
    "qZcanary-nested",
    "qZcanary-in_list",
    "qZcanary-in_name",
    "qZcanary-hot",
    "qZcanary-cold",
    "qZcanary-message",
    "qZcanary-reason",
    "qZcanary-mate",
    "qZcanary-child",
    "qZcanary-reference",
    "qZcanary-expired",
    "qZcanary-offline",
    "qZcanary-quote\"d",
    "qZcanary-line\nbreak",
    "qZcanary-before",
    "qZcanary-corrected",
    "qZcanary-emoji-😀",
];

/// Returns every form in which a text could stand in a file.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let quoted = serde_json::to_string(text).unwrap();
    let mut forms = vec![
        text.as_bytes().to_vec(),
        quoted.trim_matches('"').as_bytes().to_vec(),
        units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
        units.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        escaped.into_bytes(),
        HEXLOWER.encode(text.as_bytes()).into_bytes(),
    ];
    for before in 0..3 {
        let padded = [&vec![0; before], text.as_bytes()].concat();
        let encoded = BASE64_NOPAD.encode(&padded[..padded.len() / 3 * 3]);
        forms.push(encoded.as_bytes()[4 * before.min(1)..].to_vec());
    }
    forms
}

fn has(bytes: &[u8], text: &str) -> bool {
    forms(text).iter().any(|form| bytes.windows(form.len()).any(|at| at == form.as_slice()))
}

/// A book with a transaction of `lead/1` and `lead/2` that was refused for good, and `lead/3`, whose
/// refusal a person discarded.
fn refused() -> Folder {
    let (folder, clock) = (Folder::new(), StillClock::new());
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    let first = r#"{"name":"qZcanary-name","phone":"qZcanary-phone-5550101",
        "more":{"qZcanary-in_name":"qZcanary-nested","list":["qZcanary-in_list"]},
        "note":"qZcanary-note-Käse","odd":["qZcanary-quote\"d","qZcanary-line\nbreak"]}"#;
    ann.transaction(vec![
        Mutation::create(key("lead/1"), fields(first)),
        Mutation::create(key("lead/2"), fields(r#"{"name":"qZcanary-mate"}"#)),
    ])
    .unwrap();
    ann.records().create(key("lead/3"), fields(r#"{"name":"qZcanary-emoji-😀"}"#)).unwrap();
    sync(&ann, &refusing_with(&clock, "validation", "no: qZcanary-message"));
    ann.close().unwrap();
    let third = folder.one_json(&["explain", "ann.book", "lead/3", "--json"]);
    let place = third["ops"][0]["place"].as_str().unwrap().to_owned();
    folder.ok(&["dead-letters", "discard", "ann.book", &place, "--reason", "qZcanary-reason"]);
    folder
}

/// A book with `call/1`, which refers to `lead/1`, whose creation was refused.
fn held_by_a_dead_parent() -> Folder {
    let (folder, clock) = (Folder::new(), StillClock::new());
    let entity = |name: &str| EntityType::parse(name).unwrap();
    let references = ["lead", "other"];
    let references =
        references.map(|field| Reference { field: field.to_owned(), entity: entity("lead") });
    let calls = EntityRules { references: references.to_vec(), ..EntityRules::default() };
    let schema = Schema::open(EntityRules::default()).declare(entity("call"), calls);
    let ann = book_with(&folder.path("ann.book"), "ann", &clock, schema);
    ann.records().create(key("lead/1"), fields(r#"{"name":"qZcanary-name"}"#)).unwrap();
    sync(&ann, &refusing_with(&clock, "validation", "no: qZcanary-message"));
    clock.advance(60);
    // The other reference names a record that the log does not know.
    let child = r#"{"lead":"1","other":"qZcanary-reference","text":"qZcanary-child"}"#;
    ann.records().create(key("call/1"), fields(child)).unwrap();
    ann.close().unwrap();
    folder
}

/// A book whose user's token has expired.
fn token_expired() -> Folder {
    let (folder, clock) = (Folder::new(), StillClock::new());
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    ann.records().create(key("lead/1"), fields(r#"{"name":"qZcanary-expired"}"#)).unwrap();
    sync(&ann, &answering(&clock, Outcome::Unauthorized { code: "token_expired".into() }));
    ann.close().unwrap();
    folder
}

/// A book that tried a week long without a server.
fn offline_for_a_week() -> Folder {
    let (folder, clock) = (Folder::new(), StillClock::new());
    let ann = book(&folder.path("ann.book"), "ann", &clock);
    let nobody = FnRemote::new(|_: &ExchangeRequest| {
        Err(Failure::Unreachable { code: "name_not_found" }.into())
    });
    ann.records().create(key("lead/1"), fields(r#"{"name":"qZcanary-offline"}"#)).unwrap();
    for _ in 0..7 {
        sync_once(&ann, &nobody);
        clock.advance(86_400);
    }
    ann.records().update(key("lead/1"), fields(r#"{"name":"qZcanary-corrected"}"#)).unwrap();
    ann.close().unwrap();
    folder
}

fn sync_once(book: &Book, remote: &dyn fieldbook::Remote) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Nobody answers.
    drop(runtime.block_on(book.sync(remote, &RunOptions::default())));
}

/// A book whose edit lost against a later one of ben.
fn conflict_lost() -> Folder {
    let (folder, clock) = (Folder::new(), StillClock::new());
    let server = server(&clock);
    let (ann, ben) = ann_and_ben(&folder, &clock);
    ann.records().create(key("lead/1"), fields(r#"{"stage":"qZcanary-before"}"#)).unwrap();
    sync(&ann, &server);
    sync(&ben, &server);
    ann.records().update(key("lead/1"), fields(r#"{"stage":"qZcanary-hot"}"#)).unwrap();
    clock.advance(60);
    ben.records().update(key("lead/1"), fields(r#"{"stage":"qZcanary-cold"}"#)).unwrap();
    sync(&ben, &server);
    sync(&ann, &server);
    ann.close().unwrap();
    ben.close().unwrap();
    folder
}

fn scenarios() -> [(Folder, &'static str); 5] {
    [
        (refused(), "lead/1"),
        (held_by_a_dead_parent(), "call/1"),
        (token_expired(), "lead/1"),
        (offline_for_a_week(), "lead/1"),
        (conflict_lost(), "lead/1"),
    ]
}

#[test]
fn no_canary_leaves_with_a_default_bundle_in_any_form() {
    let mut seen = Vec::new();
    for (folder, about) in scenarios() {
        let before = folder.bytes("ann.book");
        folder.ok(&["log", "ann.book", "--export", "ann.log"]);
        let log = folder.bytes("ann.log");
        seen.extend(CANARIES.iter().filter(|canary| has(&log, canary)));
        for args in [&[][..], &["--ids", "hide", "-o", "ids.bundle"], &["--for", about]] {
            let all = [&["bundle", "ann.book", "--force", "-o", "ann.bundle"], args].concat();
            let all: Vec<_> = match args.contains(&"-o") {
                true => [&["bundle", "ann.book"], args].concat(),
                false => all,
            };
            let said = folder.ok(&all);
            let name = if args.contains(&"-o") { "ids.bundle" } else { "ann.bundle" };
            let bytes = folder.bytes(name);
            for canary in CANARIES {
                assert!(!has(&bytes, canary), "{canary} is in the bundle of {all:?}");
                assert!(!has(said.as_bytes(), canary), "{canary} is in {said}");
            }
            assert!(folder.ok(&["verify", name]).contains("left out of this bundle"));
        }
        assert!(folder.bytes("ann.book") == before, "looking changes nothing");
    }
    let missing: Vec<_> = CANARIES.iter().filter(|canary| !seen.contains(canary)).collect();
    assert!(missing.is_empty(), "the search finds each of them in a whole log: {missing:?}");
}

/// Leaves out what a bundle cannot have: the message, values, their size, and a reference to a
/// record that the log does not name.
fn without_values(value: &Value) -> Value {
    let text = value.to_string().replace("no: qZcanary-message", "(not in this bundle)");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    if let Some(members) = value.as_object_mut() {
        members.remove("bytes");
        members.remove("fields");
        if let Some(references) = members.get_mut("references").and_then(Value::as_array_mut) {
            references.retain(|one| !one.to_string().contains("qZcanary"));
        }
    }
    value
}

#[test]
fn a_bundle_alone_explains_what_the_book_explains() {
    let open = (with_an_open_conflict(), "lead/1");
    for (folder, about) in scenarios().into_iter().chain([open]) {
        folder.ok(&["bundle", "ann.book", "-o", "ann.bundle"]);
        folder.ok(&["bundle", "ann.book", "-o", "one.bundle", "--for", about]);
        for bundle in ["ann.bundle", "one.bundle"] {
            let of = |args: &[&str], file: &str| {
                let args: Vec<_> =
                    args.iter().map(|arg| if *arg == "X" { file } else { arg }).collect();
                folder.json(&args)
            };
            for args in [
                &["explain", "X", about, "--json"][..],
                &["status", "X", about, "--json"],
                &["plan", "X", "--json"],
                &["queue", "X", "--json"],
                &["failed", "X", "--json"],
            ] {
                let whole = of(args, "ann.book");
                if bundle == "one.bundle" && args.len() < 4 {
                    assert_eq!(of(args, bundle).len(), whole.len(), "{args:?}");
                    continue;
                }
                let whole: Vec<_> = whole.iter().map(without_values).collect();
                let there: Vec<_> = of(args, bundle).iter().map(without_values).collect();
                assert_eq!(there, whole, "{args:?} of {bundle}");
            }
        }
    }
}

#[test]
fn explain_from_a_bundle_says_code_time_tries_mates_and_what_to_do() {
    let told = |folder: &Folder, about: &str| {
        folder.ok(&["bundle", "ann.book", "-o", "ann.bundle"]);
        folder.ok(&["explain", "ann.bundle", about])
    };
    let folder = refused();
    let said = told(&folder, "lead/1");
    for part in ["validation", "2026-03-01", "(not in this bundle)", "dead-letters show BOOK"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let story = folder.ok(&["history", "ann.bundle", "lead/1"]);
    assert!(story.contains("In one transaction with 1 other change"), "{story}");
    assert!(story.contains("refused") && story.contains("(not in this bundle)"), "{story}");
    let letters = folder.json(&["dead-letters", "list", "ann.bundle", "--json"]);
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0]["tries"], 1);
    assert_eq!(letters[0]["unit"], letters[1]["unit"], "its mate went with it");

    let said = told(&held_by_a_dead_parent(), "call/1");
    assert!(said.contains("lead/1") && said.contains("explain BOOK lead/1"), "{said}");

    let said = told(&token_expired(), "lead/1");
    assert!(said.contains("sign") && said.contains("--token-file"), "{said}");

    let folder = offline_for_a_week();
    let said = told(&folder, "lead/1");
    assert!(said.contains("sync BOOK --server"), "{said}");
    let story = folder.ok(&["history", "ann.bundle", "--since", "1"]);
    assert!(story.contains("7 attempts") && story.contains("name_not_found"), "{story}");

    let folder = conflict_lost();
    told(&folder, "lead/1");
    let story = folder.ok(&["history", "ann.bundle", "lead/1"]);
    let story = story.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(story.contains("changed the same") && story.contains("conflict "), "{story}");
    assert!(story.contains("here (not in this bundle), there (not in this bundle)"), "{story}");
}

#[test]
fn a_hidden_value_is_told_by_every_verb_and_is_never_null() {
    let folder = with_an_open_conflict();
    folder.ok(&["bundle", "ann.book", "-o", "ann.bundle"]);
    let id = folder.json(&["conflicts", "list", "ann.bundle", "--json"])[0]["id"].clone();
    let id = id.as_str().unwrap();
    for args in [
        &["get", "ann.bundle", "lead/1"][..],
        &["get", "ann.bundle", "lead/1", "--json"],
        &["get", "ann.bundle", "lead/1", "--at", "4"],
        &["ls", "ann.bundle", "lead"],
        &["history", "ann.bundle", "lead/1"],
        &["history", "ann.bundle", "lead/1", "--table"],
        &["log", "ann.bundle", "--limit", "0"],
        &["show", "ann.bundle", "3"],
        &["diff", "ann.bundle", "1", "@"],
        &["conflicts", "show", "ann.bundle", id],
        &["conflicts", "show", "ann.bundle", id, "--json"],
    ] {
        let said = folder.ok(args);
        assert!(said.contains("(not in this bundle)"), "{args:?}: {said}");
    }
    let entries = folder.json(&["log", "ann.bundle", "--limit", "0", "--json"]);
    let ops = entries.iter().filter_map(|entry| entry["ops"].as_array()).flatten();
    assert!(ops.clone().count() > 0 && ops.clone().all(|op| op["fields"] == "hidden"));
    let shown = folder.one_json(&["show", "ann.bundle", "3", "--json"]);
    assert_eq!(shown["items"][0]["state"], "hidden");
    folder.ok(&["view", "ann.bundle", "-o", "ann.html"]);
    folder.ok(&["status", "ann.bundle"]);
    folder.ok(&["dead-letters", "list", "ann.bundle"]);
    let found = folder.ok(&["find", "ann.bundle", "values"]);
    assert_eq!(found, "what is not in this bundle was not searched\nno record holds values\n");
}

#[test]
fn a_bundle_without_redaction_gives_the_log_back_byte_for_byte() {
    let folder = refused();
    folder.ok(&["bundle", "ann.book", "-o", "ann.bundle", "--redact", "none"]);
    folder.ok(&["log", "ann.bundle", "--export", "one.log"]);
    folder.ok(&["log", "ann.book", "--export", "other.log"]);
    assert!(folder.bytes("one.log") == folder.bytes("other.log"));
    assert!(folder.ok(&["verify", "ann.bundle"]).starts_with("intact"));
    // A bundle that left something out is no log, and not the source of another one.
    folder.ok(&["bundle", "other.log", "-o", "less.bundle"]);
    let ran = folder.run(&["log", "less.bundle", "--export", "less.log"]);
    assert!(ran.code == 1 && ran.err.contains("values left out"), "{ran:?}");
    let ran = folder.run(&["bundle", "less.bundle", "-o", "again.bundle"]);
    assert!(ran.code == 1 && ran.err.contains("is a bundle already"), "{ran:?}");
    let ran = folder.run(&["salvage", "less.bundle", "new.book"]);
    assert!(ran.code == 1 && ran.err.contains("values left out"), "{ran:?}");
    let ran = folder.run(&["put", "less.bundle", "lead/9", "{}"]);
    assert!(ran.code == 1 && ran.err.contains("or a bundle"), "{ran:?}");
}

#[test]
fn a_dry_run_writes_nothing_and_counts_what_the_bundle_has() {
    let folder = refused();
    let before = folder.names();
    let planned = folder.one_json(&["bundle", "ann.book", "--dry-run", "--json"]);
    let told = folder.ok(&["bundle", "ann.book", "--dry-run"]);
    assert_eq!(folder.names(), before);
    for part in ["nothing was written", "lead/1, lead/2, lead/3", "ann", "STAYS HERE"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let made = folder.one_json(&["bundle", "ann.book", "-o", "ann.bundle", "--json"]);
    for member in ["bytes", "entries", "hidden_values", "hidden_texts", "record_ids"] {
        assert_eq!(planned[member], made[member], "{member}");
    }
    assert_eq!(made["bytes"], folder.bytes("ann.bundle").len());
    assert_eq!((&made["hidden_texts"], &made["told_fields"]), (&json!(5), &json!(0)));
    assert_eq!((&made["shown_values"], &made["declarations"]), (&json!(0), &json!(1)));
}

#[test]
fn a_shown_field_is_there_and_verify_says_that_nothing_proves_it() {
    let folder = refused();
    folder.ok(&["bundle", "ann.book", "-o", "ann.bundle", "--show", "lead.name"]);
    let record = folder.one_json(&["get", "ann.bundle", "lead/1", "--json"]);
    assert_eq!(record["fields"]["name"], "qZcanary-name");
    assert!(record["fields"]["(not in this bundle)"].is_string(), "{record}");
    assert_eq!(record["fields"]["phone"], Value::Null);
    // All fields of lead/2 are shown, so the edit is proven.
    let mate = folder.one_json(&["get", "ann.bundle", "lead/2", "--json"]);
    assert_eq!(mate["fields"], json!({ "name": "qZcanary-mate" }));
    let said = folder.ok(&["verify", "ann.bundle"]);
    assert!(said.contains("1 hidden value told in part"), "{said}");
    assert!(!has(&folder.bytes("ann.bundle"), "qZcanary-phone-5550101"));
}

#[test]
fn hidden_ids_are_nowhere_and_come_back_with_the_private_file() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ann.book", "--actor", "qZuser-ann"]);
    folder.ok(&["put", "ann.book", "lead/qZrecord-1", r#"{"name":"Ann"}"#]);
    folder.ok(&["put", "ann.book", "lead/qZrecord-2", r#"{"name":"Ben"}"#]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    folder.ok(&["patch", "ann.book", "lead/qZrecord-1", r#"{"name":"Anna"}"#]);
    let device = folder.one_json(&["status", "ann.book", "--json"])["device"].clone();
    folder.ok(&["bundle", "ann.book", "-o", "x.bundle", "--ids", "hide"]);
    folder.ok(&["bundle", "ann.book", "-o", "y.bundle", "--ids", "hide"]);
    let bytes = folder.bytes("x.bundle");
    let device = device.as_str().unwrap();
    for name in ["qZuser", "qZrecord", device] {
        assert!(!has(&bytes, name), "{name}");
    }
    let private = String::from_utf8(folder.bytes("x.bundle.private")).unwrap();
    let of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.ends_with(&format!("\t{name}")));
        line.unwrap().split('\t').next().unwrap().to_owned()
    };
    let first = of(&private, "lead/qZrecord-1");
    assert!(first.starts_with("lead/~"), "{first}");
    assert!(of(&private, "qZuser-ann").starts_with("actor ~"));
    let other = String::from_utf8(folder.bytes("y.bundle.private")).unwrap();
    assert_ne!(first, of(&other, "lead/qZrecord-1"), "another bundle has other pseudonyms");

    // The story of the pseudonym is the story of the record.
    let ran = folder.run(&["history", "x.bundle", &first]);
    assert!(ran.err.contains("nothing proves what it tells with pseudonyms"), "{ran:?}");
    let story = ran.out;
    assert!(story.contains("created it") && story.contains("Sent"), "{story}");
    let explained = folder.one_json(&["explain", "x.bundle", &first, "--json"]);
    assert_eq!(explained["state"], "pending");

    // It is chained to the head of the book, and nothing proves what it tells.
    let head = |file: &str| folder.one_json(&["verify", file, "--json"])["head"].clone();
    assert_eq!(head("x.bundle"), head("ann.book"));
    let said = folder.ok(&["verify", "x.bundle", "--key", &serving.keys[0]]);
    assert!(said.contains("claimed") && said.contains("level: claimed"), "{said}");
    let ran = folder.run(&["verify", "x.bundle", "--require", "chained"]);
    assert!(ran.code == 1 && ran.err.contains("only `claimed`"), "{ran:?}");
}

#[test]
fn a_bundle_about_one_record_tells_of_others_with_pseudonyms_and_proves_its_own() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    for number in 1..=3 {
        let record = format!("lead/qZrecord-{number}");
        folder.ok(&["put", "ann.book", &record, r#"{"name":"Ann"}"#]);
        folder.ok(&["sync", "ann.book", "--server", &serving.url]);
    }
    folder.ok(&["bundle", "ann.book", "-o", "x.bundle", "--for", "lead/qZrecord-2"]);
    let bytes = folder.bytes("x.bundle");
    assert!(has(&bytes, "qZrecord-2") && !has(&bytes, "qZrecord-1") && !has(&bytes, "qZrecord-3"));
    let key = &serving.keys[0];
    let found = folder.one_json(&["verify", "x.bundle", "--key", key, "--json"]);
    assert_eq!((&found["ok"], &found["level"]), (&json!(true), &json!("claimed")));
    let told = folder.json(&["log", "x.bundle", "--limit", "0", "--json"]);
    for entry in &told {
        let names_others = entry.to_string().contains("lead/~");
        assert_eq!(entry["told"] == json!(true), names_others, "{entry}");
    }
    assert_eq!(folder.json(&["ls", "x.bundle", "lead", "--json"]).len(), 3);
    let since = folder.one_json(&["bundle", "ann.book", "--dry-run", "--since", "@-1", "--json"]);
    assert_eq!(since["record_ids"], 1, "{since}");
}

#[test]
fn a_bundle_that_is_cut_off_says_so() {
    let folder = refused();
    folder.ok(&["bundle", "ann.book", "-o", "ann.bundle"]);
    let bytes = folder.bytes("ann.bundle");
    // Before the last entry, and before the end alone.
    for length in [bytes.len() - 200, bytes.len() - 37, bytes.len() - 1] {
        std::fs::write(folder.path("cut.bundle"), &bytes[..length]).unwrap();
        let ran = folder.run(&["verify", "cut.bundle"]);
        assert!(ran.code == 1 && ran.err.contains("cut off"), "{ran:?}");
        assert!(ran.err.contains("ask for the file again"), "{ran:?}");
        let ran = folder.run(&["explain", "cut.bundle", "lead/1"]);
        assert!(ran.code == 1 && ran.err.contains("cut off"), "{ran:?}");
        assert!(ran.err.contains("the bundle is damaged"), "{ran:?}");
        assert!(!ran.err.contains("export the log again"), "{ran:?}");
        let ran = folder.run(&["doctor", "cut.bundle"]);
        assert!(ran.code == 1 && ran.out.contains("ask for the file again"), "{ran:?}");
    }
}

#[test]
fn the_doctor_says_of_a_bundle_what_it_says_of_the_book_and_what_a_bundle_lacks() {
    let folder = refused();
    for args in [&["--redact", "all"][..], &["--ids", "hide"], &["--for", "lead/1"]] {
        folder.ok(&[&["bundle", "ann.book", "-o", "ann.bundle", "--force"], args].concat());
        let of = |file: &str| folder.run(&["doctor", file, "--json"]);
        let found = [of("ann.book"), of("ann.bundle")].map(|ran| {
            let found: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
            assert_eq!(ran.code, 1, "{ran:?}");
            found
        });
        let problems = |found: &Value| found["problems"].as_array().unwrap().len();
        assert_eq!(problems(&found[0]), problems(&found[1]), "{args:?}: {found:?}");
        assert_eq!(found[1]["not_in_the_file"], json!(["pages", "tables"]));
        let told = folder.run(&["doctor", "ann.bundle"]);
        // Only commands that read are advised: nothing can be done with a bundle.
        let advised = told.out.lines().filter(|line| line.trim().starts_with("fieldbook "));
        for line in advised {
            let is_reading = ["explain", "dead-letters list", "conflicts list"];
            assert!(is_reading.iter().any(|verb| line.contains(verb)), "{line}");
        }
    }
}

#[test]
fn a_call_that_contradicts_itself_is_refused() {
    let folder = refused();
    for args in [
        &["--redact", "none", "--show", "lead.name"][..],
        &["--redact", "none", "--ids", "hide"],
        &["--ids", "hide", "--for", "lead/1"],
        &["--show", "lead"],
    ] {
        let ran = folder.run(&[&["bundle", "ann.book", "-o", "x.bundle"], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
    }
    assert_eq!(folder.run(&["bundle", "ann.book"]).code, 2, "a file to write is needed");
    assert!(!folder.names().contains(&"x.bundle".to_owned()));
}
