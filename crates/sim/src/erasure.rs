//! All erasures: every pattern of lost disks up to what a layout bears, for every width, through the real read path.
//!
//! What must come back is known from the model, which has nothing to do with parity.

use std::collections::BTreeSet;

use device::Rng;
use geometry::Profile;
use pool::spec::{Draid, GroupKind, ImportOptions, VolumeSpec};

use crate::program::Setup;
use crate::run::{Failure, Run};
use crate::verify::observe;
use crate::world::options;

/// Every layout with its width and the losses that it bears.
fn layouts(widest: usize) -> Vec<(Setup, usize)> {
    let mut all = Vec::new();
    for parity in 1..=3u8 {
        for width in usize::from(parity) + 1..=widest {
            let groups = vec![(GroupKind::Raidz(parity), vec![64; width])];
            all.push((Setup { groups, data: None, metadata: None }, usize::from(parity)));
        }
    }
    for (parity, data, spares, children) in
        [(1, 2, 0, 5), (1, 1, 1, 4), (2, 2, 1, 6), (2, 3, 0, 7), (3, 2, 0, 7), (3, 1, 2, 8)]
    {
        if children <= widest {
            let kind = GroupKind::Draid(Draid { parity, data, spares });
            let groups = vec![(kind, vec![64; children])];
            all.push((Setup { groups, data: None, metadata: None }, usize::from(parity)));
        }
    }
    for width in 2..=6 {
        let groups = vec![(GroupKind::Mirror, vec![64; width])];
        all.push((Setup { groups, data: None, metadata: None }, width - 1));
    }
    let plain = [
        (Profile::Raid1, Profile::Raid1, 1),
        (Profile::Raid1c3, Profile::Raid1c3, 2),
        (Profile::Raid1c4, Profile::Raid1c4, 3),
        (Profile::Raid10, Profile::Raid1, 1),
        (Profile::Raid5, Profile::Raid1, 1),
        (Profile::Raid6, Profile::Raid1c3, 2),
    ];
    for (data, metadata, bears) in plain {
        let least = usize::from(data.min_devices().max(metadata.min_devices()));
        for width in least..=widest {
            let groups = vec![(GroupKind::Plain, vec![64; width])];
            all.push((Setup { groups, data: Some(data), metadata: Some(metadata) }, bears));
        }
    }
    all
}

/// Every set of exactly `size` of the numbers below `count`.
fn sets(count: usize, size: usize) -> Vec<BTreeSet<usize>> {
    if size == 0 {
        return vec![BTreeSet::new()];
    }
    let mut all = Vec::new();
    for last in size - 1..count {
        for mut set in sets(last, size - 1) {
            set.insert(last);
            all.push(set);
        }
    }
    all
}

/// Tries all patterns, or a random `sample` of each layout's, for widths up to `widest`; gives how many.
///
/// # Errors
/// A pattern that was not borne.
pub fn all_erasures(widest: usize, sample: Option<usize>, seed: u64) -> Result<u64, Failure> {
    let mut rng = Rng::new(seed);
    let mut tried = 0;
    for (setup, bears) in layouts(widest) {
        let what = |why: Failure| format!("{setup:?}: {why}");
        let mut run = Run::new(&setup, rng.next_u64(), None, false).map_err(what)?;
        let width = setup.groups[0].1.len();
        let spec = VolumeSpec { size: 4 << 20, block_size: 16384, sparse: true, properties: Vec::new() };
        run.create_volume("v", &spec).map_err(what)?;
        let volume = run.model.now().datasets["v"].clone();
        // Some rows of the widest stripe, and a remainder.
        run.write_range("v", &volume, 0, 16384 * (width as u64 * 3 + 1)).map_err(what)?;
        run.flush().map_err(what)?;
        let mut patterns: Vec<BTreeSet<usize>> = (1..=bears).flat_map(|lost| sets(width, lost)).collect();
        if let Some(sample) = sample {
            rng.shuffle(&mut patterns);
            patterns.truncate(sample);
        }
        for lost in patterns {
            let mut copy = run.world.fork(|disk| !lost.contains(&disk));
            let read_only = ImportOptions { read_only: true, ..options() };
            let outcome = copy
                .import(&read_only)
                .map_err(|error| error.to_string())
                .and_then(|mut pool| observe(&mut pool))
                .map(|seen| run.model.now().difference(&seen));
            tried += 1;
            match outcome {
                Ok(None) => {}
                Ok(Some(why)) | Err(why) => return Err(what(format!("without {lost:?}: {why}"))),
            }
        }
    }
    Ok(tried)
}
