//! The check: whether the book has the records that its server has. It compares digests first, and
//! records only where the digests differ. The result is data, and nothing is mended unasked.
//!
//! ```text
//!   a run that fetches ─► digests of each type ─► 256 parts ─► smaller parts ─► ids with versions
//!        ▲                     │ differ, and the server has news
//!        └─────────────────────┘ at most twice more
//! ```
//!
//! `own` reads the book, `ask` asks the server, `find` finds the records that differ, `difference`
//! has the result, `mend` mends it. `standing` asks another question: whether the server knows the
//! log.
//!
//! Invariants:
//! 1. A check changes no record. Its runs fetch what every run fetches, and send nothing.
//! 2. No snapshot of the book is held while an answer is awaited, or for more than a few records.
//! 3. An answer is applied to nothing: it can be late, false or damaged, and the book stays as it
//!    is.
//! 4. A record with pending ops is compared as it is confirmed.
//! 5. A record that the server changed after what the book has read is no difference. So a server
//!    that never rests can be checked too.

mod ask;
mod difference;
mod find;
mod mend;
mod own;
mod standing;

use std::collections::BTreeSet;

use fieldbook_core::protocol::{Ask, EntityDigest, Found};
use fieldbook_core::{EntityType, Schema, Version};
use fieldbook_transport::{Remote, RunOptions, Stopped};

use self::ask::Asker;
pub use self::difference::{
    CheckError, Difference, Differing, Mended, NotCompared, NotComparedType,
};
use self::find::Finder;
use self::own::OwnDigests;
use crate::book::Book;

/// How often a check fetches and compares digests before it looks at single records, although the
/// server has news.
const ROUNDS: u32 = 3;

impl Book {
    /// Checks whether the book has the records that its server has. First it fetches what is new,
    /// as a sync does that sends nothing. Equal books and servers need one short request more.
    ///
    /// It changes no record: the difference is data. A difference shows a fault: of the file, of a
    /// program, or of a server whose backup was put back without being declared.
    ///
    /// A sync of this book that begins meanwhile waits for the check. Dropping the future at any
    /// point loses nothing.
    ///
    /// # Errors
    /// [`CheckError`], if the book could not be brought up to date, if the server cannot compare or
    /// does not answer, or if the book fails. A damaged row of the book is
    /// [`Error::Store`](crate::Error::Store).
    ///
    /// ```
    /// use fieldbook::Book;
    /// use fieldbook::sync::{CheckError, Remote};
    ///
    /// async fn told(book: &Book, remote: &dyn Remote) -> String {
    ///     match book.check(remote).await {
    ///         Ok(difference) if difference.is_empty() => "the book has what the server has".into(),
    ///         Ok(difference) => format!("{} records differ", difference.records()),
    ///         Err(CheckError::CannotCompare) => "the server is too old to compare".into(),
    ///         Err(error) => error.to_string(),
    ///     }
    /// }
    /// ```
    pub async fn check(&self, remote: &dyn Remote) -> Result<Difference, CheckError> {
        let mut sizer = self.shared.syncing.lock().await;
        let shared = &self.shared;
        let mut asker = Asker::new(shared, remote);
        let mut round = 1;
        loop {
            let options = RunOptions { pull_only: true, ..RunOptions::default() };
            let report = shared.run(remote, &options, &mut sizer).await?;
            shared.refresh_status();
            if report.stopped != Stopped::Idle || shared.state().rereading {
                return Err(CheckError::NotUpToDate { stopped: report.stopped });
            }
            let (theirs, commit) = asker.digests().await?;
            let own = shared.own_digests().await?;
            let compared = Compared::of(&shared.schema, &own, theirs);
            let has_news = compared.differing.iter().any(|(_, theirs)| theirs.newer);
            if has_news && round < ROUNDS {
                round += 1;
                continue;
            }
            let mut found = Finder::new(shared, &mut asker, Difference::at(commit));
            let is_compared = |entity: &_| reason(&shared.schema, entity).is_none();
            found.difference.records_compared = own.records(is_compared);
            found.difference.pending = own.waiting(is_compared);
            found.difference.not_compared = compared.not_compared;
            for (entity, theirs) in compared.differing {
                found.find(&entity, own.of(&entity), &theirs).await?;
            }
            let difference = found.difference.sorted();
            return Ok(asker.counted(difference));
        }
    }
}

/// The entity types of a book and its server.
struct Compared {
    /// Types whose digests differ.
    differing: Vec<(EntityType, EntityDigest)>,
    not_compared: Vec<NotComparedType>,
}

impl Compared {
    fn of(schema: &Schema, own: &OwnDigests, theirs: Vec<EntityDigest>) -> Self {
        let (mut differing, mut not_compared) = (Vec::new(), Vec::new());
        let mut named = BTreeSet::new();
        for theirs in theirs {
            let entity = EntityType::parse(&theirs.entity);
            let reason = match &entity {
                Err(_) => Some(NotCompared::Foreign),
                Ok(entity) => reason(schema, entity),
            };
            if let Some(reason) = reason {
                not_compared.push(NotComparedType { entity: theirs.entity, reason });
            } else if let Ok(entity) = entity {
                if own.of(&entity).digest() != theirs.digest() {
                    differing.push((entity.clone(), theirs));
                }
                named.insert(entity);
            }
        }
        for entity in own.types().filter(|entity| !named.contains(*entity)) {
            if let Some(reason) = reason(schema, entity) {
                let entity = entity.to_string();
                if !not_compared.iter().any(|known| known.entity == entity) {
                    not_compared.push(NotComparedType { entity, reason });
                }
            } else if own.of(entity).digest().records > 0 {
                // The server has no record of this type and never had one.
                let entity = entity.clone();
                let none = own::nothing(&entity);
                differing.push((entity, none));
            }
        }
        Self { differing, not_compared }
    }
}

/// Returns why a type is not compared; `None` if it is.
fn reason(schema: &Schema, entity: &EntityType) -> Option<NotCompared> {
    match schema.rules(entity) {
        None => Some(NotCompared::Undeclared),
        Some(rules) if rules.local_only => Some(NotCompared::LocalOnly),
        Some(_) => None,
    }
}

impl Asker<'_> {
    async fn digests(&mut self) -> Result<(Vec<EntityDigest>, Version), CheckError> {
        let answer = self.ask(Ask::Digests).await?;
        match answer.found {
            Some(Found::Digests(digests)) => Ok((digests, answer.commit)),
            _ => Err(CheckError::Misbehaved { code: "another_question" }),
        }
    }
}
