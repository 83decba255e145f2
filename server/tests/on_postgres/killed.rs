//! Two servers and a database that are killed while devices write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fieldbook_core::protocol::ExchangeAnswer;
use fieldbook_core::{Cursor, UnitId};
use fieldbook_server::{PostgresUrl, ServeOptions, serve};

use crate::cluster::Cluster;
use crate::support::*;

const WRITERS: u64 = 8;
const UNITS: u64 = 120;
/// The variable that makes a run of this program a server.
const NODE: &str = "FIELDBOOK_TEST_NODE";

/// A server in a process of its own, which can be killed.
struct Node {
    process: Child,
    url: String,
}

impl Node {
    fn start(database: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::a_server_of_its_own", "--ignored", "--nocapture"])
            .env(NODE, database)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the server ended").unwrap();
            if let Some((_, url)) = line.split_once("serves ") {
                break url.to_owned();
            }
        };
        Self { process, url }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Not a test: the body of a server's process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is run by the tests of this file"]
async fn a_server_of_its_own() {
    let Ok(database) = std::env::var(NODE) else { return };
    let database = Some(PostgresUrl::parse(&database).unwrap());
    let options = ServeOptions { database, ..ServeOptions::new(loopback(), "no-file") };
    let server = serve(options).await.unwrap();
    println!("serves {}", server.url());
    std::io::stdout().flush().unwrap();
    // The parent kills it. Without a parent it ends too.
    tokio::time::sleep(Duration::from_secs(120)).await;
    drop(server);
}

/// Sends units, each until a server says that it has it.
async fn write(writer: u64, nodes: Arc<Mutex<Vec<String>>>) -> u64 {
    let client = client().timeout(Duration::from_secs(20)).build().unwrap();
    let mut tries = 0;
    for number in 0..UNITS {
        let name = format!("lead/{writer}-{number}");
        let sent = fieldbook_core::protocol::Unit {
            id: UnitId::from_bytes(
                (u128::from(writer) * 1_000_000 + u128::from(number)).to_be_bytes(),
            ),
            ..unit(0, vec![create(&name)])
        };
        let body = serde_json::to_vec(&request(vec![sent])).unwrap();
        loop {
            tries += 1;
            let url = {
                let nodes = nodes.lock().unwrap();
                nodes[usize::try_from(tries).unwrap() % nodes.len()].clone()
            };
            let post = client.post(format!("{url}/v1/exchange")).body(body.clone());
            let answer = post.header("content-type", "application/json").send().await;
            let text = match answer {
                Ok(answer) if answer.status() == 200 => answer.text().await.unwrap_or_default(),
                _ => String::new(),
            };
            if text.contains(r#""applied""#) || text.contains(r#""duplicate""#) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    tries
}

async fn pulled(url: &str) -> BTreeMap<String, u64> {
    let client = client().build().unwrap();
    let mut ask = pull(BTreeMap::new(), 500);
    ask.others = Some(Cursor::default());
    let mut all = BTreeMap::new();
    loop {
        let post = client.post(format!("{url}/v1/exchange"));
        let post = post.header("content-type", "application/json");
        let (status, answer) =
            answer_of(post.body(serde_json::to_vec(&ask).unwrap()).send().await.unwrap()).await;
        assert_eq!(status, 200, "{answer}");
        let answer: ExchangeAnswer = serde_json::from_str(&answer.to_string()).unwrap();
        all.extend(answer.changes.iter().map(|one| (one.key.to_string(), one.version.number())));
        ask.others = answer.others.or(ask.others);
        if !answer.more {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_the_database_that_are_killed_amid_writes_lose_nothing_and_apply_nothing_twice()
{
    // With every sync, as in use.
    let Some(cluster) = Cluster::start(&[]) else { return };
    let cluster = Arc::new(cluster);
    let url = cluster.url(&cluster.database().await);
    let (mut first, second) = (Node::start(&url), Node::start(&url));
    let nodes = Arc::new(Mutex::new(vec![first.url.clone(), second.url.clone()]));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(writer, Arc::clone(&nodes)))).collect();
    let mut kills = 0;
    while writers.iter().any(|writer| !writer.is_finished()) && kills < 6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        kills += 1;
        if kills % 2 == 0 {
            let cluster = Arc::clone(&cluster);
            tokio::task::spawn_blocking(move || cluster.kill_and_run()).await.unwrap();
        } else {
            first.kill();
            first = Node::start(&url);
            nodes.lock().unwrap()[0] = first.url.clone();
        }
    }
    let mut tries = 0;
    for writer in writers {
        tries += writer.await.unwrap();
    }
    let present = pulled(&second.url).await;
    let total = WRITERS * UNITS;
    println!("{total} units in {tries} tries, {kills} kills");
    assert_eq!(present.len() as u64, total, "every unit that was answered is there");
    // Each unit is one commit: a unit that took effect twice would leave a gap.
    let versions: BTreeSet<_> = present.values().copied().collect();
    assert_eq!(versions, (1..=total).collect());
    assert!(kills > 1 && tries > total, "{kills} kills, {tries} tries");
}
