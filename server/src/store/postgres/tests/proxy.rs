//! Something between a store and its database that breaks connections.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::PostgresUrl;

/// What the proxy does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The client does not get this answer, nor any after it.
    Before,
    /// The client gets this answer and none after it.
    After,
}

/// Stands between a store and its database, and cuts a connection at one of the answers.
pub(super) struct Proxy {
    port: u16,
    /// How many statements have ended since the last call of [`Self::cut`].
    pub(super) answers: Arc<AtomicUsize>,
    cut_at: Arc<AtomicUsize>,
    cuts_before: Arc<AtomicBool>,
}

impl Proxy {
    pub(super) fn new(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            answers: Arc::default(),
            cut_at: Arc::new(AtomicUsize::new(usize::MAX)),
            cuts_before: Arc::default(),
        };
        let (answers, cut_at) = (Arc::clone(&proxy.answers), Arc::clone(&proxy.cut_at));
        let cuts_before = Arc::clone(&proxy.cuts_before);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let database = UnixStream::connect(&socket).unwrap();
                let (mut to, mut from) =
                    (database.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Both));
                });
                let (answers, cut_at) = (Arc::clone(&answers), Arc::clone(&cut_at));
                let cuts_before = Arc::clone(&cuts_before);
                std::thread::spawn(move || {
                    let decides = |number| {
                        let is_it = number == cut_at.load(Ordering::SeqCst);
                        let cut = if cuts_before.load(Ordering::SeqCst) {
                            Cut::Before
                        } else {
                            Cut::After
                        };
                        is_it.then_some(cut)
                    };
                    pass(database, &client, &answers, decides);
                    drop(client.shutdown(Shutdown::Both));
                });
            }
        });
        proxy
    }

    /// Cuts at the answer of this number, counted from now on.
    pub(super) fn cut(&self, number: usize, cut: Cut) {
        self.answers.store(0, Ordering::SeqCst);
        self.cuts_before.store(cut == Cut::Before, Ordering::SeqCst);
        self.cut_at.store(number, Ordering::SeqCst);
    }

    pub(super) fn url(&self, database: &str) -> PostgresUrl {
        let text = format!("postgres://tester@127.0.0.1:{}/{database}", self.port);
        PostgresUrl::parse(&text).unwrap()
    }
}

/// Passes messages of the database on, and counts those that end a statement.
fn pass(
    mut database: UnixStream,
    mut client: &TcpStream,
    answers: &AtomicUsize,
    decides: impl Fn(usize) -> Option<Cut>,
) {
    let mut head = [0; 5];
    while database.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let mut rest = vec![0; length - 4];
        if database.read_exact(&mut rest).is_err() {
            return;
        }
        let ends_a_statement = head[0] == b'C';
        let cut = if ends_a_statement {
            decides(answers.fetch_add(1, Ordering::SeqCst) + 1)
        } else {
            None
        };
        if cut == Some(Cut::Before) {
            return;
        }
        if client.write_all(&[head.as_slice(), &rest].concat()).is_err() {
            return;
        }
        if cut == Some(Cut::After) {
            return;
        }
    }
}
