//! What cuts a run short from outside: its worker, or a book that goes away.

use tokio::sync::watch;

/// The causes that a run watches.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// True once the run should end.
    stop: watch::Receiver<bool>,
    /// The turns of the book.
    turns: Option<watch::Receiver<u64>>,
    /// The turn in which the run began.
    began: u64,
}

impl Cut {
    pub(super) fn new(stop: watch::Receiver<bool>, turns: Option<watch::Receiver<u64>>) -> Self {
        let began = turns.as_ref().map_or(0, |turns| *turns.borrow());
        Self { stop, turns, began }
    }

    /// Returns whether the run should end. A book that was away and is back ends it too: what the
    /// run knows is of the time before.
    pub(super) fn is_due(&self) -> bool {
        let is_other_turn =
            |turns: &watch::Receiver<u64>| is_away(self.began) || *turns.borrow() != self.began;
        *self.stop.borrow()
            || self.stop.has_changed().is_err()
            || self.turns.as_ref().is_some_and(is_other_turn)
    }

    /// Waits until the run should end.
    pub(super) async fn due(&mut self) {
        let began = self.began;
        let turn = async {
            match &mut self.turns {
                Some(turns) => drop(turns.wait_for(|turn| is_away(began) || *turn != began).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that the handle is gone, so the answer is not needed any more.
            _ = self.stop.wait_for(|stop| *stop) => {}
            () = turn => {}
        }
    }
}

/// Returns whether a book is away in a turn.
pub(crate) const fn is_away(turn: u64) -> bool {
    turn % 2 == 1
}
