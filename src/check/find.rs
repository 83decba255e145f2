//! Finds the records of an entity type in which the book and the server differ: first the parts,
//! then smaller parts, then the records in them.

use std::collections::BTreeMap;

use fieldbook_core::digest::{Digest, Digests, Part, PartsByPlace, Place};
use fieldbook_core::limits;
use fieldbook_core::protocol::{Ask, EntityDigest, Found, InParts};
use fieldbook_core::rules::compare::{Judged, Side, judge};
use fieldbook_core::{EntityType, RecordId, RecordKey, Version};

use super::ask::Asker;
use super::difference::known;
use super::own::{OwnType, digest};
use super::{CheckError, Difference, Differing};
use crate::book::Shared;

/// A part with at most so many records on one side is not divided further.
const FEW: u64 = 64;
/// The most digits of a part that is looked for: more than any number of records needs.
const DIGITS: u8 = 6;
/// The most parts whose division is asked at a time.
const DIVIDED_AT_ONCE: usize = 256;
/// The number of records, of both sides, that are listed at a time.
const LISTED_AT_ONCE: u64 = 20_000;
/// The most requests for one list. A server passes over at least a thousand records in each.
const MOST_PAGES: usize = 1_000_000;

/// A part whose digests differ.
#[derive(Debug, Clone, Copy)]
struct Unequal {
    part: Part,
    own: u64,
    theirs: u64,
}

/// A record of the book in the parts that are looked at.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    side: Side,
    /// Whether it has pending ops.
    waits: bool,
}

/// A check that compares records.
pub(super) struct Finder<'c, 'a> {
    shared: &'a Shared,
    asker: &'c mut Asker<'a>,
    pub(super) difference: Difference,
}

impl<'c, 'a> Finder<'c, 'a> {
    pub(super) const fn new(
        shared: &'a Shared,
        asker: &'c mut Asker<'a>,
        difference: Difference,
    ) -> Self {
        Self { shared, asker, difference }
    }

    /// Compares the records of an entity type.
    pub(super) async fn find(
        &mut self,
        entity: &EntityType,
        own: OwnType,
        theirs: &EntityDigest,
    ) -> Result<(), CheckError> {
        let mut looking = vec![];
        if theirs.records > 0 || theirs.newer {
            let whole = InParts { entity: entity.clone(), parts: vec![Part::ALL], after: None };
            let (divided, _) = self.parts_of(whole).await?;
            let divided = divided.first().map(Digests::as_slice).unwrap_or_default();
            looking.extend(unequal(Part::ALL, &own.parts, divided, false));
        } else {
            // The server has nothing of this type.
            let nothing = [Digest::default(); 256];
            looking.extend(unequal(Part::ALL, &own.parts, &nothing, false));
        }
        let mut found = Vec::new();
        while !looking.is_empty() {
            let is_large =
                |one: &Unequal| one.own.min(one.theirs) > FEW && one.part.digits() < DIGITS;
            let (large, few): (Vec<_>, Vec<_>) = looking.into_iter().partition(is_large);
            found.extend(few);
            looking = Vec::new();
            for some in large.chunks(DIVIDED_AT_ONCE) {
                looking.extend(self.divided(entity, some).await?);
            }
        }
        for some in at_once(found) {
            if self.difference.more {
                break;
            }
            self.listed(entity, &some, theirs.read_to).await?;
        }
        Ok(())
    }

    /// Returns the smaller parts that differ.
    async fn divided(
        &mut self,
        entity: &EntityType,
        some: &[Unequal],
    ) -> Result<Vec<Unequal>, CheckError> {
        let parts: Vec<_> = some.iter().map(|one| one.part).collect();
        let asked = InParts { entity: entity.clone(), parts: parts.clone(), after: None };
        let (theirs, moved) = self.parts_of(asked).await?;
        let mut own: Vec<_> =
            parts.iter().map(|part| vec![Digest::default(); part.divisions()]).collect();
        let finder = PartsByPlace::new(&parts);
        let count = |id: &RecordId, row: &_| {
            let place = Place::of(id);
            let Some(number) = finder.find(place) else { return };
            let division = parts.get(number).and_then(|part| part.division_of(place));
            let digests = division.zip(own.get_mut(number));
            let found = digests.and_then(|(at, digests)| digests.get_mut(at));
            if let (Some(sum), Some(digest)) = (found, digest(entity, id, row)) {
                *sum = sum.plus(digest);
            }
        };
        self.shared.walk(entity, count).await?;
        let pairs = parts.iter().zip(own.iter().zip(&theirs));
        let smaller =
            pairs.flat_map(|(part, (own, theirs))| unequal(*part, own, theirs.as_slice(), moved));
        Ok(smaller.collect())
    }

