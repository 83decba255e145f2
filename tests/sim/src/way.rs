//! A temporary fault in the network between the devices and the server, or at the server.
//!
//! What it is not: an event of one message only ([`crate::action::Action::Drop`] and others,
//! [`crate::server::Trouble`]).

use fieldbook::sync::protocol::{ExchangeRequest, Failure, Unit};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ledger::parse;

/// The fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Something refuses every request with a change that has this value of the field `a`, with a
    /// page of its own.
    Refuses {
        /// The value.
        value: u64,
        /// The number of the page, counted round.
        page: usize,
    },
    /// Something else answers every request.
    Page(usize),
    /// Another server answers.
    OtherServer,
    /// Another tenant of the server answers, as for a token of that tenant.
    OtherTenant,
    /// The server's store accepts no more writes; it can be read.
    FullStore,
    /// The server's clock is wrong by this many milliseconds.
    Clock(i64),
}

impl Way {
    /// Returns the failure in place of the server's answer, if the fault affects this request.
    pub fn instead(&self, request: &ExchangeRequest) -> Option<Failure> {
        match self {
            Self::Refuses { value, page: number } => {
                request.units.iter().any(|unit| says(unit, *value)).then(|| page(*number))
            }
            Self::Page(number) => Some(page(*number)),
            // Like the server's own answer: 503 with its marker, `store_failed` and Retry-After.
            Self::FullStore => (!request.units.is_empty()).then(|| Failure::Transient {
                code: "store_failed".to_owned(),
                retry_after: Some(std::time::Duration::from_secs(5)),
                marked: true,
            }),
            Self::OtherServer | Self::OtherTenant | Self::Clock(_) => None,
        }
    }

    /// Returns the name of the fault.
    pub const fn fault(&self) -> &'static str {
        match self {
            Self::Refuses { .. } => "body refused on the way",
            Self::Page(_) => "something else answers",
            Self::OtherServer => "another server",
            Self::OtherTenant => "another tenant",
            Self::FullStore => "server's store full",
            Self::Clock(_) => "server's clock wrong",
        }
    }
}

fn says(unit: &Unit, value: u64) -> bool {
    let fields = unit.changes.iter().filter_map(|change| change.fields.as_ref());
    let mut images = fields.filter_map(|fields| parse(fields.as_str()).ok());
    images.any(|image| image.get("a").and_then(Value::as_u64) == Some(value))
}

/// Returns the transport's failure for a page without our marker, one of each class.
pub fn page(number: usize) -> Failure {
    let transient = |status: u16, seconds: Option<u64>| Failure::Transient {
        code: format!("http_{status}"),
        retry_after: seconds.map(std::time::Duration::from_secs),
        marked: false,
    };
    match number % PAGES {
        0 => Failure::Unreachable { code: "not_our_server" },
        1 => Failure::Unreachable { code: "captive_portal" },
        2 => Failure::Unreachable { code: "proxy" },
        3 => Failure::Unauthorized { code: "http_401".to_owned() },
        4 => transient(429, Some(100_000_000)),
        5 => transient(502, None),
        6 => transient(503, Some(30)),
        7 => Failure::Misbehaved { code: "media_type" },
        8 => Failure::Misbehaved { code: "not_an_answer" },
        9 => Failure::Misbehaved { code: "status" },
        _ => Failure::Unknown { code: "answer_cut" },
    }
}

/// The number of such pages.
pub const PAGES: usize = 11;

/// Returns whether a failure comes from something without our marker, or has no answer at all: it
/// proves nothing about the sent units.
pub fn is_unmarked(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } | Failure::Unknown { .. } | Failure::Misbehaved { .. } => true,
        Failure::Transient { marked, .. } => !marked,
        Failure::Unauthorized { code }
        | Failure::UpgradeRequired { code }
        | Failure::Refused { code } => code.starts_with("http_"),
        Failure::TooLarge => false,
    }
}
