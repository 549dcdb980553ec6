//! Copies that file systems keep of their superblocks, all over the device. In an array that is put together
//! wrongly the first one may be in its place; the others are not.

use device::BlockDevice;

/// How many copies are where they ought to be, and how many are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    pub(crate) right: u32,
    pub(crate) wrong: u32,
}

impl Copies {
    fn count(&mut self, fits: Option<bool>) {
        match fits {
            Some(true) => self.right += 1,
            Some(false) => self.wrong += 1,
            None => {}
        }
    }
}

/// The copies of whatever file system begins the device. What can't be read counts as neither.
pub(crate) fn copies(device: &dyn BlockDevice) -> Copies {
    let mut copies = Copies::default();
    let mut head = [0; 2048];
    if device.read(0, &mut head).is_err() {
        return copies;
    }
    if head.starts_with(b"XFSB") {
        xfs(device, &head, &mut copies);
    } else if head[1024 + 0x38..1024 + 0x3a] == [0x53, 0xef] {
        ext(device, &head[1024..], &mut copies);
    }
    copies
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Each allocation group begins with a superblock with the same UUID.
fn xfs(device: &dyn BlockDevice, head: &[u8], copies: &mut Copies) {
    let group = u64::from(be32(head, 4)) * u64::from(be32(head, 84));
    for number in 1..u64::from(be32(head, 88)).min(64) {
        let mut copy = [0; 512];
        let read = group.checked_mul(number).map(|at| device.read(at, &mut copy).is_ok());
        let fits = copy[..4] == head[..4] && copy[32..48] == head[32..48];
        copies.count(read.filter(|read| *read).map(|_| fits));
    }
}

/// Groups 0, 1 and the powers of 3, 5 and 7 begin with a superblock that holds the group's number.
fn ext(device: &dyn BlockDevice, head: &[u8], copies: &mut Copies) {
    const SPARSE_SUPER: u32 = 1;
    const SPARSE_SUPER2: u32 = 0x200;
    let shift = le32(head, 0x18);
    if shift > 6 || le32(head, 0x64) & SPARSE_SUPER == 0 || le32(head, 0x5c) & SPARSE_SUPER2 != 0 {
        return;
    }
    let block = 1024_u64 << shift;
    let (first, per_group, blocks) =
        (u64::from(le32(head, 0x14)), u64::from(le32(head, 0x20)), u64::from(le32(head, 4)));
    for number in [1_u64, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343] {
        let at = first + number * per_group;
        if per_group == 0 || at >= blocks {
            break;
        }
        let mut copy = [0; 256];
        let read = device.read(at * block, &mut copy).is_ok();
        let fits = copy[0x38..0x3a] == head[0x38..0x3a]
            && copy[0x68..0x78] == head[0x68..0x78]
            && u64::from(u16::from_le_bytes([copy[0x5a], copy[0x5b]])) == number;
        copies.count(read.then_some(fits));
    }
}
