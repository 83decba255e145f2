//! Which databases a server takes, and what it says of the others.

use std::error::Error as _;

use fieldbook_server::{
    DatabaseFault, OpenDatabaseError, PostgresUrl, ServeError, ServeOptions,
    declare_database_restored, serve,
};

use crate::cluster::{self, Cluster};
use crate::support::*;

fn options(url: &str) -> ServeOptions {
    let database = Some(PostgresUrl::parse(url).unwrap());
    ServeOptions { database, ..ServeOptions::new(loopback(), "no-file") }
}

/// Returns the error of a start, and everything that it says.
async fn refused(url: &str) -> (OpenDatabaseError, String) {
    let error = match serve(options(url)).await.unwrap_err() {
        ServeError::Database(error) => error,
        error => panic!("{error:?}"),
    };
    let mut said = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        said += &format!(": {error}");
        cause = error.source();
    }
    (error, said)
}

async fn fault(cluster: &Cluster, database: &str) -> DatabaseFault {
    refused(&cluster.url(database)).await.0.fault()
}

#[tokio::test]
async fn a_database_out_of_reach_and_wrong_credentials_are_told_apart_without_the_password() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    let admin = cluster.client(&name).await;
    admin.batch_execute("create role locked login password 'sesame'").await.unwrap();
    let wrong = cluster.url_of("locked:canary", &name);
    for (url, expected) in [
        ("postgres://ann:canary@127.0.0.1:1/books".to_owned(), DatabaseFault::Unreachable),
        (wrong, DatabaseFault::Credentials),
        (cluster.url_of("locked", &name), DatabaseFault::Credentials),
        (cluster.url_of("tester:canary", "nowhere"), DatabaseFault::Missing),
        // This one may connect, and make nothing.
        (cluster.url_of("locked:sesame", &name), DatabaseFault::NotAllowed),
    ] {
        let (error, said) = refused(&url).await;
        assert_eq!(error.fault(), expected, "{said}");
        assert!(!said.contains("canary") && !said.contains("sesame"), "{said}");
    }
}

#[tokio::test]
async fn a_database_of_somebody_else_or_of_a_newer_program_is_refused_and_not_changed() {
    let Some(cluster) = cluster::shared() else { return };
    for (made, expected) in [
        (
            "create schema fieldbook; create table fieldbook.notes (text text)",
            DatabaseFault::NotOurs,
        ),
        (
            "create schema fieldbook; create table fieldbook.store (goods text)",
            DatabaseFault::NotOurs,
        ),
    ] {
        let name = cluster.database().await;
        let admin = cluster.client(&name).await;
        admin.batch_execute(made).await.unwrap();
        let count = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = 'fieldbook'";
        let before: i64 = admin.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(fault(cluster, &name).await, expected, "{made}");
        let after: i64 = admin.query_one(count, &[]).await.unwrap().get(0);
        assert_eq!(before, after, "{made}");
    }
    let name = cluster.database().await;
    serve(options(&cluster.url(&name))).await.unwrap().shutdown().await.unwrap();
    let admin = cluster.client(&name).await;
    admin.batch_execute("update fieldbook.store set migration = 99").await.unwrap();
    let (error, said) = refused(&cluster.url(&name)).await;
    assert_eq!(error.fault(), DatabaseFault::Newer { found: 99 });
    assert!(said.contains("99") && said.contains("use a newer one"), "{said}");
}

#[tokio::test]
async fn a_database_that_could_lose_what_it_confirmed_is_refused() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    let admin = cluster.client("postgres").await;
    let set = format!("alter database {name} set synchronous_commit = off");
    admin.batch_execute(&set).await.unwrap();
    assert_eq!(fault(cluster, &name).await, DatabaseFault::Unsafe);
}

/// A server that runs while a newer program changes the tables stops answering from them.
#[tokio::test]
async fn a_server_notices_that_a_newer_program_has_changed_the_tables() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    let server = serve(options(&cluster.url(&name))).await.unwrap();
    let body = serde_json::to_vec(&request(vec![unit(1, vec![create("lead/1")])])).unwrap();
    let post = || {
        let post = client().build().unwrap().post(format!("{}/v1/exchange", server.url()));
        post.header("content-type", "application/json").body(body.clone()).send()
    };
    assert_eq!(answer_of(post().await.unwrap()).await.0, 200);
    let admin = cluster.client(&name).await;
    admin.batch_execute("update fieldbook.store set migration = 99").await.unwrap();
    let (status, answer) = answer_of(post().await.unwrap()).await;
    assert_eq!((status.as_u16(), &answer["code"]), (503, &"store_failed".into()));
}

/// The database was restored by its own tools.
#[tokio::test]
async fn a_restored_database_begins_a_new_epoch_with_higher_commits() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    let url = PostgresUrl::parse(&cluster.url(&name)).unwrap();
    match declare_database_restored(&url).await.unwrap_err() {
        ServeError::Database(error) => assert_eq!(error.fault(), DatabaseFault::Empty),
        error => panic!("{error:?}"),
    }
    let server = serve(options(&cluster.url(&name))).await.unwrap();
    let sent = async |number, name: &str| {
        let body = serde_json::to_vec(&request(vec![unit(number, vec![create(name)])])).unwrap();
        let post = client().build().unwrap().post(format!("{}/v1/exchange", server.url()));
        let post = post.header("content-type", "application/json").body(body);
        let (_, answer) = answer_of(post.send().await.unwrap()).await;
        let version = answer["outcomes"][0]["versions"][name].as_u64().unwrap();
        (version, answer["server_epoch"].as_str().unwrap().to_owned())
    };
    let (first, before) = sent(1, "lead/1").await;
    let epoch = declare_database_restored(&url).await.unwrap();
    let (second, after) = sent(2, "lead/2").await;
    assert_eq!((first, second), (1, (1 << 32) + 2));
    assert_eq!(after, epoch.to_string());
    assert_ne!(before, after);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_database_is_refused_with_the_tool_for_it() {
    let Some(cluster) = cluster::shared() else { return };
    let name = cluster.database().await;
    let server = serve(options(&cluster.url(&name))).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = server.backup(folder.path().join("backup")).await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("pg_dump"), "{error:?}");
    assert!(!folder.path().join("backup").exists());
    server.shutdown().await.unwrap();
}
