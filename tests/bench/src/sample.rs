//! The records that every peer writes: about 300 bytes of JSON under a UUIDv7, the same in every
//! run.

use fieldbook_core::{OpId, Randomness, SeededRandomness, WallTime};
use serde_json::json;

const FIRST_NAMES: [&str; 8] = ["Ada", "Bela", "Chidi", "Dana", "Emre", "Fatou", "Goran", "Hana"];
const LAST_NAMES: [&str; 8] =
    ["Almeida", "Berg", "Castro", "Dube", "Eriksen", "Fofana", "Galli", "Horvat"];
const STAGES: [&str; 6] = ["new", "contacted", "qualified", "proposal", "won", "lost"];
const CITIES: [&str; 6] = ["Lisbon", "Tartu", "Accra", "Cusco", "Da Nang", "Leeds"];
const STARTED: WallTime = WallTime::from_milliseconds(1_760_000_000_000);

/// One record.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) id: String,
    pub(crate) json: String,
}

/// One step of a history: a whole image the first time a record appears, then patches.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) creates: bool,
    pub(crate) json: String,
}

/// Makes samples and histories from one seed.
pub(crate) struct Samples {
    random: SeededRandomness,
    made: u32,
}

impl Samples {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: SeededRandomness::from_number(seed), made: 0 }
    }

    /// Draws a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap_or(0)
    }

    /// Makes the next record. Ids grow, one millisecond apart, so the order by id is the order of
    /// making.
    pub(crate) fn one(&mut self) -> Sample {
        self.made += 1;
        let at = WallTime::from_milliseconds(STARTED.milliseconds() + i64::from(self.made));
        let id = OpId::new(at, &mut self.random).to_string();
        Sample { id, json: self.image() }
    }

    /// Makes the next `count` records, sorted by id.
    pub(crate) fn take(&mut self, count: usize) -> Vec<Sample> {
        (0..count).map(|_| self.one()).collect()
    }

    /// Picks ids at random among records.
    pub(crate) fn pick<'a>(&mut self, records: &'a [Sample], count: usize) -> Vec<&'a str> {
        (0..count)
            .filter_map(|_| records.get(self.below(records.len())))
            .map(|r| r.id.as_str())
            .collect()
    }

    /// Draws a stage, and a value that at least half of the records do not exceed.
    pub(crate) fn stage_and_value(&mut self) -> (&'static str, usize) {
        (self.word(&STAGES), 2_500_000 + self.below(2_500_000))
    }

    fn image(&mut self) -> String {
        let first = self.word(&FIRST_NAMES);
        let last = self.word(&LAST_NAMES);
        let number = self.below(1_000_000);
        json!({
            "name": format!("{first} {last}"),
            "email": format!("{}.{}.{number}@example.com", first.to_lowercase(), last.to_lowercase()),
            "phone": format!("+00 555 {number:06}"),
            "city": self.word(&CITIES),
            "stage": self.word(&STAGES),
            "value": self.below(5_000_000),
            "owner": format!("rep-{:03}", self.below(300)),
            "tags": [self.word(&STAGES), self.word(&CITIES)],
            "note": format!("Met at the fair, asked for an offer of {} units; call again next week.", self.below(900)),
            "updated_at": WallTime::from_milliseconds(STARTED.milliseconds() + i64::from(self.made)).to_string(),
        })
        .to_string()
    }

    fn patch(&mut self) -> String {
        let mut patch = json!({ "stage": self.word(&STAGES), "value": self.below(5_000_000) });
        if self.below(4) == 0
            && let Some(fields) = patch.as_object_mut()
        {
            fields.insert(
                "note".to_owned(),
                json!(format!("Called, offer number {} sent.", self.below(900))),
            );
        }
        patch.to_string()
    }

    fn word(&mut self, words: &[&'static str]) -> &'static str {
        words.get(self.below(words.len())).copied().unwrap_or_default()
    }
}

/// A history of `events` steps over a tenth as many records: each record is created, then patched
/// at random moments.
pub(crate) struct History {
    samples: Samples,
    ids: Vec<String>,
    records: usize,
    left: usize,
}

impl History {
    pub(crate) fn new(seed: u64, events: usize) -> Self {
        Self { samples: Samples::new(seed), ids: Vec::new(), records: events / 10, left: events }
    }
}

impl Iterator for History {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        let missing = self.records - self.ids.len();
        // Creates are spread so that the last creates come near the end, as in a book in use.
        if self.ids.is_empty() || self.samples.below(self.left + 1) < missing {
            let Sample { id, json } = self.samples.one();
            self.ids.push(id.clone());
            return Some(Event { id, creates: true, json });
        }
        let id = self.ids.get(self.samples.below(self.ids.len())).cloned()?;
        Some(Event { id, creates: false, json: self.samples.patch() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_about_300_bytes_and_sorted_and_the_same_every_time() {
        let records = Samples::new(7).take(1_000);
        let bytes: usize = records.iter().map(|record| record.json.len()).sum();
        assert!(
            (270..=330).contains(&(bytes / records.len())),
            "{} bytes on average",
            bytes / records.len()
        );
        assert!(records.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(records[999].json, Samples::new(7).take(1_000)[999].json);
    }

    #[test]
    fn a_history_creates_every_record_before_it_patches_it() {
        let mut seen = std::collections::HashSet::new();
        for event in History::new(3, 5_000) {
            assert_eq!(event.creates, seen.insert(event.id));
        }
        assert_eq!(seen.len(), 500);
    }
}
