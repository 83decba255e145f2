//! Whether a claimed head extends the head that is anchored.
//!
//! ```text
//!   anchored      …──A
//!   repeated      …──A            the claim is A: the receipt is sent again (the first answer may be lost)
//!   extends       …──A──c──c──H   the last contents of the claim lead from A to H: H becomes the anchor
//!   behind        …──H            H is before A: this is an older copy of the log
//!   beside        …──x──H         the contents do not lead from A to H: two copies have continued
//! ```
//!
//! The anchor that the device names decides nothing: after a lost answer it is out of date without
//! any fault.

use super::Refusal;
use crate::entry::{Receipt, chain};
use crate::limits;
use crate::protocol::HeadClaim;

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadCheck {
    /// The claimed head is the anchor.
    Known(Receipt),
    /// The claimed head is new and is to be anchored.
    Extends(Receipt),
    /// The claimed head does not extend this anchor.
    Forked(Receipt),
}

/// Compares a claim with the anchor.
pub(super) fn check(anchored: Option<Receipt>, claim: &HeadClaim) -> Result<HeadCheck, Refusal> {
    if claim.contents.len() > limits::ANCHOR_DIGESTS {
        return Err(Refusal::too_many_digests());
    }
    let claimed = Receipt { seq: claim.seq, hash: claim.hash };
    let Some(anchored) = anchored else {
        // The first head of an epoch has no anchor to contradict.
        return Ok(HeadCheck::Extends(claimed));
    };
    if claimed == anchored {
        return Ok(HeadCheck::Known(anchored));
    }
    if claim.seq <= anchored.seq {
        // A device claims its newest head, and its log only grows. So this is an older copy, or a
        // copy of an older request whose answer the device does not await.
        return Ok(HeadCheck::Forked(anchored));
    }
    let after = usize::try_from(claim.seq.since(anchored.seq)).unwrap_or(usize::MAX);
    let contents =
        claim.contents.len().checked_sub(after).and_then(|from| claim.contents.get(from..));
    match contents {
        Some(contents) if chain::extend(&anchored.hash, contents) == claim.hash => {
            Ok(HeadCheck::Extends(claimed))
        }
        // The device has a receipt for more than is known here: the store was set back, not the
        // log.
        None if claim.anchor.is_some_and(|anchor| anchor.seq > anchored.seq) => {
            Err(Refusal::server_behind())
        }
        _ => Ok(HeadCheck::Forked(anchored)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::{Hash, Seq};

    fn contents(range: std::ops::RangeInclusive<u8>) -> Vec<Hash> {
        range.map(|number| Hash::from_bytes([number; 32])).collect()
    }

    /// Returns the head of a log whose entries have the contents 1, 2, 3 and so on.
    fn head(seq: u8) -> Receipt {
        Receipt { seq: Seq::new(seq.into()), hash: chain::extend(&Hash::ZERO, &contents(1..=seq)) }
    }

    fn claim(anchor: Option<Receipt>, contents: Vec<Hash>, head: Receipt) -> HeadClaim {
        HeadClaim { anchor, contents, seq: head.seq, hash: head.hash }
    }

    #[test]
    fn the_first_head_of_an_epoch_is_taken_as_given() {
        let first = claim(None, Vec::new(), head(7));
        assert_eq!(check(None, &first), Ok(HeadCheck::Extends(head(7))));
    }

    #[test]
    fn a_head_that_extends_the_anchor_is_anchored() {
        let next = claim(Some(head(4)), contents(5..=9), head(9));
        assert_eq!(check(Some(head(4)), &next), Ok(HeadCheck::Extends(head(9))));
    }

    #[test]
    fn a_claim_is_repeatable_after_a_lost_answer() {
        let repeated = claim(Some(head(4)), contents(5..=9), head(9));
        assert_eq!(check(Some(head(9)), &repeated), Ok(HeadCheck::Known(head(9))));
        // The log has grown, and the device does not know yet that 9 is the anchor.
        let grown = claim(Some(head(4)), contents(5..=12), head(12));
        assert_eq!(check(Some(head(9)), &grown), Ok(HeadCheck::Extends(head(12))));
        let never_answered = claim(None, contents(1..=12), head(12));
        assert_eq!(check(Some(head(9)), &never_answered), Ok(HeadCheck::Extends(head(12))));
    }

    #[test]
    fn an_older_copy_of_the_log_is_a_fork() {
        let older = claim(Some(head(4)), contents(5..=6), head(6));
        assert_eq!(check(Some(head(9)), &older), Ok(HeadCheck::Forked(head(9))));
    }

    #[test]
    fn a_log_that_went_another_way_is_a_fork() {
        let other = contents(30..=37);
        let hash = chain::extend(&head(4).hash, &other);
        let beside = claim(Some(head(4)), other, Receipt { seq: Seq::new(12), hash });
        assert_eq!(check(Some(head(9)), &beside), Ok(HeadCheck::Forked(head(9))));
        let same_place = Receipt { seq: Seq::new(9), hash: Hash::from_bytes([9; 32]) };
        assert_eq!(
            check(Some(head(9)), &claim(None, Vec::new(), same_place)),
            Ok(HeadCheck::Forked(head(9)))
        );
    }

    #[test]
    fn a_claim_without_the_contents_in_between_proves_nothing() {
        let bare = claim(None, contents(12..=12), head(12));
        assert_eq!(check(Some(head(9)), &bare), Ok(HeadCheck::Forked(head(9))));
    }

    #[test]
    fn a_receipt_above_the_anchor_shows_that_the_store_was_set_back() {
        let ahead = claim(Some(head(9)), contents(10..=12), head(12));
        assert_eq!(check(Some(head(4)), &ahead).unwrap_err().code, "server_behind");
    }

    #[test]
    fn more_contents_than_the_limit_are_refused() {
        let many = claim(None, vec![Hash::ZERO; limits::ANCHOR_DIGESTS + 1], head(1));
        assert_eq!(check(None, &many).unwrap_err().code, "too_many_digests");
    }
}
