//! `coffer demo`: a pool on files loses a disk and has another one corrupted, and gives everything back.
//!
//! Needs no root and touches nothing but its own folder: the pool is not remembered in the state folder. `disk` has
//! the disks, `data` what is stored; `Show` tells it.

mod data;
pub(crate) mod disk;

use std::path::PathBuf;
use std::sync::Arc;

use device::{BlockDevice, Rng};
use pool::report::{Plan, ScanReport, ScanState, SpareReport};
use pool::spec::{CreateSpec, GroupKind, GroupSpec, NewDevice, VolumeSpec};
use pool::types::DatasetId;
use pool::{Pool, ScrubAction};
use serde::Serialize;

use self::data::{Object, Set};
use self::disk::Disk;
use crate::args;
use crate::commands::{Context, print_bytes};
use crate::error::{Failure, Outcome};
use crate::host;
use crate::progress::Bar;
use crate::render;
use crate::signals::Interrupt;
use crate::sizes::short;

/// Name of the pool.
const POOL: &str = "demo";
/// Name of the volume.
const VOLUME: &str = "data";
/// Disks in all, one of them the spare.
const DISKS: u64 = 8;
/// The disk that is pulled and the one that is corrupted, counted from 0.
const PULLED: usize = 2;
const CORRUPTED: usize = 4;
/// Bytes of background work between two looks at the progress.
const STEP: u64 = 4 << 20;
/// Blocks of the corrupted disk that are overwritten at most, and the size of each, bytes.
const WOUNDS: usize = 200;
const WOUND: u64 = 64 << 10;

/// What the demo found, for programs.
#[derive(Debug, Default, Serialize)]
struct Story {
    /// A sentence for each step.
    steps: Vec<String>,
    /// Objects written, and read back right.
    objects: usize,
    /// Those that were not.
    wrong: usize,
    /// Everything went as it should.
    ok: bool,
}

/// Tells the steps as they happen, or keeps them for JSON.
struct Show<'a> {
    context: &'a Context,
    interrupt: Interrupt,
    story: Story,
}

impl Show<'_> {
    /// One step, in one line.
    fn step(&mut self, sentence: String) -> Outcome {
        if !self.context.json {
            print_bytes(format!("{}. {sentence}\n", self.story.steps.len() + 1).as_bytes())?;
        }
        self.story.steps.push(sentence);
        self.may_go_on()
    }

    /// A report below a step.
    fn report(&self, text: &str) -> Outcome {
        if self.context.json {
            return Ok(());
        }
        let indented: String =
            text.lines().map(|line| format!("     {line}").trim_end().to_owned() + "\n").collect();
        print_bytes(format!("\n{indented}\n").as_bytes())
    }

    /// An error if the user wants it to end.
    fn may_go_on(&self) -> Outcome {
        if self.interrupt.is_set() {
            return Err(Failure::Interrupted("interrupted".to_owned()));
        }
        Ok(())
    }
}

/// Runs the demo.
///
/// # Errors
/// Something did not come back as it was stored, or the files can't be made.
pub(crate) fn run(context: &Context, args: &args::Demo) -> Outcome {
    let interrupt = Interrupt::catch()?;
    let mut show = Show { context, interrupt, story: Story::default() };
    // The folder goes when this does, in whatever way.
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("coffer-demo-")
                .tempdir()
                .map_err(Failure::io("make a folder"))?,
        ),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => {
            std::fs::create_dir_all(dir).map_err(Failure::io(format!("make {}", dir.display())))?;
            std::path::absolute(dir).map_err(Failure::io(format!("find {}", dir.display())))?
        }
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    let outcome = play(&mut show, args, &dir);
    show.story.ok = outcome.is_ok();
    if context.json {
        context.print(&show.story, |_| String::new())?;
    }
    outcome
}

