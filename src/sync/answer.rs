//! Answers: the page, the outcomes and what follows from them, in one commit; and the log's new life if its file is a copy.

use std::collections::BTreeMap;

use fieldbook_core::entry::{Control, Decision, Draft, Meta, Receipt, Upstream};
use fieldbook_core::log::entries_from;
use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use fieldbook_core::rows::StateRow;
use fieldbook_core::rules::answer::{Answered, Reoffer, Tally, set_aside, split, take_answer};
use fieldbook_core::rules::clock::{ServerTime, observe};
use fieldbook_core::rules::failure::freed;
use fieldbook_core::rules::restamp::{Told, may_be_ahead, restamp};
use fieldbook_core::{Cursor, Epoch, FieldsJson, Hlc, Mutation, Seq, WallTime};
use fieldbook_projections::Tables;
use fieldbook_transport::Taken;

use crate::book::Shared;
use crate::error::Error;
use crate::write::reoffer;
use crate::writer::Session;

impl Shared {
    /// A page that begins elsewhere than where this book now stands is late: its records are taken by their versions, but it
    /// moves no cursor, since nobody but the server knows whether that would be forward. A cursor that says where the book stands
    /// anyway is no news.
    pub(super) fn drop_late_cursors(
        &self,
        request: &ExchangeRequest,
        began_here: bool,
        answer: &mut ExchangeAnswer,
    ) -> Result<(), Error> {
        if request.others.as_ref().is_some_and(|others| !others.as_bytes().is_empty()) {
            // One cursor stood for all.
            if !began_here {
                answer.cursors.clear();
            }
        } else if !answer.cursors.is_empty() {
            let known = self.cursors()?;
            answer.cursors.retain(|entity, cursor| {
                let place = known.get(entity);
                request.cursors.get(entity) == place && place != Some(&*cursor)
            });
        }
        Ok(())
    }

    /// Lowers the stamps of what has yet to leave, if they are ahead of the server's time. It is a commit of its own, before
    /// anything of the answer is judged by them.
    pub(super) fn lower_stamps(&self, answer: &ExchangeAnswer) -> Result<(), Error> {
        if !may_be_ahead(&self.tail(), answer.server_time) {
            return Ok(());
        }
        let is_sent_back = |outcome: &Outcome| matches!(outcome, Outcome::Stale { .. } | Outcome::Ahead);
        let sent_back = answer.outcomes.iter().filter(|told| is_sent_back(&told.outcome));
        let (sent_back, server) = (sent_back.map(|told| told.unit).collect(), answer.server_time);
        self.write_in_turn(move |session| {
            let before = match session.tables.state()?.server_time {
                Some((server, _)) => Some(server),
                None => entries_from(session.entries(), Seq::ZERO)
                    .next()
                    .transpose()?
                    .map(|entry| entry.header.wall),
            };
            let (tail, told) = (session.tail, Told { server, now: session.now, before });
            let ops = restamp(&mut session.view().0, tail, &told, &sent_back)?;
            if !ops.is_empty() {
                tracing::warn!(
                    ops = ops.len(),
                    "edits were made by a clock that stood ahead: their stamps are lowered"
                );
                let decision = Decision::Restamped { server_time: server, ops };
                session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            }
            Ok(())
        })
    }

    /// Returns whether an answer says anything that is not known.
    pub(super) fn is_news(&self, answer: &ExchangeAnswer) -> bool {
        let anchored = self.state().anchor;
        !answer.outcomes.is_empty()
            || !answer.changes.is_empty()
            || !answer.cursors.is_empty()
            || answer.receipt.is_some_and(|receipt| anchored != Some(receipt))
            || !answer.set_aside.is_empty()
            || (self.state().rereading && !answer.more)
            || is_clock_news(&self.state(), answer, self.clock.now().wall)
            || (answer.tenant.is_some() && self.state().tenant.is_none() && self.state().server.is_some())
    }

    /// The server knows another continuation of this log: the file is a copy. It goes on as a new life, with nothing lost.
    pub(super) fn start_epoch(&self, anchored: Receipt) -> Result<(), Error> {
        self.write_in_turn(move |session| {
            let known = entries_from(session.entries(), anchored.seq).next().transpose()?;
            if known.is_some_and(|entry| entry.hash == anchored.hash) {
                // The head that the server has is of this very log: the verdict is on a request from before that left.
                return Ok(());
            }
            tracing::warn!("this log is a restored or cloned copy: it goes on in a new epoch");
            let epoch = Epoch::new(session.now.wall, session.randomness);
            session.epoch = epoch;
            session.append(
                Draft::control(Control::EpochStarted { epoch, anchored: Some(anchored) }),
                Hlc::ZERO,
            )?;
            Ok(())
        })
    }
}

/// What an answer came to.
pub(super) struct Took {
    pub(super) taken: Taken,
    /// Whether its page passes over what units changed that are no longer under way, so that it reads on for nobody.
    pub(super) passed_over: bool,
}

/// Returns whether this device's clock was set since what is on record of the server's: the next start goes by that record.
fn is_clock_news(state: &StateRow, answer: &ExchangeAnswer, now: WallTime) -> bool {
    let known = state.server_time.map(|(server, wall)| ServerTime::remembered(server, wall));
    known.is_some_and(|known| known.is_outdated_by(answer.server_time, now))
}

