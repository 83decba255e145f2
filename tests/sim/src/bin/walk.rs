//! Walks small worlds with the real rules and reports the laws that are broken in them.
//!
//! `walk` walks all worlds, each as far as is enough for a run. `walk --list` names them. `walk
//! --world "edits" --states 5000000` walks one of them farther. `walk --law join` also fails on a
//! law that is not tested by default.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use fieldbook_sim::seeds::{exit_code, value};
use fieldbook_sim::walk::{Bounds, LAWS, Law, Walked, World, explore, worlds};

const USAGE: &str = "usage: walk [--list] [--world NAME]... [--states N|all] [--threads N] [--law NAME|all]... [--paths]";

struct Options {
    list: bool,
    names: Vec<String>,
    threads: usize,
    bounds: Bounds,
    paths: bool,
}

fn main() -> ExitCode {
    exit_code(options().and_then(|options| run(&options)), USAGE)
}

fn options() -> Result<Options, Box<dyn std::error::Error>> {
    let bounds = Bounds::default();
    let mut options = Options { list: false, names: Vec::new(), threads: 2, bounds, paths: false };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        let mut value = || value(&option, &mut words);
        match option.as_str() {
            "--list" => options.list = true,
            "--paths" => options.paths = true,
            "--world" => options.names.push(value()?),
            "--threads" => options.threads = value()?.parse::<usize>()?.max(1),
            "--states" => {
                let most = value()?;
                options.bounds.states =
                    Some(if most == "all" { usize::MAX } else { most.parse()? });
            }
            "--law" => match value()?.as_str() {
                "all" => options.bounds.laws.extend(LAWS),
                word => options
                    .bounds
                    .laws
                    .push(Law::parse(word).ok_or_else(|| format!("{word} is no law"))?),
            },
            other => return Err(format!("{other} is no option").into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    let mut out = io::stdout();
    let all = worlds();
    if options.list {
        for world in &all {
            writeln!(out, "{}", described(world))?;
        }
        return Ok(true);
    }
    if let Some(name) =
        options.names.iter().find(|name| !all.iter().any(|world| world.name == **name))
    {
        return Err(format!("there is no world `{name}`: see walk --list").into());
    }
    let chosen = |world: &World| {
        options.names.is_empty() || options.names.iter().any(|name| name == world.name)
    };
    let chosen: Vec<World> = all.into_iter().filter(chosen).collect();
    let mut sums = (0, 0, 0, 0);
    walk_all(&chosen, options, |walked| {
        sums.0 += walked.states;
        sums.1 += walked.steps;
        sums.2 += usize::from(walked.whole);
        sums.3 += walked.broken.iter().filter(|found| !found.not_yet).count();
        show(&mut io::stdout(), &walked, options.paths)
    })?;
    writeln!(out, "worlds               {} ({} of them whole)", chosen.len(), sums.2)?;
    writeln!(out, "distinct states      {}", sums.0)?;
    writeln!(out, "steps                {}", sums.1)?;
    writeln!(out, "laws broken          {}", sums.3)?;
    Ok(sums.3 == 0)
}

/// Walks worlds in threads, this many at a time.
fn walk_all(
    worlds: &[World],
    options: &Options,
    mut each: impl FnMut(Walked) -> io::Result<()>,
) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..options.threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(world) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // The receiver is gone once standard output is closed.
                    drop(sender.send(explore(world, &options.bounds)));
                }
            });
        }
        drop(sender);
        receiver.into_iter().try_for_each(&mut each)
    })
}

fn described(world: &World) -> String {
    let policies: Vec<_> = world.policies.iter().map(|policy| policy.as_str()).collect();
    format!(
        "{:32} {} ops, {} record(s), {}, {:?} clocks, {:?}, verbs {:?}",
        world.name,
        world.ops.iter().map(u8::to_string).collect::<Vec<_>>().join(" and "),
        world.records,
        policies.join(" and "),
        world.clocks,
        world.left,
        world.verbs
    )
}

fn show(out: &mut impl Write, walked: &Walked, paths: bool) -> io::Result<()> {
    let end = if walked.whole { "whole" } else { "cut" };
    let seconds = walked.took.as_secs_f64();
    writeln!(
        out,
        "{:32} {:>9} states  {:>10} steps  depth {:>2} {end:5} {seconds:>7.1} s",
        walked.world, walked.states, walked.steps, walked.depth
    )?;
    for found in &walked.broken {
        let known = if found.not_yet { " (known)" } else { "" };
        writeln!(out, "    {} broken {} times{known}: {}", found.law, found.times, found.what)?;
        if paths || !found.not_yet {
            write!(out, "{}", found.path)?;
        }
    }
    Ok(())
}
