//! Who takes part.

use crate::{Arena, Case, Operation, ffi};
use parity::kernel::{self, Kernel};

/// Someone who can do the operations.
pub struct Contender {
    /// Name in the table.
    pub name: &'static str,
    padding: usize,
    engine: Engine,
}

enum Engine {
    Ours(Kernel),
    /// Only reads what the operation has to read.
    Read,
    #[cfg(feature = "isal")]
    IsalRaid(ffi::isal::Level),
    #[cfg(feature = "isal")]
    IsalCode(ffi::isal::Code),
    #[cfg(feature = "crates")]
    Erasure(Box<reed_solomon_erasure::galois_8::ReedSolomon>),
    #[cfg(feature = "crates")]
    Simd,
}

#[cfg(feature = "isal")]
impl Engine {
    fn isal_code(case: &Case, level: ffi::isal::Level) -> Self {
        use ffi::isal::Code;
        let (columns, parity) = (case.columns, case.operation.parity());
        Self::IsalCode(match case.operation {
            Operation::Generate(_) => Code::generate(columns, parity, level),
            Operation::Rebuild(_) => Code::rebuild(columns, parity, level),
        })
    }
}

impl Contender {
    /// This project's crate, columns `padding` bytes apart.
    pub fn ours(name: &'static str, padding: usize) -> Self {
        Self::kernel(name, padding, kernel::current())
    }

    /// This project's crate with a kernel that the processor can run.
    pub fn kernel(name: &'static str, padding: usize, kernel: Kernel) -> Self {
        Self { name, padding, engine: Engine::Ours(kernel) }
    }

    /// Reading the columns that the operation needs, and nothing else: no operation can be faster.
    pub fn read(padding: usize) -> Self {
        Self { name: "read", padding, engine: Engine::Read }
    }

    /// ISA-L as it is on processors without AVX-512.
    #[cfg(feature = "isal")]
    pub fn isal_avx2(case: &Case, padding: usize) -> Vec<Self> {
        use ffi::isal::Level;
        let raid = matches!(case.operation, Operation::Generate(1 | 2) | Operation::Rebuild(1));
        let mut all = vec![Self { name: "isal-ec", padding, engine: Engine::isal_code(case, Level::Avx2) }];
        if raid {
            all.push(Self { name: "isal-raid", padding, engine: Engine::IsalRaid(Level::Avx2) });
        }
        all
    }

    /// Everyone else that was compiled in and can do the operation.
    #[allow(unused_variables, clippy::vec_init_then_push, unused_mut, reason = "depends on the features")]
    pub fn others(case: &Case, padding: usize) -> Vec<Self> {
        let (columns, parity) = (case.columns, case.operation.parity());
        let mut all = vec![];
        let mut add = |name, engine| all.push(Self { name, padding, engine });
        #[cfg(feature = "isal")]
        {
            use ffi::isal::Level;
            if matches!(case.operation, Operation::Generate(1 | 2) | Operation::Rebuild(1)) {
                add("isal-raid", Engine::IsalRaid(Level::Best));
            }
            add("isal-ec", Engine::isal_code(case, Level::Best));
        }
        #[cfg(feature = "crates")]
        {
            if let Ok(code) = reed_solomon_erasure::galois_8::ReedSolomon::new(columns, parity) {
                add("rs-erasure", Engine::Erasure(Box::new(code)));
            }
            add("rs-simd", Engine::Simd);
        }
        all
    }

    /// Does the operation `count` times. What is rebuilt is always the first data columns.
    pub fn run(&mut self, arena: &mut Arena, case: &Case, count: u32) {
        let mut columns = arena.columns(case.all_columns(), case.length, self.padding);
        #[cfg(feature = "crates")]
        let parity = case.operation.parity();
        match (&mut self.engine, case.operation) {
            (Engine::Ours(kernel), Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                let data: Vec<&[u8]> = data.iter().map(|column| &**column).collect();
                let work = || (0..count).try_for_each(|_| parity::generate(&data, parity));
                kernel::with(*kernel, work).expect("an available kernel").expect("a proper stripe");
            }
            (Engine::Ours(kernel), Operation::Rebuild(lost)) => {
                let (lost, left) = columns.split_at_mut(lost);
                let mut present = vec![None; lost.len()];
                present.extend(left.iter().map(|column| Some(&**column)));
                let mut wanted: Vec<(usize, &mut [u8])> =
                    lost.iter_mut().map(|column| &mut **column).enumerate().collect();
                let work =
                    || (0..count).try_for_each(|_| parity::reconstruct(case.columns, &present, &mut wanted));
                kernel::with(*kernel, work).expect("an available kernel").expect("a proper stripe");
            }
            (Engine::Read, _) => {
                let first = case.all_columns() - case.columns;
                let read: Vec<&[u8]> = columns[first..].iter().map(|column| &**column).collect();
                (0..count).for_each(|_| ffi::read(&read));
            }
            #[cfg(feature = "isal")]
            (Engine::IsalRaid(level), Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                ffi::isal::raid(data, parity, *level, count);
            }
            #[cfg(feature = "isal")]
            (Engine::IsalRaid(level), Operation::Rebuild(lost)) => {
                let (lost, left) = columns.split_at_mut(lost);
                ffi::isal::raid(left, lost, *level, count);
            }
            #[cfg(feature = "isal")]
            (Engine::IsalCode(code), Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                code.run(data, parity, count);
            }
            #[cfg(feature = "isal")]
            (Engine::IsalCode(code), Operation::Rebuild(_)) => {
                let (lost, left) = columns.split_at_mut(parity);
                code.run(left, lost, count);
            }
            #[cfg(feature = "crates")]
            (Engine::Erasure(code), Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                for _ in 0..count {
                    code.encode_sep(data, parity).expect("a proper stripe");
                }
            }
            #[cfg(feature = "crates")]
            (Engine::Erasure(code), Operation::Rebuild(lost)) => {
                let mut shards: Vec<(&mut [u8], bool)> =
                    columns.into_iter().map(|column| (column, true)).collect();
                for _ in 0..count {
                    shards.iter_mut().take(lost).for_each(|shard| shard.1 = false);
                    code.reconstruct_data(&mut shards).expect("a proper stripe");
                }
            }
            #[cfg(feature = "crates")]
            (Engine::Simd, Operation::Generate(_)) => {
                let mut encoder =
                    reed_solomon_simd::ReedSolomonEncoder::new(case.columns, parity, case.length)
                        .expect("a proper stripe");
                for _ in 0..count {
                    for column in &columns[..case.columns] {
                        encoder.add_original_shard(column).expect("a proper stripe");
                    }
                    std::hint::black_box(encoder.encode().expect("a proper stripe").recovery(0));
                }
            }
            #[cfg(feature = "crates")]
            (Engine::Simd, Operation::Rebuild(lost)) => {
                let mut decoder =
                    reed_solomon_simd::ReedSolomonDecoder::new(case.columns, parity, case.length)
                        .expect("a proper stripe");
                for _ in 0..count {
                    for (at, column) in columns.iter().enumerate().skip(lost) {
                        match at.checked_sub(case.columns) {
                            None => decoder.add_original_shard(at, column),
                            Some(row) => decoder.add_recovery_shard(row, column),
                        }
                        .expect("a proper stripe");
                    }
                    std::hint::black_box(decoder.decode().expect("a proper stripe").restored_original(0));
                }
            }
        }
    }
}
