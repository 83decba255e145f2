//! The built program, run as a person or a script runs it.

mod life;
mod looks;
mod refusals;
mod settle;
mod support;
