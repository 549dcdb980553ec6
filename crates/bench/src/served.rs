//! A volume served over NBD and FUSE, and what plain programs of that kind reach.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use export::{ExportTable, FuseOptions, Listen, NbdServer, Run, Target, TargetError};
use pool::spec::GroupKind;
use pool::types::DatasetId;
use pool::{Held, PoolError};

use crate::kernel::{missing_program, run};
use crate::lives::{DEVICE_BYTES, Samples, Setting};
use crate::measure::Sample;
use crate::ours;

/// What a server takes by itself on a machine with 16 GiB of memory or more.
const SERVER_CACHE_BYTES: u64 = 2 << 30;

/// A volume behind a lock: what a server of ours does.
#[derive(Debug)]
struct PoolTarget {
    pool: Arc<Held>,
    id: DatasetId,
    size: u64,
}

fn failed(error: PoolError) -> TargetError {
    match error {
        PoolError::NoSpace => TargetError::NoSpace,
        PoolError::ReadOnly => TargetError::ReadOnly,
        other => TargetError::Io(other.to_string()),
    }
}

impl PoolTarget {
    fn call<T>(&self, step: impl FnOnce(&mut pool::Pool) -> pool::Result<T>) -> Result<T, TargetError> {
        self.pool.lock().as_mut().map_or_else(given_up, step).map_err(failed)
    }
}

fn given_up<T>() -> pool::Result<T> {
    Err(PoolError::Suspended)
}

impl Target for PoolTarget {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        16384
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.call(|pool| pool.read(self.id, offset, buffer))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.pool.write(self.pool.lock(), self.id, offset, data).unwrap_or_else(given_up).map_err(failed)
    }

    fn flush(&self) -> Result<(), TargetError> {
        self.pool.flush(self.pool.lock()).unwrap_or_else(given_up).map_err(failed)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.call(|pool| pool.discard(self.id, offset, length))
    }

    fn write_zeroes(&self, offset: u64, length: u64, _keep_allocated: bool) -> Result<(), TargetError> {
        self.discard(offset, length)
    }

    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError> {
        let runs = self.call(|pool| pool.runs(self.id, offset, length, limit))?;
        Ok(runs.into_iter().map(|(length, hole)| Run { length, hole }).collect())
    }
}

/// A pool that is served, with the thread for its commits.
struct Serving {
    exports: Arc<ExportTable>,
    pool: Arc<Held>,
    committer: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.pool.take());
        let _ = self.committer.take().map(std::thread::JoinHandle::join);
    }
}

/// A raidz2 pool of 6 with a volume that holds the noise and fits into the cache.
fn serve(s: &Setting<'_>) -> Result<Serving> {
    s.folder.clear()?;
    let files: Vec<PathBuf> =
        (0..6).map(|index| s.folder.file(&format!("d{index}"), DEVICE_BYTES)).collect::<Result<_>>()?;
    let size = s.noise.bytes.len() as u64;
    let env = ours::environment(s.runner, SERVER_CACHE_BYTES)?;
    let mut pool = ours::create(&env, vec![ours::group(GroupKind::Raidz(2), &files)?], None)?;
    let id = ours::volume(&mut pool, "data", size, 16384)?;
    ours::write_all(&mut pool, id, &s.noise.bytes)?;
    ours::read_all(&mut pool, id, s.noise)?;
    let pool = Arc::new(Held::new(pool));
    let for_committer = Arc::clone(&pool);
    let committer = std::thread::spawn(move || for_committer.commit_behind());
    let table = ExportTable::new();
    table.insert("data", Arc::new(PoolTarget { pool: Arc::clone(&pool), id, size }));
    Ok(Serving { exports: Arc::new(table), pool, committer: Some(committer) })
}

