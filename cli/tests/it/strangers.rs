//! Other servers, and answers that this program cannot hold: they are reported, and nothing else
//! stops.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test that cannot go on panics"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Folder, Serving};

/// A server that answers each exchange with a function of the request, over real HTTP.
struct Scripted {
    url: String,
    ended: Arc<AtomicBool>,
}

impl Scripted {
    fn start(answer: impl Fn(&Value) -> Value + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream.unwrap(), &answer);
            }
        });
        Self { url, ended }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
    }
}

fn serve(stream: TcpStream, answer: &impl Fn(&Value) -> Value) {
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = answer(&serde_json::from_slice(&body).unwrap()).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (&stream).write_all(format!("{head}{body}").as_bytes()).unwrap();
}

fn answer(request: &Value, server: u8, members: Value) -> Value {
    let mut answer = json!({
        "marker": "fieldbook", "protocol": 1, "request": request["request"],
        "server": format!("7d444840-9dc0-4111-b245-5ffdce74fa{server:02}"),
        "server_epoch": "3f333df6-90a4-4fda-8dd3-9485d27cee36", "server_time": 1_795_886_000_000u64,
    });
    if let (Value::Object(answer), Value::Object(members)) = (&mut answer, members) {
        answer.extend(members);
    }
    answer
}

fn change(key: &str, version: u64) -> Value {
    json!({"key": key, "version": version, "edited_at": 1u64 << 40, "fields": {"a": version},
           "op": format!("018f3a2b-7000-7000-8000-0000000000c{version}")})
}

/// An entity type outside the app's naming rule once made every answer unreadable, so no record of
/// any type was received.
#[test]
fn one_odd_record_does_not_stop_the_reading_of_all_others() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    let server = Scripted::start(|request| {
        let odd = ["OrderLine/7", "le\u{202e}ad/\u{1b}[2J"].map(|key| change(key, 1));
        let cursors = json!({"lead": "AAAAAAAAAAI", "OrderLine": "AAAAAAAAAAE"});
        answer(
            request,
            1,
            json!({"changes": [odd[0], odd[1], change("lead/1", 2)], "cursors": cursors}),
        )
    });
    let sync = ["sync", "ann.book", "--server", &server.url];
    let printed = folder.ok(&sync);
    assert!(printed.contains("2 records: this program cannot hold them"), "{printed}");
    assert_eq!(
        folder.one_json(&["get", "ann.book", "lead/1", "--json"])["fields"],
        json!({"a": 2})
    );
    let log = folder.ok(&["log", "ann.book"]);
    assert!(log.contains("OrderLine/7"), "{log}");
    let status = folder.one_json(&["status", "ann.book", "--json"]);
    assert_eq!(status["set_aside"], 2, "{status}");
    let entries = status["entries"].clone();
    for output in [&log, &folder.ok(&["status", "ann.book"])] {
        assert!(
            !output.contains(['\u{202e}', '\u{1b}']),
            "what a server calls a record is shown as text"
        );
    }
    folder.ok(&sync);
    let status = folder.one_json(&["status", "ann.book", "--json"]);
    assert_eq!(status["entries"], entries, "the same page again is no news");
    assert_eq!(folder.one_json(&["verify", "ann.book", "--tables", "--json"])["ok"], true);
    // A park for that server stops no other server.
    let ours = Serving::start(&folder, &[]);
    let other = folder.run(&["sync", "ann.book", "--server", &ours.url]);
    assert!(other.err.contains("is not the server that this book knows"), "{other:?}");
    folder.ok(&["accept-server", "ann.book"]);
    folder.ok(&["sync", "ann.book", "--server", &ours.url]);
}

#[test]
fn the_token_of_another_tenant_is_told_as_that() {
    let folder = Folder::new();
    let (ours, theirs) = ("token-of-acme-0123456789abcdef", "token-of-globex-0123456789abcdef");
    let tokens = json!({ ours: {"tenant": "acme", "actor": "ann"}, theirs: {"tenant": "globex", "actor": "ann"} });
    std::fs::write(folder.path("tokens.json"), tokens.to_string()).unwrap();
    for (file, token) in [("ours", ours), ("theirs", theirs)] {
        std::fs::write(folder.path(file), token).unwrap();
    }
    for file in ["tokens.json", "ours", "theirs"] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(file), std::fs::Permissions::from_mode(0o600))
            .unwrap();
    }
    let serving = Serving::start(&folder, &["--tokens", "tokens.json"]);
    let with = |token: &'static str| {
        ["sync", "ann.book", "--server", &serving.url, "--actor", "ann", "--token-file", token]
            .map(str::to_owned)
    };
    let run = |token| folder.run(&with(token).each_ref().map(String::as_str));
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"a":1}"#, "--actor", "ann"]);
    assert_eq!(run("ours").code, 0);
    folder.ok(&["put", "ann.book", "lead/2", r#"{"a":2}"#, "--actor", "ann"]);
    let refused = run("theirs");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("belong to another tenant of this server"), "{}", refused.err);
    assert!(!refused.err.contains("globex") && !refused.err.contains("acme"), "{}", refused.err);
    let right = run("ours");
    assert_eq!(right.code, 0, "{right:?}");
    assert_eq!(folder.one_json(&["status", "ann.book", "--json"])["pending"], 0);
    folder.ok(&["init", "bob.book"]);
    folder.ok(&[
        "sync",
        "bob.book",
        "--server",
        &serving.url,
        "--actor",
        "ann",
        "--token-file",
        "theirs",
    ]);
    let nothing = folder.run(&["get", "bob.book", "lead/2"]);
    assert_ne!(nothing.code, 0, "nothing of it reached the other tenant");
}

#[test]
fn of_several_other_servers_a_person_names_the_one_that_is_meant() {
    let folder = Folder::new();
    folder.ok(&["init", "ann.book"]);
    folder.ok(&["put", "ann.book", "lead/1", r#"{"a":1}"#]);
    let cursors = || json!({"cursors": {"lead": "AAAAAAAAAAI"}});
    let own = Scripted::start(move |request| answer(request, 1, cursors()));
    folder.run(&["sync", "ann.book", "--server", &own.url]);
    for number in [2, 3] {
        let other = Scripted::start(move |request| answer(request, number, json!({})));
        let refused = folder.run(&["sync", "ann.book", "--server", &other.url]);
        assert_eq!(refused.code, 1, "{refused:?}");
    }
    let unnamed = folder.run(&["accept-server", "ann.book"]);
    assert_eq!(unnamed.code, 1);
    let (_, named) =
        unnamed.err.split_once("fieldbook accept-server ann.book ").expect("it says what to run");
    let named = named.split([',', ' ', '\n']).next().unwrap();
    assert!(named.starts_with("7d444840-9dc0-4111-b245-5ffdce74fa02/"), "{}", unnamed.err);
    let flag = folder.run(&["sync", "ann.book", "--server", &own.url, "--accept-server"]);
    assert!(flag.err.contains("several other servers have answered"), "{}", flag.err);
    folder.ok(&["accept-server", "ann.book", named]);
    let status = folder.one_json(&["status", "ann.book", "--json"]);
    assert_eq!(
        (&status["servers_to_accept"], &status["parks"]),
        (&json!([]), &json!([])),
        "{status}"
    );
    assert_eq!(folder.run(&["accept-server", "ann.book", "nonsense"]).code, 2);
}
