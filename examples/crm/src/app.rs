//! The app: a book that is kept synced, and the commands that read and write it.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fieldbook::conflict::{Conflict, Undone};
use fieldbook::record::OpPlace;
use fieldbook::sync::FailedOp;
use fieldbook::{
    Book, HttpOptions, HttpRemote, RecordId, SignOut, SyncHandle, WorkerOptions, Written,
};

use crate::command::{help, misfit, split};
use crate::lead::{Lead, amount, options, patch, stage};
use crate::list::LeadList;
use crate::totals::LiveTotals;
use crate::words;

/// How often the app asks the server for what others wrote.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The answer to a command: a text, or an error that says what to do.
pub(crate) type Answer = Result<String, Box<dyn Error>>;

/// What happens after a command.
pub(crate) enum Next {
    /// The app prints this, and goes on.
    Print(String),
    /// The app ends like this.
    End(SignOut),
}

/// The running app.
pub(crate) struct App {
    pub(crate) book: Book,
    pub(crate) remote: Arc<HttpRemote>,
    pub(crate) worker: SyncHandle,
    pub(crate) is_offline: bool,
    /// The changes of this user since the start, to undo from the last one on.
    pub(crate) changes: Vec<(String, OpPlace)>,
    /// What `failed` and `conflicts` listed last: a number means the same until they list again.
    pub(crate) failed: Vec<FailedOp>,
    pub(crate) conflicts: Vec<Conflict>,
    list: Option<LeadList>,
    totals: Option<LiveTotals>,
}

impl App {
    /// Opens the book of a device and starts to sync it.
    pub(crate) fn open(path: &str, user: &str, server: &str) -> Result<Self, Box<dyn Error>> {
        // If the server asks for tokens, `with_credentials` gives the remote those of the users.
        let remote = Arc::new(HttpRemote::new(server, HttpOptions::default())?);
        let book = Book::open_or_create(path, options(user)?)?;
        let often = WorkerOptions { look_every: LOOK_EVERY, ..WorkerOptions::default() };
        let worker = book.keep_syncing(Arc::clone(&remote) as _, often)?;
        let (changes, failed, conflicts) = (Vec::new(), Vec::new(), Vec::new());
        let (is_offline, list, totals) = (false, None, None);
        Ok(Self { book, remote, worker, is_offline, changes, failed, conflicts, list, totals })
    }

    /// Ends the sync and closes the book, or removes it.
    pub(crate) async fn end(self, how: SignOut) -> Result<(), Box<dyn Error>> {
        let Self { book, worker, list, totals, .. } = self;
        worker.shutdown().await?;
        drop((list, totals)); // the totals hold a handle, and `sign_out` wants the last one
        Ok(book.sign_out(how)?)
    }

