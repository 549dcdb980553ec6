//! What a trial adds to the machine, and takes away again whatever happens: servers, NBD clients, loop devices, mounts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, Running};

/// Between two tries at something that another process is about to let go.
const PAUSE: Duration = Duration::from_millis(50);
/// Tries before it is a failure: 20 s in all.
const TRIES: usize = 400;

/// One thing that must be taken away again.
#[derive(Debug)]
enum Made {
    /// A mounted file system.
    Mount(String),
    /// A loop device.
    Loop(String),
    /// A file that an NBD client shows, until it is unmounted.
    Client(String, Running),
    /// A server, until it is interrupted.
    Server(Running),
}

/// All that was added, in this order; taken away from the end, at the latest when this is dropped.
#[derive(Debug)]
pub struct Mounts<'a> {
    lab: &'a Lab,
    made: Vec<Made>,
}

impl<'a> Mounts<'a> {
    /// Nothing yet.
    pub fn new(lab: &'a Lab) -> Self {
        Self { lab, made: Vec::new() }
    }

    /// How much there is: for [`Self::back_to`].
    pub fn mark(&self) -> usize {
        self.made.len()
    }

    /// Starts a `coffer` server and waits until it serves.
    ///
    /// # Errors
    /// It does not begin to.
    pub fn server(&mut self, line: &str) -> Result<()> {
        let server = self.lab.start(self.lab.coffer(line))?.ready()?;
        self.made.push(Made::Server(server));
        Ok(())
    }

    /// Makes an NBD export a file, by libnbd's client.
    ///
    /// # Errors
    /// nbdfuse's.
    pub fn nbdfuse(&mut self, uri: &str, file: &str) -> Result<()> {
        fs::write(file, "")?;
        let mut client = Command::new("nbdfuse");
        client.args([file, uri]);
        let mut client = self.lab.start(client)?;
        for _ in 0..TRIES {
            if fs::metadata(file)?.len() > 0 {
                self.made.push(Made::Client(file.to_owned(), client));
                return Ok(());
            }
            ensure!(client.lives()?, "nbdfuse {uri} ended: {}", client.said().1.trim());
            thread::sleep(PAUSE);
        }
        client.interrupt().context("nbdfuse shows no file")?;
        anyhow::bail!("nbdfuse {uri} shows no file")
    }

    /// Makes a file a block device, past the page cache where the system allows that; returns its path.
    ///
    /// # Errors
    /// losetup's.
    pub fn block_device(&mut self, file: &str) -> Result<String> {
        let attach = |options: &[&str]| {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show"]).args(options).arg(file);
            self.lab.run(command)?.ok()
        };
        let device = attach(&["--direct-io=on"]).or_else(|_| attach(&[]))?.trim().to_owned();
        self.made.push(Made::Loop(device.clone()));
        Ok(device)
    }

    /// Mounts a block device on a new folder.
    ///
    /// # Errors
    /// mount's.
    pub fn mount(&mut self, device: &str, folder: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        self.lab.tool("mount", &[device, folder])?;
        self.made.push(Made::Mount(folder.to_owned()));
        Ok(())
    }

    /// Takes away what was added after a mark.
    ///
    /// # Errors
    /// The first thing that would not go.
    pub fn back_to(&mut self, mark: usize) -> Result<()> {
        while self.made.len() > mark {
            match self.made.pop() {
                Some(Made::Mount(folder)) => Self::unmount(&folder)?,
                Some(Made::Loop(device)) => Self::detach(&device)?,
                Some(Made::Client(file, client)) => {
                    Self::unmount(&file)?;
                    client.end()?.ok()?;
                }
                Some(Made::Server(server)) => drop(server.interrupt()?.ok()?),
                None => {}
            }
        }
        Ok(())
    }

    fn unmount(folder: &str) -> Result<()> {
        for _ in 1..TRIES {
            if quiet("umount", &[folder]).is_ok() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        quiet("umount", &[folder])
    }

    fn detach(device: &str) -> Result<()> {
        quiet("losetup", &["--detach", device])?;
        // It closes its file a moment after that.
        let file = device.replace("/dev/", "/sys/block/") + "/loop/backing_file";
        for _ in 0..TRIES {
            if !Path::new(&file).exists() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        anyhow::bail!("{device} does not let go of its file")
    }
}

impl Drop for Mounts<'_> {
    fn drop(&mut self) {
        // Each step is tried even if one before it failed.
        while !self.made.is_empty() {
            let mark = self.made.len() - 1;
            if let Err(error) = self.back_to(mark) {
                eprintln!("while cleaning up: {error:#}");
            }
        }
    }
}

/// Runs a program that is not interrupted.
fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} failed: {}", arguments.join(" "), said.trim());
    Ok(())
}
