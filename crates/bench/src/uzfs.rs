//! OpenZFS's own engine, in user space: Debian's `libzpool`, which is made for `ztest`, on files.
//!
//! `peers/uzfs.c` is the driver; it is compiled when it is wanted. The packages need not be installed, unpacked
//! (`dpkg -x`) they will do: see [`PACKAGES`].

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::kernel::{missing_program, run};
use crate::lives::{DEVICE_BYTES, Samples, Setting};
use crate::measure::Sample;

/// What has to be unpacked, and where they come from.
const PACKAGES: &str =
    "libzfslinux-dev, libzpool6linux and libnvpair3linux of Debian's bookworm-backports contrib";

const DRIVER: &str = include_str!("../peers/uzfs.c");

/// The library was built with assertions, which change its structures.
const FLAGS: [&str; 10] = [
    "-O2",
    "-w",
    "-std=gnu99",
    "-pthread",
    "-fno-strict-aliasing",
    "-D_GNU_SOURCE",
    "-D_FILE_OFFSET_BITS=64",
    "-DDEBUG",
    "-UNDEBUG",
    "-DZFS_DEBUG",
];

/// glibc would map and unmap every block otherwise, which costs OpenZFS half of its speed.
const MALLOC: [(&str, &str); 4] = [
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
    ("MALLOC_TOP_PAD_", "268435456"),
    ("MALLOC_ARENA_MAX", "2"),
];

/// Rows of raidz2 of 6, and of mirrors.
pub const RAIDZ2_ROWS: &[(&str, &str)] =
    &[("write", "write"), ("read", "read"), ("scrub", "scrub"), ("resilver1", "resilver1")];
pub const MIRROR_ROWS: &[(&str, &str)] = &[("write", "mirror-write"), ("scrub", "mirror-scrub")];

/// Builds the driver, or tells why not. `root`: where the packages were unpacked.
pub fn build(root: Option<&Path>) -> Result<PathBuf, String> {
    let Some(root) = root else {
        return Err(format!("--uzfs names no folder with {PACKAGES}"));
    };
    let machine = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let library = ["lib", "usr/lib"]
        .map(|folder| root.join(folder).join(format!("{machine}-linux-gnu")))
        .into_iter()
        .find(|folder| folder.join("libzpool.so.6").exists());
    let Some(library) = library else {
        return Err(format!("{} has no libzpool.so.6; unpack {PACKAGES} there", root.display()));
    };
    if let Some(reason) = missing_program("cc") {
        return Err(reason);
    }
    let program = std::env::temp_dir().join(format!("uzfs.{}", std::process::id()));
    compile(root, &library, &program).map_err(|error| format!("{error:#}"))?;
    Ok(program)
}

fn compile(root: &Path, library: &Path, program: &Path) -> Result<()> {
    // The package puts two headers beside the folder that others look for them in, and leaves out one that is not used.
    let beside = std::env::temp_dir().join(format!("uzfs.{}.d", std::process::id()));
    let headers = root.join("usr/include");
    std::fs::create_dir_all(beside.join("sys"))?;
    std::fs::write(beside.join("sys/zfs_ioctl.h"), "")?;
    for header in ["abd_os.h", "abd_impl_os.h"] {
        std::fs::copy(headers.join("libzpool").join(header), beside.join("sys").join(header))?;
    }
    let source = beside.join("uzfs.c");
    std::fs::write(&source, DRIVER)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut arguments: Vec<String> = FLAGS.iter().map(|&flag| flag.to_owned()).collect();
    let folders = [headers.join("libzfs"), headers.join("libspl"), beside.clone()];
    arguments.extend(folders.iter().map(|folder| format!("-I{}", text(folder))));
    arguments.extend([text(&source), "-o".to_owned(), text(program), format!("-L{}", text(library))]);
    arguments.extend(["-l:libzpool.so.6", "-l:libnvpair.so.3"].map(str::to_owned));
    arguments.push(format!("-Wl,--disable-new-dtags,-rpath,{0},-rpath-link,{0}", text(library)));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = run("cc", &arguments);
    let _ = std::fs::remove_dir_all(&beside);
    outcome.map(|_| ())
}

/// Leads a pool of 6 devices through what `rows` name: the driver's row and ours.
pub fn measure(
    s: &Setting<'_>,
    program: &Path,
    layout: &str,
    rows: &[(&'static str, &'static str)],
) -> Result<Samples> {
    s.folder.clear()?;
    let program = program.to_string_lossy();
    let environment = MALLOC.map(|(name, value)| format!("{name}={value}"));
    let (devices, data) = (DEVICE_BYTES.to_string(), s.noise.bytes.len().to_string());
    let folder = s.folder.path().to_string_lossy();
    let mut arguments: Vec<&str> = environment.iter().map(String::as_str).collect();
    arguments.extend([&*program, &*folder, layout, "6", &devices, &data]);
    let text = run("env", &arguments)?;
    let mut samples = Samples::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(&(_, row)) = rows.iter().find(|(name, _)| fields.first() == Some(name)) else { continue };
        ensure!(fields.len() == 4, "uzfs said '{line}'");
        let number = |index: usize| fields[index].parse::<f64>().context("uzfs gave no number");
        let sample = Sample { amount: number(1)?, wall: number(2)?, cpu: number(3)?, ..Sample::default() };
        samples.insert(row, sample);
    }
    s.folder.clear()?;
    Ok(samples)
}
