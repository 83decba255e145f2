//! Every statement that the store runs while it serves. A test reads them.
//!
//! Invariants:
//! 1. `$1` is the tenant, and every table of tenants is bound to it.
//! 2. No statement leaves anything behind in the session, so that a pooler may give each transaction
//!    another connection.
//! 3. Rows are found by keys that are given, so the cost follows the request and not the store.

/// Begins a transaction. The limits of time end with it.
pub(super) const BEGIN: &str = "begin isolation level read committed; \
     set local lock_timeout = '10s'; \
     set local statement_timeout = '30s'; \
     set local idle_in_transaction_session_timeout = '30s'";

/// Commits.
pub(super) const COMMIT: &str = "commit";

/// Gives a transaction up.
pub(super) const ROLLBACK: &str = "rollback";

/// Waits until no other transaction writes for the tenant. It reads nothing else: a statement that
/// waits reads other rows as they were before it waited.
pub(super) const LOCK: &str =
    "select last_commit from fieldbook.tenant t where t.tenant = $1 for update";

/// Makes the row of a tenant that has none.
pub(super) const MAKE_TENANT: &str = "insert into fieldbook.tenant \
     (tenant, epoch_number, last_commit, records, bytes, entity_types) \
     select $1, s.epoch_number, 0, 0, 0, 0 from fieldbook.store s on conflict do nothing";

/// The columns that say what the store and the tenant are, and where they come from.
macro_rules! top {
    () => {
        "s.server, s.epoch, s.epoch_number, s.migration, \
         t.epoch_number as tenant_epoch_number, t.last_commit, t.newest_time, \
         t.records, t.bytes, t.entity_types"
    };
}
macro_rules! from_top {
    () => {
        " from fieldbook.store s left join fieldbook.tenant t on t.tenant = $1 "
    };
}

/// The records of two aligned arrays of entity types and ids, in their order. Contents are read until
/// they have a number of bytes together.
macro_rules! records {
    ($entities:literal, $ids:literal, $most:literal) => {
        concat!(
            " cross join lateral (select array_agg(x.commit order by x.n) as commits, \
             array_agg(x.idx order by x.n) as indexes, \
             array_agg(x.size order by x.n) as sizes, \
             array_agg(x.glance order by x.n) as glances, \
             array_agg(case when x.before < ",
            $most,
            " then x.content end order by x.n) as contents \
             from (select k.n, r.commit, r.idx, r.size, r.glance, r.content, \
             coalesce(sum(r.size) over (order by k.n rows between unbounded preceding \
             and 1 preceding), 0) as before \
             from unnest(",
            $entities,
            "::text[], ",
            $ids,
            "::text[]) with ordinality as k (entity, id, n) \
             left join lateral (select c.commit, c.idx, c.content, \
             octet_length(c.content) as size, substr(c.content, 1, 25) as glance \
             from fieldbook.record c \
             where c.tenant = $1 and c.entity = k.entity and c.id = k.id limit 1) r on true) x) r "
        )
    };
}

/// The anchor of a log, and the key of its device.
macro_rules! device {
    () => {
        " left join fieldbook.anchor a on a.tenant = $1 and a.device = $2 and a.epoch = $3 \
         and a.epoch_number = s.epoch_number \
         left join fieldbook.device d on d.tenant = $1 and d.device = $2 "
    };
}

/// What a request without units needs.
pub(super) const HEAD: &str =
    concat!("select ", top!(), ", a.seq, a.hash, d.fingerprint", from_top!(), device!());

/// What a request with units needs: `$4` units, `$5` and `$6` records, `$7` the bytes of contents,
/// `$8` entity types, `$9` and `$10` parts.
pub(super) const LOAD: &str = concat!(
    "select ",
    top!(),
    ", a.seq, a.hash, d.fingerprint, u.memories, \
     r.commits, r.indexes, r.sizes, r.glances, r.contents, e.digests, p.part_digests",
    from_top!(),
    device!(),
    " cross join lateral (select array_agg(x.memory order by k.n) as memories \
     from unnest($4::bytea[]) with ordinality as k (unit, n) \
     left join lateral (select m.memory from fieldbook.unit m \
     where m.tenant = $1 and m.unit = k.unit limit 1) x on true) u ",
    records!("$5", "$6", "$7"),
    " cross join lateral (select array_agg(x.digest order by k.n) as digests \
     from unnest($8::text[]) with ordinality as k (entity, n) \
     left join lateral (select y.digest from fieldbook.entity y \
     where y.tenant = $1 and y.entity = k.entity limit 1) x on true) e \
     cross join lateral (select array_agg(x.digest order by k.n) as part_digests \
     from unnest($9::text[], $10::smallint[]) with ordinality as k (entity, part, n) \
     left join lateral (select y.digest from fieldbook.part y \
     where y.tenant = $1 and y.entity = k.entity and y.part = k.part limit 1) x on true) p"
);

