//! File systems of the kernel on loop devices over the same files: the peers that need root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use device::Rng;

use crate::files::Noise;

/// Runs a command to its end; its output, or its complaint.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Why kernel file systems can't be measured here, if so.
pub fn unavailable(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for loop devices and mounts".to_owned());
    }
    programs.iter().find_map(|program| missing_program(program))
}

/// Why a program can't be used, if it is not installed.
pub fn missing_program(program: &str) -> Option<String> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join(program).exists());
    (!found).then(|| format!("{program} is not installed"))
}

/// A mounted file system on loop devices; unmounted and detached when dropped.
#[derive(Debug)]
pub struct Mounted {
    loops: Vec<String>,
    place: PathBuf,
    kind: &'static str,
    mounted: bool,
}

impl Mounted {
    /// Makes and mounts a btrfs of a data and a metadata profile over files.
    pub fn btrfs(data: &str, metadata: &str, files: &[PathBuf], place: &Path) -> Result<Self> {
        let mut made = Self { loops: Vec::new(), place: place.to_owned(), kind: "btrfs", mounted: false };
        for file in files {
            made.attach(file)?;
        }
        let mut arguments = vec!["-q", "-f", "-d", data, "-m", metadata];
        arguments.extend(made.loops.iter().map(String::as_str));
        run("mkfs.btrfs", &arguments)?;
        made.mount()?;
        Ok(made)
    }

    /// Makes and mounts an ext4 over one file.
    pub fn ext4(file: &Path, place: &Path) -> Result<Self> {
        let mut made = Self { loops: Vec::new(), place: place.to_owned(), kind: "ext4", mounted: false };
        let device = made.attach(file)?;
        run("mkfs.ext4", &["-q", "-F", &device])?;
        made.mount()?;
        Ok(made)
    }

    /// A loop device over another file.
    pub fn attach(&mut self, file: &Path) -> Result<String> {
        let device = run("losetup", &["-f", "--show", &file.to_string_lossy()])?;
        self.loops.push(device.clone());
        Ok(device)
    }

    fn mount(&mut self) -> Result<()> {
        fs::create_dir_all(&self.place)?;
        let device = match self.kind {
            "btrfs" if self.mounted => bail!("mounted twice"),
            _ => self.loops.first().context("no devices")?,
        };
        run("mount", &["-t", self.kind, "-o", "noatime", device, &self.place.to_string_lossy()])?;
        self.mounted = true;
        Ok(())
    }

    /// Empties its caches: unmounts and mounts again.
    pub fn cool(&mut self) -> Result<()> {
        run("umount", &[&self.place.to_string_lossy()])?;
        self.mounted = false;
        // The first device may have been replaced since.
        while run("btrfs", &["inspect-internal", "dump-super", self.loops.first().context("no devices")?])
            .map_or(true, |text| self.kind == "btrfs" && !text.contains("_BHRfS_M [match]"))
            && self.kind == "btrfs"
        {
            let gone = self.loops.remove(0);
            run("losetup", &["-d", &gone])?;
        }
        self.mount()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A whole btrfs scrub in the foreground.
    pub fn scrub(&self) -> Result<()> {
        run("btrfs", &["scrub", "start", "-B", &self.place.to_string_lossy()]).map(|_| ())
    }

    /// `btrfs balance` of all data into another profile.
    pub fn convert(&self, profile: &str) -> Result<()> {
        let filter = format!("-dconvert={profile}");
        run("btrfs", &["balance", "start", &filter, &self.place.to_string_lossy()]).map(|_| ())
    }

    /// `btrfs device remove` of the last device.
    pub fn remove_last(&mut self) -> Result<()> {
        let device = self.loops.pop().context("no devices")?;
        run("btrfs", &["device", "remove", &device, &self.place.to_string_lossy()])?;
        run("losetup", &["-d", &device]).map(|_| ())
    }

    /// `btrfs replace -r`: rebuilds the device of that number onto another file from redundancy alone.
    pub fn replace(&mut self, number: u32, file: &Path) -> Result<()> {
        let device = self.attach(file)?;
        let place = self.place.to_string_lossy().into_owned();
        run("btrfs", &["replace", "start", "-f", "-r", "-B", &number.to_string(), &device, &place])
            .map(|_| ())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let _ = run("umount", &[&self.place.to_string_lossy()]);
        }
        for device in &self.loops {
            let _ = run("losetup", &["-d", device]);
        }
        let _ = fs::remove_dir(&self.place);
    }
}

/// fio's 4 KiB random writes at depth 32 on a file that exists, made durable at the end: writes, and seconds with
/// that last step in them.
pub fn fio_random_writes(path: &Path, size: u64, time: Duration, direct: bool) -> Result<(u64, f64)> {
    let text = run(
        "fio",
        &[
            "--name=j",
            &format!("--filename={}", path.display()),
            &format!("--size={size}"),
            "--rw=randwrite",
            "--bs=4k",
            "--ioengine=libaio",
            "--iodepth=32",
            &format!("--direct={}", u8::from(direct)),
            "--time_based",
            &format!("--runtime={}ms", time.as_millis()),
            "--end_fsync=1",
            "--randrepeat=0",
            "--fallocate=none",
            "--output-format=json",
        ],
    )?;
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').context("fio said nothing")?..])?;
    let write = &json["jobs"][0]["write"];
    let count = write["total_ios"].as_u64().context("fio counted nothing")?;
    Ok((count, write["runtime"].as_f64().context("fio took no time")? / 1000.0))
}

/// Latencies of 4 KiB writes at random places of a file, each followed by `fsync`, seconds.
pub fn flushed_writes(path: &Path, size: u64, time: Duration, noise: &Noise) -> Result<Vec<f64>> {
    let file = File::options().write(true).open(path)?;
    let start = Instant::now();
    let mut rng = Rng::new(99);
    let mut latencies = Vec::new();
    while start.elapsed() < time {
        let from = (rng.next_u64() % (noise.bytes.len() as u64 / 4096)) as usize * 4096;
        let one = Instant::now();
        file.write_all_at(&noise.bytes[from..from + 4096], rng.next_u64() % (size / 4096) * 4096)?;
        file.sync_all()?;
        latencies.push(one.elapsed().as_secs_f64());
    }
    Ok(latencies)
}
