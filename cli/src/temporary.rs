//! Temporary folders for long work. They go with the program, however it ends.
//!
//! | the program … | … and the folder goes |
//! |---|---|
//! | ends, fails or panics | when its [`Temporary`] is dropped |
//! | is told to end: ctrl-c, `SIGTERM`, `SIGHUP` | before the process ends |
//! | is killed, or loses its power | when the next program makes one: it takes away what nobody holds |
//!
//! A folder is held by a lock on a file in it, which the system lets go of with the process. Only folders that are named like
//! ours, belong to the same user and have such a file are ever looked at. One without it is left alone: it is being made, or
//! is not ours.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use tempfile::TempDir;

use crate::error::{Failure, note};
use crate::show::advice::Advice;
use crate::show::{count_of, plain};

/// How often a folder is tried: books that are being written to can make a file in it meanwhile.
const TRIES: u32 = 20;
/// What a shell says of a program that ctrl-C stopped.
const STOPPED: i32 = 130;
/// The file whose lock says that a folder is in use.
const HELD: &str = "in-use";
/// The name of that file before it is locked.
const UNLOCKED: &str = "in-use.new";

/// What is taken away when the program is stopped.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder. It is taken away when this is dropped, and when the program is stopped.
pub(crate) struct Temporary {
    folder: TempDir,
    _held: File,
}

impl Temporary {
    /// Makes a folder whose name begins so, and takes away those that a program which was killed left behind.
    pub(crate) fn new(prefix: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new("cannot make a temporary folder").because(error);
        wait_for_signals()?;
        // Whoever is stopped from here on finds the folder in the list.
        let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::with_prefix(prefix).map_err(failed)?;
        folders.push(folder.path().to_owned());
        drop(folders);
        let held = hold(folder.path()).map_err(failed)?;
        let left = take_away_left(folder.path(), prefix);
        if !left.is_empty() {
            let said = "that programs which were killed had left: taken away";
            let names: Vec<_> = left.iter().map(|path| plain(&path.display().to_string())).collect();
            let told = format!("{} {said} ({})", count_of(&left, "temporary folder"), names.join(", "));
            note(&told, &Advice::default(), folder.path());
        }
        Ok(Self { folder, _held: held })
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = self.folder.path().to_owned();
        take_away(&path);
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|folder| *folder != path);
    }
}

/// Takes all folders away, for a process that ends at once.
pub(crate) fn take_all_away() {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|folder| take_away(folder));
}

fn take_away(folder: &Path) {
    let is_gone = (0..TRIES).any(|_| fs::remove_dir_all(folder).is_ok() || !folder.exists());
    if !is_gone {
        let told = format!("{} could not be taken away", folder.display());
        note(&told, &Advice::default(), folder);
    }
}

/// Makes the file that says that the folder is in use. Under its name it is locked from the first moment on.
fn hold(folder: &Path) -> io::Result<File> {
    let file = File::create_new(folder.join(UNLOCKED))?;
    file.try_lock()?;
    fs::rename(folder.join(UNLOCKED), folder.join(HELD))?;
    Ok(file)
}

/// Takes away what stands beside a folder, is named like it and is held by nobody; returns what that was.
///
/// What cannot be looked at or taken away is left for others: there is nothing that this program needs of it.
fn take_away_left(own: &Path, prefix: &str) -> Vec<PathBuf> {
    let beside = own.parent().map(fs::read_dir).and_then(Result::ok).into_iter().flatten();
    let paths = beside.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        path != own && name.starts_with(prefix.as_bytes())
    });
    named.filter(|path| is_left(path, own) && fs::remove_dir_all(path).is_ok()).collect()
}

/// Returns whether a folder belongs to whoever owns ours and was held once, but is not any more.
fn is_left(folder: &Path, own: &Path) -> bool {
    let look = |path: &Path| path.symlink_metadata().ok();
    let held = folder.join(HELD);
    let (Some(ours), Some(theirs), Some(file)) = (look(own), look(folder), look(&held)) else { return false };
    let is_of_ours = theirs.is_dir() && file.is_file() && is_same_owner(&ours, &theirs);
    is_of_ours && File::open(held).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(unix)]
fn is_same_owner(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    one.uid() == other.uid()
}

/// Elsewhere each user has a folder for temporary files.
#[cfg(not(unix))]
fn is_same_owner(_one: &Metadata, _other: &Metadata) -> bool {
    true
}

/// Starts to wait for the signals that stop a program, unless that was done before.
fn wait_for_signals() -> Result<(), Failure> {
    static ONCE: Once = Once::new();
    let mut started = Ok(());
    ONCE.call_once(|| started = wait());
    started.map_err(|error| Failure::new("cannot wait for signals").because(error))
}

#[expect(clippy::disallowed_methods, reason = "whoever was stopped has nothing left to close")]
fn wait() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _within = runtime.enter();
        Signals::new()?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.first());
        // Not let go of: nobody makes another folder any more.
        let folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        folders.iter().for_each(|folder| take_away(folder));
        std::process::exit(STOPPED);
    });
    Ok(())
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
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
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn first(self) {
        // Without a way to hear of it the program goes on.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of its own for each test: they run beside each other, and look at all that is named alike.
    fn make(prefix: &str) -> Temporary {
        Temporary::new(prefix).unwrap_or_else(|failure| panic!("{failure}"))
    }

    #[test]
    fn a_folder_goes_when_it_is_dropped_and_when_the_work_panics() {
        let folder = make("fieldbook-test-drop-");
        let path = folder.path().to_owned();
        fs::write(path.join("book"), "full").unwrap();
        drop(folder);
        assert!(!path.exists());

        let folder = make("fieldbook-test-drop-");
        let path = folder.path().to_owned();
        let worked = std::panic::catch_unwind(move || {
            fs::write(folder.path().join("book"), "half").unwrap();
            panic!("in the middle");
        });
        assert!(worked.is_err() && !path.exists());
    }

    #[test]
    fn a_folder_that_nobody_holds_goes_and_others_stay() {
        let held = make("fieldbook-test-left-");
        let beside = |name: &str| {
            let path = held.path().with_file_name(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let left = beside("fieldbook-test-left-behind");
        drop(hold(&left).unwrap());
        fs::write(left.join("book"), "half").unwrap();
        let being_made = beside("fieldbook-test-left-being-made");
        let of_another_kind = beside("fieldbook-test-other-left");
        drop(hold(&of_another_kind).unwrap());

        let next = make("fieldbook-test-left-");
        assert!(!left.exists(), "nobody holds it");
        assert!(held.path().exists() && next.path().exists(), "both are in use");
        assert!(being_made.exists() && of_another_kind.exists(), "neither is known to be left behind");
        fs::remove_dir_all(being_made).unwrap();
        fs::remove_dir_all(of_another_kind).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_is_named_like_a_folder_is_not_followed() {
        let precious = make("fieldbook-test-precious-");
        let own = make("fieldbook-test-link-");
        let link = own.path().with_file_name("fieldbook-test-link-trap");
        let target = precious.path().join("of somebody");
        fs::create_dir(&target).unwrap();
        drop(hold(&target).unwrap());
        std::os::unix::fs::symlink(&target, &link).unwrap();
        drop(make("fieldbook-test-link-"));
        assert!(link.is_symlink() && target.join(HELD).exists());
        fs::remove_file(link).unwrap();
    }
}
