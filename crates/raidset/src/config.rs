//! The configuration file of `raidctl -c` and `-C`, as the real parser takes it.
//!
//! Sections may come in any order and are found by the first line that begins with `START` and a word that begins with
//! the section's name. Blank lines and lines that begin with `#` do not count; a `#` later in a line is part of it.

use std::fmt::Write;
use std::str::FromStr;

use crate::layout::MAX_COLUMNS;

/// Most spares.
pub const MAX_SPARES: u16 = 9;
/// Longest device name, bytes.
pub const MAX_NAME: usize = 49;
/// Most lines of the debug section that are looked at.
const MAX_DEBUG: usize = 75;
/// The name of a component that is not there.
pub const ABSENT: &str = "absent";

/// What a configuration file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Components, one for each column; [`ABSENT`] for one that is missing.
    pub disks: Vec<String>,
    /// Hot spares.
    pub spares: Vec<String>,
    /// Sectors of a stripe unit.
    pub sectors_per_unit: u32,
    /// Stripe units of a parity unit: kept, and treated as 1.
    pub units_per_parity_unit: u32,
    /// Stripe units of a reconstruction unit: kept, and treated as 1.
    pub units_per_recon_unit: u32,
    /// The level's letter; not every one that parses can be run.
    pub letter: char,
    /// Length of a component's queue.
    pub queue_length: u32,
    /// Block design and spare map files, of the declustered levels.
    pub design_files: Vec<String>,
    /// Variables of the debug section.
    pub debug: Vec<(String, i64)>,
    /// What was odd but not wrong, each a sentence for the user.
    pub warnings: Vec<String>,
}

/// A file that is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A section that must be there is not.
    #[error("{file}: there is no \"START {section}\" section")]
    NoSection {
        /// The file's name.
        file: String,
        /// The section's.
        section: &'static str,
    },
    /// The file ends within a section.
    #[error("{file}: the \"{section}\" section ends before {wanted}")]
    Ends {
        /// The file's name.
        file: String,
        /// The section's.
        section: &'static str,
        /// What should have come.
        wanted: String,
    },
    /// A line that does not say what it must.
    #[error("{file}, line {line}: {text:?} is not {wanted}")]
    Line {
        /// The file's name.
        file: String,
        /// The line's number, from 1 on.
        line: usize,
        /// The line.
        text: String,
        /// What it should be.
        wanted: String,
    },
    /// A level that RAIDframe does not know either.
    #[error("{file}, line {line}: unknown parity config {letter:?}")]
    Letter {
        /// The file's name.
        file: String,
        /// The line's number, from 1 on.
        line: usize,
        /// What was given.
        letter: char,
    },
}

/// Every letter of a level that RAIDframe or we know.
const LETTERS: &str = "0145RCITDQeELN6";

/// Reads on through the lines that count.
#[derive(Clone)]
struct Lines<'a> {
    file: &'a str,
    section: &'static str,
    rest: std::iter::Enumerate<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    /// The lines behind the beginning of a section, if it is there.
    fn of_section(file: &'a str, text: &'a str, section: &'static str) -> Option<Self> {
        let mut lines = Self { file, section, rest: text.lines().enumerate() };
        loop {
            let (_, line) = lines.next_line()?;
            let mut words = line.split_whitespace();
            let starts = words.next().is_some_and(|word| word.starts_with("START"));
            if starts && words.next().is_some_and(|word| word.starts_with(section)) {
                return Some(lines);
            }
        }
    }

    fn required(file: &'a str, text: &'a str, section: &'static str) -> Result<Self, ConfigError> {
        Self::of_section(file, text, section)
            .ok_or_else(|| ConfigError::NoSection { file: file.to_owned(), section })
    }

    /// The next line that is neither blank nor a comment, without blanks around it, and its number.
    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let mut lines = self.rest.by_ref().map(|(index, line)| (index + 1, line.trim_ascii()));
        lines.find(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    }

    fn expect(&mut self, wanted: impl Fn() -> String) -> Result<(usize, &'a str), ConfigError> {
        self.next_line().ok_or_else(|| ConfigError::Ends {
            file: self.file.to_owned(),
            section: self.section,
            wanted: wanted(),
        })
    }

    fn wrong(&self, (line, text): (usize, &str), wanted: impl Into<String>) -> ConfigError {
        ConfigError::Line { file: self.file.to_owned(), line, text: text.to_owned(), wanted: wanted.into() }
    }

    /// The next `count` lines as device names.
    fn names(
        &mut self,
        count: u16,
        what: &str,
        mut resolve: impl FnMut(&str) -> String,
    ) -> Result<Vec<String>, ConfigError> {
        let mut names = Vec::new();
        for index in 0..count {
            let line = self.expect(|| format!("the device of {what} {index}"))?;
            let name = resolve(line.1);
            if name.len() > MAX_NAME {
                return Err(self.wrong(line, format!("a device name of at most {MAX_NAME} bytes")));
            }
            names.push(name);
        }
        Ok(names)
    }
}

