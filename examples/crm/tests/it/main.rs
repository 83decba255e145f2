//! The program as its users meet it: typed commands, a real server that stops and starts again.

// `cfg(test)` tells clippy that helpers in these files are tests too.
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod support;
#[cfg(test)]
mod two_devices;
#[cfg(test)]
mod users;
#[cfg(test)]
mod wrong;