    /// Returns the digests of the parts that parts are divided into, and whether the server wrote
    /// between its answers. Such digests are of no single moment.
    async fn parts_of(&mut self, mut asked: InParts) -> Result<(Vec<Digests>, bool), CheckError> {
        let (mut sums, mut commit, mut moved) = (Vec::<Vec<Digest>>::new(), None, false);
        for _ in 0..MOST_PAGES {
            let answer = self.asker.ask(Ask::Parts(asked.clone())).await?;
            let Some(Found::Parts { parts, after }) = answer.found else { break };
            moved |= commit.is_some_and(|commit| commit != answer.commit);
            commit = Some(answer.commit);
            if sums.is_empty() {
                sums = parts.iter().map(|part| part.as_slice().to_vec()).collect();
            } else {
                for (sums, part) in sums.iter_mut().zip(&parts) {
                    let pairs = sums.iter_mut().zip(part.as_slice());
                    pairs.for_each(|(sum, digest)| *sum = sum.plus(*digest));
                }
            }
            match after.and_then(|after| RecordId::parse(&after).ok()) {
                Some(after) => asked.after = Some(after),
                None => return Ok((sums.into_iter().map(Digests::new).collect(), moved)),
            }
        }
        Err(CheckError::Misbehaved { code: "no_end" })
    }

    /// Compares the records of parts one by one.
    async fn listed(
        &mut self,
        entity: &EntityType,
        some: &[Unequal],
        read_to: Version,
    ) -> Result<(), CheckError> {
        let parts: Vec<_> = some.iter().map(|one| one.part).collect();
        let expected: u64 = some.iter().map(|one| one.theirs).sum();
        let theirs = self.versions(entity, &parts, expected).await?;
        let (mut own, finder) = (BTreeMap::new(), PartsByPlace::new(&parts));
        let keep = |id: &RecordId, row: &fieldbook_core::rows::RecordRow| {
            if finder.find(Place::of(id)).is_some() {
                own.insert(id.clone(), Own { side: Side::of(row), waits: !row.tail.is_empty() });
            }
        };
        self.shared.walk(entity, keep).await?;
        let mut unclear = Vec::new();
        for (id, version) in theirs {
            let known = own.remove(&id).unwrap_or_default();
            let key = RecordKey::new(entity.clone(), id);
            let server = Side::live(version);
            let judged = judge(known.side, server, read_to);
            let is_difference = matches!(judged, Judged::Missing | Judged::OtherVersion);
            if is_difference && self.may_be_set_aside(version) {
                unclear.push((key, known));
            } else {
                self.add(key, known, server, judged);
            }
        }
        // A record that the server does not list may have been deleted since.
        let live = own.into_iter().filter(|(_, own)| own.side.is_live);
        unclear.extend(live.map(|(id, own)| (RecordKey::new(entity.clone(), id), own)));
        self.look_at(unclear, read_to).await
    }