/// As C's `%d`: a number at the beginning of a word; what follows it is left.
fn leading_number<T: FromStr>(word: &str) -> Option<T> {
    let signed = usize::from(word.starts_with(['-', '+']));
    let digits = word[signed..].bytes().take_while(u8::is_ascii_digit).count();
    word[..signed + digits].parse().ok()
}

/// Decimal, or hexadecimal behind `0x`.
fn debug_value(word: &str) -> Option<i64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => leading_number(word),
    }
}

impl Config {
    /// Parses a file's text. `wedge` finds the device of a `NAME=...`, if there is one.
    ///
    /// # Errors
    /// A section, a line or a number is missing or impossible.
    pub fn parse(
        file: &str,
        text: &str,
        wedge: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let (columns, spares) = parse_array(file, text)?;
        let is_section = |name: &str| name.split_whitespace().next() == Some("START");
        let disks = Lines::required(file, text, "disks")?.names(columns, "column", |name| {
            if is_section(name) {
                warnings
                    .push(format!("{name:?} is taken for a device: {columns} components are to be named"));
            }
            let Some(label) = name.strip_prefix("NAME=") else { return name.to_owned() };
            wedge(label).unwrap_or_else(|| {
                warnings.push(format!("there is no wedge {name}; its component counts as absent"));
                ABSENT.to_owned()
            })
        })?;
        let spares = match Lines::of_section(file, text, "spare") {
            None => {
                if spares > 0 {
                    warnings.push(format!("{file}: there is no \"START spare\" section: no spare is used"));
                }
                Vec::new()
            }
            Some(mut lines) => lines.names(spares, "spare", |name| {
                if is_section(name) {
                    warnings.push(format!("{name:?} is taken for a spare: {spares} are to be named"));
                }
                name.strip_prefix("NAME=").and_then(&wedge).unwrap_or_else(|| name.to_owned())
            })?,
        };

        let mut lines = Lines::required(file, text, "layout")?;
        let wanted = "sectPerSU, SUsPerParityUnit, SUsPerReconUnit and the RAID level";
        let line = lines.expect(|| wanted.to_owned())?;
        let words: Vec<&str> = line.1.split_whitespace().collect();
        let [unit, parity_unit, recon_unit, level, ..] = words[..] else {
            return Err(lines.wrong(line, wanted));
        };
        let positive =
            |word| leading_number::<u32>(word).filter(|&number| number > 0 && i32::try_from(number).is_ok());
        let (Some(sectors_per_unit), Some(units_per_parity_unit), Some(units_per_recon_unit)) =
            (positive(unit), positive(parity_unit), positive(recon_unit))
        else {
            return Err(lines.wrong(line, format!("{wanted}, all but the last of them positive numbers")));
        };
        let letter = level.chars().next().unwrap_or('?');
        if !LETTERS.contains(letter) {
            return Err(ConfigError::Letter { file: file.to_owned(), line: line.0, letter });
        }
        let mut design_files = Vec::new();
        if "TDQe".contains(letter) {
            let (_, names) = lines.expect(|| "the block design file".to_owned())?;
            design_files.extend(names.split_whitespace().map(str::to_owned));
        }

        let queue_length = parse_queue(file, text, &mut warnings);
        let debug = parse_debug(file, text, &mut warnings);
        Ok(Self {
            disks,
            spares,
            sectors_per_unit,
            units_per_parity_unit,
            units_per_recon_unit,
            letter,
            queue_length,
            design_files,
            debug,
            warnings,
        })
    }

    /// A file that parses to the same set, as `raidctl -G` prints it for the device `device`.
    pub fn generate(&self, device: &str) -> String {
        let mut text = format!("# raidctl config file for {device}\n\nSTART array\n# numCol numSpare\n");
        // Writing to a string never fails.
        let _ = writeln!(text, "{} {}\n\nSTART disks", self.disks.len(), self.spares.len());
        for disk in &self.disks {
            let _ = writeln!(text, "{}", if disk.starts_with("component") { ABSENT } else { disk });
        }
        if !self.spares.is_empty() {
            let _ = write!(text, "\nSTART spare\n{}\n", self.spares.join("\n"));
        }
        let Self { sectors_per_unit, units_per_parity_unit, units_per_recon_unit, letter, .. } = self;
        let _ = write!(
            text,
            "\nSTART layout\n# sectPerSU SUsPerParityUnit SUsPerReconUnit RAID_level_{letter}\n\
             {sectors_per_unit} {units_per_parity_unit} {units_per_recon_unit} {letter}\n"
        );
        if !self.design_files.is_empty() {
            let _ = writeln!(text, "{}", self.design_files.join(" "));
        }
        let _ = write!(text, "\nSTART queue\nfifo {}\n", self.queue_length);
        text
    }
}

