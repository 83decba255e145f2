//! Mends a difference, on request: the book takes what the server has, and lets go of what it does
//! not have. All of it is in the log, as entries that a rebuild folds again.
//!
//! Invariants:
//! 1. Each record is asked for again, so a difference that is out of date mends nothing wrongly.
//! 2. A record with pending ops is not let go of, and what comes for it is rebased as on a page.
//! 3. No cursor moves.
//! 4. A server that was set back mends nothing.

use std::collections::{BTreeMap, BTreeSet};

use fieldbook_core::entry::{Control, Decision, Draft};
use fieldbook_core::protocol::{Ask, Change, CompareAnswer, ExchangeAnswer, Found};
use fieldbook_core::rules::compare::{Mending, Side, mending};
use fieldbook_core::{Hlc, RecordKey, Version, limits};
use fieldbook_projections::Tables;
use fieldbook_transport::Remote;

use super::ask::Asker;
use super::difference::known;
use super::{CheckError, Difference, Differing, Mended};
use crate::book::{Book, Shared};
use crate::error::Error;

impl Book {
    /// Mends a difference that [`Self::check`] found. Records that are missing or have another
    /// version are fetched and applied as those of a page, which moves no cursor: pending ops of
    /// these records stay and are rebased. Records that the server does not have are let go of, but
    /// not those with pending ops. The log has all of it, and the history of a record tells it.
    ///
    /// A later check shows whether anything is left.
    ///
    /// # Errors
    /// [`CheckError::SetBack`] if the server has an older version of a record than the book; the
    /// other errors are those of a check. What was mended before an error stays mended.
    ///
    /// ```
    /// use fieldbook::Book;
    /// use fieldbook::sync::{CheckError, Remote};
    ///
    /// async fn mended(book: &Book, remote: &dyn Remote) -> Result<(), CheckError> {
    ///     let difference = book.check(remote).await?;
    ///     let mended = book.mend(remote, &difference).await?;
    ///     println!("{} records came, {} went", mended.fetched, mended.let_go);
    ///     Ok(())
    /// }
    /// ```
    pub async fn mend(
        &self,
        remote: &dyn Remote,
        difference: &Difference,
    ) -> Result<Mended, CheckError> {
        let _running = self.shared.syncing.lock().await;
        let shared = &self.shared;
        refuse_set_back(difference)?;
        let lists = [&difference.missing, &difference.extra, &difference.other_version];
        let keys = lists.into_iter().flatten().map(|one| one.key.clone());
        let keys: Vec<_> = keys.collect::<BTreeSet<_>>().into_iter().collect();
        let (mut asker, mut mended) = (Asker::new(shared, remote), Mended::default());
        let mut rest = keys.as_slice();
        while !rest.is_empty() {
            let some = rest.get(..limits::COMPARE_NAMED).unwrap_or(rest);
            let answer = asker.ask(Ask::Records(some.to_vec())).await?;
            let answered = shared.mend_some(some, answer, &mut mended)?;
            rest = rest.get(answered..).unwrap_or_default();
        }
        shared.refresh_status();
        Ok(mended)
    }
}

/// Refuses a difference that shows that the server was set back.
fn refuse_set_back(difference: &Difference) -> Result<(), CheckError> {
    let lists = [&difference.missing, &difference.extra, &difference.other_version];
    let is_older = |one: &&Differing| one.server.is_some() && one.server < one.book;
    let records: Vec<_> = lists.into_iter().flatten().filter(is_older).cloned().collect();
    if records.is_empty() { Ok(()) } else { Err(CheckError::SetBack { records }) }
}

/// What is done with the records of one answer.
#[derive(Default)]
struct Plan {
    take: Vec<Change>,
    let_go: BTreeMap<RecordKey, Version>,
    /// Those of `let_go` that are taken too.
    anew: BTreeSet<RecordKey>,
    set_back: Vec<Differing>,
}

