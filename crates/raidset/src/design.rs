//! Block designs: which columns share a stripe on the declustered levels.
//!
//! A design of b blocks of k out of v columns, in which each column is in r blocks and each pair of columns in lambda. So a stripe takes only
//! k of the columns, and what a lost column leaves to do falls on all others alike.
//!
//! The file has `b v k r lambda`, maybe with `norotate` behind, then the b * k columns, counted from 0. Lines that begin with `#` do not count.

use crate::layout::MAX_COLUMNS;

/// Most columns of all blocks together.
const MAX_TUPLES: usize = 4096;

/// A block design. A set's layout holds it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Design {
    columns: u8,
    width: u8,
    rotate: bool,
    /// Units that each column has in a table: r.
    depth: u16,
    /// The columns of the blocks, one block behind the other.
    table: Vec<u8>,
    /// How often the same column came before, for each of them: its unit in the table.
    offsets: Vec<u16>,
    /// The block that each unit of each column is in.
    blocks: Vec<u16>,
}

/// What is no block design.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DesignError {
    /// Too few or too many numbers, or words.
    #[error("a block design begins with b v k r lambda and goes on with b * k columns")]
    Numbers,
    /// A number that is too small or too large.
    #[error("a block design has 2 to {MAX_COLUMNS} columns and at most {MAX_TUPLES} of them in its blocks")]
    Size,
    /// A block has a column twice, or one that there is not.
    #[error("block {block} does not name {width} different columns below {columns}")]
    Block {
        /// Its number.
        block: usize,
        /// Columns of a block.
        width: u8,
        /// Columns in all.
        columns: u8,
    },
    /// Columns that are in more blocks than others, or pairs.
    #[error("the blocks are not balanced: each column must be in {depth} of them and each pair in {pairs}")]
    Balance {
        /// r.
        depth: usize,
        /// Lambda.
        pairs: usize,
    },
}

