//! The benchmarks. Each defines one item, so that sizes can change without changing the meaning of
//! a number.

use std::hint::black_box;

use crate::peer::{CACHE, Contender, Failure, Index, Peer, Work};
use crate::race::{Race, Setting, Time};
use crate::report::duration;
use crate::sample::{History, Sample, Samples};

const SEED: u64 = 20_261_122;
const ROUNDS: usize = 3;
pub(crate) const REBUILD: &str = "rebuild from 1,000,000 entries";

/// A goal for fieldbook, printed with the result.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this many times SQLite's speed.
    TimesSqlite(f64),
    /// At most this many seconds per item.
    Seconds(f64),
    None,
}

/// One line of the table.
pub(crate) struct Benchmark {
    pub(crate) name: &'static str,
    pub(crate) item: &'static str,
    pub(crate) goal: Goal,
    pub(crate) run: fn(&Setting) -> Result<Vec<Time>, Failure>,
}

pub(crate) const BENCHMARKS: [Benchmark; 19] = [
    Benchmark {
        name: "single durable write",
        item: "write",
        goal: Goal::TimesSqlite(1.0),
        run: single_write,
    },
    Benchmark {
        name: "1,000 writes in one commit",
        item: "write",
        goal: Goal::TimesSqlite(1.1),
        run: one_commit,
    },
    Benchmark {
        name: "a transaction of 1,000 writes",
        item: "write",
        goal: Goal::TimesSqlite(1.3),
        run: transaction,
    },
    Benchmark {
        name: "16 threads writing",
        item: "write",
        goal: Goal::TimesSqlite(3.2),
        run: threads,
    },
    Benchmark { name: "point read of 100,000", item: "read", goal: Goal::None, run: point_read },
    Benchmark {
        name: "point read of 100,000, borrowed",
        item: "read",
        goal: Goal::TimesSqlite(2.5),
        run: point_look,
    },
    Benchmark {
        name: "point read of 100,000, borrowed, all in cache",
        item: "read",
        goal: Goal::TimesSqlite(4.5),
        run: point_look_in_cache,
    },
    Benchmark {
        name: "page of 100 of 100,000",
        item: "page",
        goal: Goal::TimesSqlite(2.4),
        run: page,
    },
    Benchmark {
        name: "page of 100 of 100,000, borrowed",
        item: "page",
        goal: Goal::TimesSqlite(3.0),
        run: page_look,
    },
    Benchmark {
        name: "page of 50 by a compound index, descending, of 100,000",
        item: "page",
        goal: Goal::Seconds(0.000_1),
        run: page_of_stage,
    },
    Benchmark {
        name: "page of 50 by a compound index, descending, all in cache",
        item: "page",
        goal: Goal::Seconds(0.000_1),
        run: page_of_stage_cached,
    },
    Benchmark {
        name: "build a compound index over 100,000",
        item: "record",
        goal: Goal::Seconds(0.000_005),
        run: build_index,
    },
    Benchmark {
        name: "apply 100,000 in pages of 5,000",
        item: "record",
        goal: Goal::TimesSqlite(1.15),
        run: apply_pages,
    },
    Benchmark {
        name: "apply 100,000 in one commit",
        item: "record",
        goal: Goal::TimesSqlite(1.15),
        run: apply_once,
    },
    Benchmark { name: REBUILD, item: "entry", goal: Goal::TimesSqlite(0.9), run: rebuild },
    Benchmark {
        name: "verify 1,000,000 entries",
        item: "entry",
        goal: Goal::TimesSqlite(1.0),
        run: verify,
    },
    Benchmark {
        name: "open 100,000 entries, closed well",
        item: "open",
        goal: Goal::Seconds(0.002),
        run: open,
    },
    Benchmark {
        name: "open 100,000 entries after a crash",
        item: "open",
        goal: Goal::Seconds(0.03),
        run: open_crashed,
    },
    Benchmark {
        name: "open 100,000 entries after a crash at rest",
        item: "open",
        goal: Goal::Seconds(0.03),
        run: open_crashed_at_rest,
    },
];

