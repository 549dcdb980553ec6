//! Why there is no set.

use device::DeviceError;

use crate::judge::Refusal;
use crate::layout::{LayoutError, Level};

/// Why there is no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigureError {
    /// A level that cannot be run.
    #[error("RAID level {letter:?} cannot be run{}", match *.letter {
        'D' => ": what its spare map files say is not known here; 'T' is the same without distributed sparing",
        'L' => ": RAIDframe's parity logging is not known here",
        letter if Level::needs_design(letter) => " without its block design: -c with a file that names it",
        _ => "",
    })]
    Level {
        /// Its letter.
        letter: char,
    },
    /// No component is there.
    #[error("none of the components is there")]
    Nothing,
    /// Sector sizes that differ or cannot be used.
    #[error("{name} has sectors of {found} bytes, but the set needs {wanted}")]
    SectorSize {
        /// The component.
        name: String,
        /// Its sector size, bytes.
        found: u32,
        /// What would do.
        wanted: String,
    },
    /// The components make no set.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The labels stand against it; nothing has been written.
    #[error("the labels do not belong to this set: {}. Force it only if you know why", .told.join("; "))]
    Refused {
        /// Why.
        refusals: Vec<Refusal>,
        /// The same for people, with the names of components.
        told: Vec<String>,
    },
    /// Too many components are missing or stale.
    #[error("the set cannot do without all of {}{}", .names.join(", "), .why.iter().map(|why| format!("; {why}")).collect::<String>())]
    TooManyLost {
        /// They.
        names: Vec<String>,
        /// Why those count as failed that are there, a sentence each.
        why: Vec<String>,
    },
    /// A component that cannot be used, by force: the first configuration decides about sizes and order, so it must not be left out.
    #[error("{name} {why}; write \"absent\" in its place if the set is to do without it")]
    Unfit {
        /// The component.
        name: String,
        /// Why, behind its name.
        why: String,
    },
    /// A block design that is not the one of the labels' set.
    #[error("the set was made with another block design: name its file in the layout section")]
    Design,
    /// A set whose redundancy was not made by this program, but is not what it would be here.
    #[error(
        "{level} is not what RAIDframe makes of it, and no component tells that this program made this set and was the last to use it"
    )]
    Foreign {
        /// The level.
        level: Level,
    },
    /// Stripe units of a parity unit on a level whose mapping depends on them.
    #[error("{level} needs 1 stripe unit per parity unit, not {found}")]
    ParityUnit {
        /// The level.
        level: Level,
        /// What was asked for.
        found: u32,
    },
    /// A journal for a level that has no write hole.
    #[error("{level} has no write hole, so it needs no journal")]
    NoJournal {
        /// The level.
        level: Level,
    },
    /// The journal cannot be made.
    #[error("the journal cannot be made: {why}")]
    Journal {
        /// Why.
        why: String,
    },
    /// A component failed while it was looked at.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl ConfigureError {
    /// With what is known about columns that are there and count as failed.
    pub(super) fn because(self, notes: &[String]) -> Self {
        match self {
            Self::TooManyLost { names, .. } => Self::TooManyLost { names, why: notes.to_vec() },
            other => other,
        }
    }
}
