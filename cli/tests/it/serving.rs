//! What `serve` prints and how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::json;

use crate::support::*;

const TOKEN: &str = "canary-long-random-token-9f27";

fn tokens() -> String {
    json!({ TOKEN: {"tenant": "acme", "actor": "ann"} }).to_string()
}

/// Sends a request exactly as given and returns the status.
fn asked(serving: &Serving, head: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(serving.url.trim_start_matches("http://")).unwrap();
    let text = format!(
        "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// 401, 408, 413 and 415 once left no line, and no line named the client of a request.
#[test]
fn each_end_of_a_request_is_one_line_that_says_whose_it_was_and_shows_nothing_secret() {
    let folder = Folder::new();
    folder.write_tokens(&tokens());
    let serving = Serving::start(&folder, &["--tokens", "tokens.json"]);
    let post = "POST /v1/exchange HTTP/1.1";
    let token = format!("Authorization: Bearer {TOKEN}");
    let plain = format!("{post}\r\nContent-Type: application/json\r\n{token}");
    let good = json!({
        "protocol": 1, "request": "018f3a2b-7c00-7000-8000-000000000001",
        "device": "018f3a00-0000-7000-8000-0000000000d1", "epoch": "018f3a00-0000-7000-8000-0000000000e1",
        "actor": "ann", "page_limit": 0
    });
    let other = good.to_string().replace("\"ann\"", "\"canary\\u202e-actor\"");
    for (status, head, body) in [
        (200, plain.clone(), good.to_string()),
        (400, plain.clone(), "{\"canary\"".to_owned()),
        (401, post.to_owned(), good.to_string()),
        (401, format!("{post}\r\nAuthorization: Bearer canary-canary-canary"), String::new()),
        (403, plain.clone(), other),
        (404, "GET /canary HTTP/1.1".to_owned(), String::new()),
        (405, "GET /v1/exchange HTTP/1.1".to_owned(), String::new()),
        (413, plain.clone(), " ".repeat(17 * 1024 * 1024)),
        (415, format!("{post}\r\n{token}"), good.to_string()),
        (415, format!("{plain}\r\nContent-Encoding: gzip"), good.to_string()),
    ] {
        assert_eq!(asked(&serving, &head, &body), status, "{head}");
    }
    let log = serving.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("milliseconds=")).collect();
    assert_eq!(lines.len(), 10, "{log}");
    let line = |code: &str| {
        let found: Vec<_> =
            lines.iter().filter(|line| line.contains(&format!("code=\"{code}\""))).collect();
        assert!(!found.is_empty(), "{code}: {log}");
        found[0].to_string()
    };
    let done = line("ok");
    for part in
        ["tenant=\"acme\"", "actor=\"ann\"", "device=018f3a00-", "status=200", "milliseconds="]
    {
        assert!(done.contains(part), "{part}: {done}");
    }
    for code in ["token_missing", "token_unknown", "not_found", "method_not_allowed", "wrong_actor"]
    {
        line(code);
    }
    for code in ["bad_request", "too_large", "not_json"] {
        assert!(
            line(code).contains("tenant=\"acme\"") && line(code).contains("actor=\"ann\""),
            "{log}"
        );
    }
    assert!(
        !log.contains(TOKEN) && !log.contains("canary-canary") && !log.contains('\u{202e}'),
        "{log}"
    );
}

/// A hangup once ended the server, also without a token file, and tokens were read only once.
#[cfg(unix)]
#[test]
fn a_hangup_has_the_tokens_read_again_and_a_bad_file_keeps_the_former_ones() {
    let folder = Folder::new();
    folder.write_tokens(&tokens());
    std::fs::write(folder.path("ann.token"), TOKEN).unwrap();
    let serving = Serving::start(&folder, &["--tokens", "tokens.json"]);
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    let url = serving.url.clone();
    let sync = ["sync", "ann.book", "--server", &url, "--token-file", "ann.token"];
    folder.ok(&sync);
    folder.write_tokens("{}");
    serving.signal("-HUP");
    folder.ok(&sync);
    let other =
        json!({ "another-long-random-token": {"tenant": "acme", "actor": "ann"} }).to_string();
    folder.write_tokens(&other);
    serving.signal("-HUP");
    let refused = (0..200).any(|_| folder.run(&sync).code != 0);
    assert!(refused, "the former token goes on to hold");
    let log = serving.log();
    assert!(log.contains("names no token") && log.contains("former tokens"), "{log}");

    let open = Serving::start(&folder, &[]);
    open.signal("-HUP");
    folder.ok(&["init", "ben.book"]);
    folder.ok(&["sync", "ben.book", "--server", &open.url]);
    assert!(open.log().contains("no token file"));
}

/// A signal before the server listened once killed it while it opened its store.
#[cfg(unix)]
#[test]
fn a_server_that_is_asked_to_end_while_it_starts_ends_well_and_leaves_a_whole_store() {
    let folder = Folder::new();
    let mut early = 0;
    for pause in [0, 5, 10, 15, 20, 30, 40, 60, 100, 200] {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", "server.store"];
        let mut child =
            folder.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The program catches its signals when it begins.
        wait_for_signals(child.id());
        std::thread::sleep(std::time::Duration::from_micros(pause * 100));
        let asked =
            std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        early += usize::from(out.is_empty());
    }
    println!("{early} of 10 ended before they listened");
    Serving::start(&folder, &[]).log();
}

/// A signal before the program catches any ends it as it ends every program. It has not touched a
/// file yet.
#[cfg(unix)]
#[test]
fn a_server_that_is_killed_in_its_first_instant_has_made_nothing() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new();
    let before = folder.names();
    for microseconds in (0..4_000).step_by(100) {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data", "server.store"];
        let mut child =
            folder.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(microseconds));
        let asked =
            std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        let status = child.wait().unwrap();
        match status.signal() {
            Some(_) => assert_eq!(folder.names(), before, "after {microseconds} µs"),
            None => {
                assert!(status.success(), "{status}");
                drop(std::fs::remove_file(folder.path("server.store")));
            }
        }
    }
}