fn single_write(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let mut race = Race::new(setting, Work::Write)?;
    let records = Samples::new(SEED).take(20 + setting.scaled(500));
    let (warming, measured) = records.split_at(20);
    for record in warming {
        race.round(|runner| {
            runner.peer()?.ready(std::slice::from_ref(record))?;
            runner.peer()?.write(record)
        })?;
    }
    for record in measured {
        race.round(|runner| {
            runner.peer()?.ready(std::slice::from_ref(record))?;
            runner.time(1, |peer| peer.write(record))
        })?;
    }
    Ok(race.finish())
}

fn one_commit(setting: &Setting) -> Result<Vec<Time>, Failure> {
    thousands(setting, |peer, records| peer.write_in_one_commit(records))
}

fn transaction(setting: &Setting) -> Result<Vec<Time>, Failure> {
    thousands(setting, |peer, records| peer.write_as_one(records))
}

/// Measures commits of a thousand records. One sample is ten commits, so that work that a peer puts
/// off to a later commit (SQLite's checkpoint) is in all of them.
fn thousands(
    setting: &Setting,
    write: fn(&mut dyn Peer, &[Sample]) -> Result<(), Failure>,
) -> Result<Vec<Time>, Failure> {
    let mut race = Race::new(setting, Work::Write)?;
    let mut samples = Samples::new(SEED);
    for _ in 0..setting.scaled(100).div_ceil(10).max(3) {
        let records = samples.take(10_000);
        race.round(|runner| {
            runner.peer()?.ready(&records)?;
            runner.time(records.len(), |peer| {
                records.chunks(1_000).try_for_each(|some| write(peer, some))
            })
        })?;
    }
    Ok(race.finish())
}

fn threads(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let mut race = Race::new(setting, Work::Write)?;
    let mut samples = Samples::new(SEED);
    let each = setting.scaled(100);
    for _ in 0..9 {
        let records = samples.take(16 * each);
        let slices: Vec<&[Sample]> = records.chunks(each).collect();
        race.round(|runner| {
            runner.peer()?.ready(&records)?;
            runner.time(records.len(), |peer| peer.write_from_threads(&slices))
        })?;
    }
    Ok(race.finish())
}

fn point_read(setting: &Setting) -> Result<Vec<Time>, Failure> {
    point_reads(setting, CACHE, |peer, ids| peer.read_each(ids, &mut look_at))
}

fn point_look(setting: &Setting) -> Result<Vec<Time>, Failure> {
    point_reads(setting, CACHE, |peer, ids| peer.look_at_each(ids, &mut look_at))
}

fn point_look_in_cache(setting: &Setting) -> Result<Vec<Time>, Failure> {
    point_reads(setting, 4 * CACHE, |peer, ids| peer.look_at_each(ids, &mut look_at))
}

fn point_reads(
    setting: &Setting,
    cache: usize,
    read: fn(&mut dyn Peer, &[&str]) -> Result<(), Failure>,
) -> Result<Vec<Time>, Failure> {
    let mut samples = Samples::new(SEED);
    let records = samples.take(setting.scaled(100_000));
    let mut race = filled(setting, cache, &records)?;
    for round in 0..50 {
        let ids = samples.pick(&records, 1_000);
        race.round(|runner| {
            runner.time(ids.len(), |peer| read(peer, &ids))?;
            if round < 5 {
                runner.forget();
            }
            Ok(())
        })?;
    }
    Ok(race.finish())
}

fn page(setting: &Setting) -> Result<Vec<Time>, Failure> {
    pages(setting, |peer, id, take| peer.page(id, 100, take))
}

fn page_look(setting: &Setting) -> Result<Vec<Time>, Failure> {
    pages(setting, |peer, id, look| peer.look_at_page(id, 100, look))
}

type ReadPage = fn(&mut dyn Peer, &str, &mut dyn FnMut(&str, &str)) -> Result<(), Failure>;

