//! Finds the news in an answer: what the book does not know yet, and which cursors move.
//! [`super::answer`] handles the units and records of the answer.
//!
//! | the answer has | it is applied |
//! |---|---|
//! | cursors of a page that did not begin at the book's cursors | never: only the server can compare them with the book's cursors |
//! | cursors of a page that began before the book had one cursor for everything | never: they would move some entity types apart from that cursor |
//! | cursors of a page with the outcome of a unit that is no longer unanswered | never: the page leaves out the changes of that unit |
//! | other cursors | unless the book has them already |
//! | a receipt | unless the book has it already |
//! | a tenant | if none is known, together with something else, or once the book belongs to a server |
//! | the end of the last page, while an accepted server is read again | if a page was asked of this server epoch |
//! | the server's time | together with other news, or alone if the device's clock was set since it last arrived |
//!
//! Invariants:
//! 1. An answer with nothing new writes nothing.
//! 2. A cursor never moves past a record that the book has not received.
//!
//! What it does not do: check whether the answer can be true ([`super::credible`]), or comes from
//! the book's own server ([`super::belonging`]).

use std::collections::BTreeMap;

use super::answer::Answered;
use super::clock::ServerTime;
use crate::entry::{Decision, Upstream};
use crate::names::EntityType;
use crate::numbers::Cursor;
use crate::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use crate::rows::StateRow;
use crate::time::WallTime;

/// Removes cursors that must not move. `began_here` is true if the request named one cursor for
/// everything, and the book still has it; an empty cursor is the beginning. `known` reads the
/// cursor of each entity type, for a request that names none.
///
/// # Errors
/// The error of `known`.
pub fn drop_late_cursors<E>(
    request: &ExchangeRequest,
    began_here: bool,
    known: impl FnOnce() -> Result<BTreeMap<EntityType, Cursor>, E>,
    answer: &mut ExchangeAnswer,
) -> Result<(), E> {
    match &request.others {
        // The book has read on since, for all entity types at once.
        Some(_) if !began_here => answer.cursors.clear(),
        // The request began at the book's cursor, so its cursors are the book's.
        Some(_) => {
            answer.cursors.retain(|entity, cursor| request.cursors.get(entity) != Some(&*cursor))
        }
        None if answer.cursors.is_empty() => {}
        None => {
            let known = known()?;
            answer.cursors.retain(|entity, cursor| {
                let place = known.get(entity);
                request.cursors.get(entity) == place && place != Some(&*cursor)
            });
        }
    }
    Ok(())
}

/// Returns whether an answer completes the reading of an accepted server: the request asked this
/// server epoch for a page, and there are no more changes after it. An answer without a page does
/// not show which records the server has.
pub fn ends_rereading(
    state: &StateRow,
    request: &ExchangeRequest,
    answer: &ExchangeAnswer,
) -> bool {
    let is_of_this_life = request.server_epoch.is_none_or(|epoch| epoch == answer.server_epoch);
    state.rereading && request.page_limit > 0 && is_of_this_life && !answer.more
}

/// Returns whether an answer may contain news. `now` is the device's wall clock.
pub fn is_news(
    state: &StateRow,
    request: &ExchangeRequest,
    answer: &ExchangeAnswer,
    now: WallTime,
) -> bool {
    !answer.outcomes.is_empty()
        || !answer.changes.is_empty()
        || !answer.cursors.is_empty()
        || answer.receipt.is_some_and(|receipt| state.anchor != Some(receipt))
        || !answer.set_aside.is_empty()
        || ends_rereading(state, request, answer)
        || is_clock_news(state, answer, now)
        || (answer.tenant.is_some() && state.tenant.is_none() && state.server.is_some())
}

/// The news of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// The entries to write.
    pub answered: Answered,
    /// Whether its facts are written at all.
    pub tells: bool,
    /// Whether its page leaves out changes of units that are no longer unanswered, so that its
    /// cursors are of no use.
    pub passed_over: bool,
}

