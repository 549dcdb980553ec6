//! `cargo bench -p parity-bench --features isal [-- WORD...]`: this project's kernels against ISA-L, other crates and
//! SnapRAID, in one run.
//!
//! Words select rows by substring, such as `gen-PQ`, `k=8`, `64K`, `fused`; `snapraid` runs `snapraid -T` (a minute) and
//! `kernels` compares our own kernels. `read` is the rate of only reading what the operation reads, which none can exceed.
//! Ratios are those of the same round, as median [least..largest]. Without words everything runs. `SMALL_PAGES=1` does without huge pages.

use parity::kernel::{self, Kernel};
use parity_bench::arena::{ALIGNED, DISPLACED};
use parity_bench::{Arena, Case, Contender, Operation, Rates, Spread, ffi, measure, snapraid};
use std::ops::Range;
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
        "\n{:<8} {:<5} {:<5} {:>7} {:>7} {:<18} | {:>7} {:>6} | {:>7} {:>8} {:<18} | {:>5} others",
        "op",
        "k",
        "size",
        "ours",
        "aligned",
        "of ours",
        "read",
        "ours/",
        "isal",
        "aligned",
        "ours/isal",
        "snap"
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
    kernels(&mut arena, &selected);
    drop(arena);
    if selected("fused") {
        fused(huge_pages);
    }
}

/// One row of the table.
fn compare(arena: &mut Arena, case: &Case, snapraid: Option<&[snapraid::Figure]>) -> String {
    let mut contenders = vec![
        Contender::ours("ours", DISPLACED),
        Contender::ours("aligned", ALIGNED),
        Contender::read(DISPLACED),
    ];
    contenders.extend(Contender::others(case, DISPLACED));
    let displaced = contenders.len();
    contenders
        .extend(Contender::others(case, ALIGNED).into_iter().filter(|other| other.name.starts_with("isal")));
    let rates = measure(arena, case, &mut contenders, ROUNDS, SLICE_S);
    let ratio = |to: Option<usize>| to.map_or("-".to_owned(), |to| rates.ratio(0, to).to_string());
    let isal = best_isal(&contenders, &rates, 0..displaced);
    let isal_aligned = best_isal(&contenders, &rates, displaced..contenders.len());
    let rate = |of: Option<usize>| of.map_or("-".to_owned(), |of| format!("{:.1}", rates.median(of)));
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
    let snap = if snap > 0.0 { format!("{:.2}", rates.median(0) / snap) } else { "-".to_owned() };
    let others: Vec<String> = contenders
        .iter()
        .enumerate()
        .take(displaced)
        .skip(3)
        .map(|(at, other)| {
            format!("{} {:.1} ({:.2}x)", other.name, rates.median(at), rates.ratio(0, at).median)
        })
        .collect();
    format!(
        "{:7.1} {:7.1} {:<18} | {:7.1} {:6.2} | {:>7} {:>8} {:<18} | {snap:>5} {}",
        rates.median(0),
        rates.median(1),
        rates.ratio(1, 0).to_string(),
        rates.median(2),
        rates.ratio(0, 2).median,
        rate(isal),
        rate(isal_aligned),
        ratio(isal),
        others.join(", ")
    )
}

/// The faster one of the library's ways among some contenders.
fn best_isal(contenders: &[Contender], rates: &Rates, among: Range<usize>) -> Option<usize> {
    among
        .filter(|&at| contenders[at].name.starts_with("isal"))
        .max_by(|&a, &b| rates.median(a).total_cmp(&rates.median(b)))
}

/// Our own kernels side by side, and ISA-L without AVX-512 next to the ones that do without it, too.
fn kernels(arena: &mut Arena, selected: &dyn Fn(&str) -> bool) {
    println!(
        "\nkernels, k=8 and 16, displaced; in brackets page-aligned columns as a share of that; against the best of ISA-L's AVX2"
    );
    for operation in OPERATIONS {
        for (columns, length, size) in [(8, 64 << 10, "64K"), (16, 64 << 10, "64K"), (8, 1 << 20, "1M")] {
            let case = Case { operation, columns, length };
            let row = format!("kernels {:<8} k={columns:<3} {size:<5}", operation.name());
            if !selected(&row) {
                continue;
            }
            let available: Vec<Kernel> = kernel::available().collect();
            let mut contenders = vec![];
            for &kernel in &available {
                contenders.push(Contender::kernel("ours", DISPLACED, kernel));
                contenders.push(Contender::kernel("ours", ALIGNED, kernel));
            }
            #[cfg(feature = "isal")]
            if Kernel::Avx2.is_available() {
                contenders.extend(Contender::isal_avx2(&case, DISPLACED));
            }
            let rates = measure(arena, &case, &mut contenders, ROUNDS, SLICE_S);
            let isal = best_isal(&contenders, &rates, 0..contenders.len());
            print!("{row}");
            for (at, kernel) in available.iter().enumerate() {
                print!(
                    " {kernel} {:.1} ({:.2})",
                    rates.median(2 * at),
                    rates.ratio(2 * at + 1, 2 * at).median
                );
                if let (Kernel::Avx2, Some(isal)) = (kernel, isal) {
                    print!(" = {} x isal {:.1},", rates.ratio(2 * at, isal), rates.median(isal));
                }
            }
            println!();
        }
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
        let ratio = |to: usize| Spread::of(samples[0].iter().zip(&samples[to]).map(|(a, b)| a / b).collect());
        let (by_row, apart) = (ratio(1), ratio(2));
        let [one, by_row_rate, apart_rate] = samples.map(|samples| Spread::of(samples).median);
        println!(
            "k={columns:<3} p={rows} {:>5}K  fused {one:5.1}   row by row {by_row_rate:5.1} ({by_row} x)   three passes {apart_rate:5.1} ({apart} x)",
            length >> 10,
        );
    }
}