/// The play itself.
fn play(show: &mut Show<'_>, args: &args::Demo, dir: &std::path::Path) -> Outcome {
    let mut rng = Rng::new(args.seed);
    let disks = make_disks(args.size, dir)?;
    let sizes: Vec<String> = disks.iter().map(|(_, size)| short(*size)).collect();
    let disks: Vec<Arc<Disk>> = disks.into_iter().map(|(disk, _)| disk).collect();
    show.step(format!("Made {DISKS} disk files of {} in {}.", sizes.join(", "), dir.display()))?;

    let (mut pool, plan) = make_pool(&disks)?;
    show.step(format!(
        "Created pool '{POOL}': raidz2 over {} of them, which survives any two losses, and the last one as a hot spare.",
        DISKS - 1
    ))?;
    for notice in &plan.notices {
        show.report(notice)?;
    }

    let mut set = Set::default();
    let program = set.push_program(args.size / 2);
    let sources = set.push_sources(args.size / 4);
    let drawn = set.push_drawn(args.size / 2, &mut rng);
    let block_size = 16 << 10;
    let size = set.size().next_multiple_of(1 << 20);
    pool.volume_create(VOLUME, &VolumeSpec { size, block_size, sparse: true, properties: Vec::new() })?;
    let id = pool.open(VOLUME)?;
    let sources = match sources {
        0 => String::new(),
        files => format!("{files} files of its own source, "),
    };
    show.step(format!(
        "Writing {} of real data into volume '{POOL}/{VOLUME}': {} of this very program, {sources}{drawn} generated objects.",
        short(set.size()),
        short(program)
    ))?;
    let half = set.objects.len() / 2;
    store(&mut pool, id, &mut set.objects[..half], show)?;
    disks[PULLED].pull();
    let whole = 0..disks[PULLED].size_of_file()?;
    disks[PULLED].overwrite(&[whole], &mut rng)?;
    show.step(format!(
        "In the middle of it, disk {} was pulled and its file overwritten with noise; the writing goes on.",
        PULLED + 1
    ))?;
    store(&mut pool, id, &mut set.objects[half..], show)?;
    pool.flush()?;
    let wounds = wounds(&pool, &disks[CORRUPTED], &mut rng);
    disks[CORRUPTED].overwrite(&wounds, &mut rng)?;
    pool.drop_caches();
    show.step(format!(
        "Corrupted {} blocks of {} on disk {}, which goes on as if nothing had happened: only checksums can tell.",
        wounds.len(),
        short(WOUND),
        CORRUPTED + 1
    ))?;
    show.report(&render::status(&pool.status(), false))?;

    show.step(
        "The hot spare steps in by itself: what the lost disk held is rebuilt from the others.".to_owned(),
    )?;
    let resilver = work(&mut pool, show)?;
    let used = |spare: &SpareReport| spare.state == "INUSE";
    if !pool.status().spares.iter().any(used) {
        return Err(Failure::refused("the spare did not step in"));
    }
    if let Some(scan) = resilver {
        show.report(&render::scan_line(&scan))?;
    }

    show.step("A scrub reads everything, and repairs whatever does not match its checksum.".to_owned())?;
    pool.drop_caches();
    pool.scrub(ScrubAction::Start)?;
    if let Some(scan) = work(&mut pool, show)? {
        show.report(&render::scan_line(&scan))?;
        if scan.errors > 0 {
            return Err(Failure::refused(format!("{} errors could not be repaired", scan.errors)));
        }
    }
    show.report(&render::status(&pool.status(), false))?;

    pool.drop_caches();
    let (right, wrong) = compare(&mut pool, id, &set.objects, show)?;
    (show.story.objects, show.story.wrong) = (right, wrong);
    if wrong > 0 {
        return Err(Failure::refused(format!("{wrong} of {} objects came back damaged", right + wrong)));
    }
    show.step(format!("Read everything back: the BLAKE3 hashes of all {right} objects are what they were."))?;
    let problems = pool.check()?.problems;
    if let Some(problem) = problems.first() {
        return Err(Failure::refused(format!("the pool's structures do not agree: {problem}")));
    }
    pool.export().map_err(|failed| failed.1)?;
    show.step("Checked every tree and allocation, and exported the pool.".to_owned())?;
    if args.dir.is_some() && !show.context.json {
        show.report(&format!("The disks are still there: coffer import -d {} {POOL}", dir.display()))?;
    }
    if !show.context.json {
        print_bytes(b"OK: one disk lost, one corrupted, nothing missing.\n")?;
    }
    Ok(())
}

