//! Spreading narrow chunks over many devices, so that every pair of devices has about the same number of chunks in common.
//!
//! When a device fails, what is on it is rebuilt from those it has chunks in common with: if these are all others, each
//! with as much, all of them work at once and none is slower than the rest.
//!
//! The rule is greedy and fixed: equal histories give equal choices, and what an earlier choice left uneven the next one
//! evens out, which no table of permutations does once chunks are dropped again.

/// Which `width` of the devices the next chunk takes, in the order in which they were chosen.
///
/// One after another: of those that are left, the ones that rank first by `rank` (lower is better: say those with most
/// room); of these the one that has least in common with those chosen so far; of these the first. `shared(a, b)` is what
/// two devices have in common already.
pub fn choose<R: Ord>(rank: &[R], shared: impl Fn(usize, usize) -> u64, width: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(width);
    // What each device has in common with all that are chosen.
    let mut common = vec![0u64; rank.len()];
    while chosen.len() < width.min(rank.len()) {
        let left = (0..rank.len()).filter(|device| !chosen.contains(device));
        let Some(next) = left.min_by_key(|&device| (&rank[device], common[device], device)) else { break };
        for (device, sum) in common.iter_mut().enumerate() {
            *sum += shared(device, next);
        }
        chosen.push(next);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices of `columns` columns, filled with chunks of `width` of them until none fits any more: how many chunks each
    /// pair has in common, and how full each device is. `forget` drops chunks again meanwhile.
    fn fill(devices: usize, width: usize, columns: u64, forget: bool) -> (Vec<u64>, Vec<u64>) {
        let mut shared = vec![vec![0u64; devices]; devices];
        let mut used = vec![0u64; devices];
        let mut chunks: Vec<Vec<usize>> = Vec::new();
        let mut change = |chunk: &[usize], used: &mut [u64], by: i64| {
            for &a in chunk {
                used[a] = used[a].wrapping_add_signed(by);
                chunk
                    .iter()
                    .filter(|&&b| b != a)
                    .for_each(|&b| shared[a][b] = shared[a][b].wrapping_add_signed(by));
            }
            shared.clone()
        };
        let mut known = change(&[], &mut used, 0);
        let mut turn = 0u64;
        while used.iter().filter(|&&used| used < columns).count() >= width {
            let chosen = choose(&used, |a, b| known[a][b], width);
            assert!(chosen.iter().all(|&device| used[device] < columns));
            known = change(&chosen, &mut used, 1);
            chunks.push(chosen);
            turn += 1;
            // What is dropped follows no order that the rule knows.
            if forget && turn.is_multiple_of(3) && turn < 20 * columns {
                let gone = chunks.swap_remove((turn * 7919) as usize % chunks.len());
                known = change(&gone, &mut used, -1);
            }
        }
        let pairs = (0..devices).flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| known[a][b]);
        (pairs.collect(), used)
    }

    /// The balance: over many widths each pair shares the mean number of chunks but for three at most, and devices fill
    /// up evenly. So it is after a third of the chunks was dropped in no order, too.
    #[test]
    fn every_pair_of_devices_shares_as_many_chunks() {
        let mut told = vec!["devices width   mean least most".to_owned()];
        for (devices, width) in [
            (3, 2),
            (4, 3),
            (5, 3),
            (7, 3),
            (8, 5),
            (9, 6),
            (11, 6),
            (11, 9),
            (12, 10),
            (14, 10),
            (20, 5),
            (24, 10),
            (32, 10),
            (41, 10),
            (60, 12),
        ] {
            for forget in [false, true] {
                let (pairs, used) = fill(devices, width, 128, forget);
                let mean = pairs.iter().sum::<u64>() as f64 / pairs.len() as f64;
                let (least, most) = (pairs.iter().min().unwrap(), pairs.iter().max().unwrap());
                if !forget {
                    told.push(format!("{devices:7} {width:5} {mean:6.1} {least:5} {most:4}"));
                }
                let off = (*most as f64 - mean).max(mean - *least as f64);
                assert!(off <= 4.0, "{devices} devices, {width} wide: {least} to {most}, mean {mean}");
                let (emptiest, fullest) = (used.iter().min().unwrap(), used.iter().max().unwrap());
                assert!(fullest - emptiest <= 1 && *fullest == 128, "{used:?}");
            }
        }
        println!("{}", told.join("\n"));
    }

    /// Any choice without the rule is far from that: the test above can tell.
    #[test]
    fn without_the_rule_pairs_are_uneven() {
        let (devices, width) = (11, 6);
        let mut shared = vec![0u64; devices * devices];
        for chunk in 0..234 {
            for a in (0..width).map(|i| (chunk + i) % devices) {
                (0..width).map(|i| (chunk + i) % devices).for_each(|b| shared[a * devices + b] += 1);
            }
        }
        let pairs =
            || (0..devices).flat_map(|a| (0..a).map(move |b| (a, b))).map(|(a, b)| shared[a * devices + b]);
        assert!(pairs().max() > pairs().min().map(|least| 2 * least), "turning by one is no balance");
    }

    #[test]
    fn who_ranks_first_is_chosen_whatever_it_shares() {
        assert_eq!(choose(&[2, 1, 1, 0], |_, _| 0, 3), [3, 1, 2]);
        assert_eq!(choose(&[0, 0, 0], |a, b| u64::from((a, b) == (1, 0)), 2), [0, 2]);
        assert_eq!(choose(&[0, 1], |_, _| 9, 5), [0, 1]);
        assert_eq!(choose::<u8>(&[], |_, _| 0, 2), Vec::<usize>::new());
    }
}
