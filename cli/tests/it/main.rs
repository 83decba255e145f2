//! The built program, run as a person or a script runs it.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod advice;
#[cfg(test)]
mod app_schema;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod checking;
#[cfg(test)]
mod compact;
#[cfg(test)]
mod damaged;
#[cfg(test)]
mod forged;
#[cfg(test)]
mod hidden;
#[cfg(test)]
mod hotspot;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod left_behind;
#[cfg(test)]
mod life;
#[cfg(test)]
mod looks;
#[cfg(test)]
mod page;
#[cfg(test)]
mod past;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod settle;
#[cfg(test)]
mod standing;
#[cfg(test)]
mod stopped;
#[cfg(test)]
mod story;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod support;
