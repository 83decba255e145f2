//! The page: the changes after a device's cursors, over all entity types, in the order of commits.
//!
//! A cursor is the number of the last commit whose changes of that entity type were read: eight
//! bytes, big-endian. Its bytes are opaque to devices.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{AuthorityRead, ExchangeError, FeedItem, Quota, Refusal};
use crate::limits;
use crate::names::{EntityType, RecordKey};
use crate::numbers::{Cursor, Version};
use crate::protocol::{Change, ExchangeRequest, RecordSize};

/// The part of an answer that describes the feed, without the changes.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) cursors: BTreeMap<EntityType, Cursor>,
    pub(super) others: Option<Cursor>,
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

/// Reads a page and passes each change to `take` at once, so that the changes are not in memory
/// together. It skips records that the request's own units (`own`) left in their present state.
pub(super) fn read<S: AuthorityRead>(
    state: &S,
    request: &ExchangeRequest,
    quota: &Quota,
    own: &BTreeMap<RecordKey, Version>,
    mut take: impl FnMut(Change),
) -> Result<Page, ExchangeError<S::Error>> {
    let mut page = Page::default();
    let limit = usize::try_from(request.page_limit.min(quota.page_changes)).unwrap_or(usize::MAX);
    if limit == 0 {
        // Nothing was read, so a request for a page has to be repeated.
        page.more = request.page_limit > 0;
        return Ok(page);
    }
    let others = match &request.others {
        Some(cursor) if !cursor.as_bytes().is_empty() => position(cursor)?,
        _ => Version::default(),
    };
    // Only feeds with changes are opened: a tenant may have a thousand entity types.
    let mut earliest = others;
    for place in request.cursors.values() {
        earliest = earliest.min(position(place)?);
    }
    let entities = state.entities_after(earliest).map_err(ExchangeError::State)?;
    let open = |state, entity, from| S::feed(state, entity, from);
    let mut merged = Merged::new(state, open, entities.len());
    for entity in &entities {
        let after = request.cursors.get(entity).map_or(Ok(others), position)?;
        merged.begin(entity, after).map_err(ExchangeError::State)?;
    }
    let (mut count, mut size, mut commit) = (0, RecordSize::default(), Version::default());
    let mut positions = BTreeMap::new();
    while let Some(next) = merged.commit() {
        let is_full = count >= limit || is_full(size, quota);
        if next != commit && is_full {
            page.more = true;
            break;
        }
        commit = next;
        let Some((entity, FeedItem { id, row })) = merged.next().map_err(ExchangeError::State)?
        else {
            break;
        };
        positions.insert(entity, commit);
        let key = RecordKey::new(entity.clone(), id);
        if own.get(&key) != Some(&row.version) {
            let mut change = row.into_change(key);
            let with = size + change.size();
            if is_full && is_over(with, quota) {
                // Only a commit from before the stamps were counted is that large. A record without
                // the stamps can be read.
                change.older.clear();
            }
            count += 1;
            size += change.size();
            take(change);
        }
    }
    if request.others.is_some() {
        // The feeds are merged in the order of commits, so all of them were read up to the end of
        // the page.
        let read_to =
            if page.more { commit } else { state.last_commit().map_err(ExchangeError::State)? };
        page.others = Some(cursor(read_to)?).filter(|place| request.others.as_ref() != Some(place));
    }
    for (entity, commit) in positions {
        page.cursors.insert(entity.clone(), cursor(commit)?);
    }
    Ok(page)
}

/// Returns whether the page ends with its present commit.
const fn is_full(size: RecordSize, quota: &Quota) -> bool {
    size.all() >= quota.page_bytes || size.head >= limits::PAGE_HEAD_BYTES
}

/// Returns whether a page is larger than commits within the present limits can make it.
const fn is_over(size: RecordSize, quota: &Quota) -> bool {
    size.all() > quota.page_bytes + quota.commit_bytes
        || size.head > limits::PAGE_HEAD_BYTES + limits::COMMIT_HEAD_BYTES
}

/// With at most this many entity types, each keeps its next row in memory, whatever its size.
const FEW: usize = 16;
/// The largest row that is kept when there are more entity types. A larger row is read again when
/// its turn comes.
const KEPT_BYTES: usize = 16 * 1024;

/// A place in a feed: the commit, and the index of the change in the commit.
type Place = (Version, u32);

/// The feeds of several entity types, merged in the order of commits.
struct Merged<'s, 'e, S, O, I> {
    state: &'s S,
    /// Opens a feed at a place.
    open: O,
    /// Each entity type and the open reader of its feed; `None` while its next row is not kept.
    feeds: Vec<(&'e EntityType, Option<I>)>,
    /// The next item of each feed.
    heads: BinaryHeap<Reverse<Head>>,
    kept_bytes: usize,
}

impl<'s, 'e, S, O, I> Merged<'s, 'e, S, O, I>
where
    S: AuthorityRead,
    O: Fn(&'s S, &'e EntityType, Place) -> Result<I, S::Error>,
    I: Iterator<Item = Result<FeedItem, S::Error>>,
{
    fn new(state: &'s S, open: O, feeds: usize) -> Self {
        let kept_bytes = if feeds > FEW { KEPT_BYTES } else { usize::MAX };
        Self {
            state,
            open,
            feeds: Vec::with_capacity(feeds),
            heads: BinaryHeap::with_capacity(feeds),
            kept_bytes,
        }
    }

    /// Adds the feed of an entity type, after a commit.
    fn begin(&mut self, entity: &'e EntityType, after: Version) -> Result<(), S::Error> {
        let feed = self.feeds.len();
        self.feeds.push((
            entity,
            Some((self.open)(
                self.state,
                entity,
                (Version::new(after.number().saturating_add(1)), 0),
            )?),
        ));
        self.advance(feed)
    }

    /// Returns the commit of the next item.
    fn commit(&self) -> Option<Version> {
        self.heads.peek().map(|Reverse(head)| head.place.0)
    }

    fn next(&mut self) -> Result<Option<(&'e EntityType, FeedItem)>, S::Error> {
        let Some(Reverse(head)) = self.heads.pop() else { return Ok(None) };
        let Some((entity, items)) = self.feeds.get_mut(head.feed) else { return Ok(None) };
        let entity = *entity;
        let item = match head.item {
            Some(item) => Some(item),
            None => {
                items.insert((self.open)(self.state, entity, head.place)?).next().transpose()?
            }
        };
        self.advance(head.feed)?;
        Ok(item.map(|item| (entity, item)))
    }

    fn advance(&mut self, feed: usize) -> Result<(), S::Error> {
        let Some((_, items)) = self.feeds.get_mut(feed) else { return Ok(()) };
        let Some(item) = items.as_mut().and_then(Iterator::next).transpose()? else {
            return Ok(());
        };
        let place = (item.row.version, item.row.index);
        let is_kept = item.row.stored_bytes(&item.id) <= self.kept_bytes;
        if !is_kept {
            *items = None;
        }
        self.heads.push(Reverse(Head { place, feed, item: is_kept.then_some(item) }));
        Ok(())
    }
}

/// The next item of one feed, ordered by its place.
struct Head {
    place: Place,
    feed: usize,
    /// The item, if it is kept.
    item: Option<FeedItem>,
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
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
        self.place.cmp(&other.place)
    }
}
