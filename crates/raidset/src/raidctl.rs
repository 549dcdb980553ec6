//! What `raidctl` says and takes: its options, and its output to the byte, as pure functions.
//!
//! Texts are those that the program prints, which differ from the manual's samples: labels have commas.

use std::fmt::Write;

use crate::label::{Label, Root};
use crate::paritymap::{Bits, Counters, Parameters};
use crate::set::{ComponentStatus, Progress, RebuildKind, SetStatus, Status};

/// What is to be done. Components are named as the user named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `-a`: add a hot spare.
    AddSpare(String),
    /// `-A`: autoconfiguration and the value of the root field.
    Autoconfigure(bool, u32),
    /// `-B`: copy back.
    Copyback,
    /// `-c`, or `-C` if forced: configure from a file.
    Configure {
        /// The file.
        file: String,
        /// Whether labels stand against nothing.
        force: bool,
    },
    /// `-f`, or `-F` with reconstruction: fail a component.
    Fail {
        /// The component.
        component: String,
        /// Whether to rebuild it on a spare.
        reconstruct: bool,
    },
    /// `-g`: show a label.
    ShowLabel(String),
    /// `-G`: print a configuration file.
    Generate,
    /// `-I`: make labels with this serial number.
    InitLabels(i32),
    /// `-i`: rewrite the parity.
    RewriteParity,
    /// `-L`: look for sets.
    Rescan,
    /// `-m`: show the parity map.
    ShowMap,
    /// `-M yes` and `no`.
    EnableMap(bool),
    /// `-M set`: cooldown, tick and regions; 0 leaves one as it is.
    SetMap([u32; 3]),
    /// `-p`: tell whether the parity is good.
    CheckParity,
    /// `-P`: and rewrite it if it is not.
    CheckAndRewriteParity,
    /// `-r`: remove a spare.
    RemoveSpare(String),
    /// `-R`: rebuild a component in place.
    ReconstructInPlace(String),
    /// `-s`: show the status.
    Status,
    /// `-S`: show and follow what is running.
    Progress,
    /// `-u`: unconfigure.
    Unconfigure,
    /// `-U`: set the unit.
    SetUnit(u32),
    /// `-t`: check a configuration file; there is no device.
    CheckFile(String),
    /// No option but a device: nothing is done, apart from what `-o` says.
    Nothing,
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What is to be done.
    pub action: Action,
    /// `-v`.
    pub verbose: bool,
    /// `-n`: only say what would be done.
    pub dry_run: bool,
    /// `--json`: answer in JSON.
    pub json: bool,
    /// The words of each `-o`.
    pub options: Vec<String>,
    /// The set's device; empty with `-t`.
    pub device: String,
}

/// A command line that is none: the program shows its usage and exits with 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Letters that take an argument.
const WITH_ARGUMENT: &str = "aAcCfFgIMorRtU";
/// Letters that take none.
const ALONE: &str = "BGiLmnpPsSuv";

