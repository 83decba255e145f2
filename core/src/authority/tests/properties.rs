use proptest::prelude::*;

use super::*;

/// Draws the actions of a device, as numbers: the record, the kind, whether the device knows the
/// record's present state, and the earlier unit that arrives once more after it.
fn steps() -> impl Strategy<Value = Vec<(u8, u8, bool, prop::sample::Index)>> {
    prop::collection::vec((0..6u8, 0..4u8, any::<bool>(), any::<prop::sample::Index>()), 1..40)
}

fn step_unit(
    state: &MemoryAuthority,
    number: u64,
    (record, kind, fresh, _): (u8, u8, bool, prop::sample::Index),
) -> Unit {
    let name = format!("{}/{record}", ["lead", "note"][usize::from(record % 2)]);
    let present = state.record(&key(&name)).unwrap().map(|row| row.version.number());
    let base = if fresh { present } else { present.and_then(|version| version.checked_sub(1)) };
    let kind = [OpKind::Create, OpKind::Update, OpKind::Delete, OpKind::Replace][usize::from(kind)];
    let mut changes = vec![change(&name, kind, base, &format!(r#"{{"f{number}":{number}}}"#))];
    if number.is_multiple_of(5) {
        changes.push(create(&format!("lead/extra{number}")));
    }
    unit(number, changes)
}

proptest! {
    #[test]
    fn units_that_arrive_twice_or_late_take_effect_once(steps in steps()) {
        let (mut once, mut often) = (store(), store());
        let mut units: Vec<Unit> = Vec::new();
        for (number, step) in (0u64..).zip(steps) {
            let next = step_unit(&once, number, step);
            answered(&mut once, &request(vec![next.clone()]));
            units.push(next.clone());
            // For the rules, the requests of the three devices differ in their ids only.
            let device = DeviceId::from_bytes(id(100 + number % 3));
            let again = step.3.get(&units).clone();
            for batch in [vec![next.clone()], vec![again.clone(), next], vec![again]] {
                answered(&mut often, &ExchangeRequest { device, ..request(batch) });
            }
            prop_assert_eq!(&once, &often);
        }
    }

    #[test]
    fn pages_of_any_size_bring_every_record_once_in_whole_commits(steps in steps(), limit in 1..9u32) {
        let mut state = store();
        for (number, step) in (0u64..).zip(steps) {
            let next = step_unit(&state, number, step);
            answered(&mut state, &request(vec![next]));
        }
        let (mut cursors, mut read, mut last) = (BTreeMap::new(), BTreeMap::new(), Version::default());
        loop {
            let answer = answered(&mut state, &pull(cursors.clone(), limit));
            if let Some(first) = answer.changes.first() {
                prop_assert!(first.version > last, "a commit was split or sent twice");
            }
            for change in answer.changes {
                prop_assert!(change.version >= last);
                last = change.version;
                prop_assert!(read.insert(change.key.clone(), change).is_none());
            }
            cursors.extend(answer.cursors);
            if !answer.more {
                break;
            }
        }
        let stored: BTreeMap<_, _> =
            state.records().map(|(key, row)| (key.clone(), row.clone().into_change(key.clone()))).collect();
        prop_assert_eq!(read, stored);
    }
}
