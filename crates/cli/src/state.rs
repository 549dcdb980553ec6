//! What is remembered between commands, in `$COFFER_STATE_DIR`: the pools in use, one file each.
//!
//! `<guid>.json` is a pool's [`Record`]; `<guid>.lock` is locked by the process that holds the pool and tells its
//! number; `<guid>.session` tells in which session the pool was last used from here; `<guid>.sock` is that process's control socket; `<guid>.events` is what happened to it; `state.lock` is held while records are
//! changed. Records are replaced in one step, so a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use device::{Access, FileDevice};
use pool::Pool;
use pool::types::{Guid, Session};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Outcome};
use crate::host;

/// Where state is kept unless `$COFFER_STATE_DIR` says otherwise.
const DEFAULT_DIR: &str = "/var/lib/cofferdam";
/// Version of the records' format.
const VERSION: u32 = 1;
/// Largest record that is read, bytes: some hundred bytes for each of thousands of devices.
const MAX_RECORD: u64 = 16 << 20;

/// A pool that was created or imported here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this format.
    version: u32,
    /// Its name.
    pub(crate) name: String,
    /// Its identity.
    pub(crate) guid: Guid,
    /// Where its devices were last seen.
    pub(crate) devices: Vec<PathBuf>,
    /// Devices that a command is just adding: should it be killed, they may belong to the pool already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) joining: Vec<PathBuf>,
    /// Folders that were searched for it.
    pub(crate) folders: Vec<PathBuf>,
    /// It was exported: kept only so that it can be found again.
    pub(crate) exported: bool,
    /// It was imported read-only.
    pub(crate) read_only: bool,
    /// If read-only: at this older root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<u64>,
    /// If read-only: as of the checkpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) checkpoint: bool,
    /// If read-only: by force, whatever other histories there are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forced: bool,
    /// It is destroyed: whoever reads this and finds nobody at it clears what labels are left, and forgets it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) destroyed: bool,
    /// Devices that were taken out with `offline -t`, for as long as the host is not started anew.
    #[serde(default)]
    pub(crate) offline: Vec<Guid>,
    /// The start of the host that `offline` speaks of.
    #[serde(default)]
    pub(crate) boot: String,
}

impl Record {
    /// A pool that is in use.
    pub(crate) fn new(name: &str, guid: Guid, devices: Vec<PathBuf>) -> Self {
        let name = name.to_owned();
        Self {
            version: VERSION,
            name,
            guid,
            devices,
            joining: Vec::new(),
            folders: Vec::new(),
            exported: false,
            read_only: false,
            root: None,
            checkpoint: false,
            forced: false,
            destroyed: false,
            offline: Vec::new(),
            boot: String::new(),
        }
    }
}

/// The folder of records.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Where.
    dir: PathBuf,
}

/// The right to hold a pool: while it lives, no other process that uses this state folder holds it.
#[derive(Debug)]
pub(crate) struct PoolLock {
    /// Locked file; the lock goes with it.
    _file: File,
}

impl State {
    /// The folder that the environment names.
    pub(crate) fn from_env() -> Self {
        match std::env::var_os("COFFER_STATE_DIR") {
            Some(dir) if !dir.is_empty() => Self::at(dir),
            _ => Self::at(DEFAULT_DIR),
        }
    }

    /// The folder at `dir`, which need not exist yet.
    pub(crate) fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// The control socket of a pool's holder.
    pub(crate) fn socket(&self, guid: Guid) -> PathBuf {
        self.dir.join(format!("{guid}.sock"))
    }

    /// What happened to a pool.
    pub(crate) fn events(&self, guid: Guid) -> PathBuf {
        self.dir.join(format!("{guid}.events"))
    }

