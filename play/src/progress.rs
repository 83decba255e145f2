//! The progress of a play, for a program that shows it.

/// Receives the progress of a play.
///
/// Each method is called from the play's own thread and should return at once.
pub trait Progress: Send + Sync {
    /// The play begins and has this many steps.
    fn begin(&self, steps: u64);

    /// This many more steps are done.
    fn advance(&self, steps: u64);

    /// A person should read this now, such as that the server is away: a line without its end.
    fn tell(&self, what: &str);

    /// All devices are done; the rest takes a moment.
    fn end(&self);
}

/// Ignores the progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _steps: u64) {}

    fn advance(&self, _steps: u64) {}

    fn tell(&self, _what: &str) {}

    fn end(&self) {}
}
