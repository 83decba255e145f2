//! What a book asks of the machine that it runs on: the time, randomness, and whether the network is metered.
//!
//! An app gives its own answers with [`BookOptions`](crate::BookOptions): on a phone it says which network there is; in its
//! tests it stops the clock and repeats the randomness.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use fieldbook::host::{Connectivity, SeededRandomness};
//! use fieldbook::{Book, BookOptions};
//!
//! /// What the system last said of the network.
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
//! What it is not: the disk, which is a file.

pub use fieldbook_core::system::SystemClock;
pub use fieldbook_core::{Clock, MonotonicTime, Now, Randomness, SeededRandomness, WallTime};

pub use crate::options::{Connectivity, Unmetered};
