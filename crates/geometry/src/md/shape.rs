//! Levels and layouts: md's codes for them and mdadm's names.

use std::fmt;

use super::{Copies, FarSets, MAX_MEMBERS, MdError};

/// Level and layout of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One member after the other.
    Linear,
    /// Striping without redundancy.
    Raid0(ZoneOrder),
    /// Every member holds everything.
    Raid1,
    /// Parity on the last member. (Device-mapper's "raid4" has it on the first: [`Rotation5::ParityFirst`].)
    Raid4,
    /// Rotating or dedicated P.
    Raid5(Rotation5),
    /// P and Q.
    Raid6(Rotation6),
    /// Striped copies.
    Raid10(Copies),
}

/// How RAID 0 goes on where the smaller members have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneOrder {
    /// Layout 1, kernels before 3.14: the member follows from the chunk's number in the array.
    Original,
    /// Layout 2, kernels since 3.14: the member follows from the chunk's number in the zone.
    Alternate,
}

/// How P moves from stripe to stripe in RAID 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rotation5 {
    /// Layout 0.
    LeftAsymmetric,
    /// Layout 1.
    RightAsymmetric,
    /// Layout 2, the usual one.
    LeftSymmetric,
    /// Layout 3.
    RightSymmetric,
    /// Layout 4: P always on the first member.
    ParityFirst,
    /// Layout 5: P always on the last member.
    ParityLast,
}

impl Rotation5 {
    /// All of them, by their code.
    pub const ALL: [Self; 6] = [
        Self::LeftAsymmetric,
        Self::RightAsymmetric,
        Self::LeftSymmetric,
        Self::RightSymmetric,
        Self::ParityFirst,
        Self::ParityLast,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::LeftAsymmetric => "left-asymmetric",
            Self::RightAsymmetric => "right-asymmetric",
            Self::LeftSymmetric => "left-symmetric",
            Self::RightSymmetric => "right-symmetric",
            Self::ParityFirst => "parity-first",
            Self::ParityLast => "parity-last",
        }
    }

    const fn code(self) -> u32 {
        self as u32
    }
}

/// How P and Q move from stripe to stripe in RAID 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rotation6 {
    /// Layouts 0 to 5: as RAID 5, with Q right after P.
    Md(Rotation5),
    /// Layout 8.
    DdfZeroRestart,
    /// Layout 9.
    DdfNRestart,
    /// Layout 10.
    DdfNContinue,
    /// Layouts 16 to 20: RAID 5 over all members but the last, which holds Q. Not with [`Rotation5::ParityLast`],
    /// which is layout 5.
    Raid5Q(Rotation5),
}

impl Rotation6 {
    /// All of them, in the order of their codes.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = Rotation5::ALL.into_iter().map(Self::Md);
        let ddf = [Self::DdfZeroRestart, Self::DdfNRestart, Self::DdfNContinue];
        own.chain(ddf).chain(Rotation5::ALL[..5].iter().copied().map(Self::Raid5Q))
    }

    /// Whether Q counts members by their place, P and Q included, as DDF has it.
    pub const fn is_ddf(self) -> bool {
        matches!(self, Self::DdfZeroRestart | Self::DdfNRestart | Self::DdfNContinue)
    }

    const fn code(self) -> u32 {
        match self {
            Self::Md(rotation) => rotation.code(),
            Self::DdfZeroRestart => 8,
            Self::DdfNRestart => 9,
            Self::DdfNContinue => 10,
            Self::Raid5Q(rotation) => 16 + rotation.code(),
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        Self::all().find(|rotation| rotation.code() == code)
    }
}

