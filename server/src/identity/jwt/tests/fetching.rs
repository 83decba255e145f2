//! Keys from an issuer that changes them, is down, is slow, or sends too much.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::support::{Folder, NOW, Signer, claims, key_set, sign};
use crate::identity::Seen;
use crate::identity::jwt::fetch::{Address, FetchedKeys, Pace};
use crate::identity::jwt::{Fault, Jwt, Keys};

/// What the issuer answers.
#[derive(Clone)]
enum Answer {
    Keys(String),
    Status(&'static str),
    /// Takes the request and says nothing.
    Silence,
    /// Sends a byte now and then.
    Drip,
    Endless,
}

/// An issuer on this machine.
struct Issuer {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys?canary=canary", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (now, count) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = now.lock().unwrap().clone();
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || give(stream.unwrap(), answer));
            }
        });
        Self { url, answer, asked }
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Accepts this issuer's tokens, with its own pace of fetching.
    fn jwt(&self, pace: Pace) -> Jwt {
        let mut jwt = Folder::new().read(&json!({ "keys_url": self.url })).unwrap();
        let address = Address::parse(&self.url).unwrap();
        let keys = FetchedKeys::at_pace(address, vec![Algorithm::ES256], pace).unwrap();
        jwt.keys = Keys::Fetched(Arc::new(keys));
        jwt
    }
}

