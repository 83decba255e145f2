//! Blocks of the dictionary: a run of neighbouring words, with their postings.
//!
//! ```text
//!   bytes of the words │ word 0 word 0 … │ for each word: bytes of its postings, postings
//! ```
//!
//! The words stand side by side, each with a 0 behind it, so that one pass over the bytes finds a
//! part of any of them. A word with no postings here has them in rows of their own.

use fieldbook_core::log::StoreError;
use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};

use super::damaged;
use super::packed::{put_bytes, take_bytes};

/// The most bytes of a block. Then it is cut in two. A page of the file has room for one such block
/// with its key, or for several smaller ones.
const BLOCK_BYTES: usize = 3_600;

/// A word of a block. Its postings are none if they are in rows of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'b> {
    pub(super) text: &'b [u8],
    /// Its list of postings.
    pub(super) near: Option<&'b [u8]>,
}

/// A block as it is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Block<'b> {
    /// The words, each with a 0 behind it.
    texts: &'b [u8],
    lists: &'b [u8],
}

impl<'b> Block<'b> {
    /// Reads a block.
    pub(super) fn read(mut bytes: &'b [u8]) -> Result<Self, StoreError> {
        let texts = take_bytes(&mut bytes)?;
        Ok(Self { texts, lists: bytes })
    }

    /// Returns the words in order.
    pub(super) fn words(self) -> impl Iterator<Item = Result<Word<'b>, StoreError>> {
        let (mut texts, mut lists) = (self.texts, self.lists);
        std::iter::from_fn(move || {
            let end = memchr(0, texts)?;
            let (text, rest) = texts.split_at(end);
            texts = rest.get(1..).unwrap_or_default();
            Some(take_bytes(&mut lists).map(|list| Word::new(text, list)))
        })
    }

    /// Passes the words that contain a text to `read`, in order. The bytes of all words are searched
    /// in one pass, and only the lists of postings before a found word are passed over.
    pub(super) fn words_with(
        self,
        part: &Finder<'_>,
        mut read: impl FnMut(Word<'b>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (mut texts, mut lists) = (self.texts, self.lists);
        while let Some(at) = part.find(texts) {
            let before = texts.get(..at).unwrap_or_default();
            let from = memrchr(0, before).map_or(0, |last| last + 1);
            let to = at + memchr(0, texts.get(at..).unwrap_or_default()).ok_or_else(damaged)?;
            for _ in 0..memchr_iter(0, before).count() {
                take_bytes(&mut lists)?;
            }
            read(Word::new(texts.get(from..to).unwrap_or_default(), take_bytes(&mut lists)?))?;
            texts = texts.get(to + 1..).unwrap_or_default();
        }
        Ok(())
    }
}

impl<'b> Word<'b> {
    fn new(text: &'b [u8], list: &'b [u8]) -> Self {
        Self { text, near: Some(list).filter(|list| !list.is_empty()) }
    }

    /// Returns the word as text.
    pub(super) fn as_str(&self) -> Result<&'b str, StoreError> {
        std::str::from_utf8(self.text).map_err(|_| damaged())
    }
}

/// A block with its first word before it.
pub(super) type Named = (Vec<u8>, Vec<u8>);

/// Words that become blocks.
#[derive(Debug, Default)]
pub(super) struct Building {
    texts: Vec<u8>,
    lists: Vec<u8>,
}

impl Building {
    /// Adds the next word, in order, with its list of postings; none if it is in rows of its own.
    pub(super) fn push(&mut self, text: &[u8], near: Option<&[u8]>) {
        self.texts.extend_from_slice(text);
        self.texts.push(0);
        put_bytes(near.unwrap_or_default(), &mut self.lists);
    }

    /// Adds the words of a block.
    pub(super) fn copy(&mut self, block: Block<'_>) {
        self.texts.extend_from_slice(block.texts);
        self.lists.extend_from_slice(block.lists);
    }

