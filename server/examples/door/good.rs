//! A device that does what devices do: one small change at a time, and the page after it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::Failed;
use crate::requests::{GOOD, change, request, unit};

pub(crate) struct Good {
    client: reqwest::Client,
    url: String,
    number: usize,
    cursors: Map<String, Value>,
}

/// How long exchanges took.
pub(crate) struct Times {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Good {
    pub(crate) fn new(address: SocketAddr) -> Result<Self, Failed> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { client, url: format!("http://{address}/v1/exchange"), number: 0, cursors: Map::new() })
    }

    /// Makes so many exchanges, one after the other; each must be answered as it should be.
    pub(crate) async fn exchanges(&mut self, count: usize) -> Result<Times, Failed> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            self.exchange().await?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let at = |hundredths: usize| times.get((count * hundredths).div_ceil(100).saturating_sub(1)).copied();
        Ok(Times { p50: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default() })
    }

    async fn exchange(&mut self) -> Result<(), Failed> {
        self.number += 1;
        let changes =
            change(&format!("lead/{}", self.number), self.number, 0, r#"{"name":"Ann","stage":"hot"}"#);
        let units = unit(self.number, &changes);
        let cursors = serde_json::to_string(&self.cursors)?;
        let body =
            request(self.number, &format!(r#""units":[{units}],"cursors":{cursors},"page_limit":100"#));
        let post = self.client.post(&self.url).bearer_auth(GOOD).header("content-type", "application/json");
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
