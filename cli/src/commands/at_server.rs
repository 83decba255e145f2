//! The server that a command talks to, as it is named on the command line.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fieldbook::sync::protocol::Failure as ExchangeFailure;
use fieldbook::sync::{Resume, Secret};
use fieldbook::{Book, HttpOptions, HttpRemote, StaticToken};

use super::{AppRules, Viewer, as_actor};
use crate::error::Failure;
use crate::files::{self, shown};
use crate::show::advice::BOOK;

/// A server, and the token for it.
#[derive(Debug, clap::Args)]
pub(super) struct AtServer {
    /// The server: https://HOST[:PORT], or http:// for one on this machine
    #[arg(long, value_name = "URL", env = "FIELDBOOK_SERVER", hide_env_values = true)]
    server: String,
    /// A file with the actor's token and nothing else, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AtServer {
    /// Returns the address as it is shown.
    pub(super) fn address(&self) -> &str {
        self.server.trim().trim_end_matches('/')
    }

    /// Opens a book, and the way to the server for its actor. A token ends a wait for credentials.
    pub(super) fn open(
        &self,
        book: &Path,
        viewer: &Viewer,
        rules: &AppRules,
    ) -> Result<(Book, HttpRemote), Failure> {
        let remote = remote(&self.server)?;
        let token = self.token_file.as_deref().map(token).transpose()?;
        let book = viewer.open(book, rules)?;
        let Some(token) = token else { return Ok((book, remote)) };
        book.servers().resume(Resume::Authenticated)?;
        let token = StaticToken::new(book.actor(), token);
        Ok((book, remote.with_credentials(Arc::new(token))))
    }

    /// Returns a command for the same server and actor, with further options.
    pub(super) fn again(&self, command: &str, viewer: &Viewer, more: &[&str]) -> Vec<OsString> {
        let mut call: Vec<OsString> =
            [command, BOOK, "--server", self.server.as_str()].map(OsString::from).into();
        if let Some(actor) = &viewer.actor {
            call.extend(as_actor(actor).into_iter().map(OsString::from));
        }
        if let Some(file) = self.token_file.as_ref().filter(|file| *file != Path::new("-")) {
            call.extend(["--token-file".into(), file.as_os_str().to_owned()]);
        }
        call.extend(more.iter().map(OsString::from));
        call
    }
}

/// Returns the way to a server for the actor of a book, which does not change.
pub(super) fn remote_at(
    server: &str,
    token_file: Option<&Path>,
    book: &Book,
) -> Result<HttpRemote, Failure> {
    let remote = remote(server)?;
    let Some(token) = token_file.map(token).transpose()? else { return Ok(remote) };
    Ok(remote.with_credentials(Arc::new(StaticToken::new(book.actor(), token))))
}

fn remote(server: &str) -> Result<HttpRemote, Failure> {
    HttpRemote::new(server, HttpOptions::default()).map_err(|error| unusable(server, error))
}

fn unusable(server: &str, error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let failure = Failure::usage("cannot use this --server").because(error);
    if server.trim().is_empty() {
        return failure
            .hint("it is empty: pass the server's address, or set FIELDBOOK_SERVER to it");
    }
    failure
}

fn token(path: &Path) -> Result<Secret, Failure> {
    let what = || format!("cannot read the token file {}", shown(path));
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock().take(TOKEN_BYTES))
    } else {
        std::io::read_to_string(
            files::open(path).map_err(|failure| failure.of(what()))?.take(TOKEN_BYTES),
        )
    };
    let text = text.map_err(|error| Failure::new(what()).because(error))?;
    match text.trim() {
        "" => Err(Failure::new(what()).because("it has no token")),
        token => Ok(Secret::new(token)),
    }
}

/// More bytes than any token has.
const TOKEN_BYTES: u64 = 64 * 1024;

/// Returns why an exchange failed, and what to do.
pub(super) fn exchange_failure(failure: &ExchangeFailure) -> (String, &'static str) {
    match failure {
        ExchangeFailure::Unreachable { code } => (
            format!("the server cannot be reached ({code})"),
            "check that it runs and that the address is right; your changes are kept, sync again at any time",
        ),
        ExchangeFailure::Unauthorized { code } => (
            format!("the server requires other credentials ({code})"),
            "pass the actor's token with --token-file, and the actor with --actor; your changes are kept",
        ),
        ExchangeFailure::Transient { code, .. } => (
            format!("the server cannot answer now ({code})"),
            "try again in a while; your changes are kept",
        ),
        ExchangeFailure::TooLarge => (
            "the request is too large for the server".to_owned(),
            "try a smaller --batch; your changes are kept",
        ),
        ExchangeFailure::UpgradeRequired { code } => (
            format!("the server uses another protocol ({code})"),
            "use a program of the server's version; your changes are kept",
        ),
        ExchangeFailure::Refused { code } => (
            format!("the server refuses the request ({code})"),
            "your changes are kept; ask the server's operator",
        ),
        ExchangeFailure::Unknown { code } => (
            format!("the connection broke before the answer came ({code})"),
            "sync again: no change is applied twice",
        ),
        ExchangeFailure::Misbehaved { code } => (
            format!("the answer is damaged, or not from a fieldbook server ({code})"),
            "check the address, and whether the network requires a login; your changes are kept",
        ),
    }
}
