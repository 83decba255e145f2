//! The exchanges that fail between two answers. Nothing is written while no server is reached, so
//! they are counted in memory, and the next write records them.
//!
//! Invariants:
//! 1. Each failed exchange is in one recorded [`Silence`], or in none if the process ends before
//!    the next write.
//! 2. The memory is bounded: at most [`SILENCES`] silences with [`CODES`] codes each. Beyond that
//!    the times and the sums stay right, and the parts are recorded together.

use crate::entry::Silence;
use crate::time::WallTime;

/// The most silences that are kept apart. Each answer without news ends one.
pub const SILENCES: usize = 32;
/// The most codes that are counted apart in one silence.
pub const CODES: usize = 16;
/// The code of the failures whose codes are not counted apart.
pub const OTHER_CODES: &str = "other";

/// The silences that no entry has yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Silences {
    kept: Vec<Silence>,
    /// Whether the next failure continues the last silence.
    lasts: bool,
    /// How many of them are being written.
    recorded: usize,
}

impl Silences {
    /// Counts an exchange that failed.
    pub fn failed(&mut self, at: WallTime, code: &str) {
        let is_full = self.kept.len() >= SILENCES && self.recorded < self.kept.len();
        match self.kept.last_mut().filter(|_| self.lasts || is_full) {
            Some(last) => {
                last.to = at;
                last.attempts = last.attempts.saturating_add(1);
                last.answers = last.answers.saturating_add(u32::from(!self.lasts));
                count(&mut last.codes, code);
            }
            None => self.kept.push(Silence {
                from: at,
                to: at,
                attempts: 1,
                codes: vec![(code.to_owned(), 1)],
                answers: 0,
            }),
        }
        self.lasts = true;
    }

    /// Notes that the server answered: the next failure begins another silence.
    pub const fn answered(&mut self) {
        self.lasts = false;
    }

    /// Returns whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns the silences to write. They end here: a failure during the write begins another.
    pub fn record(&mut self) -> Vec<Silence> {
        self.lasts = false;
        self.recorded = self.kept.len();
        self.kept.clone()
    }

    /// Notes the end of the write that [`Self::record`] began. If it failed, the silences are
    /// recorded again by the next one.
    pub fn written(&mut self, succeeded: bool) {
        if succeeded {
            self.kept.drain(..self.recorded);
        }
        self.recorded = 0;
    }
}

fn count(codes: &mut Vec<(String, u32)>, code: &str) {
    let known = |codes: &[(String, u32)], code: &str| codes.iter().position(|(of, _)| of == code);
    let code =
        if known(codes, code).is_none() && codes.len() >= CODES - 1 { OTHER_CODES } else { code };
    match known(codes, code).and_then(|place| codes.get_mut(place)) {
        Some((_, times)) => *times = times.saturating_add(1),
        None => codes.push((code.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> WallTime {
        WallTime::from_milliseconds(second * 1_000)
    }

    #[test]
    fn failures_between_two_answers_are_one_silence_with_its_times_and_codes() {
        let mut silences = Silences::default();
        (0..38).for_each(|n| silences.failed(at(n), if n < 30 { "dns" } else { "timeout" }));
        let recorded = silences.record();
        let codes = vec![("dns".to_owned(), 30), ("timeout".to_owned(), 8)];
        assert_eq!(
            recorded,
            [Silence { from: at(0), to: at(37), attempts: 38, codes, answers: 0 }]
        );
        silences.written(true);
        assert!(silences.is_empty());
    }

    #[test]
    fn an_answer_without_news_ends_a_silence_that_waits_for_the_next_write() {
        let mut silences = Silences::default();
        silences.failed(at(1), "dns");
        silences.answered();
        silences.failed(at(9), "dns");
        let recorded = silences.record();
        assert_eq!(
            recorded.iter().map(|one| (one.from, one.to)).collect::<Vec<_>>(),
            [(at(1), at(1)), (at(9), at(9))]
        );
    }

    #[test]
    fn a_failure_during_the_write_is_in_the_next_silence_and_a_failed_write_loses_none() {
        let mut silences = Silences::default();
        silences.failed(at(1), "dns");
        assert_eq!(silences.record().len(), 1);
        silences.failed(at(2), "dns");
        silences.written(false);
        assert_eq!(silences.record().iter().map(|one| one.attempts).sum::<u32>(), 2);
        silences.failed(at(3), "dns");
        silences.written(true);
        let left = silences.record();
        assert_eq!(
            left.iter().map(|one| (one.from, one.attempts)).collect::<Vec<_>>(),
            [(at(3), 1)]
        );
    }

    #[test]
    fn more_silences_and_codes_than_are_kept_apart_are_told_together() {
        let mut silences = Silences::default();
        for n in 0..100 {
            silences.failed(at(n), &format!("code-{n}"));
            silences.answered();
        }
        (0..100).for_each(|n| silences.failed(at(100 + n), &format!("code-{n}")));
        let recorded = silences.record();
        assert_eq!(recorded.len(), SILENCES);
        assert_eq!(recorded.iter().map(|one| one.attempts).sum::<u32>(), 200);
        let last = recorded.last().unwrap();
        assert_eq!((last.from, last.to), (at(31), at(199)));
        assert_eq!(
            last.answers, 69,
            "answers came between the silences that are recorded together"
        );
        assert_eq!(last.codes.len(), CODES);
        assert_eq!(last.codes.iter().map(|(_, times)| times).sum::<u32>(), last.attempts);
    }
}
