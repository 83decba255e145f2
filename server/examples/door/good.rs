//! A device that behaves normally: one small change at a time, and the page after it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::Failed;
use crate::requests::{GOOD, change, request, unit};

/// How many exchanges are made at least at a time.
const AT_LEAST: usize = 50;
pub(crate) struct Good {
    client: reqwest::Client,
    url: String,
    number: usize,
    cursors: Map<String, Value>,
}

/// How long exchanges took.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the time that this many of a hundred exchanges did not exceed.
    pub(crate) fn percentile(&self, hundredths: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied().unwrap_or_default()
    }
}

impl Good {
    pub(crate) fn new(address: SocketAddr) -> Result<Self, Failed> {
        // Installed by the first caller.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self {
            client,
            url: format!("http://{address}/v1/exchange"),
            number: 0,
            cursors: Map::new(),
        })
    }

    /// Makes exchanges one after the other for at least `long`, and records their times. Each
    /// answer must be right.
    pub(crate) async fn exchanges(
        &mut self,
        long: Duration,
        times: &mut Times,
    ) -> Result<(), Failed> {
        let (start, enough) = (Instant::now(), times.0.len() + AT_LEAST);
        while times.0.len() < enough || start.elapsed() < long {
            let began = Instant::now();
            self.exchange().await?;
            times.0.push(began.elapsed());
        }
        Ok(())
    }

    async fn exchange(&mut self) -> Result<(), Failed> {
        self.number += 1;
        let changes = change(
            &format!("lead/{}", self.number),
            self.number,
            0,
            r#"{"name":"Ann","stage":"hot"}"#,
        );
        let units = unit(self.number, &changes);
        let cursors = serde_json::to_string(&self.cursors)?;
        let body = request(
            self.number,
            &format!(r#""units":[{units}],"cursors":{cursors},"page_limit":100"#),
        );
        let post = self
            .client
            .post(&self.url)
            .bearer_auth(GOOD)
            .header("content-type", "application/json");
        let response = post.body(body).send().await?;
        let status = response.status();
        let answer: Value = serde_json::from_slice(&response.bytes().await?)?;
        let outcome = answer.pointer("/outcomes/0/outcome").and_then(Value::as_str);
        if status != 200 || outcome != Some("applied") {
            return Err(format!("the good device was answered {status}: {answer}").into());
        }
        if let Some(Value::Object(cursors)) = answer.get("cursors") {
            self.cursors.extend(cursors.clone());
        }
        Ok(())
    }
}