    /// Takes the words before a word off a block and adds them. Takes the word itself off too, and
    /// returns it.
    pub(super) fn copy_before<'b>(
        &mut self,
        block: &mut Block<'b>,
        word: &[u8],
    ) -> Result<Option<Word<'b>>, StoreError> {
        let (mut texts, mut lists) = (block.texts, block.lists);
        let mut found = None;
        let (mut to_text, mut to_list) = (0, 0);
        while let Some(end) = memchr(0, texts) {
            let (text, rest) = texts.split_at(end);
            if text > word {
                break;
            }
            let list = take_bytes(&mut lists)?;
            texts = rest.get(1..).unwrap_or_default();
            if text == word {
                found = Some(Word::new(text, list));
                break;
            }
            to_text = block.texts.len() - texts.len();
            to_list = block.lists.len() - lists.len();
        }
        self.texts.extend_from_slice(block.texts.get(..to_text).unwrap_or_default());
        self.lists.extend_from_slice(block.lists.get(..to_list).unwrap_or_default());
        *block = Block { texts, lists };
        Ok(found)
    }

    /// Returns the blocks with the first word of each, as few as are needed, of about the same size.
    pub(super) fn finish(self) -> Result<Vec<Named>, StoreError> {
        let bytes = self.bytes();
        let pieces = bytes.div_ceil(BLOCK_BYTES);
        let mut blocks = Vec::with_capacity(pieces);
        if pieces <= 1 {
            blocks.extend(self.stored());
            return Ok(blocks);
        }
        let mut piece = Self::default();
        for word in self.as_block().words() {
            let Word { text, near } = word?;
            piece.push(text, near);
            if piece.bytes() * pieces >= bytes {
                blocks.extend(std::mem::take(&mut piece).stored());
            }
        }
        blocks.extend(piece.stored());
        Ok(blocks)
    }

    const fn bytes(&self) -> usize {
        self.texts.len() + self.lists.len()
    }

    /// Returns the words as one block, with the first of them; none if there are none.
    fn stored(&self) -> Option<Named> {
        let first = self.texts.get(..memchr(0, &self.texts)?)?.to_vec();
        let mut block = Vec::with_capacity(self.bytes() + 2);
        put_bytes(&self.texts, &mut block);
        block.extend_from_slice(&self.lists);
        Some((first, block))
    }

    fn as_block(&self) -> Block<'_> {
        Block { texts: &self.texts, lists: &self.lists }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn words_are_read_back_from_their_blocks(
            words in prop::collection::btree_map("[a-c京]{1,12}", prop::collection::vec(1..9_u8, 0..40), 0..400)
        ) {
            let mut building = Building::default();
            for (word, list) in &words {
                building.push(word.as_bytes(), Some(list.as_slice()).filter(|list| !list.is_empty()));
            }
            let blocks = building.finish().unwrap();
            let mut all = Vec::new();
            for (first, bytes) in &blocks {
                prop_assert!(bytes.len() <= 2 * BLOCK_BYTES);
                let block = Block::read(bytes).unwrap();
                let of_block: Vec<_> = block.words().map(Result::unwrap).collect();
                prop_assert_eq!(of_block[0].text, first.as_slice());
                let (finder, mut with) = (Finder::new("ab"), Vec::new());
                let read = |word| {
                    with.push(word);
                    Ok(())
                };
                block.words_with(&finder, read).unwrap();
                let wanted = of_block.iter().filter(|word| finder.find(word.text).is_some());
                prop_assert_eq!(with, wanted.copied().collect::<Vec<_>>());
                all.extend(of_block.iter().map(|word| {
                    (word.as_str().unwrap().to_owned(), word.near.unwrap_or_default().to_vec())
                }));
            }
            prop_assert_eq!(all, words.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_words_are_no_block_and_cut_bytes_are_damage() {
        assert!(Building::default().finish().unwrap().is_empty());
        let mut building = Building::default();
        building.push(b"ann", Some(&[7]));
        let (_, block) = building.finish().unwrap().remove(0);
        assert!(Block::read(&block[..2]).is_err());
        let cut = Block::read(&block[..block.len() - 1]).unwrap();
        assert!(cut.words().next().unwrap().is_err());
    }
}