/// Columns and spares.
fn parse_array(file: &str, text: &str) -> Result<(u16, u16), ConfigError> {
    let mut lines = Lines::required(file, text, "array")?;
    let line = lines.expect(|| "numCol and numSpare".to_owned())?;
    // Old files have the number of rows in front, which nothing looks at.
    let numbers: Vec<i64> = line.1.split_whitespace().map_while(leading_number).collect();
    let ([columns, spares] | [_, columns, spares, ..]) = numbers[..] else {
        return Err(lines.wrong(line, "numCol and numSpare"));
    };
    let within = |number: i64, range: std::ops::RangeInclusive<u16>| {
        u16::try_from(number).ok().filter(|number| range.contains(number))
    };
    let columns = within(columns, 1..=MAX_COLUMNS)
        .ok_or_else(|| lines.wrong(line, format!("a number of columns from 1 to {MAX_COLUMNS}")))?;
    let spares = within(spares, 0..=MAX_SPARES)
        .ok_or_else(|| lines.wrong(line, format!("a number of spares from 0 to {MAX_SPARES}")))?;
    Ok((columns, spares))
}

/// The length of the queue. Nothing here is an error; every kind of queue is a fifo.
fn parse_queue(file: &str, text: &str, warnings: &mut Vec<String>) -> u32 {
    let Some(line) = Lines::of_section(file, text, "queue").and_then(|mut lines| lines.next_line()) else {
        warnings.push(format!("[No disk queue discipline specified in config file {file}. Using fifo.]"));
        return 1;
    };
    let mut words = line.1.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let length = words.next().and_then(leading_number::<i64>);
    if !["fifo", "cvscan", "sstf", "scan", "cscan"].contains(&kind) {
        warnings.push(format!("{file}, line {}: unknown queue type {kind:?}: using fifo", line.0));
    }
    // RAIDframe keeps it in a signed byte.
    if let Some(length @ 1..=127) = length.and_then(|length| u32::try_from(length).ok()) {
        length
    } else {
        warnings.push(format!(
            "{file}, line {}: {:?} has no queue length from 1 to 127: using 1",
            line.0, line.1
        ));
        1
    }
}