impl Shared {
    /// Mends the records that an answer has. Returns how many of the records it answered.
    fn mend_some(
        &self,
        keys: &[RecordKey],
        answer: CompareAnswer,
        mended: &mut Mended,
    ) -> Result<usize, CheckError> {
        let CompareAnswer { server, server_epoch, tenant, server_time, set_aside, found, .. } =
            answer;
        let Some(Found::Records(changes)) = found else {
            return Err(CheckError::Misbehaved { code: "another_question" });
        };
        let answered = changes.len() + set_aside.rows.len();
        let plan = self.plan_mending(keys.iter().take(answered), changes, mended)?;
        if !plan.set_back.is_empty() {
            return Err(CheckError::SetBack { records: plan.set_back });
        }
        let Plan { take, let_go, anew, .. } = plan;
        let gone = self.let_go_of(let_go.clone())?;
        let stays = let_go.into_keys().filter(|key| !gone.contains(key));
        mended.left.extend(stays);
        mended.let_go += gone.iter().filter(|key| !anew.contains(*key)).count() as u64;
        let is_taken = |change: &Change| !anew.contains(&change.key) || gone.contains(&change.key);
        let changes: Vec<_> = take.into_iter().filter(is_taken).collect();
        mended.fetched += changes.len() as u64;
        if changes.is_empty() {
            return Ok(answered);
        }
        let request = self.empty_request(BTreeMap::new(), 0)?;
        let page = ExchangeAnswer::new(request.request, server, server_epoch, server_time);
        let counts = self.check_and_apply(&request, ExchangeAnswer { changes, tenant, ..page })?;
        match counts.misbehaved {
            Some(code) => Err(CheckError::Misbehaved { code }),
            None if counts.parked => Err(CheckError::OtherServer),
            None => Ok(answered),
        }
    }

    fn plan_mending<'k>(
        &self,
        keys: impl Iterator<Item = &'k RecordKey>,
        changes: Vec<Change>,
        mended: &mut Mended,
    ) -> Result<Plan, Error> {
        let (mut plan, mut changes) = (Plan::default(), changes.into_iter().peekable());
        let snapshot = self.snapshot()?;
        for key in keys {
            let Some(change) = changes.next_if(|change| change.key == *key) else {
                // The row cannot be read.
                mended.left.push(key.clone());
                continue;
            };
            let row = snapshot.record(key)?.unwrap_or_default();
            let (book, waits) = (Side::of(&row), !row.tail.is_empty());
            let server = Side { version: change.version, is_live: !change.deleted };
            match mending(book, server, waits) {
                Mending::Nothing => {}
                Mending::Take => plan.take.push(change),
                Mending::LetGo => drop(plan.let_go.insert(key.clone(), book.version)),
                Mending::Anew => {
                    plan.let_go.insert(key.clone(), book.version);
                    plan.anew.insert(key.clone());
                    plan.take.push(change);
                }
                Mending::Leave => mended.left.push(key.clone()),
                Mending::SetBack => plan.set_back.push(Differing {
                    key: key.clone(),
                    book: known(book),
                    server: known(server),
                }),
            }
        }
        Ok(plan)
    }

    /// Lets go of records that are still as they were and have no pending ops. Returns these.
    fn let_go_of(
        &self,
        records: BTreeMap<RecordKey, Version>,
    ) -> Result<BTreeSet<RecordKey>, Error> {
        if records.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.write_in_turn(move |session| {
            let (mut decisions, mut gone) = (Vec::new(), BTreeSet::new());
            for (key, version) in records {
                let row = session.tables.record(&key)?.unwrap_or_default();
                if row.version() == Some(version) && row.tail.is_empty() {
                    gone.insert(key.clone());
                    decisions.push(Decision::LetGo { key, version });
                }
            }
            if !decisions.is_empty() {
                session.append(Draft::control(Control::Decided(decisions)), Hlc::ZERO)?;
            }
            Ok(gone)
        })
    }
}
