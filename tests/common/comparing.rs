//! A server that compares, and a book that is checked against it.

use std::sync::{Arc, Mutex};

use fieldbook::sync::protocol::{
    Ask, CompareAnswer, CompareRequest, ExchangeAnswer, ExchangeRequest, Failure,
};
use fieldbook::sync::{
    BoxFuture, CheckError, Difference, Differing, Received, ReceivedComparison, RemoteError,
};
use fieldbook::{Book, Remote};
use fieldbook_core::Version;
use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, compare};
use serde_json::json;

use super::{Server, TestClock, book, fields, key, sync, sync_with};

pub(crate) type Bend<T> = Box<dyn Fn(T) -> T + Send + Sync>;

/// A server that compares, and what is done to its answers.
pub(crate) struct Comparing {
    pub(crate) server: Server,
    pub(crate) clock: Arc<TestClock>,
    /// What the device receives in place of an answer of an exchange.
    pub(crate) page: Bend<ExchangeAnswer>,
    /// What the device receives in place of an answer of a comparison.
    pub(crate) compared: Bend<(CompareRequest, CompareAnswer)>,
    /// Runs before each question.
    pub(crate) before: Box<dyn Fn(&Server) + Send + Sync>,
    /// The questions.
    pub(crate) asked: Mutex<Vec<&'static str>>,
}

impl Comparing {
    pub(crate) fn new(server: &Server, clock: &Arc<TestClock>) -> Self {
        Self {
            server: server.clone(),
            clock: Arc::clone(clock),
            page: Box::new(|answer| answer),
            compared: Box::new(|answered| answered),
            before: Box::new(|_| {}),
            asked: Mutex::default(),
        }
    }

    /// Loses these records on their way, and moves the cursor past them.
    pub(crate) fn losing(self, keys: &[&str]) -> Self {
        let keys: Vec<_> = keys.iter().map(|text| key(text)).collect();
        let page = move |mut answer: ExchangeAnswer| {
            answer.changes.retain(|change| !keys.contains(&change.key));
            answer
        };
        Self { page: Box::new(page), ..self }
    }

    pub(crate) fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn answer(&self, request: &CompareRequest) -> Result<ReceivedComparison, RemoteError> {
        (self.before)(&self.server);
        self.asked.lock().unwrap().push(match request.ask {
            Ask::Digests => "digests",
            Ask::Parts(_) => "parts",
            Ask::Versions(_) => "versions",
            Ask::Records(_) => "records",
            Ask::Heads => "heads",
        });
        let body = serde_json::to_vec(request).unwrap();
        let request = fieldbook::sync::protocol::read_compare(&body).unwrap();
        let now = fieldbook::host::Clock::now(&*self.clock).wall;
        let authority = self.server.authority.lock().unwrap();
        let compared = compare(&*authority, &request, now, &Caller::Anyone, &Quota::default());
        let answer = match compared {
            Ok(compared) => compared.answer,
            Err(ExchangeError::Refused(refusal)) => return Err(Failure::from(refusal).into()),
            Err(other) => panic!("a server in memory does not fail: {other}"),
        };
        let (_, answer) = (self.compared)((request, answer));
        let text = serde_json::to_vec(&answer).unwrap();
        let answer = CompareAnswer::read(&text)
            .map_err(|_| RemoteError::new(Failure::Misbehaved { code: "not_an_answer" }))?;
        Ok(ReceivedComparison {
            answer,
            bytes_sent: body.len() as u64,
            bytes_received: text.len() as u64,
        })
    }
}

impl Remote for Comparing {
    fn exchange<'a>(
        &'a self,
        request: &'a ExchangeRequest,
    ) -> BoxFuture<'a, Result<Received, RemoteError>> {
        Box::pin(async move {
            let answer = (self.page)(self.server.try_answer(request)?);
            Ok(Received { answer, bytes_sent: 1, bytes_received: 1 })
        })
    }

    fn compare<'a>(
        &'a self,
        request: &'a CompareRequest,
    ) -> BoxFuture<'a, Result<ReceivedComparison, RemoteError>> {
        Box::pin(async move { self.answer(request) })
    }
}