impl Invocation {
    /// Parses what follows the program's name. Options end at the first argument that is none.
    ///
    /// # Errors
    /// An unknown option, more than one action, a bad number, not exactly one device.
    pub fn parse(arguments: &[&str]) -> Result<Self, UsageError> {
        let mut rest = arguments.iter().copied();
        let mut operands = Vec::new();
        let mut chosen: Option<(char, String)> = None;
        let (mut verbose, mut dry_run, mut json) = (false, false, false);
        let mut options = Vec::new();
        while let Some(argument) = rest.next() {
            let letters = match argument.strip_prefix('-') {
                Some("-") => break,
                Some("-json") => {
                    json = true;
                    continue;
                }
                Some(letters) if letters.starts_with('-') => {
                    return Err(UsageError(format!("there is no option {argument}")));
                }
                Some(letters) if !letters.is_empty() => letters,
                _ => {
                    operands.push(argument);
                    break;
                }
            };
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                let value = if WITH_ARGUMENT.contains(letter) {
                    let attached = std::mem::replace(&mut letters, "".chars()).as_str();
                    let value = Some(attached).filter(|value| !value.is_empty()).or_else(|| rest.next());
                    // Whatever -A is given that is not yes is no, nothing as well.
                    let value = value.filter(|value| letter == 'A' || !value.is_empty());
                    value.ok_or_else(|| UsageError(format!("option -{letter} needs an argument")))?
                } else if ALONE.contains(letter) {
                    ""
                } else {
                    return Err(UsageError(format!("there is no option -{letter}")));
                };
                match letter {
                    'v' => verbose = true,
                    'n' => dry_run = true,
                    'o' => options.extend(value.split(',').map(str::to_owned)),
                    _ if chosen.replace((letter, value.to_owned())).is_some() => {
                        return Err(UsageError("give one action only".to_owned()));
                    }
                    _ => {}
                }
            }
        }
        operands.extend(rest);
        if let Some(('t', file)) = &chosen {
            if !operands.is_empty() {
                return Err(UsageError("-t takes no device".to_owned()));
            }
            let action = Action::CheckFile(file.clone());
            return Ok(Self { action, verbose, dry_run, json, options, device: String::new() });
        }
        let (&device, numbers) =
            operands.split_last().ok_or_else(|| UsageError("no device is given".to_owned()))?;
        let action = match chosen {
            Some((letter, value)) => action(letter, &value, numbers)?,
            None => Action::Nothing,
        };
        if !numbers.is_empty() && !matches!(action, Action::SetMap(_)) {
            return Err(UsageError("give one device only".to_owned()));
        }
        Ok(Self { action, verbose, dry_run, json, options, device: device.to_owned() })
    }
}

fn action(letter: char, value: &str, numbers: &[&str]) -> Result<Action, UsageError> {
    let bad = |what: &str| UsageError(format!("{value:?} is not {what}"));
    let named = value.to_owned();
    Ok(match letter {
        'a' => Action::AddSpare(named),
        'A' => {
            let value = value.to_ascii_lowercase();
            let begins = |words: &[&str]| words.iter().any(|word| value.starts_with(word));
            if begins(&["root", "hard", "forc"]) {
                Action::Autoconfigure(true, 1)
            } else if begins(&["soft"]) {
                Action::Autoconfigure(true, 2)
            } else {
                // Anything that is not yes is no.
                Action::Autoconfigure(begins(&["yes"]), 0)
            }
        }
        'B' => Action::Copyback,
        'c' | 'C' => Action::Configure { file: named, force: letter == 'C' },
        'f' | 'F' => Action::Fail { component: named, reconstruct: letter == 'F' },
        'g' => Action::ShowLabel(named),
        'G' => Action::Generate,
        'I' => {
            let serial = value.parse().ok().filter(|serial| *serial >= 0);
            Action::InitLabels(serial.ok_or_else(|| bad("a serial number from 0 to 2147483647"))?)
        }
        'i' => Action::RewriteParity,
        'L' => Action::Rescan,
        'm' => Action::ShowMap,
        'M' => match value.to_ascii_lowercase().as_str() {
            "yes" => Action::EnableMap(true),
            "no" => Action::EnableMap(false),
            "set" if numbers.len() <= 3 => {
                let mut parameters = [0; 3];
                for (slot, number) in parameters.iter_mut().zip(numbers) {
                    *slot = number.parse().map_err(|_| UsageError(format!("{number:?} is not a number")))?;
                }
                Action::SetMap(parameters)
            }
            "set" => {
                return Err(UsageError(
                    "-M set takes up to three numbers, and the device behind them".to_owned(),
                ));
            }
            _ => return Err(bad("yes, no, or set with up to three numbers")),
        },
        'p' => Action::CheckParity,
        'P' => Action::CheckAndRewriteParity,
        'r' => Action::RemoveSpare(named),
        'R' => Action::ReconstructInPlace(named),
        's' => Action::Status,
        'S' => Action::Progress,
        'u' => Action::Unconfigure,
        'U' => {
            // Labels have a signed number there.
            let unit = value.parse().ok().filter(|unit| i32::try_from(*unit).is_ok());
            Action::SetUnit(unit.ok_or_else(|| bad("the number of a unit, from 0 to 2147483647"))?)
        }
        letter => return Err(UsageError(format!("there is no option -{letter}"))),
    })
}

