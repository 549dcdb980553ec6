//! Units that are remembered, one file each: `$COFFER_STATE_DIR/raid/raidN.json`, with a lock and a control socket beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pool::types::Guid;
use protocol::raid::Failures;
use protocol::told::Told;
use raidset::design::Design;
use raidset::layout::Level;
use raidset::set::{Known, Parameters};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Failure, Outcome};
use crate::state::{PoolLock, State};

/// Version of the records' format.
const VERSION: u32 = 1;
/// Folders in which components of units were, to be searched by `-L`.
const PLACES: &str = "places";

/// A device under the name that the configuration gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The name.
    pub(crate) name: String,
    /// Where it is; `None` if it is not there, as `absent` says.
    pub(crate) path: Option<PathBuf>,
}

/// A unit that is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// N of raidN.
    pub(crate) unit: u32,
    level: char,
    sectors_per_unit: u32,
    units_per_parity_unit: u32,
    units_per_recon_unit: u32,
    queue_length: u32,
    /// Components, one for each column.
    pub(crate) columns: Vec<Part>,
    /// Spares.
    pub(crate) spares: Vec<Part>,
    /// What is known beyond the labels: the bytes of [`Known`], in hexadecimal digits.
    known: String,
    /// Jobs that failed and have not begun again.
    #[serde(default)]
    pub(crate) failed: Failures,
}

impl Record {
    /// A record of a set.
    pub(crate) fn new(
        unit: u32,
        parameters: &Parameters,
        columns: Vec<Part>,
        spares: Vec<Part>,
        known: &Known,
    ) -> Self {
        let known = known.encode().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self {
            version: VERSION,
            unit,
            level: parameters.level.letter(),
            sectors_per_unit: parameters.sectors_per_unit,
            units_per_parity_unit: parameters.units_per_parity_unit,
            units_per_recon_unit: parameters.units_per_recon_unit,
            queue_length: parameters.queue_length,
            columns,
            spares,
            known,
            failed: Failures::default(),
        }
    }

    /// What the set is.
    pub(crate) fn parameters(&self) -> Option<Parameters> {
        Some(Parameters {
            level: Level::with_design(self.level, self.known().and_then(|known| known.design))?,
            sectors_per_unit: self.sectors_per_unit,
            units_per_parity_unit: self.units_per_parity_unit,
            units_per_recon_unit: self.units_per_recon_unit,
            queue_length: self.queue_length,
        })
    }

    /// What is known beyond the labels.
    pub(crate) fn known(&self) -> Option<Known> {
        let digits: Option<Vec<u8>> =
            self.known.bytes().map(|digit| char::from(digit).to_digit(16).map(|d| d as u8)).collect();
        let digits = digits?;
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect();
        let mut known = Known::decode(&bytes)?;
        // Names are cut there.
        let names = known.columns.iter_mut().map(|column| &mut column.name).zip(&self.columns);
        names.for_each(|(name, part)| part.name.clone_into(name));
        let names = known.spares.iter_mut().map(|spare| &mut spare.name).zip(&self.spares);
        names.for_each(|(name, part)| part.name.clone_into(name));
        Some(known)
    }

    /// Units that it is built of.
    pub(crate) fn below(&self) -> BTreeSet<u32> {
        let parts = self.columns.iter().chain(&self.spares);
        parts.filter_map(|part| super::parts::unit_below(part.path.as_deref()?)).collect()
    }
}

/// The unit that a device's name means: `raid0`, `/dev/raid0d`, `/dev/rraid0c`. Letters are those that NetBSD has for partitions.
pub(crate) fn unit_number(device: &str) -> Option<u32> {
    let name = device.strip_prefix("/dev/").unwrap_or(device);
    let digits = name.strip_prefix("rraid").or_else(|| name.strip_prefix("raid"))?;
    let digits = digits.strip_suffix(|last: char| ('a'..='p').contains(&last)).unwrap_or(digits);
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    // Labels have a signed number.
    digits.parse().ok().filter(|unit| plain && i32::try_from(*unit).is_ok())
}

/// What is said of a name that is none of a unit.
pub(crate) fn no_unit(device: &str) -> String {
    format!("'{device}' is no unit: write raid0, raid1, ..., with a letter from a to p behind it if you like")
}

/// The full name of a unit's device, as texts tell it.
pub(crate) fn device_name(device: &str) -> String {
    match unit_number(device) {
        Some(unit) if !device.starts_with('/') => format!("/dev/rraid{unit}d"),
        _ => device.to_owned(),
    }
}

/// A unit whose record can't be read, and why.
type Damaged = (u32, Failure);

/// The folder of units.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    dir: PathBuf,
    /// The same folder, for locks and sockets.
    state: State,
}

impl Units {
    /// Within the state folder.
    pub(crate) fn new(state: &State) -> Self {
        let dir = state.folder().join("raid");
        Self { state: State::at(&dir), dir }
    }

    fn path(&self, unit: u32) -> PathBuf {
        self.dir.join(format!("raid{unit}.json"))
    }

    /// The control socket of a unit's holder.
    pub(crate) fn socket(&self, unit: u32) -> PathBuf {
        self.state.socket(Guid(unit.into()))
    }

