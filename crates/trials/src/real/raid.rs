//! Real file systems on RAID sets of every level: ext4 on a FUSE export of one set and xfs on an NBD export of another. They are filled, a
//! component of each fails under load, is rebuilt (on a spare and copied back, or in place on a disk with nothing on it), and everything is
//! compared and checked, once more with another component away, so that what was rebuilt has to be read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::Load;
use super::mounts::Mounts;
use super::{SYSTEMS, sample, step};
use crate::lab::Lab;

/// Nothing takes as long.
const PATIENCE: Duration = Duration::from_mins(20);
/// Size of each set, MiB: xfs wants 300 at least.
const SET_MIB: u64 = 400;
/// Most that is stored on each, MiB.
const MOST_MIB: u64 = 48;
/// Sectors at the beginning of a component that must be zero for it to count as new.
const FRESH: usize = 64 * 512;
/// Four of five columns in all ways.
const DESIGN: &str = "5 5 4 4 3\n0 1 2 3\n0 1 2 4\n0 1 3 4\n0 2 3 4\n1 2 3 4\n";

/// A level over some columns, of which `data` in `of` units hold data.
struct Shape {
    level: char,
    columns: u64,
    data: u64,
    of: u64,
}

const fn shape(level: char, columns: u64, data: u64, of: u64) -> Shape {
    Shape { level, columns, data, of }
}

const SHAPES: [Shape; 15] = [
    shape('0', 3, 1, 1),
    shape('1', 2, 1, 2),
    shape('1', 4, 1, 2),
    shape('N', 3, 1, 3),
    shape('4', 4, 3, 4),
    shape('5', 3, 2, 3),
    shape('5', 5, 4, 5),
    shape('6', 6, 4, 6),
    shape('R', 5, 3, 5),
    shape('C', 4, 1, 2),
    shape('I', 4, 3, 8),
    shape('E', 6, 4, 6),
    shape('T', 5, 3, 4),
    shape('Q', 5, 1, 2),
    shape('e', 5, 1, 2),
];

/// Runs it.
///
/// # Errors
/// The first thing that was not as it should be; the folder with the disks is left then.
pub fn run(coffer: &Path, parent: &Path, options: &super::Options) -> Result<()> {
    let lab = Arc::new(Lab::new(parent, coffer)?.patient(PATIENCE));
    let began = Instant::now();
    let all = || -> Result<()> {
        let mib = options.mib.min(MOST_MIB);
        step(&format!("RAID sets: took files of {}, and their sha256", options.from), || {
            sample::take(&lab, &options.from, mib << 20, options.seed)
        })?;
        for shape in &SHAPES {
            if options.levels.as_ref().is_none_or(|levels| levels.contains(shape.level)) {
                let what = format!("level {} over {} components", shape.level, shape.columns);
                step(&what, || Trial::new(&lab, shape).all())?;
            }
        }
        Ok(())
    };
    match all() {
        Ok(()) => {
            step("folder removed", || lab.clean().map(|()| String::new()))?;
            println!("OK: RAID sets in {:.0} s", began.elapsed().as_secs_f64());
            Ok(())
        }
        Err(error) => Err(error.context(format!("the disks are left in {}", lab.dir().display()))),
    }
}

struct Trial<'a> {
    lab: &'a Arc<Lab>,
    shape: &'a Shape,
    /// Components of the two sets, and a spare each.
    disks: [Vec<String>; 2],
    spares: [String; 2],
}

impl<'a> Trial<'a> {
    fn new(lab: &'a Arc<Lab>, shape: &'a Shape) -> Self {
        let disks =
            |unit: u64| (0..shape.columns).map(|disk| lab.path(&format!("set{unit}/d{disk}"))).collect();
        let spare = |unit: u64| lab.path(&format!("set{unit}/spare"));
        Self { lab, shape, disks: [disks(0), disks(1)], spares: [spare(0), spare(1)] }
    }

    fn all(&self) -> Result<String> {
        self.make()?;
        let mut mounts = Mounts::new(self.lab);
        let devices = self.serve(&mut mounts)?;
        self.lab.tool("mkfs.ext4", &["-q", "-F", &devices[0]])?;
        self.lab.tool("mkfs.xfs", &["-q", "-f", &devices[1]])?;
        let exported = mounts.mark();
        self.mount(&mut mounts, &devices)?;
        self.fill(0)?;
        let said = if self.shape.level == '0' {
            self.fill(1)?;
            String::from("nothing to lose")
        } else {
            self.lose_and_rebuild()?
        };
        let files = self.compare("after all")?;
        mounts.back_to(exported)?;
        self.check(&devices)?;
        if self.shape.level != '0' {
            // What was rebuilt is needed now.
            for unit in 0..2 {
                self.lab.ok(&format!("raid -f {} raid{unit}", self.disks[unit][0]))?;
            }
            self.check(&devices)?;
            self.mount(&mut mounts, &devices)?;
            self.compare("without another component")?;
            mounts.back_to(exported)?;
            for unit in 0..2 {
                self.lab.ok(&format!("raid -R {} raid{unit}", self.disks[unit][0]))?;
                self.lab.ok(&format!("raid -S raid{unit}"))?;
            }
        }
        mounts.back_to(0)?;
        for unit in 0..2 {
            if self.shape.level != '0' {
                let scrub = self.lab.ok(&format!("raid scrub raid{unit}"))?;
                ensure!(scrub.contains("0 stripes did not match"), "raid{unit}: {scrub}");
            }
            self.lab.ok(&format!("raid -u raid{unit}"))?;
            fs::remove_dir_all(self.lab.path(&format!("set{unit}")))?;
        }
        Ok(format!("{files} files equal, fsck clean, {said}"))
    }