/// The lines about a label that `-g` and `-s` print.
pub fn label_block(name: &str, label: &Label) -> String {
    let yes = |yes: bool| if yes { "Yes" } else { "No" };
    let version = match label.version {
        crate::label::Version::V1 => 1,
        crate::label::Version::V2 => 2,
    };
    let root = match label.root() {
        Root::No => "No",
        Root::Force => "Force",
        Root::Soft => "Soft",
        Root::Invalid => "*invalid*",
    };
    let Label { row, column, num_rows, num_columns, mod_counter, status, block_size, num_blocks, .. } = label;
    format!(
        "Component label for {name}:\n   \
         Row: {row}, Column: {column}, Num Rows: {num_rows}, Num Columns: {num_columns}\n   \
         Version: {version}, Serial Number: {}, Mod Counter: {mod_counter}\n   \
         Clean: {}, Status: {status}\n   \
         sectPerSU: {}, SUsPerPU: {}, SUsPerRU: {}\n   \
         Queue size: {}, blocksize: {block_size}, numBlocks: {num_blocks}\n   \
         RAID Level: {}\n   \
         Autoconfig: {}\n   \
         Root partition: {root}\n   \
         Last configured as: raid{}\n",
        label.serial_number.cast_unsigned(),
        yes(label.clean),
        label.sectors_per_unit,
        label.units_per_parity_unit,
        label.units_per_recon_unit,
        label.max_outstanding,
        label.letter().unwrap_or('?'),
        yes(label.autoconfigure != 0),
        label.last_unit,
    )
}

/// What `-s` prints. `parity_rewrite` is the progress of one that runs.
pub fn status(set: &SetStatus, parity_rewrite: Option<Progress>) -> String {
    let mut text = String::from("Components:\n");
    // Writing to a string never fails.
    for component in &set.columns {
        let _ = writeln!(text, "{:>20}: {}", component.name, component.status.word());
    }
    if set.spares.is_empty() {
        text.push_str("No spares.\n");
    } else {
        text.push_str("Spares:\n");
        for spare in &set.spares {
            let _ = writeln!(text, "{:>20}: {}", spare.name, spare.status.word());
        }
    }
    let mut told = |component: &ComponentStatus, good: Status| match &component.label {
        Some(label) if component.status == good => {
            text.push_str(&label_block(&component.name, label));
        }
        _ => {
            let _ =
                writeln!(text, "{} status is: {}.  Skipping label.", component.name, component.status.word());
        }
    };
    set.columns.iter().for_each(|component| told(component, Status::Optimal));
    set.spares.iter().for_each(|spare| told(spare, Status::UsedSpare));
    let _ = writeln!(text, "Parity status: {}", parity_word(set.parity_good));
    text.push_str(&progress(set, parity_rewrite));
    text
}

const fn parity_word(good: bool) -> &'static str {
    if good { "clean" } else { "DIRTY" }
}

/// The first lines that `-S` prints, and the last of `-s`.
pub fn progress(set: &SetStatus, parity_rewrite: Option<Progress>) -> String {
    let of = |kind| match set.rebuild {
        Some((running, _, progress)) if running == kind => progress.percent(),
        _ => 100,
    };
    format!(
        "Reconstruction is {}% complete.\nParity Re-write is {}% complete.\nCopyback is {}% complete.\n",
        of(RebuildKind::Reconstruction),
        parity_rewrite.map_or(100, Progress::percent),
        of(RebuildKind::Copyback),
    )
}

/// What `-p` prints. The exit code is 1 if the parity is not good.
pub fn parity_status(device: &str, good: bool) -> String {
    format!("{device}: Parity status: {}\n", parity_word(good))
}

/// What `-P` prints before and after it rewrites the parity.
pub fn parity_rewrite(device: &str) -> [String; 2] {
    let before = format!("{}{device}: Initiating re-write of parity\n", parity_status(device, false));
    [before, format!("{device}: Parity Re-write complete\n")]
}

