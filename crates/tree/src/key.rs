//! The key of every tree item.

/// Length of an encoded key, bytes.
pub const KEY_SIZE: usize = 17;

/// What an item is found by: ordered by object, then kind, then offset.
///
/// Encoded as 17 bytes: object (u64), kind (u8), offset (u64), little-endian, without padding. Encoded keys
/// are compared field by field, never as byte strings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// The object that the item belongs to.
    pub object: u64,
    /// What kind of item it is; the user of the tree gives the numbers.
    pub kind: u8,
    /// Position within object and kind.
    pub offset: u64,
}

impl Key {
    /// The lowest key.
    pub const MIN: Self = Self { object: 0, kind: 0, offset: 0 };
    /// The highest key.
    pub const MAX: Self = Self { object: u64::MAX, kind: u8::MAX, offset: u64::MAX };

    /// A key of its three parts.
    pub const fn new(object: u64, kind: u8, offset: u64) -> Self {
        Self { object, kind, offset }
    }

    /// The key right after this one; `None` after [`Key::MAX`].
    pub const fn next(self) -> Option<Self> {
        if self.offset < u64::MAX {
            Some(Self::new(self.object, self.kind, self.offset + 1))
        } else if self.kind < u8::MAX {
            Some(Self::new(self.object, self.kind + 1, 0))
        } else if self.object < u64::MAX {
            Some(Self::new(self.object + 1, 0, 0))
        } else {
            None
        }
    }

    /// The key right before this one; `None` before [`Key::MIN`].
    pub const fn previous(self) -> Option<Self> {
        if self.offset > 0 {
            Some(Self::new(self.object, self.kind, self.offset - 1))
        } else if self.kind > 0 {
            Some(Self::new(self.object, self.kind - 1, u64::MAX))
        } else if self.object > 0 {
            Some(Self::new(self.object - 1, u8::MAX, u64::MAX))
        } else {
            None
        }
    }

    /// The 17 bytes of the key.
    pub fn encode(self) -> [u8; KEY_SIZE] {
        let mut bytes = [0; KEY_SIZE];
        bytes[0..8].copy_from_slice(&self.object.to_le_bytes());
        bytes[8] = self.kind;
        bytes[9..17].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// The key that 17 bytes stand for; every pattern is a key.
    pub fn decode(bytes: [u8; KEY_SIZE]) -> Self {
        let [o0, o1, o2, o3, o4, o5, o6, o7, kind, f0, f1, f2, f3, f4, f5, f6, f7] = bytes;
        Self {
            object: u64::from_le_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            kind,
            offset: u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({:#x} {} {:#x})", self.object, self.kind, self.offset)
    }
}
