//! Splits an answer into several entries if it is too large for one entry.
//!
//! Invariants:
//! 1. The changes keep their order, and each keeps its values. The last entry has the rest of the
//!    answer, so that no cursor comes before its page.
//! 2. An answer of ordinary size is one entry.

use crate::entry::{ChangeMeta, Item, ItemIndex, Items, OutcomeMeta, Upstream};
use crate::limits;
use crate::record::FieldWrites;

/// Returns the entries that an answer becomes, in their order.
pub(super) fn split(upstream: Upstream, items: Items) -> Vec<(Upstream, Items)> {
    let mut items: Vec<Option<Item>> = Vec::from(items).into_iter().map(Some).collect();
    let Upstream { request, server, epoch, server_time, mut outcomes, changes, cursors, receipt } =
        upstream;
    let part = |changes| Upstream {
        request,
        server,
        epoch,
        server_time,
        outcomes: Vec::new(),
        changes,
        cursors: Vec::new(),
        receipt: None,
    };
    let (mut parts, mut meta_bytes, mut item_bytes) = (Vec::new(), 0, 0);
    let (mut held, mut values): (_, Vec<Item>) = (Vec::new(), Vec::new());
    for mut change in changes {
        meta_bytes += meta_size(&change);
        change.fields = change.fields.map(|index| take(&mut items, index, &mut values));
        let value = change.fields.and_then(|_| values.last()).and_then(Item::bytes);
        item_bytes += 32 + value.map_or(0, <[u8]>::len);
        held.push(change);
        let is_full = held.len() >= limits::ENTRY_CHANGES
            || meta_bytes >= limits::META_SPLIT_BYTES
            || item_bytes >= limits::ITEMS_SPLIT_BYTES;
        if is_full {
            parts.push((part(std::mem::take(&mut held)), std::mem::take(&mut values).into()));
            (meta_bytes, item_bytes) = (0, 0);
        }
    }
    for OutcomeMeta { message, .. } in &mut outcomes {
        *message = message.map(|index| take(&mut items, index, &mut values));
    }
    parts.push((Upstream { outcomes, cursors, receipt, ..part(held) }, values.into()));
    parts
}

/// Moves an item to the entry that is being filled, and returns its index there.
fn take(items: &mut [Option<Item>], index: ItemIndex, values: &mut Vec<Item>) -> ItemIndex {
    let item =
        usize::try_from(index).ok().and_then(|index| items.get_mut(index)).and_then(Option::take);
    let at = ItemIndex::try_from(values.len()).unwrap_or(ItemIndex::MAX);
    values.extend(item);
    at
}

/// Estimates the size of a change in an entry, in bytes, without its values.
fn meta_size(change: &ChangeMeta) -> usize {
    let of_names =
        |write: &FieldWrites| write.fields.iter().map(|name| name.len() + 3).sum::<usize>();
    let older = change.older.iter().map(|write| 28 + of_names(write)).sum::<usize>();
    64 + change.key.id.as_str().len() + change.key.entity.as_str().len() + older
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Extent;
    use crate::ids::{OpId, RequestId, ServerEpoch, ServerId};
    use crate::names::{EntityType, RecordKey};
    use crate::numbers::{Cursor, Version};
    use crate::random::SeededRandomness;
    use crate::time::{Hlc, WallTime};

    fn written(field: usize) -> FieldWrites {
        let fields = vec![format!("field{field}")];
        FieldWrites { edited_at: Hlc::from_bits(u64::MAX), op: OpId::from_bytes([1; 16]), fields }
    }

    fn answer(records: u64, older: usize, bytes: usize) -> (Upstream, Items) {
        let (mut items, mut random) = (Items::default(), SeededRandomness::from_number(1));
        let changes = (0..records).map(|number| ChangeMeta {
            key: RecordKey::parse("lead", &number.to_string()).unwrap(),
            version: Version::new(number + 1),
            extent: Extent::Whole,
            edited_at: Hlc::ZERO,
            op: OpId::from_bytes([1; 16]),
            older: (0..older).map(written).collect(),
            floor: None,
            fields: Some(items.add(format!("{number}{}", " ".repeat(bytes)), &mut random)),
            undeclared: false,
        });
        let upstream = Upstream {
            request: RequestId::from_bytes([1; 16]),
            server: ServerId::from_bytes([1; 16]),
            epoch: ServerEpoch::from_bytes([1; 16]),
            server_time: WallTime::default(),
            outcomes: Vec::new(),
            changes: changes.collect(),
            cursors: vec![(EntityType::parse("lead").unwrap(), Cursor::default())],
            receipt: None,
        };
        (upstream, items)
    }

    #[test]
    fn an_ordinary_answer_stays_one_entry() {
        let (upstream, items) = answer(limits::ENTRY_CHANGES as u64 - 1, 3, 100);
        assert_eq!(split(upstream.clone(), items.clone()), [(upstream, items)]);
    }

    #[test]
    fn a_large_answer_keeps_each_record_with_its_values_and_the_cursors_come_last() {
        for (upstream, items) in
            [answer(60, 10_000, 1), answer(40, 0, 1024 * 1024), answer(5_000, 3, 100)]
        {
            let records = upstream.changes.len();
            let parts = split(upstream, items);
            assert!(parts.len() > 1);
            let mut next = 0;
            for (number, (part, items)) in parts.iter().enumerate() {
                assert_eq!(part.cursors.is_empty(), number + 1 < parts.len());
                assert!(part.changes.len() <= limits::ENTRY_CHANGES);
                let items: Vec<Item> = items.clone().into();
                for change in &part.changes {
                    assert_eq!(change.key.id.as_str(), next.to_string());
                    let value = items[change.fields.unwrap() as usize].bytes().unwrap();
                    assert!(value.starts_with(next.to_string().as_bytes()));
                    next += 1;
                }
            }
            assert_eq!(next, records);
        }
    }
}