/// Variables of the debug section, if there is one. Nothing here is an error.
fn parse_debug(file: &str, text: &str, warnings: &mut Vec<String>) -> Vec<(String, i64)> {
    let Some(mut lines) = Lines::of_section(file, text, "debug") else { return Vec::new() };
    let mut found = Vec::new();
    for _ in 0..MAX_DEBUG {
        let Some((number, line)) = lines.next_line().filter(|(_, line)| !line.starts_with("START")) else {
            break;
        };
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match debug_value(value.trim_ascii()) {
            Some(value) => found.push((name.to_owned(), value)),
            None => {
                warnings.push(format!("{file}, line {number}: {line:?} is not a name and a value: ignored"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAID5: &str = "START array\n# numCol numSpare\n3 1\n\nSTART disks\n/dev/sd1e\n/dev/sd2e\n/dev/sd3e\n\n\
        START spare\n/dev/sd4e\n\nSTART layout\n# sectPerSU SUsPerParityUnit SUsPerReconUnit RAID_level_5\n\
        32 1 1 5\n\nSTART queue\nfifo 100\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("raid0.conf", text, |name| (name == "there").then(|| "/dev/dk3".to_owned()))
    }

    #[test]
    fn the_manuals_example() {
        let config = parse(RAID5).unwrap();
        assert_eq!(config.disks, ["/dev/sd1e", "/dev/sd2e", "/dev/sd3e"]);
        assert_eq!(config.spares, ["/dev/sd4e"]);
        assert_eq!((config.sectors_per_unit, config.letter, config.queue_length), (32, '5', 100));
        assert!(config.warnings.is_empty() && config.debug.is_empty());
        let text = config.generate("/dev/rraid0d");
        assert_eq!(text, format!("# raidctl config file for /dev/rraid0d\n\n{RAID5}"));
        assert_eq!(parse(&text).unwrap(), config);
    }

    /// What the real parser lets pass, and what it makes of it.
    #[test]
    fn oddities() {
        // Any order, prefixes, three numbers of which the first means nothing, unknown sections.
        let config = parse(
            "  STARTED queues\n fifo 7x\nSTART layout2\n 8 2 4 1 \nSTART nonsense\nSTART array\n9 2 1\n\
             START disks\nNAME=there # kept\n\n# a comment\n absent \t\nSTART debug\nprotectedSectors 0x40\n\
             rf_x 12\nodd\nSTART more\nlast 3\n",
        )
        .unwrap();
        assert_eq!(config.disks, ["absent", "absent"], "the comment is part of the name");
        assert!(config.spares.is_empty(), "no spare section, no spares");
        assert_eq!((config.units_per_parity_unit, config.units_per_recon_unit, config.letter), (2, 4, '1'));
        assert_eq!(config.queue_length, 7);
        assert_eq!(config.debug, [("protectedSectors".to_owned(), 64), ("rf_x".to_owned(), 12)]);
        assert_eq!(config.warnings.len(), 3, "{:?}", config.warnings);
        let lost = "raid0.conf: there is no \"START spare\" section: no spare is used";
        assert!(config.warnings.iter().any(|warning| warning == lost), "{:?}", config.warnings);
        let taken = parse(&RAID5.replace("/dev/sd4e\n", "")).unwrap();
        assert_eq!(taken.spares, ["START layout"]);
        assert_eq!(taken.warnings, ["\"START layout\" is taken for a spare: 1 are to be named"]);
        // The next lines are taken for disks, whatever they are.
        let short = "START array\n2 0\nSTART disks\n/dev/a\nSTART layout\n8 1 1 0\nSTART queue\nfifo 1\n";
        assert_eq!(parse(short).unwrap().disks, ["/dev/a", "START layout"]);
        let named =
            "START array\n1 1\nSTART disks\nNAME=there\nSTART spare\nNAME=gone\nSTART layout\n8 1 1 0\n";
        let config = parse(named).unwrap();
        assert_eq!((config.disks[0].as_str(), config.spares[0].as_str()), ("/dev/dk3", "NAME=gone"));
        let missing = "[No disk queue discipline specified in config file raid0.conf. Using fifo.]";
        assert_eq!((config.queue_length, config.warnings), (1, vec![missing.to_owned()]));
        for (queue, length, warnings) in
            [("fifo 127", 127, 0), ("fifo 128", 1, 1), ("scan 4", 4, 0), ("lifo 9", 9, 1), ("fifo", 1, 1)]
        {
            let config = parse(&RAID5.replace("fifo 100", queue)).unwrap();
            assert_eq!((config.queue_length, config.warnings.len()), (length, warnings), "{queue}");
        }
        let declustered = parse(&RAID5.replace("32 1 1 5", "32 1 1 D\ndesign.bd spare.map")).unwrap();
        assert_eq!(declustered.design_files, ["design.bd", "spare.map"]);
        assert_eq!(parse(&declustered.generate("raid0")).unwrap(), declustered);
    }

    #[test]
    fn what_is_refused_and_how() {
        let refused = |from: &str, to: &str| parse(&RAID5.replace(from, to)).unwrap_err().to_string();
        assert_eq!(refused("START disks", ""), "raid0.conf: there is no \"START disks\" section");
        assert_eq!(refused("3 1\n", "3\n"), "raid0.conf, line 3: \"3\" is not numCol and numSpare");
        assert!(refused("3 1\n", "40 1\n").contains("columns from 1 to 39"));
        assert!(refused("3 1\n", "3 10\n").contains("spares from 0 to 9"));
        assert!(refused("32 1 1 5", "32 1 5").starts_with("raid0.conf, line 15: "));
        assert!(refused("32 1 1 5", "0 1 1 5").contains("positive"));
        assert_eq!(refused("32 1 1 5", "32 1 1 Z"), "raid0.conf, line 15: unknown parity config 'Z'");
        assert!(refused("/dev/sd2e", &"x".repeat(50)).contains("at most 49 bytes"));
        assert!(parse("START array\n").unwrap_err().to_string().ends_with("ends before numCol and numSpare"));
        assert!(parse("").is_err());
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0..RAID5.len(), length in 0..40_usize, with in "[ -~\n]{0,12}") {
            let mut text = RAID5.to_owned();
            text.replace_range(at..(at + length).min(RAID5.len()), &with);
            let _ = parse(&text);
        }

        #[test]
        fn any_text_never_panics(text in "(START )?(array|disks|layout|queue|debug|\\PC{0,5}|\n|[0-9 ]{0,6}){0,30}") {
            let _ = parse(&text);
        }
    }
}