/// Keeps the news. `sets_aside` is true if the answer has new rows that this program cannot hold.
pub fn keep_news(
    state: &StateRow,
    answer: &ExchangeAnswer,
    now: WallTime,
    sets_aside: bool,
    mut answered: Answered,
) -> News {
    let passed_over = passes_over(answer, &answered.upstream);
    if passed_over {
        answered.upstream.cursors.clear();
    }
    if answered.upstream.receipt == state.anchor {
        answered.upstream.receipt = None;
    }
    let tells = !answered.is_empty() || sets_aside || is_clock_news(state, answer, now);
    let tenant =
        answer.tenant.filter(|_| state.tenant.is_none() && (tells || state.server.is_some()));
    answered.decisions.extend(tenant.map(|tenant| Decision::BelongsTo { tenant }));
    News { answered, tells, passed_over }
}

/// Returns whether a late answer has the outcome of a unit that is no longer unanswered. A page
/// leaves out what the units of its request changed, so its cursors are valid only together with
/// their outcomes.
fn passes_over(answer: &ExchangeAnswer, upstream: &Upstream) -> bool {
    answer.outcomes.iter().any(|answered| {
        matches!(answered.outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. })
            && !upstream.outcomes.iter().any(|taken| taken.unit == answered.unit)
    })
}