/// A server with two devices; `ann` reads through `remote`.
pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ann: Book,
    pub(crate) bob: Book,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let clock = TestClock::starting();
        let (ann, bob) = (book("ann", &clock), book("bob", &clock));
        Self { server: Server::new(&clock), clock, ann, bob }
    }

    pub(crate) fn remote(&self) -> Comparing {
        Comparing::new(&self.server, &self.clock)
    }

    /// Lets Bob write records, each in a commit of its own.
    pub(crate) fn bob_writes(&self, keys: &[&str]) {
        for name in keys {
            self.clock.advance(1);
            let at = fieldbook::host::Clock::now(&*self.clock).wall.milliseconds();
            put(&self.bob, name, json!({ "n": at }));
            sync(&self.bob, &self.server);
        }
    }

    /// Puts an older copy in place of the store, after Ann has read a record of Bob that the copy
    /// does not have. Carl has read the copy, and writes: commits have the same numbers again.
    pub(crate) fn set_back(&self) -> Book {
        let before = self.server.authority.lock().unwrap().clone();
        self.bob_writes(&["lead/3"]);
        sync_with(&self.ann, &self.remote());
        self.server.authority.lock().unwrap().clone_from(&before);
        let carl = book("carl", &self.clock);
        sync(&carl, &self.server);
        carl
    }

    pub(crate) fn check(&self, remote: &dyn Remote) -> Result<Difference, CheckError> {
        check(&self.ann, remote)
    }
}

pub(crate) fn check(book: &Book, remote: &dyn Remote) -> Result<Difference, CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(book.check(remote))
}

/// Writes a record, whether it is there or not.
pub(crate) fn put(book: &Book, name: &str, value: serde_json::Value) {
    let there = book.records().get(&key(name)).unwrap().is_some();
    let written = if there {
        book.records().update(key(name), fields(value))
    } else {
        book.records().create(key(name), fields(value))
    };
    written.unwrap();
}

/// Syncs a book on a thread of its own, so that it can happen while another book is checked.
pub(crate) fn sync_beside(book: &Book, server: &Server) {
    std::thread::scope(|scope| {
        scope.spawn(|| sync(book, server)).join().unwrap();
    });
}

pub(crate) fn keys(list: &[Differing]) -> Vec<String> {
    list.iter().map(|one| one.key.to_string()).collect()
}

/// Fills a store with records whose ids are as long as those that a book makes.
pub(crate) fn fill(authority: &mut MemoryAuthority, records: u64) {
    use fieldbook::sync::protocol::{Unit, UnitChange};
    use fieldbook_core::{FieldsJson, Hlc, OpId, OpKind, RequestId, UnitId};
    let id = |number: u64| {
        let (entity, id) = ("lead".parse().unwrap(), number.to_string().parse().unwrap());
        fieldbook_core::digest::Digest::of(&entity, &id, Version::new(1)).sum.to_be_bytes()
    };
    let now = fieldbook::host::WallTime::from_milliseconds(1_700_000_000_000);
    let numbers: Vec<u64> = (0..records).collect();
    for some in numbers.chunks(1_000) {
        let change = |number: &u64| UnitChange {
            key: format!("lead/{}", OpId::from_bytes(id(*number))).parse().unwrap(),
            kind: OpKind::Create,
            base: None,
            ops: vec![OpId::from_bytes(id(*number))],
            edited_at: Hlc::from_bits(1 << 16),
            older: Vec::new(),
            schema_version: 1,
            fields: Some(FieldsJson::parse(r#"{"name":"Mueller"}"#).unwrap()),
        };
        let unit = Unit {
            id: UnitId::from_bytes(id(u64::MAX - some[0])),
            changes: some.iter().map(change).collect(),
            earlier_units: Vec::new(),
        };
        let mut request = ExchangeRequest::new(
            RequestId::from_bytes([1; 16]),
            fieldbook_core::DeviceId::from_bytes([2; 16]),
            fieldbook_core::Epoch::from_bytes([3; 16]),
            "eve".parse().unwrap(),
        );
        request.units = vec![unit];
        let answer = fieldbook_core::authority::exchange(
            authority,
            &request,
            now,
            &Caller::Anyone,
            &Quota::default(),
        );
        assert_eq!(answer.unwrap().outcomes.len(), 1);
    }
}
