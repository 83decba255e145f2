//! Compares a record of the book with the same record of the server, and checks whether an answer
//! about it can be true.
//!
//! | the book has, as confirmed | the server has | it is |
//! |---|---|---|
//! | it live | the same version | the same |
//! | anything | a later version than the book has read | newer: no difference |
//! | nothing, or a deletion | it live | missing |
//! | it live | another version | another version |
//! | it live | nothing, or a deletion | extra |
//!
//! Invariants:
//! 1. What an op of the tail writes does not count: a record is compared as it is confirmed.
//! 2. Every answer of a sound server passes, whatever is written at the same time.
//! 3. An answer that passes answers the question: it is about what was asked, and each answer gets
//!    further than the one before.
//!
//! What it does not do: read the book, or decide what is mended.

use std::collections::BTreeSet;

use super::credible::{KnownOfServer, of_change};
use crate::digest::{Part, Place};
use crate::limits;
use crate::names::RecordId;
use crate::numbers::{Seq, Version};
use crate::protocol::{
    Ask, CompareAnswer, CompareRequest, EntityDigest, EpochHeads, Found, InParts,
};
use crate::rows::RecordRow;

/// A record as one side has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// Its version; 0 if the side never had it.
    pub version: Version,
    /// Whether it is there.
    pub is_live: bool,
}

impl Side {
    /// Returns a live record.
    pub const fn live(version: Version) -> Self {
        Self { version, is_live: true }
    }

    /// Returns a row of the book as it is confirmed.
    pub fn of(row: &RecordRow) -> Self {
        row.confirmed.as_ref().map_or_else(Self::default, |confirmed| Self {
            version: confirmed.version,
            is_live: !confirmed.deleted,
        })
    }
}

/// The result of comparing one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Both have the same, or nothing.
    Same,
    /// The server changed it after what the book has read.
    Newer,
    /// The server has it, and the book does not.
    Missing,
    /// The book has it, and the server does not.
    Extra,
    /// Both have it, in different versions.
    OtherVersion,
}

/// Compares a record. `read_to` is the commit up to which the book has read its entity type.
pub fn judge(book: Side, server: Side, read_to: Version) -> Judged {
    let is_same =
        book.is_live == server.is_live && (!book.is_live || book.version == server.version);
    if is_same {
        return Judged::Same;
    }
    if server.version > read_to && server.version > book.version {
        return Judged::Newer;
    }
    match (book.is_live, server.is_live) {
        (true, true) => Judged::OtherVersion,
        (true, false) => Judged::Extra,
        (false, _) => Judged::Missing,
    }
}

/// What is done to mend a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// There is nothing to mend.
    Nothing,
    /// The server's state is applied.
    Take,
    /// The book lets go of the record.
    LetGo,
    /// The book lets go of a deletion that the server does not have, and takes the server's state
    /// of the same version.
    Anew,
    /// Nothing is done, because the record has pending ops.
    Leave,
    /// Nothing is done: the server's state is older than the book's.
    SetBack,
}

/// Decides how a record is mended. A later state of the server is always taken: the fold takes
/// versions upwards only, and the tail is rebased on it.
pub fn mending(book: Side, server: Side, has_pending: bool) -> Mending {
    let never = Version::default();
    if judge(book, server, server.version) == Judged::Same {
        Mending::Nothing
    } else if server.version > book.version {
        Mending::Take
    } else if server.version > never && server.version < book.version {
        Mending::SetBack
    } else if has_pending {
        Mending::Leave
    } else if server.is_live {
        Mending::Anew
    } else {
        Mending::LetGo
    }
}

/// Returns whether an answer to this question can be true.
///
/// # Errors
/// The code of the impossible part.
pub fn credible_comparison(
    asked: &CompareRequest,
    answer: &CompareAnswer,
    known: &KnownOfServer,
) -> Result<(), &'static str> {
    check(answer.server_time.is_plausible(), "server_time")?;
    check(answer.commit.number() <= limits::VERSION_MOST, "commit")?;
    let found = answer.found.as_ref().ok_or("nothing_found")?;
    match (&asked.ask, found) {
        (Ask::Digests, Found::Digests(digests)) => of_digests(digests, answer.commit),
        (Ask::Parts(asked), Found::Parts { parts, after }) => {
            let fits = |(part, digests): (&Part, &crate::digest::Digests)| {
                digests.as_slice().len() == part.divisions()
            };
            let is_whole = parts.len() == asked.parts.len();
            check(is_whole && asked.parts.iter().zip(parts).all(fits), "parts")?;
            goes_on(asked, after.as_ref(), None)
        }
        (Ask::Versions(asked), Found::Versions { records, after }) => {
            of_versions(asked, records, answer.commit)?;
            goes_on(asked, after.as_ref(), records.last().map(|(id, _)| id))
        }
        (Ask::Records(keys), Found::Records(changes)) => {
            let answered = changes.len() + answer.set_aside.rows.len();
            check(answered <= keys.len() && (answered > 0 || keys.is_empty()), "records")?;
            // A row that was set aside leaves a gap.
            let mut expected = keys.iter();
            check(changes.iter().all(|change| expected.any(|key| *key == change.key)), "records")?;
            check(changes.iter().all(|change| !change.partial), "records")?;
            changes.iter().try_for_each(|change| of_change(change, known))
        }
        (Ask::Heads, Found::Heads { logs, more: _ }) => of_heads(logs),
        _ => Err("another_question"),
    }
}

