//! What file systems say about themselves, all over the device: structures that carry a checksum or their own address.
//!
//! In an array that is put together wrongly the first superblock may be in its place; these are not.

pub(crate) mod btrfs;
pub(crate) mod bytes;
pub(crate) mod exfat;
pub(crate) mod ext;
mod ext_files;
pub(crate) mod ntfs;
mod tails;
pub(crate) mod xfs;
mod xfs_files;

use device::BlockDevice;

/// How many structures are what and where they ought to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// They fit.
    pub right: u32,
    /// They don't.
    pub wrong: u32,
    /// Their places can't be read.
    pub unreadable: u32,
}

impl Checks {
    /// Counts one: `None` is a place that can't be read.
    pub(crate) fn count(&mut self, fits: Option<bool>) {
        match fits {
            Some(true) => self.right += 1,
            Some(false) => self.wrong += 1,
            None => self.unreadable += 1,
        }
    }
}

/// Looks at structures of whatever file system begins the device, at most some thousands of them.
pub fn check(device: &dyn BlockDevice) -> Checks {
    let mut checks = Checks::default();
    let mut head = [0; 4096];
    // The two halves apart: one of them may be unreadable.
    let read = [0..1024, 1024..2048].map(|part| device.read(part.start as u64, &mut head[part]).is_ok());
    if read[0]
        && let Some(xfs) = xfs::Xfs::parse(&head)
    {
        xfs.check(device, &mut checks);
    } else if read[1]
        && let Some(ext) = ext::Ext::parse(&head[1024..2048])
    {
        ext.check(device, &mut checks);
    } else if read[0]
        && let Some(ntfs) = ntfs::Ntfs::parse(&head)
    {
        ntfs.check(device, &mut checks);
    } else if read[0]
        && let Some(exfat) = exfat::Exfat::parse(&head)
    {
        exfat.check(device, &mut checks);
    } else if let Some(btrfs) =
        self::read(device, formats::BTRFS_SUPERBLOCKS[0], 4096).and_then(|block| btrfs::Btrfs::parse(&block))
    {
        btrfs.check(device, &mut checks);
    }
    checks
}

/// The bytes there; `None` if they can't be read.
pub(crate) fn read(device: &dyn BlockDevice, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    device.read(at, &mut bytes).ok().map(|()| bytes)
}
