//! The counts for a monitor.

use fieldbook_core::OpKind;
use reqwest::StatusCode;

use crate::support::*;

async fn start_watched() -> Running {
    start_changed(None, |options| options.metrics = Some(loopback())).await
}

async fn counts(running: &Running) -> String {
    let url = format!("http://{}/metrics", running.server().metrics_addr().unwrap());
    let response = running.client().get(url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().await.unwrap()
}

#[tokio::test]
async fn a_monitor_reads_what_the_server_did_at_an_address_of_its_own() {
    let running = start_watched().await;
    running.sent(1, create("lead/1")).await;
    running.sent(1, create("lead/1")).await;
    running.sent(2, change("lead/1", OpKind::Update, Some(9), "{}")).await;
    assert_eq!(running.post(b"canary".to_vec()).await.0, StatusCode::BAD_REQUEST);
    let text = counts(&running).await;
    for line in [
        "fieldbook_ready 1",
        "fieldbook_requests_total{route=\"exchange\",code=\"ok\"} 3",
        "fieldbook_requests_total{route=\"exchange\",code=\"bad_request\"} 1",
        "fieldbook_units_total{outcome=\"applied\"} 1",
        "fieldbook_units_total{outcome=\"duplicate\"} 1",
        "fieldbook_units_total{outcome=\"stale\"} 1",
        "fieldbook_exchange_seconds_count 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for secret in ["local", "ann", "lead", "canary"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
}

#[tokio::test]
async fn devices_do_not_reach_the_counts_and_monitors_do_not_exchange() {
    let running = start_watched().await;
    let public = running.client().get(format!("{}/metrics", running.url())).send().await.unwrap();
    assert_eq!(public.status(), StatusCode::NOT_FOUND);
    let address = running.server().metrics_addr().unwrap();
    let body = serde_json::to_vec(&request(Vec::new())).unwrap();
    let exchange = running.client().post(format!("http://{address}/v1/exchange")).body(body);
    assert_eq!(exchange.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    // The server still stops at once.
    drop(running.stopped().await);
}
