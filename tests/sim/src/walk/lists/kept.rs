//! What a device keeps beside its records, as a book keeps it in tables: the keys of its indexes,
//! and the words of its search.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fieldbook_core::RecordKey;
use fieldbook_core::search::{FieldWord, Fit, SearchRule, asked_words};
use fieldbook_projections::touched;

use super::{Change, Shown, text};
use crate::walk::device::{Device, Log, store};
use crate::walk::law::Broken;
use crate::walk::world::Ground;

/// What a device keeps beside its records.
#[derive(Debug, Clone, Default)]
pub(in crate::walk) struct Kept {
    /// The keys of its indexes.
    pub(super) keys: Rc<BTreeSet<Vec<u8>>>,
    /// The words of its records.
    words: Rc<BTreeMap<RecordKey, Vec<FieldWord>>>,
}

impl Kept {
    /// Changes the keys as a commit does. Returns the new ones.
    pub(super) fn turn_keys(
        &mut self,
        ground: &Ground,
        changes: &[&Change<'_>],
    ) -> Result<Vec<Vec<u8>>, Broken> {
        let keys = Rc::make_mut(&mut self.keys);
        let mut new = Vec::new();
        for Change { key, before, after } in changes {
            let turned = ground.declared.indexes.turned(key, text(*before), text(*after));
            let turned = turned.map_err(|error| Broken::unsound(&error))?;
            for key in &turned.gone {
                keys.remove(key);
            }
            keys.extend(turned.new.iter().cloned());
            new.extend(turned.new);
        }
        Ok(new)
    }

    /// Takes the words of the records that the entries after the first `known` ones touch.
    pub(super) fn take_words(
        &mut self,
        ground: &Ground,
        known: usize,
        device: &Device,
    ) -> Result<(), Broken> {
        let words = Rc::make_mut(&mut self.words);
        for entry in device.log.iter().skip(known) {
            let touched = touched(entry, &Log(&device.log)).map_err(store)?;
            let keys = if touched.all { ground.keys.clone() } else { touched.keys };
            for key in keys {
                let Some(shown) = Shown::of(device, &key) else {
                    words.remove(&key);
                    continue;
                };
                let found = ground.declared.search.words_of(shown.image.as_str());
                words.insert(key, found.map_err(|error| Broken::unsound(&error))?);
            }
        }
        Ok(())
    }

    /// Finds the records that have all asked words, as a search by the kept words does.
    pub(super) fn find(&self, rule: &SearchRule, asked: &str) -> Vec<(String, u64)> {
        let asked = asked_words(asked);
        let points = |asked: &str, words: &[FieldWord]| {
            let fits = words.iter().filter_map(|word| {
                Some(Fit::of(asked, &word.word)?.points() * rule.weight(word.field))
            });
            fits.max()
        };
        let hits = self.words.iter().filter_map(|(key, words)| {
            let points = asked.iter().map(|asked| points(asked, words)).sum::<Option<u64>>()?;
            Some((key.id.as_str().to_owned(), points))
        });
        let mut hits: Vec<_> = hits.collect();
        hits.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        hits
    }
}
