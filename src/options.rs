//! The options of a book.

use std::sync::Arc;

#[cfg(feature = "search")]
use fieldbook_core::EntityType;
use fieldbook_core::entry::AppVersion;
use fieldbook_core::log::{Program, StoreOptions};
use fieldbook_core::rules::lend::{Lend, Role};
#[cfg(feature = "search")]
use fieldbook_core::search::SearchRule;
use fieldbook_core::system::{self, SystemClock};
use fieldbook_core::{Actor, Clock, EntityRules, InvalidName, Randomness, Schema};
#[cfg(feature = "search")]
use fieldbook_projections::search::Searches;
use fieldbook_projections::{Indexes, InvalidProjection, Projection, Projections};

use crate::declared::Source;
use crate::error::Error;
use crate::lend::Sharing;

/// What hears the progress of building indexes.
pub(crate) type OnIndexBuild = Box<dyn FnMut(u64, u64) + Send>;

/// The options of a book: its user, the app's schema, and the parts that tests replace.
pub struct BookOptions {
    pub(crate) actor: Actor,
    pub(crate) schema: Source,
    pub(crate) app: Option<AppVersion>,
    pub(crate) system: String,
    /// Whether the app declared a schema. Without one the book keeps the indexes that it has.
    pub(crate) declares: bool,
    pub(crate) on_index_build: OnIndexBuild,
    pub(crate) store: StoreOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) randomness: Option<Box<dyn Randomness>>,
    pub(crate) connectivity: Arc<dyn Connectivity>,
    pub(crate) projections: Projections,
    pub(crate) sharing: Option<Sharing>,
    #[cfg(feature = "search")]
    pub(crate) searches: Searches,
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
            schema: Source::App(Box::new(Schema::open(EntityRules::default()))),
            app: None,
            system: system::name().to_owned(),
            declares: false,
            on_index_build: Box::new(|_, _| {}),
            store: StoreOptions::default(),
            clock: Arc::new(SystemClock::new()),
            randomness: None,
            connectivity: Arc::new(Unmetered),
            projections: Projections::default(),
            sharing: None,
            #[cfg(feature = "search")]
            searches: Searches::new(),
        })
    }

    /// Declares the app's entity types, with their indexes. An index that is new or has another
    /// shape than in the book is built when the book is opened, and an index that is not declared
    /// any more is dropped. Without a schema the book keeps the indexes that it has, and follows
    /// them.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Source::App(Box::new(schema));
        self.declares = true;
        self
    }

    /// Opens the book by the declarations that it has recorded, instead of those of the program:
    /// for a support program, which does not have the app's code. References, policies, undo
    /// windows, priorities, networks and indexes hold then as in the app. The app's functions are
    /// missing: [`Audit::lacking`](crate::audit::Audit::lacking) names them. If there are any, the
    /// book opens read-only only, else with [`Error::LacksRules`](crate::Error::LacksRules).
    ///
    /// A book without recorded declarations accepts every entity type with the default rules.
    #[must_use]
    pub fn recorded_schema(mut self) -> Self {
        self.schema = Source::Book { without_hooks: false };

        self
    }

    /// Opens the book by its recorded declarations, also to write, and without the functions of the
    /// app that the program lacks. What may go wrong: a change that a validator refuses is sent;
    /// conflicts of a missing function are resolved by the declared policy, or by the later edit;
    /// ops of an older schema version wait for the app.
    #[must_use]
    pub fn without_app_rules(mut self) -> Self {
        self.schema = Source::Book { without_hooks: true };

        self
    }

    /// Names the app and its version. The log records them with the first write of an opening.
    #[must_use]
    pub fn app(mut self, name: &str, version: &str) -> Self {
        self.app = Some(AppVersion { name: name.to_owned(), version: version.to_owned() });
        self
    }

    /// Sets the name of the operating system that the log records, for example with its version.
    /// The default is a short name such as `linux`.
    #[must_use]
    pub fn system(mut self, name: &str) -> Self {
        self.system = name.to_owned();
        self
    }

    /// Returns the declared indexes, if the app has a schema.
    fn declared_indexes(&self) -> Result<Option<Indexes>, Error> {
        let declared = match &self.schema {
            Source::App(schema) if self.declares => Some(Indexes::declared(schema)),
            _ => None,
        };
        declared.transpose().map_err(|fault| Error::Misuse(fault.as_str()))
    }

    /// Checks what can be declared wrongly, and returns the declared indexes.
    pub(crate) fn check(&self) -> Result<Option<Indexes>, Error> {
        #[cfg(feature = "search")]
        for rule in self.searches.values() {
            rule.check().map_err(|fault| Error::Misuse(fault.as_str()))?;
        }
        self.declared_indexes()
    }

    /// Sets a function that hears the progress while indexes are built: the number of records read
    /// so far, and the number of all records of the book, of which not all need to be read. It is
    /// called by the thread that opens the book, after every thousand records. It must not panic.
    #[must_use]
    pub fn on_index_build(mut self, hear: impl FnMut(u64, u64) + Send + 'static) -> Self {
        self.on_index_build = Box::new(hear);
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

    /// Declares the fields in which records of an entity type are searched: [`Book::search`]. The
    /// words are folded when the app searches, and anew when the declaration changes.
    ///
    /// [`Book::search`]: crate::Book::search
    #[cfg(feature = "search")]
    #[must_use]
    pub fn search(mut self, entity: EntityType, rule: SearchRule) -> Self {
        self.searches.insert(entity, rule);
        self
    }

    /// Sets the memory for pages of the file, in bytes. The default is 16 MiB. More memory makes
    /// random reads faster.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.store.cache_bytes = bytes;
        self
    }

    /// Opens the book read-only: no byte of the file changes, and every write fails with
    /// [`Error::ReadOnly`](crate::Error::ReadOnly). For support, and for damaged books.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.store.read_only = true;
        self
    }

    /// Shares the book with other programs on this device: says what this program is, and lends the
    /// book to a program that asks for it ([`Book::open_within`]).
    ///
    /// A background run lends at once to a program of a person. A program of a person lends to
    /// another one of a person when no sync run is under way, and keeps the book from a background
    /// run. [`Self::lends`] sets another rule. A lent book is suspended: calls fail with
    /// [`Error::Suspended`](crate::Error::Suspended), and it resumes by itself when the other
    /// program has closed it. A thread looks once a second whether somebody asks. Two files beside
    /// the book, `.holder` and `.turn`, have who has it and who asks. A book that is opened
    /// read-only does not take part.
    ///
    /// [`Book::open_within`]: crate::Book::open_within
    #[must_use]
    pub fn shares_as(mut self, role: Role) -> Self {
        self.sharing = Some(Sharing::by_role(role));
        self
    }

    /// Sets the rule by which a book that is shared ([`Self::shares_as`], which comes first) is
    /// lent. The function is called by the thread that looks. It must not wait for the book.
    ///
    /// ```
    /// use fieldbook::BookOptions;
    /// use fieldbook::host::{Lend, Role};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = BookOptions::new("ann")?
    ///     .shares_as(Role::Interface)
    ///     .lends(|asker| match asker.role {
    ///         Role::Interface => Lend::AtOnce,
    ///         Role::Background => Lend::No,
    ///     });
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lends(mut self, rule: impl Fn(&Program) -> Lend + Send + Sync + 'static) -> Self {
        let role = self.sharing.map_or(Role::Interface, |sharing| sharing.role);
        self.sharing = Some(Sharing { role, lends: Some(Arc::new(rule)) });
        self
    }

    /// Returns the name and the version of the app.
    pub(crate) fn app_in_words(&self) -> Option<String> {
        self.app.as_ref().map(|app| format!("{} {}", app.name, app.version))
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