/// Waits until a process catches the signal that asks it to end.
#[cfg(unix)]
fn wait_for_signals(process: u32) {
    const TERMINATE: u64 = 1 << 14;
    for _ in 0..5_000 {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        match caught {
            Some(mask) if mask & TERMINATE != 0 => return,
            Some(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            // This system has no such file. After a while the program has begun.
            None => return std::thread::sleep(std::time::Duration::from_millis(300)),
        }
    }
    panic!("the program takes no signals");
}

#[test]
fn a_token_file_that_cannot_be_meant_is_refused_at_start_with_what_to_do() {
    let folder = Folder::new();
    let serve =
        ["serve", "--data", "s.store", "--listen", "127.0.0.1:0", "--tokens", "tokens.json"];
    let twice = format!(
        "{{\"{TOKEN}\":{{\"tenant\":\"acme\",\"actor\":\"ann\"}},\"{TOKEN}\":{{\"tenant\":\"other\",\"actor\":\"bob\"}}}}"
    );
    let unknown = format!(
        "{{\"{TOKEN}\":{{\"tenant\":\"acme\",\"actor\":\"ann\",\"expire\":\"2030-01-01T00:00:00Z\"}}}}"
    );
    for (text, words) in [
        (twice.as_str(), "entry 2"),
        (unknown.as_str(), "no other"),
        ("{}", "names no token"),
        ("", "names no token"),
        ("[", "is not of the form"),
    ] {
        folder.write_tokens(text);
        let refused = folder.run(&serve);
        assert!(refused.code == 1 && refused.err.contains(words), "{}", refused.err);
        assert!(!refused.err.contains(TOKEN), "{}", refused.err);
        assert!(!folder.path("s.store").exists());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        folder.write_tokens(&tokens());
        std::fs::set_permissions(
            folder.path("tokens.json"),
            std::fs::Permissions::from_mode(0o644),
        )
        .unwrap();
        let refused = folder.run(&serve);
        assert!(refused.code == 1 && refused.err.contains("chmod 600"), "{}", refused.err);
    }
}

/// A misspelt limit would be no limit.
#[cfg(unix)]
#[test]
fn a_file_of_settings_stands_for_flags_and_a_mistake_in_it_stops_the_start() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("etc")).unwrap();
    folder.write_tokens(&tokens());
    std::fs::rename(folder.path("tokens.json"), folder.path("etc/tokens.json")).unwrap();
    let write = |text: &str| std::fs::write(folder.path("etc/serve.json"), text).unwrap();
    // Paths are relative to the folder of the file.
    write(r#"{"listen": "192.0.2.1:1", "tokens": "tokens.json", "metrics": "127.0.0.1:0"}"#);
    let serving = Serving::start(&folder, &["--config", "etc/serve.json"]);
    folder.ok(&["init", "ann.book", "--actor", "ann"]);
    let sync = ["sync", "ann.book", "--server", &serving.url];
    assert_ne!(folder.run(&sync).code, 0, "the file names tokens");
    std::fs::write(folder.path("ann.token"), TOKEN).unwrap();
    folder.ok(&[&sync[..], &["--token-file", "ann.token"]].concat());

    for (text, advice) in [
        (r#"{"tenant_record": 5}"#, "unknown field `tenant_record`"),
        (r#"{"connections": 5, "connections": 6}"#, "duplicate field `connections`"),
        (r#"{"listen": "here"}"#, "socket address"),
        ("[]", "not a JSON object"),
        ("{}", "--data"),
    ] {
        write(text);
        let refused = folder.run(&["serve", "--config", "etc/serve.json"]);
        assert_ne!(refused.code, 0, "{text}");
        assert!(refused.err.contains(advice), "{text}: {}", refused.err);
    }
}

/// The signed receipt of an answer stands between its authors and its conflicts. No conflict had an
/// author then.
#[test]
fn a_conflict_has_the_author_whom_the_server_named_beside_its_signed_receipt() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    let sync = |books: [&str; 2]| {
        for book in books {
            folder.ok(&["sync", book, "--server", &serving.url]);
        }
    };
    for actor in ["ann", "ben"] {
        folder.ok(&["init", &format!("{actor}.book"), "--actor", actor]);
    }
    folder.ok(&["put", "ann.book", "lead/1", r#"{"stage":"new"}"#]);
    sync(["ann.book", "ben.book"]);
    folder.ok(&["patch", "ann.book", "lead/1", r#"{"stage":"hot"}"#]);
    folder.ok(&["patch", "ben.book", "lead/1", r#"{"stage":"cold"}"#]);
    sync(["ben.book", "ann.book"]);
    let conflict = folder.json(&["conflicts", "list", "ann.book", "--json"]).remove(0);
    assert_eq!(conflict["remote_by"], "ben");
    let explained = folder.ok(&["explain", "ann.book", "lead/1"]);
    assert!(explained.contains("met version r2 by ben"), "{explained}");
    let told = folder.ok(&["history", "ann.book", "lead/1"]);
    assert!(told.contains("ben changed stage"), "{told}");
}

/// Wherever the address of a database is named, the password in it is shown nowhere.
#[test]
fn the_password_of_a_database_is_never_printed() {
    let folder = Folder::new();
    let address = "postgres://ann:canary@127.0.0.1:1/books";
    std::fs::write(folder.path("database.url"), address).unwrap();
    let config = json!({ "store_file": "database.url", "listen": "127.0.0.1:0" });
    std::fs::write(folder.path("serve.json"), config.to_string()).unwrap();
    for (args, expected) in [
        (vec!["serve", "--store", address], "cannot reach the database books at 127.0.0.1"),
        (vec!["serve", "--store", "postgres://ann:p@canary@h/books"], "not of the form"),
        (vec!["serve", "--store", "canary"], "not of the form"),
        (vec!["serve", "--data", address], "the address of a database"),
        (vec!["serve", "--store-file", "database.url"], "run chmod 600"),
        (vec!["serve", "--store", address, "--backups", "b"], "backed up by its own tools"),
        (vec!["keys", "server", address], "the address of a database"),
        (vec!["check-store", address], "the address of a database"),
        (vec!["restored", "--store", address], "cannot reach the database"),
        (vec!["serve"], "the store is missing"),
        (vec!["restored"], "the store is missing"),
    ] {
        let ran = folder.run(&args);
        assert!(ran.err.contains(expected), "{args:?}: {}", ran.err);
        assert!(!format!("{}{}", ran.out, ran.err).contains("canary"), "{}", ran.err);
    }
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path("database.url"), private).unwrap();
    for args in [["serve", "--store-file", "database.url"], ["serve", "--config", "serve.json"]] {
        let ran = folder.run(&args);
        assert!(ran.err.contains("cannot reach the database"), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("canary"), "{}", ran.err);
    }
    let mut command = folder.command(&["serve"]);
    let told = command.env("FIELDBOOK_STORE", address).output().unwrap();
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.contains("cannot reach the database") && !told.contains("canary"), "{told}");
}

#[test]
fn the_devices_of_a_store_are_listed_with_their_users_and_copies() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &[]);
    let edit = |book: &str, stage: &str| {
        folder.ok(&["put", book, "lead/1", &json!({ "stage": stage }).to_string(), "--replace"]);
        folder.run(&["sync", book, "--server", &serving.url]);
    };
    for (book, actor) in [("ann.book", "ann"), ("ben.book", "ben")] {
        folder.ok(&["init", book]);
        folder.ok(&["put", book, &format!("call/{actor}"), "{}", "--actor", actor]);
        folder.ok(&["sync", book, "--server", &serving.url]);
    }
    std::fs::copy(folder.path("ann.book"), folder.path("copy.book")).unwrap();
    // The copy hears that it is one, and goes on in an epoch of its own.
    ["new", "hot", "won"].iter().for_each(|stage| edit("ann.book", stage));
    ["new", "cold", "lost"].iter().for_each(|stage| edit("copy.book", stage));
    let running = folder.run(&["devices", "server.store"]);
    assert!(running.code == 1 && running.err.contains("already open"), "{running:?}");
    assert!(serving.stop("-TERM").success());

    let listed = folder.json(&["devices", "server.store", "--json"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    let of = |actor: &str| listed.iter().find(|device| device["actor"] == actor).unwrap();
    let epochs = |actor: &str| of(actor)["epochs"].as_array().unwrap().len();
    assert_eq!((epochs("ann"), epochs("ben")), (2, 1), "{listed:?}");
    assert_eq!(of("ben")["tenant"], "local");
    assert!(listed.iter().all(|device| device["seen"].is_string() && device["entry"].is_u64()));
    let told = folder.ok(&["devices", "server.store"]);
    assert!(told.contains("2 epochs: restored, or a copy is used"), "{told}");
    let silent = |span: &str| folder.ok(&["devices", "server.store", "--silent-for", span]);
    assert!(silent("7d").contains("no device was silent for so long"), "{}", silent("7d"));
    assert!(silent("0m").contains("2 of 2 devices"), "{}", silent("0m"));
}
