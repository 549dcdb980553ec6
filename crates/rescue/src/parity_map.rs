//! What a set of RAIDframe that was not unconfigured says of its parity: the parity map, and that there is more which is not read here.

use std::ops::Range;

use device::BlockDevice;
use formats::raidframe::{Label, map_area, map_flags, map_offset};

/// Bytes of a parity map.
const MAP: usize = 512;
/// Most regions.
const REGIONS_MAX: u32 = 4096;
/// Most ranges that are told one by one.
const TOLD_MAX: usize = 4;
/// How the area begins in which `coffer raid` notes what labels have no room for, and where it is at the earliest, bytes.
const EXTENSION: &[u8; 8] = b"COFRSET1";
const EXTENSION_AT: u64 = 24576;
const EXTENSION_SLOT: u64 = 4096;

/// How many regions there are, and which parts of the set have parity that may be out of date, bytes; `None` if nothing that is to be trusted
/// says so. These are the components with the set's counter; each row of the set has `row` bytes.
fn marked(components: &[(&dyn BlockDevice, &Label)], row: u64) -> Option<(u32, Vec<Range<u64>>)> {
    let (_, first) = components.first()?;
    let regions = first.map_regions;
    let is_trusted = |label: &Label| {
        let flags = map_flags::VALID | map_flags::WAS_USED;
        label.map_flags & (flags | map_flags::DISABLE) == flags
            && label.map_mod_counter == label.mod_counter.cast_unsigned()
            && label.map_regions == regions
    };
    if !(1..=REGIONS_MAX).contains(&regions) || !components.iter().all(|(_, label)| is_trusted(label)) {
        return None;
    }
    let mut bits = [0_u8; MAP];
    for (device, label) in components {
        let mut own = [0; MAP];
        device.read(map_offset(label.block_size), &mut own).ok()?;
        bits.iter_mut().zip(own).for_each(|(bits, own)| *bits |= own);
    }
    let stripes = first.num_blocks / u64::from(first.sectors_per_unit.max(1));
    let length = stripes.div_ceil(regions.into()).saturating_mul(row);
    let is_set = |region: &u32| bits[*region as usize / 8] >> (region % 8) & 1 == 1;
    let ranges = (0..regions).filter(is_set).map(|region| {
        let start = u64::from(region).saturating_mul(length);
        start..start.saturating_add(length)
    });
    Some((regions, ranges.collect()))
}

/// What is to be told of the parity of a set that was not unconfigured. Each row of it has `row` bytes.
pub(crate) fn told(components: &[(&dyn BlockDevice, &Label)], row: u64) -> Vec<String> {
    const UNCLEAN: &str = "the set was not unconfigured cleanly";
    let mut said = Vec::new();
    said.push(match marked(components, row) {
        None => format!("{UNCLEAN}: parity may be out of date in places"),
        Some((_, ranges)) if ranges.is_empty() => {
            format!("{UNCLEAN}, but its parity map marks nothing: no write was under way")
        }
        Some((regions, ranges)) => {
            let each = |range: &Range<u64>| format!("{} to {}", range.start, range.end);
            let some: Vec<String> = ranges.iter().take(TOLD_MAX).map(each).collect();
            format!(
                "{UNCLEAN}: parity may be out of date in {} of {regions} regions of its parity map, bytes {}{}",
                ranges.len(),
                some.join(", "),
                if ranges.len() > TOLD_MAX { " and so on" } else { "" }
            )
        }
    });
    if components.iter().any(|(device, label)| has_extension(*device, label)) {
        said.push(
            "coffer raid has noted more of it than labels have room for, which is not read here: a journal that it may have is not carried \
             out; to have that done, run the set on copies of its components"
                .to_owned(),
        );
    }
    said
}

fn has_extension(device: &dyn BlockDevice, label: &Label) -> bool {
    let sector = label.block_size;
    let first =
        (map_offset(sector) + map_area(sector) as u64).max(EXTENSION_AT).next_multiple_of(sector.into());
    [0, EXTENSION_SLOT.max(sector.into())].into_iter().any(|slot| {
        let mut magic = [0; EXTENSION.len()];
        device.read(first + slot, &mut magic).is_ok() && magic == *EXTENSION
    })
}
