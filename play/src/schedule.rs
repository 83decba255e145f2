//! The order of a play: at each mainline position first the transactions that arrive there, then
//! those that are written on top.
//!
//! ```text
//!   position   7        8                 9
//!              write B  push A, write C   push B
//! ```
//!
//! Invariants:
//! 1. Positions ascend. At one position pushes come before writes, each in the order of the stream.
//! 2. An author's transactions are written in the order of their arrival. A transaction with a base
//!    before that of the one before is written right after that one.
//! 3. A transaction is written before it is pushed.

use crate::stream::Transaction;

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Its author's device sends it.
    Push,
    /// Its author's device pulls, and the author writes it.
    Write,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    /// The mainline position.
    pub(crate) position: i64,
    pub(crate) what: What,
    /// The number of the transaction in the stream.
    pub(crate) transaction: usize,
}

/// Returns all steps in order.
pub(crate) fn schedule(transactions: &[Transaction], authors: usize) -> Vec<Step> {
    let mut arriving: Vec<usize> = (0..transactions.len()).collect();
    arriving
        .sort_by_key(|number| transactions.get(*number).map(|transaction| transaction.position));
    let mut written_up_to = vec![i64::MIN; authors];
    let mut steps = Vec::with_capacity(2 * transactions.len());
    for number in arriving {
        let Some(transaction) = transactions.get(number) else { continue };
        let Some(written) = written_up_to.get_mut(transaction.author) else { continue };
        // The base never passes its own position: the one before it arrived no later, and was
        // written before that.
        *written = transaction.base.max(*written);
        steps.push(Step { position: *written, what: What::Write, transaction: number });
        steps.push(Step { position: transaction.position, what: What::Push, transaction: number });
    }
    steps.sort();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Transaction;

    fn order(transactions: &[(usize, i64, i64)]) -> Vec<(i64, What, usize)> {
        let transactions: Vec<_> = transactions
            .iter()
            .map(|(author, base, position)| Transaction::new(*author, *base, *position))
            .collect();
        schedule(&transactions, 3)
            .into_iter()
            .map(|step| (step.position, step.what, step.transaction))
            .collect()
    }

    #[test]
    fn at_a_position_pushes_come_before_writes() {
        assert_eq!(
            order(&[(0, 1, 2), (1, 2, 3)]),
            [(1, What::Write, 0), (2, What::Push, 0), (2, What::Write, 1), (3, What::Push, 1)]
        );
    }

    #[test]
    fn an_authors_next_transaction_may_be_written_before_the_last_one_arrived() {
        assert_eq!(
            order(&[(0, 1, 5), (0, 3, 7)]),
            [(1, What::Write, 0), (3, What::Write, 1), (5, What::Push, 0), (7, What::Push, 1)]
        );
    }

    #[test]
    fn an_author_writes_in_the_order_of_arrival_whatever_the_bases_say() {
        assert_eq!(
            order(&[(0, 4, 5), (0, 2, 5)]),
            [(4, What::Write, 0), (4, What::Write, 1), (5, What::Push, 0), (5, What::Push, 1)]
        );
    }
}
