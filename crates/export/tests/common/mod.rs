//! What the integration tests share: servers that end with the test, and tools that may be missing.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses a part of it")]

pub mod client;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use export::{ExportTable, Exports, Listen, NbdServer, StopHandle, Target};
use tempfile::TempDir;

/// Whether a program is installed; says so if a test must be skipped without it.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/sbin".into(), "/usr/sbin".into()]);
    let found = places.iter().any(|place| place.join(program).is_file());
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says why a test does nothing, past the capture of the test's own output.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// Runs a program and returns what it printed; fails the test if it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = attempt(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?} failed with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program.
pub fn attempt(program: &str, arguments: &[&str]) -> Output {
    let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// Bytes that look random and depend on the seed alone.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An NBD server on a unix socket, in a directory of its own.
pub struct Server {
    pub directory: TempDir,
    pub socket: PathBuf,
    handle: StopHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(exports: Arc<dyn Exports>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        let server = NbdServer::bind(Listen::Unix(socket.clone()), exports).unwrap();
        let handle = server.handle();
        let thread = std::thread::spawn(move || server.serve().unwrap());
        Self { directory, socket, handle, thread: Some(thread) }
    }

    /// With a single export.
    pub fn with(name: &str, target: Arc<dyn Target>) -> Self {
        let exports = ExportTable::new();
        exports.insert(name, target);
        Self::start(Arc::new(exports))
    }

    /// For clients: the address of an export.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// A file in the server's directory.
    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Stops the server and waits for all its threads.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the server panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}

/// Runs a command when dropped, whatever happened to the test; again and again while it fails.
pub struct Cleanup(pub Vec<String>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let arguments: Vec<&str> = self.0[1..].iter().map(String::as_str).collect();
        patiently(|| attempt(&self.0[0], &arguments).status.success());
    }
}

/// Tries for some seconds: what another test's child process inherits keeps a file system busy for a moment.
pub fn patiently(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