fn give(mut stream: std::net::TcpStream, answer: Answer) {
    let mut request = [0; 4096];
    drop(stream.read(&mut request));
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    match answer {
        Answer::Keys(keys) => drop(stream.write_all(format!("{head}{keys}").as_bytes())),
        Answer::Status(status) => {
            let text =
                format!("HTTP/1.1 {status}\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n");
            drop(stream.write_all(text.as_bytes()));
        }
        Answer::Silence => std::thread::sleep(Duration::from_secs(60)),
        Answer::Drip => {
            drop(stream.write_all(head.as_bytes()));
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Answer::Endless => {
            drop(stream.write_all(head.as_bytes()));
            while stream.write_all(&[b' '; 4096]).is_ok() {}
        }
    }
}

/// Fetches as often as asked, and waits only briefly.
fn eager() -> Pace {
    let within = Duration::from_millis(500);
    Pace { within, apart: Duration::ZERO, ..Pace::default() }
}

async fn grant(jwt: &Jwt, signer: &Signer, key: &str) -> Option<Fault> {
    granted(jwt, signer, key, &claims()).await
}

async fn granted(jwt: &Jwt, signer: &Signer, key: &str, claims: &Value) -> Option<Fault> {
    jwt.grant(sign(signer, Some(key), claims).as_bytes(), NOW).await.err()
}

#[tokio::test]
async fn keys_that_the_issuer_changes_are_followed() {
    let (first, second) = (Signer::es256(), Signer::es256());
    let issuer = Issuer::start(Answer::Keys(key_set(&[("1", &first)])));
    let jwt = issuer.jwt(eager());
    assert_eq!(grant(&jwt, &first, "1").await, None);
    assert_eq!(grant(&jwt, &first, "1").await, None);
    assert_eq!(issuer.asked(), 1, "a known key needs no fetch");
    issuer.answer(Answer::Keys(key_set(&[("2", &second)])));
    assert_eq!(grant(&jwt, &second, "2").await, None);
    // The former key is gone, and its tokens with it.
    assert_eq!(grant(&jwt, &first, "1").await, Some(Fault::UnknownKey));
}

#[tokio::test]
async fn an_issuer_that_gives_no_keys_makes_tokens_wait_and_no_others_invalid() {
    let (known, new) = (Signer::es256(), Signer::es256());
    let set = key_set(&[("1", &known)]);
    let issuer = Issuer::start(Answer::Keys(set.clone()));
    let jwt = issuer.jwt(eager());
    assert_eq!(grant(&jwt, &known, "1").await, None);
    for answer in [
        Answer::Status("500 Oh"),
        Answer::Status("302 Found"),
        Answer::Keys("<html>a page</html>".to_owned()),
        Answer::Keys(r#"{"keys":[]}"#.to_owned()),
        Answer::Silence,
        Answer::Drip,
        Answer::Endless,
    ] {
        issuer.answer(answer);
        assert_eq!(grant(&jwt, &new, "2").await, Some(Fault::NoKeys));
        assert_eq!(grant(&jwt, &known, "1").await, None);
    }
    assert!(Fault::NoKeys.is_transient() && !Fault::UnknownKey.is_transient());
    issuer.answer(Answer::Keys(key_set(&[("2", &new)])));
    assert_eq!(grant(&jwt, &new, "2").await, None);
}

#[tokio::test]
async fn an_issuer_that_is_down_from_the_start_is_asked_again_later() {
    let signer = Signer::es256();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let down = Issuer {
        url: format!("http://{address}/keys"),
        answer: Arc::new(Mutex::new(Answer::Silence)),
        asked: Arc::default(),
    };
    let jwt = down.jwt(eager());
    assert_eq!(grant(&jwt, &signer, "1").await, Some(Fault::NoKeys));
    let Keys::Fetched(keys) = &jwt.keys else { panic!("fetched") };
    keys.fetch_if_due().await;
    assert!(keys.find(Some("1"), Algorithm::ES256).is_none());
}

/// Anybody can send tokens with keys that nobody has.
#[tokio::test]
async fn however_many_unknown_keys_tokens_name_the_issuer_is_asked_once_a_minute() {
    let (known, forger) = (Signer::es256(), Signer::es256());
    let issuer = Issuer::start(Answer::Keys(key_set(&[("1", &known)])));
    let jwt = issuer.jwt(Pace::default());
    assert_eq!(grant(&jwt, &forger, "none").await, Some(Fault::UnknownKey));
    for number in 0..50 {
        let fault = grant(&jwt, &forger, &format!("none-{number}")).await;
        assert_eq!(fault, Some(Fault::NoKeys), "nobody has looked since");
    }
    assert_eq!(issuer.asked(), 1);
    // A device whose user was away for long needs no key to learn that.
    let mut old = claims();
    old["exp"] = json!(1_000_000_000);
    assert_eq!(granted(&jwt, &forger, "gone", &old).await, Some(Fault::Expired));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn keys_that_nobody_could_confirm_for_long_are_not_used() {
    let signer = Signer::es256();
    let issuer = Issuer::start(Answer::Keys(key_set(&[("1", &signer)])));
    let jwt = issuer.jwt(Pace { kept: Duration::ZERO, ..eager() });
    assert_eq!(grant(&jwt, &signer, "1").await, Some(Fault::UnknownKey));
    let jwt = issuer.jwt(eager());
    let Keys::Fetched(keys) = &jwt.keys else { panic!("fetched") };
    keys.fetch_if_due().await;
    keys.fetch_if_due().await;
    assert_eq!(issuer.asked(), 2, "once for each of the two, and not again before it is due");
}

#[tokio::test]
async fn what_is_shown_of_the_keys_has_no_whole_address() {
    let issuer = Issuer::start(Answer::Silence);
    let jwt = issuer.jwt(eager());
    assert!(!format!("{jwt:?}").contains("canary"), "{jwt:?}");
}

#[tokio::test]
async fn settings_that_are_read_again_keep_the_keys_that_were_fetched() {
    let (signer, other) = (Signer::es256(), Signer::eddsa());
    let issuer = Issuer::start(Answer::Keys(key_set(&[("1", &signer), ("2", &other)])));
    let folder = Folder::new();
    let settings = json!({ "keys_url": issuer.url });
    let first = folder.read(&settings).unwrap();
    assert_eq!(grant(&first, &signer, "1").await, None);
    let path = folder.0.path().join("jwt.json");
    let again = Jwt::read(&path, Some(&first), &mut Seen::default()).unwrap();
    assert_eq!(grant(&again, &signer, "1").await, None);
    assert_eq!(issuer.asked(), 1);
    folder.read(&json!({ "keys_url": issuer.url, "algorithms": ["EdDSA"] })).unwrap();
    let changed = Jwt::read(&path, Some(&again), &mut Seen::default()).unwrap();
    assert_eq!(grant(&changed, &signer, "1").await, Some(Fault::Invalid));
    assert_eq!(grant(&changed, &other, "2").await, None);
}
