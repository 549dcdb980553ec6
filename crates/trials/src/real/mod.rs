//! Real file systems on a pool that loses disks while they are in use, and real images in and out.
//!
//! ext4 lives on a FUSE export and xfs on an NBD export of one raidz2, each made by its own mkfs on a loop device and
//! filled with a part of /usr. Under load one disk is cut to nothing, and two more are taken out. Everything is read
//! back, replaced, resilvered, checked by fsck and xfs_repair through the *other* kind of export, and once more with
//! two other disks away. Hashes are sha256sum's. Then the same kind of thing on RAID sets of every level: `raid`.

mod load;
mod mounts;
mod raid;
mod sample;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::load::Load;
use self::mounts::Mounts;
use crate::lab::Lab;

/// Disks of the raidz2; one more is its spare, two more replace others.
const DISKS: u64 = 6;
/// Nothing takes as long.
const PATIENCE: Duration = Duration::from_hours(2);
/// The two file systems: the name of the volume, too.
const SYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// Programs that are needed, and the Debian packages that have them.
const NEEDED: [(&str, &str); 11] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("losetup", "mount"),
    ("fusermount3", "fuse3"),
    ("nbdfuse", "libnbd-bin"),
    ("qemu-img", "qemu-utils"),
    ("sha256sum", "coreutils"),
    ("tar", "tar"),
    ("bash", "bash"),
];

/// What is wanted.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How much of the folder each file system gets, MiB
    #[arg(long, default_value_t = 400)]
    mib: u64,
    /// Folder that the files are taken from
    #[arg(long, default_value = "/usr")]
    from: String,
    /// Which of its files: drawn from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the pool out: only RAID sets
    #[arg(long)]
    only_raid: bool,
    /// Letters of the RAID levels to try; all unless given
    #[arg(long)]
    levels: Option<String>,
}

/// Runs it.
///
/// # Errors
/// What is lacking, or the first thing that was not as it should be; the folder with the disks is left then.
pub fn run(coffer: &Path, parent: &Path, options: &Options) -> Result<()> {
    lacking()?;
    if !options.only_raid {
        pool(coffer, parent, options)?;
    }
    raid::run(coffer, parent, options)
}

/// The pool's part.
fn pool(coffer: &Path, parent: &Path, options: &Options) -> Result<()> {
    let lab = Arc::new(Lab::new(parent, coffer)?.patient(PATIENCE));
    let began = Instant::now();
    match Trial::new(&lab, options).all() {
        Ok(()) => {
            step("folder removed", || lab.clean().map(|()| String::new()))?;
            println!("OK: all of it in {:.0} s", began.elapsed().as_secs_f64());
            Ok(())
        }
        Err(error) => Err(error.context(format!("the disks are left in {}", lab.dir().display()))),
    }
}

/// Names what is not there.
fn lacking() -> Result<()> {
    let there = |program: &str| {
        let path = std::env::var("PATH").unwrap_or_default() + ":/sbin:/usr/sbin";
        path.split(':').any(|folder| Path::new(folder).join(program).is_file())
    };
    let missing: Vec<_> = NEEDED.iter().filter(|(program, _)| !there(program)).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    ensure!(
        missing.is_empty(),
        "not installed: {} (as root ./test.sh installs them, or: apt-get install {})",
        programs.join(", "),
        packages.join(" ")
    );
    ensure!(rustix::process::geteuid().is_root(), "file systems can be mounted by root alone");
    ensure!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse: modprobe fuse");
    ensure!(Path::new("/dev/loop-control").exists(), "there is no /dev/loop-control: modprobe loop");
    Ok(())
}

struct Trial<'a> {
    lab: &'a Arc<Lab>,
    options: &'a Options,
    /// Disks of the raidz2.
    disks: Vec<String>,
    spare: String,
    /// That take the place of disks.
    new: [String; 2],
}

/// Runs a step and prints its row: seconds, what it was, figures.
fn step(what: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
    let began = Instant::now();
    let figures = work().with_context(|| format!("step '{what}'"))?;
    println!("{:>6.1}  {what:<58}  {figures}", began.elapsed().as_secs_f64());
    Ok(())
}

