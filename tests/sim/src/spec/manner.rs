//! The manners of running cases. A manner changes no result: a case must end as it expects in all
//! of them.
//!
//! What they are not: the faults of a case. Those are its steps.

/// How cases are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// Whether the book is closed and opened again after every step.
    pub reopening: bool,
    /// Whether a request is lost before every push, so that everything that the case sends is sent
    /// twice.
    pub lost_requests: bool,
    /// Whether each exchange is a run of the loop in its own process, which has just opened the
    /// book.
    pub one_shot: bool,
}

impl Manner {
    /// Every manner alone, and the manners that can be combined.
    pub const ALL: [Self; 6] = [
        Self { reopening: false, lost_requests: false, one_shot: false },
        Self { reopening: true, lost_requests: false, one_shot: false },
        Self { reopening: false, lost_requests: false, one_shot: true },
        Self { reopening: false, lost_requests: true, one_shot: false },
        Self { reopening: true, lost_requests: true, one_shot: false },
        Self { reopening: false, lost_requests: true, one_shot: true },
    ];

    /// Returns whether the app ends and starts again between the steps of a case.
    pub(super) const fn opens_anew(self) -> bool {
        self.reopening || self.one_shot
    }
}

impl std::fmt::Display for Manner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [
            (self.reopening, " --reopening"),
            (self.lost_requests, " --lost-requests"),
            (self.one_shot, " --one-shot"),
        ];
        words.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, word)| f.write_str(word))
    }
}
