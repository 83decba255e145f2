//! Helpers for the tests of the store.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fieldbook_core::{ServerEpoch, ServerId};
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};

use super::fill_database;

/// The identity of the server in the tests of the store.
pub(super) const IDENTITY: (ServerId, ServerEpoch) =
    (ServerId::from_bytes([7; 16]), ServerEpoch::from_bytes([8; 16]));

/// A disk in memory that counts its operations.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    bytes: Arc<InMemoryBackend>,
    syncs: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Disk {
    /// Makes a store on the disk. Nothing is cached, so that each page that is needed is read.
    pub(super) fn database(&self) -> Database {
        let database =
            redb::Builder::new().set_cache_size(0).create_with_backend(self.clone()).unwrap();
        fill_database(&database).unwrap();
        database
    }

    /// Returns how often the disk was synced.
    pub(super) fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }

    /// Returns how many pages were read.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(offset, data)
    }
}