fn pages(setting: &Setting, page: ReadPage) -> Result<Vec<Time>, Failure> {
    let mut samples = Samples::new(SEED);
    let records = samples.take(setting.scaled(100_000));
    let mut race = filled(setting, CACHE, &records)?;
    let starts = records.get(..records.len() - 100).unwrap_or_default();
    race_pages(&mut race, 100, || samples.pick(starts, 20), |peer, id, take| page(peer, id, take))?;
    Ok(race.finish())
}

fn page_of_stage(setting: &Setting) -> Result<Vec<Time>, Failure> {
    pages_of_stage(setting, CACHE)
}

fn page_of_stage_cached(setting: &Setting) -> Result<Vec<Time>, Failure> {
    pages_of_stage(setting, 4 * CACHE)
}

fn pages_of_stage(setting: &Setting, cache: usize) -> Result<Vec<Time>, Failure> {
    let mut samples = Samples::new(SEED);
    let records = samples.take(setting.scaled(100_000));
    let mut race = filled(setting, cache, &records)?;
    race.round(|runner| runner.reopen(Index::Built))?;
    // A stage has a sixth of the records, and at least half of them have such a value.
    let pick = || (0..20).map(|_| samples.stage_and_value()).collect();
    race_pages(&mut race, 50, pick, |peer, (stage, value), take| {
        peer.page_of_stage(stage, *value, 50, take)
    })?;
    Ok(race.finish())
}

