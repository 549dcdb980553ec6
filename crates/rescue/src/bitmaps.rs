//! Write-intent bitmaps, which make a stale member useful: while an array is degraded no bit is ever cleared, so what is
//! clean on the freshest member has not changed since the first member was lost.

use device::BlockDevice;
use formats::md::{Bitmap, BitmapHeader, Role, Superblock};

use crate::{BitmapAt, Image, RescueError};

/// Most bytes of bits that are read.
const BITS_MAX: u64 = 64 << 20;

/// The bitmap of the newest members, if there is one that can be believed, and the events from which on a member can rely
/// on it.
pub(crate) fn freshest(
    images: &[&Image],
    group: &[&(usize, Superblock)],
    newest: &Superblock,
) -> Option<(BitmapAt, u64)> {
    let own = |superblock: &Superblock| {
        superblock.events == newest.events && matches!(superblock.role, Role::Slot(_))
    };
    group.iter().filter(|(_, superblock)| own(superblock)).find_map(|(image, superblock)| {
        // A plan can only name bitmaps on disks, not those on arrays within arrays.
        let image = images.get(*image).filter(|image| image.identity.is_some())?;
        let offset = superblock.bitmap?;
        let bitmap = read(&*image.device, offset).ok()?;
        let header = bitmap.header;
        // A bitmap is written before the superblock that goes with it.
        let current = (newest.events..=newest.events.saturating_add(1)).contains(&header.events);
        let usable = header.uuid == superblock.array_uuid && current && !header.stale;
        usable.then(|| {
            let at = BitmapAt { path: image.path.clone(), offset: image.start + offset };
            (at, header.events_cleared)
        })
    })
}

/// What a member's bad-block log lists: first byte on the disk and length.
pub(crate) fn bad_blocks(image: &Image, superblock: &Superblock) -> Vec<(u64, u64)> {
    const LOG_MAX: u64 = 64 << 10;
    let Some((at, length, shift)) = superblock.bad_block_log.filter(|(_, length, _)| *length <= LOG_MAX)
    else {
        return Vec::new();
    };
    let mut log = vec![0; length as usize];
    if image.device.read(at, &mut log).is_err() {
        return Vec::new();
    }
    let size = image.device.size().unwrap_or(0);
    let ranges = formats::md::bad_blocks(&log, shift);
    let inside = ranges.into_iter().filter(|range| range.start < size);
    inside.map(|range| (image.start + range.start, range.end.min(size) - range.start)).collect()
}

/// The bitmap that a plan names.
///
/// # Errors
/// The disk can't be opened or read, or there is none.
pub(crate) fn at(place: &BitmapAt) -> Result<Bitmap, RescueError> {
    let image = Image::open(&place.path)?;
    read(&*image.device, place.offset).map_err(|why| RescueError::Bitmap {
        path: place.path.to_string_lossy().into_owned(),
        offset: place.offset,
        why,
    })
}

fn read(device: &dyn BlockDevice, offset: u64) -> Result<Bitmap, String> {
    let mut head = [0; 512];
    device.read(offset, &mut head).map_err(|error| error.to_string())?;
    let header =
        BitmapHeader::parse(&head, &device.info().name, offset).map_err(|error| error.to_string())?;
    let header = header.ok_or("it has no header")?;
    let length = BitmapHeader::LENGTH as u64 + header.bits_length();
    if length > BITS_MAX {
        return Err(format!("its {length} bytes are more than any array needs"));
    }
    let mut bytes = vec![0; length as usize];
    device.read(offset, &mut bytes).map_err(|error| error.to_string())?;
    Bitmap::new(header, bytes.split_off(BitmapHeader::LENGTH)).ok_or_else(|| "it is cut short".to_owned())
}
