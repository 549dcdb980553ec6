//! RAID 10: near, far and offset copies.

use super::{Holds, MAX_MEMBERS, Spot};

/// What RAID 10 calls its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Copies {
    /// Copies side by side in one row, at least 1.
    pub near: u8,
    /// Copies of whole rows, at least 1.
    pub far: u8,
    /// Whether the far copies of a row follow it at once, instead of in a section of their own.
    pub offset: bool,
    /// Among which members the far copies move.
    pub sets: FarSets,
}

/// Among which members far copies move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FarSets {
    /// All.
    All,
    /// Sets of members / far, as an early version of the kernel had it.
    ByCount,
    /// Sets of near * far.
    BySize,
}

const OFFSET: u32 = 1 << 16;

impl Copies {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        let sets = match code >> 17 {
            0 => FarSets::All,
            1 => FarSets::ByCount,
            2 => FarSets::BySize,
            _ => return None,
        };
        let copies = Self { near: code as u8, far: (code >> 8) as u8, offset: code & OFFSET != 0, sets };
        (1..=MAX_MEMBERS).contains(&usize::from(copies.count())).then_some(copies)
    }

    pub(super) fn code(self) -> u32 {
        let sets = match self.sets {
            FarSets::All => 0,
            FarSets::ByCount => 1 << 17,
            FarSets::BySize => 2 << 17,
        };
        u32::from(self.near) | u32::from(self.far) << 8 | u32::from(self.offset) << 16 | sets
    }

    /// How many copies of everything there are.
    pub fn count(self) -> u16 {
        u16::from(self.near) * u16::from(self.far)
    }
}

/// The copies over a number of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirrors {
    copies: Copies,
    members: u64,
    chunk: u64,
    /// Between a row and its next far copy, in chunks.
    stride: u64,
    /// Where each member's next far copy is.
    next: Vec<u16>,
    /// Chunks in the array.
    chunks: u64,
}

impl Mirrors {
    pub(super) fn new(copies: Copies, members: u16, chunk: u64, used: u64) -> Self {
        let (near, far, count) = (u64::from(copies.near), u64::from(copies.far), u64::from(members));
        let chunks = used / chunk / far * count / near;
        let stride = if copies.offset { 1 } else { (chunks * near * far).div_ceil(count) / far };
        let next = (0..members).map(|member| next_far(copies, members, member)).collect();
        Self { copies, members: count, chunk, stride, next, chunks }
    }

    pub(super) fn size(&self) -> u64 {
        self.chunks * self.chunk
    }

    /// Rows between the beginnings of two neighbouring rows of the first copy.
    fn pitch(&self) -> u64 {
        if self.copies.offset { u64::from(self.copies.far) } else { 1 }
    }

    /// The copies of a chunk: member and row on it.
    fn spots(&self, chunk: u64) -> impl Iterator<Item = (u16, u64)> {
        let near = u64::from(self.copies.near);
        let first = chunk * near;
        let row = first / self.members * self.pitch();
        (0..near).flat_map(move |copy| {
            let place = first % self.members + copy;
            // What wraps to the first member is one row lower.
            let row = row + place / self.members;
            let mut member = (place % self.members) as u16;
            (0..u64::from(self.copies.far)).map(move |far| {
                let at = (member, row + far * self.stride);
                member = self.next[usize::from(member)];
                at
            })
        })
    }

    pub(super) fn locate(&self, address: u64) -> (Vec<Spot>, u64) {
        let within = address % self.chunk;
        let spot = |(member, row)| Spot { member, offset: row * self.chunk + within };
        (self.spots(address / self.chunk).map(spot).collect(), self.chunk - within)
    }

    pub(super) fn holds(&self, spot: Spot) -> Holds {
        let (row, within) = (spot.offset / self.chunk, spot.offset % self.chunk);
        let near = u64::from(self.copies.near);
        let far = u64::from(self.copies.far);
        // For each copy that this may be: who held the first one, and in which row of first copies.
        for copy in 0..far {
            let Some(base) = row.checked_sub(copy * self.stride) else { break };
            let origins = (0..self.members as u16).filter(|origin| {
                let end = (0..copy).fold(*origin, |member, _| self.next[usize::from(member)]);
                end == spot.member
            });
            for origin in origins {
                // A near copy that has wrapped lies one row lower than its row of first copies.
                let rows = [Some(base), base.checked_sub(1)].into_iter().flatten();
                for base in rows.filter(|base| base.is_multiple_of(self.pitch())) {
                    let place = base / self.pitch() * self.members + u64::from(origin);
                    for chunk in [place / near, (place + self.members) / near] {
                        if chunk < self.chunks && self.spots(chunk).any(|at| at == (spot.member, row)) {
                            return Holds::Data(chunk * self.chunk + within);
                        }
                    }
                }
            }
        }
        Holds::Nothing
    }
}

/// The member that holds the far copy of what `member` holds.
fn next_far(copies: Copies, members: u16, member: u16) -> u16 {
    let near = u16::from(copies.near);
    let size = match copies.sets {
        FarSets::All => members,
        FarSets::ByCount => members / u16::from(copies.far),
        FarSets::BySize => near * u16::from(copies.far),
    }
    .clamp(1, members);
    let over = members % size;
    // The members that fill no set of their own belong to the last one.
    let last = (members / size - 1) * size;
    let next = member + near;
    if over != 0 && next > last {
        last + (next - last) % (size + over)
    } else {
        member / size * size + next % size
    }
}
