//! The map files of GNU ddrescue, as its manual describes them: lines of text; `#` begins a comment; the first
//! other line tells where ddrescue was working, every further one position, size and status of a block, the
//! blocks in order and without gaps.

use std::fmt::Write as _;

use thiserror::Error;

use super::{BadMap, Rescue};

/// A map file does not make sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapFileError {
    /// It ends before the line that tells where ddrescue was working.
    #[error("the map file has no status line; it may be empty or no map file at all")]
    NoStatus,
    /// A line is not what it should be.
    #[error("line {line} of the map file is malformed: {text:?} is not {expected}")]
    Malformed {
        /// Number of the line, from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What should.
        expected: &'static str,
    },
    /// Blocks overlap, leave a gap or run past the largest offset.
    #[error("line {line} of the map file begins at {found}, but the block before it ends at {expected}")]
    NotContiguous {
        /// Number of the line, from 1.
        line: usize,
        /// Where its block begins, bytes.
        found: u64,
        /// Where it should, bytes.
        expected: u64,
    },
}

impl BadMap {
    /// Reads a map file. Bytes outside all of its blocks count as not tried.
    ///
    /// # Errors
    /// The first line that makes no sense.
    pub fn parse(text: &str) -> Result<Self, MapFileError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or_default().trim()))
            .filter(|(_, line)| !line.is_empty());
        let (line, status) = lines.next().ok_or(MapFileError::NoStatus)?;
        let mut fields = status.split_whitespace();
        number(line, fields.next())?;
        let phase = fields.next().unwrap_or_default();
        if !["?", "*", "/", "-", "F", "G", "+"].contains(&phase) {
            return Err(malformed(line, phase, "one of ? * / - F G +"));
        }
        let mut map = Self::filled(Rescue::NonTried);
        let mut end = None;
        for (line, text) in lines {
            let mut fields = text.split_whitespace();
            let start = number(line, fields.next())?;
            let size = number(line, fields.next())?;
            let status = fields.next().unwrap_or_default();
            let status = from_char(status).ok_or_else(|| malformed(line, status, "one of ? * / - +"))?;
            if let Some(expected) = end.filter(|&end| end != start) {
                return Err(MapFileError::NotContiguous { line, found: start, expected });
            }
            let after = start.checked_add(size).ok_or_else(|| malformed(line, text, "a block below 2^64"))?;
            map.set(start..after, status);
            end = Some(after);
        }
        Ok(map)
    }

    /// Prints the map of a disk of `size` bytes as a map file that ddrescue accepts.
    pub fn print(&self, size: u64) -> String {
        let finished = self.bad(0..size).next().is_none();
        let phase = if finished { '+' } else { '?' };
        let mut text =
            String::from("# Mapfile of a rescue copy\n# current_pos  current_status  current_pass\n");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "0x{:08X}     {phase}               1", 0);
        text.push_str("#      pos        size  status\n");
        for (run, status) in self.runs(0..size) {
            let _ = writeln!(text, "0x{:08X}  0x{:08X}  {}", run.start, run.end - run.start, to_char(status));
        }
        text
    }
}

fn malformed(line: usize, text: &str, expected: &'static str) -> MapFileError {
    MapFileError::Malformed { line, text: text.to_owned(), expected }
}

/// A number as C writes them: decimal, hexadecimal after `0x`, octal after `0`.
fn number(line: usize, field: Option<&str>) -> Result<u64, MapFileError> {
    let field = field.unwrap_or_default();
    let digits = |text: &str, radix| {
        // A sign would be accepted otherwise.
        text.starts_with(|c: char| c.is_digit(radix)).then(|| u64::from_str_radix(text, radix).ok())?
    };
    let value = match field.strip_prefix("0x").or_else(|| field.strip_prefix("0X")) {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if field.len() > 1 && field.starts_with('0') => digits(field, 8),
        None => digits(field, 10),
    };
    value.ok_or_else(|| malformed(line, field, "a number"))
}

fn from_char(text: &str) -> Option<Rescue> {
    Some(match text {
        "+" => Rescue::Finished,
        "?" => Rescue::NonTried,
        "*" => Rescue::NonTrimmed,
        "/" => Rescue::NonScraped,
        "-" => Rescue::BadSector,
        _ => return None,
    })
}

fn to_char(status: Rescue) -> char {
    match status {
        Rescue::Finished => '+',
        Rescue::NonTried => '?',
        Rescue::NonTrimmed => '*',
        Rescue::NonScraped => '/',
        Rescue::BadSector => '-',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is read can be printed and read again.
        #[test]
        fn any_text_is_read_or_refused(text in "(0 \\?\n)?([0-9a-fx+?*/# -]{0,24}\n){0,6}", size in any::<u64>()) {
            if let Ok(map) = BadMap::parse(&text) {
                let again = BadMap::parse(&map.print(size)).unwrap();
                prop_assert!(again.runs(0..size).eq(map.runs(0..size)));
            }
        }
    }

    const SAMPLE: &str = "# Mapfile. Created by GNU ddrescue version 1.27\n\
        # Command line: ddrescue /dev/sdx copy map\n\
        # current_pos  current_status  current_pass\n\
        0x00120000     /               2\n\
        #      pos        size  status\n\
        0x00000000  0x00117000  +\n\
        0x00117000  0x00000200  -   # comment\n\
        0x00117200  512  /\n\
        0x00117400  0x00001000  *\n\
        0x00118400  0x00007C00  ?\n";

    #[test]
    fn a_usual_file_is_read() {
        let map = BadMap::parse(SAMPLE).unwrap();
        let runs: Vec<_> = map.bad(0..0x12_0000).collect();
        let expected = [
            (0x11_7000..0x11_7200, Rescue::BadSector),
            (0x11_7200..0x11_7400, Rescue::NonScraped),
            (0x11_7400..0x11_8400, Rescue::NonTrimmed),
            (0x11_8400..0x12_0000, Rescue::NonTried),
        ];
        assert_eq!(runs, expected);
        // Old files have no pass; an empty list says nothing was tried; numbers may be octal.
        assert_eq!(BadMap::parse("0 +\n").unwrap(), BadMap::filled(Rescue::NonTried));
        assert_eq!(BadMap::parse("0 ?\n0 010 +").unwrap().status(7), Rescue::Finished);
        assert_eq!(BadMap::parse("0 ?\n0 010 +").unwrap().status(8), Rescue::NonTried);
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        let line = |text: &str| match BadMap::parse(text).unwrap_err() {
            MapFileError::NoStatus => 0,
            MapFileError::Malformed { line, .. } | MapFileError::NotContiguous { line, .. } => line,
        };
        assert_eq!(line(""), 0);
        assert_eq!(line("# only comments\n"), 0);
        assert_eq!(line("hello\n"), 1);
        assert_eq!(line("0 x\n"), 1);
        assert_eq!(line("0 ?\n0 5\n"), 2);
        assert_eq!(line("0 ?\n0 5 +\n6 1 +\n"), 3);
        assert_eq!(line("0 ?\n0 5 +\n4 1 +\n"), 3);
        assert_eq!(line("0 ?\n1 0xFFFFFFFFFFFFFFFF +\n"), 2);
        assert_eq!(line("0 ?\n0 -5 +\n"), 2);
        assert_eq!(line("0 ?\n0 0x+5 +\n"), 2);
        assert_eq!(line("0 ?\n0 08 +\n"), 2);
    }
}
