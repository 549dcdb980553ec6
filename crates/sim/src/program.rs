//! What is done to a pool: a list of steps, each with a number of its own from which all its choices follow, so that
//! leaving some out does not change what the others mean.

use std::fmt;

use device::Rng;
use geometry::Profile;
use pool::spec::{Draid, GroupKind};

/// One kind of thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    // What users do to volumes.
    Write,
    Read,
    Discard,
    Flush,
    Create,
    Destroy,
    Resize,
    Property,
    Snapshot,
    SnapshotDestroy,
    Rollback,
    Fill,
    // What administrators do.
    Scrub,
    Replace,
    ReplaceBySpare,
    Attach,
    Detach,
    Offline,
    Online,
    Add,
    AddSpare,
    RemoveSpare,
    Remove,
    Grow,
    Clear,
    Check,
    Export,
    ReadOnly,
    // What time does.
    Tick,
    Settle,
    Wait,
    DropCaches,
    Behind,
    // What goes wrong.
    PowerCut,
    Kill,
    Pull,
    Return,
    Rot,
    ReadErrors,
    WriteErrors,
    Effect,
    Rates,
    Wipe,
    Split,
    Heal,
    Overload,
    Latency,
    Rewind,
    // What is about the pool as a whole.
    Recreate,
    Foreign,
    Other,
    Unopenable,
    Rename,
    PoolProperty,
    // What re-shapes space.
    Balance,
    BalanceControl,
    Convert,
    DeviceResize,
    // What keeps a state of all.
    Checkpoint,
    CheckpointDiscard,
    RewindToCheckpoint,
}

/// How often each kind is chosen.
pub const WEIGHTS: [(Kind, u64); 61] = [
    (Kind::Write, 260),
    (Kind::Read, 60),
    (Kind::Discard, 50),
    (Kind::Flush, 90),
    (Kind::Create, 24),
    (Kind::Destroy, 12),
    (Kind::Resize, 14),
    (Kind::Property, 12),
    (Kind::Snapshot, 36),
    (Kind::SnapshotDestroy, 24),
    (Kind::Rollback, 12),
    (Kind::Fill, 0), // See FILL_WEIGHT.
    (Kind::Scrub, 16),
    (Kind::Replace, 12),
    (Kind::ReplaceBySpare, 5),
    (Kind::Attach, 8),
    (Kind::Detach, 8),
    (Kind::Offline, 10),
    (Kind::Online, 14),
    (Kind::Add, 5),
    (Kind::AddSpare, 5),
    (Kind::RemoveSpare, 4),
    (Kind::Remove, 12),
    (Kind::Grow, 4),
    (Kind::Clear, 6),
    (Kind::Check, 8),
    (Kind::Export, 8),
    (Kind::ReadOnly, 16),
    (Kind::Tick, 60),
    (Kind::Settle, 12),
    (Kind::Wait, 12),
    (Kind::DropCaches, 14),
    (Kind::PowerCut, 40),
    (Kind::Kill, 8),
    (Kind::Pull, 12),
    (Kind::Return, 18),
    (Kind::Rot, 14),
    (Kind::ReadErrors, 8),
    (Kind::WriteErrors, 5),
    (Kind::Effect, 24),
    (Kind::Rates, 6),
    (Kind::Wipe, 3),
    (Kind::Split, 30),
    (Kind::Heal, 10),
    (Kind::Overload, 4),
    (Kind::Behind, 50),
    (Kind::Latency, 8),
    (Kind::Rewind, 8),
    (Kind::Recreate, 5),
    (Kind::Foreign, 8),
    (Kind::Other, 5),
    (Kind::Unopenable, 10),
    (Kind::Rename, 6),
    (Kind::PoolProperty, 6),
    (Kind::Balance, 24),
    (Kind::BalanceControl, 8),
    (Kind::Convert, 12),
    (Kind::DeviceResize, 12),
    (Kind::Checkpoint, 16),
    (Kind::CheckpointDiscard, 6),
    (Kind::RewindToCheckpoint, 12),
];

/// The weights of the first kinds as they were when the seeds in `tests/regressions.rs` up to 500,000 were found: never
/// to be changed, or these seeds stand for other programs.
const FIRST_WEIGHTS: [u64; 44] = [
    260, 60, 50, 90, 24, 12, 14, 12, 36, 24, 12, 0, 16, 12, 5, 8, 8, 10, 14, 5, 5, 4, 4, 6, 8, 8, 16, 60, 12,
    12, 14, 40, 8, 12, 18, 14, 8, 5, 24, 6, 3, 8, 10, 4,
];

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub kind: Kind,
    /// All its choices.
    pub seed: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:#x}", self.kind, self.seed)
    }
}

/// The pool to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Groups: kind and size of each device, MiB.
    pub groups: Vec<(GroupKind, Vec<u64>)>,
    /// Data profile of plain disks.
    pub data: Option<Profile>,
    /// Metadata profile of plain disks.
    pub metadata: Option<Profile>,
}

/// A pool and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// For everything that is not a choice of a step.
    pub seed: u64,
    /// The pool.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step>,
}

/// How often pools that are small enough are filled up, in the runs that do so.
const FILL_WEIGHT: u64 = 10;

const SIZES: [u64; 6] = [64, 64, 65, 72, 80, 100];

