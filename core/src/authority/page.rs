//! The page: what changed after a device's cursors, over all entity types, in the order of commits.
//!
//! A cursor is the number of the last commit whose changes of that entity type were read: eight bytes, big-endian. Devices
//! take it as opaque.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{AuthorityRead, ExchangeError, FeedItem, Quota, Refusal};
use crate::names::{EntityType, RecordKey};
use crate::numbers::{Cursor, Version};
use crate::protocol::{Change, ExchangeRequest};

/// What one answer brings of the feed.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) changes: Vec<Change>,
    pub(super) cursors: BTreeMap<EntityType, Cursor>,
    pub(super) more: bool,
}

/// Returns the commit that a cursor names.
pub(super) fn position(cursor: &Cursor) -> Result<Version, Refusal> {
    let bytes = cursor.as_bytes().try_into().map_err(|_| Refusal::bad_cursor())?;
    Ok(Version::new(u64::from_be_bytes(bytes)))
}

fn cursor(commit: Version) -> Result<Cursor, Refusal> {
    Cursor::new(commit.number().to_be_bytes().to_vec()).map_err(|_| Refusal::bad_cursor())
}

/// Reads a page. Records that are as the request's own units left them (`own`) are passed over.
pub(super) fn read<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    quota: &Quota,
    own: &BTreeMap<RecordKey, Version>,
) -> Result<Page, ExchangeError<S::Error>> {
    let mut page = Page::default();
    let limit = usize::try_from(request.page_limit.min(quota.page_changes)).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(page);
    }
    let entities = state.entities().map_err(ExchangeError::State)?;
    let mut feeds = Vec::with_capacity(entities.len());
    for entity in &entities {
        let after = request.cursors.get(entity).map_or(Ok(Version::default()), position)?;
        feeds.push((entity, state.feed(entity, after).map_err(ExchangeError::State)?));
    }
    let mut merged = Merged::start(&mut feeds).map_err(ExchangeError::State)?;
    let (mut bytes, mut commit) = (0, Version::default());
    let mut positions = BTreeMap::new();
    while let Some(next) = merged.commit() {
        if next != commit && (page.changes.len() >= limit || bytes >= quota.page_bytes) {
            page.more = true;
            break;
        }
        commit = next;
        let Some((entity, FeedItem { id, row })) = merged.next().map_err(ExchangeError::State)? else {
            break;
        };
        positions.insert(entity, commit);
        let key = RecordKey::new(entity.clone(), id);
        if own.get(&key) != Some(&row.version) {
            bytes += row.size(&key);
            page.changes.push(row.into_change(key));
        }
    }
    for (entity, commit) in positions {
        page.cursors.insert(entity.clone(), cursor(commit)?);
    }
    Ok(page)
}

/// The feeds of several entity types as one, in the order of commits.
struct Merged<'a, 'e, I> {
    feeds: &'a mut [(&'e EntityType, I)],
    /// The next item of each feed that has one.
    heads: BinaryHeap<Reverse<Head>>,
}

impl<'a, 'e, E, I: Iterator<Item = Result<FeedItem, E>>> Merged<'a, 'e, I> {
    fn start(feeds: &'a mut [(&'e EntityType, I)]) -> Result<Self, E> {
        let mut merged = Self { heads: BinaryHeap::with_capacity(feeds.len()), feeds };
        for feed in 0..merged.feeds.len() {
            merged.advance(feed)?;
        }
        Ok(merged)
    }

    /// Returns the commit of the next item.
    fn commit(&self) -> Option<Version> {
        self.heads.peek().map(|Reverse(head)| head.item.row.version)
    }

    fn next(&mut self) -> Result<Option<(&'e EntityType, FeedItem)>, E> {
        let Some(Reverse(head)) = self.heads.pop() else { return Ok(None) };
        self.advance(head.feed)?;
        Ok(self.feeds.get(head.feed).map(|(entity, _)| (*entity, head.item)))
    }

    fn advance(&mut self, feed: usize) -> Result<(), E> {
        if let Some(item) = self.feeds.get_mut(feed).and_then(|(_, items)| items.next()) {
            self.heads.push(Reverse(Head { item: item?, feed }));
        }
        Ok(())
    }
}

/// The next item of one feed, ordered by its place.
struct Head {
    item: FeedItem,
    feed: usize,
}

impl Head {
    const fn place(&self) -> (Version, u32) {
        (self.item.row.version, self.item.row.index)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}
