//! Whatever bytes a file or a stream holds in place of an entry, reading them returns an entry or
//! an error.

#![expect(
    clippy::expect_used,
    reason = "clippy.toml frees test functions only; these are their helpers"
)]

use fieldbook_core::entry::frame::Frame;
use fieldbook_core::entry::{Control, Draft, Entry, FORMAT, Header, Items, Meta, Opened, seal};
use fieldbook_core::{Actor, DeviceId, Epoch, Hash, Hlc, SeededRandomness, Seq, WallTime};
use proptest::collection::vec;
use proptest::prelude::*;

fn stored() -> Vec<u8> {
    let mut items = Items::default();
    let mut random = SeededRandomness::from_number(3);
    items.add(r#"{"name":"Ann"}"#, &mut random);
    items.add("a message", &mut random);
    let opened = Opened { device: DeviceId::from_bytes([7; 16]), made_by: "0.1.0".to_owned() };
    let draft = Draft { meta: Meta::Control(Control::Opened(opened)), items };
    let header = Header {
        format: FORMAT,
        kind: draft.meta.kind(),
        epoch: Epoch::from_bytes([1; 16]),
        seq: Seq::new(1),
        hlc: Hlc::from_bits(5),
        wall: WallTime::from_milliseconds(9),
        actor: Actor::parse("ann").expect("a good actor"),
    };
    seal(&header, &draft, &Hash::ZERO).expect("a small entry").bytes
}

/// One change to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Number(usize, u32),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1..=u8::MAX).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<usize>(), prop_oneof![any::<u32>(), Just(u32::MAX), Just(1 << 31), 0..64u32])
            .prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    let length = bytes.len().max(1);
    match damage {
        Damage::Flip(at, mask) => {
            bytes.iter_mut().skip(at % length).take(1).for_each(|byte| *byte ^= mask)
        }
        Damage::Cut(at) => bytes.truncate(at % length),
        Damage::Insert(at, inserted) => drop(bytes.splice(at % length..at % length, inserted)),
        Damage::Number(at, number) => {
            let places = bytes.iter_mut().skip(at % length);
            places.zip(number.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        }
    }
}

/// Reads the bytes in both ways. Bytes that read as an entry are exactly one frame.
fn read(bytes: &[u8]) {
    let frame = Frame::parse(bytes);
    if let Ok(entry) = Entry::decode(bytes) {
        let frame = frame.expect("what decodes has a frame");
        assert_eq!((entry.content, entry.hash), (frame.content(), frame.hash));
        for index in 0..entry.items.len() {
            // Damaged text is an error of its own, later.
            drop(entry.fields(u32::try_from(index).expect("few items")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        read(&bytes);
    }

    #[test]
    fn a_damaged_entry_never_panics(damages in vec(damage(), 1..5)) {
        let mut bytes = stored();
        for damage in damages {
            if bytes.is_empty() {
                break;
            }
            apply(&mut bytes, damage);
        }
        read(&bytes);
    }

    #[test]
    fn a_damaged_meta_part_under_a_whole_frame_never_panics(meta in vec(any::<u8>(), 0..200), kind in 1u8..=3) {
        let whole = stored();
        // The header block of the sample: its length, then 43 bytes and the actor.
        let header_end = 4 + 43 + "ann".len();
        let mut bytes = whole.get(..header_end).expect("the header").to_vec();
        bytes.splice(5..6, [kind]);
        bytes.extend(u32::try_from(meta.len()).expect("short").to_le_bytes());
        bytes.extend(&meta);
        bytes.extend([0; 4 + 32]);
        prop_assert!(Frame::parse(&bytes).is_ok());
        read(&bytes);
    }
}

#[test]
fn the_undamaged_sample_reads() {
    let entry = Entry::decode(&stored()).unwrap();
    assert_eq!(entry.items.len(), 2);
    assert_eq!(entry.hash, fieldbook_core::entry::chain::link(&Hash::ZERO, &entry.content));
}

#[test]
fn a_false_count_of_items_takes_no_memory() {
    let mut bytes = stored();
    let header = 4 + 43 + 3;
    let meta =
        usize::try_from(u32::from_le_bytes(bytes[header..header + 4].try_into().unwrap())).unwrap();
    let count = header + 4 + meta;
    bytes[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Entry::decode(&bytes).is_err());
}
