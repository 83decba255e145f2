//! A server on a free port with a store of its own, and requests for it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldbook_core::protocol::{ExchangeAnswer, ExchangeRequest, Outcome, Unit, UnitChange};
use fieldbook_core::{
    Actor, Cursor, DeviceId, EntityType, Epoch, FieldsJson, Hlc, OpId, OpKind, RequestId, UnitId,
    Version, WallTime,
};
use fieldbook_server::{ServeOptions, Server, serve};
use reqwest::StatusCode;
use serde_json::Value;

/// A running server; its store outlives a restart.
pub(crate) struct Running {
    server: Server,
    folder: tempfile::TempDir,
    client: reqwest::Client,
    token: Option<&'static str>,
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) async fn start() -> Running {
    start_with(None).await
}

/// Starts a server with this text as its token file.
pub(crate) async fn start_with(tokens: Option<&str>) -> Running {
    start_changed(tokens, |_| ()).await
}

/// Starts a server with changed options.
pub(crate) async fn start_changed(
    tokens: Option<&str>,
    change: impl FnOnce(&mut ServeOptions),
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServeOptions::new(loopback(), folder.path().join("server.redb"));
    if let Some(text) = tokens {
        let path = folder.path().join("tokens.json");
        write_tokens(&path, text);
        options.tokens = Some(path);
    }
    change(&mut options);
    crate::keep_in(&mut options).await;
    let server = serve(options).await.unwrap();
    let client = client().timeout(Duration::from_secs(30)).build().unwrap();
    Running { server, folder, client, token: None }
}

/// Begins a client for plain HTTP to this machine.
pub(crate) fn client() -> reqwest::ClientBuilder {
    // Installed by the first caller.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy()
}

/// Writes a token file that only its owner may read.
pub(crate) fn write_tokens(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

impl Running {
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Replaces the token file.
    pub(crate) fn write_tokens(&self, text: &str) {
        write_tokens(&self.folder.path().join("tokens.json"), text);
    }

    /// Stops the server and returns the folder of its store.
    pub(crate) async fn stopped(self) -> tempfile::TempDir {
        self.server.shutdown().await.unwrap();
        self.folder
    }

    /// Returns whether the store is a file: the tests also run over a database.
    pub(crate) fn is_in_a_file(&self) -> bool {
        self.data().exists()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("server.redb")
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) fn with_token(mut self, token: &'static str) -> Self {
        self.token = Some(token);
        self
    }

    /// Stops the server and starts another on the same store.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_changed(|_| ()).await
    }

    /// Stops the server and starts another on the same store, with changed options.
    pub(crate) async fn restarted_changed(self, change: impl FnOnce(&mut ServeOptions)) -> Self {
        self.server.shutdown().await.unwrap();
        let mut options = ServeOptions::new(loopback(), self.folder.path().join("server.redb"));
        change(&mut options);
        crate::keep_in(&mut options).await;
        let server = serve(options).await.unwrap();
        Self { server, ..self }
    }

    /// Posts bytes and returns the answer. Its body must be JSON with the marker, whatever its
    /// status.
    pub(crate) async fn post(&self, body: Vec<u8>) -> (StatusCode, Value) {
        let mut request = self.client.post(format!("{}/v1/exchange", self.url()));
        request = request.header("content-type", "application/json").body(body);
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        answer_of(request.send().await.unwrap()).await
    }

    #[track_caller]
    pub(crate) fn exchange(
        &self,
        request: &ExchangeRequest,
    ) -> impl Future<Output = ExchangeAnswer> {
        let body = serde_json::to_vec(request).unwrap();
        async move {
            let (status, value) = self.post(body).await;
            assert_eq!(status, StatusCode::OK, "{value}");
            // From text, like a device: fields are kept as they are written.
            serde_json::from_str(&value.to_string()).unwrap()
        }
    }

    /// Sends one unit of one change and returns its outcome.
    pub(crate) async fn sent(&self, number: u8, change: UnitChange) -> Outcome {
        let answer = self.exchange(&request(vec![unit(number, vec![change])])).await;
        answer.outcomes.into_iter().next().unwrap().outcome
    }
}

pub(crate) async fn answer_of(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    let value: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(value["marker"], "fieldbook");
    (status, value)
}

pub(crate) fn request(units: Vec<Unit>) -> ExchangeRequest {
    ExchangeRequest {
        units,
        ..ExchangeRequest::new(
            RequestId::from_bytes([3; 16]),
            DeviceId::from_bytes([4; 16]),
            Epoch::from_bytes([5; 16]),
            Actor::parse("ann").unwrap(),
        )
    }
}

pub(crate) fn pull(cursors: BTreeMap<EntityType, Cursor>, page_limit: u32) -> ExchangeRequest {
    ExchangeRequest { cursors, page_limit, ..request(Vec::new()) }
}

pub(crate) fn unit(number: u8, changes: Vec<UnitChange>) -> Unit {
    Unit { id: UnitId::from_bytes([number; 16]), changes, earlier_units: Vec::new() }
}

pub(crate) fn change(name: &str, kind: OpKind, base: Option<u64>, fields: &str) -> UnitChange {
    UnitChange {
        key: name.parse().unwrap(),
        kind,
        base: base.map(Version::new),
        ops: vec![OpId::from_bytes([9; 16])],
        // An author who knows a later version edits later.
        edited_at: Hlc::from_bits(
            Hlc::at(WallTime::parse("2024-05-01T12:00:00Z").unwrap()).to_bits()
                + base.unwrap_or_default(),
        ),
        older: Vec::new(),
        schema_version: 1,
        fields: (kind != OpKind::Delete).then(|| FieldsJson::parse(fields).unwrap()),
    }
}

pub(crate) fn create(name: &str) -> UnitChange {
    change(name, OpKind::Create, None, r#"{"name":"Ann","tags":[1.5,null,{"a":"ü"}]}"#)
}