/// Records by their keys: `$2` and `$3`, `$4` the bytes of contents.
pub(super) const RECORDS: &str = concat!(
    "select ",
    top!(),
    ", r.commits, r.indexes, r.sizes, r.glances, r.contents",
    from_top!(),
    records!("$2", "$3", "$4")
);

/// Stores what a request changed, and the tenant's row: `$2` to `$8`.
pub(super) const STORE: &str = "with \
     of_tenant as (update fieldbook.tenant t set epoch_number = $2, last_commit = $3, \
     newest_time = $4, records = $5, bytes = $6, entity_types = $7 where t.tenant = $1), \
     of_units as (insert into fieldbook.unit (tenant, unit, memory) \
     select $1, k.unit, k.memory from unnest($8::bytea[], $9::bytea[]) as k (unit, memory)), \
     of_entities as (insert into fieldbook.entity (tenant, entity, last_commit, digest) \
     select $1, k.entity, k.last_commit, k.digest \
     from unnest($10::text[], $11::bigint[], $12::bytea[]) as k (entity, last_commit, digest) \
     on conflict (tenant, entity) do update \
     set last_commit = excluded.last_commit, digest = excluded.digest), \
     of_parts as (insert into fieldbook.part (tenant, entity, part, digest) \
     select $1, k.entity, k.part, k.digest \
     from unnest($13::text[], $14::smallint[], $15::bytea[]) as k (entity, part, digest) \
     on conflict (tenant, entity, part) do update set digest = excluded.digest) \
     insert into fieldbook.record (tenant, entity, id, commit, idx, content) \
     select $1, k.entity, k.id, k.commit, k.idx, k.content \
     from unnest($16::text[], $17::text[], $18::bigint[], $19::integer[], $20::bytea[]) \
     as k (entity, id, commit, idx, content) \
     on conflict (tenant, entity, id) do update \
     set commit = excluded.commit, idx = excluded.idx, content = excluded.content";

/// Stores the head of a log (`$4` and later), and forgets heads that are neither the first nor one
/// of the newest.
pub(super) const STORE_HEAD: &str = "with \
     forgotten as (delete from fieldbook.head h \
     where h.tenant = $1 and h.device = $2 and h.epoch = $3 and h.seq in (select o.seq \
     from fieldbook.head o where o.tenant = $1 and o.device = $2 and o.epoch = $3 \
     and o.seq > (select min(f.seq) from fieldbook.head f \
     where f.tenant = $1 and f.device = $2 and f.epoch = $3) \
     order by o.seq desc offset $7)), \
     kept as (insert into fieldbook.head (tenant, device, epoch, seq, hash) \
     values ($1, $2, $3, $5, $6) \
     on conflict (tenant, device, epoch, seq) do update set hash = excluded.hash) \
     insert into fieldbook.anchor (tenant, device, epoch, epoch_number, seq, hash) \
     values ($1, $2, $3, $4, $5, $6) on conflict (tenant, device, epoch) do update \
     set epoch_number = excluded.epoch_number, seq = excluded.seq, hash = excluded.hash";

/// Remembers the key of a device.
pub(super) const STORE_DEVICE: &str =
    "insert into fieldbook.device (tenant, device, fingerprint) values ($1, $2, $3)";

