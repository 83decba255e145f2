//! The commands with which a person decides: about changes that failed, and about conflicts.

use std::error::Error;

use fieldbook::RecordKey;
use fieldbook::conflict::{Choice, Conflict, Extent};
use fieldbook::record::OpId;
use fieldbook::sync::{FailedOp, UserAction};

use crate::app::{Answer, App};
use crate::lead::{Lead, patch};
use crate::words;

/// The most items of a list.
const ITEMS: usize = 50;

impl App {
    pub(crate) fn failed(&mut self) -> Answer {
        let mut page = self.book.failed().page(None, ITEMS)?;
        // A page looks at a part of the queue, so it may be empty and still have a next one.
        while page.items.is_empty() && page.next.is_some() {
            page = self.book.failed().page(page.next, ITEMS)?;
        }
        self.failed = page.items;
        let items =
            self.failed.iter().zip(1..).map(|(item, number)| self.failed_item(item, number));
        Ok(listed(items.collect(), page.next.is_some(), "nothing failed"))
    }

    fn failed_item(&self, item: &FailedOp, number: usize) -> String {
        let (kind, actor) = (item.op.kind, &item.op.actor);
        let content = item.fields.as_ref().map_or("", |fields| fields.as_str());
        let actions = item.op.actions.iter().filter_map(|action| match action {
            UserAction::Retry => Some(format!("`retry {number}`")),
            UserAction::Correct => Some(format!("`correct {number} FIELD VALUE`")),
            UserAction::Discard => Some(format!("`discard {number}`")),
            UserAction::Choose => Some("`conflicts`".to_owned()),
            UserAction::HandOver => Some(format!("`take {number}`")),
            _ => None,
        });
        let actions: Vec<_> = actions.collect();
        let can = match actions.is_empty() {
            true => "It waits for an upgrade of the app or the server.".to_owned(),
            false => format!("Type {}.", actions.join(", ")),
        };
        format!(
            "{number:<3} {}: {kind} by {actor} {content}\n    It {}.\n    {can}",
            self.name_of(&item.key),
            item.op.in_words(),
        )
    }

    pub(crate) fn retry(&mut self, number: &str) -> Answer {
        self.book.dead_letters().retry(vec![self.failed_op(number)?])?;
        Ok("it waits to be sent again".to_owned())
    }

    pub(crate) fn correct(&mut self, number: &str, field: &str, value: &str) -> Answer {
        let op = self.failed_op(number)?;
        self.book.dead_letters().correct(op, patch(field, value)?)?;
        Ok(format!("it waits to be sent with {field} {value}"))
    }

    pub(crate) fn discard(&mut self, number: &str) -> Answer {
        // The log keeps the reason.
        self.book.dead_letters().discard(vec![self.failed_op(number)?], "discarded in the list")?;
        Ok("discarded".to_owned())
    }

    pub(crate) fn take(&mut self, number: &str) -> Answer {
        let (op, user) = (self.failed_op(number)?, self.book.actor());
        let taken = self.book.failed().hand_over(vec![op], &user)?;
        Ok(format!("{taken} taken over: {user} sends it"))
    }

    fn failed_op(&self, number: &str) -> Result<OpId, Box<dyn Error>> {
        Ok(numbered(&self.failed, number, "failed")?.op.op)
    }

    pub(crate) fn conflicts(&mut self) -> Answer {
        let page = self.book.conflicts().list_open(None, ITEMS)?;
        self.conflicts = page.items;
        let items = self.conflicts.iter().zip(1..);
        let items = items.map(|(conflict, number)| self.conflict_item(conflict, number));
        Ok(listed(items.collect(), page.next.is_some(), "no conflicts"))
    }

    fn conflict_item(&self, conflict: &Conflict, number: usize) -> String {
        let theirs = match conflict.extent {
            Extent::Deleted => "deleted",
            _ => conflict.remote.as_str(),
        };
        let by = conflict.remote_by.as_ref().map_or("somebody", |actor| actor.as_str());
        format!(
            "{number:<3} {}\n    before  {}\n    mine    {}\n    theirs  {theirs}, by {by}\n    \
             Type `mine {number}`, `theirs {number}`.",
            self.name_of(&conflict.key),
            conflict.base.as_str(),
            conflict.local.as_str(),
        )
    }

    pub(crate) fn mine(&mut self, number: &str) -> Answer {
        self.resolve(number, Choice::Local)?;
        Ok("your value stays, and waits to be sent".to_owned())
    }

    pub(crate) fn theirs(&mut self, number: &str) -> Answer {
        self.resolve(number, Choice::Remote)?;
        Ok("the other value stays".to_owned())
    }

    fn resolve(&self, number: &str, choice: Choice) -> Result<(), Box<dyn Error>> {
        let conflict = numbered(&self.conflicts, number, "conflicts")?;
        Ok(self.book.conflicts().resolve(conflict.id, choice)?)
    }

    /// Returns the name of a lead, or the key of a lead without a name that can be read.
    fn name_of(&self, key: &RecordKey) -> String {
        match self.book.get::<Lead>(&key.id) {
            Ok(Some(lead)) => words::one_line(&lead.name),
            _ => key.to_string(),
        }
    }
}

/// Joins the items of a list. `more` is true if the list goes on.
fn listed(mut items: Vec<String>, more: bool, none: &str) -> String {
    match (items.is_empty(), more) {
        (true, false) => return none.to_owned(),
        (_, true) => items.push("… and more: settle these first".to_owned()),
        (false, false) => {}
    }
    items.join("\n")
}

/// Returns the item with a number, from 1.
fn numbered<'a, T>(items: &'a [T], number: &str, command: &str) -> Result<&'a T, String> {
    let place = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let item = place.and_then(|place| items.get(place));
    item.ok_or_else(|| format!("there is no number {number}: `{command}` shows the numbers"))
}
