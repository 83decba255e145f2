//! Where a log stands beside the heads that a server keeps of its device.
//!
//! ```text
//!   the server keeps   H5 ····· H9 ── H12     the first head of an epoch and the newest
//!   same               ──5──────9─────12──14  every head is an entry of the log
//!   behind             ──5──────9──10         the log ends before the last head: an older copy
//!   forked             ──5───x──x             the log goes on in an epoch that the server lacks
//!   rewritten          ──5──────z─────12      another entry is in the place of a head
//! ```
//!
//! Invariants:
//! 1. A log that the server anchored, and that only grew since, is the same.
//! 2. What is called the same ends with an entry whose hash is that of a head. The hash covers
//!    every entry before, so none of them is another than the server saw.
//!
//! What it does not do: check the hashes of the log. Without that, a hash beside an entry says
//! nothing about its bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Epoch;
use crate::numbers::{Hash, Seq};
use crate::protocol::EpochHeads;

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The server keeps no head of this device.
    Unknown,
    /// The server knows the log up to an entry, and it is this log.
    Same {
        /// The last entry that the server knows.
        upto: Seq,
    },
    /// The log ends before the last head that the server has of its epoch: it is an older copy.
    Behind {
        /// The last entry of which the server has the same head; none if it keeps no head of an
        /// entry of this log, so that nothing could be compared.
        shared: Option<Seq>,
        /// The entry of the last head.
        server: Seq,
    },
    /// The log goes on in an epoch that the server does not know, and the server knows another
    /// continuation.
    Forked {
        /// The last entry of which the server has the same head.
        shared: Option<Seq>,
        /// The last entry of the other continuation.
        server: Seq,
    },
    /// An entry differs from the one that the server has a head of.
    Rewritten {
        /// The first such entry.
        seq: Seq,
        /// Its hash.
        own: Hash,
        /// The hash of the head.
        server: Hash,
    },
}

/// The result of comparing a log with the heads that a server keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stood {
    /// Where the log stands.
    pub standing: Standing,
    /// The number of heads that are entries of the log.
    pub matching: usize,
    /// Other continuations of the log, which this log does not have: their epochs, and the last
    /// entry of each that the server knows.
    pub elsewhere: Vec<(Epoch, Seq)>,
}

/// Returns the places at which a log has to be read.
pub fn places(logs: &[EpochHeads]) -> BTreeSet<Seq> {
    logs.iter().flat_map(|log| &log.heads).map(|head| head.seq).collect()
}

/// Compares a log with the heads that a server keeps. `present` is the epoch of its last entry, and
/// `own` has the epoch and the hash of its entries at [`places`].
pub fn standing(present: Epoch, own: &BTreeMap<Seq, (Epoch, Hash)>, logs: &[EpochHeads]) -> Stood {
    let mut seen = Seen::default();
    for EpochHeads { epoch, heads } in logs {
        let mut elsewhere = None;
        for known in heads {
            match own.get(&known.seq) {
                Some((of, hash)) if of == epoch && *hash == known.hash => {
                    seen.matches(known.seq, *epoch == present);
                }
                // A copy writes on in the former epoch until it hears that it is one.
                Some((of, hash)) if of == epoch && *epoch == present => {
                    seen.differs(known.seq, *hash, known.hash);
                }
                None if *epoch == present => seen.later = Some(known.seq).max(seen.later),
                _ => elsewhere = Some(known.seq).max(elsewhere),
            }
        }
        seen.elsewhere.extend(elsewhere.map(|seq| (*epoch, seq)));
    }
    let standing = seen.judge();
    Stood { standing, matching: seen.matching, elsewhere: seen.elsewhere }
}

/// What the heads show.
#[derive(Default)]
struct Seen {
    matching: usize,
    /// The last entry with the same head.
    shared: Option<Seq>,
    /// The first entry that differs: its place, its hash, and that of the head.
    rewritten: Option<(Seq, Hash, Hash)>,
    /// The last head of the present epoch, if the log ends before it.
    later: Option<Seq>,
    elsewhere: Vec<(Epoch, Seq)>,
    /// The last entry of the present epoch with the same head. It covers all entries before.
    present: Option<Seq>,
}

impl Seen {
    fn matches(&mut self, seq: Seq, is_present: bool) {
        self.matching += 1;
        self.shared = Some(seq).max(self.shared);
        self.present = Some(seq).filter(|_| is_present).max(self.present);
    }

    fn differs(&mut self, seq: Seq, own: Hash, server: Hash) {
        if self.rewritten.is_none_or(|(first, ..)| seq < first) {
            self.rewritten = Some((seq, own, server));
        }
    }