/// Makes the disks: from the smallest on each is a sixth of it larger, the spare the largest.
fn make_disks(smallest: u64, dir: &std::path::Path) -> Outcome<Vec<(Arc<Disk>, u64)>> {
    let one = |number: u64| {
        let size = (smallest + smallest / 6 * number) >> 20 << 20;
        Ok((Disk::create(&dir.join(format!("disk{}.img", number + 1)), size)?, size))
    };
    (0..DISKS).map(one).collect()
}

/// Makes the pool.
fn make_pool(disks: &[Arc<Disk>]) -> Outcome<(Pool, Plan)> {
    let device = |disk: &Arc<Disk>| {
        let path = disk.path().to_string_lossy().into_owned();
        NewDevice::new(Arc::clone(disk) as Arc<dyn BlockDevice>, path)
    };
    let (data, spare) = disks.split_at(disks.len() - 1);
    let group = |kind, disks: &[Arc<Disk>]| GroupSpec { kind, devices: disks.iter().map(device).collect() };
    let spec = CreateSpec {
        name: POOL.to_owned(),
        groups: vec![group(GroupKind::Raidz(2), data), group(GroupKind::Spare, spare)],
        data: None,
        metadata: None,
        properties: Vec::new(),
        command: "coffer demo".to_owned(),
    };
    Ok(Pool::create(&host::env(host::CACHE_BYTES), &spec, &host::host())?)
}

/// Writes objects and notes their hashes.
fn store(pool: &mut Pool, id: DatasetId, objects: &mut [Object], show: &Show<'_>) -> Outcome {
    for object in objects {
        show.may_go_on()?;
        let bytes = object.bytes();
        object.hash = Some(blake3::hash(&bytes));
        for (i, part) in bytes.chunks(1 << 20).enumerate() {
            pool.write(id, object.offset + ((i as u64) << 20), part)?;
        }
    }
    Ok(())
}

/// Reads objects, and counts those that are right and those that are not.
fn compare(pool: &mut Pool, id: DatasetId, objects: &[Object], show: &Show<'_>) -> Outcome<(usize, usize)> {
    let mut right = 0;
    for object in objects {
        show.may_go_on()?;
        let mut bytes = vec![0; object.length as usize];
        for (i, part) in bytes.chunks_mut(1 << 20).enumerate() {
            pool.read(id, object.offset + ((i as u64) << 20), part)?;
        }
        right += usize::from(object.hash == Some(blake3::hash(&bytes)));
    }
    Ok((right, objects.len() - right))
}

/// Places on a disk that hold something, to be overwritten.
fn wounds(pool: &Pool, disk: &Disk, rng: &mut Rng) -> Vec<std::ops::Range<u64>> {
    let path = disk.path().to_string_lossy().into_owned();
    let mut places = Vec::new();
    for chunk in pool.map() {
        // A chunk fills from its beginning, all columns alike.
        let filled = match chunk.length {
            0 => 0,
            length => (u128::from(chunk.column_length) * u128::from(chunk.used) / u128::from(length)) as u64,
        };
        for place in chunk.placements.iter().filter(|place| place.name == path) {
            places.extend((0..filled / WOUND).map(|i| place.offset + i * WOUND));
        }
    }
    rng.shuffle(&mut places);
    places.truncate(WOUNDS.min(places.len().div_ceil(2)));
    places.into_iter().map(|place| place..place + WOUND).collect()
}

/// Does background work until there is none, with a progress bar; returns the last scan.
fn work(pool: &mut Pool, show: &Show<'_>) -> Outcome<Option<ScanReport>> {
    let bar = Bar::new(false);
    loop {
        show.may_go_on()?;
        let more = pool.tick(STEP)?;
        let scan = pool.scan();
        let running = scan.as_ref().is_some_and(|scan| scan.state == ScanState::Running);
        if let Some(scan) = scan.as_ref().filter(|_| running) {
            bar.show(scan);
        }
        if !more && !running {
            return Ok(scan);
        }
    }
}

impl Disk {
    /// Size of the file, whether or not the disk was pulled.
    fn size_of_file(&self) -> Outcome<u64> {
        let doing = || format!("read {}", self.path().display());
        Ok(std::fs::metadata(self.path()).map_err(Failure::io(doing()))?.len())
    }
}
