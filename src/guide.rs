//! The pages of the guide and the README, included so that their examples compile and run as doc
//! tests.

#[doc = include_str!("../README.md")]
struct Readme;
#[doc = include_str!("../docs/guide/start.md")]
struct Start;
#[doc = include_str!("../docs/guide/schema.md")]
struct Schema;
#[doc = include_str!("../docs/guide/conflicts.md")]
struct Conflicts;
#[doc = include_str!("../docs/guide/sync-and-status.md")]
struct SyncAndStatus;
#[doc = include_str!("../docs/guide/projections.md")]
struct Projections;
