//! Something between the program and the server, over real connections: it answers with its own
//! pages, or blocks bodies.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Folder, Serving};

/// The middlebox's rule for a request, by its body: pass it on, answer with a status, or, for 0,
/// break the connection.
type Rule = Box<dyn Fn(&str) -> Option<u16> + Send>;

/// A proxy in front of a server.
struct Middlebox {
    url: String,
    rule: Arc<Mutex<Rule>>,
    ends: Arc<AtomicBool>,
}

impl Middlebox {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let ends = Arc::new(AtomicBool::new(false));
        let (rules, over, server) =
            (Arc::clone(&rule), Arc::clone(&ends), server.replace("http://", ""));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                pass(stream.unwrap(), &server, &rules);
            }
        });
        Self { url: format!("http://{address}"), rule, ends }
    }

    fn rule(&self, rule: impl Fn(&str) -> Option<u16> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.url.replace("http://", "")));
    }
}

fn pass(mut client: TcpStream, server: &str, rule: &Mutex<Rule>) {
    let Some((head, body)) = request(&mut client) else { return };
    match (*rule.lock().unwrap())(&body) {
        Some(0) => drop(client.shutdown(Shutdown::Both)),
        Some(status) => {
            let page = "<html><body>Welcome to our network</body></html>";
            let answer = format!(
                "HTTP/1.1 {status} Page\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
            drop(client.write_all(answer.as_bytes()));
        }
        None => {
            let mut upstream = TcpStream::connect(server).unwrap();
            let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            upstream.write_all(head.as_bytes()).unwrap();
            upstream.write_all(body.as_bytes()).unwrap();
            let mut answer = Vec::new();
            drop(upstream.read_to_end(&mut answer));
            drop(client.write_all(&answer));
        }
    }
}

fn request(client: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        let read = client.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim();
        if body.len() >= length.parse().unwrap() {
            return Some((format!("{head}\r\n\r\n"), body.to_owned()));
        }
    }
}

/// A book with this many notes, one of which contains the word.
fn book_with_poison(folder: &Folder, notes: usize) {
    folder.ok(&["init", "a.book"]);
    for number in 0..notes {
        let text = if number == 2 { r#"{"t":"POISON"}"# } else { r#"{"t":"fine"}"# };
        folder.ok(&["put", "a.book", &format!("note/{number}"), text]);
    }
}

/// A hotspot's page with 401 or 426 once parked the whole book permanently: no request to the right
/// server followed.
#[test]
fn a_page_of_something_else_stops_a_book_for_no_longer_than_it_stands_in_the_way() {
    let statuses = [0, 200, 204, 302, 400, 401, 403, 407, 413, 426, 429, 503, 511];
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    let middlebox = Middlebox::before(&serving.url);
    folder.ok(&["init", "a.book"]);
    for (number, status) in statuses.into_iter().enumerate() {
        folder.ok(&["put", "a.book", &format!("lead/{number}"), r#"{"a":1}"#]);
        middlebox.rule(move |_| Some(status));
        assert_ne!(folder.run(&["sync", "a.book", "--server", &middlebox.url]).code, 0, "{status}");
        middlebox.rule(|_| None);
        let synced = folder.one_json(&["sync", "a.book", "--server", &middlebox.url, "--json"]);
        assert_eq!(
            (&synced["units_acked"], &synced["pending"]),
            (&1.into(), &0.into()),
            "{status}: {synced}"
        );
    }
}

#[test]
fn a_record_that_is_not_let_through_delays_itself_only_over_real_connections() {
    for status in [0, 403, 426] {
        let folder = Folder::new();
        let serving = Serving::start(&folder, &[]);
        let middlebox = Middlebox::before(&serving.url);
        book_with_poison(&folder, 5);
        folder.ok(&["init", "b.book"]);
        folder.ok(&["put", "b.book", "note/b", r#"{"t":"hello"}"#]);
        folder.ok(&["sync", "b.book", "--server", &serving.url]);
        middlebox.rule(move |body| body.contains("POISON").then_some(status));
        for _ in 0..4 {
            folder.run(&["sync", "a.book", "--server", &middlebox.url]);
        }
        let owed = folder.one_json(&["sync", "a.book", "--server", &middlebox.url, "--json"]);
        assert_eq!(owed["pending"], 1, "{status}: {owed}");
        assert!(folder.ok(&["get", "a.book", "note/b"]).contains("hello"), "{status}");
        let explained = folder.ok(&["explain", "a.book", "note/2"]);
        assert!(explained.contains("does not let this change through"), "{status}: {explained}");
        assert!(
            folder.ok(&["plan", "a.book"]).contains("does not let this change through"),
            "{status}"
        );
        folder.ok(&["verify", "a.book"]);
    }
}

#[test]
fn a_person_decides_on_what_is_not_let_through() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    let middlebox = Middlebox::before(&serving.url);
    book_with_poison(&folder, 3);
    middlebox.rule(|body| body.contains("POISON").then_some(403));
    for _ in 0..4 {
        folder.run(&["sync", "a.book", "--server", &middlebox.url]);
    }
    let queue = folder.one_json(&["queue", "a.book", "--json"]);
    let op = queue["op"].as_str().map_or_else(|| queue["op"].to_string(), str::to_owned);
    assert_eq!(queue["hold"]["reason"], "not_let_through", "{queue}");
    folder.ok(&["dead-letters", "retry", "a.book", &op]);
    folder.ok(&["dead-letters", "correct", "a.book", &op, r#"{"t":"said otherwise"}"#]);
    let synced = folder.one_json(&["sync", "a.book", "--server", &middlebox.url, "--json"]);
    assert_eq!((&synced["units_acked"], &synced["pending"]), (&1.into(), &0.into()), "{synced}");
    assert!(folder.ok(&["get", "a.book", "note/2"]).contains("said otherwise"));
}
