//! A set of columns of one chunk, as a bitset small enough to be passed by value.

use std::fmt;

use crate::MAX_COLUMNS;

const WORDS: usize = (MAX_COLUMNS as usize).div_ceil(64);

/// A set of column numbers below [`MAX_COLUMNS`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ColumnSet {
    words: [u64; WORDS],
}

impl ColumnSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { words: [0; WORDS] }
    }

    /// The columns `0..count`, at most all [`MAX_COLUMNS`].
    pub fn first(count: u16) -> Self {
        let mut set = Self::new();
        let mut left = count.min(MAX_COLUMNS);
        for word in &mut set.words {
            let bits = left.min(64);
            *word = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            left -= bits;
        }
        set
    }

    /// Adds a column; says whether it is new. No chunk has a column of [`MAX_COLUMNS`] or above, so such
    /// a number is never added.
    pub fn insert(&mut self, column: u16) -> bool {
        let new = column < MAX_COLUMNS && !self.contains(column);
        if new {
            self.words[usize::from(column / 64)] |= 1 << (column % 64);
        }
        new
    }

    /// Takes a column out; says whether it was there.
    pub fn remove(&mut self, column: u16) -> bool {
        let there = self.contains(column);
        if there {
            self.words[usize::from(column / 64)] &= !(1 << (column % 64));
        }
        there
    }

    /// Whether the column is in the set.
    pub fn contains(&self, column: u16) -> bool {
        column < MAX_COLUMNS && self.words[usize::from(column / 64)] & (1 << (column % 64)) != 0
    }

    /// How many columns are in the set.
    pub fn len(&self) -> u16 {
        self.words.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Whether no column is in the set.
    pub fn is_empty(&self) -> bool {
        self.words == [0; WORDS]
    }

    /// The columns in ascending order.
    pub fn iter(&self) -> Columns {
        Columns { words: self.words, word: 0 }
    }

    /// The columns that are in one of the sets or both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The columns that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// The columns of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    fn combine(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.words;
        for (word, other) in words.iter_mut().zip(other.words) {
            *word = operation(*word, other);
        }
        Self { words }
    }
}

impl fmt::Debug for ColumnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<u16> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = u16>>(columns: I) -> Self {
        let mut set = Self::new();
        set.extend(columns);
        set
    }
}

impl Extend<u16> for ColumnSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, columns: I) {
        for column in columns {
            self.insert(column);
        }
    }
}

impl IntoIterator for ColumnSet {
    type Item = u16;
    type IntoIter = Columns;

    fn into_iter(self) -> Columns {
        self.iter()
    }
}

impl IntoIterator for &ColumnSet {
    type Item = u16;
    type IntoIter = Columns;

    fn into_iter(self) -> Columns {
        self.iter()
    }
}

/// The columns of a [`ColumnSet`] in ascending order.
#[derive(Clone, Debug)]
pub struct Columns {
    words: [u64; WORDS],
    word: usize,
}

impl Iterator for Columns {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        loop {
            let bits = self.words.get_mut(self.word)?;
            if *bits != 0 {
                let column = self.word as u16 * 64 + bits.trailing_zeros() as u16;
                *bits &= *bits - 1;
                return Some(column);
            }
            self.word += 1;
        }
    }
}