/// One state of the meter that `-v` shows: a line that overwrites the one before. `tick` counts the states.
pub fn meter(progress: Progress, seconds_left: u64, tick: usize) -> String {
    /// Characters of the bar.
    const WIDTH: usize = 39;
    let percent = progress.percent();
    let stars = (percent as usize * 40 / 100).min(WIDTH);
    let (hours, minutes, seconds) = (seconds_left / 3600, seconds_left / 60 % 60, seconds_left % 60);
    let hours = if hours > 0 { format!("{hours:02}:") } else { "   ".to_owned() };
    let wheel = ['|', '/', '-', '\\'][tick % 4];
    format!("\r{percent:3}% |{:<WIDTH$}| ETA: {hours}{minutes:02}:{seconds:02} {wheel}", "*".repeat(stars))
}

/// A parity map, as `-m` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapStatus {
    /// Its parameters.
    pub parameters: Parameters,
    /// Sectors of the set in a region.
    pub region_sectors: u64,
    /// Its counts.
    pub counters: Counters,
    /// What is dirty.
    pub bits: Bits,
}

/// What `-m` prints. `map`: `None` if the set has no parity, `Some(None)` if its map is disabled.
pub fn map_status(unit: u32, map: Option<Option<&MapStatus>>, enabled_next: bool, verbose: bool) -> String {
    let Some(map) = map else { return format!("raid{unit}: has no parity; parity map disabled\n") };
    let mut text = String::new();
    if let Some(map) = map {
        let Parameters { cooldown, tick_ms, regions } = map.parameters;
        let Counters { writes, syncs, cleans } = map.counters;
        let size = human(map.region_sectors.saturating_mul(512));
        let dirty = (0..regions).filter(|&region| map.bits.get(region)).count();
        let plural = if dirty == 1 { "" } else { "s" };
        let (seconds, millis) = (tick_ms / 1000, tick_ms % 1000);
        let _ = write!(
            text,
            "raid{unit}: parity map enabled with {regions} regions of {size}\n\
             raid{unit}: regions marked clean after {cooldown} intervals of {seconds}.{millis:03}s\n\
             raid{unit}: write/sync/clean counters {writes}/{syncs}/{cleans}\n\
             raid{unit}: {dirty} dirty region{plural}\n"
        );
        for line in map.bits.encode().chunks(32).filter(|_| verbose) {
            text.push_str("    ");
            // Low nibble first, so that the digits are in the order of the regions.
            line.iter().for_each(|byte| {
                let _ = write!(text, "{:x}{:x}", byte & 15, byte >> 4);
            });
            text.push('\n');
        }
    } else {
        let _ = writeln!(text, "raid{unit}: parity map disabled");
    }
    let remain = if map.is_some() == enabled_next { "remain" } else { "be" };
    let state = if enabled_next { "enabled" } else { "disabled" };
    let _ = writeln!(text, "raid{unit}: parity map will {remain} {state} on next configure");
    text
}

