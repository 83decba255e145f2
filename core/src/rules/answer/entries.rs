//! The entries that record the facts of an answer.
//!
//! ```text
//!   what came, part by part │ the authors of a part's changes, if the server names any │ …
//!   the signed note of the receipt, if it has one
//! ```
//!
//! Invariants:
//! 1. Authors stand directly after the part whose changes they made.
//! 2. A note is recorded only with its receipt, which is recorded once.
//!
//! What it does not do: decide what an answer tells ([`super::decide_answer`]), or record the
//! decisions about it, which come after these entries.

use super::authors::Authors;
use super::note;
use super::split::split;
use crate::entry::{Control, Draft, Items, Meta, Upstream};
use crate::protocol::ExchangeAnswer;

/// Returns the entries of an answer's facts, in their order.
pub fn entries(answer: &ExchangeAnswer, upstream: Upstream, items: Items) -> Vec<Draft> {
    let (authors, is_anchored) = (Authors::of(answer), upstream.receipt.is_some());
    let mut drafts = Vec::new();
    for (upstream, items) in split(upstream, items) {
        let named = authors.in_entry(&upstream);
        drafts.push(Draft { meta: Meta::Upstream(upstream), items });
        if !named.is_empty() {
            drafts.push(Draft::control(Control::Authors(named)));
        }
    }
    let signed = note::of(answer).filter(|_| is_anchored).cloned();
    drafts.extend(signed.map(|signed| Draft::control(Control::Note(signed))));
    drafts
}
