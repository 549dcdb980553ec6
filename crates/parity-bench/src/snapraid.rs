//! The figures of `snapraid -T`: 8 columns of 256 KiB, displaced by 1792 bytes.
//!
//! The program measures by the wall clock; its figures are divided by the share of a processor that it got.

use crate::ffi;
use std::process::Command;
use std::time::Instant;

/// Best rate of a function, GB/s of data, as the program's own table gives it, by CPU time.
#[derive(Clone, Debug)]
pub struct Figure {
    /// SnapRAID's name: gen1, gen2, genz, gen3, rec1 and so on.
    pub function: String,
    /// GB/s.
    pub rate: f64,
}

/// Runs the program's speed test (about a minute); `None` if it is not installed.
pub fn run() -> Option<Vec<Figure>> {
    let (wall, cpu) = (Instant::now(), ffi::children_cpu_seconds());
    let output = Command::new("snapraid").arg("-T").output().ok()?;
    let share = (ffi::children_cpu_seconds() - cpu) / wall.elapsed().as_secs_f64();
    let mut figures = parse(&String::from_utf8_lossy(&output.stdout));
    for figure in &mut figures {
        figure.rate /= share;
    }
    Some(figures)
}

fn parse(text: &str) -> Vec<Figure> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let function = words.next().filter(|word| word.starts_with("gen") || word.starts_with("rec"))?;
            let megabytes = words.filter_map(|word| word.parse::<u32>().ok()).max()?;
            Some(Figure { function: function.to_owned(), rate: f64::from(megabytes) / 1e3 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_best_of_each_row() {
        let text = "            best    int8   int32\n    gen2    avx2      7426   14409    27085\n\nRAID functions\n    genz   avx2e  4531\n";
        let figures = parse(text);
        assert_eq!(figures.len(), 2);
        assert_eq!((figures[0].function.as_str(), figures[0].rate), ("gen2", 27.085));
        assert_eq!((figures[1].function.as_str(), figures[1].rate), ("genz", 4.531));
    }
}
