//! The server over real HTTP.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod damaged;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod door;
#[cfg(test)]
mod largest;
#[cfg(test)]
mod life;
#[cfg(test)]
mod others;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod room;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod support;
