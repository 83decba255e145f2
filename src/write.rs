//! The app's writes: single changes, transactions, imports.
//!
//! Each call is one durable commit, shared with writes of other threads at the same time. After it
//! returns `Ok`, the change survives kill and power loss (if the disk really syncs).

use std::collections::hash_map::Entry;

use fieldbook_core::entry::{Draft, Intent, Items, Meta, OpMeta};
use fieldbook_core::rows::StoredRecord;
use fieldbook_core::rules::admit::{AdmittedOp, SeenRecord, admit_transaction};
use fieldbook_core::rules::restore::Offer;
use fieldbook_core::rules::save::save;
use fieldbook_core::{Fields, FieldsJson, Hlc, Mutation, OpId, OpPlace, RecordId, RecordKey};
use foldhash::HashMap;

use crate::book::Book;
use crate::error::Error;
use crate::writer::Session;

/// The result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The op is in the log.
    Op {
        /// The id of the op.
        id: OpId,
        /// Its place in the log.
        place: OpPlace,
    },
    /// The record has these values already, so nothing was written.
    Unchanged,
}

impl Written {
    /// Returns the op, if one was written.
    pub const fn op(&self) -> Option<OpId> {
        match self {
            Self::Op { id, .. } => Some(*id),
            Self::Unchanged => None,
        }
    }

    /// Returns the place of the op in the log, if an op was written: to undo it with
    /// [`Queue::undo`](crate::sync::Queue::undo).
    pub const fn place(&self) -> Option<OpPlace> {
        match self {
            Self::Op { place, .. } => Some(*place),
            Self::Unchanged => None,
        }
    }
}

impl Book {
    /// Makes a new id for a record: a UUIDv7, the kind that costs least to store in bulk.
    pub fn new_id(&self) -> RecordId {
        let now = self.shared.clock.now().wall;
        RecordId::new(now, &mut *self.shared.ids())
    }

    /// Writes one mutation.
    ///
    /// # Errors
    /// [`Error::Rejected`] if it does not fit the record or a limit is exceeded; [`Error::Store`]
    /// or [`Error::Unknown`] if the disk fails.
    pub fn write(&self, mutation: Mutation) -> Result<Written, Error> {
        self.shared.write_in_turn(move |session| write_in(session, mutation))
    }

    /// Writes a typed record: creates it if the app reads none, else updates the fields of the type
    /// that differ. The read and the write are in one commit, so no write in between is lost.
    pub(crate) fn write_typed(
        &self,
        key: RecordKey,
        fields: Fields,
        round_trip: fn(&Fields) -> Option<Fields>,
    ) -> Result<Written, Error> {
        self.shared.write_in_turn(move |session| {
            let mut images = Images::default();
            let rules = session.schema.declared_rules(&key.entity);
            let before = images.look(session, &key)?.fields(rules).map_err(Error::damaged)?;
            let mutation = match before {
                Some(before) => Mutation::update(key, save(&before, &fields, &round_trip)),
                None => Mutation::create(key, fields.into_image()),
            };
            let Some(op) = images.admit(session, mutation)? else { return Ok(Written::Unchanged) };
            append(session, vec![op]).map(|places| written(&places))
        })
    }

    /// Updates a record if its stored image is still `seen`; else returns `None`.
    pub(crate) fn update_seen(
        &self,
        key: RecordKey,
        seen: FieldsJson,
        patch: Fields,
    ) -> Result<Option<Written>, Error> {
        self.shared.write_in_turn(move |session| {
            let mut images = Images::default();
            if images.look(session, &key)?.image.as_ref() != Some(&seen) {
                return Ok(None);
            }
            let op = images.admit(session, Mutation::update(key, patch))?;
            let places = op.map(|op| append(session, vec![op])).transpose()?;
            Ok(Some(written(places.as_deref().unwrap_or_default())))
        })
    }

    /// Writes several mutations as one transaction: all or none, here and at the server. Each
    /// mutation applies to the result of those before it. At most 1,000 ops and 4 MiB.
    ///
    /// # Errors
    /// As for [`Self::write`]. If any mutation is not valid, nothing is written.
    pub fn transaction(&self, mutations: Vec<Mutation>) -> Result<Vec<Written>, Error> {
        self.shared.write_in_turn(move |session| {
            let mut images = Images::default();
            let admitted = images.admit_all(session, mutations)?;
            let bytes = admitted.iter().flatten().map(AdmittedOp::bytes).sum();
            admit_transaction(admitted.iter().flatten().count(), bytes)?;
            let changed: Vec<_> = admitted.iter().map(Option::is_some).collect();
            let ops: Vec<_> = admitted.into_iter().flatten().collect();
            let mut places =
                if ops.is_empty() { Vec::new() } else { append(session, ops)? }.into_iter();
            let written =
                changed.into_iter().map(|changed| if changed { places.next() } else { None });
            Ok(written
                .map(|place| {
                    place.map_or(Written::Unchanged, |(id, place)| Written::Op { id, place })
                })
                .collect())
        })
    }

