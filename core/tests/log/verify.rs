use std::num::NonZeroU64;

use fieldbook_core::entry::frame::Frame;
use fieldbook_core::entry::{Control, Decision, Draft, Entry, EntryError, Item, Items, chain};
use fieldbook_core::limits;
use fieldbook_core::log::{
    Appender, DamageKind, ENTRIES, Store, StoreError, Verified, commit, entries, entries_from,
    export, export_in_parts, read_entry, read_head, survey, survey_export, verify, verify_export,
    verify_in_parts,
};
use fieldbook_core::{Hash, Seq};
use redb::ReadableTable;

use super::samples;

fn store_of(drafts: Vec<Draft>) -> Store {
    let store = samples::memory_store();
    samples::append_all(&store, drafts);
    store
}

fn small() -> Store {
    store_of((1..=4).map(samples::intent).collect())
}

fn stored(store: &Store) -> Vec<Vec<u8>> {
    let snapshot = store.begin_read().unwrap();
    let table = entries(&snapshot).unwrap();
    table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect()
}

/// Checks the log with some rows replaced (or, for `None`, removed), and leaves it unchanged.
fn changed<R>(
    store: &Store,
    rows: &[(u64, Option<&[u8]>)],
    look: impl FnOnce(&redb::Table<'_, u64, &[u8]>) -> R,
) -> R {
    let transaction = store.begin_write().unwrap();
    let mut table = transaction.open_table(ENTRIES).unwrap();
    for (seq, bytes) in rows {
        match bytes {
            Some(bytes) => drop(table.insert(seq, bytes).unwrap()),
            None => drop(table.remove(seq).unwrap()),
        }
    }
    let seen = look(&table);
    drop(table);
    transaction.abort().unwrap();
    seen
}

fn verify_changed(
    store: &Store,
    rows: &[(u64, Option<&[u8]>)],
) -> Result<Verified, fieldbook_core::log::Damage> {
    changed(store, rows, |table| verify_both(table))
}

/// Verifies a log in one piece, and in the smallest parts. Both must give the same result.
fn verify_both(
    table: &(impl ReadableTable<u64, &'static [u8]> + Sync),
) -> Result<Verified, fieldbook_core::log::Damage> {
    let whole = verify(table, |_| {});
    for part in (1..=2).filter_map(NonZeroU64::new) {
        let in_parts = verify_in_parts(table, part, |_| {});
        assert_eq!(format!("{in_parts:?}"), format!("{whole:?}"), "in parts of {part}");
    }
    whole
}

#[test]
fn what_append_returns_is_what_is_read_and_its_head_is_the_tables() {
    let store = samples::memory_store();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, None).unwrap();
    assert_eq!(appender.head(), None);
    let mut returned = Vec::new();
    for (number, draft) in (1..).zip(samples::every_variant()) {
        returned.push(appender.append(draft, samples::stamp(number)).unwrap());
        assert_eq!(read_head(appender.table().unwrap()).unwrap(), appender.head());
    }
    let head = appender.head().unwrap();
    drop(appender);
    commit(transaction).unwrap();

    let snapshot = store.begin_read().unwrap();
    let table = entries(&snapshot).unwrap();
    let read: Vec<Entry> = entries_from(&table, Seq::ZERO).collect::<Result<_, _>>().unwrap();
    assert_eq!(read, returned);
    assert_eq!(read_head(&table).unwrap(), Some(head));
    assert_eq!(head.seq, Seq::new(returned.len() as u64));
    assert_eq!(read_entry(&table, Seq::new(3)).unwrap().as_ref(), returned.get(2));
    assert_eq!(read_entry(&table, head.seq.next()).unwrap(), None);
    let from: Vec<_> =
        entries_from(&table, Seq::new(3)).map(|entry| entry.unwrap().header.seq).collect();
    assert_eq!(from.first(), Some(&Seq::new(3)));
    assert_eq!(from.len(), returned.len() - 2);
    assert_eq!(entries_from(&table, head.seq.next()).count(), 0);
}

/// The rows of the log's table.
fn rows(store: &Store) -> Vec<(u64, Vec<u8>)> {
    use redb::ReadableTable as _;
    let table = entries(&store.begin_read().unwrap()).unwrap();
    let rows = table.iter().unwrap().map(|row| row.unwrap());
    rows.map(|(seq, bytes)| (seq.value(), bytes.value().to_vec())).collect()
}

#[test]
fn entries_that_were_held_stand_in_the_log_as_those_that_were_written_one_by_one() {
    // More than is held at a time.
    const ENTRIES: u64 = 6_000;
    let one_by_one = store_of((1..=ENTRIES).map(samples::intent).collect());
    let store = samples::memory_store();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, None).unwrap();
    for number in 1..=ENTRIES {
        let held = appender.hold(samples::intent(number), samples::stamp(number)).unwrap();
        assert_eq!(appender.read(held.header.seq, None).unwrap().as_ref(), Some(&held));
        assert_eq!(appender.read(held.header.seq.next(), None).unwrap(), None);
        if number == 10 {
            assert_eq!(appender.head(), read_head(appender.table().unwrap()).unwrap());
        }
    }
    assert_eq!(appender.read(Seq::new(1), None).unwrap().unwrap().header.seq, Seq::new(1));
    appender.flush().unwrap();
    drop(appender);
    commit(transaction).unwrap();
    assert_eq!(rows(&store), rows(&one_by_one));
}

