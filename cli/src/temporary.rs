//! Temporary folders for long work, which go with the program, also if it is stopped in the middle.
//!
//! Ctrl-C, and being asked to end, stop a program without giving it the time to tidy up, so it waits for both.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::error::{Failure, note};
use crate::show::advice::Advice;

/// How often the folder is tried: books that are being written to can make a file in it meanwhile.
const TRIES: u32 = 20;
/// What a shell says of a program that ctrl-C stopped.
const STOPPED: i32 = 130;

/// What is taken away; none while nobody waits for signals yet.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder. It is taken away when this goes, and when the program is stopped.
pub(crate) struct Temporary(TempDir);

impl Temporary {
    /// Makes a folder whose name begins so.
    pub(crate) fn new(prefix: &str) -> Result<Self, Failure> {
        let folder = TempDir::with_prefix(prefix)
            .map_err(|error| Failure::new("cannot make a temporary folder").because(error))?;
        take_away_when_stopped(folder.path().to_owned())?;
        Ok(Self(folder))
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Takes a folder away and ends the program, should it be stopped from now on.
fn take_away_when_stopped(folder: PathBuf) -> Result<(), Failure> {
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    folders.push(folder);
    if folders.len() == 1 { wait() } else { Ok(()) }
}

#[expect(clippy::disallowed_methods, reason = "whoever was stopped has nothing left to close")]
fn wait() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new("cannot wait for signals").because(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let signals = {
        let _within = runtime.enter();
        Signals::new().map_err(failed)?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.first());
        let folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        for folder in folders.iter().rev() {
            let is_gone = (0..TRIES).any(|_| std::fs::remove_dir_all(folder).is_ok() || !folder.exists());
            if !is_gone {
                let told = format!("{} could not be taken away", folder.display());
                note(&told, &Advice::default(), folder);
            }
        }
        std::process::exit(STOPPED);
    });
    Ok(())
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn first(mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn first(self) {
        // Without a way to hear of it the program goes on.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