impl<'a> Trial<'a> {
    fn new(lab: &'a Arc<Lab>, options: &'a Options) -> Self {
        let disk = |name: String| lab.path(&name);
        Self {
            lab,
            options,
            disks: (1..=DISKS).map(|number| disk(format!("disk{number}"))).collect(),
            spare: disk("spare".into()),
            new: [disk("new1".into()), disk("new2".into())],
        }
    }

    fn all(&self) -> Result<()> {
        println!("     s  {:<58}  figures", "step");
        self.prepare()?;
        let mut mounts = Mounts::new(self.lab);
        self.live(&mut mounts)?;
        self.look_again(&mut mounts)?;
        self.images(&mut mounts)
    }

    /// A path of file system `name`: where it is mounted.
    fn mnt(&self, name: &str) -> String {
        self.lab.path(&format!("mnt.{name}"))
    }

    /// Size of the image: half of a file system's files with room to spare.
    fn image_mib(&self) -> u64 {
        self.options.mib * 3 / 4 + 64
    }

    fn socket(&self) -> String {
        self.lab.path("nbd.sock")
    }

    fn files(&self) -> String {
        self.lab.path("files")
    }

    /// The volume as a file of the NBD client.
    fn by_nbd(&self, volume: &str) -> String {
        self.lab.path(&format!("{volume}.nbd"))
    }

    fn uri(&self, volume: &str) -> String {
        format!("nbd+unix:///tank/{volume}?socket={}", self.socket())
    }

    /// Files to store, their hashes, and the pool.
    fn prepare(&self) -> Result<()> {
        let (lab, mib) = (self.lab, self.options.mib);
        step(&format!("took files of {}, and their sha256", self.options.from), || {
            sample::take(lab, &self.options.from, mib << 20, self.options.seed)
        })?;
        step("pool: raidz2 of 6 disks of different sizes, and a spare", || {
            // Twice the file systems at least, with parity, in what the smaller ones hold.
            let least = (mib * 5 / 2).max(256) << 20;
            for (index, disk) in (0..).zip(&self.disks) {
                File::create(disk)?.set_len(least + index * (64 << 20))?;
            }
            for disk in self.new.iter().chain([&self.spare]) {
                File::create(disk)?.set_len(least + DISKS * (64 << 20))?;
            }
            lab.ok(&format!("create tank raidz2 {} spare {}", self.disks.join(" "), self.spare))?;
            for name in SYSTEMS {
                // With room for the load, which comes and goes, beside the files.
                lab.ok(&format!("volume create -s -V {}M tank/{name}", (mib * 2).max(512)))?;
            }
            lab.ok(&format!("volume create -s -V {}M tank/image", self.image_mib()))?;
            Ok(format!("{} to {} MiB each", least >> 20, (least >> 20) + (DISKS - 1) * 64))
        })
    }