#[test]
fn a_whole_log_verifies_and_tells_its_head_and_its_progress() {
    let store = store_of((1..=1_500).map(samples::intent).collect());
    let snapshot = store.begin_read().unwrap();
    let table = entries(&snapshot).unwrap();
    let mut progress = Vec::new();
    let verified = verify(&table, |done| progress.push(done)).unwrap();
    assert_eq!(verified.entries, 1_500);
    assert_eq!(verified.head, read_head(&table).unwrap());
    assert_eq!(progress, [1_024, 1_500]);
    let mut progress = Vec::new();
    let part = NonZeroU64::new(400).unwrap();
    assert_eq!(verify_in_parts(&table, part, |done| progress.push(done)).unwrap(), verified);
    assert_eq!(progress, [400, 800, 1_200, 1_500]);

    let empty = samples::memory_store();
    let snapshot = empty.begin_read().unwrap();
    assert_eq!(verify_both(&entries(&snapshot).unwrap()).unwrap(), Verified::default());
}

#[test]
fn every_flipped_byte_of_every_entry_is_found_and_the_right_entry_is_named() {
    for store in [small(), store_of(samples::every_variant())] {
        for (seq, bytes) in (1..).zip(stored(&store)) {
            // Each bit of the small entries, and one bit of each byte of the large ones.
            let bits: &[u8] = if bytes.len() < 250 { &[1, 2, 4, 8, 16, 32, 64, 128] } else { &[1] };
            for at in 0..bytes.len() {
                for bit in bits {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= bit;
                    let damage = verify_changed(&store, &[(seq, Some(&flipped))]).unwrap_err();
                    assert_eq!(damage.seq, Seq::new(seq), "byte {at} ^ {bit:#x}: {damage}");
                }
            }
        }
    }
}

/// Surveys a changed log and the same log as an export, and returns the damaged entries.
fn survey_changed(store: &Store, rows: &[(u64, Option<&[u8]>)]) -> (u64, Vec<(u64, String)>) {
    let told = |found: &mut Vec<_>, damage: fieldbook_core::log::Damage| {
        found.push((damage.seq.number(), damage.kind.to_string()));
    };
    changed(store, rows, |table| {
        let (mut found, mut exported) = (Vec::new(), Vec::new());
        let seen = survey(table, |_| {}, |damage| told(&mut found, damage));
        let mut bytes = Vec::new();
        export(table, &mut bytes).unwrap();
        let seen_exported =
            survey_export(&mut bytes.as_slice(), |damage| told(&mut exported, damage));
        assert_eq!(
            (seen, &found),
            (seen_exported, &exported),
            "an exported log is looked at in the same way"
        );
        (seen.entries, found)
    })
}