/// Returns whether this device's clock was set since the server's time was recorded. The next start
/// uses that record.
fn is_clock_news(state: &StateRow, answer: &ExchangeAnswer, now: WallTime) -> bool {
    let known = state.server_time.map(|(server, wall)| ServerTime::remembered(server, wall));
    known.is_some_and(|known| known.is_outdated_by(answer.server_time, now))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;
    use crate::entry::Receipt;
    use crate::ids::{ServerEpoch, ServerId, TenantId};
    use crate::numbers::{Hash, Seq};
    use crate::protocol::{SetAsideRow, UnitOutcome};
    use crate::random::SeededRandomness;
    use crate::rules::answer::decide_answer;
    use crate::rules::test_tail::request;
    use crate::rules::test_view::{TestView, answer, applied, theirs, unit_id};
    use crate::schema::{EntityRules, Schema};

    const NOW: WallTime = WallTime::from_milliseconds(1_000_000);
    const AN_HOUR_LATER: WallTime = WallTime::from_milliseconds(4_600_000);

    fn entity(name: &str) -> EntityType {
        EntityType::parse(name).unwrap()
    }

    fn cursor(text: &str) -> Cursor {
        Cursor::new(text.into()).unwrap()
    }

    fn cursors(all: &[(&str, &str)]) -> BTreeMap<EntityType, Cursor> {
        all.iter().map(|(name, at)| (entity(name), cursor(at))).collect()
    }

    fn receipt(seq: u64) -> Receipt {
        Receipt { seq: Seq::new(seq), hash: Hash::ZERO }
    }

    fn tenant() -> TenantId {
        TenantId::from_bytes([9; 16])
    }

    /// Makes the state of a book of server 2 that was answered just now.
    fn state() -> StateRow {
        let server = (ServerId::from_bytes([2; 16]), ServerEpoch::from_bytes([3; 16]));
        StateRow { server: Some(server), server_time: Some((NOW, NOW)), ..StateRow::default() }
    }

    fn silent() -> ExchangeAnswer {
        ExchangeAnswer { server_time: NOW, ..answer() }
    }

    /// Returns the entity types whose cursors still move.
    fn moved(
        began: &[(&str, &str)],
        stands: &[(&str, &str)],
        reads_to: &[(&str, &str)],
    ) -> Vec<String> {
        let asked = ExchangeRequest { cursors: cursors(began), ..request() };
        let mut answer = ExchangeAnswer { cursors: cursors(reads_to), ..silent() };
        drop_late_cursors(&asked, false, || Ok::<_, Infallible>(cursors(stands)), &mut answer)
            .unwrap();
        answer.cursors.into_keys().map(|entity| entity.to_string()).collect()
    }

    #[test]
    fn a_page_that_began_where_the_book_stands_moves_its_cursors() {
        assert_eq!(moved(&[("lead", "a")], &[("lead", "a")], &[("lead", "b")]), ["lead"]);
        assert_eq!(moved(&[], &[], &[("lead", "b")]), ["lead"], "both stand at the beginning");
    }

    #[test]
    fn a_page_that_began_elsewhere_moves_no_cursor() {
        let stands = [("lead", "c"), ("deal", "a")];
        let reads_to = [("lead", "b"), ("deal", "b")];
        assert_eq!(moved(&[("lead", "a"), ("deal", "a")], &stands, &reads_to), ["deal"]);
    }

    #[test]
    fn a_cursor_that_says_where_the_book_stands_is_no_news() {
        let none: [String; 0] = [];
        assert_eq!(moved(&[("lead", "a")], &[("lead", "a")], &[("lead", "a")]), none);
    }

    #[test]
    fn one_cursor_for_everything_moves_all_or_nothing() {
        let moves = |began_here| {
            let asked = ExchangeRequest { others: Some(cursor("x")), ..request() };
            let mut answer = ExchangeAnswer { cursors: cursors(&[("lead", "b")]), ..silent() };
            let unread =
                || -> Result<_, Infallible> { panic!("no entity type of its own is read") };
            drop_late_cursors(&asked, began_here, unread, &mut answer).unwrap();
            answer.cursors.len()
        };
        assert_eq!((moves(true), moves(false)), (1, 0));
    }

    /// Two requests started from the beginning. The answer to the first gave one cursor for
    /// everything, and a third request used it. The answer to the second moved an entity type
    /// further than the answer to the third, which then took its cursor back.
    #[test]
    fn a_late_page_from_the_beginning_moves_no_entity_type_beside_one_cursor_for_everything() {
        let moves = |began_here| {
            let asked = ExchangeRequest { others: Some(Cursor::default()), ..request() };
            let mut answer = ExchangeAnswer { cursors: cursors(&[("note", "f")]), ..silent() };
            let known = || Ok::<_, Infallible>(cursors(&[("lead", "a")]));
            drop_late_cursors(&asked, began_here, known, &mut answer).unwrap();
            answer.cursors.len()
        };
        assert_eq!((moves(true), moves(false)), (1, 0));
    }

    #[test]
    fn an_answer_that_says_nothing_new_is_no_news() {
        assert!(!is_news(&state(), &request(), &silent(), NOW));
        let known = StateRow { anchor: Some(receipt(4)), tenant: Some(tenant()), ..state() };
        let same = ExchangeAnswer { receipt: Some(receipt(4)), tenant: Some(tenant()), ..silent() };
        assert!(!is_news(&known, &request(), &same, NOW));
        let nobody = StateRow { server: None, ..state() };
        let answer = ExchangeAnswer { tenant: Some(tenant()), ..silent() };
        assert!(!is_news(&nobody, &request(), &answer, NOW));
    }

    #[test]
    fn each_thing_that_an_answer_can_say_is_news() {
        let is_new = |answer: &ExchangeAnswer| is_news(&state(), &request(), answer, NOW);
        let outcome = UnitOutcome { unit: unit_id(1), outcome: applied("1") };
        assert!(is_new(&ExchangeAnswer { outcomes: vec![outcome], ..silent() }));
        assert!(is_new(&ExchangeAnswer { changes: vec![theirs("1", 2, json!({}))], ..silent() }));
        assert!(is_new(&ExchangeAnswer { cursors: cursors(&[("lead", "b")]), ..silent() }));
        assert!(is_new(&ExchangeAnswer { receipt: Some(receipt(4)), ..silent() }));
        assert!(is_new(&ExchangeAnswer { tenant: Some(tenant()), ..silent() }));
        let mut aside = silent();
        aside.set_aside.rows.push(SetAsideRow {
            name: "x".to_owned(),
            version: None,
            fault: "no name",
            row: None,
        });
        assert!(is_new(&aside));
        assert!(
            is_news(&state(), &request(), &silent(), AN_HOUR_LATER),
            "the device's clock was set"
        );
    }

    #[test]
    fn the_end_of_a_server_that_is_read_anew_is_news_and_its_middle_is_not() {
        let rereading = StateRow { rereading: true, ..state() };
        let page = ExchangeRequest { page_limit: 10, ..request() };
        assert!(is_news(&rereading, &page, &silent(), NOW));
        assert!(!is_news(&rereading, &page, &ExchangeAnswer { more: true, ..silent() }, NOW));
    }

    /// A request that asked the owner for its identity was in flight when the owner's other epoch
    /// was accepted. Its answer counted as the end of a page, and a deletion of this device ended
    /// as the deletion of a missing record.
    #[test]
    fn an_answer_without_a_page_or_to_a_request_of_another_life_does_not_end_the_reading() {
        let rereading = StateRow { rereading: true, ..state() };
        assert!(!ends_rereading(&rereading, &request(), &silent()));
        let page = |epoch| ExchangeRequest { page_limit: 10, server_epoch: epoch, ..request() };
        let former = ServerEpoch::from_bytes([0xee; 16]);
        assert!(!ends_rereading(&rereading, &page(Some(former)), &silent()));
        assert!(ends_rereading(&rereading, &page(Some(silent().server_epoch)), &silent()));
        assert!(!ends_rereading(&state(), &page(None), &silent()), "nothing is read anew");
    }

    /// Applies an answer to a book with one unanswered unit, and keeps its news.
    fn kept(state: &StateRow, answer: &ExchangeAnswer, now: WallTime, sets_aside: bool) -> News {
        let mut view = TestView::default().with("1", 1, 1, 0);
        let (schema, mut random) =
            (Schema::open(EntityRules::default()), SeededRandomness::from_number(1));
        let answered = decide_answer(&mut view, &schema, answer, now, &mut random).unwrap();
        keep_news(state, answer, now, sets_aside, answered)
    }

    #[test]
    fn a_page_that_leaves_out_what_a_unit_changed_moves_no_cursor_unless_its_outcome_is_taken() {
        let of = |unit: u8| {
            let outcome = UnitOutcome { unit: unit_id(unit), outcome: applied("1") };
            let cursors = cursors(&[("lead", "b")]);
            let news = kept(
                &state(),
                &ExchangeAnswer { outcomes: vec![outcome], cursors, ..silent() },
                NOW,
                false,
            );
            (news.passed_over, news.answered.upstream.cursors.len(), news.tells)
        };
        assert_eq!(of(1), (false, 1, true));
        assert_eq!(
            of(7),
            (true, 0, false),
            "unit 7 has ended, so all that the answer said is known"
        );
    }

    #[test]
    fn a_receipt_is_written_once() {
        let answer = ExchangeAnswer { receipt: Some(receipt(4)), ..silent() };
        let news = kept(&state(), &answer, NOW, false);
        assert_eq!((news.answered.upstream.receipt, news.tells), (Some(receipt(4)), true));
        let again = kept(&StateRow { anchor: Some(receipt(4)), ..state() }, &answer, NOW, false);
        assert_eq!((again.answered.upstream.receipt, again.tells), (None, false));
    }

    #[test]
    fn the_tenant_is_written_once_and_not_for_an_answer_that_is_nobodys() {
        let answer = ExchangeAnswer { tenant: Some(tenant()), ..silent() };
        let belongs = [Decision::BelongsTo { tenant: tenant() }];
        let decided =
            |state: StateRow, sets_aside| kept(&state, &answer, NOW, sets_aside).answered.decisions;
        assert_eq!(decided(state(), false), belongs);
        assert_eq!(decided(StateRow { tenant: Some(tenant()), ..state() }, true), []);
        let nobody = || StateRow { server: None, ..state() };
        assert_eq!(decided(nobody(), false), []);
        assert_eq!(decided(nobody(), true), belongs);
    }

    #[test]
    fn facts_are_written_if_rows_are_set_aside_or_the_clock_was_set() {
        assert!(!kept(&state(), &silent(), NOW, false).tells);
        assert!(kept(&state(), &silent(), NOW, true).tells);
        assert!(kept(&state(), &silent(), AN_HOUR_LATER, false).tells);
    }
}
