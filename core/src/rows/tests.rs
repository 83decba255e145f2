//! What rows do of themselves; what is folded into them is tested where that is done.

use super::*;
use crate::codec;
use crate::fields::Fields;
use crate::numbers::Seq;
use crate::op::OpPlace;

fn dead(seq: u64) -> TailRef {
    let place = OpPlace { seq: Seq::new(seq), index: 0 };
    TailRef { dead: true, ..TailRef::new(OpId::from_bytes([0; 16]), place, OpKind::Update) }
}

#[test]
fn dead_letters_lose_what_a_later_op_said_anew() {
    let mut row = RecordRow { tail: vec![dead(1), dead(9)], ..RecordRow::default() };
    let later = OpPlace { seq: Seq::new(5), index: 0 };
    row.outdate(later, OpKind::Update, &["a".to_owned()]).unwrap();
    assert_eq!((row.tail[0].lost.as_slice(), row.tail[1].lost.len()), (["a".to_owned()].as_slice(), 0));
    row.outdate(later, OpKind::Create, &[]).unwrap();
    assert_eq!((row.tail[0].outdated, row.tail[1].outdated), (true, false));
}

#[test]
fn what_a_later_update_said_is_handed_down_to_what_sets_the_whole_record() {
    let handed = |beneath: OpKind, kind: OpKind| {
        let mut row = RecordRow { tail: vec![dead(1), dead(2)], ..RecordRow::default() };
        (row.tail[0].kind, row.tail[1].kind) = (beneath, kind);
        let later = OpPlace { seq: Seq::new(5), index: 0 };
        let said = Fields::from_value(serde_json::json!({"a": 4})).unwrap();
        row.hand_down(later, &said).unwrap();
        row.tail.iter().map(|reference| reference.merged == Some(said.to_json())).collect::<Vec<_>>()
    };
    assert_eq!(handed(OpKind::Update, OpKind::Replace), [false, true]);
    assert_eq!(handed(OpKind::Delete, OpKind::Create), [false, true], "the two are sent as a replace");
    assert_eq!(handed(OpKind::Update, OpKind::Create), [false, false], "that is put on top of theirs");
}

#[test]
fn what_was_handed_down_is_taken_back_by_a_later_word() {
    let mut row = RecordRow { tail: vec![dead(1)], ..RecordRow::default() };
    row.tail[0].kind = OpKind::Replace;
    let place = |seq| OpPlace { seq: Seq::new(seq), index: 0 };
    row.hand_down(place(5), &Fields::from_value(serde_json::json!({"a": 4, "b": 4})).unwrap()).unwrap();
    row.outdate(place(6), OpKind::Update, &["a".to_owned()]).unwrap();
    let left = Fields::from_value(serde_json::json!({"b": 4})).unwrap();
    assert_eq!(row.tail[0].merged, Some(left.to_json()));
}

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
        deleted,
        fields: fields(r#"{"a":"é"}"#),
    };
    let reference = TailRef {
        op: OpId::from_bytes([7; 16]),
        place: OpPlace { seq: Seq::new(9), index: 2 },
        kind: OpKind::Update,
        stale: 1,
        dead: true,
        outdated: false,
        lost: vec!["b".to_owned()],
        merged: Some(fields("{}")),
        attempts: vec![UnitId::from_bytes([7; 16])],
        base: Some(AuthorBase { version: Some(Version::new(7)), fields: Some(fields("{}")) }),
        restamped: Some(Hlc::from_bits(3)),
        upcast: Some(Upcast { schema_version: 2, fields: fields("{}") }),
    };
    let rows = [
        RecordRow { confirmed: Some(confirmed(false)), ..RecordRow::default() },
        RecordRow { confirmed: Some(confirmed(true)), ..RecordRow::default() },
        RecordRow {
            confirmed: Some(confirmed(false)),
            visible: Visible::Absent,
            tail: vec![reference.clone()],
            synced_at: Some(WallTime::from_milliseconds(5)),
        },
        RecordRow {
            confirmed: None,
            visible: Visible::Own(fields(r#"{"b":1}"#)),
            tail: vec![reference.clone(), reference],
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
    for format in [1, 9, ROWS_FORMAT, 250] {
        let stored = codec::encode(&StateRow { format, ..StateRow::default() }).unwrap();
        assert_eq!(StateRow::format_of(&stored), Some(format));
    }
    assert_eq!(StateRow::format_of(&[]), None);
}