/// `verify` ended at the first damage, so other damage was found one by one, if at all.
#[test]
fn every_damage_of_a_log_is_told_and_each_once() {
    let store = store_of((1..=9).map(samples::intent).collect());
    let rows = stored(&store);
    let flipped = |at: usize, byte: usize| {
        let mut row = rows[at - 1].clone();
        let byte = if byte == usize::MAX { row.len() / 2 } else { byte };
        row[byte] ^= 1;
        row
    };
    assert_eq!(survey_changed(&store, &[]), (9, vec![]));
    let (two, five, six) = (flipped(2, usize::MAX), flipped(5, usize::MAX), flipped(6, usize::MAX));
    let damaged = [(2, Some(two.as_slice())), (5, Some(&five)), (6, Some(&six))];
    let (entries, found) = survey_changed(&store, &damaged);
    assert_eq!(
        (entries, found.iter().map(|(seq, _)| *seq).collect::<Vec<_>>()),
        (9, vec![2, 5, 6]),
        "{found:?}"
    );
    let (entries, found) = survey_changed(&store, &[(3, None), (4, None), (8, Some(b"no entry"))]);
    assert_eq!(entries, 7);
    assert_eq!(
        found,
        [
            (3, "it is missing; the next one is entry 5".to_owned()),
            (8, "its bytes cannot be read".to_owned())
        ]
    );
}

#[test]
fn a_missing_a_moved_and_a_swapped_entry_are_named() {
    let store = small();
    let rows = stored(&store);
    let damage = verify_changed(&store, &[(2, None)]).unwrap_err();
    assert_eq!(damage.seq, Seq::new(2));
    assert!(matches!(damage.kind, DamageKind::Missing { next } if next == Seq::new(3)));
    let damage = verify_changed(&store, &[(1, None)]).unwrap_err();
    assert_eq!(damage.seq, Seq::new(1));
    let damage = verify_changed(&store, &[(2, Some(&rows[2])), (3, Some(&rows[1]))]).unwrap_err();
    assert!(matches!(damage.kind, DamageKind::Misplaced { named } if named == Seq::new(3)));
    // A missing last entry cannot be noticed: anchors exist for that.
    assert_eq!(verify_changed(&store, &[(4, None)]).unwrap().entries, 3);
}

#[test]
fn an_entry_sealed_on_another_chain_and_a_clock_that_stands_still_are_named() {
    let store = small();
    let rows = stored(&store);
    let third = Entry::decode(&rows[2]).unwrap();
    let draft = Draft { meta: third.meta.clone(), items: Items::from(third.items.clone()) };
    let elsewhere = fieldbook_core::entry::seal(&third.header, &draft, &third.hash).unwrap();
    let damage = verify_changed(&store, &[(3, Some(&elsewhere.bytes))]).unwrap_err();
    assert!(matches!(damage.kind, DamageKind::HashDiffers { .. }));
    assert_eq!(damage.seq, Seq::new(3));

    let second = Entry::decode(&rows[1]).unwrap();
    let mut header = third.header.clone();
    header.hlc = second.header.hlc;
    let stopped = fieldbook_core::entry::seal(&header, &draft, &second.hash).unwrap();
    let damage = verify_changed(&store, &[(3, Some(&stopped.bytes))]).unwrap_err();
    assert!(matches!(damage.kind, DamageKind::ClockNotGrowing));
}

#[test]
fn erasing_an_item_leaves_every_hash_and_verifies() {
    let store = small();
    let rows = stored(&store);
    let second = Entry::decode(&rows[1]).unwrap();
    let erased: Vec<_> =
        second.items.iter().map(|item| Item::Erased { commitment: item.commitment() }).collect();
    let previous = Entry::decode(&rows[0]).unwrap().hash;
    let draft = Draft { meta: second.meta.clone(), items: erased.into() };
    let sealed = fieldbook_core::entry::seal(&second.header, &draft, &previous).unwrap();
    assert_eq!(sealed.hash, second.hash);
    let verified = verify_changed(&store, &[(2, Some(&sealed.bytes))]).unwrap();
    assert_eq!((verified.entries, verified.erased_items), (4, 1));
}

