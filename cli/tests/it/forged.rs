//! Whoever can write a book's file can write another log into it. What `verify` says of such a
//! book, with and without the server's key, and what it says of a true one after restarts and
//! changes of keys.

use fieldbook_core::entry::{
    Control, Draft, Entry, Item, ItemValue, Items, Meta, Receipt, SignedNote, seal,
};
use fieldbook_core::note::{Ed25519Key, Note, Signer, Statement, sign};
use fieldbook_core::{Hash, Seq};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};

use crate::support::{Folder, Ran, Serving};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries-1");

/// What a forger does with the notes.
#[derive(Clone, Copy)]
enum Notes {
    /// Leaves them as they are.
    Keep,
    /// Writes that nothing was signed.
    Unsay,
    /// States the new hashes, and signs with a key of the same name.
    SignAnew,
    /// States the new hashes above the server's signatures.
    KeepSignatures,
}

fn stored(folder: &Folder) -> Vec<Entry> {
    let database = redb::Database::open(folder.path("ann.book")).unwrap();
    let table = database.begin_read().unwrap().open_table(ENTRIES).unwrap();
    let rows = table.iter().unwrap().map(|row| Entry::decode(row.unwrap().1.value()).unwrap());
    rows.collect()
}

/// Alters the name of the lead, seals every entry anew, and rewrites the receipts.
fn forge(folder: &Folder, with_notes: Notes) {
    let mut hashes = vec![Hash::ZERO];
    let mut sealed = Vec::new();
    for entry in stored(folder) {
        let mut items: Vec<Item> = entry.items.clone();
        for item in &mut items {
            if let (Some(bytes), Item::Present { value, .. }) =
                (item.bytes().map(<[u8]>::to_vec), &mut *item)
            {
                let text = String::from_utf8(bytes).unwrap().replace("Lake Street", "Mill Street");
                *value = ItemValue::Bytes(text.into_bytes());
            }
        }
        let at = |seq: Seq| hashes[usize::try_from(seq.number()).unwrap()];
        let mut meta = entry.meta.clone();
        match &mut meta {
            Meta::Upstream(upstream) => {
                let anew = |receipt: Receipt| Receipt { hash: at(receipt.seq), ..receipt };
                upstream.receipt = upstream.receipt.map(anew);
            }
            Meta::Control(Control::Note(signed)) => *signed = forged(signed, with_notes, at),
            _ => {}
        }
        let draft = Draft { meta, items: Items::from(items) };
        let made = seal(&entry.header, &draft, hashes.last().unwrap()).unwrap();
        hashes.push(made.hash);
        sealed.push((entry.header.seq.number(), made.bytes));
    }
    let database = redb::Database::open(folder.path("ann.book")).unwrap();
    let transaction = database.begin_write().unwrap();
    for (seq, bytes) in &sealed {
        transaction.open_table(ENTRIES).unwrap().insert(seq, bytes.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    folder.ok(&["rebuild", "ann.book"]);
}

fn forged(signed: &SignedNote, with_notes: Notes, at: impl Fn(Seq) -> Hash) -> SignedNote {
    let note = Note::parse(&signed.note).unwrap();
    let stated = note.statement().unwrap();
    let stated = Statement { hash: at(stated.seq), ..stated };
    match with_notes {
        Notes::Keep => signed.clone(),
        Notes::Unsay => SignedNote { note: String::new(), keys: Vec::new() },
        Notes::SignAnew => {
            let mine = Ed25519Key::from_seed(note.signatures[0].name, &[6; 32]).unwrap();
            SignedNote { note: sign(&stated, &[&mine]).unwrap(), keys: vec![mine.verifier()] }
        }
        Notes::KeepSignatures => {
            let (_, signatures) = signed.note.rsplit_once("\n\n").unwrap();
            SignedNote { note: format!("{}\n{signatures}", stated.text()), ..signed.clone() }
        }
    }
}

fn write_and_sync(folder: &Folder, serving: &Serving, stage: &str) {
    folder.ok(&["patch", "ann.book", "lead/42", &json!({ "stage": stage }).to_string()]);
    folder.ok(&["sync", "ann.book", "--server", &serving.url]);
}

/// A book that was synced twice, and the key of its server.
fn synced() -> (Folder, String) {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/42", r#"{"name":"Lake Street School"}"#]);
    let serving = Serving::start(&folder, &[]);
    let key = serving.keys.concat();
    write_and_sync(&folder, &serving, "new");
    write_and_sync(&folder, &serving, "won");
    assert!(serving.stop("-TERM").success());
    (folder, key)
}

fn ranges(folder: &Folder, keys: &[&str]) -> Vec<(u64, u64, String)> {
    let keys: Vec<_> = keys.iter().flat_map(|key| ["--key", key]).collect();
    let said = folder.one_json(&[["verify", "ann.book", "--json"].as_slice(), &keys].concat());
    let number = |range: &Value, name: &str| range[name].as_u64().unwrap();
    let ranges = said["ranges"].as_array().unwrap().iter();
    ranges
        .map(|one| (number(one, "from"), number(one, "to"), one["level"].as_str().unwrap().into()))
        .collect()
}

#[test]
fn a_book_is_anchored_up_to_its_last_receipt_for_a_reader_with_the_servers_key() {
    let (folder, key) = synced();
    let found = ranges(&folder, &[&key]);
    let [(1, anchored, level), (after, last, rest)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((level.as_str(), rest.as_str(), *after), ("anchored", "chained", anchored + 1));
    let said = folder.ok(&["verify", "ann.book", "--key", &key]);
    assert!(said.contains(&format!("signed entry {anchored} on ")), "{said}");
    assert!(said.contains("level: chained"), "the last entries are not: {said}");
    let required = |args: &[&str]| {
        let all = ["verify", "ann.book", "--require", "anchored", "--key", &key];
        folder.run(&[all.as_slice(), args].concat())
    };
    assert_eq!(required(&["--upto", &anchored.to_string()]).code, 0);
    let ran = required(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let told = format!("entries {after}–{last} are only `chained`, not `anchored`");
    assert!(ran.err.contains(&told), "{ran:?}");
    // The same by the exported log, by either verifier's reading of it.
    folder.ok(&["log", "ann.book", "--export", "ann.log"]);
    let said = folder.ok(&["verify", "ann.log", "--key", &key]);
    assert!(said.contains(&format!("signed entry {anchored} on ")), "{said}");
}

#[test]
fn without_a_key_a_book_is_chained_and_says_which_keys_it_names() {
    let (folder, key) = synced();
    assert!(ranges(&folder, &[]).iter().all(|(.., level)| level == "chained"));
    let said = folder.ok(&["verify", "ann.book"]);
    assert!(said.contains(&format!("--key {key}")) && !said.contains("server knows"), "{said}");
    assert!(folder.ok(&["keys", "list", "ann.book"]).contains(&key));
    assert!(folder.ok(&["keys", "server", "server.store"]).contains(&key));
    let ran = folder.run(&["verify", "ann.book", "--require", "anchored"]);
    assert!(
        ran.code == 1 && ran.err.contains("ask the owner of the server for the key"),
        "{ran:?}"
    );
}

/// The program that once made `verify` call its book the one that the server knew.
#[test]
fn a_book_that_was_altered_and_sealed_anew_with_other_receipts_is_found() {
    for with_notes in [Notes::Keep, Notes::Unsay, Notes::SignAnew, Notes::KeepSignatures] {
        let (folder, key) = synced();
        let (_, anchored, _) = ranges(&folder, &[&key]).remove(0);
        forge(&folder, with_notes);
        assert!(folder.ok(&["get", "ann.book", "lead/42"]).contains("Mill Street School"));
        let upto = anchored.to_string();
        let ran = folder.run(&[
            "verify",
            "ann.book",
            "--tables",
            "--key",
            &key,
            "--require",
            "anchored",
            "--upto",
            &upto,
        ]);
        let Ran { code, out, err } = &ran;
        assert_eq!(*code, 1, "{ran:?}");
        assert!(!out.contains("anchored") && !out.contains("server knows"), "{ran:?}");
        let why = match with_notes {
            Notes::Keep => "than this log has: the log was rewritten",
            Notes::Unsay | Notes::SignAnew => "are only `chained`, not `anchored`",
            Notes::KeepSignatures => "names a key that was given, and is not signed by it",
        };
        assert!(err.contains(why), "{why}: {ran:?}");
        let doctor = folder.run(&["doctor", "ann.book"]);
        let is_told = doctor.out.contains("the log was rewritten");
        assert_eq!(is_told, matches!(with_notes, Notes::Keep), "{doctor:?}");
        // Without the key nobody can know, unless the notes contradict the log.
        let ran = folder.run(&["verify", "ann.book", "--tables"]);
        assert_eq!(ran.code, i32::from(matches!(with_notes, Notes::Keep)), "{ran:?}");
        assert!(!ran.out.contains("server knows") && !ran.out.contains("anchored"), "{ran:?}");
    }
}

#[test]
fn receipts_stay_good_after_a_restart_and_after_a_change_of_keys() {
    let (folder, old) = synced();
    let anchored = |key: &str| ranges(&folder, &[key]).remove(0);
    let (_, first, _) = anchored(&old);
    // A restart: the same key.
    let serving_again = Serving::start(&folder, &[]);
    assert_eq!(serving_again.keys, std::slice::from_ref(&old));
    write_and_sync(&folder, &serving_again, "restarted");
    assert!(serving_again.stop("-TERM").success());
    let (_, second, level) = anchored(&old);
    assert!(second > first && level == "anchored");
    // A new key beside the old one: a reader with either is sure.
    let added = folder.ok(&["keys", "add", "server.store", "--name", "sync.example.com"]);
    let new = added.lines().next().unwrap().to_owned();
    let both = Serving::start(&folder, &[]);
    assert_eq!(both.keys, [old.clone(), new.clone()]);
    write_and_sync(&folder, &both, "both");
    assert!(both.stop("-TERM").success());
    assert_eq!(anchored(&old), anchored(&new));
    let (_, third, _) = anchored(&old);
    // The old one is retired, and its receipts stay.
    let id = old.split('+').nth(1).unwrap();
    let advice = format!("# fieldbook keys retire server.store {id}");
    assert!(added.contains(&advice), "{added}");
    folder.ok(&["keys", "retire", "server.store", id]);
    let only_new = Serving::start(&folder, &[]);
    assert_eq!(only_new.keys, std::slice::from_ref(&new));
    write_and_sync(&folder, &only_new, "new");
    assert!(only_new.stop("-TERM").success());
    assert_eq!(anchored(&old), (1, third, "anchored".to_owned()));
    let (_, fourth, level) = anchored(&new);
    assert!(fourth > third && level == "anchored");
    let ran = folder.run(&["keys", "retire", "server.store", new.split('+').nth(1).unwrap()]);
    assert!(ran.code == 1 && ran.err.contains("add another one first"), "{ran:?}");
}

#[test]
fn a_checkpoint_says_who_and_a_wrong_key_proves_nothing() {
    let (folder, key) = synced();
    let made = folder.ok(&["keys", "make", "ann.key", "--name", "device/ann"]);
    let device = made.lines().next().unwrap();
    let said = folder.ok(&["checkpoint", "ann.book", "--signer", "ann.key"]);
    assert!(said.contains("fieldbook.checkpoint/v1\n"), "{said}");
    let found = ranges(&folder, &[&key, device]);
    let levels: Vec<_> = found.iter().map(|(.., level)| level.as_str()).collect();
    assert_eq!(levels, ["anchored", "signed", "chained"]);
    // The owner of a server can confirm the server's key, and not that of a device.
    let told = folder.ok(&["verify", "ann.book"]);
    assert!(told.contains(&format!("--key {key}")) && !told.contains("--key device/"), "{told}");
    // A secret key is never overwritten.
    let again = folder.run(&["keys", "make", "ann.key", "--name", "device/ann"]);
    assert!(again.code == 1 && !again.err.contains("--force"), "{again:?}");
    let other = folder.ok(&["keys", "make", "other.key", "--name", "device/ann"]);
    let other = other.lines().next().unwrap();
    assert!(ranges(&folder, &[other]).iter().all(|(.., level)| level == "chained"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path("ann.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let log = folder.ok(&["log", "ann.book", "--from", "1"]);
    assert!(log.contains("checkpoint of entry ") && log.contains("receipt of entry "), "{log}");
    let told = folder.ok(&["history", "ann.book"]);
    assert!(told.contains("was signed by device/ann") && !told.contains("server/"), "{told}");
    // No secret is in the file of the book.
    let secret = std::fs::read_to_string(folder.path("ann.key")).unwrap();
    let secret = secret.trim().splitn(5, '+').nth(4).unwrap().to_owned();
    assert!(!folder.bytes("ann.book").windows(secret.len()).any(|part| part == secret.as_bytes()));
}

/// Somebody altered a synced book, sealed it anew and signed the notes anew. Every hash matched,
/// and only a reader with the server's key could tell. The server itself can tell without a key.
#[test]
fn the_server_tells_a_forged_book_from_the_one_that_it_saw() {
    let (folder, _) = synced();
    forge(&folder, Notes::SignAnew);
    assert!(folder.ok(&["verify", "ann.book", "--tables"]).contains("intact"));
    let serving = Serving::start(&folder, &[]);
    let ran = folder.run(&["verify", "ann.book", "--server", &serving.url]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("the log was rewritten: entry"), "{}", ran.err);
    let ran = folder.run(&["verify", "ann.book", "--server", &serving.url, "--json"]);
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (ran.code, &said["ok"], &said["server"]["is"]),
        (1, &json!(false), &json!("rewritten"))
    );
}
