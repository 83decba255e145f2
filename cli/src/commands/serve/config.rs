//! The settings of `serve` in a file: the same as its flags, in JSON.
//!
//! Invariants:
//! 1. A flag counts more than the file.
//! 2. A path in the file is relative to the file's folder, so that the server starts from anywhere.
//! 3. An unknown or repeated member is refused: a misspelt limit would otherwise be no limit.

use std::path::{Path, PathBuf};

use super::Args;
use crate::error::Failure;
use crate::files;

/// The largest file of settings.
const FILE_BYTES: u64 = 1024 * 1024;

/// Returns the arguments, with the file's settings in the place of flags that were not given.
pub(super) fn merged(args: Args) -> Result<Args, Failure> {
    let Some(path) = &args.config else { return Ok(args) };
    let of_file = read(path)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    // A flag that names a store goes before each store of the file.
    let is_named = args.data.is_some() || args.store.is_some() || args.store_file.is_some();
    let (data, store, store_file) = if is_named {
        (args.data, args.store, args.store_file)
    } else {
        (beside(of_file.data), of_file.store, beside(of_file.store_file))
    };
    if data.is_some() && (store.is_some() || store_file.is_some()) {
        return Err(Failure::usage("name one store: a file (data) or a database (store_file)"));
    }
    Ok(Args {
        data,
        store,
        store_file,
        listen: args.listen.or(of_file.listen),
        tokens: args.tokens.or_else(|| beside(of_file.tokens)),
        jwt: args.jwt.or_else(|| beside(of_file.jwt)),
        rights: args.rights.or_else(|| beside(of_file.rights)),
        metrics: args.metrics.or(of_file.metrics),
        backups: args.backups.or_else(|| beside(of_file.backups)),
        connections: args.connections.or(of_file.connections),
        tenant_records: args.tenant_records.or(of_file.tenant_records),
        tenant_bytes: args.tenant_bytes.or(of_file.tenant_bytes),
        config: args.config,
    })
}

fn read(path: &Path) -> Result<Args, Failure> {
    files::is_file(path)?;
    let shown = files::shown(path);
    let unreadable =
        |error: std::io::Error| Failure::new(format!("cannot read {shown}")).because(error);
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES {
        return Err(Failure::new(format!("{shown} is larger than any file of settings")));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    if !text.trim_start().starts_with('{') {
        return Err(Failure::new(format!("{shown} is not a JSON object of settings")));
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!("the settings {shown} cannot be used")).because(error)
    })
}
