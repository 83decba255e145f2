//! Live lists: what they add to a commit that does not touch them, and how soon a change is told.
//! SQLite has no such lists.

use std::sync::mpsc;

use fieldbook::RecordId;
use fieldbook::query::{IndexPlace, LiveList};
use fieldbook::record::FieldsJson;
use redb::backends::InMemoryBackend;

use crate::fieldbook::Fieldbook;
use crate::figure::{Figure, percentile};
use crate::peer::{CACHE, Failure, Index, Peer};
use crate::race::{Setting, Stopwatch};
use crate::sample::{Sample, Samples};

pub(crate) const NAME: &str = "live lists";
const SEED: u64 = 20_261_122;
/// The rows of the list.
const ROWS: usize = 50;

/// Measures both figures.
pub(crate) fn measure(setting: &Setting) -> Result<Vec<Figure>, Failure> {
    let mut figures = [
        Figure::seconds("live list, what it adds to a commit that does not touch it", Some(1e-6)),
        Figure::seconds(
            "live list of 50, from the end of a write in it until it is told, 99 of 100 within",
            Some(0.002),
        ),
    ];
    if "fieldbook".contains(&setting.peer) {
        let [added, told] = &mut figures;
        (added.fieldbook, added.note) = added_to_a_commit(setting)?;
        (told.fieldbook, told.note) = until_told(setting)?;
    }
    Ok(figures.into())
}

/// Fills a book as if the records had been pulled, so that no row of the list has pending ops.
fn fill(peer: &mut Fieldbook, records: &[Sample]) -> Result<(), Failure> {
    for (page, cursor) in records.chunks(5_000).zip(1..) {
        peer.ready_page(page, cursor)?;
        peer.apply(page, cursor)?;
    }
    Ok(())
}

fn list(peer: &Fieldbook, after: Option<&IndexPlace>) -> Result<LiveList<FieldsJson>, Failure> {
    let list = peer.book.records().query(&peer.leads, "by_stage").eq("new").reversed();
    Ok(list.after(after).limit(ROWS).live()?)
}

/// Returns the difference of the medians of a write with a live list and without one, in memory,
/// and both of them.
fn added_to_a_commit(setting: &Setting) -> Result<(Option<f64>, Option<String>), Failure> {
    let mut samples = Samples::new(SEED);
    let records = samples.take(setting.scaled(10_000));
    let mut books = [
        Fieldbook::on_backend(InMemoryBackend::new())?,
        Fieldbook::on_backend(InMemoryBackend::new())?,
    ];
    for book in &mut books {
        fill(book, &records)?;
    }
    let [with, without] = &mut books;
    let mut live = list(with, None)?;
    live.take_change()?;
    let mut seconds = [Vec::new(), Vec::new()];
    for number in 0..setting.scaled(20_000) {
        let record = Sample { json: r#"{"stage":"won","value":1}"#.to_owned(), ..samples.one() };
        // They take turns to go first.
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for place in order {
            let book: &mut Fieldbook = if place == 0 { &mut *with } else { &mut *without };
            book.ready(std::slice::from_ref(&record))?;
            let watch = Stopwatch::start();
            book.write(&record)?;
            let time = watch.read().as_secs_f64();
            if let Some(times) = seconds.get_mut(place) {
                times.push(time);
            }
        }
    }
    if live.take_change()?.is_some() {
        return Err(Failure::Wrong { peer: "fieldbook", what: "told of what is not in the list" });
    }
    let [with, without] = seconds.map(|times| percentile(times, 50));
    let note = with.zip(without).map(|(with, without)| {
        let [with, without] = [with, without].map(crate::report::duration);
        format!("the difference of the medians {with} and {without}, in memory")
    });
    Ok((with.zip(without).map(|(with, without)| (with - without).max(0.0)), note))
}

/// Returns the time from the return of a durable write of a row until another thread has the change
/// of the list, which 99 of 100 changes do not exceed, and the time with the write. Each row of a
/// list is changed once, then the list of the following rows has its turn.
fn until_told(setting: &Setting) -> Result<(Option<f64>, Option<String>), Failure> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&setting.folder)?;
    let records = Samples::new(SEED).take(setting.scaled(100_000));
    let mut peer = Fieldbook::open(folder.path(), CACHE, Index::Built)?;
    fill(&mut peer, &records)?;
    let (mut times, mut place) = (Times::default(), None);
    for _ in 0..setting.scaled(40) {
        let mut live = list(&peer, place.as_ref())?;
        let first = live.take_change()?.ok_or(TELLS_NOTHING)?;
        place = first.next;
        let rows: Vec<_> = first.items.into_iter().map(|row| row.id).collect();
        change_each(&peer, live, &rows, &mut times)?;
    }
    let of = |share| percentile(times.with_write.clone(), share).map(crate::report::duration);
    let note = of(50).zip(of(99)).map(|(median, slow)| {
        format!("with the write {median} in the median, and 99 of 100 within {slow}")
    });
    Ok((percentile(times.after_write, 99), note))
}

/// How long it took until changes were told, in seconds.
#[derive(Default)]
struct Times {
    after_write: Vec<f64>,
    with_write: Vec<f64>,
}

/// Changes each of these rows, and waits each time until another thread has the change of the list.
fn change_each(
    peer: &Fieldbook,
    mut live: LiveList<FieldsJson>,
    rows: &[RecordId],
    times: &mut Times,
) -> Result<(), Failure> {
    let (told, is_told) = mpsc::channel();
    let changes = rows.len();
    let follower = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        for _ in 0..changes {
            let change = runtime.block_on(live.changed())?;
            if change.is_none() || told.send(()).is_err() {
                break;
            }
        }
        Ok::<_, Failure>(())
    });
    for row in rows {
        let fields = FieldsJson::parse(r#"{"note":"called"}"#)?;
        let key = peer.key(row.as_str())?;
        let watch = Stopwatch::start();
        peer.book.records().update(key, fields)?;
        let written = watch.read();
        is_told.recv().map_err(|_| TELLS_NOTHING)?;
        let told = watch.read();
        times.after_write.push((told - written).as_secs_f64());
        times.with_write.push(told.as_secs_f64());
    }
    follower.join().map_err(|_| Failure::Wrong { peer: "fieldbook", what: "panicked" })?
}

const TELLS_NOTHING: Failure = Failure::Wrong { peer: "fieldbook", what: "tells nothing" };