fn sizes(rng: &mut Rng, count: u64) -> Vec<u64> {
    let mixed = rng.chance(1, 2);
    let first = *rng.choose(&SIZES).unwrap_or(&64);
    (0..count).map(|_| if mixed { *rng.choose(&SIZES).unwrap_or(&64) } else { first }).collect()
}

/// A random group of no more than `most` devices.
pub fn group(rng: &mut Rng, most: u64) -> (GroupKind, Vec<u64>) {
    let wide = if rng.chance(1, 10) { most } else { most.min(6) };
    let kind = match rng.below(8) {
        0..2 => GroupKind::Plain,
        2..4 => GroupKind::Mirror,
        4..6 => GroupKind::Raidz(1),
        6 => GroupKind::Raidz(2),
        _ => GroupKind::Raidz(3),
    };
    let least = match kind {
        GroupKind::Plain | GroupKind::Spare => 1,
        GroupKind::Mirror => 2,
        GroupKind::Raidz(parity) => u64::from(parity) + 1,
        GroupKind::Draid(draid) => draid.min_devices() as u64,
    };
    let most = if kind == GroupKind::Mirror { wide.min(4) } else { wide };
    let count = rng.within(least..most.max(least) + 1);
    (kind, sizes(rng, count))
}

/// Makes a raidz of so many devices a draid, if they are enough for one with a spare or a choice.
pub(crate) fn as_draid(rng: &mut Rng, kind: GroupKind, devices: usize) -> GroupKind {
    let GroupKind::Raidz(parity) = kind else { return kind };
    let Some(more) = devices.checked_sub(usize::from(parity) + 2) else { return kind };
    let data = 1 + rng.below(more.min(8) as u64 + 1) as u8;
    let spares = rng.below((devices - usize::from(parity + data)).min(3) as u64 + 1) as u8;
    GroupKind::Draid(Draid { parity, data, spares })
}

/// A random pool.
pub(crate) fn setup(rng: &mut Rng) -> Setup {
    let mut groups = vec![group(rng, 24)];
    while groups.len() < 3 && rng.chance(1, 4) {
        groups.push(group(rng, 5));
    }
    let plain: u64 =
        groups.iter().filter(|(kind, _)| *kind == GroupKind::Plain).map(|(_, d)| d.len() as u64).sum();
    if rng.chance(1, 4) {
        let count = rng.within(1..3);
        groups.push((GroupKind::Spare, sizes(rng, count)));
    }
    let (mut data, mut metadata) = (None, None);
    if plain > 0 {
        let fits: Vec<Profile> =
            Profile::ALL.into_iter().filter(|profile| u64::from(profile.min_devices()) <= plain).collect();
        let copies: Vec<Profile> = fits
            .iter()
            .copied()
            .filter(|profile| !matches!(profile, Profile::Raid5 | Profile::Raid6))
            .collect();
        if rng.chance(3, 4) {
            data = rng.choose(&fits).copied();
        }
        if rng.chance(1, 2) {
            metadata = rng.choose(&copies).copied();
        }
    }
    Setup { groups, data, metadata }
}

impl Program {
    /// The program that belongs to a seed.
    pub fn new(seed: u64, steps: usize) -> Self {
        let mut program = Self::chosen(seed, steps, &WEIGHTS, FILL_WEIGHT);
        // Drawn apart, so that what a seed stands for stays as it was in all else.
        let mut rng = Rng::new(seed ^ 0x0064_7261_6964);
        for (kind, sizes) in &mut program.setup.groups {
            if rng.chance(1, 3) {
                *kind = as_draid(&mut rng, *kind, sizes.len());
            }
        }
        program
    }

    /// The program that belonged to a seed when there were the first kinds of steps only.
    pub fn first(seed: u64, steps: usize) -> Self {
        let weights: Vec<(Kind, u64)> =
            WEIGHTS.iter().zip(FIRST_WEIGHTS).map(|((kind, _), weight)| (*kind, weight)).collect();
        Self::chosen(seed, steps, &weights, 0)
    }

    fn chosen(seed: u64, steps: usize, weights: &[(Kind, u64)], fill: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0073_696d_756c_6174);
        let setup = setup(&mut rng);
        let mut weights = weights.to_vec();
        // Each run likes some things more than others, so that rare combinations come up.
        for (kind, weight) in &mut weights {
            match rng.below(8) {
                0 => *weight *= 4,
                1 if !matches!(kind, Kind::Write | Kind::Flush | Kind::Create) => *weight = 0,
                _ => {}
            }
        }
        let small: u64 = setup.groups.iter().flat_map(|(_, sizes)| sizes).sum();
        if rng.chance(1, 20) && small <= 400 {
            weights[11].1 = fill;
        }
        let total = weights.iter().map(|(_, weight)| weight).sum();
        let mut list = vec![Step { kind: Kind::Create, seed: rng.next_u64() }];
        while list.len() < steps {
            let mut ticket = rng.below(total);
            let chosen = weights.iter().find(|(_, weight)| {
                let hit = ticket < *weight;
                ticket = ticket.wrapping_sub(*weight);
                hit
            });
            list.push(Step { kind: chosen.map_or(Kind::Write, |(kind, _)| *kind), seed: rng.next_u64() });
        }
        Self { seed, setup, steps: list }
    }
}
