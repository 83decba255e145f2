//! Joins writes, and stores the result.

use super::*;

proptest! {
    #[test]
    fn the_order_and_the_repetition_of_writes_to_a_living_record_do_not_matter(
        all in prop::collection::vec(some_edit(), 0..8), order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(0..8usize, 0..8),
    ) {
        let join = |record: Registers, number: &usize| match all.get(*number) {
            Some(writes) => record.with([writes]),
            None => record,
        };
        let one_by_one = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        let shuffled = order.iter().chain(&again).fold(Registers::default(), join);
        prop_assert_eq!(&shuffled, &one_by_one);
        prop_assert!(all.iter().all(|writes| !writes.are_left(&one_by_one)), "nothing is left of what was joined");
    }

    #[test]
    fn whether_a_record_is_there_depends_on_no_order(
        edits in prop::collection::vec(some_edit(), 0..5), deletions in prop::collection::vec((1..9u64, 5..8u8), 0..4),
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let deletes = |(at, op): &(u64, u8)| {
            Writes { does: Does::Deletes, stamp: stamp(*at, *op), fields: BTreeMap::new(), brings_back: None }
        };
        let all: Vec<_> = edits.into_iter().chain(deletions.iter().map(deletes)).collect();
        let in_order = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        let shuffled = order.iter().filter_map(|number| all.get(*number));
        let shuffled = shuffled.fold(Registers::default(), |record, writes| record.with([writes]));
        prop_assert_eq!((shuffled.life, shuffled.stamp), (in_order.life, in_order.stamp));
        let last = all.iter().max_by_key(|writes| writes.stamp);
        prop_assert_eq!(in_order.is_deleted(), last.is_some_and(|last| last.does == Does::Deletes), "the last word decides");
    }

    #[test]
    fn what_is_stored_of_registers_reads_as_the_same_registers(
        all in prop::collection::vec(some_edit(), 0..6), deletion in prop::option::of((0..9u64, 0..4u8)), number in 1..9u64,
    ) {
        let mut record = all.iter().fold(Registers::default(), |record, writes| record.with([writes]));
        if let Some((at, op)) = deletion {
            record.join(&Writes { does: Does::Deletes, stamp: stamp(at, op), fields: BTreeMap::new(), brings_back: None });
        }
        // An edit above a deletion brings the record back, with a floor.
        let edit = Writes { does: Does::Edits, stamp: stamp(9, 9), fields: BTreeMap::new(), brings_back: None };
        for record in [record.clone(), record.with([&edit])] {
            let stored = Confirmed::of(&record, Version::new(number));
            let read = stored.as_ref().map(|stored| stored.registers().unwrap());
            prop_assert_eq!(stored.map(|stored| stored.version), (record.life != Life::Unknown).then(|| Version::new(number)));
            prop_assert_eq!(read.unwrap_or_default(), record);
        }
    }
}

pub(super) fn stamp(at: u64, op: u8) -> EditStamp {
    EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes([op; 16]) }
}

prop_compose! {
    /// Writes of fields of one record. Two writes with one stamp are the same write: its content
    /// follows from the stamp.
    fn some_edit()(at in 1..9u64, op in 1..4u8) -> Writes {
        let own = stamp(at, op);
        let said = ["a", "b", "c"].into_iter().zip(0..).filter(|(_, number)| (at + u64::from(op)) >> number & 1 == 1);
        let value = |number: u64| if (at + number).is_multiple_of(3) { Value::Null } else { json!([at, op]) };
        let fields = said.map(|(name, number)| (name.to_owned(), Register { value: value(number), stamp: own }));
        Writes { does: Does::Creates, stamp: own, fields: fields.collect(), brings_back: None }
    }
}
