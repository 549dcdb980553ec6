//! What is done to a RAID set, as numbers and as text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use device::Rng;
use raidset::design::Design;
use raidset::layout::{Layout, Level};

/// Block designs of the declustered levels: all ways to take four of five columns, and the projective plane of order 2.
const DESIGNS: [&str; 2] = [
    "5 5 4 4 3 0 1 2 3 0 1 2 4 0 1 3 4 0 2 3 4 1 2 3 4",
    "7 7 3 3 1 norotate 0 1 3 1 2 4 2 3 5 3 4 6 4 5 0 5 6 1 6 0 2",
];

/// A set and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// For what is no choice of a step.
    pub seed: u64,
    /// Its level.
    pub level: Level,
    /// Its columns.
    pub columns: usize,
    /// Sectors of a stripe unit.
    pub unit: u32,
    /// Rows, about.
    pub rows: u64,
    /// With a journal.
    pub journal: bool,
    /// The journal is switched off, though it is counted on: to show that this would be seen.
    pub sabotaged: bool,
    /// All choices of each step follow from its number.
    pub steps: Vec<u64>,
}

/// Whether a level has the write hole, and so may have a journal.
pub(super) fn has_parity(level: &Level) -> bool {
    *level != Level::Raid0 && !level.mirrored()
}

/// All levels, those with a block design once with each of [`DESIGNS`].
fn levels() -> Vec<Level> {
    let mut all = Level::ALL.to_vec();
    for design in DESIGNS.iter().filter_map(|text| Design::parse(text).ok()).map(Arc::new) {
        all.extend(
            ['T', 'Q', 'e'].iter().filter_map(|&letter| Level::with_design(letter, Some(design.clone()))),
        );
    }
    all
}

impl Program {
    /// The program of a seed.
    pub fn new(seed: u64, steps: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x7261_6964);
        let levels = levels();
        loop {
            let level = rng.choose(&levels).cloned().unwrap_or(Level::Raid5);
            let columns = (level.min_columns() + rng.below(6) as u16).min(level.max_columns());
            let unit = *rng.choose(&[1, 4, 4, 16]).unwrap_or(&4);
            let rows = rng.within(8..40);
            let journal = rng.chance(1, 2) && has_parity(&level);
            if Layout::new(level.clone(), columns, unit, rows).is_err() {
                continue;
            }
            let steps = (0..steps).map(|_| rng.next_u64()).collect();
            let columns = columns.into();
            return Self { seed, level, columns, unit, rows, journal, sabotaged: false, steps };
        }
    }

    /// One program for each shape worth telling apart, of 24 rows, without and, where there can be one, with a journal.
    pub fn shapes(seed: u64, steps: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for level in levels() {
            let least = usize::from(level.min_columns());
            let columns = match level {
                Level::Raid1 => vec![2, 4, 6],
                ref level if level.design().is_some() => vec![least],
                _ => vec![least, least + 1, least + 4],
            };
            for columns in columns {
                for journal in [false, true].into_iter().filter(|journal| !journal || has_parity(&level)) {
                    let level = level.clone();
                    let steps = Self::new(seed ^ (all.len() as u64) << 32, steps).steps;
                    all.push(Self {
                        seed,
                        level,
                        columns,
                        unit: 4,
                        rows: 24,
                        journal,
                        sabotaged: false,
                        steps,
                    });
                }
            }
        }
        all
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, level, columns, unit, rows, .. } = self;
        writeln!(f, "raid {seed}")?;
        if let Some(design) = level.design() {
            writeln!(f, "design {}", design.text().replace('\n', " ").trim_end())?;
        }
        writeln!(f, "level {}\ncolumns {columns}\nunit {unit}\nrows {rows}", level.letter())?;
        if self.journal {
            writeln!(f, "journal")?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "step {step:#x}"))
    }
}

impl FromStr for Program {
    type Err = String;

    /// Empty lines and those that begin with `#` are passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut program = Self {
            seed: 0,
            level: Level::Raid5,
            columns: 0,
            unit: 0,
            rows: 0,
            journal: false,
            sabotaged: false,
            steps: Vec::new(),
        };
        let mut design = None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let unknown = || format!("'{line}' is no line of a program for RAID sets");
            let number = |word: &str| match word.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).map_err(|_| unknown()),
                None => word.parse().map_err(|_| unknown()),
            };
            match line.split_once(' ') {
                Some(("design", text)) => design = Design::parse(text).map(Arc::new).ok(),
                Some(("level", letter)) => {
                    let level =
                        letter.chars().next().and_then(|letter| Level::with_design(letter, design.clone()));
                    program.level = level.ok_or_else(unknown)?;
                }
                Some(("raid", seed)) => program.seed = number(seed)?,
                Some(("columns", columns)) => program.columns = number(columns)? as usize,
                Some(("unit", unit)) => program.unit = number(unit)? as u32,
                Some(("rows", rows)) => program.rows = number(rows)?,
                Some(("step", step)) => program.steps.push(number(step)?),
                None if line == "journal" => program.journal = true,
                _ => return Err(unknown()),
            }
        }
        let columns = u16::try_from(program.columns).unwrap_or(u16::MAX);
        Layout::new(program.level.clone(), columns, program.unit, program.rows)
            .map(|_| program)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_come_back_from_their_text() {
        let all = (0..50).map(|seed| Program::new(seed, 5)).chain(Program::shapes(7, 3));
        for program in all {
            assert_eq!(program.to_string().parse(), Ok(program));
        }
        for wrong in
            ["raid x", "level x", "steps 1", "journal no", "raid 1\nlevel 5\ncolumns 1\nunit 4\nrows 8"]
        {
            assert!(wrong.parse::<Program>().is_err(), "{wrong}");
        }
    }
}