    /// Two sets of the level, with labels and parity.
    fn make(&self) -> Result<()> {
        let (lab, shape) = (self.lab, self.shape);
        let component = ((SET_MIB + 8) * shape.of / (shape.data * shape.columns) + 2) << 20;
        let design = lab.path("design");
        fs::write(&design, DESIGN)?;
        for unit in 0..2 {
            for disk in self.disks[unit].iter().chain([&self.spares[unit]]) {
                fs::create_dir_all(Path::new(disk).parent().context("a folder")?)?;
                File::create(disk)?.set_len(component)?;
            }
            let further = if "TQe".contains(shape.level) { design.as_str() } else { "" };
            let (columns, level) = (shape.columns, shape.level);
            let text = format!(
                "START array\n{columns} 0\nSTART disks\n{}\nSTART layout\n64 1 1 {level}\n{further}\nSTART queue\nfifo 100\n",
                self.disks[unit].join("\n")
            );
            let file = lab.path(&format!("raid{unit}.conf"));
            fs::write(&file, text)?;
            lab.ok(&format!("raid -C {file} raid{unit}"))?;
            lab.ok(&format!("raid -I {} raid{unit}", 100 + unit))?;
            lab.ok(&format!("raid -i raid{unit}"))?;
        }
        Ok(())
    }

    /// One set through FUSE, one through NBD, both as block devices.
    fn serve(&self, mounts: &mut Mounts) -> Result<[String; 2]> {
        let (files, socket, image) =
            (self.lab.path("files"), self.lab.path("raid.sock"), self.lab.path("raid1.nbd"));
        fs::create_dir_all(&files)?;
        mounts.server(&format!("raid fuse raid0 {files}"))?;
        mounts.server(&format!("raid nbd raid1 --socket {socket}"))?;
        let first = mounts.block_device(&format!("{files}/raid0"))?;
        mounts.nbdfuse(&format!("nbd+unix:///raid1?socket={socket}"), &image)?;
        Ok([first, mounts.block_device(&image)?])
    }

    fn mnt(&self, name: &str) -> String {
        self.lab.path(&format!("mnt.{name}"))
    }

    fn mount(&self, mounts: &mut Mounts, devices: &[String; 2]) -> Result<()> {
        SYSTEMS.iter().zip(devices).try_for_each(|(name, device)| mounts.mount(device, &self.mnt(name)))
    }

    /// Under load: a component of each set fails, the other half of the files is written, and it is rebuilt.
    fn lose_and_rebuild(&self) -> Result<String> {
        let lab = self.lab;
        let lost = [&self.disks[0][1], &self.disks[1][1]];
        let load = Load::start(lab, SYSTEMS.map(|name| self.mnt(name)));
        load.goes_on(lab)?;
        for (unit, lost) in lost.iter().enumerate() {
            lab.ok(&format!("raid -f {lost} raid{unit}"))?;
        }
        load.goes_on(lab)?;
        self.fill(1)?;
        // The one on a spare and back, the other in place, as if it was a new disk.
        lab.ok(&format!("raid -a {} raid0", self.spares[0]))?;
        lab.ok(&format!("raid -F {} raid0", lost[0]))?;
        File::options().write(true).open(lost[1])?.write_all_at(&vec![0; FRESH], 0)?;
        lab.ok(&format!("raid -R {} raid1", lost[1]))?;
        let status = lab.json("raid -s raid1")?;
        ensure!(status["partial_rebuild"] == false, "a disk without a label gets everything: {status}");
        for unit in 0..2 {
            lab.ok(&format!("raid -S raid{unit}"))?;
        }
        self.is("raid0", 1, "spared")?;
        lab.ok("raid -B raid0")?;
        lab.ok("raid -S raid0")?;
        load.goes_on(lab)?;
        let rounds = load.end()?;
        for unit in ["raid0", "raid1"] {
            self.is(unit, 1, "optimal")?;
        }
        Ok(format!("load: {rounds}"))
    }

    fn is(&self, unit: &str, column: usize, word: &str) -> Result<()> {
        let status = self.lab.json(&format!("raid -s {unit}"))?;
        ensure!(status["components"][column]["status"] == word, "{unit}: {status}");
        Ok(())
    }

    fn fill(&self, half: usize) -> Result<()> {
        SYSTEMS.iter().try_for_each(|name| sample::copy(self.lab, name, half, &self.mnt(name)).map(drop))
    }

    fn compare(&self, when: &str) -> Result<usize> {
        let mut files = 0;
        for name in SYSTEMS {
            for half in 0..2 {
                files += sample::compare(self.lab, name, half, &self.mnt(name)).context(when.to_owned())?;
            }
        }
        Ok(files)
    }

    fn check(&self, devices: &[String; 2]) -> Result<()> {
        self.lab.tool("e2fsck", &["-f", "-n", &devices[0]])?;
        self.lab.tool("xfs_repair", &["-n", &devices[1]]).map(drop)
    }
}
