//! How far a play is, for whoever shows it to a person.

/// Is told how far a play is.
///
/// Each method is called from the play's own thread and should return at once.
pub trait Progress: Send + Sync {
    /// The play begins and has so many steps.
    fn begin(&self, steps: u64);

    /// So many more steps are done.
    fn advance(&self, steps: u64);

    /// Something happened that a person should know now, such as a server that is away: a line without an end.
    fn tell(&self, what: &str);

    /// The devices are done; what is left takes a moment.
    fn end(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _steps: u64) {}

    fn advance(&self, _steps: u64) {}

    fn tell(&self, _what: &str) {}

    fn end(&self) {}
}