/// Reads pages of this many rows in rounds, and checks that each peer reads all of them.
fn race_pages<T>(
    race: &mut Race,
    rows: usize,
    mut pick: impl FnMut() -> Vec<T>,
    page: impl Fn(&mut dyn Peer, &T, &mut dyn FnMut(&str, &str)) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for round in 0..50 {
        let picked = pick();
        race.round(|runner| {
            let (name, mut read) = (runner.contender.name(), 0);
            runner.time(picked.len(), |peer| {
                let mut take = |_: &str, body: &str| {
                    look_at(body);
                    read += 1;
                };
                picked.iter().try_for_each(|one| page(peer, one, &mut take))
            })?;
            if read != rows * picked.len() {
                return Err(Failure::Wrong { peer: name, what: "gave a short page" });
            }
            if round < 5 {
                runner.forget();
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn build_index(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let records = Samples::new(SEED).take(setting.scaled(100_000));
    let mut race = filled(setting, CACHE, &records)?;
    for _ in 0..ROUNDS {
        race.round(|runner| runner.time_index(records.len()))?;
    }
    Ok(race.finish())
}

/// Opens a store for each contender that reads, filled with the records as if they had been pulled.
fn filled(setting: &Setting, cache: usize, records: &[Sample]) -> Result<Race, Failure> {
    let mut race = Race::with_cache(setting, Work::Read, cache)?;
    race.round(|runner| {
        let pages = records.chunks(5_000).zip(1..);
        pages.into_iter().try_for_each(|(page, cursor)| {
            runner.peer()?.ready_page(page, cursor)?;
            runner.peer()?.apply(page, cursor)
        })
    })?;
    Ok(race)
}

fn apply_pages(setting: &Setting) -> Result<Vec<Time>, Failure> {
    apply(setting, 5_000)
}

fn apply_once(setting: &Setting) -> Result<Vec<Time>, Failure> {
    apply(setting, usize::MAX)
}

fn apply(setting: &Setting, page: usize) -> Result<Vec<Time>, Failure> {
    let mut race = Race::new(setting, Work::Apply)?;
    let records = Samples::new(SEED).take(setting.scaled(100_000));
    for _ in 0..ROUNDS {
        race.round(|runner| {
            runner.start_afresh(&setting.folder)?;
            for (page, cursor) in records.chunks(page).zip(1..) {
                runner.peer()?.ready_page(page, cursor)?;
            }
            runner.time(records.len(), |peer| {
                records
                    .chunks(page)
                    .zip(1..)
                    .try_for_each(|(page, cursor)| peer.apply(page, cursor))
            })
        })?;
    }
    Ok(race.finish())
}

fn rebuild(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let events = setting.scaled(1_000_000);
    let mut race = Race::new(setting, Work::Replay)?;
    race.round(|runner| runner.peer()?.load(&mut History::new(SEED, events)))?;
    let mut ways: Vec<(Contender, &'static str, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        race.round(|runner| {
            let contender = runner.contender;
            let wanted = |number: &usize| setting.way.is_none_or(|way| way == *number);
            let ways_to_rebuild = runner.peer()?.ways_to_rebuild().iter().enumerate();
            for (_, &way) in ways_to_rebuild.filter(|(number, _)| wanted(number)) {
                runner.forget();
                runner.time(events, |peer| peer.rebuild(way))?;
                let seconds = runner.result().map(|time| time.median);
                match ways.iter_mut().find(|(of, known, _)| (*of, *known) == (contender, way)) {
                    Some((.., times)) => times.extend(seconds),
                    None => ways.push((contender, way, seconds.into_iter().collect())),
                }
            }
            Ok(())
        })?;
    }
    Ok(best_ways(ways))
}

/// Returns each contender's best way, with a note on all its ways.
fn best_ways(ways: Vec<(Contender, &'static str, Vec<f64>)>) -> Vec<Time> {
    let mut best: Vec<Time> = Vec::new();
    for (contender, way, seconds) in ways {
        let Some(time) = Time::of(contender, seconds) else { continue };
        let note = format!("{way} {}", duration(time.median));
        match best.iter_mut().find(|known| known.contender == contender) {
            Some(known) => {
                let note = known
                    .note
                    .take()
                    .map_or_else(|| note.clone(), |before| format!("{before}, {note}"));
                let quicker = if time.median < known.median { time } else { known.clone() };
                *known = Time { note: Some(note), ..quicker };
            }
            None => best.push(Time { note: Some(note), ..time }),
        }
    }
    best.sort_by_key(|time| time.contender);
    best
}

fn verify(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let events = setting.scaled(1_000_000);
    let mut race = Race::new(setting, Work::Replay)?;
    race.round(|runner| runner.peer()?.load(&mut History::new(SEED, events)))?;
    for _ in 0..ROUNDS {
        race.round(|runner| runner.time(events, |peer| peer.verify()))?;
    }
    Ok(race.finish())
}

fn open(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let (mut race, first) = written(setting)?;
    for _ in 0..20 {
        race.round(|runner| {
            runner.close();
            runner.time(1, |peer| peer.read_each(&[first.as_str()], &mut look_at))
        })?;
    }
    Ok(race.finish())
}

/// Opens a copy of the files, taken while the store is in use, like those of a killed program.
fn open_crashed(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let (race, first) = written(setting)?;
    open_copies(race, &first, setting)
}

/// The same for a store that had come to rest: for a SQLite store, whose journal was checkpointed.
fn open_crashed_at_rest(setting: &Setting) -> Result<Vec<Time>, Failure> {
    let (mut race, first) = written(setting)?;
    race.round(|runner| runner.peer()?.rest())?;
    open_copies(race, &first, setting)
}

fn open_copies(mut race: Race, first: &str, setting: &Setting) -> Result<Vec<Time>, Failure> {
    for _ in 0..7 {
        race.round(|runner| {
            runner.time_after_crash(&setting.folder, |peer| peer.read_each(&[first], &mut look_at))
        })?;
    }
    Ok(race.finish())
}

/// Opens a store for each contender that reads, with records that were written there and wait for a
/// server. Also returns the id of the first record.
fn written(setting: &Setting) -> Result<(Race, String), Failure> {
    let mut race = Race::new(setting, Work::Read)?;
    let records = Samples::new(SEED).take(setting.scaled(100_000));
    race.round(|runner| {
        records.chunks(1_000).try_for_each(|some| {
            runner.peer()?.ready(some)?;
            runner.peer()?.write_in_one_commit(some)
        })
    })?;
    Ok((race, records.into_iter().next().map(|record| record.id).unwrap_or_default()))
}

/// Keeps the compiler from leaving a read out.
fn look_at(body: &str) {
    black_box(body.len());
}
