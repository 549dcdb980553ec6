//! `cargo bench -p parity-bench --features isal [-- WORD...]`: this project's kernels against ISA-L, other crates and
//! SnapRAID, in one run.
//!
//! Words select rows by substring, such as `gen-PQ`, `k=8`, `64K`, `fused`; `snapraid` runs `snapraid -T` (a minute) and
//! `kernels` compares our own kernels. Without words everything runs. `SMALL_PAGES=1` does without huge pages.

use parity_bench::arena::{ALIGNED, DISPLACED};
use parity_bench::{Arena, Case, Contender, Operation, ffi, measure, median, snapraid};
use xxhash_rust::xxh3::Xxh3;

const ROUNDS: usize = 11;
const SLICE_S: f64 = 0.008;

const OPERATIONS: [Operation; 6] = [
    Operation::Generate(1),
    Operation::Generate(2),
    Operation::Generate(3),
    Operation::Rebuild(1),
    Operation::Rebuild(2),
    Operation::Rebuild(3),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let selected = |row: &str| words.iter().all(|word| row.contains(word.as_str()));
    let huge_pages = std::env::var_os("SMALL_PAGES").is_none();
    println!(
        "kernel in force: {}; GB/s of data by thread CPU time, medians of {ROUNDS} interleaved",
        parity::kernel::current()
    );

    let snapraid = if selected("snapraid") { snapraid::run() } else { None };
    match &snapraid {
        Some(figures) => {
            let all: Vec<String> = figures.iter().map(|f| format!("{} {:.1}", f.function, f.rate)).collect();
            println!("snapraid -T (k=8, 256K, scaled to CPU time): {}", all.join(", "));
        }
        None => println!("snapraid -T: not run or not installed"),
    }
    let mut arena = Arena::new(24 << 20, huge_pages);
    println!(
        "\n{:<8} {:<5} {:<5} {:>7} {:>7} {:>6} | {:>7} {:>9} {:>6} | {:>6} others",
        "op", "k", "size", "ours", "aligned", "al/ds", "isal", "isal-al", "ratio", "snap"
    );
    for operation in OPERATIONS {
        for (length, size) in [(64 << 10, "64K"), (256 << 10, "256K"), (1 << 20, "1M")] {
            for columns in [4, 8, 16] {
                let case = Case { operation, columns, length };
                let row = format!("{:<8} k={columns:<3} {size:<5}", operation.name());
                // 256 KiB columns are there for SnapRAID's shape only.
                if selected(&row) && (length != 256 << 10 || columns == 8) {
                    println!("{row} {}", compare(&mut arena, &case, snapraid.as_deref()));
                }
            }
        }
    }
    if selected("kernels") {
        kernels(&mut arena);
    }
    drop(arena);
    if selected("fused") {
        fused(huge_pages);
    }
}

/// One row of the table.
fn compare(arena: &mut Arena, case: &Case, snapraid: Option<&[snapraid::Figure]>) -> String {
    let mut contenders = vec![Contender::ours("ours", DISPLACED), Contender::ours("aligned", ALIGNED)];
    contenders.extend(Contender::others(case, DISPLACED));
    let displaced = contenders.len();
    contenders
        .extend(Contender::others(case, ALIGNED).into_iter().filter(|other| other.name.starts_with("isal")));
    let rates = measure(arena, case, &mut contenders, ROUNDS, SLICE_S);
    let best = |from: &[Contender], rates: &[f64]| {
        from.iter()
            .zip(rates)
            .filter(|(c, _)| c.name.starts_with("isal"))
            .map(|(_, &rate)| rate)
            .fold(0.0, f64::max)
    };
    let isal = best(&contenders[..displaced], &rates);
    let isal_aligned = best(&contenders[displaced..], &rates[displaced..]);
    let functions: &[&str] = match case.operation {
        Operation::Generate(1) => &["gen1"],
        Operation::Generate(2) => &["gen2"],
        Operation::Generate(_) => &["genz", "gen3"],
        Operation::Rebuild(1) => &["rec1"],
        Operation::Rebuild(2) => &["rec2"],
        Operation::Rebuild(_) => &["rec3"],
    };
    let snap = snapraid
        .into_iter()
        .flatten()
        .filter(|_| case.columns == 8 && case.length == 256 << 10)
        .filter(|figure| functions.contains(&figure.function.as_str()))
        .map(|figure| figure.rate)
        .fold(0.0, f64::max);
    let others: Vec<String> = contenders[2..displaced]
        .iter()
        .zip(&rates[2..])
        .map(|(other, rate)| format!("{} {rate:.1} ({:.2}x)", other.name, rates[0] / rate))
        .collect();
    let ratio = |to: f64| if to > 0.0 { format!("{:.2}", rates[0] / to) } else { "-".to_owned() };
    format!(
        "{:7.1} {:7.1} {:6.2} | {isal:7.1} {isal_aligned:9.1} {:>6} | {:>6} {}",
        rates[0],
        rates[1],
        rates[1] / rates[0],
        ratio(isal),
        ratio(snap),
        others.join(", ")
    )
}

