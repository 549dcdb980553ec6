//! Who takes part.

use crate::{Arena, Case, Operation};

/// Someone who can do the operations.
pub struct Contender {
    /// Name in the table.
    pub name: &'static str,
    padding: usize,
    engine: Engine,
}

enum Engine {
    Ours,
    #[cfg(feature = "isal")]
    IsalRaid,
    #[cfg(feature = "isal")]
    IsalCode(crate::ffi::isal::Code),
    #[cfg(feature = "crates")]
    Erasure(Box<reed_solomon_erasure::galois_8::ReedSolomon>),
    #[cfg(feature = "crates")]
    Simd,
}

impl Contender {
    /// This project's crate, columns `padding` bytes apart.
    pub fn ours(name: &'static str, padding: usize) -> Self {
        Self { name, padding, engine: Engine::Ours }
    }

    /// Everyone else that was compiled in and can do the operation.
    #[allow(unused_variables, clippy::vec_init_then_push, unused_mut, reason = "depends on the features")]
    pub fn others(case: &Case, padding: usize) -> Vec<Self> {
        let (columns, parity) = (case.columns, case.operation.parity());
        let mut all = vec![];
        let mut add = |name, engine| all.push(Self { name, padding, engine });
        #[cfg(feature = "isal")]
        {
            use crate::ffi::isal::Code;
            if matches!(case.operation, Operation::Generate(1 | 2) | Operation::Rebuild(1)) {
                add("isal-raid", Engine::IsalRaid);
            }
            add(
                "isal-ec",
                Engine::IsalCode(match case.operation {
                    Operation::Generate(_) => Code::generate(columns, parity),
                    Operation::Rebuild(_) => Code::rebuild(columns, parity),
                }),
            );
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
            (Engine::Ours, Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                let data: Vec<&[u8]> = data.iter().map(|column| &**column).collect();
                for _ in 0..count {
                    parity::generate(&data, parity).expect("a proper stripe");
                }
            }
            (Engine::Ours, Operation::Rebuild(lost)) => {
                let (lost, left) = columns.split_at_mut(lost);
                let mut present = vec![None; lost.len()];
                present.extend(left.iter().map(|column| Some(&**column)));
                let mut wanted: Vec<(usize, &mut [u8])> =
                    lost.iter_mut().map(|column| &mut **column).enumerate().collect();
                for _ in 0..count {
                    parity::reconstruct(case.columns, &present, &mut wanted).expect("a proper stripe");
                }
            }
            #[cfg(feature = "isal")]
            (Engine::IsalRaid, Operation::Generate(_)) => {
                let (data, parity) = columns.split_at_mut(case.columns);
                crate::ffi::isal::raid(data, parity, count);
            }
            #[cfg(feature = "isal")]
            (Engine::IsalRaid, Operation::Rebuild(lost)) => {
                let (lost, left) = columns.split_at_mut(lost);
                crate::ffi::isal::raid(left, lost, count);
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
