//! Measures exchanges of one unit: `exchanges FILE|URL [SECONDS]`, with 1, 8 and 64 clients, all of
//! one tenant and each of a tenant of its own.
//!
//! The clients run in the same process, so the figures are for comparing stores on one machine.

use std::net::Ipv4Addr;
use std::time::Duration;

use fieldbook_core::Clock as _;
use fieldbook_core::protocol::{ExchangeRequest, Unit, UnitChange};
use fieldbook_core::system::SystemClock;
use fieldbook_core::{Actor, DeviceId, Epoch, FieldsJson, Hlc, OpId, OpKind, RequestId, UnitId};
use fieldbook_server::{PostgresUrl, ServeOptions, serve};
use tokio::time::Instant;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn body(client: u64, number: u64) -> Result<Vec<u8>, Failed> {
    let id =
        (u128::from(std::process::id()) << 96) | (u128::from(client) << 64) | u128::from(number);
    let change = UnitChange {
        key: format!("lead/{id:x}").parse()?,
        kind: OpKind::Create,
        base: None,
        ops: vec![OpId::from_bytes([9; 16])],
        edited_at: Hlc::from_bits(1 << 16),
        older: Vec::new(),
        schema_version: 1,
        fields: Some(FieldsJson::parse(r#"{"name":"Mueller","stage":"new","phone":"555"}"#)?),
    };
    let unit = Unit {
        id: UnitId::from_bytes(id.to_be_bytes()),
        changes: vec![change],
        earlier_units: Vec::new(),
    };
    let empty = ExchangeRequest::new(
        RequestId::from_bytes([3; 16]),
        DeviceId::from_bytes([4; 16]),
        Epoch::from_bytes([5; 16]),
        Actor::parse("ann")?,
    );
    Ok(serde_json::to_vec(&ExchangeRequest { units: vec![unit], ..empty })?)
}

/// Sends units for a while, and returns how many were applied.
async fn send(url: String, token: String, client: u64, until: Instant) -> Result<u64, Failed> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    // The numbers of each round are others.
    let now = SystemClock::new().now().wall.milliseconds();
    let first = u64::try_from(now)? * 1_000_000;
    let mut done = 0;
    while Instant::now() < until {
        let post = http.post(format!("{url}/v1/exchange")).bearer_auth(&token);
        let post =
            post.header("content-type", "application/json").body(body(client, first + done)?);
        let answer = post.send().await?.text().await?;
        if !answer.contains("\"applied\"") {
            return Err(answer.into());
        }
        done += 1;
    }
    Ok(done)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().ok_or("name a file or the address of a database")?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let tokens = folder.path().join("tokens.json");
    let entries: Vec<_> = (0..64)
        .map(|number| {
            format!(r#""a-token-of-this-run-{number}":{{"tenant":"t{number}","actor":"ann"}}"#)
        })
        .collect();
    std::fs::write(&tokens, format!("{{{}}}", entries.join(",")))?;
    #[cfg(unix)]
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut options = ServeOptions::new((Ipv4Addr::LOCALHOST, 0).into(), &store);
    options.tokens = Some(tokens);
    if store.starts_with("postgres") {
        options.database = Some(PostgresUrl::parse(&store)?);
    }
    let server = serve(options).await?;
    for (tenants, each) in [("one tenant", false), ("a tenant each", true)] {
        for clients in [1, 8, 64] {
            let until = Instant::now() + Duration::from_secs(seconds);
            let runs: Vec<_> = (0..clients)
                .map(|client| {
                    let tenant = if each { client } else { 0 };
                    let token = format!("a-token-of-this-run-{tenant}");
                    tokio::spawn(send(server.url(), token, client, until))
                })
                .collect();
            let mut done = 0;
            for run in runs {
                done += run.await??;
            }
            #[allow(clippy::print_stdout, reason = "it is what the program is for")]
            {
                println!("{clients:>3} clients, {tenants}: {} exchanges/s", done / seconds);
            }
        }
    }
    server.shutdown().await?;
    Ok(())
}