    /// The life of the two file systems.
    fn live(&self, mounts: &mut Mounts) -> Result<()> {
        let lab = self.lab;
        let mut devices = [const { String::new() }; 2];
        step("ext4 on a FUSE export, xfs on an NBD export, mounted", || {
            self.serve(mounts)?;
            devices[0] = mounts.block_device(&format!("{}/ext4", self.files()))?;
            mounts.nbdfuse(&self.uri("xfs"), &self.by_nbd("xfs"))?;
            devices[1] = mounts.block_device(&self.by_nbd("xfs"))?;
            lab.tool("mkfs.ext4", &["-q", "-F", &devices[0]])?;
            lab.tool("mkfs.xfs", &["-q", "-f", &devices[1]])?;
            Ok(devices.join(", "))
        })?;
        let file_systems = mounts.mark();
        self.mount(mounts, &devices)?;
        step("first half of the files written", || self.fill(0))?;

        let load = Load::start(lab, SYSTEMS.map(|name| self.mnt(name)));
        step("one disk cut to nothing under load: the spare steps in", || {
            load.goes_on(lab)?;
            File::options().write(true).open(&self.disks[2])?.set_len(0)?;
            self.eventually("the spare steps in", || {
                Ok(line_of(&lab.ok("status tank")?, &self.spare, "INUSE").is_some())
            })?;
            lab.ok("wait tank")?;
            let status = lab.ok("status tank")?;
            // By too many errors, or because it did not know its label any more: whichever came first.
            let is = |state| line_of(&status, &self.disks[2], state).is_some();
            ensure!(is("FAULTED") || is("REMOVED"), "{status}");
            load.goes_on(lab)?;
            scan_line(&status)
        })?;
        step("two more taken out under load, second half written", || {
            lab.ok(&format!("offline tank {} {}", self.disks[0], self.disks[4]))?;
            load.goes_on(lab)?;
            let figures = self.fill(1)?;
            load.goes_on(lab)?;
            Ok(figures)
        })?;
        let rounds = load.end()?;
        step("load ended: copies of files written, checked, deleted", || Ok(rounds))?;
        step("mounted anew, read back with three disks out", || {
            mounts.back_to(file_systems)?;
            self.mount(mounts, &devices)?;
            self.compare("with three disks out")
        })?;

        let load = Load::start(lab, SYSTEMS.map(|name| self.mnt(name)));
        step("one back, two replaced in use, resilvered", || {
            lab.ok(&format!("online tank {}", self.disks[0]))?;
            lab.ok(&format!("replace tank {} {}", self.disks[2], self.new[0]))?;
            lab.ok(&format!("replace tank {} {}", self.disks[4], self.new[1]))?;
            load.goes_on(lab)?;
            lab.ok("wait tank")?;
            let status = lab.ok("status tank")?;
            self.whole(&status)?;
            scan_line(&status)
        })?;
        let rounds = load.end()?;
        step("load ended", || Ok(rounds))?;
        step("scrub while mounted", || {
            let said = lab.ok("scrub -w tank")?;
            ensure!(said.contains("repaired 0B") && said.contains("with 0 errors"), "{said}");
            Ok(without_date(&said))
        })?;
        step("read back equal", || self.compare("after the resilver"))?;
        step("unmounted; e2fsck -f and xfs_repair -n", || {
            mounts.back_to(file_systems)?;
            lab.tool("e2fsck", &["-f", "-n", &devices[0]])?;
            lab.tool("xfs_repair", &["-n", &devices[1]])?;
            Ok("both clean".to_owned())
        })?;
        mounts.back_to(0)?;
        step("no server: coffer check, export, import", || {
            lab.check("tank")?;
            lab.ok("export tank")?;
            lab.ok(&format!("import -d {} tank", lab.dir().display()))?;
            Ok("no problems".to_owned())
        })
    }

    /// The same file systems through the other kind of export, without two disks that have been there all the time.
    fn look_again(&self, mounts: &mut Mounts) -> Result<()> {
        let lab = self.lab;
        let away = [&self.disks[1], &self.disks[3]];
        for disk in away {
            fs::rename(disk, format!("{disk}.away"))?;
        }
        step("two others gone, exports exchanged: fsck and read back", || {
            self.serve(mounts)?;
            mounts.nbdfuse(&self.uri("ext4"), &self.by_nbd("ext4"))?;
            let devices = [
                mounts.block_device(&self.by_nbd("ext4"))?,
                mounts.block_device(&format!("{}/xfs", self.files()))?,
            ];
            lab.tool("e2fsck", &["-f", "-n", &devices[0]])?;
            lab.tool("xfs_repair", &["-n", &devices[1]])?;
            self.mount(mounts, &devices)?;
            self.compare("through the other exports")
        })?;
        mounts.back_to(0)?;
        for disk in away {
            fs::rename(format!("{disk}.away"), disk)?;
        }
        step("both back: caught up, scrub, check", || {
            for disk in away {
                lab.ok(&format!("online tank {disk}"))?;
            }
            lab.ok("wait tank")?;
            let said = lab.ok("scrub -w tank")?;
            ensure!(said.contains("repaired 0B") && said.contains("with 0 errors"), "{said}");
            self.whole(&lab.ok("status tank")?)?;
            lab.check("tank")?;
            Ok(without_date(&said))
        })
    }

