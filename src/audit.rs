//! The log: reading it, exporting it, verifying it, and what it says of a record, now and in the past.
//!
//! What it is not: proof against whoever can write the file. That needs a head of the log which someone else knows, as a
//! server does.

pub use fieldbook_core::entry;
pub use fieldbook_core::entry::{Entry, Receipt};
pub use fieldbook_core::log::{Damage, DamageKind, Head, Verified, survey_export, verify_export};
pub use fieldbook_core::rules::explain::{
    ExplainedConflict, ExplainedOp, ExplainedVersion, Explanation, Seen,
};
pub use fieldbook_core::{DeviceId, Epoch, Hash, Hlc, InvalidHash, InvalidId, Seq};
pub use fieldbook_projections::{TableFault, TableFaultKind};

pub use crate::examine::{Examination, Finding, examine_book};
pub use crate::maintain::{Past, rebuild_book, verify_book};
