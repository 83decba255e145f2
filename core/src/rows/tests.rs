//! What rows do of themselves; what is folded into them is tested where that is done.

use super::*;
use crate::codec;
use crate::numbers::Seq;
use crate::op::OpPlace;
use crate::record::{EditStamp, FieldWrites, Pending, Registers, SentFor};

#[test]
fn a_conflict_keeps_what_a_person_chose_and_is_closed_once() {
    let op = PlannedOp { id: OpId::from_bytes([0; 16]), place: OpPlace::default() };
    let mut row = ConflictRow {
        key: RecordKey::parse("lead", "1").unwrap(),
        op,
        kind: OpKind::Update,
        edited_at: Hlc::ZERO,
        version: Version::default(),
        extent: Extent::Whole,
        remote_edited_at: Hlc::ZERO,
        fields: vec![
            ("a".to_owned(), Policy::Manual, Winner::Undecided),
            ("b".to_owned(), Policy::LastWriteWins, Winner::Local),
        ],
        winner: Winner::Undecided,
        rule: Policy::Manual,
        base: FieldsJson::default(),
        local: FieldsJson::default(),
        remote: FieldsJson::default(),
        merged: None,
        functions: Vec::new(),
        at: WallTime::default(),
        open: true,
    };
    row.close(Winner::Remote, None);
    row.close(Winner::Local, None);
    let winners: Vec<_> = row.fields.iter().map(|(.., winner)| *winner).collect();
    assert_eq!((row.open, row.winner, winners), (false, Winner::Remote, vec![Winner::Remote, Winner::Local]));
}

#[test]
fn a_view_says_what_the_row_says() {
    let fields = |text: &str| FieldsJson::parse(text).unwrap();
    let confirmed = |deleted| Confirmed {
        version: Version::new(300),
        edited_at: Hlc::from_bits(70_000),
        op: OpId::from_bytes([8; 16]),
        older: vec![FieldWrites {
            edited_at: Hlc::from_bits(60_000),
            op: OpId::from_bytes([9; 16]),
            fields: vec!["b".to_owned(), "é".to_owned()],
        }],
        floor: Some(EditStamp { edited_at: Hlc::from_bits(50_000), op: OpId::from_bytes([9; 16]) }),
        deleted,
        fields: fields(r#"{"a":"é"}"#),
    };
    let pending = Pending {
        op: OpId::from_bytes([7; 16]),
        place: OpPlace { seq: Seq::new(9), index: 2 },
        kind: OpKind::Replace,
        edited_at: Hlc::from_bits(70_001),
        stale: 1,
        dead: true,
        emptied: false,
        named: Some(fields("{}")),
        cleared: vec!["c".to_owned()],
        cleared_at: Some(EditStamp { edited_at: Hlc::from_bits(3), op: OpId::from_bytes([6; 16]) }),
        raised: vec![("a".to_owned(), Hlc::from_bits(70_002))],
        brings_back: Some(fields(r#"{"a":"é"}"#)),
        upcast: Some(2),
        attempts: vec![UnitId::from_bytes([7; 16])],
        given_up: Some(SentFor { version: Some(Version::new(7)), record: Some(confirmed(false)) }),
    };
    let rows = [
        RecordRow { confirmed: Some(confirmed(false)), ..RecordRow::default() },
        RecordRow { confirmed: Some(confirmed(true)), ..RecordRow::default() },
        RecordRow {
            confirmed: Some(confirmed(false)),
            visible: Visible::Absent,
            tail: vec![pending.clone()],
            synced_at: Some(WallTime::from_milliseconds(5)),
        },
        RecordRow {
            confirmed: None,
            visible: Visible::Own(fields(r#"{"b":1}"#)),
            tail: vec![pending.clone(), pending],
            synced_at: None,
        },
    ];
    for row in rows {
        let bytes = codec::encode(&row).unwrap();
        let view: RecordView<'_> = codec::view(&bytes).unwrap();
        assert_eq!(view.image().as_ref(), row.image());
        assert_eq!(view.version(), row.version());
        assert_eq!((view.pending(), view.synced_at), (row.tail.len(), row.synced_at));
        assert!(codec::view::<RecordView<'_>>(&bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn a_state_row_of_any_format_names_its_format_first() {
    for format in [1, 9, FOLD_VERSION, 250] {
        let stored = codec::encode(&StateRow { format, ..StateRow::default() }).unwrap();
        assert_eq!(StateRow::format_of(&stored), Some(format));
    }
    assert_eq!(StateRow::format_of(&[]), None);
}

#[test]
fn what_the_server_told_reads_as_registers_and_is_stored_as_it_was() {
    let stamp = |at: u64| EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes([1; 16]) };
    let writes = |at: u64, names: &[&str]| FieldWrites {
        edited_at: Hlc::from_bits(at),
        op: OpId::from_bytes([1; 16]),
        fields: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let told = Confirmed {
        version: Version::new(3),
        edited_at: Hlc::from_bits(9),
        op: OpId::from_bytes([1; 16]),
        older: vec![writes(4, &["b", "gone"])],
        floor: Some(stamp(2)),
        deleted: false,
        fields: FieldsJson::parse(r#"{"a":1,"b":2}"#).unwrap(),
    };
    let registers = told.registers().unwrap();
    let stamps = ["a", "b", "gone", "never"].map(|name| registers.stamp_of(name));
    assert_eq!(stamps, [stamp(9), stamp(4), stamp(4), stamp(2)], "a field that nobody knows is at the floor");
    assert_eq!(registers.image().unwrap().to_json(), told.fields);
    assert_eq!(Confirmed::of(&registers, told.version), Some(told.clone()));

    let (older, floor, fields) = (Vec::new(), None, FieldsJson::default());
    let deleted = Confirmed { deleted: true, older, floor, fields, ..told };
    let registers = deleted.registers().unwrap();
    assert_eq!((registers.image(), registers.stamp_of("a")), (None, stamp(9)));
    assert_eq!(Confirmed::of(&registers, deleted.version), Some(deleted));
    assert_eq!(Confirmed::of(&Registers::default(), Version::new(1)), None, "nobody said anything of it");
}

#[test]
fn an_op_made_now_has_to_be_above_every_stamp_that_its_author_reads() {
    let at = |at: u64| Hlc::from_bits(at);
    let mut row = RecordRow::default();
    assert_eq!(row.greatest(), EditStamp::NEVER);
    let op = |number: u8| OpId::from_bytes([number; 16]);
    let place = |seq| OpPlace { seq: Seq::new(seq), index: 0 };
    row.tail.push(Pending::new(op(1), place(1), OpKind::Update, at(7)));
    row.tail.push(Pending::new(op(2), place(2), OpKind::Update, at(5)));
    assert_eq!(row.greatest(), EditStamp { edited_at: at(7), op: op(1) });
    row.tail[1].raised.push(("a".to_owned(), at(8)));
    assert_eq!(
        row.greatest(),
        EditStamp { edited_at: at(8), op: op(2) },
        "a policy raised one of its fields"
    );
}
