//! What may be found on a device, and how it is told to people.

use std::fmt;
use std::iter;
use std::ops::Range;

/// A format that is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A device of a Cofferdam pool.
    Cofferdam,
    /// An ext2 file system.
    Ext2,
    /// An ext3 file system: ext2 with a journal.
    Ext3,
    /// An ext4 file system.
    Ext4,
    /// The journal of an ext file system on a device of its own.
    ExtJournal,
    /// An XFS file system.
    Xfs,
    /// A device of a btrfs file system.
    Btrfs,
    /// An f2fs file system.
    F2fs,
    /// A file system of Linux's bcachefs, or a device of one.
    Bcachefs,
    /// A JFS file system.
    Jfs,
    /// A ReiserFS file system.
    Reiserfs,
    /// A squashfs image.
    Squashfs,
    /// An ISO 9660 image.
    Iso9660,
    /// A UDF image or file system.
    Udf,
    /// A UFS1 or UFS2 file system of a BSD.
    Ufs,
    /// An NTFS file system.
    Ntfs,
    /// A FAT12, FAT16 or FAT32 file system.
    Vfat,
    /// An exFAT file system.
    Exfat,
    /// A volume encrypted by BitLocker.
    Bitlocker,
    /// An APFS container.
    Apfs,
    /// An HFS+ file system.
    HfsPlus,
    /// Linux swap space.
    Swap,
    /// An LVM2 physical volume.
    LvmPv,
    /// A member of a ZFS pool.
    Zfs,
    /// A device of a Stratis pool.
    Stratis,
    /// A caching or backing device of bcache.
    Bcache,
    /// A LUKS1 encrypted volume.
    Luks1,
    /// A LUKS2 encrypted volume.
    Luks2,
    /// A member of a Linux md array.
    Md(MdVersion),
    /// A component of a RAIDframe set.
    Raidframe,
    /// A member of an Intel Rapid Storage ("IMSM") array.
    Imsm,
    /// A member of a SNIA DDF array.
    Ddf,
    /// A GPT partition table.
    Gpt {
        /// Partitions in it.
        partitions: u32,
    },
    /// An MBR partition table.
    Mbr {
        /// Primary and extended partitions in it.
        partitions: u32,
    },
    /// A BSD disklabel.
    BsdDisklabel {
        /// Partitions in it that are not empty.
        partitions: u32,
    },
}

/// The metadata formats of Linux md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MdVersion {
    /// 64 to 128 KiB before the end.
    V0_90,
    /// 8 to 12 KiB before the end.
    V1_0,
    /// At the beginning.
    V1_1,
    /// 4 KiB from the beginning.
    V1_2,
}

impl MdVersion {
    /// As mdadm writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }
}