#[test]
fn reading_names_the_damaged_entry_and_stops_there() {
    let store = small();
    let rows = stored(&store);
    let transaction = store.begin_write().unwrap();
    let mut table = transaction.open_table(ENTRIES).unwrap();
    table.insert(3, &rows[2][..20]).unwrap();
    let corrupt_at = |error: StoreError| match error {
        StoreError::Corrupt { seq, .. } => seq,
        other => panic!("{other}"),
    };
    let mut read = entries_from(&table, Seq::new(2));
    assert!(read.next().unwrap().is_ok());
    assert_eq!(corrupt_at(read.next().unwrap().unwrap_err()), Some(Seq::new(3)));
    assert!(read.next().is_none(), "nothing comes after an error");
    drop(read);
    assert_eq!(corrupt_at(read_entry(&table, Seq::new(3)).unwrap_err()), Some(Seq::new(3)));

    table.insert(3, rows[0].as_slice()).unwrap();
    assert_eq!(corrupt_at(read_entry(&table, Seq::new(3)).unwrap_err()), Some(Seq::new(3)));
    table.remove(3).unwrap();
    let error = entries_from(&table, Seq::ZERO).last().unwrap().unwrap_err();
    assert_eq!(corrupt_at(error), Some(Seq::new(3)));

    let mut newer = rows[3].clone();
    newer[4] = 3;
    table.insert(4, newer.as_slice()).unwrap();
    assert!(matches!(read_head(&table), Err(StoreError::NewerFormat { found: 3 })));
    newer[4] = 1;
    table.insert(4, newer.as_slice()).unwrap();
    let older = read_head(&table).map(drop).unwrap_err();
    assert!(matches!(older, StoreError::OlderFormat { found: 1 }));
    assert!(older.to_string().contains("made by a version before the first release"), "{older}");
}

/// Only `verify` computed the hashes again: an entry whose bytes were altered on the disk was read
/// and sent as if it were sound.
#[test]
fn no_entry_is_read_of_which_a_byte_was_altered() {
    let store = small();
    let rows = stored(&store);
    let transaction = store.begin_write().unwrap();
    let mut table = transaction.open_table(ENTRIES).unwrap();
    for (seq, row) in (1..).zip(&rows) {
        for at in 0..row.len() {
            let mut altered = row.clone();
            altered[at] ^= 0x10;
            table.insert(seq, altered.as_slice()).unwrap();
            let one = read_entry(&table, Seq::new(seq)).map(drop);
            let named = |error| match error {
                StoreError::Corrupt { seq, .. } => seq,
                StoreError::NewerFormat { .. } => Some(Seq::new(seq)),
                other => panic!("{other}"),
            };
            assert_eq!(one.map_err(named), Err(Some(Seq::new(seq))), "byte {at} of entry {seq}");
            let all = entries_from(&table, Seq::ZERO).find_map(Result::err).map(named);
            assert_eq!(all, Some(Some(Seq::new(seq))), "byte {at} of entry {seq}");
            let from = entries_from(&table, Seq::new(seq)).next().unwrap().map(drop);
            assert_eq!(from.map_err(named), Err(Some(Seq::new(seq))), "byte {at} of entry {seq}");
        }
        // The entry after one with an altered hash cannot be checked. The error names the altered
        // one.
        let mut altered = row.clone();
        *altered.last_mut().unwrap() ^= 1;
        table.insert(seq, altered.as_slice()).unwrap();
        if seq < rows.len() as u64 {
            let error = read_entry(&table, Seq::new(seq + 1)).unwrap_err();
            assert!(
                matches!(error, StoreError::Corrupt { seq: Some(named), .. } if named == Seq::new(seq)),
                "{error}"
            );
        }
        table.insert(seq, row.as_slice()).unwrap();
        assert!(read_entry(&table, Seq::new(seq)).unwrap().is_some());
    }
}

#[test]
fn an_entry_over_the_limit_is_refused_and_nothing_is_added() {
    let store = small();
    let head = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    let mut draft = samples::intent(9);
    draft
        .items
        .add(vec![0; limits::ENTRY_BYTES], &mut fieldbook_core::SeededRandomness::from_number(1));
    let error = appender.append(draft, samples::stamp(5)).unwrap_err();
    assert!(matches!(error, StoreError::Unstorable { .. }));
    assert_eq!(appender.head(), head);
    appender.append(samples::intent(5), samples::stamp(5)).unwrap();
    drop(appender);
    commit(transaction).unwrap();
    assert_eq!(verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap().entries, 5);
}

