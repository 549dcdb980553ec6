//! Members of ZFS pools.
//!
//! Four labels of 256 KiB, two at each end of the device cut to a multiple of 256 KiB. Each has at 16 KiB a
//! list of name-value pairs in XDR that ends at 128 KiB with a checksum, and from 128 KiB on a ring of
//! uberblocks.

use crate::fields::Fields;
use crate::reader::Reader;
use crate::{Found, Kind};

const LABEL: u64 = 256 << 10;
const PAIRS_AT: usize = 16 << 10;
const RING_AT: usize = 128 << 10;
/// Uberblocks begin at multiples of this, or of a larger sector.
const SLOT: usize = 1024;
const UBERBLOCK: u64 = 0x00ba_b10c;
/// Marks an embedded checksum; followed by 32 bytes of it.
const CHECKSUM: u64 = 0x0210_da7a_b10c_7a11;
const CHECKSUM_AT: usize = RING_AT - 40;

/// By its uberblocks, or by a list of pairs, in any of the labels.
pub(crate) fn member(reader: &Reader<'_>) -> Option<Found> {
    let whole = reader.size() / LABEL;
    let mut labels: Vec<u64> = [0, 1, whole.wrapping_sub(2), whole.wrapping_sub(1)].into();
    labels.retain(|number| *number < whole);
    labels.sort_unstable();
    labels.dedup();
    let labels = labels.into_iter().map(|number| number * LABEL).filter_map(|at| {
        let label = reader.at(at, LABEL as usize)?;
        let mut found = Found::new(Kind::Zfs, at, at, 0);
        found.signatures.clear();
        let magic = |offset, value| label.le64(offset) == Some(value) || label.be64(offset) == Some(value);
        if magic(CHECKSUM_AT, CHECKSUM)
            && let Some(pairs) = pairs(label.get(PAIRS_AT..CHECKSUM_AT)?)
        {
            found.signatures.push(at + CHECKSUM_AT as u64..at + CHECKSUM_AT as u64 + 8);
            found.label = pairs.name;
            found.uuid = pairs.pool_guid.map(|guid| guid.to_string());
        }
        for slot in (RING_AT..LABEL as usize).step_by(SLOT) {
            if magic(slot, UBERBLOCK) {
                found.signatures.push(at + slot as u64..at + slot as u64 + 8);
            }
        }
        (!found.signatures.is_empty()).then_some(found)
    });
    Found::merge(&[0], labels)
}

/// What a label's pairs say about the pool.
#[derive(Default)]
struct Pairs {
    name: Option<String>,
    pool_guid: Option<u64>,
}

/// Reads the outermost pairs; `None` if the bytes are no such list. Everything in XDR is big-endian and
/// padded to four bytes. A pair is its own length, its decoded length, a name, a type, a count, the value.
fn pairs(bytes: &[u8]) -> Option<Pairs> {
    const XDR: u8 = 1;
    const UINT64: u32 = 8;
    const STRING: u32 = 9;

    if bytes.u8(0)? != XDR || bytes.be32(4)? != 0 {
        return None;
    }
    let mut result = Pairs::default();
    let mut at = 12;
    loop {
        let length = bytes.be32(at)? as usize;
        if length == 0 {
            return Some(result);
        }
        let pair = bytes.range(at, length)?;
        let name_length = pair.be32(8)? as usize;
        let name = pair.range(12, name_length)?;
        let kind_at = 12 + name_length.next_multiple_of(4);
        match (name, pair.be32(kind_at)?) {
            (b"name", STRING) => {
                let length = pair.be32(kind_at + 8)? as usize;
                result.name = pair.text(kind_at + 12, length);
            }
            (b"pool_guid", UINT64) => result.pool_guid = pair.be64(kind_at + 8),
            _ => {}
        }
        at += length;
    }
}
