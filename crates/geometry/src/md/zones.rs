//! Linear and RAID 0: no redundancy, and members of any size.

use super::{Holds, SECTOR, Spot, ZoneOrder};

/// A part of the array over which the same members are striped.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Zone {
    /// First array address.
    begin: u64,
    /// Behind the last array address.
    end: u64,
    /// Where it begins on each of its members.
    start: u64,
    /// The members, in the order of their roles.
    members: Vec<u16>,
    /// What is added to a chunk's number in the zone before it is dealt to a member.
    turn: u64,
    /// The unit that is dealt, bytes. Longer than the zone if there is one member.
    chunk: u64,
}

impl Zone {
    fn rows(&self) -> u64 {
        (self.end - self.begin) / self.chunk / self.members.len() as u64
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zones {
    /// In the order of addresses, none empty.
    zones: Vec<Zone>,
    size: u64,
}

impl Zones {
    pub(super) fn linear(chunk: u64, sizes: &[u64]) -> Self {
        let unit = chunk.max(SECTOR);
        let mut begin = 0;
        let mut zones = Vec::new();
        for (member, size) in (0..).zip(sizes) {
            let length = size / unit * unit;
            if length > 0 {
                let end = begin + length;
                zones.push(Zone { begin, end, start: 0, members: vec![member], turn: 0, chunk: length });
                begin = end;
            }
        }
        Self { zones, size: begin }
    }

    pub(super) fn striped(order: ZoneOrder, chunk: u64, sizes: &[u64]) -> Self {
        let lengths: Vec<u64> = sizes.iter().map(|size| size / chunk * chunk).collect();
        let mut ends = lengths.clone();
        ends.sort_unstable();
        ends.dedup();
        let mut zones: Vec<Zone> = Vec::new();
        let (mut begin, mut start) = (0, 0);
        for length in ends {
            let members: Vec<u16> =
                (0..).zip(&lengths).filter(|(_, own)| **own > start).map(|(member, _)| member).collect();
            if length == start || members.is_empty() {
                continue;
            }
            let end = begin + (length - start) * members.len() as u64;
            let turn = match order {
                ZoneOrder::Original => begin / chunk,
                ZoneOrder::Alternate => 0,
            };
            zones.push(Zone { begin, end, start, members, turn, chunk });
            (begin, start) = (end, length);
        }
        // The kernel rounds with a bit mask, so a chunk that is no power of two makes the array end early.
        let mask = chunk / SECTOR - 1;
        let size = lengths.iter().map(|length| ((length / SECTOR) & !mask) * SECTOR).sum::<u64>();
        Self { zones, size: size.min(begin) }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn locate(&self, address: u64) -> Option<(Spot, u64)> {
        let zone = &self.zones[self.zones.partition_point(|zone| zone.end <= address)..].first()?;
        let relative = address.checked_sub(zone.begin)?;
        let (number, within) = (relative / zone.chunk, relative % zone.chunk);
        let width = zone.members.len() as u64;
        let member = zone.members[((zone.turn + number) % width) as usize];
        Some((
            Spot { member, offset: zone.start + number / width * zone.chunk + within },
            zone.chunk - within,
        ))
    }

    pub(super) fn holds(&self, spot: Spot) -> Holds {
        let on_member = self.zones.iter().filter_map(|zone| {
            let index = zone.members.iter().position(|member| *member == spot.member)? as u64;
            Some((zone, index))
        });
        for (zone, index) in on_member {
            let Some(relative) = spot.offset.checked_sub(zone.start) else { continue };
            let row = relative / zone.chunk;
            if row >= zone.rows() {
                continue;
            }
            let width = zone.members.len() as u64;
            let first = row * width;
            // The one of the row's chunks that is dealt to this member.
            let step = (index + width - (zone.turn + first) % width) % width;
            return Holds::Data(zone.begin + (first + step) * zone.chunk + relative % zone.chunk);
        }
        Holds::Nothing
    }
}