/// A size in at most four digits and a unit, rounded.
fn human(bytes: u64) -> String {
    let mut hundredths = u128::from(bytes) * 100;
    let mut units = ["", "K", "M", "G", "T", "P", "E"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while hundredths >= 999_950 {
        let Some(next) = units.next() else { break };
        unit = next;
        hundredths /= 1024;
    }
    format!("{}{unit}B", (hundredths + 50) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::tests::sample;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Invocation, UsageError> {
        Invocation::parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn every_option_of_the_manual() {
        let named = || "/dev/sd2e".to_owned();
        for (line, action) in [
            ("-A yes raid0", Action::Autoconfigure(true, 0)),
            ("-A no raid0", Action::Autoconfigure(false, 0)),
            ("-A maybe raid0", Action::Autoconfigure(false, 0)),
            ("-A ROOT raid0", Action::Autoconfigure(true, 1)),
            ("-A forceroot raid0", Action::Autoconfigure(true, 1)),
            ("-A softroot raid0", Action::Autoconfigure(true, 2)),
            ("-a /dev/sd2e raid0", Action::AddSpare(named())),
            ("-B raid0", Action::Copyback),
            ("-C raid0.conf raid0", Action::Configure { file: "raid0.conf".to_owned(), force: true }),
            ("-craid0.conf raid0", Action::Configure { file: "raid0.conf".to_owned(), force: false }),
            ("-F /dev/sd2e raid0", Action::Fail { component: named(), reconstruct: true }),
            ("-f /dev/sd2e raid0", Action::Fail { component: named(), reconstruct: false }),
            ("-G raid0", Action::Generate),
            ("-g /dev/sd2e raid0", Action::ShowLabel(named())),
            ("-I 112341 raid0", Action::InitLabels(112_341)),
            ("-i raid0", Action::RewriteParity),
            ("-L raid0", Action::Rescan),
            ("-M yes raid0", Action::EnableMap(true)),
            ("-M no raid0", Action::EnableMap(false)),
            ("-M set 4 0 100 raid0", Action::SetMap([4, 0, 100])),
            ("-M set 4 raid0", Action::SetMap([4, 0, 0])),
            ("-m raid0", Action::ShowMap),
            ("-P raid0", Action::CheckAndRewriteParity),
            ("-p raid0", Action::CheckParity),
            ("-R /dev/sd2e raid0", Action::ReconstructInPlace(named())),
            ("-r /dev/sd2e raid0", Action::RemoveSpare(named())),
            ("-S raid0", Action::Progress),
            ("-s raid0", Action::Status),
            ("-U 3 raid0", Action::SetUnit(3)),
            ("-u raid0", Action::Unconfigure),
            ("raid0", Action::Nothing),
        ] {
            let parsed = parse(line).unwrap();
            let expected = Invocation {
                action,
                verbose: false,
                dry_run: false,
                json: false,
                options: vec![],
                device: "raid0".to_owned(),
            };
            assert_eq!(parsed, expected, "{line}");
            assert_eq!(parse(&format!("-v {line}")).unwrap(), Invocation { verbose: true, ..parsed });
        }
        assert!(parse("-iv raid0").unwrap().verbose);
        let ours = parse("--json -n -o autospare,x -s raid0").unwrap();
        assert!(ours.json && ours.dry_run && ours.options == ["autospare", "x"]);
        assert_eq!(parse("-t raid0.conf").unwrap().action, Action::CheckFile("raid0.conf".to_owned()));
    }

    #[test]
    fn what_is_no_command_line() {
        for line in [
            "",
            "-s",
            "-s -p raid0",
            "-s raid0 raid1",
            "-x raid0",
            "-I raid0",
            "-I -1 raid0",
            "-I 2147483648 raid0",
            "-M set 1 2 3 4 raid0",
            "-M set x raid0",
            "-M on raid0",
            "-U x raid0",
            "-U 2147483648 raid0",
            "--jsn -s raid0",
            "-a",
            "raid0 -s",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for option in ["-a", "-c", "-f", "-g", "-o", "-t"] {
            let told = Invocation::parse(&[option, "", "raid0"]).unwrap_err().to_string();
            assert_eq!(told, format!("option {option} needs an argument"));
        }
        assert_eq!(parse("--jsn -s raid0").unwrap_err().to_string(), "there is no option --jsn");
        let four = parse("-M set 1 2 3 4 raid0").unwrap_err().to_string();
        assert_eq!(four, "-M set takes up to three numbers, and the device behind them");
    }

    fn component(name: &str, status: Status, label: Option<Label>) -> ComponentStatus {
        ComponentStatus { name: name.to_owned(), status, label }
    }

    #[test]
    fn the_status_while_a_component_is_rebuilt() {
        let label = Label { column: 0, autoconfigure: 0, root_partition: 0, last_unit: 0, ..sample() };
        let set = SetStatus {
            unit: 0,
            columns: vec![
                component("/dev/sd1e", Status::Optimal, Some(label)),
                component("component1", Status::Reconstructing, None),
            ],
            spares: vec![component("/dev/sd4e", Status::Spare, None)],
            parity_good: true,
            rebuild: Some((RebuildKind::Reconstruction, 1, Progress { done: 109, total: 1000 })),
        };
        let expected = "\
Components:
           /dev/sd1e: optimal
          component1: reconstructing
Spares:
           /dev/sd4e: spare
Component label for /dev/sd1e:
   Row: 0, Column: 0, Num Rows: 1, Num Columns: 3
   Version: 2, Serial Number: 13432, Mod Counter: 65
   Clean: No, Status: 0
   sectPerSU: 32, SUsPerPU: 1, SUsPerRU: 1
   Queue size: 100, blocksize: 512, numBlocks: 1799936
   RAID Level: 5
   Autoconfig: No
   Root partition: No
   Last configured as: raid0
component1 status is: reconstructing.  Skipping label.
/dev/sd4e status is: spare.  Skipping label.
Parity status: clean
Reconstruction is 10% complete.
Parity Re-write is 100% complete.
Copyback is 100% complete.
";
        assert_eq!(status(&set, None), expected);
        let none = SetStatus { spares: vec![], parity_good: false, rebuild: None, ..set };
        let text = status(&none, Some(Progress { done: 1, total: 3 }));
        assert!(text.contains("\nNo spares.\n") && text.contains("Parity status: DIRTY\n"));
        assert!(text.ends_with(
            "Reconstruction is 100% complete.\nParity Re-write is 33% complete.\nCopyback is 100% complete.\n"
        ));
    }

    #[test]
    fn parity_lines() {
        assert_eq!(parity_status("/dev/rraid0d", true), "/dev/rraid0d: Parity status: clean\n");
        let [before, after] = parity_rewrite("/dev/rraid0d");
        assert_eq!(
            before,
            "/dev/rraid0d: Parity status: DIRTY\n/dev/rraid0d: Initiating re-write of parity\n"
        );
        assert_eq!(after, "/dev/rraid0d: Parity Re-write complete\n");
    }

    /// The manual's line, with the carriage return that it does not show.
    #[test]
    fn the_meter() {
        let at = |done| Progress { done, total: 100 };
        let line = "\r 10% |****                                   | ETA:    06:03 /";
        assert_eq!(meter(at(10), 363, 1), line);
        assert_eq!(meter(at(0), 0, 0), format!("\r  0% |{}| ETA:    00:00 |", " ".repeat(39)));
        assert_eq!(meter(at(99), 7322, 3), format!("\r 99% |{}| ETA: 02:02:02 \\", "*".repeat(39)));
        assert_eq!(meter(at(100), 0, 0).len(), line.len());
    }

    #[test]
    fn the_parity_map() {
        let mut bits = Bits::clean();
        bits.set(0, true);
        bits.set(13, true);
        let map = MapStatus {
            parameters: Parameters { cooldown: 8, tick_ms: 40_000, regions: 35 },
            region_sectors: 51_456,
            counters: Counters { writes: 7, syncs: 2, cleans: 1 },
            bits,
        };
        let short = "\
raid0: parity map enabled with 35 regions of 25MB
raid0: regions marked clean after 8 intervals of 40.000s
raid0: write/sync/clean counters 7/2/1
raid0: 2 dirty regions
raid0: parity map will remain enabled on next configure
";
        assert_eq!(map_status(0, Some(Some(&map)), true, false), short);
        let long = map_status(0, Some(Some(&map)), false, true);
        let lines: Vec<&str> = long.lines().collect();
        assert_eq!((lines.len(), lines[4]), (21, format!("    1002{}", "0".repeat(60)).as_str()));
        assert_eq!(lines[20], "raid0: parity map will be disabled on next configure");
        let off = "raid0: parity map disabled\nraid0: parity map will remain disabled on next configure\n";
        assert_eq!(map_status(0, Some(None), false, true), off);
        assert_eq!(map_status(1, None, true, false), "raid1: has no parity; parity map disabled\n");
        for (bytes, text) in
            [(512, "512B"), (9999, "9999B"), (10_000, "10KB"), (1 << 20, "1024KB"), (u64::MAX, "16EB")]
        {
            assert_eq!(human(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_harmless(words in prop::collection::vec("-{0,2}[a-zA-Z0-9]{0,4}|\\PC{0,4}", 0..6)) {
            let _ = Invocation::parse(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
