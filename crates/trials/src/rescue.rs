//! `coffer rescue` on members that lie, and its overlays under `kill -9`.
//!
//! - silent: RAID 6 of random bytes, layouts and chunks; in many rows one member is other bytes than it was, and no map says so.
//!   A plan that looks at parity must give every byte back, and its record must name what was wrong and nothing else.
//! - overlay: volumes served writable are killed under load; what a flush acknowledged must be in the overlay, and no member
//!   may change.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use device::Rng;
use geometry::md::{Geometry, Rotation6, Shape};
use serde_json::{Value, json};

use crate::crash::load;
use crate::lab::Lab;
use crate::ledger::{Ledger, SLOT};
use crate::nbd::Nbd;

/// Where the data begins on each member.
const START: u64 = 64 << 10;
const SECTOR: u64 = 512;

/// What is wanted.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Arrays with members that lie
    #[arg(long, default_value_t = 40)]
    arrays: u64,
    /// Times that a server is killed
    #[arg(long, default_value_t = 40)]
    kills: u64,
    /// What is done is drawn from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Both, with a table.
///
/// # Errors
/// Something is lost, wrong, or blamed on the wrong member.
pub fn run(coffer: &std::path::Path, dir: &std::path::Path, options: &Options) -> Result<()> {
    let lab = Lab::new(dir, coffer)?;
    let mut rng = Rng::new(options.seed);
    let mut sum = Silent::default();
    for _ in 0..options.arrays {
        ensure!(!lab.interrupted(), "interrupted");
        sum.add(&silent(&lab, &mut rng)?);
    }
    println!("| rows of sectors with one wrong member | located | corrected | others blamed | of |");
    println!("|---|---|---|---|---|");
    println!(
        "| {} | {} | {} | {} | {} rows of {} arrays |",
        sum.hit, sum.located, sum.corrected, sum.blamed, sum.rows, options.arrays
    );
    ensure!(sum.located == sum.hit && sum.corrected == sum.hit && sum.blamed == 0, "not all were found");
    let (requests, flushes, lost) = overlay(&lab, &mut rng, options.kills)?;
    println!(
        "overlay: {} kills under load, {requests} requests, {flushes} flushes answered; nothing that was flushed is lost, {lost} slots that were not flushed are older; no member changed",
        options.kills
    );
    lab.clean()
}

#[derive(Debug, Default)]
struct Silent {
    rows: u64,
    hit: u64,
    located: u64,
    corrected: u64,
    blamed: u64,
}

impl Silent {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.hit += other.hit;
        self.located += other.located;
        self.corrected += other.corrected;
        self.blamed += other.blamed;
    }
}

/// A RAID 6: its members' bytes, and the candidate of a plan for them.
fn raid6(
    lab: &Lab,
    shape: Shape,
    chunk: u64,
    members: usize,
    contents: &mut Vec<u8>,
) -> Result<(Vec<Vec<u8>>, Value)> {
    let width = (members as u64 - 2) * chunk;
    let size = (contents.len() as u64).div_ceil(width) * chunk;
    let geometry = Geometry::new(shape, chunk, &vec![size; members])?;
    contents.resize(geometry.size() as usize, 0);
    let mut disks = vec![vec![0; (START + size) as usize]; members];
    for (stripe, row) in (0..).zip(contents.chunks(width as usize)) {
        let roles = geometry.row(stripe).context("a row")?;
        let place = (START + stripe * chunk) as usize..(START + (stripe + 1) * chunk) as usize;
        let zeros = vec![0; chunk as usize];
        let mut columns = vec![&zeros[..]; roles.columns()];
        for ((index, member), part) in roles.data.iter().enumerate().zip(row.chunks(chunk as usize)) {
            columns[roles.column(index, *member)] = part;
            disks[usize::from(*member)][place.clone()].copy_from_slice(part);
        }
        let (mut p, mut q) = (vec![0; chunk as usize], vec![0; chunk as usize]);
        parity::generate(&columns, &mut [&mut p, &mut q])?;
        disks[usize::from(roles.p)][place.clone()].copy_from_slice(&p);
        disks[usize::from(roles.q.context("a Q")?)][place].copy_from_slice(&q);
    }
    let slot = |number: usize| json!({ "path": lab.path(&format!("member{number}")), "data_offset": START, "size": size });
    let slots: Vec<Value> = (0..members).map(slot).collect();
    let (level, layout) = shape.codes();
    let candidate = json!({
        "array": "nas", "score": 100, "reasons": [], "level": level, "layout": layout, "chunk": chunk, "slots": slots,
        "check_parity": true,
    });
    Ok((disks, candidate))
}

fn save(lab: &Lab, disks: &[Vec<u8>], candidate: &Value) -> Result<String> {
    for (number, bytes) in disks.iter().enumerate() {
        fs::write(lab.path(&format!("member{number}")), bytes)?;
    }
    let plan = lab.path("plan");
    fs::write(&plan, json!({ "candidates": [candidate] }).to_string())?;
    Ok(plan)
}

