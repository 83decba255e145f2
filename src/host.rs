//! The book's environment: the time, randomness, whether the network is metered, and the programs
//! that use the same book.
//!
//! An app replaces it with [`BookOptions`](crate::BookOptions). On a phone it reports the kind of
//! network, its own version and the system's. In its tests it stops the clock and makes the
//! randomness repeatable. A clock may know the device's zone ([`Clock::utc_offset`]), which the log
//! records with each opening.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use fieldbook::host::{Connectivity, SeededRandomness};
//! use fieldbook::{Book, BookOptions};
//!
//! /// The last network state that the system reported.
//! struct Network {
//!     is_wifi: AtomicBool,
//! }
//!
//! impl Connectivity for Network {
//!     fn is_unmetered(&self) -> bool {
//!         self.is_wifi.load(Ordering::Relaxed)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let network = Arc::new(Network { is_wifi: AtomicBool::new(false) });
//! let options = BookOptions::new("user-7")?
//!     .connectivity(network.clone())
//!     .randomness(Box::new(SeededRandomness::new([7; 32]))); // in a test: the same ids each time
//! let book = Book::create_new(folder.path().join("crm.book"), options)?;
//! # drop(book);
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: the disk. A book's storage is a file.

pub use fieldbook_core::log::Program;
pub use fieldbook_core::rules::lend::{Lend, Role};
pub use fieldbook_core::system::{SystemClock, randomness as system_randomness};
pub use fieldbook_core::{Clock, MonotonicTime, Now, Randomness, SeededRandomness, WallTime};

pub use crate::options::{Connectivity, Unmetered};