fn of_heads(logs: &[EpochHeads]) -> Result<(), &'static str> {
    check(logs.len() <= limits::EPOCHS_LISTED, "too_many_epochs")?;
    let mut epochs = BTreeSet::new();
    for EpochHeads { epoch, heads } in logs {
        check(epochs.insert(*epoch), "epoch")?;
        check((1..=limits::ANCHORS_KEPT + 1).contains(&heads.len()), "heads")?;
        let grows = heads.is_sorted_by(|one, next| one.seq < next.seq);
        check(grows && heads.iter().all(|head| head.seq > Seq::ZERO), "heads")?;
    }
    Ok(())
}

fn check(holds: bool, code: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(code) }
}

fn of_digests(digests: &[EntityDigest], commit: Version) -> Result<(), &'static str> {
    check(digests.len() <= limits::ANSWER_CURSORS, "too_many_digests")?;
    let mut names = BTreeSet::new();
    for digest in digests {
        check(digest.entity.len() <= limits::FOREIGN_NAME_BYTES, "digest")?;
        check(names.insert(digest.entity.as_str()), "digest")?;
        check(digest.read_to <= commit && digest.records <= limits::VERSION_MOST, "digest")?;
    }
    Ok(())
}

fn of_versions(
    asked: &InParts,
    records: &[(String, Version)],
    commit: Version,
) -> Result<(), &'static str> {
    check(records.len() <= limits::ANSWER_CHANGES, "too_many_versions")?;
    let mut before = asked.after.as_ref().map(RecordId::as_str);
    for (id, version) in records {
        check(before.is_none_or(|before| id.as_str() > before), "order")?;
        check((1..=commit.number()).contains(&version.number()), "version")?;
        before = Some(id);
        // An id that this program cannot hold is in a part all the same, and is passed over.
        let Ok(id) = RecordId::parse(id) else { continue };
        let place = Place::of(&id);
        check(asked.parts.iter().any(|part| part.has(place)), "part")?;
    }
    Ok(())
}

/// Checks that the next question begins further on.
fn goes_on(
    asked: &InParts,
    after: Option<&String>,
    last: Option<&String>,
) -> Result<(), &'static str> {
    let Some(after) = after else { return Ok(()) };
    let before = asked.after.as_ref().map(RecordId::as_str);
    let is_further = before.is_none_or(|before| after.as_str() > before);
    check(is_further && last.is_none_or(|last| after >= last), "after")?;
    check(RecordId::parse(after).is_ok(), "after")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number)
    }

    fn deleted(number: u64) -> Side {
        Side { version: version(number), is_live: false }
    }

    #[test]
    fn a_later_state_is_taken_an_older_one_never_and_pending_ops_hold_what_would_go() {
        let live = |number| Side::live(version(number));
        for (book, server, mended) in [
            (live(3), live(3), Mending::Nothing),
            (deleted(3), Side::default(), Mending::Nothing),
            (Side::default(), live(3), Mending::Take),
            (live(3), live(4), Mending::Take),
            (deleted(3), live(4), Mending::Take),
            (live(3), deleted(4), Mending::Take),
            (live(3), deleted(3), Mending::LetGo),
            (live(3), Side::default(), Mending::LetGo),
            (deleted(3), live(3), Mending::Anew),
            (live(4), live(3), Mending::SetBack),
            (deleted(4), live(3), Mending::SetBack),
            (live(4), deleted(3), Mending::SetBack),
        ] {
            assert_eq!(mending(book, server, false), mended, "{book:?} {server:?}");
            let held = matches!(mended, Mending::LetGo | Mending::Anew);
            let expected = if held { Mending::Leave } else { mended };
            assert_eq!(mending(book, server, true), expected, "{book:?} {server:?}");
        }
    }

    #[test]
    fn a_record_is_a_difference_only_if_the_book_has_read_past_it() {
        let live = |number| Side::live(version(number));
        for (book, server, judged) in [
            (live(3), live(3), Judged::Same),
            (deleted(3), deleted(4), Judged::Same),
            (Side::default(), Side::default(), Judged::Same),
            (Side::default(), live(5), Judged::Missing),
            (deleted(5), live(5), Judged::Missing),
            (deleted(6), live(5), Judged::Missing),
            (live(4), live(5), Judged::OtherVersion),
            // The server was set back, or its row is damaged.
            (live(5), live(4), Judged::OtherVersion),
            (live(20), live(15), Judged::OtherVersion),
            (live(4), deleted(5), Judged::Extra),
            (live(4), Side::default(), Judged::Extra),
            // The book has read up to 10.
            (live(4), live(11), Judged::Newer),
            (Side::default(), live(11), Judged::Newer),
            (live(4), deleted(11), Judged::Newer),
            // The book's own change was acked before its page was read.
            (live(12), live(12), Judged::Same),
        ] {
            assert_eq!(judge(book, server, version(10)), judged, "{book:?} {server:?}");
        }
    }
}
