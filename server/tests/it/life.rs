use std::collections::BTreeMap;

use fieldbook_core::entry::Receipt;
use fieldbook_core::protocol::{HeadClaim, Outcome, UnitChange};
use fieldbook_core::{FieldsJson, Hash, OpId, OpKind, Seq, Version};

use crate::support::*;

fn version(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Applied { versions, .. } | Outcome::Duplicate { versions, .. } => {
            versions.values().next().unwrap().number()
        }
        other => panic!("not accepted: {other:?}"),
    }
}

#[tokio::test]
async fn a_unit_is_applied_once_however_often_it_arrives() {
    let running = start().await;
    assert!(matches!(running.sent(1, create("lead/1")).await, Outcome::Applied { .. }));
    let again = running.sent(1, create("lead/1")).await;
    assert!(matches!(again, Outcome::Duplicate { .. }));
    assert_eq!(version(&again), 1);
    let reused = running.sent(1, create("lead/2")).await;
    assert!(matches!(reused, Outcome::Rejected { code, .. } if code == "unit_reused"));
    assert_eq!(running.exchange(&pull(BTreeMap::new(), 10)).await.changes.len(), 1);
}

#[tokio::test]
async fn a_restart_keeps_records_unit_ids_anchors_and_identity() {
    let running = start().await;
    let mut first = request(vec![unit(1, vec![create("lead/1"), create("note/1")])]);
    let head = Receipt { seq: Seq::new(3), hash: Hash::from_bytes([7; 32]) };
    first.head =
        Some(HeadClaim { anchor: None, contents: Vec::new(), seq: head.seq, hash: head.hash });
    let before = running.exchange(&first).await;
    let page = running.exchange(&pull(BTreeMap::new(), 10)).await;

    let running = running.restarted().await;
    let after = running.exchange(&first).await;
    assert_eq!((after.server, after.server_epoch), (before.server, before.server_epoch));
    assert!(matches!(after.outcomes[0].outcome, Outcome::Duplicate { .. }));
    assert_eq!(after.receipt, Some(head));
    assert_eq!(running.exchange(&pull(BTreeMap::new(), 10)).await.changes, page.changes);
    assert_eq!(version(&running.sent(2, create("lead/2")).await), 2);
    // Another log with the same device and epoch is still recognised as another one.
    first.head = Some(HeadClaim {
        anchor: None,
        contents: Vec::new(),
        seq: Seq::new(3),
        hash: Hash::from_bytes([8; 32]),
    });
    assert_eq!(running.exchange(&first).await.forked, Some(head));
}

#[tokio::test]
async fn a_stale_unit_gets_the_record_as_it_is_with_its_fields() {
    let running = start().await;
    running.sent(1, create("lead/1")).await;
    running.sent(2, change("lead/1", OpKind::Update, Some(1), r#"{"phone":"555"}"#)).await;
    let others = OpId::from_bytes([8; 16]);
    let late = change("lead/1", OpKind::Update, Some(1), r#"{"phone":"777"}"#);
    let late = running.sent(3, UnitChange { ops: vec![others], ..late }).await;
    let Outcome::Stale { current, .. } = late else { panic!("not stale: {late:?}") };
    assert_eq!(current[0].version, Version::new(2));
    let fields = current[0].fields.as_ref().map(FieldsJson::as_str);
    assert_eq!(fields, Some(r#"{"name":"Ann","phone":"555","tags":[1.5,null,{"a":"ü"}]}"#));
}

#[tokio::test]
async fn pages_lead_to_the_end_and_then_nothing_is_new() {
    let running = start().await;
    for number in 0..20u8 {
        let names = [format!("lead/{number}"), format!("note/{number}")];
        let changes = names.iter().map(|name| create(name)).collect();
        running.exchange(&request(vec![unit(number, changes)])).await;
    }
    running.sent(100, change("lead/3", OpKind::Update, Some(4), r#"{"name":"Bob"}"#)).await;
    running.sent(101, change("note/4", OpKind::Delete, Some(5), "")).await;
    let (mut cursors, mut read, mut pages) = (BTreeMap::new(), BTreeMap::new(), 0);
    loop {
        let answer = running.exchange(&pull(cursors.clone(), 7)).await;
        pages += 1;
        for change in answer.changes {
            assert!(read.insert(change.key.to_string(), change).is_none());
        }
        cursors.extend(answer.cursors);
        if !answer.more {
            break;
        }
    }
    assert_eq!((read.len(), pages), (40, 6));
    assert_eq!(read["lead/3"].version, Version::new(21));
    assert!(read["note/4"].deleted && read["note/4"].fields.is_none());

    let (status, nothing) = running.post(serde_json::to_vec(&pull(cursors, 7)).unwrap()).await;
    assert_eq!(status, 200);
    assert!(nothing.get("changes").is_none() && nothing.get("cursors").is_none());
    assert!(nothing.to_string().len() < 500, "{nothing}");
}

#[tokio::test]
async fn nothing_new_writes_nothing() {
    let running = start().await;
    if !running.is_in_a_file() {
        return;
    }
    let mut first = request(vec![unit(1, vec![create("lead/1")])]);
    first.head =
        Some(HeadClaim { anchor: None, contents: Vec::new(), seq: Seq::new(1), hash: Hash::ZERO });
    first.page_limit = 10;
    let answer = running.exchange(&first).await;
    let before = std::fs::read(running.data()).unwrap();
    let mut nothing = pull(answer.cursors, 10);
    nothing.head = first.head.clone();
    assert!(running.exchange(&nothing).await.receipt.is_some());
    // A duplicate changes nothing either.
    running.exchange(&first).await;
    assert!(before == std::fs::read(running.data()).unwrap(), "the file changed");
}

#[tokio::test]
async fn concurrent_devices_each_get_commits_of_their_own() {
    let running = start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16u8 {
        let (client, url) = (running.client().clone(), format!("{}/v1/exchange", running.url()));
        let body = serde_json::to_vec(&request(vec![unit(
            number,
            vec![create(&format!("lead/{number}"))],
        )]));
        tasks.spawn(async move {
            let request =
                client.post(url).header("content-type", "application/json").body(body.unwrap());
            let (_, answer) = answer_of(request.send().await.unwrap()).await;
            answer["outcomes"][0]["versions"][format!("lead/{number}")].as_u64().unwrap()
        });
    }
    let mut versions = tasks.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<_>>());
}
