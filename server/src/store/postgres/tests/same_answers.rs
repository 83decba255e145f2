//! The three stores give the same answers, byte for byte: to requests that are drawn, of several
//! devices and tenants, with everything that the rules decide about.

use std::collections::BTreeMap;

use fieldbook_core::authority::{
    AuthorityRead as _, Caller, Limited, MemoryAuthority, Quota, Rights, Role,
};
use fieldbook_core::entry::chain;
use fieldbook_core::protocol::{
    Ask, CompareRequest, ExchangeRequest, HeadClaim, InParts, Unit, UnitChange,
};
use fieldbook_core::{
    Actor, Cursor, DeviceId, DeviceKey, EntityType, Epoch, FieldsJson, Hash, Hlc, OpId, OpKind,
    Randomness as _, RecordId, RecordKey, RequestId, SeededRandomness, Seq, ServerEpoch, UnitId,
    Version, WallTime,
};

use super::support::{Three, tenant};
use crate::store::Tenant;

const BEGAN: i64 = 1_700_000_000_000;
const TENANTS: [&str; 2] = ["acme", "b-acme"];
const DEVICES: [u8; 3] = [0, 1, 2];

/// Draws.
struct Dice(SeededRandomness);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes) as usize % end
    }

    fn in_a_hundred(&mut self, times: usize) -> bool {
        self.below(100) < times
    }

    fn id(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        bytes
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// What a device remembers.
#[derive(Default)]
struct Device {
    contents: Vec<Hash>,
    cursors: BTreeMap<EntityType, Cursor>,
    others: Option<Cursor>,
}

struct Walk {
    three: Three,
    dice: Dice,
    now: i64,
    sent: Vec<Unit>,
    devices: BTreeMap<(Tenant, u8), Device>,
}

impl Walk {
    fn key(&mut self) -> RecordKey {
        let entity = self.dice.one(&["lead", "note", "lead_note", "le"]);
        let id = self.dice.one(&["1", "2", "10", "Ünïcode 1", "a/b"]);
        RecordKey::new(EntityType::parse(entity).unwrap(), RecordId::parse(id).unwrap())
    }

    fn change(&mut self, of: &Tenant) -> UnitChange {
        let key = self.key();
        let present = self.three.memory(of).record(&key).unwrap();
        let kind = self.dice.one(&[
            OpKind::Create,
            OpKind::Update,
            OpKind::Update,
            OpKind::Replace,
            OpKind::Delete,
        ]);
        let base = match (&present, self.dice.below(10)) {
            (_, 0) => Some(Version::new(self.dice.below(9) as u64)),
            (_, 1) => None,
            (row, _) => row.as_ref().map(|row| row.version),
        };
        let ahead = if self.dice.in_a_hundred(3) { 3_600_000_000 } else { 0 };
        let ago = self.dice.below(20_000) as i64;
        let edited_at = Hlc::at(WallTime::from_milliseconds(self.now - ago + ahead));
        let filler = if self.dice.in_a_hundred(10) { 700 } else { 3 };
        let text = "x".repeat(self.dice.below(filler));
        let all = [
            format!(r#"{{"a":"{text}","b":1e2}}"#),
            r#"{"b":null,"c":[1.50,{"ü":null}]}"#.to_owned(),
            r#"{"a":0.0,"d":"\u0000"}"#.to_owned(),
            "{}".to_owned(),
        ];
        let fields = FieldsJson::parse(&self.dice.one(&all)).unwrap();
        UnitChange {
            key,
            kind,
            base,
            ops: vec![OpId::from_bytes(self.dice.id())],
            edited_at,
            older: Vec::new(),
            schema_version: 1,
            fields: (kind != OpKind::Delete).then_some(fields),
        }
    }

    fn unit(&mut self, of: &Tenant) -> Unit {
        if !self.sent.is_empty() && self.dice.in_a_hundred(20) {
            return self.dice.one(&self.sent.clone());
        }
        let reused = !self.sent.is_empty() && self.dice.in_a_hundred(3);
        let id = if reused {
            self.dice.one(&self.sent.clone()).id
        } else {
            UnitId::from_bytes(self.dice.id())
        };
        let changes = (0..=self.dice.below(3)).map(|_| self.change(of)).collect();
        let mut earlier_units = Vec::new();
        if !self.sent.is_empty() && self.dice.in_a_hundred(15) {
            earlier_units =
                vec![self.dice.one(&self.sent.clone()).id, UnitId::from_bytes(self.dice.id())];
        }
        let unit = Unit { id, changes, earlier_units };
        self.sent.push(unit.clone());
        unit
    }

    fn head(&mut self, of: &Tenant, number: u8) -> Option<HeadClaim> {
        let drawn = self.dice.below(10);
        let fresh = Hash::from_bytes(*blake3::hash(&self.dice.id()).as_bytes());
        let device = self.devices.entry((of.clone(), number)).or_default();
        match drawn {
            0..=3 => return None,
            4..=6 => device.contents.push(fresh),
            _ => {}
        }
        let mut contents = device.contents.clone();
        match drawn {
            // Another log, and an older copy of this one.
            8 => contents.push(fresh),
            9 => contents.truncate(contents.len() / 2),
            _ => {}
        }
        let (seq, hash) = (contents.len() as u64, chain::extend(&Hash::ZERO, &contents));
        Some(HeadClaim { anchor: None, contents, seq: Seq::new(seq), hash })
    }

    fn request(&mut self, of: &Tenant, number: u8) -> ExchangeRequest {
        let count = self.dice.one(&[0, 0, 1, 1, 2, 5]);
        let units = (0..count).map(|_| self.unit(of)).collect();
        let head = self.head(of, number);
        let key = if self.dice.in_a_hundred(5) { 99 } else { number };
        let device_key = (number > 0).then(|| DeviceKey::from_seed(&[key; 32]));
        let wrong = self.dice.in_a_hundred(3);
        let server = self.three.server();
        let tenant =
            self.dice.one(&[None, None, Some(of.id(&server)), Some(tenant("other").id(&server))]);
        let device = &self.devices[&(of.clone(), number)];
        let (cursors, others) = (device.cursors.clone(), device.others.clone());
        let epoch = if wrong { ServerEpoch::from_bytes([9; 16]) } else { self.three.epoch() };
        ExchangeRequest {
            units,
            head,
            device_key,
            tenant,
            server_epoch: self.dice.one(&[None, Some(epoch)]),
            cursors: self.dice.one(&[BTreeMap::new(), cursors.clone(), cursors]),
            others: self.dice.one(&[None, Some(Cursor::default()), others]),
            page_limit: self.dice.one(&[0, 1, 2, 3, 7, 100]),
            ..ExchangeRequest::new(
                RequestId::from_bytes(self.dice.id()),
                DeviceId::from_bytes([number; 16]),
                Epoch::from_bytes([5; 16]),
                Actor::parse(self.dice.one(&["ann", "bob"])).unwrap(),
            )
        }
    }

    fn caller(&mut self) -> Caller {
        let rights = r#"{"types":{"lead":{"delete":["boss"],"fields":{"b":[]}}}}"#;
        match self.dice.below(6) {
            0 => Caller::OneOf([Actor::parse("ann").unwrap()].into()),
            1 => Caller::Limited(Limited {
                actors: None,
                roles: [Role::parse("boss").unwrap()].into(),
                rights: std::sync::Arc::new(Rights::parse(rights).unwrap()),
            }),
            _ => Caller::Anyone,
        }
    }

    fn quota(&mut self) -> Quota {
        let whole = Quota::default();
        self.dice.one(&[
            whole,
            whole,
            Quota { page_bytes: 500, ..whole },
            Quota { work_bytes: 20_000, turn_bytes: 9_000, ..whole },
            Quota { page_changes: 0, ..whole },
            Quota { records: Some(5), ..whole },
            Quota { entity_types: 2, commit_bytes: 900, ..whole },
        ])
    }

    fn question(&mut self, of: &Tenant, number: u8) -> CompareRequest {
        let key = self.key();
        let part = |text: &str| text.parse().unwrap();
        let parts = self.dice.one(&[
            vec![part("")],
            vec![part("0"), part("7f")],
            (0..16).map(|digit| part(&format!("{digit:x}"))).collect(),
            vec![part("1"), part("1a")],
        ]);
        let after = self.dice.one(&[None, Some(key.id.clone())]);
        let asked = InParts { entity: key.entity.clone(), parts, after };
        let keys = (0..self.dice.below(6)).map(|_| self.key()).collect();
        let ask = self.dice.one(&[
            Ask::Digests,
            Ask::Parts(InParts { parts: vec![part("")], after: None, ..asked.clone() }),
            Ask::Parts(asked.clone()),
            Ask::Versions(asked),
            Ask::Records(keys),
            Ask::Heads,
        ]);
        let device = &self.devices[&(of.clone(), number)];
        CompareRequest {
            protocol: fieldbook_core::protocol::PROTOCOL,
            request: RequestId::from_bytes([1; 16]),
            device: DeviceId::from_bytes([number; 16]),
            epoch: Epoch::from_bytes([5; 16]),
            actor: Actor::parse("ann").unwrap(),
            server_epoch: None,
            tenant: None,
            cursors: device.cursors.clone(),
            others: device.others.clone(),
            ask,
        }
    }

    fn step(&mut self) {
        self.now += self.dice.below(4_000) as i64 - 1_000;
        let of = tenant(self.dice.one(&TENANTS));
        let number = self.dice.one(&DEVICES);
        self.devices.entry((of.clone(), number)).or_default();
        let now = WallTime::from_milliseconds(self.now);
        let (request, caller, quota) = (self.request(&of, number), self.caller(), self.quota());
        let answer = self.three.exchange(&of, &request, now, (&caller, &quota));
        if let Some(answer) = answer.filter(|_| self.dice.in_a_hundred(80)) {
            let device = self.devices.get_mut(&(of.clone(), number)).unwrap();
            device.cursors.extend(answer.cursors);
            device.others = answer.others.or(device.others.take());
        }
        let question = self.question(&of, number);
        self.three.compare(&of, &question, now, &quota);
        // The memory also raises the number of a tenant without a commit.
        let began = |memory: &MemoryAuthority| memory.last_commit() > Ok(Version::default());
        if self.dice.in_a_hundred(1) && self.three.memory.values().all(began) {
            self.three.start_epoch();
        }
    }
}

fn walk(seed: u64, reads_little: bool) {
    let Some(mut three) = Three::new() else { return };
    if reads_little {
        three.read_little();
    }
    let dice = Dice(SeededRandomness::from_number(seed));
    let mut walk = Walk { three, dice, now: BEGAN, sent: Vec::new(), devices: BTreeMap::new() };
    for _ in 0..400 {
        walk.step();
    }
    let records: usize = walk.three.memory.values().map(|memory| memory.records().count()).sum();
    assert!(records > 20, "{records}");
}

#[test]
fn a_database_answers_what_a_file_and_the_memory_answer() {
    for seed in 0..4 {
        walk(seed, false);
    }
}

/// What is not read at first is read when the rules ask for it.
#[test]
fn a_database_of_which_little_is_read_at_first_answers_the_same() {
    for seed in 10..14 {
        walk(seed, true);
    }
}