    /// All records, by name. One that can't be read is reported in a sentence instead.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn records(&self) -> Outcome<(Vec<Record>, Vec<String>)> {
        let mut records = Vec::new();
        let mut problems = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((records, problems)),
            Err(error) => return Err(Failure::io(self.doing("read"))(error)),
        };
        for entry in entries {
            let path = entry.map_err(Failure::io(self.doing("read")))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_record(&path) {
                Ok(record) => records.push(record),
                Err(why) => problems.push(format!("{} is not a record of a pool: {why}", path.display())),
            }
        }
        records.sort_by(|a, b| a.name.cmp(&b.name).then(a.guid.cmp(&b.guid)));
        problems.sort();
        Ok((records, problems))
    }

    /// Pools in use, by name.
    ///
    /// # Errors
    /// As [`State::records`].
    pub(crate) fn in_use(&self) -> Outcome<Vec<Record>> {
        let (mut records, problems) = self.records()?;
        for problem in problems {
            eprintln!("coffer: {problem}");
        }
        for record in records.extract_if(.., |record| record.destroyed) {
            self.finish_destroying(&record)?;
        }
        Ok(records.into_iter().filter(|record| !record.exported).collect())
    }

    /// Destroys a pool that can't be opened: the labels of its devices that are there go, and it is forgotten.
    ///
    /// # Errors
    /// Somebody holds it, another host used it last, or a device that is there can't be written.
    pub(crate) fn destroy_unopened(&self, name: &str) -> Outcome {
        let mut record = self.find(name)?;
        let here = host::host().id;
        for path in &record.devices {
            let Ok(device) = FileDevice::open(path, Access::ReadOnly) else { continue };
            let label = Pool::examine(&device).ok().flatten();
            if let Some(label) = label.filter(|label| label.pool_guid == record.guid)
                && label.host_id != here
                && !label.exported
            {
                return Err(Failure::refused(format!(
                    "{} was last used by host '{}' in pool '{name}': 'coffer export' forgets the pool here and leaves it to that host",
                    path.display(),
                    label.host_name
                )));
            }
        }
        record.destroyed = true;
        self.save(&record)?;
        self.finish_destroying(&record)
    }

    /// Ends what a process began that was killed while it destroyed a pool.
    fn finish_destroying(&self, record: &Record) -> Outcome {
        let Ok(_lock) = self.lock_pool(record.guid)? else { return Ok(()) };
        for path in &record.devices {
            // One that is not there or can't be written keeps its labels, as it would have from the start.
            if let Ok(device) = FileDevice::open(path, Access::ReadWrite)
                && let Ok(Some(label)) = Pool::examine(&device)
                && label.pool_guid == record.guid
            {
                Pool::label_clear(&device, true)?;
            }
        }
        self.forget(record.guid)
    }

    /// The pool in use of that name, or of that number.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(&self, name: &str) -> Outcome<Record> {
        let guid = name.parse().ok().map(Guid);
        let mut records = self.in_use()?;
        let found = records
            .iter()
            .position(|record| record.name == name)
            .or_else(|| records.iter().position(|record| Some(record.guid) == guid));
        match found {
            Some(index) => Ok(records.swap_remove(index)),
            None => Err(Failure::refused(format!(
                "no such pool '{name}': 'coffer list' shows the pools in use, 'coffer import' those that could be"
            ))),
        }
    }

    /// That no pool other than `guid` is in use under that name.
    ///
    /// # Errors
    /// One is.
    pub(crate) fn name_is_free(&self, name: &str, guid: Option<Guid>) -> Outcome {
        match self.in_use()?.iter().find(|record| record.name == name && Some(record.guid) != guid) {
            Some(other) => Err(Failure::refused(format!(
                "a pool named '{name}' is in use already (its number is {}); choose another name",
                other.guid
            ))),
            None => Ok(()),
        }
    }

    /// Remembers a pool, or what is new about it.
    ///
    /// # Errors
    /// Another pool in use has its name, or the folder can't be written.
    pub(crate) fn save(&self, record: &Record) -> Outcome {
        self.prepare()?;
        let _lock = self.lock_records()?;
        if !record.exported {
            self.name_is_free(&record.name, Some(record.guid))?;
        }
        let text =
            serde_json::to_string_pretty(record).map_err(|error| Failure::refused(error.to_string()))?;
        let doing = || self.doing("write to");
        let mut file = tempfile::Builder::new()
            .prefix(".record-")
            .tempfile_in(&self.dir)
            .map_err(Failure::io(doing()))?;
        file.write_all(text.as_bytes()).map_err(Failure::io(doing()))?;
        file.as_file().sync_all().map_err(Failure::io(doing()))?;
        file.persist(self.record_path(record.guid)).map_err(|error| Failure::io(doing())(error.error))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(Failure::io(doing()))
    }

    /// Forgets a pool.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn forget(&self, guid: Guid) -> Outcome {
        let _lock = self.lock_records()?;
        let (record, session) = (self.record_path(guid), self.session_path(guid));
        for path in [record, session, self.socket(guid), self.events(guid), self.lock_path(guid)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Failure::io(format!("remove {}", path.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the folder, and proves that it can be written to.
    ///
    /// # Errors
    /// It can't.
    pub(crate) fn prepare(&self) -> Outcome {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.and_then(|()| tempfile::tempfile_in(&self.dir).map(drop))
            .map_err(|error| self.unwritable(&error))
    }

    /// That [`Self::prepare`] would succeed; leaves nothing behind.
    ///
    /// # Errors
    /// It would not.
    pub(crate) fn could_prepare(&self) -> Outcome {
        let whole = std::path::absolute(&self.dir).map_err(|error| self.unwritable(&error))?;
        let there = whole.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        tempfile::tempfile_in(there).map(drop).map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        Failure::refused(format!(
            "cannot write to {}, where pools are remembered: {error}; name another folder in $COFFER_STATE_DIR",
            self.dir.display()
        ))
    }

    /// Takes the right to hold a pool; `Err(pid)` if a process has it (0 when it is not known which).
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn lock_pool(&self, guid: Guid) -> Outcome<Result<PoolLock, u32>> {
        self.prepare()?;
        let path = self.lock_path(guid);
        loop {
            let mut file = open_lock(&path).map_err(Failure::io(format!("open {}", path.display())))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let _ = (&mut file).take(32).read_to_string(&mut text);
                    return Ok(Err(text.trim().parse().unwrap_or(0)));
                }
                Err(error) => return Err(Failure::io(format!("lock {}", path.display()))(error.into())),
            }
            // The pool may have been forgotten, and its file unlinked, between the opening and the locking.
            if !is_still_at(&file, &path) {
                continue;
            }
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(Failure::io(format!("write {}", path.display())))?;
            return Ok(Ok(PoolLock { _file: file }));
        }
    }

    /// Waits for the lock under which records are changed.
    fn lock_records(&self) -> Outcome<File> {
        let path = self.dir.join("state.lock");
        let doing = || format!("lock {}", path.display());
        let file = open_lock(&path).map_err(Failure::io(doing()))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| Failure::io(doing())(error.into()))?;
        Ok(file)
    }

    fn record_path(&self, guid: Guid) -> PathBuf {
        self.dir.join(format!("{guid}.json"))
    }

    /// The session in which a pool was last used from here, where that is known.
    pub(crate) fn last_session(&self, guid: Guid) -> Option<Session> {
        fs::read_to_string(self.session_path(guid)).ok()?.trim().parse().ok().map(Session)
    }

    /// Notes in which session a pool is used now. A note that is lost costs no more than a question to the user.
    pub(crate) fn note_session(&self, guid: Guid, session: Session) {
        let path = self.session_path(guid);
        let fresh = path.with_extension("session-");
        let written = fs::write(&fresh, format!("{}\n", session.0)).and_then(|()| fs::rename(&fresh, &path));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
    }

    fn session_path(&self, guid: Guid) -> PathBuf {
        self.dir.join(format!("{guid}.session"))
    }

    fn lock_path(&self, guid: Guid) -> PathBuf {
        self.dir.join(format!("{guid}.lock"))
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.dir.display())
    }
}

