//! Numbers and lists of postings as bytes.
//!
//! A posting is one number: that of the record, and in its last four bits the place of the field.
//! A list has its first posting and then the steps between neighbours, each as a number of seven
//! bits a byte, the lowest first. A step of a frequent word takes one or two bytes.

use fieldbook_core::limits;
use fieldbook_core::log::StoreError;

use super::damaged;

/// A record's number with the place of a field.
pub(super) type Posting = u64;

/// The bits of a posting that have the place of the field.
const FIELD_BITS: u32 = 4;
const _: () = assert!(limits::SEARCH_FIELDS <= 1 << FIELD_BITS, "a field's place fits its bits");
/// The bits of one byte of a number.
const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

/// Returns the posting of a record's word in a field.
pub(super) const fn posting(number: u64, field: u8) -> Posting {
    (number << FIELD_BITS) | field as u64
}

/// Returns the number of the record of a posting.
pub(super) const fn number_of(posting: Posting) -> u64 {
    posting >> FIELD_BITS
}

/// Returns the place of the field of a posting.
pub(super) const fn field_of(posting: Posting) -> u8 {
    (posting & ((1 << FIELD_BITS) - 1)).to_le_bytes()[0]
}

/// Appends a number.
pub(super) fn put_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= u64::from(MORE) {
        bytes.push(MORE | number.to_le_bytes()[0]);
        number >>= BITS;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Takes a number off the beginning.
pub(super) fn take_number(bytes: &mut &[u8]) -> Result<u64, StoreError> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().ok_or_else(damaged)?;
        *bytes = rest;
        let part = u64::from(byte & !MORE);
        if shift >= u64::BITS || (part << shift) >> shift != part {
            return Err(damaged());
        }
        number |= part << shift;
        if byte & MORE == 0 {
            return Ok(number);
        }
        shift += BITS;
    }
}

/// Takes so many bytes off the beginning, of which the length comes first.
pub(super) fn take_bytes<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], StoreError> {
    let length = usize::try_from(take_number(bytes)?).map_err(|_| damaged())?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(taken)
}

/// Appends bytes with their length before them.
pub(super) fn put_bytes(part: &[u8], bytes: &mut Vec<u8>) {
    put_number(part.len() as u64, bytes);
    bytes.extend_from_slice(part);
}

/// Makes a list of ascending postings.
pub(super) fn to_list(postings: &[Posting]) -> Vec<u8> {
    let (mut bytes, mut before) = (Vec::with_capacity(postings.len() * 2), 0);
    for posting in postings {
        put_number(posting - before, &mut bytes);
        before = *posting;
    }
    bytes
}

/// Appends the postings of a list.
pub(super) fn read_list(mut list: &[u8], postings: &mut Vec<Posting>) -> Result<(), StoreError> {
    let mut before: Posting = 0;
    while !list.is_empty() {
        before = before.checked_add(take_number(&mut list)?).ok_or_else(damaged)?;
        postings.push(before);
    }
    Ok(())
}

/// Adds postings to a sorted list, or takes them away. The changes are sorted too.
pub(super) fn change(postings: &mut Vec<Posting>, changes: impl Iterator<Item = (Posting, bool)>) {
    let before = std::mem::take(postings);
    let mut before = before.into_iter().peekable();
    for (changed, is_there) in changes {
        postings.extend(std::iter::from_fn(|| before.next_if(|posting| *posting < changed)));
        before.next_if_eq(&changed);
        if is_there {
            postings.push(changed);
        }
    }
    postings.extend(before);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_posting_has_its_number_and_its_field() {
        let made = posting(9_000_000_000, 15);
        assert_eq!((number_of(made), field_of(made)), (9_000_000_000, 15));
        assert!(posting(1, 15) < posting(2, 0));
    }

    #[test]
    fn bytes_that_are_no_number_are_damage() {
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0x80; 11]] {
            assert!(take_number(&mut &*bytes).is_err(), "{bytes:?}");
        }
        assert!(take_bytes(&mut &[3, 1, 2][..]).is_err());
    }

    proptest! {
        #[test]
        fn a_list_is_read_back(postings in prop::collection::btree_set(any::<u64>(), 0..50)) {
            let postings: Vec<_> = postings.into_iter().collect();
            let mut read = Vec::new();
            read_list(&to_list(&postings), &mut read).unwrap();
            prop_assert_eq!(read, postings);
        }

        #[test]
        fn a_changed_list_is_what_a_set_would_be(
            before in prop::collection::btree_set(0..60_u64, 0..40),
            changes in prop::collection::btree_map(0..60_u64, any::<bool>(), 0..40),
        ) {
            let mut list: Vec<_> = before.iter().copied().collect();
            change(&mut list, changes.iter().map(|(posting, is_there)| (*posting, *is_there)));
            let all: BTreeMap<u64, bool> =
                before.into_iter().map(|posting| (posting, true)).chain(changes).collect();
            let wanted: BTreeSet<u64> =
                all.into_iter().filter(|(_, is_there)| *is_there).map(|(at, _)| at).collect();
            prop_assert_eq!(list, wanted.into_iter().collect::<Vec<_>>());
        }
    }
}