    fn judge(&self) -> Standing {
        if let Some((seq, own, server)) = self.rewritten {
            return Standing::Rewritten { seq, own, server };
        }
        let shared = self.shared;
        if let Some(server) = self.later {
            return Standing::Behind { shared, server };
        }
        // Whatever else the server knows, it took the present epoch as it is.
        if let Some(upto) = self.present {
            return Standing::Same { upto };
        }
        let furthest = self.elsewhere.iter().map(|(_, seq)| *seq).max();
        match (furthest, shared) {
            (Some(server), shared) => Standing::Forked { shared, server },
            (None, Some(upto)) => Standing::Same { upto },
            (None, None) => Standing::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Receipt;

    fn epoch(number: u8) -> Epoch {
        Epoch::from_bytes([number; 16])
    }

    fn hash(seq: u8, of: u8) -> Hash {
        Hash::from_bytes([seq ^ (of << 4); 32])
    }

    /// The heads of an epoch; the hashes are those of log `of`.
    fn kept(number: u8, of: u8, seqs: &[u8]) -> EpochHeads {
        let receipt = |seq: &u8| Receipt { seq: Seq::new((*seq).into()), hash: hash(*seq, of) };
        EpochHeads { epoch: epoch(number), heads: seqs.iter().map(receipt).collect() }
    }

    /// Compares a log: epochs with their last entries, all with the hashes of log 0.
    fn stands(epochs: &[(u8, u8)], logs: &[EpochHeads]) -> Stood {
        let mut own = BTreeMap::new();
        let mut next = 1;
        for (number, last) in epochs {
            for seq in next..=*last {
                own.insert(Seq::new(seq.into()), (epoch(*number), hash(seq, 0)));
            }
            next = last + 1;
        }
        standing(epoch(epochs.last().unwrap().0), &own, logs)
    }

    fn seq(number: u64) -> Seq {
        Seq::new(number)
    }

    #[test]
    fn a_log_that_only_grew_is_the_same() {
        let stood = stands(&[(1, 14)], &[kept(1, 0, &[5, 9, 12])]);
        assert_eq!((stood.standing, stood.matching), (Standing::Same { upto: seq(12) }, 3));
        assert_eq!(stood.elsewhere, []);
    }

    #[test]
    fn a_log_that_ends_before_the_last_head_is_an_older_copy() {
        let behind = |shared| Standing::Behind { shared, server: seq(12) };
        let logs = [kept(1, 0, &[5, 9, 12])];
        assert_eq!(stands(&[(1, 10)], &logs).standing, behind(Some(seq(9))));
        assert_eq!(stands(&[(1, 4)], &logs).standing, behind(None), "nothing was compared");
    }

    #[test]
    fn a_log_with_another_entry_in_the_place_of_a_head_was_rewritten() {
        let stood = stands(&[(1, 14)], &[kept(1, 0, &[5]), kept(1, 2, &[9, 12])]);
        let rewritten = Standing::Rewritten { seq: seq(9), own: hash(9, 0), server: hash(9, 2) };
        assert_eq!(stood.standing, rewritten);
        let shorter = stands(&[(1, 10)], &[kept(1, 2, &[9, 12])]);
        assert_eq!(shorter.standing, rewritten, "an older copy may be rewritten too");
    }

    #[test]
    fn a_copy_that_the_server_told_of_goes_on_as_itself() {
        // The log was copied after entry 8. Both copies go on, this one in epoch 2.
        let logs = [kept(2, 0, &[9, 10]), kept(1, 0, &[5, 8]), kept(1, 3, &[12])];
        let stood = stands(&[(1, 8), (2, 11)], &logs);
        assert_eq!(stood.standing, Standing::Same { upto: seq(10) });
        assert_eq!(stood.elsewhere, [(epoch(1), seq(12))]);
        // It wrote on in the former epoch before it heard that it is a copy.
        let logs = [kept(2, 0, &[15]), kept(1, 0, &[5, 8]), kept(1, 3, &[12])];
        let stood = stands(&[(1, 13), (2, 16)], &logs);
        assert_eq!(stood.standing, Standing::Same { upto: seq(15) });
        let not_yet = stands(&[(1, 13), (2, 16)], &logs[1..]);
        let (shared, server) = (Some(seq(8)), seq(12));
        assert_eq!(not_yet.standing, Standing::Forked { shared, server });
        // The other copy does not have epoch 2.
        let original = stands(&[(1, 14)], &[kept(1, 0, &[5, 8, 12]), kept(2, 3, &[9, 10])]);
        assert_eq!(original.standing, Standing::Same { upto: seq(12) });
        assert_eq!(original.elsewhere, [(epoch(2), seq(10))]);
    }

    #[test]
    fn a_log_that_went_on_in_an_epoch_of_its_own_is_forked() {
        let forked = stands(&[(1, 8), (7, 14)], &[kept(1, 0, &[5]), kept(1, 3, &[12])]);
        let (shared, server) = (Some(seq(5)), seq(12));
        assert_eq!(forked.standing, Standing::Forked { shared, server });
        let whole = stands(&[(7, 14)], &[kept(1, 3, &[5, 12])]);
        assert_eq!(whole.standing, Standing::Forked { shared: None, server });
    }

    #[test]
    fn a_new_epoch_that_was_not_synced_yet_is_the_same_log() {
        let stood = stands(&[(1, 8), (2, 11)], &[kept(1, 0, &[5, 8])]);
        assert_eq!(stood.standing, Standing::Same { upto: seq(8) });
    }

    #[test]
    fn a_server_without_a_head_of_the_device_does_not_know_it() {
        assert_eq!(stands(&[(1, 8)], &[]).standing, Standing::Unknown);
    }
}
