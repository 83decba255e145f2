//! The servers behind the box and the books before it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fieldbook::host::{Clock, SeededRandomness};
use fieldbook::sync::Secret;
use fieldbook::{
    Actor, Book, BookOptions, EntityType, HttpOptions, HttpRemote, RunOptions, StaticToken,
    SyncReport,
};
use fieldbook_server::{ServeOptions, Server, serve};
use fieldbook_sim::clock::SimClock;
use fieldbook_sim::disk::SimDisk;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::Broken;
use crate::middlebox::Upstreams;

/// The token of the books' own tenant, and a token of another tenant.
pub(crate) const OUR_TOKEN: &str = "token-of-our-tenant-0001";
const OTHERS_TOKEN: &str = "token-of-other-tenant-0001";
/// The users of the books. The last user only reads.
pub(crate) const ACTORS: [&str; 4] = ["ann", "ben", "eve", "witness"];
/// The entity types of the books.
pub(crate) const ENTITIES: [&str; 3] = ["own", "lead", "big"];

/// The longest wait of the hasty client for the next byte.
const STALL: Duration = Duration::from_millis(120);

/// A record's fields.
pub(crate) type Image = Map<String, Value>;

/// The servers. They end when they are dropped.
pub(crate) struct Servers {
    right: Server,
    other: Server,
    folder: TempDir,
}

impl Servers {
    pub(crate) async fn start(clock: Arc<dyn Clock>) -> Result<Self, Broken> {
        let folder = scratch()?;
        let tokens = tokens(&folder)?;
        let right =
            start(folder.path().join("right.store"), tokens.clone(), Arc::clone(&clock)).await?;
        let other = start(folder.path().join("other.store"), tokens, clock).await?;
        Ok(Self { right, other, folder })
    }

    pub(crate) fn upstreams(&self) -> Upstreams {
        Upstreams {
            right: self.right.local_addr(),
            other: self.other.local_addr(),
            others_token: OTHERS_TOKEN.to_owned(),
        }
    }

    /// Returns a folder that is removed together with the servers.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Makes a folder, in memory if the system allows it, so that no disk has to sync.
fn scratch() -> Result<TempDir, Broken> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.map_err(|error| Broken::harness("no folder", error))
}

fn tokens(folder: &TempDir) -> Result<PathBuf, Broken> {
    let path = folder.path().join("tokens.json");
    let grants = json!({
        OUR_TOKEN: {"tenant": "ours", "actors": ACTORS},
        OTHERS_TOKEN: {"tenant": "others", "actors": ACTORS},
    });
    write_private(&path, &grants.to_string())?;
    Ok(path)
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Broken> {
    let broken = |error| Broken::harness("cannot write a file", error);
    std::fs::write(path, text).map_err(broken)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(broken)?;
    }
    Ok(())
}

async fn start(data: PathBuf, tokens: PathBuf, clock: Arc<dyn Clock>) -> Result<Server, Broken> {
    let listen: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let mut options = ServeOptions::new(listen, data);
    options.tokens = Some(tokens);
    options.clock = Some(clock);
    options.cache_bytes = 1024 * 1024;
    serve(options).await.map_err(|error| Broken::harness("no server", error))
}

/// One device: a book on a disk in memory.
pub(crate) struct Device {
    pub(crate) actor: &'static str,
    pub(crate) clock: SimClock,
    disk: SimDisk,
    book: Option<Book>,
    seed: u64,
    openings: u64,
}

impl Device {
    pub(crate) fn new(actor: &'static str, clock: SimClock, seed: u64) -> Result<Self, Broken> {
        let disk = SimDisk::empty();
        let mut device = Self { actor, clock, disk, book: None, seed, openings: 0 };
        device.open()?;
        Ok(device)
    }

    fn open(&mut self) -> Result<(), Broken> {
        self.openings += 1;
        let randomness = SeededRandomness::from_number(self.seed.wrapping_add(self.openings));
        let options = BookOptions::new(self.actor)
            .map_err(|error| Broken::harness("no such actor", error))?;
        let options = options
            .clock(Arc::new(self.clock.clone()))
            .cache_bytes(1024 * 1024)
            .randomness(Box::new(randomness));
        let book = Book::on_backend(self.disk.clone(), options);
        self.book =
            Some(book.map_err(|error| Broken(format!("the book does not open: {error:?}")))?);
        Ok(())
    }

    /// Closes the book and opens it again, like another process.
    pub(crate) fn reopen(&mut self) -> Result<(), Broken> {
        if let Some(book) = self.book.take() {
            book.close().map_err(|error| Broken(format!("the book does not close: {error:?}")))?;
        }
        self.open()
    }

    pub(crate) fn book(&self) -> Result<&Book, Broken> {
        self.book.as_ref().ok_or_else(|| Broken("harness: the book is closed".to_owned()))
    }

    /// Syncs once, over HTTP.
    pub(crate) async fn sync(
        &self,
        remote: &HttpRemote,
        options: &RunOptions,
    ) -> Result<SyncReport, Broken> {
        let synced = self.book()?.sync(remote, options).await;
        synced.map_err(|error| Broken(format!("{}: the book failed: {error:?}", self.actor)))
    }
}

/// Returns all records that an app reads from a book, by key.
pub(crate) fn shown(book: &Book) -> Result<Vec<(String, Image)>, Broken> {
    let broken = |error: fieldbook::Error| Broken(format!("the book does not read: {error:?}"));
    let mut shown = Vec::new();
    for name in ENTITIES {
        let entity =
            EntityType::parse(name).map_err(|error| Broken::harness("no entity type", error))?;
        for record in book.records().list(&entity, None, usize::MAX).map_err(broken)?.iter() {
            let image = serde_json::from_str(record.json);
            let image = image.map_err(|error| Broken::harness("fields do not read", error))?;
            shown.push((record.key().to_string(), image));
        }
    }
    Ok(shown)
}

/// The clients of one device: one that gives up soon, and one that waits.
pub(crate) struct Remotes {
    pub(crate) hasty: HttpRemote,
    pub(crate) patient: HttpRemote,
}

impl Remotes {
    pub(crate) fn to(origin: &str, actor: &str) -> Result<Self, Broken> {
        let actor = Actor::parse(actor).map_err(|error| Broken::harness("no such actor", error))?;
        let credentials = Arc::new(StaticToken::new(actor, Secret::new(OUR_TOKEN)));
        let remote = |idle| {
            let options =
                HttpOptions { idle_within: idle, least_rate: 1 << 20, ..HttpOptions::default() };
            HttpRemote::new(origin, options)
                .map(|remote| remote.with_credentials(Arc::clone(&credentials) as _))
                .map_err(|error| Broken::harness("no client", error))
        };
        Ok(Self { hasty: remote(STALL)?, patient: remote(Duration::from_secs(20))? })
    }
}
