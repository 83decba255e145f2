//! The server over real HTTP.

// `cfg(test)` makes clippy treat helpers in these files as tests too.
#[cfg(test)]
mod backup;
#[cfg(test)]
mod compare;
#[cfg(test)]
mod damaged;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod door;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod largest;
#[cfg(test)]
mod life;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod others;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod room;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod support;

/// Leaves the store in a file. The same tests run over a database in `tests/on_postgres`.
#[cfg(test)]
async fn keep_in(_: &mut fieldbook_server::ServeOptions) {}