/// Our own kernels side by side.
fn kernels(arena: &mut Arena) {
    println!("\nkernels, k=8, 64K, displaced");
    for operation in OPERATIONS {
        let case = Case { operation, columns: 8, length: 64 << 10 };
        print!("{:<8}", operation.name());
        for kernel in parity::kernel::available() {
            let mut ours = [Contender::ours("ours", DISPLACED)];
            let rates = parity::kernel::with(kernel, || measure(arena, &case, &mut ours, ROUNDS, SLICE_S));
            print!(" {kernel} {:.1}", rates.map_or(f64::NAN, |rates| rates[0]));
        }
        println!();
    }
}

/// Copy, checksum and parity of an arena much larger than the second cache: in one pass per row, in three calls per
/// row, and in three passes over everything.
fn fused(huge_pages: bool) {
    println!("\nfused copy + xxh3-128 + parity, cold, 512 MiB of data, one extent per row");
    const TOTAL: usize = 512 << 20;
    let mut source = Arena::new(TOTAL, huge_pages);
    let mut target = Arena::new(TOTAL + (TOTAL / 4 * 3), huge_pages);
    for (columns, length, rows) in [
        (8, 16 << 10, 2),
        (4, 64 << 10, 2),
        (8, 64 << 10, 1),
        (8, 64 << 10, 2),
        (8, 64 << 10, 3),
        (16, 64 << 10, 2),
        (8, 256 << 10, 2),
        (8, 1 << 20, 2),
    ] {
        let bytes = columns * length;
        let stripe = (columns + rows) * length;
        let mut samples = [const { Vec::new() }; 3];
        for _ in 0..5 {
            let mut timed = |which: usize, work: &mut dyn FnMut(&[u8], &mut [u8])| {
                let start = ffi::thread_cpu_seconds();
                work(&source.bytes()[..TOTAL], target.bytes());
                samples[which].push(TOTAL as f64 / (ffi::thread_cpu_seconds() - start) / 1e9);
            };
            timed(0, &mut |source, target| {
                for (from, to) in source.chunks_exact(bytes).zip(target.chunks_exact_mut(stripe)) {
                    let mut all: Vec<&mut [u8]> = to.chunks_exact_mut(length).collect();
                    let (data, parity) = all.split_at_mut(columns);
                    let piece = parity::Piece { bytes: from, hasher: Some(0) };
                    let mut hasher = [Xxh3::new()];
                    parity::copy_checksum_generate(
                        &[piece],
                        &mut hasher,
                        data,
                        parity,
                        parity::Stores::Streaming,
                    )
                    .expect("a proper stripe");
                    std::hint::black_box(hasher[0].digest128());
                }
            });
            let copy = |from: &[u8], to: &mut [u8]| to[..bytes].copy_from_slice(from);
            let hash = |to: &[u8]| {
                let mut hasher = Xxh3::new();
                hasher.update(&to[..bytes]);
                std::hint::black_box(hasher.digest128());
            };
            let make = |to: &mut [u8]| {
                let mut all: Vec<&mut [u8]> = to.chunks_exact_mut(length).collect();
                let (data, parity) = all.split_at_mut(columns);
                let data: Vec<&[u8]> = data.iter().map(|column| &**column).collect();
                parity::generate(&data, parity).expect("a proper stripe");
            };
            timed(1, &mut |source, target| {
                for (from, to) in source.chunks_exact(bytes).zip(target.chunks_exact_mut(stripe)) {
                    copy(from, to);
                    hash(to);
                    make(to);
                }
            });
            timed(2, &mut |source, target| {
                source
                    .chunks_exact(bytes)
                    .zip(target.chunks_exact_mut(stripe))
                    .for_each(|(from, to)| copy(from, to));
                target.chunks_exact_mut(stripe).take(TOTAL / bytes).for_each(|to| hash(to));
                target.chunks_exact_mut(stripe).take(TOTAL / bytes).for_each(make);
            });
        }
        let [one, by_row, apart] = samples.map(median);
        println!(
            "k={columns:<3} p={rows} {:>5}K  fused {one:5.1}   row by row {by_row:5.1} ({:.2}x)   three passes {apart:5.1} ({:.2}x)",
            length >> 10,
            one / by_row,
            one / apart
        );
    }
}
