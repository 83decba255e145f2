//! Backups of a store whose server answers requests meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fieldbook::sync::Stopped;
use fieldbook::{Book, BookOptions, Fields, HttpOptions, HttpRemote, RecordKey, RunOptions};
use fieldbook_server::{ServeError, ServeOptions, Server, declare_restored, serve};
use serde_json::json;

use crate::support::*;

const DEVICES: usize = 3;
const BACKUPS: usize = 6;

/// A device that creates a record of its own and changes a common one, again and again.
struct Device {
    book: Book,
    number: usize,
    /// The number of its records that the server has confirmed.
    sent: AtomicU64,
}

fn own(device: usize, number: u64) -> RecordKey {
    format!("lead/{device}-{number}").parse().unwrap()
}

fn common() -> RecordKey {
    "lead/common".parse().unwrap()
}

fn with_number(name: &str, number: u64) -> Fields {
    Fields::from_value(json!({ name: number })).unwrap()
}

fn remote(url: &str) -> HttpRemote {
    HttpRemote::new(url, HttpOptions::default()).unwrap()
}

fn new_book(folder: &Path, name: &str) -> Book {
    let path = folder.join(format!("{name}.book"));
    Book::create_new(path, BookOptions::new(name).unwrap()).unwrap()
}

/// Syncs once, and returns whether the server has everything.
async fn synced(book: &Book, url: &str) -> bool {
    let report = book.sync(&remote(url), &RunOptions::default()).await.unwrap();
    report.stopped == Stopped::Idle && !report.parked && book.status().pending == 0
}

impl Device {
    async fn work(&self, url: &str, is_done: &AtomicBool) {
        for number in 1.. {
            if is_done.load(Ordering::SeqCst) {
                return;
            }
            let note = Fields::from_value(json!({ "n": number, "text": "t".repeat(2_000) }));
            self.book.records().create(own(self.number, number), note.unwrap()).unwrap();
            let field = format!("by_{}", self.number);
            self.book.records().update(common(), with_number(&field, number)).unwrap();
            if synced(&self.book, url).await {
                self.sent.store(number, Ordering::SeqCst);
            }
        }
    }

    /// Waits until the server has confirmed another record.
    async fn next(&self) -> u64 {
        let before = self.sent.load(Ordering::SeqCst);
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = self.sent.load(Ordering::SeqCst);
            if now > before {
                return now;
            }
        }
    }
}

/// Makes backups while the devices work, and returns each with what was confirmed before it.
async fn backups_amid_requests(
    server: &Server,
    folder: &Path,
    devices: &[Arc<Device>],
) -> Vec<(PathBuf, Vec<u64>)> {
    let mut made = Vec::new();
    for number in 0..BACKUPS {
        let path = folder.join(format!("{number}.store"));
        let mut confirmed = Vec::new();
        for device in devices {
            confirmed.push(device.next().await);
        }
        assert!(server.backup(&path).await.unwrap() > 0);
        made.push((path, confirmed));
    }
    made
}

/// Serves a backup, after it was declared to be one.
async fn served(backup: &Path) -> Server {
    declare_restored(backup).unwrap();
    serve(ServeOptions::new(loopback(), backup.to_owned())).await.unwrap()
}

/// A copy of the file by other means, amid requests, is torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_backup_made_amid_requests_is_a_store_that_serves_and_the_devices_bring_the_rest() {
    let (running, folder) = (start().await, tempfile::tempdir().unwrap());
    let (url, folder) = (running.url(), folder.path());
    let first = new_book(folder, "first");
    first.records().create(common(), Fields::new()).unwrap();
    assert!(synced(&first, &url).await);
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let book = new_book(folder, &format!("device-{number}"));
        assert!(synced(&book, &url).await);
        devices.push(Arc::new(Device { book, number, sent: AtomicU64::new(0) }));
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let working: Vec<_> = devices
        .iter()
        .map(|device| {
            let (device, url, is_done) = (Arc::clone(device), url.clone(), Arc::clone(&is_done));
            tokio::spawn(async move { device.work(&url, &is_done).await })
        })
        .collect();
    let made = backups_amid_requests(running.server(), folder, &devices).await;
    is_done.store(true, Ordering::SeqCst);
    for work in working {
        work.await.unwrap();
    }
    drop(running.stopped().await);

    for (number, (path, confirmed)) in made.iter().enumerate() {
        let server = served(path).await;
        let reader = new_book(folder, &format!("reader-{number}"));
        assert!(synced(&reader, &server.url()).await);
        for (device, confirmed) in confirmed.iter().enumerate() {
            for number in 1..=*confirmed {
                let read = reader.records().get(&own(device, number)).unwrap();
                assert!(read.is_some(), "{device}-{number} was confirmed before the backup");
            }
        }
        server.shutdown().await.unwrap();
    }

    let server = serve(ServeOptions::new(loopback(), made[2].0.clone())).await.unwrap();
    let url = server.url();
    for device in &devices {
        assert!(!synced(&device.book, &url).await, "it notices that the server was set back");
        device.book.servers().accept_only().unwrap();
    }
    for _ in 0..3 {
        for device in &devices {
            assert!(synced(&device.book, &url).await);
        }
    }
    let reader = new_book(folder, "last");
    assert!(synced(&reader, &url).await);
    let mut keys = vec![common()];
    for device in &devices {
        let all = device.sent.load(Ordering::SeqCst);
        assert!(all >= made[BACKUPS - 1].1[device.number]);
        keys.extend((1..=all).map(|number| own(device.number, number)));
    }
    for key in keys {
        let read = |book: &Book| book.records().get(&key).unwrap().map(|record| record.json);
        let last = read(&reader);
        assert!(last.is_some(), "{key}");
        for device in &devices {
            assert_eq!(read(&device.book), last, "{key} on device {}", device.number);
        }
    }
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_cannot_be_made_leaves_nothing_and_the_server_goes_on() {
    let (running, folder) = (start().await, tempfile::tempdir().unwrap());
    let there = folder.path().join("there.store");
    std::fs::write(&there, b"mine").unwrap();
    for path in [there.clone(), folder.path().join("none").join("x.store")] {
        let refused = running.server().backup(&path).await.unwrap_err();
        assert!(matches!(refused, ServeError::NotBackedUp { .. }), "{refused}");
    }
    assert_eq!(std::fs::read(&there).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(synced(&new_book(folder.path(), "ann"), &running.url()).await);

    // A caller who waits no longer gets the whole backup, or none.
    let path = folder.path().join("late.store");
    let asked = running.server().backup(&path);
    drop(tokio::time::timeout(Duration::ZERO, asked).await);
    drop(running.stopped().await);
    if path.exists() {
        served(&path).await.shutdown().await.unwrap();
    }
    let names = std::fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.starts_with(".fieldbook-")).collect();
    assert_eq!(left, [""; 0]);
}
