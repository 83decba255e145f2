//! What a book is opened with.

use std::sync::Arc;

use fieldbook_core::log::StoreOptions;
use fieldbook_core::system::SystemClock;
use fieldbook_core::{Actor, Clock, EntityRules, InvalidName, Randomness, Schema};
use fieldbook_projections::{InvalidProjection, Projection, Projections};

/// What a book is opened with: who uses it, what the app declares, and the seams that tests replace.
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
    /// Opens for this actor: the app's own opaque id of the user, 1 to 128 bytes with no control characters.
    ///
    /// Every entity type is taken, with the default rules, until a schema is given.
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

    /// Registers a projection of the app's own. One that is new, or of another version than the book holds, is folded from
    /// the present records when the book is opened.
    ///
    /// # Errors
    /// [`InvalidProjection`] if its name breaks the rule or is registered already.
    pub fn projection(mut self, projection: impl Projection + 'static) -> Result<Self, InvalidProjection> {
        self.projections.register(Arc::new(projection))?;
        Ok(self)
    }

    /// Sets how much memory pages of the file may take, in bytes. The default is 16 MiB; more makes reading at random faster.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.store.cache_bytes = bytes;
        self
    }

    /// Opens only to look: the file keeps its every byte, and every write of the app's is refused with [`Error::LookOnly`](crate::Error::LookOnly). For support, and for
    /// looking into a damaged book.
    #[must_use]
    pub const fn look_only(mut self) -> Self {
        self.store.look_only = true;
        self
    }

    /// Reads time from another clock than the operating system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Asks the app whether the network is unmetered. Without it, every network is.
    #[must_use]
    pub fn connectivity(mut self, connectivity: Arc<dyn Connectivity>) -> Self {
        self.connectivity = connectivity;
        self
    }

    /// Draws ids, salts and jitter from another source than the operating system.
    #[must_use]
    pub fn randomness(mut self, randomness: Box<dyn Randomness>) -> Self {
        self.randomness = Some(randomness);
        self
    }
}

/// What the app knows of its network.
pub trait Connectivity: Send + Sync {
    /// Returns whether the present network is unmetered, so that what asks for one may leave.
    fn is_unmetered(&self) -> bool;
}

/// A network that costs nothing: the default.
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