    /// Returns the live records of the server in parts. Ids that this program cannot hold count as
    /// set aside.
    async fn versions(
        &mut self,
        entity: &EntityType,
        parts: &[Part],
        expected: u64,
    ) -> Result<Vec<(RecordId, Version)>, CheckError> {
        // A server that is written meanwhile may have more by now, but no other list than its own.
        let most = expected.saturating_mul(2).saturating_add(limits::COMPARE_LISTED as u64);
        let mut found = Vec::new();
        let mut asked = InParts { entity: entity.clone(), parts: parts.to_vec(), after: None };
        for _ in 0..MOST_PAGES {
            let answer = self.asker.ask(Ask::Versions(asked.clone())).await?;
            let Some(Found::Versions { records, after }) = answer.found else { break };
            for (id, version) in records {
                match RecordId::parse(&id) {
                    Ok(id) => found.push((id, version)),
                    Err(_) => self.difference.set_aside += 1,
                }
            }
            if found.len() as u64 > most {
                return Err(CheckError::Misbehaved { code: "too_many_versions" });
            }
            match after.and_then(|after| RecordId::parse(&after).ok()) {
                Some(after) => asked.after = Some(after),
                None => return Ok(found),
            }
        }
        Err(CheckError::Misbehaved { code: "no_end" })
    }

    /// Asks for records that are not clear yet: what the server has of them, and whether this
    /// program can hold it.
    async fn look_at(
        &mut self,
        mut unclear: Vec<(RecordKey, Own)>,
        read_to: Version,
    ) -> Result<(), CheckError> {
        unclear.reverse();
        while !unclear.is_empty() && !self.difference.more {
            let next = unclear.iter().rev().take(limits::COMPARE_NAMED);
            let keys: Vec<_> = next.map(|(key, _)| key.clone()).collect();
            let answer = self.asker.ask(Ask::Records(keys)).await?;
            let Some(Found::Records(changes)) = answer.found else {
                return Err(CheckError::Misbehaved { code: "another_question" });
            };
            let answered = changes.len() + answer.set_aside.rows.len();
            let mut changes = changes.into_iter().peekable();
            for _ in 0..answered {
                let Some((key, own)) = unclear.pop() else { break };
                let Some(change) = changes.next_if(|change| change.key == key) else {
                    // The row is among those that cannot be read.
                    self.difference.set_aside += 1;
                    continue;
                };
                let server = Side { version: change.version, is_live: !change.deleted };
                let judged = judge(own.side, server, read_to);
                self.add(key, own, server, judged);
            }
        }
        Ok(())
    }

    /// Returns whether a row of this version was set aside. Versions of different records can be
    /// the same, so the row itself decides.
    fn may_be_set_aside(&self, version: Version) -> bool {
        self.shared.state().set_aside.iter().any(|(_, aside)| *aside == version)
    }

    fn add(&mut self, key: RecordKey, own: Own, server: Side, judged: Judged) {
        let difference = &mut self.difference;
        let list = match judged {
            Judged::Same => return,
            Judged::Newer => {
                // A record with pending ops is counted already.
                difference.pending += u64::from(!own.waits);
                return;
            }
            Judged::Missing => &mut difference.missing,
            Judged::Extra => &mut difference.extra,
            Judged::OtherVersion => &mut difference.other_version,
        };
        list.push(Differing { key, book: known(own.side), server: known(server) });
        difference.more = difference.records() >= limits::CHECK_LISTED;
    }
}

/// Returns the parts of a part whose digests differ, or all with records if the digests are of no
/// single moment.
fn unequal(part: Part, own: &[Digest], theirs: &[Digest], all: bool) -> Vec<Unequal> {
    let pairs = part.divided().zip(own.iter().zip(theirs));
    let differ = pairs
        .filter(|(_, (own, theirs))| own != theirs || (all && own.records.max(theirs.records) > 0));
    let unequal = differ.map(|(part, (own, theirs))| Unequal {
        part,
        own: own.records,
        theirs: theirs.records,
    });
    unequal.collect()
}

/// Divides parts into lists of as many records as are in memory at a time.
fn at_once(found: Vec<Unequal>) -> Vec<Vec<Unequal>> {
    let mut lists: Vec<Vec<Unequal>> = Vec::new();
    let mut records = 0u64;
    for one in found {
        let more = one.own.saturating_add(one.theirs);
        records = records.saturating_add(more);
        match lists.last_mut() {
            Some(list) if records <= LISTED_AT_ONCE && list.len() < limits::COMPARE_NAMED => {
                list.push(one);
            }
            _ => {
                records = more;
                lists.push(vec![one]);
            }
        }
    }
    lists
}
