//! The pages of the guide and the README, included so that their examples compile and run as doc
//! tests.

#[doc = include_str!("../README.md")]
struct Readme;
#[doc = include_str!("../docs/guide/start.md")]
struct Start;
#[doc = include_str!("../docs/guide/first-list.md")]
struct FirstList;
#[doc = include_str!("../docs/guide/schema.md")]
struct Schema;
#[doc = include_str!("../docs/guide/lists.md")]
struct Lists;
#[cfg(feature = "search")]
#[doc = include_str!("../docs/guide/search.md")]
struct Search;
#[doc = include_str!("../docs/guide/conflicts.md")]
struct Conflicts;
#[doc = include_str!("../docs/guide/users.md")]
struct Users;
#[doc = include_str!("../docs/guide/sync-and-status.md")]
struct SyncAndStatus;
#[doc = include_str!("../docs/guide/screens.md")]
struct Screens;
#[doc = include_str!("../docs/guide/projections.md")]
struct Projections;
