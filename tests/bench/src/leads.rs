//! Leads with as many different words as those of a sales team: about 200,000 in 100,000 leads.

use fieldbook_core::{OpId, Randomness, SeededRandomness, WallTime};
use serde_json::json;

use crate::sample::Sample;

const SEED: u64 = 20_261_130;
const STARTED: WallTime = WallTime::from_milliseconds(1_760_000_000_000);
const BEGINNINGS: [&str; 20] = [
    "mu", "scha", "ko", "san", "bri", "le", "ta", "gro", "fi", "wa", "ne", "cho", "del", "ja",
    "pe", "ri", "su", "vo", "el", "ha",
];
const MIDDLES: [&str; 16] = [
    "ra", "ll", "to", "nde", "mi", "rsch", "ka", "li", "ve", "ngo", "so", "be", "du", "tri", "na",
    "zo",
];
const ENDS: [&str; 14] = [
    "er", "son", "ski", "mann", "es", "o", "ita", "berg", "ova", "in", "dottir", "ez", "ard", "ang",
];
const FORMS: [&str; 6] = ["Ltd", "GmbH", "Inc", "Group", "Partners", "Trading"];

/// The names of a lead, from which queries are made.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) company: String,
}

/// The kinds of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The first four letters of a last name.
    Beginning,
    /// First and last name.
    TwoWords,
    /// A company with two letters in the wrong order.
    Mistake,
}

impl Asked {
    /// Makes the query that finds a lead of these names.
    pub(crate) fn of(self, names: &Names) -> String {
        match self {
            Self::Beginning => names.last.chars().take(4).collect(),
            Self::TwoWords => format!("{} {}", names.first, names.last),
            Self::Mistake => swapped(&names.company),
        }
    }
}

/// Swaps two neighbouring letters that differ, behind the first.
fn swapped(word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let differ = |pair: &[char]| matches!(pair, [one, other] if one != other);
    if let Some(at) =
        (2..letters.len().saturating_sub(1)).find(|at| letters.get(*at..at + 2).is_some_and(differ))
    {
        letters.swap(at, at + 1);
    }
    letters.into_iter().collect()
}

/// Returns the names of a lead by its number. The first names repeat, the companies hardly do.
pub(crate) fn lead_named(number: usize) -> Names {
    let mut random = SeededRandomness::from_number(SEED ^ number as u64);
    let first = word(&mut random, 1);
    let last = word(&mut random, 2);
    Names { first, last, company: word(&mut random, 4) }
}

/// Makes leads, sorted by id.
pub(crate) fn leads(count: usize) -> Vec<Sample> {
    let mut random = SeededRandomness::from_number(SEED);
    (0..count).map(|number| lead(number, &mut random)).collect()
}

fn lead(number: usize, random: &mut SeededRandomness) -> Sample {
    let at = WallTime::from_milliseconds(STARTED.milliseconds() + number as i64);
    let id = OpId::new(at, random).to_string();
    let Names { first, last, company } = lead_named(number);
    let form = pick(&FORMS, random);
    let (phone, city) = (random.below(100_000_000), random.below(400));
    let city = word(&mut SeededRandomness::from_number(city), 2);
    let json = json!({
        "name": format!("{first} {last}"),
        "company": format!("{company} {form}"),
        "email": format!("{first}.{last}@{company}.com"),
        "phone": format!("+62 8{phone:08}"),
        "city": city,
        "stage": "contacted",
        "value": random.below(5_000_000),
        "note": "Met at the fair, asked for an offer; call again next week.",
    });
    Sample { id, json: json.to_string() }
}

fn word(random: &mut SeededRandomness, middles: usize) -> String {
    let mut word = pick(&BEGINNINGS, random).to_owned();
    for _ in 0..middles {
        word.push_str(pick(&MIDDLES, random));
    }
    word + pick(&ENDS, random)
}

fn pick(words: &[&'static str], random: &mut SeededRandomness) -> &'static str {
    let at = usize::try_from(random.below(words.len() as u64)).unwrap_or(0);
    words.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn leads_have_many_different_words_and_are_the_same_every_time() {
        let made = leads(2_000);
        assert!(made.is_sorted_by(|one, other| one.id < other.id));
        assert_eq!(made[1_999].json, leads(2_000)[1_999].json);
        let companies: BTreeSet<_> = (0..2_000).map(|number| lead_named(number).company).collect();
        assert!(companies.len() > 1_900, "{}", companies.len());
    }

    #[test]
    fn a_query_with_a_mistake_differs_from_the_company() {
        for number in 0..500 {
            let names = lead_named(number);
            assert_ne!(Asked::Mistake.of(&names), names.company);
        }
    }
}
