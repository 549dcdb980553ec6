//! Reads what can be had of any device, sector by sector where it must be.

use std::ops::Range;

use device::BlockDevice;

/// The unit in which bytes are had or lost.
const SECTOR: u64 = 512;

/// Fills `buffer` from `offset` on except for the returned ranges of the device, which are lost. Their bytes in the
/// buffer mean nothing.
pub fn read_around_losses(device: &dyn BlockDevice, offset: u64, buffer: &mut [u8]) -> Vec<Range<u64>> {
    let mut lost = Vec::new();
    halve(device, offset, buffer, &mut lost);
    lost
}

fn halve(device: &dyn BlockDevice, offset: u64, buffer: &mut [u8], lost: &mut Vec<Range<u64>>) {
    let length = buffer.len() as u64;
    if length == 0 || device.read(offset, buffer).is_ok() {
        return;
    }
    if offset / SECTOR == (offset + length - 1) / SECTOR {
        match lost.last_mut() {
            Some(last) if last.end == offset => last.end = offset + length,
            _ => lost.push(offset..offset + length),
        }
        return;
    }
    let middle = ((offset + length / 2) / SECTOR * SECTOR).max((offset / SECTOR + 1) * SECTOR) - offset;
    let (left, right) = buffer.split_at_mut(middle as usize);
    halve(device, offset, left, lost);
    halve(device, offset + middle, right, lost);
}
