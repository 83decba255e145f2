//! Runs fuzz targets with inputs drawn from seeds, on all cores and without libFuzzer. It needs no
//! other toolchain, makes several times as many runs, and a seed reproduces each failure.
//!
//! `inputs --target rebase --seeds 100000` runs a range of one target; without a target each has
//! its turn. `--keep DIR` shrinks a failing input and keeps it for the corpus. `--file FILE` runs
//! one input and shows its panic. `--case` prints it instead as a case of the simulated world, for
//! `simulate --case`.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use fieldbook_sim::fuzz::{TARGETS, Target, drawn, small_case};
use fieldbook_sim::seeds::{SeedRange, exit_code, on_all_cores, value, words_of};

const USAGE: &str =
    "usage: inputs [--target NAME] [--seeds N] [--from N] [--keep DIR] [--file FILE [--case]]";

struct Options {
    target: Option<String>,
    range: SeedRange,
    keep: Option<PathBuf>,
    file: Option<PathBuf>,
    case: bool,
}

fn main() -> ExitCode {
    exit_code(options().and_then(|options| run(&options)), USAGE)
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options {
        target: None,
        range: SeedRange::first(1_000),
        keep: None,
        file: None,
        case: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        match option.as_str() {
            "--target" => options.target = Some(value(&option, &mut words)?),
            "--keep" => options.keep = Some(value(&option, &mut words)?.into()),
            "--file" => options.file = Some(value(&option, &mut words)?.into()),
            "--case" => options.case = true,
            _ => options.range.take(&option, &mut words)?,
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    let chosen = |name: &str| options.target.as_deref().is_none_or(|target| target == name);
    let targets: Vec<_> = TARGETS.iter().filter(|(name, _)| chosen(name)).collect();
    if targets.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no such target; there are {}", names.join(", ")).into());
    }
    if let Some(path) = &options.file {
        let data = std::fs::read(path)?;
        if options.case {
            writeln!(
                out,
                "{}",
                serde_json::to_string_pretty(&small_case(&data).ok_or("the file is empty")?)?
            )?;
            return Ok(true);
        }
        targets.iter().for_each(|(_, target)| target(&data));
        writeln!(out, "holds")?;
        return Ok(true);
    }
    // Failures are reported at the end, once for each input.
    panic::set_hook(Box::new(|_| {}));
    let mut holds = true;
    for (name, target) in targets {
        let failures = on_all_cores(options.range, |seed| failure(*target, &drawn(seed)));
        writeln!(out, "{name:<18} {:>12} runs, {} findings", options.range.seeds, failures.len())?;
        for (seed, said) in &failures {
            holds = false;
            writeln!(out, "  seed {seed} FAILED  {said}")?;
            if let Some(folder) = &options.keep {
                let path = folder.join(format!("{name}-seed-{seed}"));
                let data = shrink(*target, drawn(*seed));
                std::fs::write(&path, &data)?;
                writeln!(out, "  cut down to {} bytes in {}", data.len(), path.display())?;
            }
        }
        out.flush()?;
    }
    Ok(holds)
}

/// Returns the text of a target's failure on an input.
fn failure(target: Target, data: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| target(data))).err()?;
    Some(words_of(&*panic).to_owned())
}

/// Removes bytes, and sets others to zero, as long as the input fails with the same text up to the
/// first digit.
fn shrink(target: Target, mut data: Vec<u8>) -> Vec<u8> {
    let kind = |said: String| {
        said.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned()
    };
    let Some(wanted) = failure(target, &data).map(kind) else { return data };
    let fails = |data: &[u8]| failure(target, data).map(kind).as_deref() == Some(wanted.as_str());
    let mut piece = data.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at + piece);
            let less = [data.get(..at), data.get(end..)].into_iter().flatten().flatten().copied();
            let less: Vec<u8> = less.collect();
            if fails(&less) {
                data = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    for at in 0..data.len() {
        let mut plainer = data.clone();
        if let Some(byte) = plainer.get_mut(at) {
            *byte = 0;
        }
        if plainer != data && fails(&plainer) {
            data = plainer;
        }
    }
    data
}
