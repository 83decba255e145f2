//! The steps from one state of a list to the next, by places.
//!
//! Invariants:
//! 1. Taking the removed rows out, putting the inserted ones in and then replacing the updated ones
//!    gives the new list ([`Steps`] has the order).
//! 2. Of the rows that are in both lists, as few as possible are removed and inserted: a row that
//!    moves does not move the others.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt, HashSet};

use crate::names::RecordId;

/// The steps from a list to the next one. A row that moves is removed and inserted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// The places of the old list whose rows go, ascending.
    pub removed: Vec<usize>,
    /// The places of the new list at which rows are inserted, one after the other, ascending.
    pub inserted: Vec<usize>,
    /// The places of the new list whose rows were there before and have other content, ascending.
    pub updated: Vec<usize>,
}

impl Steps {
    /// Returns whether the lists are equal.
    pub const fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.inserted.is_empty() && self.updated.is_empty()
    }

    /// Compares two states of a list. Rows with the same id are the same record; a record that is
    /// listed several times is paired in the order of its rows.
    pub fn between<T: PartialEq>(before: &[T], after: &[T], id: impl Fn(&T) -> &RecordId) -> Self {
        let mut places: HashMap<&RecordId, VecDeque<usize>> = HashMap::new();
        for (place, row) in before.iter().enumerate() {
            places.entry(id(row)).or_default().push_back(place);
        }
        let was_at = |row| places.get_mut(id(row)).and_then(VecDeque::pop_front);
        let pairs: Vec<(usize, usize)> = after
            .iter()
            .map(was_at)
            .enumerate()
            .filter_map(|(to, from)| Some((from?, to)))
            .collect();
        let stay = longest_ascending(&pairs);
        let from: HashSet<_> = stay.iter().map(|(from, _)| *from).collect();
        let to: HashSet<_> = stay.iter().map(|(_, to)| *to).collect();
        let differs = |(from, to): &(usize, usize)| before.get(*from) != after.get(*to);
        Self {
            removed: (0..before.len()).filter(|place| !from.contains(place)).collect(),
            inserted: (0..after.len()).filter(|place| !to.contains(place)).collect(),
            updated: stay.iter().filter(|pair| differs(pair)).map(|(_, to)| *to).collect(),
        }
    }
}

/// Returns the most pairs, in their order, whose first numbers ascend.
fn longest_ascending(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the run of this length that ends lowest: its last pair. Each pair has the
    // pair before it in its run.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    let first_of = |at: &usize| pairs.get(*at).map(|(first, _)| *first);
    for (at, (first, _)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| first_of(end) < Some(*first));
        before.push(length.checked_sub(1).and_then(|shorter| ends.get(shorter)).copied());
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let last = ends.last().copied();
    let run = std::iter::successors(last, |at| before.get(*at).copied().flatten());
    let mut run: Vec<_> = run.filter_map(|at| pairs.get(at).copied()).collect();
    run.reverse();
    run
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (RecordId, u8);

    fn row(id: u8, content: u8) -> Row {
        (RecordId::parse(&id.to_string()).unwrap(), content)
    }

    fn steps(before: &[Row], after: &[Row]) -> Steps {
        Steps::between(before, after, |row| &row.0)
    }

    fn applied(mut list: Vec<Row>, steps: &Steps, after: &[Row]) -> Vec<Row> {
        steps.removed.iter().rev().for_each(|place| drop(list.remove(*place)));
        steps.inserted.iter().for_each(|place| list.insert(*place, after[*place].clone()));
        steps.updated.iter().for_each(|place| list[*place] = after[*place].clone());
        list
    }

    #[test]
    fn a_row_that_moves_does_not_move_the_others() {
        let before: Vec<_> = (1..=5).map(|id| row(id, 0)).collect();
        let mut after = before.clone();
        let last = after.pop().unwrap();
        after.insert(0, last);
        after[2].1 = 1;
        let wanted = Steps { removed: vec![4], inserted: vec![0], updated: vec![2] };
        assert_eq!(steps(&before, &after), wanted);
        assert!(steps(&before, &before).is_empty());
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        proptest::collection::vec(
            (0..9_u8, 0..3_u8).prop_map(|(id, content)| row(id, content)),
            0..12,
        )
    }

    proptest! {
        #[test]
        fn the_steps_lead_from_one_list_to_the_next(before in rows(), after in rows()) {
            let steps = steps(&before, &after);
            prop_assert_eq!(applied(before.clone(), &steps, &after), after.clone());
            prop_assert_eq!(steps.is_empty(), before == after);
            let touched: HashSet<_> = steps.inserted.iter().chain(&steps.updated).collect();
            prop_assert_eq!(touched.len(), steps.inserted.len() + steps.updated.len());
        }
    }
}
