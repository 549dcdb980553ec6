//! A bench for the built `coffer`: its own state folder, disk files, and looks at what it printed.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test file uses its part")]

pub mod sets;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Size of a disk file unless a test says otherwise, bytes.
pub(crate) const DISK: u64 = 128 << 20;

/// A folder with disk files and a state folder, removed at the end.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Drop for Bench {
    /// A test that failed may have left something mounted: it would be in the way of every test that comes after it.
    fn drop(&mut self) {
        let inside = format!("{}/", self.dir.path().display());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        // The later ones may lie on the earlier ones.
        for mount in mounts.lines().rev() {
            let words: Vec<&str> = mount.split(' ').collect();
            let [_, folder, kind, ..] = words[..] else { continue };
            if folder.starts_with(&inside) {
                let command = if kind.starts_with("fuse") { "fusermount3 -u -z" } else { "umount -l" };
                let mut words = command.split(' ').chain([folder]);
                let _ = Command::new(words.next().expect("a command")).args(words).status();
            }
        }
        for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if file.starts_with(&inside) {
                let _ = Command::new("losetup")
                    .arg("-d")
                    .arg(Path::new("/dev").join(device.file_name()))
                    .status();
            }
        }
    }
}

/// What a command came to.
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The data of a JSON answer.
    pub(crate) fn data(&self) -> serde_json::Value {
        let document: serde_json::Value = serde_json::from_str(&self.out).expect("one JSON document");
        assert_eq!(document["format"], "coffer");
        assert_eq!(document["version"], 1);
        document["data"].clone()
    }
}

impl Bench {
    /// An empty bench.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    /// A path on it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a plain path").to_owned()
    }

    /// Makes an empty disk file; returns its path.
    pub(crate) fn disk(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        File::create(&path).and_then(|file| file.set_len(size)).expect("a disk file");
        path
    }

    /// Makes disk files `d0`, `d1`, ...; returns their paths.
    pub(crate) fn disks(&self, count: usize) -> Vec<String> {
        (0..count).map(|i| self.disk(&format!("d{i}"), DISK)).collect()
    }

    /// The command, ready to run. Words are split at blanks.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
        command
            .args(line.split_whitespace())
            .env("COFFER_STATE_DIR", self.path("state"))
            .env("COFFER_HOST_ID", "1001")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command.
    pub(crate) fn run(&self, line: &str) -> Ran {
        Ran::new(&self.command(line).output().expect("it runs"))
    }

    /// Runs a command that must succeed; returns its output.
    pub(crate) fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "coffer {line}\n{}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs a command that must fail; returns what it said. An error is one line that names the command.
    pub(crate) fn fails(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 1, "coffer {line}\n{}{}", ran.out, ran.err);
        assert!(ran.err.starts_with("coffer "), "coffer {line}\n{}", ran.err);
        assert!(!ran.err.contains("panicked"), "coffer {line}\n{}", ran.err);
        assert_eq!(ran.err.trim_end().lines().count(), 1, "coffer {line}\n{}", ran.err);
        ran.err
    }

    /// Runs a command that must fail and leave the files as they are; returns what it said.
    pub(crate) fn fails_untouched(&self, line: &str, files: &[String]) -> String {
        let before: Vec<_> = files.iter().map(|file| digest(file)).collect();
        let said = self.fails(line);
        for (file, before) in files.iter().zip(before) {
            assert_eq!(digest(file), before, "coffer {line}: {file} was changed");
        }
        said
    }

    /// Runs a command with bytes on its standard input.
    pub(crate) fn feed(&self, line: &str, input: &[u8]) -> Ran {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        // It may refuse before it has read all.
        let _ = stdin.write_all(input);
        drop(stdin);
        Ran::new(&child.wait_with_output().expect("it ends"))
    }

    /// Runs a command and returns the bytes it printed.
    pub(crate) fn bytes(&self, line: &str) -> Vec<u8> {
        let output = self.command(line).output().expect("it runs");
        assert!(output.status.success(), "coffer {line}\n{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Starts a command that goes on until it is stopped, and waits for its first line.
    pub(crate) fn start(&self, line: &str) -> Running {
        let mut child = self.command(line).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut first = [0; 1];
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut first).unwrap_or_else(|_| panic!("coffer {line} ended early"));
        Running { child: Some(child), _out: out }
    }

    /// The health of a pool.
    pub(crate) fn state(&self, pool: &str) -> String {
        let row = self.ok(&format!("list -H {pool}"));
        row.trim_end().rsplit('\t').next().expect("a column").to_owned()
    }

    /// Creates a pool and a sparse volume in it with some data; returns the data.
    pub(crate) fn pool_with_data(&self, vdevs: &str, bytes: usize) -> Vec<u8> {
        // Options stand before the name of the pool.
        let (options, vdevs) = match vdevs.strip_prefix("-o ").and_then(|rest| rest.split_once(' ')) {
            Some((setting, vdevs)) => (format!("-o {setting}"), vdevs),
            None => (String::new(), vdevs),
        };
        self.ok(&format!("create {options} tank {vdevs}"));
        self.ok("volume create -s -V 64M tank/vol");
        let data = noise(7, bytes);
        let ran = self.feed("volume write tank/vol", &data);
        assert_eq!(ran.code, 0, "{}", ran.err);
        data
    }

    /// That a volume or snapshot begins with some data.
    pub(crate) fn holds(&self, name: &str, data: &[u8]) {
        let read = self.bytes(&format!("volume read {name} --length {}", data.len()));
        assert!(read == data, "{name} does not hold what was written");
    }
}

/// A command that goes on.
pub(crate) struct Running {
    child: Option<Child>,
    _out: std::process::ChildStdout,
}

impl Running {
    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Ends it as a user would; returns its exit code.
    pub(crate) fn interrupt(mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
        assert!(status.success());
        child.wait().expect("it ends").code().expect("ended by itself")
    }

    /// Ends it as the out-of-memory killer would.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill");
        child.wait().expect("it ends");
    }

    /// Waits until it has ended by itself; returns its exit code.
    pub(crate) fn wait(mut self) -> i32 {
        self.child.take().expect("it runs").wait().expect("it ends").code().expect("ended by itself")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that serves a folder unmounts it if it is asked to end.
            let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            for _ in 0..50 {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes that don't compress, the same for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    device::Rng::new(seed).fill(&mut bytes);
    bytes
}

/// A hash of a file's bytes.
pub(crate) fn digest(path: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).expect("a file");
    let mut buffer = vec![0; 1 << 20];
    loop {
        let filled = file.read(&mut buffer).expect("its bytes");
        if filled == 0 {
            return hasher.finalize().to_string();
        }
        hasher.update(&buffer[..filled]);
    }
}

/// Overwrites a part of a file.
pub(crate) fn damage(path: &str, offset: u64, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes)).expect("written");
}

/// Takes a file away; returns where it is now.
pub(crate) fn take_away(path: &str) -> PathBuf {
    let away = PathBuf::from(format!("{path}.away"));
    fs::rename(path, &away).expect("moved");
    away
}

/// Brings a file back.
pub(crate) fn bring_back(away: &Path, path: &str) {
    fs::rename(away, path).expect("moved");
}

/// Tries until it works, for what another process does in its own time.
pub(crate) fn eventually(what: &str, mut works: impl FnMut() -> bool) {
    for _ in 0..600 {
        if works() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}
