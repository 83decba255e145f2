//! `verify --server`: asks the server that keeps the heads of a log whether it is this log.
//!
//! 1. Nothing changes: not the file, and not the server.
//! 2. Only a server that answered says something: a question without an answer is a failure.

use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::{Seq, Standing, Stood};
use fieldbook::sync::CheckError;
use fieldbook::{Actor, Book};
use serde_json::{Value, json};

use super::at_server::{exchange_failure, remote_at};
use super::{look_silently, runtime};
use crate::error::Failure;
use crate::files;
use crate::output::Output;
use crate::show::{count, plain, progress};

/// The server that is asked, if one is.
#[derive(Debug, clap::Args)]
pub(crate) struct AskServer {
    /// Also ask the book's server whether it knows this log: https://HOST[:PORT], or http:// for
    /// one on this machine
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A file with the actor's token and nothing else, or `-` for standard input
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
    /// The actor whose token it is [default: the last user of the book]
    #[arg(long, value_name = "ACTOR", requires = "server")]
    actor: Option<Actor>,
}

/// What the server said.
pub(crate) struct Answered {
    address: String,
    last: Seq,
    said: Result<Stood, CheckError>,
}

impl AskServer {
    /// Asks the server, if one is named, about the log of a book, an exported log or a bundle.
    pub(crate) fn ask(&self, file: &Path) -> Result<Option<Answered>, Failure> {
        let Some(server) = &self.server else { return Ok(None) };
        if files::redaction_of(file)?.is_some_and(|redaction| redaction.ids == "hide") {
            return Err(Failure::usage("this bundle does not name its device (--ids hide)").hint(
                "the server can be asked with the book, or with a bundle without --ids hide",
            ));
        }
        let book = look_silently(file)?;
        self.actor.iter().for_each(|actor| book.act_as(actor.clone()));
        let remote = remote_at(server, self.token_file.as_deref(), &book)?;
        let spinner = progress::spinner("asking the server");
        let said = runtime()?.block_on(book.audit().at_server(&remote));
        spinner.finish_and_clear();
        let address = server.trim().trim_end_matches('/').to_owned();
        Ok(Some(Answered { address, last: last_of(&book)?, said }))
    }
}

fn last_of(book: &Book) -> Result<Seq, Failure> {
    Ok(book.audit().head()?.map_or(Seq::ZERO, |head| head.seq))
}

impl Answered {
    /// Says in words what the server knows.
    pub(crate) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        let Ok(Stood { standing, elsewhere, .. }) = &self.said else { return Ok(()) };
        writeln!(output, "server {}: {}", plain(&self.address), self.words(standing))?;
        if let Some(last) = elsewhere.iter().map(|(_, seq)| *seq).max() {
            let copies = count(elsewhere.len() as u64, "other continuation");
            writeln!(
                output,
                "It also knows {copies} of the log, up to entry {last}: a copy of the book \
                 was used, or this is one."
            )?;
        }
        Ok(())
    }

    fn words(&self, standing: &Standing) -> String {
        match standing {
            Standing::Unknown => {
                "does not know this device, so it says nothing of the log".to_owned()
            }
            Standing::Same { upto } if *upto < self.last => format!(
                "knows the log up to entry {upto}, and it is this log; what follows it has not seen"
            ),
            Standing::Same { upto } => {
                format!("knows the log up to entry {upto}, and it is this log")
            }
            Standing::Behind { shared: Some(shared), server } => format!(
                "knows the log up to entry {server}, so this is an older copy; it \
                 is the same up to entry {shared}"
            ),
            Standing::Behind { shared: None, server } => format!(
                "knows the log up to entry {server}, so this is an older copy; the \
                 server keeps nothing to compare it with"
            ),
            Standing::Forked { shared, server } => {
                let from = shared.map_or_else(String::new, |seq| format!(" after entry {seq}"));
                format!("knows another log of this device{from}, up to entry {server}")
            }
            Standing::Rewritten { seq, server, .. } => {
                format!("has another hash of entry {seq}: {server}")
            }
            _ => "says what this program does not know".to_owned(),
        }
    }

    /// Adds what the server said to the result of `verify --json`.
    pub(crate) fn add_to(&self, value: &mut Value) {
        let Some(members) = value.as_object_mut() else { return };
        let said = match &self.said {
            Ok(stood) => as_json(stood, &self.address),
            Err(error) => {
                json!({ "is": "no_answer", "why": error.to_string(), "url": self.address })
            }
        };
        members.insert("server".to_owned(), said);
        if !self.is_sound() {
            members.insert("ok".to_owned(), json!(false));
        }
    }

    fn is_sound(&self) -> bool {
        let contradicts = |stood: &Stood| {
            matches!(stood.standing, Standing::Forked { .. } | Standing::Rewritten { .. })
        };
        !self.said.as_ref().is_ok_and(contradicts)
    }

    /// Fails if the server knows another log, or did not answer.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let compare =
            "compare the file with a backup, and with the copies of the book that were used";
        match &self.said {
            Ok(Stood { standing: Standing::Rewritten { seq, .. }, .. }) => {
                let what = format!(
                    "the log was rewritten: entry {seq} is not the one that the server saw"
                );
                Err(Failure::new(what).hint(format!("keep the file, and {compare}")))
            }
            Ok(Stood { standing: Standing::Forked { .. }, .. }) => {
                let what = "the log was forked or rewritten: it goes on in an epoch that the \
                            server does not know";
                Err(Failure::new(what).hint(format!(
                    "a copy of a book becomes a log of its own with its next sync; \
                     otherwise {compare}"
                )))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.unanswered(error)),
        }
    }

    fn unanswered(&self, error: &CheckError) -> Failure {
        let failure = Failure::new(format!(
            "the server {} did not say whether it knows the log",
            self.address
        ));
        match error {
            CheckError::Failed(why) => {
                let (why, hint) = exchange_failure(why);
                failure.because(why).hint(hint)
            }
            CheckError::CannotCompare => {
                failure.because("it is older than this question").hint("upgrade the server")
            }
            CheckError::OtherServer => failure
                .because("it is not the server of this log, or the token is of another tenant")
                .hint("name the server that the book is synced with, and a token for its tenant"),
            other => failure.because(other.to_string()),
        }
    }
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Unknown => "unknown",
        Standing::Same { .. } => "same",
        Standing::Behind { .. } => "behind",
        Standing::Forked { .. } => "forked",
        Standing::Rewritten { .. } => "rewritten",
        _ => "other",
    }
}

fn as_json(stood: &Stood, address: &str) -> Value {
    let (shared, upto, entry) = match &stood.standing {
        Standing::Same { upto } => (Some(*upto), Some(*upto), None),
        Standing::Behind { shared, server } | Standing::Forked { shared, server } => {
            (*shared, Some(*server), None)
        }
        Standing::Rewritten { seq, .. } => (None, None, Some(*seq)),
        _ => (None, None, None),
    };
    let elsewhere = stood.elsewhere.iter();
    let elsewhere = elsewhere.map(|(epoch, seq)| json!({ "epoch": epoch, "upto": seq }));
    json!({
        "url": address,
        "is": word(&stood.standing),
        "shared": shared,
        "upto": upto,
        "rewritten_entry": entry,
        "heads_compared": stood.matching,
        "elsewhere": elsewhere.collect::<Vec<_>>(),
    })
}
