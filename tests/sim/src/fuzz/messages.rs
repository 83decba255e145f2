//! Targets over the messages of the two sides.

use std::collections::BTreeSet;
use std::sync::Arc;

use fieldbook::audit::Seq;
use fieldbook::audit::{TableCheck, Verification};
use fieldbook::host::{SeededRandomness, WallTime};
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest, Outcome};
use fieldbook::sync::{ExchangeParams, NextStep, ServerEpoch, ServerId};
use fieldbook::{Book, BookOptions, Fields, RecordKey, limits};
use fieldbook_core::authority::{AuthorityRead, Caller, MemoryAuthority, Quota, exchange};
use redb::backends::InMemoryBackend;
use serde_json::json;

use crate::clock::SimClock;

/// Applies an answer of a server: an invalid answer is refused, and a valid answer leaves a sound
/// book. In text, `$UNIT`, `$REQUEST` and `$KEY` stand for values of the book's last request.
pub fn exchange_answer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((book, request)) = book_with_a_request() else { return };
    let unit = request.units.first().map(|unit| unit.id.to_string()).unwrap_or_default();
    let text = text.replace("$UNIT", &unit).replace("$REQUEST", &request.request.to_string());
    let text = text.replace("$KEY", "lead/1");
    let Ok(mut answer) = serde_json::from_str::<ExchangeAnswer>(&text) else { return };
    let again =
        serde_json::to_string(&answer).ok().and_then(|text| serde_json::from_str(&text).ok());
    assert_eq!(again.as_ref(), Some(&answer), "BUG: an answer does not read back");
    answer.request = request.request;
    let taken = book.exchange().apply_answer(&request, answer.clone());
    assert!(taken.is_ok(), "BUG: an answer broke the book: {taken:?}");
    let entries = book.audit().entries(Seq::new(1), usize::MAX).map(|entries| entries.len());
    let taken = book.exchange().apply_answer(&request, answer);
    assert!(taken.is_ok(), "BUG: a repeated answer broke the book: {taken:?}");
    let verified = book.audit().verify(|_| {});
    assert!(
        verified.as_ref().is_ok_and(Verification::is_sound),
        "BUG: the log does not verify: {verified:?}"
    );
    let differs = book.audit().check_tables();
    assert!(
        differs.as_ref().is_ok_and(TableCheck::is_sound),
        "BUG: the tables are not what the log says: {differs:?}, {entries:?}"
    );
}

fn book_with_a_request() -> Option<(Book, ExchangeRequest)> {
    let options = BookOptions::new("someone").ok()?;
    let options = options
        .clock(Arc::new(SimClock::new(1_767_225_600_000)))
        .cache_bytes(1024 * 1024)
        .randomness(Box::new(SeededRandomness::from_number(1)));
    let book = Book::on_backend(InMemoryBackend::new(), options).ok()?;
    let key = RecordKey::parse("lead", "1").ok()?;
    book.records().create(key.clone(), Fields::from_iter([("a".to_owned(), json!(1))])).ok()?;
    let ask = ExchangeParams {
        first: true,
        push: true,
        pull: true,
        batch_ops: limits::BATCH_OPS,
        batch_bytes: limits::BATCH_BYTES,
        page_limit: 10,
    };
    let NextStep::Exchange(request) = book.exchange().prepare(&ask).ok()? else { return None };
    book.records().update(key, Fields::from_iter([("b".to_owned(), json!(2))])).ok()?;
    Some((book, request))
}

/// Treats a request by the server's rules: it is refused or answered, and it has the same answer
/// when it arrives again.
pub fn exchange_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<ExchangeRequest>(data) else { return };
    let again =
        serde_json::to_vec(&request).ok().and_then(|text| serde_json::from_slice(&text).ok());
    assert_eq!(again.as_ref(), Some(&request), "BUG: a request does not read back");
    // Two units with the same id differ only in their place.
    let mut ids = BTreeSet::new();
    if !request.units.iter().all(|unit| ids.insert(unit.id)) {
        return;
    }
    let mut server =
        MemoryAuthority::new(ServerId::from_bytes([1; 16]), ServerEpoch::from_bytes([2; 16]));
    let now = WallTime::from_milliseconds(1_767_225_600_000);
    let treat = |server: &mut MemoryAuthority| {
        exchange(server, &request, now, &Caller::Anyone, &Quota::default())
    };
    let Ok(first) = treat(&mut server) else { return };
    let commit = server.last_commit();
    // A stale unit is not remembered, and may match the result of later units.
    let all_applied = first.outcomes.iter().all(|outcome| {
        matches!(outcome.outcome, Outcome::Applied { .. } | Outcome::Duplicate { .. })
    });
    let Ok(second) = treat(&mut server) else {
        panic!("BUG: a request was taken once and refused when it came again")
    };
    for outcome in first.outcomes {
        let again = second.outcomes.iter().find(|again| again.unit == outcome.unit);
        match (outcome.outcome, again.map(|again| &again.outcome)) {
            (
                Outcome::Applied { versions, .. },
                Some(Outcome::Duplicate { versions: again, .. }),
            ) => {
                assert_eq!(versions, *again, "BUG: a unit got other versions the second time");
            }
            (Outcome::Applied { .. }, again) => {
                panic!("BUG: a unit that was applied is {again:?} the second time")
            }
            _ => {}
        }
    }
    if all_applied {
        assert_eq!(server.last_commit(), commit, "BUG: a repeated request changed something");
    }
}