    /// Takes the right to hold a unit; `Err(pid)` if a process has it.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn lock(&self, unit: u32) -> Outcome<Result<PoolLock, u32>> {
        self.state.lock_pool(Guid(unit.into()))
    }

    /// The record of a unit, if it is configured.
    ///
    /// # Errors
    /// It is there and can't be understood.
    pub(crate) fn find(&self, unit: u32) -> Outcome<Option<Record>> {
        let path = self.path(unit);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io(format!("read {}", path.display()))(error)),
        };
        let damaged = |why: String| {
            Failure::refused(format!(
                "{} is not a record of a unit ({why}): remove it and configure the unit again",
                path.display()
            ))
        };
        let record: Record = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if record.version != VERSION || record.unit != unit {
            return Err(damaged("its version or unit is another".to_owned()));
        }
        Ok(Some(record))
    }

    /// All units that are configured.
    ///
    /// # Errors
    /// The folder or a record can't be read.
    pub(crate) fn all(&self) -> Outcome<Vec<Record>> {
        let (records, damaged) = self.all_readable()?;
        damaged.into_iter().next().map_or(Ok(records), |(_, failure)| Err(failure))
    }

    /// All units whose records can be read, and why others can't.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn all_readable(&self) -> Outcome<(Vec<Record>, Vec<Damaged>)> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            Err(error) => return Err(Failure::io(format!("read {}", self.dir.display()))(error)),
        };
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(unit) = name.strip_suffix(".json").and_then(unit_number) else { continue };
            match self.find(unit) {
                Ok(record) => records.extend(record),
                Err(failure) => damaged.push((unit, failure)),
            }
        }
        records.sort_by_key(|record| record.unit);
        damaged.sort_by_key(|(unit, _)| *unit);
        Ok((records, damaged))
    }

    /// Remembers a unit. Replaced in one step.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn save(&self, record: &Record) -> Outcome {
        let text =
            serde_json::to_string_pretty(record).map_err(|error| Failure::refused(error.to_string()))?;
        self.replace(&self.path(record.unit), &text)
    }

    /// Writes the block design of a unit to a file that its configuration can name.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn write_design(&self, unit: u32, design: &Design) -> Outcome<PathBuf> {
        let path = self.dir.join(format!("raid{unit}.design"));
        self.replace(&path, &design.text())?;
        Ok(path)
    }

    fn replace(&self, path: &Path, text: &str) -> Outcome {
        let doing = || format!("write to {}", self.dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(Failure::io(doing()))?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(Failure::io(doing()))?;
        file.write_all(text.as_bytes()).map_err(Failure::io(doing()))?;
        file.as_file().sync_all().map_err(Failure::io(doing()))?;
        file.persist(path).map_err(|error| Failure::io(doing())(error.error))?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Failure::io(doing()))
    }

    /// Forgets a unit, but not where its components were.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn forget(&self, unit: u32) -> Outcome {
        let path = self.path(unit);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Folders in which components were found before.
    pub(crate) fn places(&self) -> BTreeSet<PathBuf> {
        let text = fs::read_to_string(self.dir.join(PLACES)).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    /// Remembers the folders of a unit's components, but for those of devices, which are looked at anyway.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn note_places(&self, record: &Record) -> Outcome {
        let mut places = self.places();
        let before = places.len();
        let parts = record.columns.iter().chain(&record.spares).filter_map(|part| part.path.as_deref());
        places.extend(
            parts.filter_map(Path::parent).filter(|dir| !dir.starts_with("/dev")).map(Path::to_owned),
        );
        if places.len() == before {
            return Ok(());
        }
        let text = places.iter().fold(String::new(), |text, place| text + &place.to_string_lossy() + "\n");
        self.replace(&self.dir.join(PLACES), &text)
    }

    /// What `coffer raid list` says: the units, and on standard error which records can't be read.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn list(&self, json: bool) -> Outcome<Told> {
        let (records, damaged) = self.all_readable()?;
        let names = |parts: &[Part]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
        let errors = damaged.iter().map(|(_, failure)| failure.to_string()).collect();
        let code = u8::from(!damaged.is_empty());
        let rows = records.iter().map(|record| {
            json!({
                "unit": format!("raid{}", record.unit), "level": record.level,
                "components": names(&record.columns), "spares": names(&record.spares),
            })
        });
        let others = damaged
            .iter()
            .map(|(unit, failure)| json!({"unit": format!("raid{unit}"), "damaged": failure.to_string()}));
        let data = rows.chain(others).collect::<Vec<_>>().into();
        let out = records.iter().fold(String::new(), |text, record| {
            let components = names(&record.columns).join(" ");
            text + &format!("raid{}: RAID Level {}: {components}\n", record.unit, record.level)
        });
        let none = records.is_empty() && damaged.is_empty();
        let out = if none { "no units are configured\n".to_owned() } else { out };
        Ok(Told { errors, code, ..Told::either(json, out, data) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_by_all_their_names() {
        for (name, unit) in [
            ("raid0", Some(0)),
            ("/dev/raid12", Some(12)),
            ("/dev/rraid0d", Some(0)),
            ("rraid3c", Some(3)),
            ("raid", None),
            ("raidx", None),
            ("/tmp/raid0", None),
            ("raid0ab", None),
            ("raid-1", None),
            ("raid0p", Some(0)),
            ("raid0x", None),
            ("raid00", None),
            ("raid2147483647", Some(2_147_483_647)),
            ("raid2147483648", None),
        ] {
            assert_eq!(unit_number(name), unit, "{name}");
        }
        assert_eq!(device_name("raid0"), "/dev/rraid0d");
        assert_eq!(device_name("/dev/rraid0c"), "/dev/rraid0c");
    }
}