/// Opens a file to be locked, and makes it if need be.
fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether `path` still leads to the open file.
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Reads and verifies one record.
fn read_record(path: &Path) -> Result<Record, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_RECORD).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if record.version != VERSION {
        return Err(format!("its version is {}, and this program knows {VERSION}", record.version));
    }
    if path.file_stem().is_none_or(|stem| *stem != *record.guid.to_string()) {
        return Err(format!("it speaks of the pool {}", record.guid));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state"));
        (dir, state)
    }

    fn record(name: &str, guid: u64) -> Record {
        Record::new(name, Guid(guid), vec!["/dev/sda".into()])
    }

    #[test]
    fn nothing_is_remembered_at_first() {
        let (_dir, state) = state();
        assert!(state.in_use().unwrap().is_empty());
        assert!(state.find("tank").unwrap_err().to_string().contains("no such pool 'tank'"));
    }

    #[test]
    fn records_are_kept_and_found_by_name_and_number() {
        let (_dir, state) = state();
        state.save(&record("tank", 7)).unwrap();
        state.save(&record("dozer", 8)).unwrap();
        assert_eq!(state.find("tank").unwrap(), record("tank", 7));
        assert_eq!(state.find("8").unwrap(), record("dozer", 8));
        let names: Vec<_> = state.in_use().unwrap().into_iter().map(|record| record.name).collect();
        assert_eq!(names, ["dozer", "tank"]);
        state.forget(Guid(7)).unwrap();
        assert!(state.find("tank").is_err());
    }

    #[test]
    fn two_pools_of_one_name_are_refused_unless_one_is_exported() {
        let (_dir, state) = state();
        state.save(&record("tank", 7)).unwrap();
        assert!(state.save(&record("tank", 8)).unwrap_err().to_string().contains("in use already"));
        state.save(&record("tank", 7)).unwrap();
        state.save(&Record { exported: true, ..record("tank", 7) }).unwrap();
        state.save(&record("tank", 8)).unwrap();
        assert_eq!(state.find("tank").unwrap().guid, Guid(8));
    }

    #[test]
    fn a_damaged_record_is_reported_and_hides_no_other() {
        let (dir, state) = state();
        state.save(&record("tank", 7)).unwrap();
        let folder = dir.path().join("state");
        fs::write(folder.join("8.json"), b"{\"version\":1,").unwrap();
        fs::write(folder.join("9.json"), b"\xff\xfe").unwrap();
        fs::copy(folder.join("7.json"), folder.join("10.json")).unwrap();
        let newer =
            fs::read_to_string(folder.join("7.json")).unwrap().replace("\"version\": 1", "\"version\": 2");
        fs::write(folder.join("11.json"), newer).unwrap();
        let (records, problems) = state.records().unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_pool_is_held_once() {
        let (_dir, state) = state();
        let held = state.lock_pool(Guid(7)).unwrap().unwrap();
        assert_eq!(state.lock_pool(Guid(7)).unwrap().unwrap_err(), std::process::id());
        assert!(state.lock_pool(Guid(8)).unwrap().is_ok());
        drop(held);
        assert!(state.lock_pool(Guid(7)).unwrap().is_ok());
    }

    #[test]
    fn an_unwritable_folder_is_told_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        for inside in ["state", "more/state"] {
            let state = State::at(file.join(inside));
            for error in [state.could_prepare(), state.prepare()].map(Result::unwrap_err) {
                assert!(error.to_string().contains("COFFER_STATE_DIR"), "{error}");
            }
        }
        let state = State::at(dir.path().join("new/state"));
        state.could_prepare().unwrap();
        assert!(!dir.path().join("new").exists());
    }
}