    /// Waits until something on the screen changes, and returns what is to be printed.
    pub(crate) async fn news(&mut self) -> Answer {
        let list = async {
            match &mut self.list {
                Some(list) => list.changed().await,
                None => std::future::pending().await,
            }
        };
        let totals = async {
            match &mut self.totals {
                Some(totals) => totals.changed().await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! { biased; text = list => text?, text = totals => text? })
    }

    /// Carries out a line as it was typed.
    pub(crate) async fn run(&mut self, line: &str) -> Result<Next, Box<dyn Error>> {
        let typed = split(line)?;
        let typed: Vec<_> = typed.iter().map(String::as_str).collect();
        let text = match typed.as_slice() {
            [] => String::new(),
            ["help"] => help(),
            ["list"] => self.list(None)?,
            ["list", name] => self.list(Some(stage(name)?))?,
            ["totals"] => self.totals()?,
            ["quiet"] => self.quiet(),
            ["search", asked @ ..] if !asked.is_empty() => self.search(&asked.join(" "))?,
            ["show", name] => self.show(name)?,
            ["add", name, stage, amount] => self.add(name, stage, amount, "")?,
            ["add", name, stage, amount, phone] => self.add(name, stage, amount, phone)?,
            ["set", name, field, value] => self.set(name, field, value)?,
            ["delete", name] => self.delete(name)?,
            ["undo"] => self.undo()?,
            ["offline"] => self.offline().await?,
            ["online"] => self.online(),
            ["sync"] => self.sync().await?,
            ["status"] => self.status(),
            ["failed"] => self.failed()?,
            ["retry", number] => self.retry(number)?,
            ["correct", number, field, value] => self.correct(number, field, value)?,
            ["discard", number] => self.discard(number)?,
            ["take", number] => self.take(number)?,
            ["conflicts"] => self.conflicts()?,
            ["mine", number] => self.mine(number)?,
            ["theirs", number] => self.theirs(number)?,
            ["user", name] => self.user(name)?,
            ["leave"] => return self.leave(None),
            ["leave", file] => return self.leave(Some(file.into())),
            ["quit"] => return Ok(Next::End(SignOut::Keep)),
            [word, ..] => return Err(misfit(word).into()),
        };
        Ok(Next::Print(text))
    }

    fn list(&mut self, stage: Option<&str>) -> Answer {
        let (list, text) = LeadList::of(&self.book, stage)?;
        self.list = Some(list);
        Ok(text)
    }

    fn totals(&mut self) -> Answer {
        let (totals, text) = LiveTotals::of(&self.book)?;
        self.totals = Some(totals);
        Ok(text)
    }

    fn quiet(&mut self) -> String {
        (self.list, self.totals) = (None, None);
        "changes are not shown any more".to_owned()
    }

    fn search(&self, asked: &str) -> Answer {
        let hits = self.book.search::<Lead>(asked).limit(20).run()?;
        if hits.is_empty() {
            return Ok("nothing found".to_owned());
        }
        let mut lines = vec![words::heading()];
        lines.extend(hits.iter().map(|hit| words::row(&hit.row)));
        Ok(lines.join("\n"))
    }

    fn show(&self, name: &str) -> Answer {
        let (id, lead) = self.find(name)?;
        let fields = [
            ("name", lead.name),
            ("stage", lead.stage),
            ("amount", lead.amount.to_string()),
            ("phone", lead.phone),
            ("id", id.to_string()),
        ];
        let line = |(name, value): &(&str, String)| words::one_line(&format!("{name:<7} {value}"));
        let fields = fields.iter().map(line);
        let sentences = self.book.explain(&Lead::key(&id))?.sentences;
        Ok(fields.chain(sentences).collect::<Vec<_>>().join("\n"))
    }

    fn add(&mut self, name: &str, typed: &str, digits: &str, phone: &str) -> Answer {
        let (stage, amount) = (stage(typed)?.to_owned(), amount(digits)?);
        let lead = Lead { name: name.to_owned(), stage, amount, phone: phone.to_owned() };
        let written = self.book.save(&self.book.new_id(), &lead)?;
        Ok(self.wrote(format!("added {name}"), written))
    }

    fn set(&mut self, name: &str, field: &str, value: &str) -> Answer {
        let (id, lead) = self.find(name)?;
        let written = self.book.records().update(Lead::key(&id), patch(field, value)?)?;
        Ok(self.wrote(format!("{field} of {} is {value}", lead.name), written))
    }

    fn delete(&mut self, name: &str) -> Answer {
        let (id, lead) = self.find(name)?;
        let written = self.book.remove::<Lead>(&id)?;
        Ok(self.wrote(format!("deleted {}", lead.name), written))
    }

    /// Keeps a change for `undo`.
    fn wrote(&mut self, what: String, written: Written) -> String {
        let Some(place) = written.place() else { return "nothing changed".to_owned() };
        let what = words::one_line(&what);
        self.changes.push((what.clone(), place));
        what
    }

    fn undo(&mut self) -> Answer {
        let Some((what, place)) = self.changes.last().cloned() else {
            return Err("there is no change of yours since the start to undo".into());
        };
        let undone = self.book.queue().undo(place)?;
        self.changes.pop();
        Ok(match undone {
            Undone::Cancelled => format!("undone before it was sent: {what}"),
            Undone::Compensated(_) => format!("undone by another change: {what}"),
            Undone::Nothing => format!("somebody changed the same since, so it stays: {what}"),
        })
    }

    /// Finds a lead by its name, the beginning of its name, or its id.
    fn find(&self, name: &str) -> Result<(RecordId, Lead), Box<dyn Error>> {
        let by_name = || self.book.query::<Lead>("by_name").limit(5);
        let mut rows = by_name().eq(name).page()?.items;
        if rows.is_empty() {
            rows = by_name().prefix(name).page()?.items;
        }
        if let (true, Ok(id)) = (rows.is_empty(), name.parse::<RecordId>())
            && let Some(lead) = self.book.get::<Lead>(&id)?
        {
            return Ok((id, lead));
        }
        let found = rows.into_iter().filter_map(|row| Some((row.id, row.value.ok()?)));
        let mut found: Vec<_> = found.collect();
        match found.len() {
            0 => Err(format!("no name begins with `{name}`: try `search {name}`").into()),
            1 => Ok(found.remove(0)),
            _ => {
                let line = |(id, lead): &(RecordId, Lead)| {
                    format!("\n  {id}  {}", words::one_line(&lead.name))
                };
                let lines: String = found.iter().map(line).collect();
                Err(format!("which one? Type more of the name, or the id:{lines}").into())
            }
        }
    }

    fn leave(&self, export_to: Option<PathBuf>) -> Result<Next, Box<dyn Error>> {
        let unsent = self.book.queue().unsent()?;
        if export_to.is_none() && !unsent.is_empty() {
            return Err(format!("{unsent}: `sync`, or `leave FILE` to keep them in a file").into());
        }
        if export_to.as_ref().is_some_and(|path| path.exists()) {
            return Err("this file exists: name a new one".into());
        }
        Ok(Next::End(SignOut::Wipe { export_to }))
    }
}
