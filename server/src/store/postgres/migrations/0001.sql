-- What a database of fieldbook holds. Every key of a tenant's rows begins with the tenant. Texts are
-- compared byte by byte. Hashes, ids and rows have the same bytes as in a store file.
create schema fieldbook;

-- What the store is. One row.
create table fieldbook.store (
    one boolean primary key default true check (one),
    server bytea not null,
    epoch bytea not null,
    -- How often the store was restored: an anchor or a tenant of an earlier number is one of before.
    epoch_number bigint not null,
    -- The number of the last migration.
    migration integer not null
);

-- The keys that sign receipts, retired ones too.
create table fieldbook.signing_key (
    number integer primary key,
    made_at bigint not null,
    retired boolean not null,
    secret text not null
);

-- One row for each tenant. Whoever writes for a tenant holds the lock of its row.
create table fieldbook.tenant (
    tenant text collate "C" primary key,
    epoch_number bigint not null,
    last_commit bigint not null,
    newest_time bigint,
    records bigint not null,
    bytes bigint not null,
    entity_types bigint not null
);

-- Each record at its latest change: the commit, and the index of the change in it.
create table fieldbook.record (
    tenant text collate "C",
    entity text collate "C",
    id text collate "C",
    commit bigint not null,
    idx integer not null,
    content bytea not null,
    primary key (tenant, entity, id)
);
create unique index record_feed on fieldbook.record (tenant, entity, commit, idx);

-- Each entity type: its last commit, and the digest of its live records.
create table fieldbook.entity (
    tenant text collate "C",
    entity text collate "C",
    last_commit bigint not null,
    digest bytea not null,
    primary key (tenant, entity)
);

-- The digests of the 256 parts of an entity type.
create table fieldbook.part (
    tenant text collate "C",
    entity text collate "C",
    part smallint,
    digest bytea not null,
    primary key (tenant, entity, part)
);

-- The units that were answered for good.
create table fieldbook.unit (
    tenant text collate "C",
    unit bytea,
    memory bytea not null,
    primary key (tenant, unit)
);

-- The hashes of the devices' keys.
create table fieldbook.device (
    tenant text collate "C",
    device bytea,
    fingerprint bytea not null,
    primary key (tenant, device)
);

-- The known head of each epoch of a device's log.
create table fieldbook.anchor (
    tenant text collate "C",
    device bytea,
    epoch bytea,
    epoch_number bigint not null,
    seq bigint not null,
    hash bytea not null,
    primary key (tenant, device, epoch)
);

-- Former heads and the present one: the first of each epoch and the newest.
create table fieldbook.head (
    tenant text collate "C",
    device bytea,
    epoch bytea,
    seq bigint,
    hash bytea not null,
    primary key (tenant, device, epoch, seq)
);