    /// qemu-img in and out.
    fn images(&self, mounts: &mut Mounts) -> Result<()> {
        let lab = self.lab;
        let (raw, qcow2, uri) = (lab.path("image.raw"), lab.path("image.qcow2"), self.uri("image"));
        step("image: raw -> volume over NBD -> qcow2, compared", || {
            // A file system image with a part of the files in it.
            File::create(&raw)?.set_len(self.image_mib() << 20)?;
            lab.tool("mkfs.ext4", &["-q", "-F", "-d", &sample::part(lab, "xfs", 0), &raw])?;
            self.serve(mounts)?;
            lab.tool("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &raw, &uri])?;
            lab.tool("qemu-img", &["compare", "-f", "raw", "-F", "raw", &raw, &uri])?;
            lab.tool("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &uri, &qcow2])?;
            let said = lab.tool("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", &raw, &qcow2])?;
            let back = lab.path("image.back");
            lab.ok(&format!("volume read tank/image --to {back}"))?;
            let sums = lab.tool("sha256sum", &[&raw, &back])?;
            let mut sums = sums.lines().filter_map(|line| line.split(' ').next());
            ensure!(sums.next() == sums.next(), "the image read back is another one");
            lab.tool("qemu-img", &["check", &qcow2])?;
            let (raw, packed) = (self.image_mib(), fs::metadata(&qcow2)?.len() >> 20);
            Ok(format!("{} ({raw} MiB, qcow2 of {packed} MiB)", said.trim()))
        })?;
        mounts.back_to(0)?;
        step("check, destroy", || {
            lab.check("tank")?;
            lab.ok("destroy tank")?;
            Ok("no problems".to_owned())
        })
    }

    /// An NBD server that holds the pool, and a FUSE server that joins it.
    fn serve(&self, mounts: &mut Mounts) -> Result<()> {
        let (socket, files) = (self.socket(), self.files());
        fs::create_dir_all(&files)?;
        mounts.server(&format!("nbd tank/ext4 tank/xfs tank/image --socket {socket} --cache 64M"))?;
        mounts.server(&format!("fuse tank {files}"))
    }

    fn mount(&self, mounts: &mut Mounts, devices: &[String; 2]) -> Result<()> {
        SYSTEMS.iter().zip(devices).try_for_each(|(name, device)| mounts.mount(device, &self.mnt(name)))
    }

    /// Copies a half of the files into both file systems at once.
    fn fill(&self, half: usize) -> Result<String> {
        let began = Instant::now();
        let outcomes = thread::scope(|scope| {
            SYSTEMS
                .map(|name| scope.spawn(move || sample::copy(self.lab, name, half, &self.mnt(name))))
                .map(std::thread::ScopedJoinHandle::join)
        });
        let mut bytes = 0;
        for outcome in outcomes {
            bytes += outcome.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        let rate = bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64();
        Ok(format!("{} MiB, synced, {rate:.0} MiB/s", bytes >> 20))
    }

    /// Compares the hashes of all files on both file systems.
    fn compare(&self, when: &str) -> Result<String> {
        let mut files = 0;
        for name in SYSTEMS {
            for half in 0..2 {
                files += sample::compare(self.lab, name, half, &self.mnt(name)).context(when.to_owned())?;
            }
        }
        Ok(format!("{files} files equal"))
    }

    /// All disks are in order, and the spare waits.
    fn whole(&self, status: &str) -> Result<()> {
        let [first, second] = [&self.new[0], &self.new[1]];
        let mut members = self.disks.clone();
        (members[2], members[4]) = (first.clone(), second.clone());
        for disk in &members {
            ensure!(line_of(status, disk, "ONLINE").is_some(), "{disk} is not well: {status}");
        }
        ensure!(line_of(status, &self.spare, "AVAIL").is_some(), "the spare did not go back: {status}");
        ensure!(status.contains("No known data errors"), "{status}");
        Ok(())
    }

    /// Waits for what the server does by itself.
    fn eventually(&self, what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        while !is()? {
            ensure!(began.elapsed() < Duration::from_mins(2), "in vain: {what}");
            ensure!(!self.lab.interrupted(), "interrupted");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The line of a status that says a device is in a state.
fn line_of<'a>(status: &'a str, device: &str, state: &str) -> Option<&'a str> {
    status.lines().find(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(device) && words.next() == Some(state)
    })
}

/// What a status says of the last scan, without the date.
fn scan_line(status: &str) -> Result<String> {
    let line = status.lines().find_map(|line| line.trim().strip_prefix("scan: ")).context("no scan")?;
    ensure!(line.contains("with 0 errors"), "{status}");
    Ok(without_date(line))
}

/// What a scan came to, without when.
fn without_date(line: &str) -> String {
    line.trim().split(" on ").next().unwrap_or(line).to_owned()
}