impl Kind {
    /// A short name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cofferdam => "cofferdam",
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "ext-journal",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
            Self::Bcachefs => "bcachefs",
            Self::Jfs => "jfs",
            Self::Reiserfs => "reiserfs",
            Self::Squashfs => "squashfs",
            Self::Iso9660 => "iso9660",
            Self::Udf => "udf",
            Self::Ufs => "ufs",
            Self::Ntfs => "ntfs",
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
            Self::Bitlocker => "bitlocker",
            Self::Apfs => "apfs",
            Self::HfsPlus => "hfsplus",
            Self::Swap => "swap",
            Self::LvmPv => "lvm2",
            Self::Zfs => "zfs",
            Self::Stratis => "stratis",
            Self::Bcache => "bcache",
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
            Self::Md(MdVersion::V0_90) => "md-0.90",
            Self::Md(MdVersion::V1_0) => "md-1.0",
            Self::Md(MdVersion::V1_1) => "md-1.1",
            Self::Md(MdVersion::V1_2) => "md-1.2",
            Self::Raidframe => "raidframe",
            Self::Imsm => "imsm",
            Self::Ddf => "ddf",
            Self::Gpt { .. } => "gpt",
            Self::Mbr { .. } => "mbr",
            Self::BsdDisklabel { .. } => "bsd-disklabel",
        }
    }

    /// The article, what people call it, and what its label is introduced by.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Self::Cofferdam => ["a", "device of a Cofferdam pool", "named"],
            Self::Ext2 => ["an", "ext2 file system", "labelled"],
            Self::Ext3 => ["an", "ext3 file system", "labelled"],
            Self::Ext4 => ["an", "ext4 file system", "labelled"],
            Self::ExtJournal => ["an", "external journal of an ext file system", "labelled"],
            Self::Xfs => ["an", "XFS file system", "labelled"],
            Self::Btrfs => ["a", "btrfs file system", "labelled"],
            Self::F2fs => ["an", "f2fs file system", "labelled"],
            Self::Bcachefs => ["a", "bcachefs file system", "labelled"],
            Self::Jfs => ["a", "JFS file system", "labelled"],
            Self::Reiserfs => ["a", "ReiserFS file system", "labelled"],
            Self::Squashfs => ["a", "squashfs image", "labelled"],
            Self::Iso9660 => ["an", "ISO 9660 image", "labelled"],
            Self::Udf => ["a", "UDF file system", "labelled"],
            Self::Ufs => ["a", "UFS file system", "labelled"],
            Self::Ntfs => ["an", "NTFS file system", "labelled"],
            Self::Vfat => ["a", "FAT file system", "labelled"],
            Self::Exfat => ["an", "exFAT file system", "labelled"],
            Self::Bitlocker => ["a", "BitLocker volume", "labelled"],
            Self::Apfs => ["an", "APFS container", "labelled"],
            Self::HfsPlus => ["an", "HFS+ file system", "labelled"],
            Self::Swap => ["a", "Linux swap area", "labelled"],
            Self::LvmPv => ["an", "LVM2 physical volume", "of volume group"],
            Self::Zfs => ["a", "member of a ZFS pool", "named"],
            Self::Stratis => ["a", "device of a Stratis pool", "named"],
            Self::Bcache => ["a", "bcache device", "labelled"],
            Self::Luks1 => ["a", "LUKS1 encrypted volume", "labelled"],
            Self::Luks2 => ["a", "LUKS2 encrypted volume", "labelled"],
            Self::Md(MdVersion::V0_90) => ["a", "Linux md array member (metadata 0.90)", "named"],
            Self::Md(MdVersion::V1_0) => ["a", "Linux md array member (metadata 1.0)", "named"],
            Self::Md(MdVersion::V1_1) => ["a", "Linux md array member (metadata 1.1)", "named"],
            Self::Md(MdVersion::V1_2) => ["a", "Linux md array member (metadata 1.2)", "named"],
            Self::Raidframe => ["a", "RAIDframe component label", "of"],
            Self::Imsm => ["an", "Intel (IMSM) array member", "with volume"],
            Self::Ddf => ["a", "DDF array member", "named"],
            Self::Gpt { .. } => ["a", "GPT partition table", "named"],
            Self::Mbr { .. } => ["an", "MBR partition table", "named"],
            Self::BsdDisklabel { .. } => ["a", "BSD disklabel", "named"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that a device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Where the structure lies by which it was recognised, bytes from the beginning of the device.
    pub offset: u64,
    /// The name that people gave it: a file system's label, a volume group, a pool, an array.
    pub label: Option<String>,
    /// What identifies it among its kind, written as its own tools write it.
    pub uuid: Option<String>,
    /// How long it says that it is, bytes from where it begins on the device; `None` if it does not say.
    pub size: Option<u64>,
    /// Its checksum is wrong or its primary copy is lost, yet it can't be chance.
    pub damaged: bool,
    /// The bytes by which it is recognised, all copies.
    pub(crate) signatures: Vec<Range<u64>>,
}

impl Found {
    /// Something at `offset` with nothing known about it, recognised by the `length` bytes at `signature`.
    pub(crate) fn new(kind: Kind, offset: u64, signature: u64, length: u64) -> Self {
        let signatures = iter::once(signature..signature + length).collect();
        Self { kind, offset, label: None, uuid: None, size: None, damaged: false, signatures }
    }

    /// One thing that is found at several places, the best copy first. It is damaged if there is nothing at
    /// any of its primary places.
    pub(crate) fn merge(primary: &[u64], copies: impl Iterator<Item = Self>) -> Option<Self> {
        let mut merged = copies.reduce(Self::with)?;
        merged.damaged |= !primary.contains(&merged.offset);
        Some(merged)
    }

    /// Takes over from a further copy what the copies before did not know.
    #[must_use]
    pub(crate) fn with(mut self, mut copy: Self) -> Self {
        self.signatures.append(&mut copy.signatures);
        self.label = self.label.or(copy.label);
        self.uuid = self.uuid.or(copy.uuid);
        self.size = self.size.or(copy.size);
        self
    }

    /// The bytes by which it is recognised, all copies; with these zeroed it is found no more.
    pub fn signatures(&self) -> &[Range<u64>] {
        &self.signatures
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [article, noun, introduction] = self.kind.words();
        if self.damaged {
            write!(f, "a damaged {noun}")?;
        } else {
            write!(f, "{article} {noun}")?;
        }
        if let Kind::Gpt { partitions } | Kind::Mbr { partitions } | Kind::BsdDisklabel { partitions } =
            self.kind
        {
            let plural = if partitions == 1 { "" } else { "s" };
            write!(f, " with {partitions} partition{plural}")?;
        }
        match &self.label {
            Some(label) => write!(f, " {introduction} '{label}'"),
            None => Ok(()),
        }
    }
}