/// The records that changed after the cursors, in the order of their changes: `$2` the cursor of the
/// entity types that are not named, `$3` and `$4` the others, `$5` the most records, `$6` the bytes.
/// Whole commits, and one more record if there are more. A commit has at most a thousand records.
pub(super) const PAGE: &str = concat!(
    "select ",
    top!(),
    ", f.entities, f.commits, f.indexes, f.contents, f.is_cut",
    from_top!(),
    " cross join lateral (select array_agg(x.entity order by x.n) as entities, \
     array_agg(x.commit order by x.n) as commits, array_agg(x.idx order by x.n) as indexes, \
     array_agg(x.content order by x.n) as contents, \
     coalesce(bool_or(x.is_witness), false) or count(*) > $5 + 1000 as is_cut from (\
     select y.*, not y.is_in as is_witness, \
     count(*) filter (where not y.is_in) over (order by y.n) as witnesses from (\
     select q.*, row_number() over (order by q.commit, q.idx) as n, \
     count(*) over so_far - count(*) over of_commit < $5 \
     and sum(octet_length(q.content)) over so_far \
     - sum(octet_length(q.content)) over of_commit < $6 as is_in \
     from (select w.entity, g.commit, g.idx, g.content from (\
     select e.entity, coalesce(k.cursor, $2) as after from fieldbook.entity e \
     left join unnest($3::text[], $4::bigint[]) as k (entity, cursor) on k.entity = e.entity \
     where e.tenant = $1 and $5 > 0 and e.last_commit > coalesce(k.cursor, $2)) w \
     cross join lateral (select c.commit, c.idx, c.content from fieldbook.record c \
     where c.tenant = $1 and c.entity = w.entity and c.commit > w.after \
     order by c.commit, c.idx limit $5 + 1001) g \
     order by g.commit, g.idx limit $5 + 1001) q \
     window so_far as (order by q.commit), of_commit as (partition by q.commit)) y) x \
     where x.is_in or x.witnesses = 1) f"
);

/// The digest of each entity type, and the last commit that changed it.
pub(super) const DIGESTS: &str = concat!(
    "select ",
    top!(),
    ", e.entities, e.commits, e.digests",
    from_top!(),
    " cross join lateral (select array_agg(y.entity order by y.entity) as entities, \
     array_agg(y.last_commit order by y.entity) as commits, \
     array_agg(y.digest order by y.entity) as digests \
     from fieldbook.entity y where y.tenant = $1) e"
);

/// The digests of the parts of an entity type, `$2`.
pub(super) const PARTS: &str = concat!(
    "select ",
    top!(),
    ", p.parts, p.digests",
    from_top!(),
    " cross join lateral (select array_agg(y.part order by y.part) as parts, \
     array_agg(y.digest order by y.part) as digests \
     from fieldbook.part y where y.tenant = $1 and y.entity = $2) p"
);

/// The next records of an entity type, `$2`, after an id, `$3`: `$4` of them.
pub(super) const VERSIONS: &str = concat!(
    "select ",
    top!(),
    ", r.ids, r.commits, r.indexes, r.sizes, r.glances",
    from_top!(),
    " cross join lateral (select array_agg(x.id order by x.id) as ids, \
     array_agg(x.commit order by x.id) as commits, array_agg(x.idx order by x.id) as indexes, \
     array_agg(x.size order by x.id) as sizes, array_agg(x.glance order by x.id) as glances \
     from (select c.id, c.commit, c.idx, octet_length(c.content) as size, \
     substr(c.content, 1, 25) as glance from fieldbook.record c \
     where c.tenant = $1 and c.entity = $2 and c.id > $3 order by c.id limit $4) x) r"
);

/// The heads of the logs of a device, `$2`, those of the epoch `$3` first: `$4` of them.
pub(super) const HEADS: &str = concat!(
    "select ",
    top!(),
    ", h.epochs, h.seqs, h.hashes",
    from_top!(),
    " cross join lateral (select array_agg(x.epoch order by x.n) as epochs, \
     array_agg(x.seq order by x.n) as seqs, array_agg(x.hash order by x.n) as hashes \
     from (select y.epoch, y.seq, y.hash, \
     row_number() over (order by y.epoch = $3 desc, y.epoch, y.seq) as n \
     from fieldbook.head y where y.tenant = $1 and y.device = $2 order by n limit $4) x) h"
);

/// All statements, with their names.
#[cfg(test)]
pub(super) const ALL: [(&str, &str); 16] = [
    ("begin", BEGIN),
    ("commit", COMMIT),
    ("rollback", ROLLBACK),
    ("lock", LOCK),
    ("make tenant", MAKE_TENANT),
    ("head", HEAD),
    ("load", LOAD),
    ("records", RECORDS),
    ("store", STORE),
    ("store head", STORE_HEAD),
    ("store device", STORE_DEVICE),
    ("page", PAGE),
    ("digests", DIGESTS),
    ("parts", PARTS),
    ("versions", VERSIONS),
    ("heads", HEADS),
];