impl Design {
    /// Parses a file's text.
    ///
    /// # Errors
    /// It is no block design.
    pub fn parse(text: &str) -> Result<Self, DesignError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        let rotate = words.get(5) != Some(&"norotate");
        let numbers: Option<Vec<usize>> =
            words.iter().filter(|word| **word != "norotate").map(|word| word.parse().ok()).collect();
        let numbers = numbers.filter(|_| words.iter().filter(|word| **word == "norotate").count() <= 1);
        let numbers = numbers.ok_or(DesignError::Numbers)?;
        let Some((&[count, columns, width, depth, pairs], table)) = numbers.split_first_chunk() else {
            return Err(DesignError::Numbers);
        };
        if count.checked_mul(width) != Some(table.len()) {
            return Err(DesignError::Numbers);
        }
        let (Ok(columns), Ok(width)) = (u8::try_from(columns), u8::try_from(width)) else {
            return Err(DesignError::Size);
        };
        let table: Vec<u8> = table.iter().map(|&column| u8::try_from(column).unwrap_or(u8::MAX)).collect();
        let design = Self::new(columns, width, rotate, table)?;
        if (usize::from(design.depth), design.pairs()) != (depth, pairs) {
            return Err(DesignError::Balance { depth, pairs });
        }
        Ok(design)
    }

    /// A design of blocks of `width` of `columns` columns, which lie in `table` one behind the other.
    ///
    /// # Errors
    /// It is no block design.
    pub fn new(columns: u8, width: u8, rotate: bool, table: Vec<u8>) -> Result<Self, DesignError> {
        let sizes = 2..=MAX_COLUMNS as u8;
        let fits = sizes.contains(&columns) && (2..=columns).contains(&width) && table.len() <= MAX_TUPLES;
        if !fits || table.is_empty() || !table.len().is_multiple_of(width.into()) {
            return Err(DesignError::Size);
        }
        let all = usize::from(columns);
        let depth = table.len() / all;
        let mut seen = vec![0_u16; all];
        let mut pairs = vec![0_usize; all * all];
        let mut offsets = Vec::with_capacity(table.len());
        let mut blocks = vec![0; table.len()];
        for (block, tuple) in table.chunks(width.into()).enumerate() {
            let twice = tuple.iter().enumerate().any(|(at, column)| tuple[..at].contains(column));
            if twice || tuple.iter().any(|column| *column >= columns) {
                return Err(DesignError::Block { block, width, columns });
            }
            for &column in tuple {
                let column = usize::from(column);
                let offset = seen[column];
                if usize::from(offset) == depth {
                    return Err(Self::unbalanced(depth, all, width));
                }
                offsets.push(offset);
                blocks[column * depth + usize::from(offset)] = block as u16;
                seen[column] += 1;
                for &other in tuple.iter().filter(|other| usize::from(**other) > column) {
                    pairs[column * all + usize::from(other)] += 1;
                }
            }
        }
        let of_pairs = |a: usize, b: usize| pairs[a.min(b) * all + a.max(b)];
        let lambda = of_pairs(0, 1);
        let even = (0..all).all(|a| (a + 1..all).all(|b| of_pairs(a, b) == lambda));
        if !even || !table.len().is_multiple_of(all) || seen.iter().any(|&times| usize::from(times) != depth)
        {
            return Err(Self::unbalanced(depth, all, width));
        }
        let depth = depth as u16;
        Ok(Self { columns, width, rotate, depth, table, offsets, blocks })
    }

    fn unbalanced(depth: usize, columns: usize, width: u8) -> DesignError {
        let pairs = depth * (usize::from(width) - 1) / (columns - 1).max(1);
        DesignError::Balance { depth, pairs }
    }

    /// Lambda.
    fn pairs(&self) -> usize {
        usize::from(self.depth) * (usize::from(self.width) - 1) / (usize::from(self.columns) - 1)
    }

    /// v.
    pub const fn columns(&self) -> u16 {
        self.columns as u16
    }

    /// k.
    pub const fn width(&self) -> u16 {
        self.width as u16
    }

    /// b.
    pub const fn blocks(&self) -> u64 {
        self.table.len() as u64 / self.width as u64
    }

    /// r: rows of a table.
    pub const fn depth(&self) -> u64 {
        self.depth as u64
    }

    /// The columns of each block.
    pub fn tuples(&self) -> impl Iterator<Item = &[u8]> {
        self.table.chunks(self.width.into())
    }

    /// Which of a block's positions has the parity in a table: the last one in the first, then the one before.
    pub const fn parity_position(&self, table: u64) -> u64 {
        let width = self.width as u64;
        if self.rotate { width - 1 - table % width } else { width - 1 }
    }

    /// Column and row within the table of a position of a block.
    pub fn unit(&self, block: u64, position: u64) -> (u64, u64) {
        let at = (block * u64::from(self.width) + position) as usize;
        (self.table[at].into(), self.offsets[at].into())
    }

    /// The block that a column has in a row of a table.
    pub fn block_of(&self, row: u64, column: u64) -> u64 {
        self.blocks[(column * u64::from(self.depth) + row) as usize].into()
    }

    /// A file that says the same.
    pub fn text(&self) -> String {
        let (count, columns, width, depth) = (self.blocks(), self.columns, self.width, self.depth);
        let rotate = if self.rotate { "" } else { " norotate" };
        let head = format!("{count} {columns} {width} {depth} {}{rotate}\n", self.pairs());
        self.tuples().fold(head, |text, tuple| {
            let columns: Vec<String> = tuple.iter().map(ToString::to_string).collect();
            text + &columns.join(" ") + "\n"
        })
    }

    /// Bytes of it: columns, width, 1 if it rotates, u16 length, the table.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.columns, self.width, self.rotate.into()];
        bytes.extend((self.table.len() as u16).to_le_bytes());
        bytes.extend(&self.table);
        bytes
    }

    /// What [`Design::encode`] made.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[columns, width, rotate, low, high], table) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high]));
        Self::new(columns, width, rotate == 1, table.get(..length)?.to_vec()).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All ways to take four of five columns.
    pub(crate) const FIVE: &str = "# a comment\n5 5 4 4 3\n0 1 2 3\n0 1 2 4\n0 1 3 4\n0 2 3 4\n1 2 3 4\n";
    /// The projective plane of order 2.
    pub(crate) const SEVEN: &str = "7 7 3 3 1 norotate\n0 1 3 1 2 4 2 3 5 3 4 6 4 5 0 5 6 1 6 0 2\n";

    #[test]
    fn designs_are_read() {
        let five = Design::parse(FIVE).unwrap();
        assert_eq!((five.columns(), five.width(), five.blocks(), five.depth()), (5, 4, 5, 4));
        assert_eq!((five.parity_position(0), five.parity_position(3), five.parity_position(4)), (3, 0, 3));
        assert_eq!((five.unit(1, 3), five.block_of(0, 4)), ((4, 0), 1));
        let seven = Design::parse(SEVEN).unwrap();
        assert_eq!((seven.parity_position(0), seven.parity_position(1)), (2, 2));
        for design in [five, seven] {
            assert_eq!(Design::decode(&design.encode()).unwrap(), design);
            assert_eq!(Design::parse(&design.text()).unwrap(), design);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |from: &str, to: &str| Design::parse(&FIVE.replacen(from, to, 1)).unwrap_err();
        assert_eq!(refused("5 5 4 4 3", "5 5 4 4"), DesignError::Numbers);
        assert_eq!(refused("5 5 4 4 3", "5 5 4 3 3"), DesignError::Balance { depth: 3, pairs: 3 });
        assert_eq!(refused("0 1 2 3", "0 1 2 2"), DesignError::Block { block: 0, width: 4, columns: 5 });
        assert_eq!(refused("0 1 2 3", "0 1 2 5"), DesignError::Block { block: 0, width: 4, columns: 5 });
        assert_eq!(refused("0 1 2 3", "0 1 2 4"), DesignError::Balance { depth: 4, pairs: 3 });
        assert_eq!(refused("0 1 2 3", "0 1 2 x"), DesignError::Numbers);
        assert_eq!(Design::parse("1 1 1 1 0 0").unwrap_err(), DesignError::Size);
        assert_eq!(Design::parse("").unwrap_err(), DesignError::Numbers);
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "[0-9 #a-z\n]{0,80}", bytes in prop::collection::vec(0..12_u8, 0..60)) {
            let _ = Design::parse(&text);
            let _ = Design::decode(&bytes);
        }
    }
}
