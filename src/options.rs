//! The options of a book.

use std::sync::Arc;

use fieldbook_core::log::StoreOptions;
use fieldbook_core::system::SystemClock;
use fieldbook_core::{Actor, Clock, EntityRules, InvalidName, Randomness, Schema};
use fieldbook_projections::{InvalidProjection, Projection, Projections};

/// The options of a book: its user, the app's schema, and the parts that tests replace.
pub struct BookOptions {
    pub(crate) actor: Actor,
    pub(crate) schema: Schema,
    pub(crate) store: StoreOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) randomness: Option<Box<dyn Randomness>>,
    pub(crate) connectivity: Arc<dyn Connectivity>,
    pub(crate) projections: Projections,
}

impl BookOptions {
    /// Makes options for an actor: the app's own opaque id of the user, 1 to 128 bytes without
    /// control characters.
    ///
    /// Until a schema is set, every entity type is accepted with the default rules.
    ///
    /// # Errors
    /// [`InvalidName`] if the actor breaks the rule.
    pub fn new(actor: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            actor: Actor::parse(actor)?,
            schema: Schema::open(EntityRules::default()),
            store: StoreOptions::default(),
            clock: Arc::new(SystemClock::new()),
            randomness: None,
            connectivity: Arc::new(Unmetered),
            projections: Projections::default(),
        })
    }

    /// Declares the app's entity types.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Registers a projection of the app. A projection that is new, or has another version than in
    /// the book, is folded from the present records when the book is opened.
    ///
    /// # Errors
    /// [`InvalidProjection`] if its name breaks the rule or is registered already.
    pub fn projection(
        mut self,
        projection: impl Projection + 'static,
    ) -> Result<Self, InvalidProjection> {
        self.projections.register(Arc::new(projection))?;
        Ok(self)
    }

    /// Sets the memory for pages of the file, in bytes. The default is 16 MiB. More memory makes
    /// random reads faster.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.store.cache_bytes = bytes;
        self
    }

    /// Opens the book read-only: no byte of the file changes, and every write fails with
    /// [`Error::LookOnly`](crate::Error::LookOnly). For support, and for damaged books.
    #[must_use]
    pub const fn look_only(mut self) -> Self {
        self.store.look_only = true;
        self
    }

    /// Sets the clock. The default is that of the operating system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source for whether the network is unmetered. Without it, every network counts as
    /// unmetered.
    #[must_use]
    pub fn connectivity(mut self, connectivity: Arc<dyn Connectivity>) -> Self {
        self.connectivity = connectivity;
        self
    }

    /// Sets the source of ids, salts and jitter. The default is that of the operating system.
    #[must_use]
    pub fn randomness(mut self, randomness: Box<dyn Randomness>) -> Self {
        self.randomness = Some(randomness);
        self
    }
}

/// The app's knowledge of its network.
pub trait Connectivity: Send + Sync {
    /// Returns whether the present network is unmetered. Ops that need such a network are sent only
    /// then.
    fn is_unmetered(&self) -> bool;
}

/// The default: every network is unmetered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmetered;

impl Connectivity for Unmetered {
    fn is_unmetered(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for BookOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BookOptions").field("actor", &self.actor).finish_non_exhaustive()
    }
}