    /// Writes many mutations in one commit. They are sent one by one, not as a transaction. Each
    /// mutation applies to the result of those before it.
    ///
    /// # Errors
    /// As for [`Self::write`]. If any mutation is not valid, nothing is written.
    pub fn import(&self, mutations: Vec<Mutation>) -> Result<Vec<Written>, Error> {
        self.shared.write_in_turn(move |session| {
            let mut images = Images::default();
            let admitted = images.admit_all(session, mutations)?;
            let each = admitted.into_iter().map(|op| match op {
                Some(op) => append(session, vec![op]).map(|places| written(&places)),
                None => Ok(Written::Unchanged),
            });
            each.collect()
        })
    }
}

/// Writes one mutation within a job.
pub(crate) fn write_in(session: &mut Session<'_>, mutation: Mutation) -> Result<Written, Error> {
    let Some(op) = Images::default().admit(session, mutation)? else {
        return Ok(Written::Unchanged);
    };
    append(session, vec![op]).map(|places| written(&places))
}

/// Writes one mutation within a job on top of a given image, instead of the record that the app
/// reads.
pub(crate) fn write_on(
    session: &mut Session<'_>,
    image: Option<&Fields>,
    mutation: Mutation,
) -> Result<Written, Error> {
    let mut images = Images::default();
    images.look(session, &mutation.key)?.image = image.map(Fields::to_json);
    let Some(op) = images.admit(session, mutation)? else { return Ok(Written::Unchanged) };
    append(session, vec![op]).map(|places| written(&places))
}

fn written(places: &[(OpId, OpPlace)]) -> Written {
    places.first().map_or(Written::Unchanged, |(id, place)| Written::Op { id: *id, place: *place })
}

/// The records of one call, with the changes of its earlier mutations.
#[derive(Default)]
struct Images(HashMap<RecordKey, SeenRecord>);

impl Images {
    fn admit_all(
        &mut self,
        session: &mut Session<'_>,
        mutations: Vec<Mutation>,
    ) -> Result<Vec<Option<AdmittedOp>>, Error> {
        session.reserve(mutations.len());
        self.0.reserve(mutations.len());
        mutations.into_iter().map(|mutation| self.admit(session, mutation)).collect()
    }

    /// Returns the record as the call has left it so far, or as the app reads it.
    fn look(
        &mut self,
        session: &mut Session<'_>,
        key: &RecordKey,
    ) -> Result<&mut SeenRecord, Error> {
        Ok(match self.0.entry(key.clone()) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(unseen) => {
                let row = session.tables.look(key)?;
                let image = row.and_then(StoredRecord::image).cloned();
                let base = row.and_then(StoredRecord::version);
                let read = row.map(|row| row.greatest().edited_at).unwrap_or_default();
                unseen.insert(SeenRecord { image, base, read })
            }
        })
    }

    fn admit(
        &mut self,
        session: &mut Session<'_>,
        mutation: Mutation,
    ) -> Result<Option<AdmittedOp>, Error> {
        let schema = session.schema;
        self.look(session, &mutation.key)?.admit(schema, mutation).map_err(Error::not_admitted)
    }
}

/// Writes an op for a record of the former server, with the stamp that the record had there.
pub(crate) fn write_offer(session: &mut Session<'_>, offer: Offer) -> Result<(), Error> {
    if let Some(op) = Images::default().admit(session, offer.mutation)? {
        append_stamped(session, vec![op], Some(offer.edited_at))?;
    }
    Ok(())
}

/// Appends one intent.
fn append(session: &mut Session<'_>, ops: Vec<AdmittedOp>) -> Result<Vec<(OpId, OpPlace)>, Error> {
    append_stamped(session, ops, None)
}

fn append_stamped(
    session: &mut Session<'_>,
    ops: Vec<AdmittedOp>,
    edited_at: Option<Hlc>,
) -> Result<Vec<(OpId, OpPlace)>, Error> {
    let mut items = Items::with_capacity(ops.len());
    let mut metas = Vec::with_capacity(ops.len());
    for op in ops {
        let stamped = session.stamp(&op.mutation.key, op.read);
        metas.push(OpMeta {
            id: OpId::new(session.now.wall, session.randomness),
            key: op.mutation.key,
            kind: op.mutation.kind,
            edited_at: edited_at.unwrap_or(stamped.hlc),
            clock_capped: stamped.capped,
            base: op.base,
            schema_version: op.schema_version,
            fields: op.json.map(|json| items.add_fields(&json, session.randomness)),
            cites: op.mutation.cites,
        });
    }
    let ids: Vec<_> = metas.iter().map(|op| op.id).collect();
    let entry =
        session.append(Draft { meta: Meta::Intent(Intent { ops: metas }), items }, Hlc::ZERO)?;
    let seq = entry.header.seq;
    Ok(ids.into_iter().zip(0..).map(|(id, index)| (id, OpPlace { seq, index })).collect())
}
