//! Distributed raid: groups whose chunks take some of many children, with spare room on all of them.

use std::fmt;
use std::str::FromStr;

use crate::chunk::COLUMNS_MAX;

/// The most children of a draid.
pub(crate) const CHILDREN_MAX: usize = 255;

/// Data columns of a chunk where nothing else is asked for.
const DATA_DEFAULT: usize = 8;

/// How a draid is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Draid {
    /// Parity columns of a chunk, 1 to 3.
    pub parity: u8,
    /// Data columns of a chunk.
    pub data: u8,
    /// Distributed spares: room is kept free for the columns of as many children.
    pub spares: u8,
}

impl Draid {
    /// Children that one chunk takes.
    pub const fn width(self) -> usize {
        self.data as usize + self.parity as usize
    }

    /// The fewest children that it takes.
    pub const fn min_devices(self) -> usize {
        self.width() + self.spares as usize
    }

    /// As zpool names it: `draid2:4d:11c:1s`.
    pub fn name(self, children: usize) -> String {
        let Self { parity, data, spares } = self;
        format!("draid{parity}:{data}d:{children}c:{spares}s")
    }

    /// What a distributed spare of a group is called: `draid2-0-1`.
    pub(crate) fn spare_name(self, group: u32, index: usize) -> String {
        format!("draid{}-{group}-{index}", self.parity)
    }

    /// Whether these numbers can be.
    pub(crate) fn is_valid(self) -> bool {
        (1..=3).contains(&self.parity) && self.data > 0 && self.width() <= COLUMNS_MAX
    }
}

/// `draid[parity][:Nd][:Nc][:Ns]` as it was written, of which the number of children makes a [`Draid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraidWord {
    parity: u8,
    data: Option<usize>,
    children: Option<usize>,
    spares: u8,
}

/// Why a word is no draid, or not one of so many children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraidError(String);

impl fmt::Display for DraidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DraidError {}

impl FromStr for DraidWord {
    type Err = DraidError;

    fn from_str(word: &str) -> Result<Self, DraidError> {
        let wrong = |why: String| DraidError(format!("'{word}' is no draid: {why}"));
        let grammar =
            || wrong("it is written draid[1|2|3][:Nd][:Nc][:Ns], as in draid2:4d:11c:1s".to_owned());
        let mut parts = word.split(':');
        let parity = match parts.next().and_then(|first| first.strip_prefix("draid")) {
            Some("") => 1,
            Some(digits) => match digits.parse() {
                Ok(parity @ 1..=3) => parity,
                Ok(_) => return Err(wrong("its parity is 1, 2 or 3".to_owned())),
                Err(_) => return Err(grammar()),
            },
            None => return Err(grammar()),
        };
        let (mut data, mut children, mut spares) = (None, None, None);
        for part in parts {
            // The last character, if it is a letter, begins at a border of characters.
            let Some(unit) = part.chars().last().filter(char::is_ascii_alphabetic) else {
                return Err(grammar());
            };
            let number: usize = part[..part.len() - 1].parse().map_err(|_| grammar())?;
            let slot = match unit {
                'd' => &mut data,
                'c' => &mut children,
                's' => &mut spares,
                _ => return Err(grammar()),
            };
            if slot.replace(number).is_some() {
                return Err(wrong(format!("'{unit}' is given twice")));
            }
        }
        if data == Some(0) {
            return Err(wrong("a chunk has one data column at least".to_owned()));
        }
        let spares =
            spares.unwrap_or(0).try_into().map_err(|_| wrong("it has too many spares".to_owned()))?;
        Ok(Self { parity, data, children, spares })
    }
}

impl DraidWord {
    /// The draid of so many children.
    ///
    /// # Errors
    /// Another number of children was written, or they are too few or too many.
    pub fn of(self, devices: usize) -> Result<Draid, DraidError> {
        let Self { parity, data, children, spares } = self;
        if let Some(children) = children.filter(|&children| children != devices) {
            return Err(DraidError(format!(
                "draid{parity} is to have {children} children (:{children}c), and {devices} are given"
            )));
        }
        let beside = usize::from(parity) + usize::from(spares);
        let data = data.unwrap_or_else(|| devices.saturating_sub(beside).clamp(1, DATA_DEFAULT));
        if data > COLUMNS_MAX - usize::from(parity) {
            return Err(DraidError(format!(
                "draid{parity} of {data} data columns is too wide: a chunk has {COLUMNS_MAX} columns at most"
            )));
        }
        if devices < beside + data {
            return Err(DraidError(format!(
                "draid{parity} of {data} data columns and {spares} spares needs at least {} devices, {devices} given",
                beside + data
            )));
        }
        if devices > CHILDREN_MAX {
            return Err(DraidError(format!(
                "draid{parity} has {devices} children; {CHILDREN_MAX} is the most for one group"
            )));
        }
        // At most `COLUMNS_MAX`, as was just seen.
        Ok(Draid { parity, data: data as u8, spares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(word: &str, devices: usize) -> Result<String, String> {
        let draid = word.parse::<DraidWord>().and_then(|word| word.of(devices));
        draid.map(|draid| draid.name(devices)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        for (word, devices, wanted) in [
            ("draid", 4, "draid1:3d:4c:0s"),
            ("draid1", 2, "draid1:1d:2c:0s"),
            ("draid", 9, "draid1:8d:9c:0s"),
            ("draid", 20, "draid1:8d:20c:0s"),
            ("draid2", 11, "draid2:8d:11c:0s"),
            ("draid2:2s", 11, "draid2:7d:11c:2s"),
            ("draid2:4d:11c:1s", 11, "draid2:4d:11c:1s"),
            ("draid3:1s:30c:5d", 30, "draid3:5d:30c:1s"),
            ("draid:61d:255c:10s", 255, "draid1:61d:255c:10s"),
        ] {
            assert_eq!(made(word, devices).as_deref(), Ok(wanted), "{word}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (word, devices, wanted) in [
            ("draid0", 5, "its parity is 1, 2 or 3"),
            ("draid4", 9, "its parity is 1, 2 or 3"),
            ("draidx", 9, "it is written draid"),
            ("raid", 9, "it is written draid"),
            ("draid2:4", 9, "it is written draid"),
            ("draid2:d", 9, "it is written draid"),
            ("draid2:-4d", 9, "it is written draid"),
            ("draid2:4\u{fc}", 9, "it is written draid"),
            ("draid2:", 9, "it is written draid"),
            ("draid2:4x", 9, "it is written draid"),
            ("draid2:4d:4d", 9, "'d' is given twice"),
            ("draid2:0d", 9, "one data column at least"),
            ("draid:256s", 9, "too many spares"),
            ("draid2:4d:11c:1s", 10, "is to have 11 children (:11c), and 10 are given"),
            ("draid2:4d:1s", 6, "needs at least 7 devices, 6 given"),
            ("draid3", 3, "needs at least 4 devices, 3 given"),
            ("draid2:2s", 4, "needs at least 5 devices, 4 given"),
            ("draid:64d", 70, "too wide"),
            ("draid", 256, "255 is the most"),
            ("draid:18446744073709551615d", 9, "too wide"),
        ] {
            let told = made(word, devices).expect_err(word);
            assert!(told.contains(wanted), "{word}: {told}");
        }
    }
}
