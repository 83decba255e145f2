//! Requests, answers and clocks for the tests.

use std::error::Error;
use std::time::Duration;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Unit, UnitChange};
use fieldbook_core::{
    Actor, Clock, Cursor, DeviceId, EntityType, Epoch, Hlc, MonotonicTime, Now, OpId, OpKind,
    RecordKey, RequestId, ServerEpoch, ServerId, UnitId, WallTime,
};
use fieldbook_transport::HttpOptions;
use tokio::time::Instant;

/// Stands for text that must never be in an error, a `Debug` text or a log line.
pub const CANARY: &str = "canary-5f3a";

pub fn request() -> ExchangeRequest {
    ExchangeRequest {
        page_limit: 100,
        ..ExchangeRequest::new(
            RequestId::from_bytes([7; 16]),
            DeviceId::from_bytes([1; 16]),
            Epoch::from_bytes([2; 16]),
            actor("ann"),
        )
    }
}

pub fn answer(request: &ExchangeRequest) -> ExchangeAnswer {
    ExchangeAnswer::new(
        request.request,
        ServerId::from_bytes([3; 16]),
        ServerEpoch::from_bytes([4; 16]),
        WallTime::from_milliseconds(1_700_000_000_000),
    )
}

pub fn answer_json() -> Vec<u8> {
    serde_json::to_vec(&answer(&request())).unwrap()
}

pub fn unit(number: u8) -> Unit {
    let change = UnitChange {
        key: RecordKey::parse("lead", &number.to_string()).unwrap(),
        kind: OpKind::Delete,
        base: None,
        ops: vec![OpId::from_bytes([number; 16])],
        edited_at: Hlc::ZERO,
        older: Vec::new(),
        schema_version: 1,
        fields: None,
    };
    Unit { id: UnitId::from_bytes([number; 16]), changes: vec![change], earlier_units: Vec::new() }
}

pub fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap()
}

pub fn lead() -> EntityType {
    EntityType::parse("lead").unwrap()
}

pub fn cursor(page: u8) -> Cursor {
    Cursor::new(vec![page]).unwrap()
}

/// Waits that are short enough for tests and long enough for a busy machine.
pub fn short_waits() -> HttpOptions {
    HttpOptions {
        connect_within: Duration::from_millis(500),
        idle_within: Duration::from_millis(500),
        credentials_within: Duration::from_millis(500),
        ..HttpOptions::default()
    }
}

/// Returns every text that an error could print.
pub fn printed(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(" {source} {source:?}"));
        next = source.source();
    }
    text
}

/// The time that has passed for tokio, on both clocks.
pub struct TestClock(Instant);

impl TestClock {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let passed = u64::try_from(self.0.elapsed().as_millis()).unwrap();
        Now {
            wall: WallTime::from_milliseconds(1_700_000_000_000)
                .plus(Duration::from_millis(passed)),
            monotonic: MonotonicTime::from_milliseconds(passed),
        }
    }
}
