//! Temporary folders for long work. They are removed however the program ends.
//!
//! | the program … | … and the folder is removed |
//! |---|---|
//! | ends, fails or panics | when its [`Temporary`] is dropped |
//! | is asked to end: ctrl-C, `SIGTERM`, `SIGHUP` | before the process ends |
//! | is killed, or the power fails | when the next program makes a folder: it removes unused ones |
//!
//! A folder is in use while a file in it is locked. The system releases the lock when the process
//! ends. The program removes only folders that have the name's prefix, belong to the same user and
//! have such a file. A folder without the file is left alone: another program is making it, or it
//! is not one of ours.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use tempfile::TempDir;

use crate::error::{Failure, note};
use crate::show::advice::Advice;
use crate::show::{count_of, plain};

/// How often the removal of a folder is tried: a book that is being written to can make a file in
/// it in the meantime.
const TRIES: u32 = 20;
/// The exit code that shells use for a program stopped by ctrl-C.
const STOPPED: i32 = 130;
/// The file whose lock marks the folder as in use.
const HELD: &str = "in-use";
/// The name of that file before it is locked.
const UNLOCKED: &str = "in-use.new";

/// The folders to remove when the program is stopped.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder. It is removed when this value is dropped, and when the program is stopped.
pub(crate) struct Temporary {
    folder: TempDir,
    _held: File,
}

impl Temporary {
    /// Makes a folder with this prefix, and removes those that a killed program left behind.
    pub(crate) fn new(prefix: &str) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::new("cannot make a temporary folder").because(error);
        wait_for_signals()?;
        // The list is locked, so a signal from here on finds the folder in it.
        let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::with_prefix(prefix).map_err(failed)?;
        folders.push(folder.path().to_owned());
        drop(folders);
        let held = hold(folder.path()).map_err(failed)?;
        let left = remove_left(folder.path(), prefix);
        if !left.is_empty() {
            let names: Vec<_> =
                left.iter().map(|path| plain(&path.display().to_string())).collect();
            let folders = count_of(&left, "temporary folder");
            let text = format!("{folders} of killed programs removed ({})", names.join(", "));
            note(&text, &Advice::default(), folder.path());
        }
        Ok(Self { folder, _held: held })
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = self.folder.path().to_owned();
        remove(&path);
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|folder| *folder != path);
    }
}

/// Removes all folders, for a process that ends at once.
pub(crate) fn remove_all() {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|folder| remove(folder));
}

fn remove(folder: &Path) {
    let is_gone = (0..TRIES).any(|_| fs::remove_dir_all(folder).is_ok() || !folder.exists());
    if !is_gone {
        let text = format!("{} could not be removed", folder.display());
        note(&text, &Advice::default(), folder);
    }
}

/// Makes the file that marks the folder as in use. It is locked before it gets its name.
fn hold(folder: &Path) -> io::Result<File> {
    let file = File::create_new(folder.join(UNLOCKED))?;
    file.try_lock()?;
    fs::rename(folder.join(UNLOCKED), folder.join(HELD))?;
    Ok(file)
}

/// Removes folders beside `own` with the same prefix that no process has locked, and returns them.
///
/// A folder that cannot be read or removed is left there: this program does not need it gone.
fn remove_left(own: &Path, prefix: &str) -> Vec<PathBuf> {
    let beside = own.parent().map(fs::read_dir).and_then(Result::ok).into_iter().flatten();
    let paths = beside.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        path != own && name.starts_with(prefix.as_bytes())
    });
    named.filter(|path| is_left(path, own) && fs::remove_dir_all(path).is_ok()).collect()
}

/// Returns whether a folder belongs to the owner of ours and was locked once, but is not locked
/// now.
fn is_left(folder: &Path, own: &Path) -> bool {
    let look = |path: &Path| path.symlink_metadata().ok();
    let held = folder.join(HELD);
    let (Some(ours), Some(theirs), Some(file)) = (look(own), look(folder), look(&held)) else {
        return false;
    };
    let is_of_ours = theirs.is_dir() && file.is_file() && is_same_owner(&ours, &theirs);
    is_of_ours && File::open(held).is_ok_and(|file| file.try_lock().is_ok())
}

#[cfg(unix)]
fn is_same_owner(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    one.uid() == other.uid()
}

/// On other systems each user has a folder for temporary files.
#[cfg(not(unix))]
fn is_same_owner(_one: &Metadata, _other: &Metadata) -> bool {
    true
}

/// Starts to wait for the signals that stop a program, once for the process.
fn wait_for_signals() -> Result<(), Failure> {
    static ONCE: Once = Once::new();
    let mut started = Ok(());
    ONCE.call_once(|| started = wait());
    started.map_err(|error| Failure::new("cannot wait for signals").because(error))
}

#[expect(clippy::disallowed_methods, reason = "a stopped program has nothing left to close")]
fn wait() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _within = runtime.enter();
        Signals::new()?
    };
    std::thread::spawn(move || {
        runtime.block_on(signals.first());
        // The lock is kept until the process ends, so no other folder is made.
        let folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        folders.iter().for_each(|folder| remove(folder));
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
        // Without signals the program runs on.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a folder with a prefix of its own for each test: tests run in parallel, and each
    /// removes all folders with its prefix.
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
        assert!(
            being_made.exists() && of_another_kind.exists(),
            "neither is known to be left behind"
        );
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
