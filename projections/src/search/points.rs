//! The records that fit, with their points, and the best of them.

use std::collections::BTreeMap;

use fieldbook_core::limits;
use fieldbook_core::search::Fit;

/// The bits of the points of one fit.
const POINT_BITS: u32 = 16;
const MOST_POINTS: u64 = (1 << POINT_BITS) - 1;
const _: () = assert!(
    Fit::Same.points() * limits::SEARCH_WEIGHT as u64 <= MOST_POINTS,
    "the points of one fit fit their bits"
);

/// Records by their numbers, with their points.
type Numbered = Vec<(u64, u64)>;

/// The records that fit what is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hits<'t> {
    /// Folded records by their numbers, with their points: each once and ascending.
    folded: Numbered,
    /// Fits that are not settled yet: the number, and in the last bits what is missing to the most
    /// points. So the best fit of a record is first in order.
    fits: Vec<u64>,
    /// Records that were touched since, by their ids.
    touched: BTreeMap<&'t str, u64>,
}

impl<'t> Hits<'t> {
    /// Adds a fit of a folded record.
    pub(super) fn add_folded(&mut self, number: u64, points: u64) {
        self.fits.push((number << POINT_BITS) | (MOST_POINTS - points.min(MOST_POINTS)));
    }

    /// Adds a fit of a touched record.
    pub(super) fn add_touched(&mut self, id: &'t str, points: u64) {
        let known = self.touched.entry(id).or_default();
        *known = points.max(*known);
    }

    /// Keeps the best fit of each record, and no folded record with one of these numbers, which
    /// ascend.
    pub(super) fn settle(&mut self, without: &[u64]) {
        let mut fits = std::mem::take(&mut self.fits);
        fits.sort_unstable();
        fits.dedup_by_key(|fit| *fit >> POINT_BITS);
        let fits = fits.into_iter();
        self.folded =
            fits.map(|fit| (fit >> POINT_BITS, MOST_POINTS - (fit & MOST_POINTS))).collect();
        if !without.is_empty() {
            self.folded.retain(|(number, _)| without.binary_search(number).is_err());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folded.is_empty() && self.touched.is_empty()
    }

    /// Keeps the records that fit another asked word too, with the points of both. Both are
    /// settled.
    pub(super) fn and(&mut self, other: &Self) {
        let mut rest = other.folded.as_slice();
        self.folded.retain_mut(|(number, points)| {
            let before = rest.partition_point(|(other, _)| *other < *number);
            rest = rest.get(before..).unwrap_or_default();
            let both = rest.first().filter(|(other, _)| other == number);
            *points += both.map_or(0, |(_, more)| *more);
            both.is_some()
        });
        self.touched.retain(|id, points| {
            let more = other.touched.get(id);
            *points += more.copied().unwrap_or_default();
            more.is_some()
        });
    }

    /// Returns the folded records that can be among the best so many, by their numbers, and the
    /// touched records. Most points are best, and of equal points the first ids. Below `ordered`
    /// the order of numbers is that of ids; the ids of the others have to be looked up.
    pub(super) fn best(mut self, limit: usize, ordered: u64) -> (Numbered, Vec<(&'t str, u64)>) {
        if limit == 0 {
            return (Vec::new(), Vec::new());
        }
        if self.folded.len() > limit {
            let mut points: Vec<u64> = self.folded.iter().map(|(_, points)| *points).collect();
            let (_, least, _) =
                points.select_nth_unstable_by(limit - 1, |one, other| other.cmp(one));
            let (least, mut left) = (*least, limit);
            self.folded.retain(|(number, points)| {
                let is_level = *points == least;
                if is_level && *number < ordered {
                    let is_first = left > 0;
                    left = left.saturating_sub(1);
                    return is_first;
                }
                *points >= least
            });
        }
        (self.folded, self.touched.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(folded: &[(u64, u64)], touched: &[(&'static str, u64)]) -> Hits<'static> {
        let mut hits = Hits::default();
        folded.iter().for_each(|(number, points)| hits.add_folded(*number, *points));
        touched.iter().for_each(|(id, points)| hits.add_touched(id, *points));
        hits.settle(&[]);
        hits
    }

    #[test]
    fn the_best_fit_counts_and_a_touched_record_is_not_found_by_its_number() {
        let mut one = Hits::default();
        for (number, points) in [(7, 4), (3, 10), (7, 8), (5, 1)] {
            one.add_folded(number, points);
        }
        one.add_touched("a", 6);
        one.add_touched("a", 2);
        one.settle(&[5]);
        assert_eq!(one.folded, [(3, 10), (7, 8)]);
        assert_eq!(one.touched["a"], 6);
    }

    #[test]
    fn a_record_has_to_fit_both_words() {
        let mut one = hits(&[(1, 4), (3, 10), (7, 8)], &[("a", 2), ("b", 2)]);
        one.and(&hits(&[(3, 5), (4, 5), (7, 1), (9, 9)], &[("b", 3)]));
        assert_eq!(one, hits(&[(3, 15), (7, 9)], &[("b", 5)]));
    }

    #[test]
    fn only_records_that_can_be_among_the_best_are_looked_up() {
        let all = [(1, 8), (2, 8), (3, 10), (4, 8), (9, 8), (10, 4), (11, 8)];
        let (folded, touched) = hits(&all, &[("a", 1)]).best(3, 9);
        assert_eq!(folded, [(1, 8), (2, 8), (3, 10), (4, 8), (9, 8), (11, 8)]);
        assert_eq!(touched, [("a", 1)]);
        let (folded, _) = hits(&all, &[]).best(1, 9);
        assert_eq!(folded, [(3, 10)]);
        assert_eq!(hits(&all, &[("a", 1)]).best(0, 9), (vec![], vec![]));
        assert_eq!(hits(&all, &[]).best(7, 0).0, all);
    }
}
