//! Whether a program lends its book to another one that asks for it.
//!
//! What it is not: a lock. Nobody is forced to lend.

use serde::{Deserialize, Serialize};

/// What a program is that uses a book together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A person uses the program now.
    Interface,
    /// The system runs the program without a person, such as a background run.
    Background,
}

/// What a program does when another one asks for its book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lend {
    /// It keeps the book.
    No,
    /// It lends the book once no sync run is under way.
    WhenIdle,
    /// It lends the book, and cuts a sync run that is under way.
    AtOnce,
}

/// Decides for a program that has no rule of its own. A background run always yields to a person. A
/// person's program yields to another one of a person, and not to a background run: it syncs by
/// itself.
pub const fn lend(own: Role, asks: Role) -> Lend {
    match (own, asks) {
        (Role::Background, Role::Interface) => Lend::AtOnce,
        (Role::Interface, Role::Interface) => Lend::WhenIdle,
        (_, Role::Background) => Lend::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_background_run_always_yields_to_a_person_and_never_takes_from_one() {
        assert_eq!(lend(Role::Background, Role::Interface), Lend::AtOnce);
        assert_eq!(lend(Role::Interface, Role::Background), Lend::No);
        assert_eq!(lend(Role::Interface, Role::Interface), Lend::WhenIdle);
        assert_eq!(lend(Role::Background, Role::Background), Lend::No);
    }
}
