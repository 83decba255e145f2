//! The commands about the network and the users of the device.

use std::error::Error;

use fieldbook::sync::Stopped;
use fieldbook::{Actor, RunOptions, SyncState, SyncStatus};

use crate::app::{Answer, App};
use crate::words;

impl App {
    pub(crate) async fn offline(&mut self) -> Answer {
        self.worker.pause();
        self.is_offline = true;
        // A run that had begun could still send what is typed next.
        self.between_runs().await?;
        Ok("offline: changes wait on this device".to_owned())
    }

    pub(crate) fn online(&mut self) -> String {
        self.worker.resume();
        self.is_offline = false;
        "online".to_owned()
    }

    /// Syncs now, in turn with the worker, and says how the book stands after it.
    pub(crate) async fn sync(&mut self) -> Answer {
        if self.is_offline {
            return Err("you are offline: type `online` first".into());
        }
        let report = self.book.sync(&*self.remote, &RunOptions::default()).await?;
        if report.stopped == Stopped::Idle {
            // The server answers, so the worker need not pause any longer.
            self.worker.retry_now();
        }
        Ok(words::state(&self.between_runs().await?))
    }

    /// Waits until no run is going on, and returns the status then.
    async fn between_runs(&self) -> Result<SyncStatus, Box<dyn Error>> {
        let mut status = self.book.watch_status();
        let ended = status.wait_for(|now| !matches!(now.state, SyncState::Syncing { .. })).await?;
        Ok(ended.clone())
    }

    pub(crate) fn status(&self) -> String {
        let status = self.book.status();
        let answered = status.synced_at.map_or("never".to_owned(), |at| at.to_string());
        format!(
            "{}\n{} on this device only\nlast answer of the server: {answered}",
            words::state(&status),
            words::counted(status.pending, "change"),
        )
    }

    /// Another user takes the device. What the user before did not send waits for that user.
    pub(crate) fn user(&mut self, name: &str) -> Answer {
        self.book.act_as(Actor::parse(name)?);
        self.worker.wake();
        self.changes.clear();
        let unsent = self.book.queue().unsent()?.of;
        let others = unsent.iter().filter(|(actor, _)| actor.as_str() != name);
        let waiting = others.map(|(actor, ops)| {
            format!(
                "\n{} of {actor} not sent, until {actor} is back",
                words::counted(*ops, "change")
            )
        });
        Ok(format!("{name} uses this device now{}", waiting.collect::<String>()))
    }
}
