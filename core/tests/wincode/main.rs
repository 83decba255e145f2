//! A second check of the meta part's bytes: wincode, built from the same source text as the
//! program's own types, reads and writes the bytes of bincode. It could also replace bincode.

use std::path::Path;

use fieldbook_core::entry::frame::Frame;
use wincode::config::{Configuration, deserialize_exact, serialize};

/// The types of the meta part, with the derives of wincode and plain values for the checked ones.
#[path = "../../src/entry/meta.rs"]
#[expect(unreachable_pub, reason = "they are public in the crate whose source text this is")]
mod meta;

#[path = "../../src/entry/baseline.rs"]
#[expect(unreachable_pub, reason = "they are public in the crate whose source text this is")]
mod baseline;

#[path = "../../src/entry/decision.rs"]
#[expect(unreachable_pub, reason = "they are public in the crate whose source text this is")]
mod decision;

mod codec {
    pub(crate) use wincode::{SchemaRead as Decode, SchemaWrite as Encode};
}

mod ids {
    pub(crate) type DeviceId = [u8; 16];
    pub(crate) type Epoch = [u8; 16];
    pub(crate) type OpId = [u8; 16];
    pub(crate) type RequestId = [u8; 16];
    pub(crate) type ServerEpoch = [u8; 16];
    pub(crate) type ServerId = [u8; 16];
    pub(crate) type TenantId = [u8; 16];
    pub(crate) type UnitId = [u8; 16];
}

mod names {
    pub(crate) type Actor = String;
    pub(crate) type EntityType = String;
    pub(crate) type RecordKey = (String, String);
}

mod numbers {
    pub(crate) type Cursor = Vec<u8>;
    pub(crate) type Hash = [u8; 32];
    pub(crate) type Seq = u64;
    pub(crate) type Version = u64;
}

mod op {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, crate::codec::Encode, crate::codec::Decode)]
    pub(crate) enum OpKind {
        Create,
        Update,
        Delete,
        Replace,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, crate::codec::Encode, crate::codec::Decode)]
    pub(crate) struct OpPlace {
        seq: u64,
        index: u32,
    }
}

mod record {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, crate::codec::Encode, crate::codec::Decode)]
    pub(crate) struct EditStamp {
        edited_at: u64,
        op: [u8; 16],
    }

    #[derive(Debug, Clone, PartialEq, Eq, crate::codec::Encode, crate::codec::Decode)]
    pub(crate) struct FieldWrites {
        edited_at: u64,
        op: [u8; 16],
        fields: Vec<String>,
    }
}

mod schema {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, crate::codec::Encode, crate::codec::Decode)]
    pub(crate) enum Policy {
        LastWriteWins,
        ServerWins,
        DeviceWins,
        Max,
        Min,
        AppendUnique,
        Manual,
        Function,
    }
}

mod time {
    pub(crate) type Hlc = u64;
    pub(crate) type WallTime = i64;
}

#[test]
fn wincode_reads_every_golden_meta_part_and_writes_the_same_bytes() {
    let configuration = Configuration::default().with_varint_encoding();
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2/every-variant.log");
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[b"fieldbook-log 1\n".len()..];
    let mut entries = 0;
    while let Some((length, after)) = rest.split_first_chunk() {
        let (entry, after) = after.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        let frame = Frame::parse(entry).unwrap();
        let meta: meta::Meta = deserialize_exact(frame.meta, configuration)
            .unwrap_or_else(|error| panic!("entry {}: {error}", frame.header.seq));
        assert_eq!(
            serialize(&meta, configuration).unwrap(),
            frame.meta,
            "entry {}",
            frame.header.seq
        );
        entries += 1;
        rest = after;
    }
    assert_eq!(entries, 28);
}
