//! Writing from many threads at once, the same way for every peer.

use std::sync::Barrier;
use std::thread;

use crate::peer::Failure;
use crate::sample::Sample;

/// Runs `write` for every record of every slice, one thread for each slice, all starting together.
pub(crate) fn run(
    slices: &[&[Sample]],
    write: impl Fn(&Sample) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let start = Barrier::new(slices.len());
    thread::scope(|scope| {
        let threads: Vec<_> = slices
            .iter()
            .map(|slice| {
                scope.spawn(|| {
                    start.wait();
                    slice.iter().try_for_each(&write)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