/// One array of which single members lie.
fn silent(lab: &Lab, rng: &mut Rng) -> Result<Silent> {
    let rotations: Vec<Rotation6> = Rotation6::all().collect();
    let rotation = *rng.choose(&rotations).context("a layout")?;
    let (members, chunk) = (rng.within(5..13) as usize, 1 << rng.within(12..19));
    let mut contents = vec![0; rng.within(2 << 20..16 << 20) as usize];
    rng.fill(&mut contents);
    let (mut disks, candidate) = raid6(lab, Shape::Raid6(rotation), chunk, members, &mut contents)?;
    let rows = (disks[0].len() as u64 - START) / SECTOR;
    let mut wrong = BTreeSet::new();
    let mut row = 0;
    while row < rows {
        // One sector, or a run of them as a write that never came leaves it.
        let run = if rng.chance(1, 20) { rng.within(2..200) } else { 1 }.min(rows - row);
        let member = rng.below(members as u64) as usize;
        let kind = rng.below(4);
        for row in row..row + run {
            if run == 1 && !rng.chance(1, 3) {
                continue;
            }
            let place = (START + row * SECTOR) as usize;
            let sector = &mut disks[member][place..place + SECTOR as usize];
            let before = sector.to_vec();
            match kind {
                0 => sector[rng.below(SECTOR) as usize] ^= 1 << rng.below(8),
                1 => sector.fill(0),
                2 => rng.fill(sector),
                _ => sector[256..].reverse(),
            }
            if *sector != before {
                wrong.insert((member as u64, START + row * SECTOR));
            }
        }
        row += run;
    }
    let plan = save(lab, &disks, &candidate)?;
    let (to, record) = (lab.path("copy"), lab.path("record"));
    lab.ok(&format!("rescue copy --plan {plan} nas --to {to} --record {record}"))?;
    let copy = fs::read(&to)?;
    ensure!(copy.len() == contents.len(), "the copy has another length");
    let same = |row: &u64| {
        let width = (members as u64 - 2) * chunk;
        let (stripe, within) = (row * SECTOR / chunk, row * SECTOR % chunk);
        (0..members as u64 - 2).all(|column| {
            let at = (stripe * width + column * chunk + within) as usize;
            copy[at..at + SECTOR as usize] == contents[at..at + SECTOR as usize]
        })
    };
    let mut named = BTreeSet::new();
    let mut unclear = 0;
    for line in fs::read_to_string(&record).unwrap_or_default().lines() {
        let line: Value = serde_json::from_str(line)?;
        let number = |field: &str| line[field].as_u64().with_context(|| format!("{field} in {line}"));
        let (at, length) = (number("at")?, number("length")?);
        match line["slot"].as_u64() {
            Some(slot) => {
                named.extend((at..at + length).step_by(SECTOR as usize).map(|at| (slot, at)));
            }
            None => unclear += length / SECTOR,
        }
    }
    for name in ["copy", "copy.map", "record"] {
        let _ = fs::remove_file(lab.path(name));
    }
    let hit: BTreeSet<u64> = wrong.iter().map(|(_, at)| (at - START) / SECTOR).collect();
    ensure!(
        (0..rows).filter(|row| !hit.contains(row)).all(|row| same(&row)),
        "what was right came out wrong"
    );
    Ok(Silent {
        rows,
        hit: hit.len() as u64,
        located: wrong.intersection(&named).count() as u64,
        corrected: hit.iter().filter(|row| same(row)).count() as u64,
        blamed: named.difference(&wrong).count() as u64 + unclear,
    })
}

/// Kills servers that write to an overlay: requests and flushes that were answered, and slots that lost what was not flushed.
fn overlay(lab: &Lab, rng: &mut Rng, kills: u64) -> Result<(u64, u64, u64)> {
    let shape = Shape::from_codes(6, 2)?;
    let (disks, mut candidate) = raid6(lab, shape, 64 << 10, 6, &mut vec![0; 32 << 20])?;
    // Degraded by two.
    candidate["slots"][1] = Value::Null;
    candidate["slots"][4] = Value::Null;
    let plan = save(lab, &disks, &candidate)?;
    let socket = lab.path("nbd.sock");
    let serve = format!("rescue serve --plan {plan} --socket {socket} --overlay {}", lab.path("overlay"));
    let mut ledger = Ledger::new((32 << 20) / SLOT);
    let (mut requests, mut flushes, mut lost) = (0, 0, 0);
    for _ in 0..kills {
        ensure!(!lab.interrupted(), "interrupted");
        let _ = fs::remove_file(&socket);
        let server = lab.start(lab.coffer(&serve))?.ready()?;
        let connections = load::connect(&socket, "nas")?;
        let (delay, seed) = (Duration::from_millis(rng.below(500)), rng.next_u64());
        let shared = Mutex::new(ledger);
        let done = std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(connections, &shared, seed));
            std::thread::sleep(delay);
            server.kill()?;
            load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
        })?;
        ledger = shared.into_inner()?;
        requests += done.requests;
        flushes += done.flushes;
        let _ = fs::remove_file(&socket);
        let server = lab.start(lab.coffer(&serve))?.ready()?;
        let mut reader = Nbd::open(&socket, "nas")?;
        let mut bytes = vec![0; 1 << 20];
        for first in (0..ledger.len()).step_by(bytes.len() / SLOT) {
            let read = reader.read((first * SLOT) as u64, &mut bytes);
            ensure!(read.is_ok(), "slot {first} can't be read after a kill");
            lost += ledger.settle_after_crash(first, &bytes)?;
        }
        drop(reader);
        server.interrupt()?;
    }
    for (number, bytes) in disks.iter().enumerate() {
        ensure!(fs::read(lab.path(&format!("member{number}")))? == *bytes, "member {number} changed");
    }
    Ok((requests, flushes, lost))
}
