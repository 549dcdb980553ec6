//! RAID 4, 5 and 6. Every layout repeats after as many stripes as there are members, so the whole of it is a
//! table of that many rows.

use super::{Holds, Rotation5, Rotation6, Spot};

/// Who does what in one stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The member that holds P.
    pub p: u16,
    /// The member that holds Q, at RAID 6.
    pub q: Option<u16>,
    /// The members that hold data, in the order of the array's addresses.
    pub data: Vec<u16>,
    /// For each member that holds data, its power of two in Q; `None` for P and Q. Meaningless without Q.
    pub powers: Vec<Option<u8>>,
}

impl Row {
    /// A row of RAID 4 or 5, or the part of one of RAID 6 that has no Q.
    fn single(p: u16, data: Vec<u16>, members: u16) -> Self {
        Self { p, q: None, data, powers: vec![None; usize::from(members)] }
    }

    /// With Q, and the powers that belong to it.
    fn with_q(mut self, q: u16, members: u16, ddf: bool) -> Self {
        self.q = Some(q);
        self.powers = vec![None; usize::from(members)];
        if ddf {
            for &member in &self.data {
                self.powers[usize::from(member)] = Some(member as u8);
            }
            return self;
        }
        // Round the members from the one after Q, leaving out P.
        let round = (1..members).map(|step| (q + step) % members).filter(|member| *member != self.p);
        for (power, member) in round.enumerate() {
            self.powers[usize::from(member)] = Some(power as u8);
        }
        self
    }

    /// The column of parity arithmetic that belongs to `data[index]`, which is `member`: its power in Q, or
    /// simply its index where there is no Q.
    pub fn column(&self, index: usize, member: u16) -> usize {
        self.powers.get(usize::from(member)).copied().flatten().map_or(index, usize::from)
    }

    /// How many data columns Q counts: above all its powers. DDF counts P and Q as columns of zeros.
    pub fn columns(&self) -> usize {
        self.powers.iter().flatten().max().map_or(self.data.len(), |power| usize::from(*power) + 1)
    }
}

/// The rows of a layout, over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    rows: Vec<Row>,
    chunk: u64,
    /// Stripes in the array.
    stripes: u64,
}

impl Rows {
    fn new(members: u16, chunk: u64, used: u64, row: impl Fn(u16) -> Row) -> Self {
        Self { rows: (0..members).map(row).collect(), chunk, stripes: used / chunk }
    }

    pub(super) fn raid4(members: u16, chunk: u64, used: u64) -> Self {
        Self::raid5(Rotation5::ParityLast, members, chunk, used)
    }

    pub(super) fn raid5(rotation: Rotation5, members: u16, chunk: u64, used: u64) -> Self {
        Self::new(members, chunk, used, |stripe| row5(rotation, members, members, stripe))
    }

    pub(super) fn raid6(rotation: Rotation6, members: u16, chunk: u64, used: u64) -> Self {
        // RAID 5 over all members but one repeats after one stripe less.
        let period = if matches!(rotation, Rotation6::Raid5Q(_)) { members - 1 } else { members };
        Self::new(period, chunk, used, |stripe| row6(rotation, members, stripe))
    }

    pub(super) fn row(&self, stripe: u64) -> &Row {
        &self.rows[(stripe % self.rows.len() as u64) as usize]
    }

    fn width(&self) -> u64 {
        self.rows[0].data.len() as u64 * self.chunk
    }

    pub(super) fn size(&self) -> u64 {
        self.stripes * self.width()
    }

    pub(super) fn locate(&self, address: u64) -> (Spot, &Row, u64) {
        let row = self.row(address / self.width());
        let within = address % self.chunk;
        let member = row.data[(address % self.width() / self.chunk) as usize];
        let spot = Spot { member, offset: address / self.width() * self.chunk + within };
        (spot, row, self.chunk - within)
    }

    pub(super) fn holds(&self, spot: Spot) -> Holds {
        let stripe = spot.offset / self.chunk;
        if stripe >= self.stripes {
            return Holds::Nothing;
        }
        let row = self.row(stripe);
        match row.data.iter().position(|member| *member == spot.member) {
            Some(index) => {
                Holds::Data(stripe * self.width() + index as u64 * self.chunk + spot.offset % self.chunk)
            }
            None if row.p == spot.member => Holds::P(stripe),
            None => Holds::Q(stripe),
        }
    }
}

/// A row of RAID 5 over the first `over` members of `members`. `stripe` is below `over`.
fn row5(rotation: Rotation5, over: u16, members: u16, stripe: u16) -> Row {
    let last = over - 1;
    let stripe = stripe % over;
    let p = match rotation {
        Rotation5::LeftAsymmetric | Rotation5::LeftSymmetric => last - stripe,
        Rotation5::RightAsymmetric | Rotation5::RightSymmetric => stripe,
        Rotation5::ParityFirst => 0,
        Rotation5::ParityLast => last,
    };
    let data = match rotation {
        Rotation5::LeftSymmetric | Rotation5::RightSymmetric => {
            (0..last).map(|index| (p + 1 + index) % over).collect()
        }
        _ => (0..over).filter(|member| *member != p).collect(),
    };
    Row::single(p, data, members)
}

fn row6(rotation: Rotation6, members: u16, stripe: u16) -> Row {
    let ddf = rotation.is_ddf();
    let last = members - 1;
    // The symmetric layouts go on after the parity; the asymmetric ones leave it out.
    let after = |member: u16| (0..members - 2).map(|index| (member + 1 + index) % members).collect();
    let (p, q, data): (u16, u16, Option<Vec<u16>>) = match rotation {
        Rotation6::Md(Rotation5::LeftAsymmetric) => (last - stripe, (last - stripe + 1) % members, None),
        Rotation6::Md(Rotation5::RightAsymmetric) | Rotation6::DdfZeroRestart => {
            (stripe, (stripe + 1) % members, None)
        }
        Rotation6::Md(Rotation5::LeftSymmetric) => {
            let q = (last - stripe + 1) % members;
            (last - stripe, q, Some(after(q)))
        }
        Rotation6::Md(Rotation5::RightSymmetric) => {
            let q = (stripe + 1) % members;
            (stripe, q, Some(after(q)))
        }
        Rotation6::Md(Rotation5::ParityFirst) => (0, 1, None),
        Rotation6::Md(Rotation5::ParityLast) => (last - 1, last, None),
        // As left-asymmetric, one stripe on.
        Rotation6::DdfNRestart => {
            let p = last - (stripe + 1) % members;
            (p, (p + 1) % members, None)
        }
        Rotation6::DdfNContinue => {
            let p = last - stripe;
            (p, (p + last) % members, Some(after(p)))
        }
        Rotation6::Raid5Q(inner) => {
            let row = row5(inner, last, members, stripe);
            (row.p, last, Some(row.data))
        }
    };
    let skipping = || (0..members).filter(|member| *member != p && *member != q).collect();
    Row::single(p, data.unwrap_or_else(skipping), members).with_q(q, members, ddf)
}
