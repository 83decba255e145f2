//! Tests of the rows' own functions. The tests of the fold are beside the fold.

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
            ConflictedField {
                name: "a".to_owned(),
                rule: Policy::Manual,
                winner: Winner::Undecided,
            },
            ConflictedField {
                name: "b".to_owned(),
                rule: Policy::LastWriteWins,
                winner: Winner::Local,
            },
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
    let winners: Vec<_> = row.fields.iter().map(|field| field.winner).collect();
    assert_eq!(
        (row.open, row.winner, winners),
        (false, Winner::Remote, vec![Winner::Remote, Winner::Local])
    );
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
        sent_by: Some(Actor::parse("ben").unwrap()),
        earlier_units: vec![UnitId::from_bytes([7; 16])],
        abandoned: Some(SentFor { version: Some(Version::new(7)), record: Some(confirmed(false)) }),
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
        let view = RecordView::read(&bytes).unwrap();
        assert_eq!(view.image, row.image().map(FieldsJson::as_str));
        assert_eq!(view.version, row.version());
        assert_eq!((view.pending, view.synced_at), (row.tail.len(), row.synced_at));
        assert_eq!(codec::decode::<RecordRow>(&bytes).unwrap(), row);
        for length in 0..bytes.len() {
            assert!(codec::decode::<RecordRow>(&bytes[..length]).is_err(), "cut to {length}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(codec::decode::<RecordRow>(&longer).is_err(), "a byte stands behind it");
    }
}

#[test]
fn what_an_app_reads_of_a_row_stands_before_all_that_only_the_rules_read() {
    let row = RecordRow {
        confirmed: Some(Confirmed {
            version: Version::new(2),
            edited_at: Hlc::from_bits(3),
            op: OpId::from_bytes([8; 16]),
            older: Vec::new(),
            floor: None,
            deleted: false,
            fields: FieldsJson::parse(r#"{"a":1}"#).unwrap(),
        }),
        visible: Visible::AsConfirmed,
        tail: Vec::new(),
        synced_at: Some(WallTime::from_milliseconds(5)),
    };
    let number = |number: u64| number.to_le_bytes().to_vec();
    let numbers = [number(5), number(2), number(3), vec![8; 16]].concat();
    let layout = [&[0b1_0001, 7, 0, 0, 0][..], &numbers, br#"{"a":1}"#].concat();
    assert_eq!(codec::encode(&row).unwrap(), layout);

    let place = OpPlace { seq: Seq::new(9), index: 2 };
    let pending = Pending::new(OpId::from_bytes([7; 16]), place, OpKind::Create, Hlc::from_bits(1));
    let visible = Visible::Own(FieldsJson::parse(r#"{"b":2}"#).unwrap());
    let unsent = RecordRow { visible, tail: vec![pending], ..RecordRow::default() };
    let bytes = codec::encode(&unsent).unwrap();
    let beginning = [&[0b110_0100, 7, 0, 0, 0, 1, 0, 0, 0][..], br#"{"b":2}"#].concat();
    assert_eq!(bytes[..beginning.len()], beginning);
    assert_eq!(RecordView::read(&beginning).unwrap(), RecordView::read(&bytes).unwrap());
}

#[test]
fn bytes_that_contradict_themselves_are_no_row() {
    let numbers = [0; 32];
    let confirmed = |flags: u8| [&[flags, 2, 0, 0, 0][..], &numbers, b"{}"].concat();
    assert!(codec::decode::<RecordRow>(&confirmed(0b1)).is_ok());
    assert!(codec::decode::<RecordRow>(&confirmed(0b11)).is_ok());
    assert!(RecordView::read(&confirmed(0b1000_0001)).is_err(), "apart, with nothing to come");
    assert!(codec::decode::<RecordRow>(&confirmed(0b100_0001)).is_err(), "more is to come");
    assert!(RecordView::read(&[0b10]).is_err(), "deleted by nobody");
    assert!(RecordView::read(&[0b1100, 2, 0, 0, 0, b'{', b'}']).is_err(), "absent, and of its own");
    assert!(
        codec::decode::<RecordRow>(&[0b110_1000, 1, 0, 0, 0, 0, 0, 0]).is_err(),
        "another number of ops"
    );
    let floor = |flags: u8| [&[flags][..], &[0, 1, 0], &[7; 16], &[0]].concat();
    assert!(
        codec::decode::<RecordRow>(&floor(0b100_1000)).is_err(),
        "stamps of what nobody confirmed"
    );
    let confirmed = [&confirmed(0b100_0001)[..], &floor(0)[1..]].concat();
    assert!(codec::decode::<RecordRow>(&confirmed).is_ok());
    assert!(RecordView::read(&[0b100, 1, 0, 0, 0, 0xff]).is_err(), "no text");
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
    let stamp =
        |at: u64| EditStamp { edited_at: Hlc::from_bits(at), op: OpId::from_bytes([1; 16]) };
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
    assert_eq!(
        stamps,
        [stamp(9), stamp(4), stamp(4), stamp(2)],
        "a field that nobody knows is at the floor"
    );
    assert_eq!(registers.image().unwrap().to_json(), told.fields);
    assert_eq!(Confirmed::of(&registers, told.version), Some(told.clone()));

    let (older, floor, fields) = (Vec::new(), None, FieldsJson::default());
    let deleted = Confirmed { deleted: true, older, floor, fields, ..told };
    let registers = deleted.registers().unwrap();
    assert_eq!((registers.image(), registers.stamp_of("a")), (None, stamp(9)));
    assert_eq!(Confirmed::of(&registers, deleted.version), Some(deleted));
    assert_eq!(
        Confirmed::of(&Registers::default(), Version::new(1)),
        None,
        "nobody said anything of it"
    );
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

/// Rows that were written with the three values in a row are read as fields.
#[test]
fn a_field_of_a_conflict_has_the_bytes_of_its_name_rule_and_winner() {
    let parts = ("a".to_owned(), Policy::Manual, Winner::Undecided);
    let (name, rule, winner) = parts.clone();
    let field = ConflictedField { name, rule, winner };
    let (mut of_field, mut of_parts) = (Vec::new(), Vec::new());
    codec::write_behind(&mut of_field, &field, "a field").unwrap();
    codec::write_behind(&mut of_parts, &parts, "its parts").unwrap();
    assert_eq!(of_field, of_parts);
}
