//! The tests of `tests/it` with the store in a database: the same devices and requests, and the same
//! answers. What is of a file alone is left out there.

#[cfg(test)]
#[path = "../cluster/mod.rs"]
#[allow(dead_code, reason = "it is shared with the tests of the store")]
mod cluster;
#[cfg(test)]
#[path = "../it/compare.rs"]
mod compare;
#[cfg(test)]
#[path = "../it/devices.rs"]
mod devices;
#[cfg(test)]
mod killed;
#[cfg(test)]
#[path = "../it/largest.rs"]
mod largest;
#[cfg(test)]
#[path = "../it/life.rs"]
mod life;
#[cfg(test)]
#[path = "../it/metrics.rs"]
mod metrics;
#[cfg(test)]
mod opening;
#[cfg(test)]
#[path = "../it/others.rs"]
mod others;
#[cfg(test)]
#[path = "../it/refusals.rs"]
mod refusals;
#[cfg(test)]
#[path = "../it/rights.rs"]
mod rights;
#[cfg(test)]
#[path = "../it/room.rs"]
mod room;
#[cfg(test)]
#[path = "../it/schema.rs"]
mod schema;
#[cfg(test)]
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "it is shared with the tests over a file")]
mod support;

/// Keeps the store in a database: each path has one, and keeps it over a restart. Without Postgres
/// the store stays in a file, which is said.
#[cfg(test)]
async fn keep_in(options: &mut fieldbook_server::ServeOptions) {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex};

    static DATABASES: LazyLock<Mutex<HashMap<PathBuf, String>>> = LazyLock::new(Mutex::default);
    let Some(cluster) = cluster::shared() else { return };
    let known = DATABASES.lock().unwrap().get(&options.data).cloned();
    let name = match known {
        Some(name) => name,
        None => {
            let name = cluster.database().await;
            DATABASES.lock().unwrap().insert(options.data.clone(), name.clone());
            name
        }
    };
    options.database = Some(fieldbook_server::PostgresUrl::parse(&cluster.url(&name)).unwrap());
}
