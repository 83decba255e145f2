//! Every template, over the golden log that has every variant of an entry, and the words of real
//! exchanges. `FIELDBOOK_WRITE_GOLDEN=1` writes the approved sentences anew.

use std::path::PathBuf;

use super::*;
use crate::entry::Control;
use crate::fields::FieldsJson;
use crate::record::Change;

fn golden(name: &str) -> Vec<Entry> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2").join(name);
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.strip_prefix(b"fieldbook-log 1\n").unwrap();
    let mut entries = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (entry, after) = after.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        entries.push(Entry::decode(entry).unwrap());
        rest = after;
    }
    entries
}

/// The records that an entry names, each with an image before and after it.
fn effects(entry: &Entry) -> Vec<Effect> {
    let keys: BTreeSet<RecordKey> = match &entry.meta {
        Meta::Intent(intent) => intent.ops.iter().map(|op| op.key.clone()).collect(),
        Meta::Upstream(upstream) => upstream.changes.iter().map(|one| one.key.clone()).collect(),
        Meta::Control(_) => BTreeSet::new(),
    };
    let image = |text| Some(FieldsJson::parse(text).unwrap());
    let of = |key| {
        let change =
            Change { before: image(r#"{"stage":"new"}"#), after: image(r#"{"stage":"hot"}"#) };
        Effect { key, seen: change.clone(), confirmed: change }
    };
    keys.into_iter().map(of).collect()
}

/// The authors that the entry after an answer names.
fn authors<'a>(entries: &'a [Entry], entry: &Entry) -> &'a [Authored] {
    let after = entries.iter().find(|one| one.header.seq == entry.header.seq.next());
    match (&entry.meta, after.map(|after| &after.meta)) {
        (Meta::Upstream(_), Some(Meta::Control(Control::Authors(authors)))) => authors,
        _ => &[],
    }
}

fn paragraphs_of(entries: &[Entry], about: Option<&RecordKey>) -> Vec<Paragraph> {
    let mut teller = Teller::new(about.cloned());
    entries.iter().for_each(|entry| teller.tell(entry, &effects(entry), authors(entries, entry)));
    teller.end()
}

/// Tells each decision in an entry of its own, after the entries before it.
fn each_decision(entries: &[Entry]) -> Vec<Paragraph> {
    let mut paragraphs = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let Meta::Control(Control::Decided(decisions)) = &entry.meta else { continue };
        for decision in decisions {
            let meta = Meta::Control(Control::Decided(vec![decision.clone()]));
            let mut teller = Teller::new(None);
            entries.iter().take(at).for_each(|entry| teller.learn(entry));
            teller.tell(&Entry { meta, ..entry.clone() }, &[], &[]);
            paragraphs.extend(teller.end());
        }
    }
    paragraphs
}

fn lines(paragraphs: &[Paragraph]) -> String {
    let line = |one: &Paragraph| {
        let sentences = one.sentences.iter();
        let each = sentences.map(|one| format!("    {:?}: {}\n", one.weight, one.text));
        format!("{}–{}\n{}", one.from, one.to, each.collect::<String>())
    };
    paragraphs.iter().map(line).collect()
}

#[test]
fn every_variant_of_an_entry_has_its_approved_sentence() {
    let entries = golden("every-variant.log");
    let whole = lines(&paragraphs_of(&entries, None));
    let lead = RecordKey::parse("lead", "42").unwrap();
    let alone = lines(&each_decision(&entries));
    let text = format!(
        "Each decision alone\n\n{alone}\nThe device\n\n{whole}\nlead/42\n\n{}",
        lines(&paragraphs_of(&entries, Some(&lead)))
    );
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/rules/story/approved.txt");
    if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap());
}

