//! Every target with its committed corpus and seeded mutations of it.
//!
//! `FUZZ_SECONDS` (for all targets together, 20 if not set) and `FUZZ_SEED` make it longer and other.

use std::path::Path;
use std::time::{Duration, Instant};

use device::Rng;
use fuzzing::TARGETS;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("its bytes")).collect()
}

/// One of the corpus with a few things done to it.
fn mutated(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.choose(corpus).cloned().unwrap_or_default();
    for _ in 0..=rng.below(6) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.below(256) as u8),
            2 => {
                let more = rng.choose(corpus).cloned().unwrap_or_default();
                let from = rng.below(more.len() as u64 + 1) as usize;
                let length = (rng.below(64) as usize).min(more.len() - from);
                bytes.splice(at..at, more[from..from + length].iter().copied());
            }
            3 => {
                let value = *rng.choose(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0);
                let end = (at + 1 + rng.below(8) as usize).min(bytes.len());
                bytes[at.min(end)..end].fill(value);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn the_corpus_and_mutations_of_it() {
    let each = Duration::from_secs(number("FUZZ_SECONDS", 20)) / TARGETS.len() as u32;
    let seed = number("FUZZ_SEED", 1);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        corpus.iter().for_each(|input| target(input));
        let mut rng = Rng::new(seed);
        let (began, mut runs) = (Instant::now(), 0_u64);
        while began.elapsed() < each {
            let input = mutated(&corpus, &mut rng);
            let outcome = std::panic::catch_unwind(|| target(&input));
            if outcome.is_err() {
                let left = std::env::temp_dir().join(format!("fuzz-{name}-{seed}-{runs}"));
                let _ = std::fs::write(&left, &input);
                panic!("{name} fails, run {runs} of seed {seed}; the input is in {}", left.display());
            }
            runs += 1;
        }
        println!("{name}: {runs} runs");
    }
}