#[test]
#[should_panic(expected = "BUG: the log does not end at the given head")]
fn appending_after_a_stale_head_is_a_bug() {
    let store = small();
    let transaction = store.begin_write().unwrap();
    drop(Appender::open(&transaction, None));
}

#[test]
fn appending_with_a_clock_that_stands_still_is_an_error_and_adds_nothing() {
    let store = small();
    let head = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    let refused = appender.append(samples::intent(5), samples::stamp(4)).unwrap_err();
    assert!(
        matches!(refused, StoreError::Unstorable { source: EntryError::ClockEnded }),
        "{refused:?}"
    );
    assert_eq!(appender.head(), head);
    appender.append(samples::intent(5), samples::stamp(5)).unwrap();
}

/// A log with valid hashes can have an entry that nobody can read, if the writer measures sizes
/// differently from the reader. A server could cause this with one answer of hundreds of thousands
/// of names, and `verify` called the book intact.
#[test]
fn an_entry_that_does_not_read_is_damage_though_its_hash_holds() {
    let store = small();
    let (third, fourth) = (stored(&store).swap_remove(2), stored(&store).swap_remove(3));
    let frame = Frame::parse(&fourth).unwrap();
    let commitments: Vec<_> = frame.items_owned().iter().map(Item::commitment).collect();
    let header_length =
        usize::try_from(u32::from_le_bytes(fourth[..4].try_into().unwrap())).unwrap();
    let (meta_at, header) = (8 + header_length, &fourth[4..4 + header_length]);
    let meta = vec![0xff; frame.meta.len()];
    let previous = Hash::from_bytes(third[third.len() - 32..].try_into().unwrap());
    let hash = chain::link(&previous, &chain::content(header, &meta, commitments.into_iter()));
    let mut unreadable = fourth.clone();
    unreadable[meta_at..meta_at + meta.len()].copy_from_slice(&meta);
    let end = unreadable.len();
    unreadable[end - 32..].copy_from_slice(hash.as_bytes());
    let damage = verify_changed(&store, &[(4, Some(&unreadable))]).unwrap_err();
    assert_eq!(damage.seq, Seq::new(4));
    assert!(
        matches!(damage.kind, DamageKind::Undecodable { source: EntryError::Meta(_) }),
        "{damage:?}"
    );
}

#[test]
fn an_entry_that_could_not_be_read_back_is_not_appended() {
    let store = small();
    let head = read_head(&entries(&store.begin_read().unwrap()).unwrap()).unwrap();
    let transaction = store.begin_write().unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    // Each has one byte when written, and some hundred in memory.
    let many = Draft::control(Control::Decided(vec![Decision::ServerRead; 2_000_000]));
    assert!(many.clone().checked().is_err());
    let refused = appender.append(many, samples::stamp(5)).unwrap_err();
    assert!(
        matches!(refused, StoreError::Unstorable { source: EntryError::Meta(_) }),
        "{refused:?}"
    );
    assert_eq!(appender.head(), head, "nothing was added");
}

