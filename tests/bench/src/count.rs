//! Counts instructions, which do not depend on other processes.
//!
//! Each benchmark runs once more for each peer, at the sizes of `--quick`, in its own process under
//! valgrind's callgrind, which counts only the measured part. Two counts of one program differ by
//! less than 1 %.
//!
//! What it is not: a measure of time. A cache miss is one instruction, waiting for a disk is none,
//! and the work of two threads at the same time counts twice.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use crate::benchmarks::{Benchmark, REBUILD};
use crate::peer::{Contender, Failure};
use crate::race::{MEASURED_ITEMS, Setting};

/// The functions with the measured work: the benchmark's, and threads of fieldbook's own.
const COUNTED: [&str; 3] =
    ["*measured_region*", "*log::parts::verify_some*", "*rebuild::read_ahead*"];
/// The most ways to rebuild that a peer has.
const WAYS: usize = 2;

/// The instructions of one item.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) contender: Contender,
    pub(crate) instructions: f64,
}

/// Counts a benchmark's instructions for each peer that takes part; the best way counts if a peer
/// has several.
pub(crate) fn count(benchmark: &Benchmark, setting: &Setting) -> Result<Vec<Count>, Failure> {
    let taking_part = |contender: &Contender| {
        // The file system's work is not the program's, so a bare file shows nothing.
        *contender != Contender::Raw && contender.name().contains(&setting.peer)
    };
    let ways = if benchmark.name == REBUILD { WAYS } else { 1 };
    let mut counts = Vec::new();
    for contender in Contender::ALL.into_iter().filter(taking_part) {
        let mut best: Option<f64> = None;
        for way in 0..ways {
            let counted = run_counted(benchmark, contender, way, &setting.folder)?;
            best = counted.map(|counted| best.map_or(counted, |best| best.min(counted))).or(best);
        }
        counts.extend(best.map(|instructions| Count { contender, instructions }));
    }
    Ok(counts)
}

/// Runs a benchmark in a process that is counted, and returns the instructions of an item; none if
/// there is no such way.
fn run_counted(
    benchmark: &Benchmark,
    contender: Contender,
    way: usize,
    folder: &Path,
) -> Result<Option<f64>, Failure> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.args(COUNTED.map(|name| format!("--toggle-collect={name}")));
    valgrind.arg(std::env::current_exe()?).arg("--quick").arg("--folder").arg(folder);
    valgrind.args(["--counted", "--only", benchmark.name, "--peer", contender.name()]);
    let output = valgrind.args(["--way", &way.to_string()]).output()?;
    let (said, told) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<f64>().ok());
    match (collected, told.trim().parse::<u64>()) {
        (Some(_), Ok(0)) => Ok(None),
        (Some(instructions), Ok(items)) => Ok(Some(instructions / items as f64)),
        _ => Err(Failure::Uncounted { said: said.into_owned() }),
    }
}

/// Runs one benchmark as the counted process, and returns the number of measured items.
pub(crate) fn counted(name: &str, setting: &Setting) -> Result<u64, Failure> {
    let benchmark = crate::benchmarks::BENCHMARKS.iter().find(|benchmark| benchmark.name == name);
    (benchmark.ok_or(Failure::NoSuchBenchmark)?.run)(setting)?;
    Ok(MEASURED_ITEMS.load(Ordering::Relaxed))
}
