//! The write journal of RAID 4, 5 and 6: from its tail on, block after block, as long as each has the next number and the
//! checksums of all that follows it fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::BlockDevice;
use formats::md::{JournalBlock, JournalPayload};
use geometry::md::{Geometry, Place};

use super::pages::Page;
use super::{JournalAt, Member, PAGE, PAGES_MAX};

const SECTOR: u64 = 512;

/// A journal being read.
struct Ring<'a> {
    at: &'a JournalAt,
    disk: &'a Arc<dyn BlockDevice>,
}

impl Ring<'_> {
    /// `by` bytes behind a place.
    fn behind(&self, place: u64, by: u64) -> u64 {
        (place + by) % self.at.size
    }

    fn page(&self, place: u64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; PAGE as usize];
        let at = self.at.offset.checked_add(place).ok_or("it ends behind its disk")?;
        self.disk.read(at, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// What the journal has of one row of pages: the member and the place in the ring of each.
#[derive(Default)]
struct Stripe {
    /// From turns that ended with their parity.
    done: BTreeMap<u16, u64>,
    /// Data whose parity has not come yet.
    data: BTreeMap<u16, u64>,
}

/// Adds what the journal has to the members; says what it was.
pub(super) fn replay(
    at: &JournalAt,
    uuid: &[u8; 16],
    geometry: &Geometry,
    disk: &Arc<dyn BlockDevice>,
    members: &mut [Member],
) -> String {
    if at.size < 2 * PAGE
        || at.tail >= at.size
        || !at.size.is_multiple_of(PAGE)
        || !at.tail.is_multiple_of(PAGE)
    {
        return "its journal can't be where its superblock says; it is not replayed".to_owned();
    }
    let ring = Ring { at, disk };
    let mut stripes: BTreeMap<u64, Stripe> = BTreeMap::new();
    let (mut place, mut used, mut pages, mut blocks) = (at.tail, 0, 0, 0_u64);
    let mut sequence = None;
    // What ends it: the next number is not there, as it ought to be, or something that was to be there can't be had.
    let why = loop {
        if used + PAGE > at.size {
            break None;
        }
        if pages > PAGES_MAX {
            break Some(format!("only the first {pages} pages of it are"));
        }
        let block = match ring.page(place) {
            Ok(bytes) => JournalBlock::parse(&bytes, uuid, "", place),
            Err(why) => break Some(format!("what follows can't be read: {why}")),
        };
        let Ok(Some(block)) = block else { break None };
        if block.position.checked_mul(SECTOR) != Some(place)
            || sequence.is_some_and(|next| block.sequence != next)
        {
            break None;
        }
        match payloads(&ring, &block, uuid, place) {
            Ok(Some(length)) if used + length <= at.size => {
                apply(&ring, &block, geometry, place, &mut stripes);
                place = ring.behind(place, length);
                used += length;
                pages += (length / PAGE) as usize;
            }
            // A block whose data was still on its way: the kernel ends here as well.
            Ok(_) => break None,
            Err(why) => break Some(format!("what follows can't be read: {why}")),
        }
        sequence = Some(block.sequence.wrapping_add(1));
        blocks += 1;
    };
    let (mut rows, mut ahead) = (0, 0);
    for (offset, stripe) in stripes {
        if stripe.data.is_empty() {
            rows += 1
        } else {
            ahead += 1
        }
        let page = |place: u64| Page::On(Arc::clone(disk), at.offset + place);
        for (member, place) in stripe.done {
            members.get_mut(usize::from(member)).map(|member| member.whole.insert(offset, page(place)));
        }
        for (member, place) in stripe.data {
            members.get_mut(usize::from(member)).map(|member| member.ahead.insert(offset, page(place)));
        }
    }
    let but = why.map_or_else(String::new, |why| format!("; {why}"));
    format!(
        "its journal is replayed in memory: {blocks} blocks, {rows} rows of 4 KiB with their parity, {ahead} with data \
         that parity does not know of{but}"
    )
}

/// How long a block is with all that belongs to it, bytes, if the checksums of all of that fit.
fn payloads(
    ring: &Ring<'_>,
    block: &JournalBlock,
    uuid: &[u8; 16],
    place: u64,
) -> Result<Option<u64>, String> {
    let seed = crc32c::crc32c(uuid);
    let mut length = PAGE;
    for payload in &block.payloads {
        let (JournalPayload::Data { checksums, .. } | JournalPayload::Parity { checksums, .. }) = payload
        else {
            continue;
        };
        for sum in checksums {
            let bytes = ring.page(ring.behind(place, length))?;
            if !crc32c::crc32c_append(seed, &bytes) != *sum {
                return Ok(None);
            }
            length += PAGE;
        }
    }
    Ok(Some(length))
}

/// Notes what a block has, whose checksums fit.
fn apply(
    ring: &Ring<'_>,
    block: &JournalBlock,
    geometry: &Geometry,
    place: u64,
    stripes: &mut BTreeMap<u64, Stripe>,
) {
    let mut place = ring.behind(place, PAGE);
    for payload in &block.payloads {
        match payload {
            JournalPayload::Data { location, checksums } => {
                let address = location.checked_mul(SECTOR).filter(|address| address.is_multiple_of(PAGE));
                if let Some((Place::Row { spot, .. }, _)) =
                    address.and_then(|address| geometry.locate(address))
                {
                    stripes.entry(spot.offset).or_default().data.insert(spot.member, place);
                }
                place = ring.behind(place, checksums.len() as u64 * PAGE);
            }
            JournalPayload::Parity { location, checksums } => {
                let offset = location.checked_mul(SECTOR).filter(|offset| offset.is_multiple_of(PAGE));
                let row = offset.and_then(|offset| geometry.row(offset / geometry.chunk()));
                if let (Some(offset), Some(row)) = (offset, row) {
                    let stripe = stripes.entry(offset).or_default();
                    for (index, member) in
                        [Some(row.p), row.q].into_iter().flatten().take(checksums.len()).enumerate()
                    {
                        stripe.done.insert(member, ring.behind(place, index as u64 * PAGE));
                    }
                    let data = std::mem::take(&mut stripe.data);
                    stripe.done.extend(data);
                }
                place = ring.behind(place, checksums.len() as u64 * PAGE);
            }
            JournalPayload::Flush { stripes: flushed } => {
                for stripe in flushed {
                    stripe.checked_mul(SECTOR).map(|offset| stripes.remove(&offset));
                }
            }
        }
    }
}