/// Takes an answer in: facts first, then what follows from them. All of it is one commit, so whether it can be stored is known
/// before the first entry of it is appended.
pub(super) fn take(
    session: &mut Session<'_>,
    asked: &BTreeMap<String, Cursor>,
    answer: &ExchangeAnswer,
) -> Result<Took, Error> {
    let (schema, now, last) =
        (session.schema, session.now.wall, session.head().map_or(Hlc::ZERO, |head| head.hlc));
    let mut answered = {
        let (mut view, randomness) = session.view();
        take_answer(&mut view, schema, answer, now, randomness)?
    };
    let state = session.tables.state()?;
    let passed_over = passes_over(answer, &answered.upstream);
    if passed_over {
        answered.upstream.cursors.clear();
    }
    if answered.upstream.receipt == state.anchor {
        answered.upstream.receipt = None;
    }
    let (aside, rows_aside) = set_aside(&state, asked, answer, session.randomness);
    let read_to_end = state.rereading && !answer.more;
    let tells = !answered.is_empty() || !aside.is_empty() || is_clock_news(&state, answer, now);
    let taken = Taken { set_aside: rows_aside + answered.tally.set_aside, ..taken(&answered.tally) };
    let tenant = answer.tenant.filter(|_| state.tenant.is_none() && (tells || state.server.is_some()));
    answered.decisions.extend(tenant.map(|tenant| Decision::BelongsTo { tenant }));
    answered.decisions.extend(freed(session.tail, &answered.decisions, now));
    let Answered { upstream, upstream_items, decisions, decision_items, reoffers, .. } = answered;
    let mut drafts = Vec::new();
    if tells {
        let parts = split(upstream, upstream_items).into_iter();
        drafts.extend(parts.map(|(upstream, items)| Draft { meta: Meta::Upstream(upstream), items }));
    }
    drafts.extend(aside);
    if !decisions.is_empty() {
        drafts.push(Draft { meta: Meta::Control(Control::Decided(decisions)), items: decision_items });
    }
    if drafts.iter().any(|draft| draft.check().is_err()) {
        let taken = Taken { misbehaved: Some("too_much_to_store"), ..Taken::default() };
        return Ok(Took { taken, passed_over: true });
    }
    let seen = answer.changes.iter().map(|change| change.edited_at).max().unwrap_or(Hlc::ZERO);
    for (number, draft) in drafts.into_iter().enumerate() {
        let hlc = if number == 0 && tells { observe(last, seen, answer.server_time) } else { Hlc::ZERO };
        session.append(draft, hlc)?;
    }
    offer_again(session, reoffers, read_to_end)?;
    Ok(Took { taken, passed_over })
}

/// After a server was restored: what its former life had confirmed and this one lacks is written as ops of ours, under the
/// stamps it had, so that it is sent again and nothing is dropped.
fn offer_again(session: &mut Session<'_>, reoffers: Vec<Reoffer>, read_to_end: bool) -> Result<(), Error> {
    for Reoffer { key, image, edited_at } in reoffers {
        let row = session.tables.record(&key)?.unwrap_or_default();
        let now = row.image().map(FieldsJson::to_fields).transpose().map_err(Error::damaged)?;
        let mutation = match (image, now) {
            (Some(image), Some(now)) if row.tail.is_empty() => Mutation::update(key, now.patch_to(&image)),
            (Some(image), None) if row.tail.is_empty() => Mutation::create(key, image),
            (None, Some(_)) if row.tail.is_empty() => Mutation::delete(key),
            // What stands in the tail is newer than what is offered again.
            _ => continue,
        };
        reoffer(session, mutation, edited_at)?;
    }
    if !read_to_end {
        return Ok(());
    }
    let mut lost = Vec::new();
    for key in session.tables.unconfirmed()? {
        let Some(row) = session.tables.record(&key)? else { continue };
        if let (true, Some(confirmed)) = (row.tail.is_empty(), row.confirmed.as_ref()) {
            let image = confirmed.fields.to_fields().map_err(Error::damaged)?;
            lost.push((Mutation::create(key, image), confirmed.edited_at));
        }
    }
    session.append(Draft::control(Control::Decided(vec![Decision::ServerRead])), Hlc::ZERO)?;
    lost.into_iter().try_for_each(|(mutation, edited_at)| reoffer(session, mutation, edited_at))
}

/// Returns whether an answer that comes late tells of a unit that is no longer under way. The page passes over what its own
/// units changed, so that it reads on only for who takes their outcomes.
fn passes_over(answer: &ExchangeAnswer, upstream: &Upstream) -> bool {
    answer.outcomes.iter().any(|told| {
        matches!(told.outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. })
            && !upstream.outcomes.iter().any(|taken| taken.unit == told.unit)
    })
}

fn taken(tally: &Tally) -> Taken {
    Taken {
        units_acked: tally.units_acked,
        ops_acked: tally.ops_acked,
        units_stale: tally.units_stale,
        units_tried_again: tally.units_tried,
        units_isolated: 0,
        units_suspected: 0,
        ops_dead: tally.ops_dead,
        conflicts: tally.conflicts,
        changes: tally.changes,
        parked: tally.parked,
        ..Taken::default()
    }
}