#[test]
fn an_exported_log_verifies_to_the_same_head_and_its_damage_is_named() {
    let store = small();
    let snapshot = store.begin_read().unwrap();
    let table = entries(&snapshot).unwrap();
    let mut bytes = Vec::new();
    assert_eq!(export(&table, &mut bytes).unwrap(), 4);
    let whole = verify(&table, |_| {}).unwrap();
    assert_eq!(verify_export(&mut bytes.as_slice()).unwrap(), whole);
    let mut in_parts = Vec::new();
    assert_eq!(export_in_parts(|| entries(&store.begin_read()?), &mut in_parts).unwrap(), 4);
    assert!(in_parts == bytes);

    // Where each entry begins, and where the end of the stream does.
    let first = bytes.len() - 37 - stored(&store).iter().map(|row| row.len() + 5).sum::<usize>();
    let mut bounds = vec![first];
    for row in stored(&store) {
        bounds.push(bounds.last().unwrap() + 5 + row.len());
    }
    for at in 0..bytes.len() {
        let entry = bounds.iter().filter(|bound| **bound <= at).count().max(1) as u64;
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let damage = verify_export(&mut flipped.as_slice()).unwrap_err();
        // A cover that was altered shows at the end, unless its length was.
        let is_in_cover = (20..first).contains(&at);
        let seq = if is_in_cover { 5 } else { entry };
        assert_eq!(damage.seq, Seq::new(seq), "byte {at}: {damage}");

        let damage = verify_export(&mut &bytes[..at]).unwrap_err();
        assert_eq!(damage.seq, Seq::new(entry), "cut off at {at}: {damage}");
        let mut surveyed = Vec::new();
        survey_export(&mut &bytes[..at], |damage| surveyed.push(damage.seq));
        assert_eq!(surveyed, [Seq::new(entry)], "cut off at {at}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert_eq!(verify_export(&mut longer.as_slice()).unwrap_err().seq, Seq::new(5));
}

#[test]
fn a_stream_that_leaves_entries_out_and_is_summed_anew_is_not_the_log_on_its_cover() {
    let store = small();
    let mut bytes = Vec::new();
    export(&entries(&store.begin_read().unwrap()).unwrap(), &mut bytes).unwrap();
    let last = stored(&store).last().unwrap().len() + 5;
    let kept = bytes.len() - 37 - last;
    let sum = blake3::hash(&bytes[..kept]);
    let shorter = [&bytes[..kept], &[33, 0, 0, 0, 255], sum.as_bytes()].concat();
    let damage = verify_export(&mut shorter.as_slice()).unwrap_err();
    assert_eq!(damage.seq, Seq::new(4));
    assert!(format!("{:?}", damage.kind).contains("the entry on its cover"), "{damage:?}");
}

/// Streams of version 1 have neither cover nor end.
#[test]
fn an_exported_log_of_version_1_is_read() {
    let store = small();
    let mut bytes = b"fieldbook-log 1\n".to_vec();
    for row in stored(&store) {
        bytes.extend(u32::try_from(row.len()).unwrap().to_le_bytes());
        bytes.extend(row);
    }
    let whole = verify(&entries(&store.begin_read().unwrap()).unwrap(), |_| {}).unwrap();
    assert_eq!(verify_export(&mut bytes.as_slice()).unwrap(), whole);
}

#[test]
fn an_exported_log_that_claims_too_much_takes_no_memory_for_it() {
    let length = u32::MAX.to_le_bytes();
    let bytes = [b"fieldbook-log 1\n".as_slice(), &length].concat();
    let damage = verify_export(&mut bytes.as_slice()).unwrap_err();
    assert!(matches!(damage.kind, DamageKind::Unframed { .. }));
    for parts in [&[length.as_slice()][..], &[&[2, 0, 0, 0], b"{}", &length, &[1]]] {
        let bytes = [b"fieldbook-log 2\n".as_slice(), &parts.concat()].concat();
        assert!(verify_export(&mut bytes.as_slice()).is_err());
    }
    let damage = verify_export(&mut b"something else altogether".as_slice()).unwrap_err();
    assert!(matches!(damage.kind, DamageKind::Unreadable { .. }));
}

/// An export to a slow writer kept every page of the file from its beginning.
#[test]
fn a_log_that_grows_while_it_is_exported_in_parts_is_exported_as_it_was() {
    struct Slow<'s>(&'s Store, Vec<u8>);
    impl std::io::Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            samples::append_all(self.0, [samples::intent(7)]);
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let store = samples::memory_store();
    samples::append_all(&store, (0..20_000).map(samples::intent));
    let (mut slow, mut opened) = (Slow(&store, Vec::new()), 0);
    let open = || {
        opened += 1;
        entries(&store.begin_read()?)
    };
    assert_eq!(export_in_parts(open, &mut slow).unwrap(), 20_000);
    assert!(opened > 3, "{opened} parts");
    assert_eq!(verify_export(&mut slow.1.as_slice()).unwrap().entries, 20_000);
}
