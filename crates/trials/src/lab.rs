//! A folder with disk files, the program under test, and other programs run on it. Whatever takes longer than a
//! patient user would wait is a failure.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Nothing that is run here takes as long, unless [`Lab::patient`] says otherwise.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(2);

/// A folder to work in; it stays if something failed.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    coffer: PathBuf,
    runs: AtomicU64,
    patience: Duration,
    /// Set by Ctrl-C: what waits gives up, so that everything is cleaned up.
    interrupted: Arc<AtomicBool>,
}

/// What a program came to.
#[derive(Debug)]
pub struct Ran {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Its standard output.
    ///
    /// # Errors
    /// It failed.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.status.success(),
            "{} failed ({}): {}{}",
            self.line,
            self.status,
            self.err.trim(),
            if self.out.len() < 2000 { format!("\n{}", self.out) } else { String::new() }
        );
        Ok(self.out)
    }
}

/// A program that goes on.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    out: PathBuf,
    err: PathBuf,
    began: Instant,
    patience: Duration,
    interrupted: Arc<AtomicBool>,
}

impl Lab {
    /// A new folder in `parent`.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(parent: &Path, coffer: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("coffer-trial.").tempdir_in(parent)?.keep();
        fs::create_dir(dir.join("out"))?;
        let coffer = coffer.canonicalize().context("the program under test")?;
        let interrupted = Arc::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self { dir, coffer, runs: AtomicU64::new(0), patience: PATIENCE, interrupted })
    }

    /// With more patience.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether somebody wants an end of it.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes an empty sparse disk file; returns its path.
    ///
    /// # Errors
    /// It can't be made.
    pub fn disk(&self, name: &str, bytes: u64) -> Result<String> {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().context("a folder")?)?;
        File::create(&path)?.set_len(bytes)?;
        Ok(path)
    }

    /// `coffer` with words split at blanks, its own state folder and a fixed identity.
    pub fn coffer(&self, line: &str) -> Command {
        let mut command = Command::new(&self.coffer);
        command
            .args(line.split_whitespace())
            .env("COFFER_STATE_DIR", self.path("state"))
            .env("COFFER_HOST_ID", "1001")
            .env("RUST_BACKTRACE", "1")
            .env("TZ", "UTC");
        command
    }

    /// Starts a program.
    ///
    /// # Errors
    /// It is not there.
    pub fn start(&self, mut command: Command) -> Result<Running> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.dir.join(format!("out/{run}.out")), self.dir.join(format!("out/{run}.err")));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
        let line = format!("{program} {}", words.join(" "));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        // Ctrl-C is for us: the programs are ended in an order that leaves nothing behind.
        let child = command.process_group(0).spawn().with_context(|| format!("start {line}"))?;
        let interrupted = Arc::clone(&self.interrupted);
        Ok(Running { child, line, out, err, began: Instant::now(), patience: self.patience, interrupted })
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// It is not there, or takes too long.
    pub fn run(&self, command: Command) -> Result<Ran> {
        self.start(command)?.wait()
    }

    /// Runs another program, which must succeed; its output.
    ///
    /// # Errors
    /// It is not there, or fails.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.run(command)?.ok()
    }

    /// Runs a line of the shell, in which any failure counts; its output.
    ///
    /// # Errors
    /// It fails.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.tool("bash", &["-euo", "pipefail", "-c", line])
    }

    /// Runs `coffer`, which must succeed; its output.
    ///
    /// # Errors
    /// It fails.
    pub fn ok(&self, line: &str) -> Result<String> {
        self.run(self.coffer(line))?.ok()
    }

    /// The data of `coffer --json`.
    ///
    /// # Errors
    /// It fails.
    pub fn json(&self, line: &str) -> Result<Value> {
        let text = self.ok(&format!("--json {line}"))?;
        let mut document: Value =
            serde_json::from_str(&text).with_context(|| format!("what {line} prints"))?;
        Ok(document["data"].take())
    }

    /// `coffer check` must find nothing.
    ///
    /// # Errors
    /// It finds something.
    pub fn check(&self, pool: &str) -> Result<()> {
        let said = self.ok(&format!("check {pool}"))?;
        ensure!(said.contains("no problems"), "coffer check {pool} says: {said}");
        Ok(())
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn clean(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}

impl Running {
    /// What it printed so far, and its complaints.
    pub fn said(&self) -> (String, String) {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        (read(&self.out), read(&self.err))
    }

    /// Waits for its first line.
    ///
    /// # Errors
    /// It ends first.
    pub fn ready(mut self) -> Result<Self> {
        while self.said().0.is_empty() {
            if self.child.try_wait()?.is_some() || self.began.elapsed() > self.patience {
                bail!("{} did not begin to serve: {}", self.line, self.said().1);
            }
            thread::sleep(PAUSE);
        }
        Ok(self)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system's.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// That takes too long.
    pub fn wait(mut self) -> Result<Ran> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.began.elapsed() > self.patience {
                let (line, id) = (self.line.clone(), self.child.id());
                std::mem::forget(self);
                bail!("{line} hangs (process {id} is left as it is)");
            }
            ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted in {}", self.line);
            thread::sleep(PAUSE);
        };
        let (out, err) = self.said();
        let _ = fs::remove_file(&self.out).and_then(|()| fs::remove_file(&self.err));
        // A panic is a failure whatever the exit code.
        ensure!(!err.contains("panicked at"), "{} panicked: {err}", self.line);
        Ok(Ran { line: self.line.clone(), status, out, err })
    }

    /// Ends it as a user would; how it ended.
    ///
    /// # Errors
    /// It does not end, or panicked.
    pub fn interrupt(mut self) -> Result<Ran> {
        if self.child.try_wait()?.is_none() {
            let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        }
        self.end()
    }

    /// Waits for its end, after Ctrl-C too; how it ended.
    ///
    /// # Errors
    /// It does not end, or panicked.
    pub fn end(mut self) -> Result<Ran> {
        self.interrupted = Arc::default();
        self.patience += self.began.elapsed();
        self.wait()
    }

    /// Kills it as the out-of-memory killer would; how it ended if it was done by then.
    ///
    /// # Errors
    /// It panicked before.
    pub fn kill(mut self) -> Result<Ran> {
        let _ = self.child.kill();
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No effect on what has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
