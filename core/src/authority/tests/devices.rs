//! The check of a request's device, and the heads that are kept of it.

use super::*;
use crate::DeviceKey;

fn key_of(number: u8) -> DeviceKey {
    DeviceKey::from_seed(&[number; 32])
}

fn claimed(seq: u64, hash: u8, device_key: Option<DeviceKey>) -> ExchangeRequest {
    let hash = Hash::from_bytes([hash; 32]);
    let head = HeadClaim { anchor: None, contents: Vec::new(), seq: Seq::new(seq), hash };
    ExchangeRequest { head: Some(head), device_key, ..request(Vec::new()) }
}

/// Logs and exports contain a device's ids. Anybody with these ids could once claim heads in the
/// device's name. The server then refused the device itself as a copy, and the head that proved its
/// log was lost.
#[test]
fn nobody_else_moves_the_head_of_a_device_or_writes_in_its_name() {
    let mut state = store();
    let own = claimed(1, 1, Some(key_of(1)));
    assert!(answered(&mut state, &own).receipt.is_some());
    for stranger in [None, Some(key_of(2))] {
        let forged = claimed(9, 9, stranger);
        let refusal = refused(&mut state, &forged, &Caller::Anyone);
        assert_eq!(
            (refusal.code, refusal.class),
            ("device_of_another", RefusalClass::DeviceOfAnother)
        );
        let other_life = ExchangeRequest { epoch: Epoch::from_bytes(id(77)), ..forged };
        assert_eq!(refused(&mut state, &other_life, &Caller::Anyone).code, "device_of_another");
        let unit = ExchangeRequest {
            device_key: stranger,
            ..request(vec![unit(1, vec![create("lead/1")])])
        };
        assert_eq!(refused(&mut state, &unit, &Caller::Anyone).code, "device_of_another");
        assert_eq!(
            accept_without_writing(&state, &own, &Caller::Anyone, &Quota::default())
                .unwrap()
                .map(|a| a.forked),
            Some(None)
        );
    }
    // For a request that only reads, the credentials decide.
    assert!(answered(&mut state, &pull(BTreeMap::new(), 10)).changes.is_empty());
    // Several actors use a tablet in turn. Its key belongs to the book.
    let by_bob = ExchangeRequest { actor: Actor::parse("bob").unwrap(), ..own };
    assert!(answered(&mut state, &by_bob).receipt.is_some());
}

#[test]
fn a_copy_of_a_book_has_its_key_and_is_told_by_its_log() {
    let mut state = store();
    answered(&mut state, &claimed(5, 5, Some(key_of(1))));
    assert!(answered(&mut state, &claimed(5, 6, Some(key_of(1)))).forked.is_some());
}

#[test]
fn a_book_from_before_there_were_keys_goes_on_without_one() {
    let mut state = store();
    assert!(answered(&mut state, &claimed(1, 1, None)).receipt.is_some());
    assert!(answered(&mut state, &claimed(1, 1, None)).receipt.is_some());
    // The first key of a device is remembered, also if one of its heads is anchored already.
    let keyed = claimed(1, 1, Some(key_of(1)));
    assert_eq!(
        accept_without_writing(&state, &keyed, &Caller::Anyone, &Quota::default()).unwrap(),
        None
    );
    assert!(answered(&mut state, &keyed).receipt.is_some());
    assert_eq!(
        refused(&mut state, &claimed(1, 1, None), &Caller::Anyone).code,
        "device_of_another"
    );
}

#[test]
fn the_first_head_of_a_log_and_the_newest_are_kept() {
    let mut state = store();
    let contents = |to: u64| (1..=to).map(|n| Hash::from_bytes(blake3_of(n))).collect::<Vec<_>>();
    for seq in 1..=(limits::ANCHORS_KEPT as u64 + 8) {
        let contents = contents(seq);
        let head = HeadClaim {
            anchor: None,
            hash: chain::extend(&Hash::ZERO, &contents),
            contents,
            seq: Seq::new(seq),
        };
        let answer =
            answered(&mut state, &ExchangeRequest { head: Some(head), ..request(Vec::new()) });
        assert!(answer.receipt.is_some());
    }
    let kept = state.anchors(&DeviceId::from_bytes(id(4)), &Epoch::from_bytes(id(5))).unwrap();
    let seqs: Vec<_> = kept.iter().map(|head| head.seq.number()).collect();
    assert_eq!((seqs.len(), seqs[0], seqs[1]), (limits::ANCHORS_KEPT + 1, 1, 9));
}

fn blake3_of(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}
