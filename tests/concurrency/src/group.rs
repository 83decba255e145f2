//! The group commit by itself: callers, rounds and replies, without a book.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fieldbook_core::log::{Abandoned, GroupCommit, Reply};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use crate::explore::explore;

const THREADS: u64 = 3;
const EACH: u64 = 2;
const LIMIT: usize = 2;

type Jobs = Vec<(u64, Reply<usize>)>;

/// A log of numbers, written by rounds.
#[derive(Default)]
struct Ledger {
    busy: AtomicBool,
    durable: Mutex<Vec<u64>>,
    commits: AtomicU64,
    answered: Mutex<Vec<u64>>,
}

impl Ledger {
    /// Runs a round: writes the jobs, commits once, and answers each with its place.
    fn round(&self, jobs: Jobs) {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "one round at a time");
        assert!((1..=LIMIT).contains(&jobs.len()), "{} jobs in a round", jobs.len());
        // Other callers arrive while the disk works.
        thread::yield_now();
        let first = {
            let mut durable = self.durable.lock().unwrap();
            let first = durable.len();
            durable.extend(jobs.iter().map(|(job, _)| *job));
            first
        };
        self.commits.fetch_add(1, Ordering::SeqCst);
        for (number, (job, reply)) in jobs.into_iter().enumerate() {
            self.answered.lock().unwrap().push(job);
            reply.send(first + number);
        }
        assert!(self.busy.swap(false, Ordering::SeqCst));
    }
}

fn everyone_is_answered() {
    let (group, ledger) = (Arc::new(GroupCommit::new(LIMIT)), Arc::new(Ledger::default()));
    let callers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (group, ledger) = (Arc::clone(&group), Arc::clone(&ledger));
            thread::spawn(move || {
                let mut last = None;
                for number in 0..EACH {
                    let job = thread * EACH + number;
                    let place = group.submit(job, |jobs| ledger.round(jobs)).unwrap();
                    assert_eq!(
                        ledger.durable.lock().unwrap().get(place),
                        Some(&job),
                        "its own answer"
                    );
                    assert!(last < Some(place), "in the order in which it asked");
                    last = Some(place);
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let mut durable = ledger.durable.lock().unwrap().clone();
    assert_eq!(durable, *ledger.answered.lock().unwrap(), "answered in the order of the log");
    durable.sort_unstable();
    assert_eq!(durable, (0..THREADS * EACH).collect::<Vec<_>>(), "each once");
    let commits = ledger.commits.load(Ordering::SeqCst);
    assert!(
        (THREADS * EACH / LIMIT as u64..=THREADS * EACH).contains(&commits),
        "{commits} commits"
    );
}

fn a_round_breaks() {
    let group = Arc::new(GroupCommit::new(LIMIT));
    let callers: Vec<_> = (0..THREADS + 1)
        .map(|job| {
            let group = Arc::clone(&group);
            thread::spawn(move || {
                catch_unwind(AssertUnwindSafe(|| {
                    group.submit(job, |jobs: Jobs| {
                        thread::yield_now();
                        for (job, reply) in jobs {
                            // This unwinds like a panic, without the message of a panic in each
                            // schedule.
                            if job == 0 {
                                std::panic::resume_unwind(Box::new("the round breaks"));
                            }
                            reply.send(1);
                        }
                    })
                }))
            })
        })
        .collect();
    let answers: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let (mut broke, mut abandoned) = (0, 0);
    for (job, answer) in answers.iter().enumerate() {
        match answer {
            Err(_) => broke += 1,
            Ok(Err(Abandoned)) => abandoned += 1,
            Ok(answer) => assert_eq!(*answer, Ok(1), "job {job}"),
        }
    }
    assert_eq!(broke, 1, "the caller in whose thread it broke");
    // If another caller led the round that broke, job 0 is one of the abandoned jobs.
    assert!(abandoned < LIMIT, "{abandoned} in a round of {LIMIT}, the leader not counted");
    assert_eq!(
        group.submit(9, |jobs: Jobs| jobs.into_iter().for_each(|(_, reply)| reply.send(7))),
        Ok(7)
    );
}

fn a_round_forgets_its_jobs() {
    let group = Arc::new(GroupCommit::<u64, usize>::new(LIMIT));
    let callers: Vec<_> = (0..THREADS)
        .map(|job| {
            let group = Arc::clone(&group);
            thread::spawn(move || group.submit(job, drop))
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Err(Abandoned));
    }
}

#[test]
fn every_caller_is_answered_once_in_the_order_of_the_log_and_nobody_waits_for_ever() {
    explore("group commit", everyone_is_answered);
}

#[test]
fn a_round_that_panics_is_told_to_its_callers_and_the_others_go_on() {
    explore("a round that panics", a_round_breaks);
}

#[test]
fn callers_whose_round_forgets_them_are_told() {
    explore("a round that forgets", a_round_forgets_its_jobs);
}
