//! Exports the log of a book before something is given up: at a sign-out, or at a reset.
//!
//! ```text
//!   write aside ─► verify what was written ─► sync ─► the file gets its name ─► sync the folder
//! ```
//!
//! Invariants:
//! 1. A file at the path is the whole log up to its last entry, on the disk, and verified.
//! 2. A file that exists is not overwritten.
//!
//! What it is not: a lock. The caller sees to it that nobody writes until it has used the export.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::Path;

use fieldbook_core::log::{
    StoreError, entries, export_in_parts, not_made, read_head, verify_export,
};
use fieldbook_core::new_file::new_file;

use crate::error::Error;
use crate::gate::Gate;

/// The moments at which a test looks at the folder of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The export is written under its temporary name.
    Exporting,
    /// The export has its name, and nothing was given up yet.
    Exported,
    /// The book without the erased values is written under its temporary name.
    Erased,
}

const EXPORTING: &str = "exporting the log";

/// Writes the whole log to a new file and verifies what was written. The file gets its name after
/// that.
///
/// # Errors
/// [`Error::Store`] if the path exists, the log is damaged, or the disk fails. There is no new file
/// then, unless only the sync of the folder fails.
pub(crate) fn export(store: &Gate, path: &Path, at: &mut dyn FnMut(Step)) -> Result<(), Error> {
    let disk = StoreError::disk(EXPORTING);
    let fill = |mut file: File| -> Result<(), Error> {
        let mut writer = BufWriter::new(&file);
        export_in_parts(|| entries(&store.begin_read()?), &mut writer)?;
        writer.flush().map_err(&disk)?;
        drop(writer);
        at(Step::Exporting);
        file.rewind().map_err(&disk)?;
        let damaged = |damage| StoreError::corrupt("the exported log", None, damage);
        let exported = verify_export(&mut BufReader::new(&file)).map_err(damaged)?;
        if exported.head != read_head(&entries(&store.begin_read()?)?)? {
            return Err(StoreError::corrupt("the exported log", None, "it ends too early").into());
        }
        Ok(())
    };
    new_file(path, fill).map_err(|error| not_made(error, path, EXPORTING))
}