/// fio on a file or an NBD address: requests and seconds.
fn fio(
    target: &[String],
    size: u64,
    direction: &str,
    block: &str,
    depth: u32,
    time: Duration,
) -> Result<Sample> {
    let mut arguments: Vec<String> = vec!["--name=j".to_owned(), format!("--size={size}")];
    arguments.extend_from_slice(target);
    arguments.extend([
        format!("--rw={direction}"),
        format!("--bs={block}"),
        format!("--iodepth={depth}"),
        format!("--runtime={}ms", time.as_millis()),
        "--time_based".to_owned(),
        "--randrepeat=0".to_owned(),
        "--fallocate=none".to_owned(),
        "--output-format=json".to_owned(),
    ]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = run("fio", &arguments)?;
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').context("fio said nothing")?..])?;
    let part = &json["jobs"][0][if direction.contains("read") { "read" } else { "write" }];
    let amount = if block == "4k" { &part["total_ios"] } else { &part["io_bytes"] };
    let seconds = part["runtime"].as_f64().context("fio took no time")? / 1000.0;
    Ok(Sample { amount: amount.as_f64().context("fio counted nothing")?, wall: seconds, ..Sample::default() })
}

/// Waits until something is there.
fn wait_for(there: impl Fn() -> bool, what: &str) -> Result<()> {
    let start = Instant::now();
    while !there() {
        ensure!(start.elapsed() < Duration::from_secs(10), "{what} did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A child of ours that is ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NBD_JOBS: [(&str, &str, &str, u32); 4] = [
    ("nbd-read-4k", "randread", "4k", 32),
    ("nbd-write-4k", "randwrite", "4k", 32),
    ("nbd-read-1m", "read", "1m", 8),
    ("nbd-write-1m", "write", "1m", 8),
];

fn nbd_jobs(s: &Setting<'_>, socket: &Path, name: &str) -> Result<Samples> {
    jobs_on(s, &NBD_JOBS, socket, name)
}

/// fio's turns on an export: the row's name, what to do, block size, depth.
pub fn jobs_on(
    s: &Setting<'_>,
    jobs: &[(&'static str, &str, &str, u32)],
    socket: &Path,
    name: &str,
) -> Result<Samples> {
    let target =
        ["--ioengine=nbd".to_owned(), format!("--uri=nbd+unix:///{name}?socket={}", socket.display())];
    let jobs = jobs.iter().filter(|(row, ..)| (s.wanted)(row));
    jobs.map(|&(row, direction, block, depth)| {
        Ok((row, fio(&target, s.noise.bytes.len() as u64, direction, block, depth, s.time)?))
    })
    .collect()
}

/// Why NBD can't be measured, if so.
pub fn nbd_unavailable() -> Option<String> {
    missing_program("fio").or_else(|| {
        let engines = run("fio", &["--enghelp"]).unwrap_or_default();
        (!engines.contains("nbd")).then(|| "fio has no nbd engine".to_owned())
    })
}

/// Our server, in this process.
pub fn ours_nbd(s: &Setting<'_>) -> Result<Samples> {
    let serving = serve(s)?;
    let exports = Arc::clone(&serving.exports);
    let socket = s.folder.path().join("socket");
    let server = NbdServer::bind(Listen::Unix(socket.clone()), exports)?;
    let stop = server.handle();
    let samples = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.serve());
        let samples = nbd_jobs(s, &socket, "data");
        stop.stop();
        let _ = running.join();
        samples
    })?;
    drop(server);
    drop(serving);
    s.folder.clear()?;
    Ok(samples)
}

/// nbdkit's memory plugin.
pub fn nbdkit(s: &Setting<'_>) -> Result<Samples> {
    s.folder.clear()?;
    let socket = s.folder.path().join("socket");
    let size = s.noise.bytes.len() as u64;
    let child = Command::new("nbdkit")
        .args(["-f", "-U", &socket.to_string_lossy(), "memory", &format!("size={size}")])
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server(child);
    wait_for(|| socket.exists(), "nbdkit")?;
    let target = ["--ioengine=nbd".to_owned(), format!("--uri=nbd+unix:///?socket={}", socket.display())];
    // Its memory holds something before it is read.
    let arguments =
        ["--name=fill", &target[0], &target[1], "--rw=write", "--bs=1m", &format!("--size={size}")];
    run("fio", &arguments)?;
    let samples = nbd_jobs(s, &socket, "")?;
    drop(server);
    s.folder.clear()?;
    Ok(samples)
}

const FUSE_JOBS: [(&str, &str); 2] = [("fuse-read-4k", "randread"), ("fuse-write-4k", "randwrite")];

fn fuse_jobs(s: &Setting<'_>, file: &Path) -> Result<Samples> {
    let target =
        ["--ioengine=libaio".to_owned(), "--direct=1".to_owned(), format!("--filename={}", file.display())];
    let jobs = FUSE_JOBS.iter().filter(|(row, _)| (s.wanted)(row));
    jobs.map(|&(row, direction)| {
        Ok((row, fio(&target, s.noise.bytes.len() as u64, direction, "4k", 32, s.time)?))
    })
    .collect()
}

/// Our file system of volumes.
pub fn ours_fuse(s: &Setting<'_>) -> Result<Samples> {
    let serving = serve(s)?;
    let exports = Arc::clone(&serving.exports);
    let place = s.folder.path().join("mnt");
    std::fs::create_dir_all(&place)?;
    let mut session = export::mount(&place, exports, &FuseOptions::default())?;
    let samples = fuse_jobs(s, &place.join("data"));
    session.stop()?;
    drop(serving);
    s.folder.clear()?;
    samples
}

/// libfuse's `passthrough_ll` over a plain file in the same folder.
pub fn passthrough(s: &Setting<'_>, program: &Path) -> Result<Samples> {
    s.folder.clear()?;
    let (source, place) = (s.folder.path().join("source"), s.folder.path().join("mnt"));
    std::fs::create_dir_all(&source)?;
    std::fs::create_dir_all(&place)?;
    crate::files::write_file(&source.join("data"), &s.noise.bytes)?;
    let child = Command::new(program)
        .args(["-f", "-o", &format!("source={}", source.display()), &place.to_string_lossy()])
        .stderr(Stdio::null())
        .spawn()?;
    let server = Server(child);
    // The root of what it shows is the source itself, or the whole tree in newer versions.
    let plain = place.join("data");
    let nested = place.join(source.strip_prefix("/").unwrap_or(&source)).join("data");
    let outcome = wait_for(|| plain.exists() || nested.exists(), "passthrough_ll")
        .and_then(|()| fuse_jobs(s, if plain.exists() { &plain } else { &nested }));
    let _ = run("fusermount3", &["-u", &place.to_string_lossy()]);
    drop(server);
    let _ = std::fs::remove_dir_all(&source);
    s.folder.clear()?;
    outcome
}

/// Builds `passthrough_ll` from the examples of Debian's `libfuse3-dev`, or tells why not.
pub fn build_passthrough() -> Result<PathBuf, String> {
    let examples = Path::new("/usr/share/doc/libfuse3-dev/examples");
    let source = examples.join("passthrough_ll.c");
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".to_owned());
    }
    if !source.exists() {
        return Err(format!("{} is not there; it comes with libfuse3-dev", source.display()));
    }
    if let Some(reason) = missing_program("cc").or_else(|| missing_program("pkg-config")) {
        return Err(reason);
    }
    let program = std::env::temp_dir().join(format!("passthrough_ll.{}", std::process::id()));
    let flags = run("pkg-config", &["--cflags", "--libs", "fuse3"]).map_err(|error| error.to_string())?;
    let mut arguments = vec!["-O2", "-w", "-D_GNU_SOURCE", "-o"];
    let (out, from) = (program.to_string_lossy().into_owned(), source.to_string_lossy().into_owned());
    arguments.extend([out.as_str(), from.as_str()]);
    arguments.extend(flags.split_whitespace());
    run("cc", &arguments).map_err(|error| format!("{error:#}"))?;
    Ok(program)
}
