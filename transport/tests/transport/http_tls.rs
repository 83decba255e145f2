//! Servers with a certificate that must not be trusted: the client sends them nothing, and names
//! the reason.

use std::sync::Arc;

use fieldbook_core::protocol::Failure;
use fieldbook_transport::{HttpOptions, HttpRemote, Remote};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::support::request;

/// Exchanges with a server whose own certificate is valid from one year to another. Returns the
/// failure, and how many bytes of a request the server received.
async fn exchange_with_a_certificate_of(from: i32, until: i32) -> (Failure, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = acceptor(from, until);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _closed = stream.read_to_end(&mut received).await;
        }
        received.len()
    });
    let remote = HttpRemote::new(&origin, HttpOptions::default()).unwrap();
    let failure = remote.exchange(&request()).await.expect_err("no answer").into_failure();
    (failure, server.await.unwrap())
}

fn acceptor(from: i32, until: i32) -> TlsAcceptor {
    acceptor_and_certificate(from, until).0
}

/// Also returns the certificate, as a file holds it.
fn acceptor_and_certificate(from: i32, until: i32) -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem(certificate.der()))
}

fn pem(certificate: &[u8]) -> String {
    let lines = data_encoding::BASE64.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_may_as_well_be_a_clock_that_is_wrong() {
    let (failure, received) = exchange_with_a_certificate_of(2001, 2002).await;
    assert_eq!(failure, Failure::Unreachable { code: "clock_or_tls" });
    assert_eq!(received, 0);
}

#[tokio::test]
async fn a_certificate_whose_time_has_not_come_may_as_well_be_a_clock_that_is_wrong() {
    let (failure, received) = exchange_with_a_certificate_of(4001, 4002).await;
    assert_eq!(failure, Failure::Unreachable { code: "clock_or_tls" });
    assert_eq!(received, 0);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_no_request() {
    let (failure, received) = exchange_with_a_certificate_of(2001, 4001).await;
    assert_eq!(failure, Failure::Unreachable { code: "tls" });
    assert_eq!(received, 0);
}

/// Which certificates the system trusts is what `SSL_CERT_FILE` names where the process starts: the
/// exchange is made by this very test in a process of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_certificate_that_the_system_trusts_gets_the_request() {
    const ORIGIN: &str = "FIELDBOOK_TEST_ORIGIN";
    if let Ok(origin) = std::env::var(ORIGIN) {
        let remote = HttpRemote::new(&origin, HttpOptions::default()).unwrap();
        let failure = remote.exchange(&request()).await.expect_err("no answer").into_failure();
        assert_eq!(failure, Failure::Unknown { code: "connection_broke" }, "TLS was no obstacle");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let (acceptor, certificate) = acceptor_and_certificate(2001, 4001);
    let trusted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), certificate).unwrap();
    let client = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http_tls::a_certificate_that_the_system_trusts_gets_the_request"])
        .env(ORIGIN, origin)
        .env("SSL_CERT_FILE", trusted.path())
        .env_remove("SSL_CERT_DIR")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut received = [0; 5];
    stream.read_exact(&mut received).await.unwrap();
    drop(stream);
    assert_eq!(received, *b"POST ");
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
}
