//! The partial parity log of RAID 5: for each row that was being written the sum of the data that was not. With what is on the
//! members of the rest that gives a parity that fits, whichever of the writes came to an end.

use std::sync::Arc;

use formats::md::{PplEntry, PplHeader};
use geometry::md::{Geometry, Place, Spot};

use super::pages::Page;
use super::{Member, PAGE};
use crate::Source;

const SECTOR: u64 = 512;
/// Most bytes of a log that are looked at: md makes them of 1 MiB.
const LOG_MAX: u64 = 64 << 20;
/// Most pages of parity that one log may speak of.
const PAGES_MAX: u64 = 64 << 10;

/// Adds the parity that the log of one slot makes up for; says what it was, if it was anything.
pub(super) fn replay(
    slot: usize,
    (at, length): (u64, u64),
    source: &Source,
    uuid: &[u8; 16],
    geometry: &Geometry,
    sources: &[Option<Source>],
    members: &mut [Member],
) -> Option<String> {
    let (header, mut place) = newest(source, at, length.min(LOG_MAX), uuid)?;
    let (mut pages, mut left) = (0, 0);
    for entry in &header.entries {
        // Its own sum tells whether it was written to its end; otherwise none of the data was yet.
        let mut partial = vec![0; entry.parity_length.min(LOG_MAX as u32) as usize];
        let read = source.device.read(place, &mut partial).is_ok();
        let sound = read && (partial.is_empty() || crc32c::crc32c(&partial) == entry.checksum);
        place = place.checked_add(u64::from(entry.parity_length))?;
        if !sound || u64::from(entry.parity_slot) != slot as u64 || pages > PAGES_MAX {
            left += 1;
            continue;
        }
        match row(entry, &partial, slot, geometry, sources) {
            Some(made) => {
                pages += made.len() as u64;
                members.get_mut(slot)?.whole.extend(made);
            }
            None => left += 1,
        }
    }
    let but = if left == 0 {
        String::new()
    } else {
        format!("; {left} of its entries could not be used: in their rows one member's bytes may be torn")
    };
    Some(format!("the partial parity log of slot {slot} is replayed in memory: {pages} pages of parity{but}"))
}

/// The newest header of a log, and where the partial parity behind it is on the disk.
fn newest(source: &Source, at: u64, length: u64, uuid: &[u8; 16]) -> Option<(PplHeader, u64)> {
    let mut found: Option<(PplHeader, u64)> = None;
    let mut offset = 0;
    // Headers lie one behind the other, each with its parity; where the numbers fall, the oldest ones begin.
    while offset + PplHeader::LENGTH as u64 <= length {
        let mut bytes = vec![0; PplHeader::LENGTH];
        source.device.read(at.checked_add(offset)?, &mut bytes).ok()?;
        let Ok(header) = PplHeader::parse(&bytes, uuid, "", at + offset) else { break };
        if found.as_ref().is_some_and(|(last, _)| last.generation > header.generation) {
            break;
        }
        let behind = offset + PplHeader::LENGTH as u64;
        let parity: u64 = header.entries.iter().map(|entry| u64::from(entry.parity_length)).sum();
        found = Some((header, at + behind));
        offset = behind + parity;
    }
    found.filter(|(header, _)| !header.entries.is_empty())
}

/// The pages of parity for one entry: of the data that was being written, and the sum of the rest. `None` if it can't be had:
/// a member with data that was being written is not readable, or nothing of it fits.
fn row(
    entry: &PplEntry,
    partial: &[u8],
    slot: usize,
    geometry: &Geometry,
    sources: &[Option<Source>],
) -> Option<Vec<(u64, Page)>> {
    let (chunk, data) = (geometry.chunk(), u64::from(entry.data_length));
    let columns = geometry.row(0)?.data.len() as u64;
    let first = entry.data_sector.checked_mul(SECTOR)?;
    let parity = partial.len() as u64;
    // A part of each chunk, the same in all of them; or the whole row, of which the last chunks were not written.
    let (width, end) = if parity >= chunk {
        (chunk, first.checked_add(data)?)
    } else {
        let whole_row = (columns, data / columns);
        let (count, width) = data.checked_div(parity).map_or(whole_row, |count| (count, parity));
        (width, first.checked_add(count.checked_sub(1)?.checked_mul(chunk)?)?.checked_add(width)?)
    };
    let aligned = [first, width, end].iter().all(|number| number.is_multiple_of(PAGE));
    if !aligned
        || width == 0
        || width > chunk
        || width / PAGE > PAGES_MAX
        || end <= first
        || end - first > columns * chunk
    {
        return None;
    }
    let mut pages = Vec::new();
    for within in (0..width).step_by(PAGE as usize) {
        let mut sum = partial
            .get(within as usize..(within + PAGE) as usize)
            .map_or_else(|| vec![0; PAGE as usize], <[u8]>::to_vec);
        let mut place = None;
        for address in
            (0..columns).map(|column| first + within + column * chunk).take_while(|address| *address < end)
        {
            let Some((Place::Row { spot, row }, _)) = geometry.locate(address) else { return None };
            // All of it is in one row, with its parity in this slot.
            if usize::from(row.p) != slot || place.is_some_and(|place| place != spot.offset) {
                return None;
            }
            place = Some(spot.offset);
            let bytes = read(sources, spot)?;
            sum.iter_mut().zip(bytes).for_each(|(sum, byte)| *sum ^= byte);
        }
        pages.push((place?, Page::Here(Arc::from(sum))));
    }
    Some(pages)
}

fn read(sources: &[Option<Source>], spot: Spot) -> Option<Vec<u8>> {
    let source = sources.get(usize::from(spot.member))?.as_ref()?;
    if source.clean.is_some() || spot.offset + PAGE > source.valid {
        return None;
    }
    let mut bytes = vec![0; PAGE as usize];
    source.device.read(source.start.checked_add(spot.offset)?, &mut bytes).ok()?;
    Some(bytes)
}
