use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use fieldbook_core::log::{
    Abandoned, Appender, GroupCommit, Reply, commit, entries, read_head, verify,
};
use fieldbook_core::{Hlc, Seq};

use super::samples;

type Jobs = Vec<(u64, Reply<u64>)>;

fn answer_doubled(jobs: Jobs) {
    for (job, reply) in jobs {
        reply.send(job * 2);
    }
}

#[test]
fn a_lone_caller_gets_one_round_each_time_and_never_waits() {
    let group = GroupCommit::new(100);
    for job in 0..50 {
        let mut sizes = Vec::new();
        let answer = group.submit(job, |jobs: Jobs| {
            sizes.push(jobs.len());
            answer_doubled(jobs);
        });
        assert_eq!(answer, Ok(job * 2));
        assert_eq!(sizes, [1], "its own round, with itself alone");
    }
}

/// Lets `threads` callers submit `each` jobs; returns the sizes of the rounds.
fn play(group: &GroupCommit<u64, u64>, threads: u64, each: u64, round: Duration) -> Vec<usize> {
    let sizes = Mutex::new(Vec::new());
    let busy = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (sizes, busy) = (&sizes, &busy);
            scope.spawn(move || {
                for number in 0..each {
                    let job = thread * each + number;
                    let answer = group.submit(job, |jobs| {
                        assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "one round at a time");
                        sizes.lock().unwrap().push(jobs.len());
                        thread::sleep(round);
                        busy.fetch_sub(1, Ordering::SeqCst);
                        answer_doubled(jobs);
                    });
                    assert_eq!(answer, Ok(job * 2), "every caller gets its own answer");
                }
            });
        }
    });
    sizes.into_inner().unwrap()
}

#[test]
fn sixteen_threads_get_far_fewer_rounds_than_jobs() {
    let sizes = play(&GroupCommit::new(1_000), 16, 25, Duration::from_millis(2));
    assert_eq!(sizes.iter().sum::<usize>(), 16 * 25);
    assert!(sizes.len() < 16 * 25 / 4, "{} rounds for {} jobs", sizes.len(), 16 * 25);
}

#[test]
fn a_round_takes_no_more_jobs_than_its_limit() {
    let sizes = play(&GroupCommit::new(3), 16, 10, Duration::from_millis(1));
    assert_eq!(sizes.iter().sum::<usize>(), 160);
    assert!(sizes.iter().all(|size| (1..=3).contains(size)), "{sizes:?}");
}

/// Starts a round that panics once `followers` callers wait for it, and returns the results of the
/// followers.
fn with_a_panicking_leader(
    group: &Arc<GroupCommit<u64, u64>>,
    followers: u64,
) -> Vec<Result<u64, Abandoned>> {
    let started = Arc::new(Barrier::new(2));
    let leader = thread::spawn({
        let (group, started) = (Arc::clone(group), Arc::clone(&started));
        move || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                group.submit(0, |_jobs| {
                    started.wait();
                    thread::sleep(Duration::from_millis(30));
                    panic!("the round breaks");
                })
            }));
            assert!(
                panicked.is_err(),
                "a panic of the work reaches the caller whose thread it ran in"
            );
        }
    });
    started.wait();
    let followers: Vec<_> = (1..=followers)
        .map(|job| {
            let group = Arc::clone(group);
            thread::spawn(move || group.submit(job, answer_doubled))
        })
        .collect();
    leader.join().unwrap();
    followers.into_iter().map(|follower| follower.join().unwrap()).collect()
}

#[test]
fn a_panicking_round_hands_over_to_those_who_wait() {
    let group = Arc::new(GroupCommit::new(100));
    for _ in 0..5 {
        let answers = with_a_panicking_leader(&group, 4);
        assert_eq!(answers, [2, 4, 6, 8].map(Ok));
    }
    assert_eq!(group.submit(7, answer_doubled), Ok(14));
}

#[test]
fn callers_whose_own_round_panics_or_forgets_them_are_told() {
    let group = Arc::new(GroupCommit::<u64, u64>::new(100));
    // The first round delays the others, so that they share the second round, which breaks.
    let started = Arc::new(Barrier::new(2));
    let first = thread::spawn({
        let (group, started) = (Arc::clone(&group), Arc::clone(&started));
        move || {
            group.submit(0, |jobs| {
                started.wait();
                thread::sleep(Duration::from_millis(50));
                answer_doubled(jobs);
            })
        }
    });
    started.wait();
    let others: Vec<_> = (1..=4)
        .map(|job| {
            let group = Arc::clone(&group);
            thread::spawn(move || {
                catch_unwind(AssertUnwindSafe(|| {
                    group.submit(job, |_jobs| panic!("the round breaks"))
                }))
            })
        })
        .collect();
    assert_eq!(first.join().unwrap(), Ok(0));
    let ends: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
    assert!(ends.iter().any(Result::is_err), "who led the broken round panicked");
    assert!(ends.into_iter().flatten().all(|end| end == Err(Abandoned)), "the others were told");
    assert_eq!(group.submit(1, drop), Err(Abandoned));
    assert_eq!(group.submit(1, answer_doubled), Ok(2));
}

#[test]
fn many_threads_append_one_unbroken_log() {
    let store = samples::memory_store();
    let group: GroupCommit<u64, Seq> = GroupCommit::new(100);
    let commits = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (store, group, commits) = (&store, &group, &commits);
            scope.spawn(move || {
                for number in 0..40 {
                    let seq =
                        group.submit(thread * 1_000 + number, |jobs| append(store, commits, jobs));
                    seq.unwrap();
                }
            });
        }
    });
    let snapshot = store.begin_read().unwrap();
    let verified = verify(&entries(&snapshot).unwrap(), |_| {}).unwrap();
    assert_eq!(verified.entries, 320);
    assert!(commits.into_inner() <= 320);
}

fn append(store: &fieldbook_core::log::Store, commits: &AtomicU64, jobs: Vec<(u64, Reply<Seq>)>) {
    let transaction = store.begin_write().unwrap();
    let head = read_head(&transaction.open_table(fieldbook_core::log::ENTRIES).unwrap()).unwrap();
    let mut appender = Appender::open(&transaction, head).unwrap();
    let mut answers = Vec::new();
    for (job, reply) in jobs {
        let mut stamp = samples::stamp(1);
        stamp.hlc = appender.head().map_or(Hlc::ZERO, |head| head.hlc).next();
        let entry = appender.append(samples::intent(job), stamp).unwrap();
        answers.push((reply, entry.header.seq));
    }
    drop(appender);
    commit(transaction).unwrap();
    commits.fetch_add(1, Ordering::SeqCst);
    for (reply, seq) in answers {
        reply.send(seq);
    }
}