impl Shape {
    /// The shape that md's superblock means by these numbers. For RAID 0 the layouts 0 and 2 both are
    /// [`ZoneOrder::Alternate`]: 0 means that nobody wrote it down.
    ///
    /// # Errors
    /// No such level, or the level has no such layout.
    pub fn from_codes(level: i32, layout: u32) -> Result<Self, MdError> {
        let unknown = MdError::Layout { level, layout };
        Ok(match level {
            -1 => Self::Linear,
            0 => Self::Raid0(match layout {
                0 | 2 => ZoneOrder::Alternate,
                1 => ZoneOrder::Original,
                _ => return Err(unknown),
            }),
            1 => Self::Raid1,
            4 => Self::Raid4,
            5 => Self::Raid5(*Rotation5::ALL.get(layout as usize).ok_or(unknown)?),
            6 => Self::Raid6(Rotation6::from_code(layout).ok_or(unknown)?),
            10 => Self::Raid10(Copies::from_code(layout).ok_or(unknown)?),
            _ => return Err(MdError::Level(level)),
        })
    }

    /// Level and layout as md's superblock has them.
    pub fn codes(self) -> (i32, u32) {
        match self {
            Self::Linear => (-1, 0),
            Self::Raid0(ZoneOrder::Original) => (0, 1),
            Self::Raid0(ZoneOrder::Alternate) => (0, 2),
            Self::Raid1 => (1, 0),
            Self::Raid4 => (4, 0),
            Self::Raid5(rotation) => (5, rotation.code()),
            Self::Raid6(rotation) => (6, rotation.code()),
            Self::Raid10(copies) => (10, copies.code()),
        }
    }

    /// The fewest and the most members.
    pub(super) fn members(self) -> (usize, usize) {
        match self {
            Self::Linear | Self::Raid0(_) | Self::Raid1 => (1, MAX_MEMBERS),
            Self::Raid4 | Self::Raid5(_) => (2, MAX_MEMBERS),
            // The powers of two repeat after 255, and DDF numbers all members with them.
            Self::Raid6(rotation) if rotation.is_ddf() => (4, 255),
            Self::Raid6(_) => (3, 257),
            Self::Raid10(copies) => (usize::from(copies.count()), MAX_MEMBERS),
        }
    }

    /// How many members may be lost at worst with nothing lost, if the array has `members` of them.
    pub fn tolerates(self, members: u16) -> u16 {
        match self {
            Self::Linear | Self::Raid0(_) => 0,
            Self::Raid1 => members.saturating_sub(1),
            Self::Raid4 | Self::Raid5(_) => 1,
            Self::Raid6(_) => 2,
            Self::Raid10(copies) => copies.count().saturating_sub(1),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("linear"),
            Self::Raid0(ZoneOrder::Original) => f.write_str("raid0 original"),
            Self::Raid0(ZoneOrder::Alternate) => f.write_str("raid0 alternate"),
            Self::Raid1 => f.write_str("raid1"),
            Self::Raid4 => f.write_str("raid4"),
            Self::Raid5(rotation) => write!(f, "raid5 {}", rotation.name()),
            Self::Raid6(Rotation6::Md(rotation)) => write!(f, "raid6 {}", rotation.name()),
            Self::Raid6(Rotation6::DdfZeroRestart) => f.write_str("raid6 ddf-zero-restart"),
            Self::Raid6(Rotation6::DdfNRestart) => f.write_str("raid6 ddf-N-restart"),
            Self::Raid6(Rotation6::DdfNContinue) => f.write_str("raid6 ddf-N-continue"),
            Self::Raid6(Rotation6::Raid5Q(rotation)) => write!(f, "raid6 {}-6", rotation.name()),
            Self::Raid10(copies) => {
                f.write_str("raid10")?;
                if copies.near > 1 || copies.far == 1 {
                    write!(f, " near={}", copies.near)?;
                }
                if copies.far > 1 {
                    write!(f, " {}={}", if copies.offset { "offset" } else { "far" }, copies.far)?;
                }
                f.write_str(match copies.sets {
                    FarSets::All => "",
                    FarSets::ByCount => " sets of members/far",
                    FarSets::BySize => " sets of near*far",
                })
            }
        }
    }
}