#[test]
fn no_sentence_shows_the_program_instead_of_words() {
    for name in
        ["every-variant.log", "every-fold.log", "another-server.log", "erased.log", "example.log"]
    {
        let entries = golden(name);
        let keys: BTreeSet<RecordKey> = entries
            .iter()
            .flat_map(|entry| effects(entry).into_iter().map(|one| one.key))
            .collect();
        let mut all = paragraphs_of(&entries, None);
        keys.iter().for_each(|key| all.extend(paragraphs_of(&entries, Some(key))));
        for sentence in all.iter().flat_map(|one| &one.sentences) {
            let text = &sentence.text;
            assert!(text.ends_with('.'), "a sentence ends: {text}");
            let mut words = text.split(|letter: char| !letter.is_alphanumeric());
            assert!(!words.any(|word| word == "null"), "{text}");
            for wrong in ["None", "Some(", "Seq(", "Hlc(", "Version(", "  ", "..", " ,", "{}"] {
                assert!(!text.contains(wrong), "{wrong:?} in {text}");
            }
        }
    }
}

/// The log with every variant has each of them, so no template is without its sentence.
#[test]
fn the_log_of_the_approved_sentences_has_every_decision_and_every_outcome() {
    let entries = golden("every-variant.log");
    let mut decisions = BTreeSet::new();
    let mut classes = BTreeSet::new();
    for entry in &entries {
        match &entry.meta {
            Meta::Control(Control::Decided(all) | Control::PersonActed(_, all)) => {
                decisions.extend(
                    all.iter().map(|one| format!("{one:?}")).map(|text| {
                        text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
                    }),
                );
            }
            Meta::Upstream(upstream) => {
                classes.extend(upstream.outcomes.iter().map(|one| format!("{:?}", one.class)));
            }
            _ => {}
        }
    }
    assert_eq!((decisions.len(), classes.len()), (26, 8), "{decisions:?} {classes:?}");
}

#[test]
fn an_exchange_is_one_paragraph_headed_by_its_worst() {
    let entries = golden("every-variant.log");
    let paragraph = |from: u64| {
        let all = paragraphs_of(&entries, None);
        all.into_iter().find(|one| one.from.number() <= from && from <= one.to.number()).unwrap()
    };
    let planned =
        entries.iter().find(|entry| matches!(entry.meta, Meta::Control(Control::Planned(_))));
    let exchange = paragraph(planned.unwrap().header.seq.number());
    assert!(exchange.to > exchange.from, "plan, answer and decisions are told together");
    let worst = exchange.sentences.iter().map(|one| one.weight).max().unwrap();
    assert_eq!(exchange.weight, worst);
    assert!(exchange.text().starts_with(exchange.head().unwrap()), "{}", exchange.text());
}

#[test]
fn an_erased_value_is_told_as_erased() {
    let mut entries = golden("example.log");
    for entry in &mut entries {
        for item in &mut entry.items {
            *item = crate::entry::Item::Erased { commitment: item.commitment() };
        }
    }
    let text = lines(&paragraphs_of(&entries, None));
    assert!(text.contains("(erased)") && !text.contains('{'), "{text}");
}

#[test]
fn the_author_of_a_change_of_the_server_is_never_the_user_of_this_device() {
    let entries = golden("every-variant.log");
    let all = paragraphs_of(&entries, None);
    let of_server = all.iter().flat_map(|one| &one.sentences);
    let of_server: Vec<_> = of_server
        .filter(|one| one.text.contains("another device") || one.text.starts_with("Another"))
        .collect();
    assert!(!of_server.is_empty());
    let users: BTreeSet<_> = entries.iter().map(|entry| entry.header.actor.to_string()).collect();
    for sentence in of_server {
        assert!(
            !users.iter().any(|user| sentence.text.starts_with(user.as_str())),
            "{}",
            sentence.text
        );
    }
}

#[test]
fn a_gap_is_told_in_its_two_greatest_units() {
    let at = WallTime::from_milliseconds;
    let of = |seconds: i64| gap(at(0), at(seconds * 1_000));
    assert_eq!(of(29), None);
    assert_eq!(of(56).unwrap(), "56 s later");
    assert_eq!(of(2 * 3_600 + 14 * 60 + 5).unwrap(), "2 h 14 min later");
    assert_eq!(of(3 * 86_400).unwrap(), "3 d later");
    assert_eq!(of(-645).unwrap(), "the device's clock was set back by 10 min 45 s");
}
