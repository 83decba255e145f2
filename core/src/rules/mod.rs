//! The rules: pure decisions, one file a concern.
