//! How well a word of a record fits a word that somebody asks for.
//!
//! | fit | of a word that | points |
//! |---|---|---|
//! | same | is the word | 10 |
//! | beginning | begins with it | 8 |
//! | part | contains it, if it has three letters | 6 |
//! | mistake | is spelled nearly like it | 4 |
//!
//! A mistake counts only if no record fits in another way: [`super`] has the order.

/// How a word of a record fits an asked word, from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// The record's word is spelled nearly like the asked word.
    Mistake,
    /// The record's word contains the asked word.
    Part,
    /// The record's word begins with the asked word.
    Beginning,
    /// The record's word is the asked word.
    Same,
}

/// The fewest letters of a word that is looked for within words.
pub const PART_LETTERS: usize = 3;

impl Fit {
    /// Returns the points, to be multiplied with the weight of the field.
    pub const fn points(self) -> u64 {
        match self {
            Self::Same => 10,
            Self::Beginning => 8,
            Self::Part => 6,
            Self::Mistake => 4,
        }
    }

    /// Returns how a word fits, mistakes aside.
    pub fn of(asked: &str, word: &str) -> Option<Self> {
        if word == asked {
            Some(Self::Same)
        } else if word.starts_with(asked) {
            Some(Self::Beginning)
        } else {
            let is_long = asked.chars().nth(PART_LETTERS - 1).is_some();
            (is_long && word.contains(asked)).then_some(Self::Part)
        }
    }
}

/// Returns how many mistakes a word may have: none below four letters, one below eight, else two.
pub fn mistakes_of(asked: &str) -> usize {
    match asked.chars().count() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}

/// Returns whether a word has at most so many mistakes: a letter too many, a letter missing,
/// another letter, or two neighbours that changed places. `asked` are the letters of the word.
pub fn is_near(asked: &[char], word: &str, mistakes: usize) -> bool {
    Near::of(asked.to_vec(), mistakes).is_near(word)
}

/// Compares many words with an asked one, as [`is_near`] does.
#[derive(Debug, Clone)]
pub struct Near {
    asked: Vec<char>,
    mistakes: usize,
    word: Vec<char>,
    /// Rows of the table of distances between the beginnings of both words: the one before the
    /// last, the last, and the one that is made. Cells further from the diagonal than the mistakes
    /// are not filled in.
    rows: [Vec<usize>; 3],
}

impl Near {
    /// Makes a comparison with an asked word.
    pub fn new(asked: &str, mistakes: usize) -> Self {
        Self::of(asked.chars().collect(), mistakes)
    }

    fn of(asked: Vec<char>, mistakes: usize) -> Self {
        Self { asked, mistakes, word: Vec::new(), rows: [const { Vec::new() }; 3] }
    }

    /// Returns whether a word has at most so many mistakes.
    pub fn is_near(&mut self, word: &str) -> bool {
        let most = self.mistakes;
        let shortest = self.asked.len().saturating_sub(most);
        // A letter has one to four bytes.
        if word.len() < shortest || word.len() > 4 * (self.asked.len() + most) {
            return false;
        }
        self.word.clear();
        self.word.extend(word.chars());
        if self.word.len().abs_diff(self.asked.len()) > most {
            return false;
        }
        for row in &mut self.rows {
            row.clear();
            row.resize(self.word.len() + 1, most + 1);
        }
        let [_, first, _] = &mut self.rows;
        first.iter_mut().zip(0..=most).for_each(|(cell, distance)| *cell = distance);
        (1..=self.asked.len()).all(|at| self.fill(at))
            && self.rows[1].last().is_some_and(|distance| *distance <= most)
    }

    /// Fills in the row of so many asked letters. Returns whether a cell of it is small enough.
    fn fill(&mut self, asked: usize) -> bool {
        let Self { asked: letters, mistakes, word, rows: [before, last, row] } = self;
        let (from, to) = (asked.saturating_sub(*mistakes), (asked + *mistakes).min(word.len()));
        let letter = letters.get(asked - 1);
        let former = asked.checked_sub(2).and_then(|at| letters.get(at));
        let of = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
        let (mut left, mut any) = (*mistakes + 1, false);
        if let Some(cell) = from.checked_sub(1).and_then(|at| row.get_mut(at)) {
            *cell = left;
        }
        for at in from..=to {
            let least = match at.checked_sub(1) {
                None => asked,
                Some(back) => {
                    let here = word.get(back);
                    let changed = of(last, back) + usize::from(here != letter);
                    let turned = back > 0 && here == former && word.get(back - 1) == letter;
                    let turned = if turned { of(before, back - 1) + 1 } else { usize::MAX };
                    changed.min(left + 1).min(of(last, at) + 1).min(turned)
                }
            };
            if let Some(cell) = row.get_mut(at) {
                *cell = least;
            }
            left = least;
            any |= least <= *mistakes;
        }
        if let Some(cell) = row.get_mut(to + 1) {
            *cell = *mistakes + 1;
        }
        self.rows.rotate_left(1);
        any
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(asked: &str, word: &str) -> bool {
        is_near(&asked.chars().collect::<Vec<_>>(), word, mistakes_of(asked))
    }

    #[test]
    fn a_word_fits_as_itself_a_beginning_a_part_or_with_few_mistakes() {
        assert_eq!(Fit::of("ann", "ann"), Some(Fit::Same));
        assert_eq!(Fit::of("an", "ann"), Some(Fit::Beginning));
        assert_eq!(Fit::of("nna", "hanna"), Some(Fit::Part));
        assert_eq!(Fit::of("na", "hanna"), None, "too short for a part");
        assert_eq!(Fit::of("hanna", "hana"), None);
        for (asked, word) in [("hanna", "hana"), ("hanna", "hnana"), ("jakrata", "jakarta")] {
            assert!(near(asked, word), "{asked} {word}");
        }
        assert!(near("askrndoo", "askrindo") && !near("askrndoo", "askrind"));
        assert!(!near("ann", "anna"), "a short word has no mistakes");
        assert!(!near("hanna", "hans"));
    }

    /// The distance by its definition.
    fn distance(one: &[char], other: &[char]) -> usize {
        match (one, other) {
            ([], rest) | (rest, []) => rest.len(),
            ([.., a, b], [.., c, d]) => {
                let (one_less, other_less) = (&one[..one.len() - 1], &other[..other.len() - 1]);
                let changed = distance(one_less, other_less) + usize::from(b != d);
                let mut least = changed.min(distance(one_less, other) + 1);
                least = least.min(distance(one, other_less) + 1);
                if a == d && b == c {
                    let (one, other) = (&one[..one.len() - 2], &other[..other.len() - 2]);
                    least = least.min(distance(one, other) + 1);
                }
                least
            }
            ([.., b], [.., d]) => {
                let (one_less, other_less) = (&one[..one.len() - 1], &other[..other.len() - 1]);
                let changed = distance(one_less, other_less) + usize::from(b != d);
                changed.min(distance(one_less, other) + 1).min(distance(one, other_less) + 1)
            }
        }
    }

    proptest! {
        #[test]
        fn mistakes_are_counted_as_they_are_defined(
            one in "[abc]{0,6}", other in "[abc]{0,6}", mistakes in 0..4_usize
        ) {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let wanted = distance(&letters(&one), &letters(&other)) <= mistakes;
            prop_assert_eq!(is_near(&letters(&one), &other, mistakes), wanted);
        }
    }
}
