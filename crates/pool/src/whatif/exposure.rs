//! Which devices hold how much together, and what is lost without some of them: pure counting, no pool.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use geometry::{ColumnSet, Kind, Layout};

/// Evaluations of a chunk's columns that a search through all sets of devices may cost.
const SEARCH_MAX: u64 = 20_000_000;

/// Sets that are looked at closer when there are too many to try all.
const CANDIDATES_MAX: usize = 64;

/// What lies in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stakes {
    /// Bytes of live data.
    pub data: u64,
    /// Bytes of live metadata.
    pub metadata: u64,
}

impl Stakes {
    fn add(&mut self, other: Self) {
        self.data += other.data;
        self.metadata += other.metadata;
    }

    /// Worse is more: without metadata the rest is not found either.
    const fn weight(&self) -> (bool, u64, u64) {
        (self.metadata > 0, self.data, self.metadata)
    }
}

/// What a set of devices takes along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// What could not be read any more.
    pub lost: Stakes,
    /// What could be, but would not survive any further loss.
    pub bare: Stakes,
}

impl Loss {
    /// Counts what survives so many further losses.
    fn add(&mut self, redundancy: Option<u16>, stakes: Stakes) {
        match redundancy {
            None => self.lost.add(stakes),
            Some(0) => self.bare.add(stakes),
            Some(_) => {}
        }
    }
}

/// The sets of so many devices that take most along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worst {
    /// Sets that there are of this size.
    pub sets: u128,
    /// Of these, how many lose something; none if that is not known.
    pub fatal: Option<u128>,
    /// Whether no other set can be worse.
    pub exact: bool,
    /// The worst, worst first: device numbers rising.
    pub worst: Vec<(Vec<usize>, Loss)>,
}

/// Chunks that lie alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Alike {
    layout: Layout,
    /// For each column the devices that hold it, rising: it is gone without all of them.
    columns: Vec<Vec<usize>>,
}

impl Alike {
    fn redundancy(&self, failed: &[bool]) -> Option<u16> {
        let mut gone = ColumnSet::new();
        for (index, devices) in self.columns.iter().enumerate() {
            if devices.iter().all(|&device| failed[device]) {
                gone.insert(index as u16);
            }
        }
        self.layout.redundancy(&gone)
    }

    /// Columns that stand in for each other, and how many of them may be gone at most.
    fn mirrors(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (all, tolerance) = (self.columns.len(), usize::from(self.layout.tolerance()));
        let width = match self.layout.kind() {
            Kind::StripedCopies { copies } => usize::from(copies),
            Kind::Copies | Kind::Stripe | Kind::Parity { .. } => all,
        };
        (0..all).step_by(width.max(1)).map(move |first| (first..(first + width).min(all), tolerance))
    }
}

/// All chunks, by how they lie.
#[derive(Clone, Debug, Default)]
pub struct Exposure {
    /// Devices there are, numbered from 0.
    devices: usize,
    /// In no order: sums and maxima are all that is asked of them.
    alike: HashMap<Alike, Stakes>,
}

impl Exposure {
    /// Nothing yet, on so many devices.
    pub fn new(devices: usize) -> Self {
        Self { devices, ..Self::default() }
    }

    /// Adds what lies in such a layout on these devices, by column. A column that no device holds is gone already.
    ///
    /// # Panics
    /// A device has a number that there is not: the caller counted them.
    pub fn add(&mut self, layout: Layout, mut columns: Vec<Vec<usize>>, stakes: Stakes) {
        for devices in &mut columns {
            devices.sort_unstable();
            devices.dedup();
            assert!(devices.last().is_none_or(|&last| last < self.devices), "no such device");
        }
        self.alike.entry(Alike { layout, columns }).or_default().add(stakes);
    }

    /// What is lost without these devices.
    pub fn loss(&self, devices: &[usize]) -> Loss {
        let mut failed = vec![false; self.devices];
        devices.iter().for_each(|&device| failed[device] = true);
        let mut loss = Loss::default();
        for (alike, stakes) in &self.alike {
            loss.add(alike.redundancy(&failed), *stakes);
        }
        loss
    }

    /// The `most` worst sets of `count` devices, of those that lose something beyond what is lost already.
    pub fn worst(&self, count: usize, most: usize) -> Worst {
        let sets = combinations(self.devices, count);
        let already = self.loss(&[]).lost;
        let index = Index::new(self);
        if sets.saturating_mul(self.alike.len() as u128) <= u128::from(SEARCH_MAX) {
            let mut found = Vec::new();
            let mut fatal = 0;
            each_choice(self.devices, count, |set| {
                let loss = index.loss(set);
                if loss.lost != already {
                    fatal += 1;
                    found.push((set.to_vec(), loss));
                    if found.len() > 2 * most.max(CANDIDATES_MAX) {
                        keep_worst(&mut found, most);
                    }
                }
            });
            keep_worst(&mut found, most);
            return Worst { sets, fatal: Some(fatal), exact: true, worst: found };
        }
        let minimal = self.minimal_losses(count);
        // Of sets that are no larger than they must be, each loses what it is the least for, and nothing else.
        let exact = minimal.keys().all(|set| set.len() == count);
        let mut candidates: Vec<(&Vec<usize>, u64)> =
            minimal.iter().map(|(set, &bytes)| (set, bytes)).collect();
        candidates.sort_unstable_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
        let grown = |(set, _): &(&Vec<usize>, u64)| index.grown((*set).clone(), count, &minimal);
        let sets_tried: BTreeSet<Vec<usize>> =
            candidates.iter().take(CANDIDATES_MAX.max(most)).map(grown).collect();
        let mut found: Vec<_> = sets_tried
            .into_iter()
            .map(|set| (index.loss(&set), set))
            .map(|(loss, set)| (set, loss))
            .collect();
        keep_worst(&mut found, most);
        let fatal = if exact { Some(minimal.len() as u128) } else { None };
        Worst { sets, fatal, exact, worst: found }
    }

    /// Sets of up to `count` devices without any of which something more would be readable, and the bytes that each is
    /// the least for.
    fn minimal_losses(&self, count: usize) -> HashMap<Vec<usize>, u64> {
        let mut found: HashMap<Vec<usize>, u64> = HashMap::new();
        for (alike, stakes) in &self.alike {
            for (columns, tolerance) in alike.mirrors() {
                let (gone, there): (Vec<usize>, Vec<usize>) =
                    columns.partition(|&column| alike.columns[column].is_empty());
                let Some(more) = (tolerance + 1).checked_sub(gone.len()).filter(|&more| more > 0) else {
                    continue;
                };
                // Where no device holds two of the columns, so many columns are at least as many devices.
                if more > count && are_apart(there.iter().flat_map(|&column| &alike.columns[column])) {
                    continue;
                }
                let mut of_these = Vec::new();
                each_choice(there.len(), more, |choice| {
                    let mut set: Vec<usize> = choice
                        .iter()
                        .flat_map(|&index| alike.columns[there[index]].iter().copied())
                        .collect();
                    set.sort_unstable();
                    set.dedup();
                    if set.len() <= count {
                        of_these.push(set);
                    }
                });
                // Columns of several homes can come to the same set.
                of_these.sort_unstable();
                of_these.dedup();
                for set in of_these {
                    *found.entry(set).or_default() += stakes.data + stakes.metadata;
                }
            }
        }
        found
    }
}

/// What lies on which device, for sets of few among many.
struct Index<'a> {
    alike: Vec<(&'a Alike, Stakes)>,
    /// What each of them survives without any of the devices failing.
    survives: Vec<Option<u16>>,
    /// For each device, what has a column there.
    on_device: Vec<Vec<usize>>,
    /// What is lost without any of the devices failing.
    already: Loss,
}

impl<'a> Index<'a> {
    fn new(exposure: &'a Exposure) -> Self {
        let alike: Vec<(&Alike, Stakes)> =
            exposure.alike.iter().map(|(alike, stakes)| (alike, *stakes)).collect();
        let mut on_device = vec![Vec::new(); exposure.devices];
        for (number, (alike, _)) in alike.iter().enumerate() {
            for &device in alike.columns.iter().flatten() {
                // Two columns on one device, as of dup, come one after the other.
                if on_device[device].last() != Some(&number) {
                    on_device[device].push(number);
                }
            }
        }
        let none = vec![false; exposure.devices];
        let survives = alike.iter().map(|(alike, _)| alike.redundancy(&none)).collect();
        Self { alike, survives, on_device, already: exposure.loss(&[]) }
    }

    /// What has a column on one of the devices.
    fn touched(&self, devices: &[usize]) -> Vec<usize> {
        let mut touched: Vec<usize> =
            devices.iter().flat_map(|&device| self.on_device[device].iter().copied()).collect();
        // Those of one device are in order and come once.
        if devices.len() > 1 {
            touched.sort_unstable();
            touched.dedup();
        }
        touched
    }

    /// As [`Exposure::loss`].
    fn loss(&self, devices: &[usize]) -> Loss {
        let mut failed = vec![false; self.on_device.len()];
        devices.iter().for_each(|&device| failed[device] = true);
        let (mut before, mut after) = (Loss::default(), Loss::default());
        for number in self.touched(devices) {
            let (alike, stakes) = self.alike[number];
            before.add(self.survives[number], stakes);
            after.add(alike.redundancy(&failed), stakes);
        }
        let changed = |all: Stakes, before: Stakes, after: Stakes| Stakes {
            data: all.data - before.data + after.data,
            metadata: all.metadata - before.metadata + after.metadata,
        };
        Loss {
            lost: changed(self.already.lost, before.lost, after.lost),
            bare: changed(self.already.bare, before.bare, after.bare),
        }
    }

    /// A set with more devices, up to `count`: each the one that takes most along with those before it.
    fn grown(&self, mut set: Vec<usize>, count: usize, minimal: &HashMap<Vec<usize>, u64>) -> Vec<usize> {
        let mut failed = vec![false; self.on_device.len()];
        set.iter().for_each(|&device| failed[device] = true);
        while set.len() < count {
            // What a device takes along alone, and what together with those that are in the set.
            let alone = |device: usize| minimal.get(&[device][..]).copied().unwrap_or(0);
            let mut gains: Vec<u64> = (0..failed.len()).map(alone).collect();
            for (alike, stakes) in self.touched(&set).into_iter().map(|number| self.alike[number]) {
                if alike.redundancy(&failed) != Some(0) {
                    continue;
                }
                let others: BTreeSet<usize> = alike.columns.iter().flatten().copied().collect();
                for other in others {
                    if std::mem::replace(&mut failed[other], true) {
                        continue;
                    }
                    if alike.redundancy(&failed).is_none() {
                        gains[other] += stakes.data + stakes.metadata;
                    }
                    failed[other] = false;
                }
            }
            let free = (0..failed.len()).filter(|&device| !failed[device]);
            let Some(next) = free.max_by_key(|&device| (gains[device], std::cmp::Reverse(device))) else {
                break;
            };
            failed[next] = true;
            set.push(next);
        }
        set.sort_unstable();
        set
    }
}

/// Whether none of the devices comes twice.
fn are_apart<'a>(devices: impl Iterator<Item = &'a usize>) -> bool {
    let mut devices: Vec<usize> = devices.copied().collect();
    devices.sort_unstable();
    devices.is_sorted_by(|a, b| a < b)
}

/// Keeps the worst, worst first.
fn keep_worst(found: &mut Vec<(Vec<usize>, Loss)>, most: usize) {
    found.sort_by(|a, b| b.1.lost.weight().cmp(&a.1.lost.weight()).then_with(|| a.0.cmp(&b.0)));
    found.truncate(most);
}

/// How many sets of `count` there are of so many.
pub fn combinations(all: usize, count: usize) -> u128 {
    if count > all {
        return 0;
    }
    let mut sets = 1_u128;
    for step in 0..count.min(all - count) as u128 {
        // The product of so many factors divides by their number's factorial.
        sets = match sets.checked_mul(all as u128 - step) {
            Some(product) => product / (step + 1),
            None => return u128::MAX,
        };
    }
    sets
}

/// Calls for each set of `count` numbers below `all`, rising.
fn each_choice(all: usize, count: usize, mut call: impl FnMut(&[usize])) {
    if count > all {
        return;
    }
    let mut choice: Vec<usize> = (0..count).collect();
    loop {
        call(&choice);
        // The last number that can be raised.
        let Some(at) = (0..count).rev().find(|&at| choice[at] < all - count + at) else { return };
        choice[at] += 1;
        for next in at + 1..count {
            choice[next] = choice[next - 1] + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use geometry::Profile;
    use proptest::prelude::*;

    use super::*;

    /// Every set of `count` of the devices with what it loses, worst first: the slow way, a chunk at a time.
    fn model(
        devices: usize,
        chunks: &[(Layout, Vec<usize>, Stakes)],
        count: usize,
    ) -> Vec<(Vec<usize>, Stakes)> {
        let lost_by = |set: &[usize]| {
            let mut lost = Stakes::default();
            for (layout, columns, stakes) in chunks {
                let gone = (0..columns.len() as u16).filter(|&c| set.contains(&columns[usize::from(c)]));
                if layout.redundancy(&gone.collect()).is_none() {
                    lost.add(*stakes);
                }
            }
            lost
        };
        let mut found = Vec::new();
        each_choice(devices, count, |set| found.push((set.to_vec(), lost_by(set))));
        found.retain(|(_, lost)| *lost != Stakes::default());
        found.sort_by(|a, b| b.1.weight().cmp(&a.1.weight()).then_with(|| a.0.cmp(&b.0)));
        found
    }

    fn a_layout() -> impl Strategy<Value = Layout> {
        let profiles = [
            Profile::Single,
            Profile::Raid0,
            Profile::Raid1,
            Profile::Raid1c3,
            Profile::Raid10,
            Profile::Raid5,
            Profile::Raid6,
        ];
        (proptest::sample::select(profiles.to_vec()), 4_u16..7)
            .prop_map(|(profile, columns)| profile.layout(columns, 65_536).unwrap())
    }

    fn chunks(devices: usize) -> impl Strategy<Value = Vec<(Layout, Vec<usize>, Stakes)>> {
        let order = Just((0..devices).collect::<Vec<_>>()).prop_shuffle();
        let chunk =
            (a_layout(), order, 1_u64..100, any::<bool>()).prop_map(|(layout, order, bytes, is_data)| {
                let columns = order[..usize::from(layout.columns())].to_vec();
                let stakes = if is_data {
                    Stakes { data: bytes, metadata: 0 }
                } else {
                    Stakes { data: 0, metadata: bytes }
                };
                (layout, columns, stakes)
            });
        proptest::collection::vec(chunk, 1..8)
    }

    proptest! {
        #[test]
        fn all_sets_are_tried(chunks in chunks(8), count in 1_usize..5) {
            let mut exposure = Exposure::new(8);
            for (layout, columns, stakes) in &chunks {
                exposure.add(*layout, columns.iter().map(|&device| vec![device]).collect(), *stakes);
            }
            let all = model(8, &chunks, count);
            let found = exposure.worst(count, 5);
            prop_assert_eq!(found.fatal, Some(all.len() as u128));
            let found: Vec<_> = found.worst.into_iter().map(|(set, loss)| (set, loss.lost)).collect();
            prop_assert_eq!(&found[..], &all[..all.len().min(5)]);
            let index = Index::new(&exposure);
            for (set, _) in &all {
                prop_assert_eq!(index.loss(set), exposure.loss(set));
            }
            // The least sets are what a search among too many goes by: each loses something, and every loss has one in it.
            let minimal = exposure.minimal_losses(count);
            for set in minimal.keys() {
                prop_assert!(exposure.loss(set).lost != Stakes::default());
            }
            for (set, _) in &all {
                prop_assert!(minimal.keys().any(|least| least.iter().all(|device| set.contains(device))));
            }
        }
    }

    #[test]
    fn as_many_sets_as_there_are() {
        assert_eq!(combinations(24, 3), 2024);
        assert_eq!(combinations(5, 0), 1);
        assert_eq!(combinations(3, 4), 0);
        assert_eq!(combinations(1_000, 3), 166_167_000);
        assert_eq!(combinations(1_000, 500), u128::MAX);
        let mut sets = Vec::new();
        each_choice(4, 2, |set| sets.push(set.to_vec()));
        assert_eq!(sets, [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    }

    #[test]
    fn a_column_with_a_second_home_needs_both_to_fail() {
        let mut exposure = Exposure::new(3);
        let layout = Profile::Single.layout(1, 65_536).unwrap();
        exposure.add(layout, vec![vec![2, 0]], Stakes { data: 7, metadata: 0 });
        assert_eq!(exposure.loss(&[0]).lost.data, 0);
        assert_eq!(exposure.loss(&[0, 2]).lost.data, 7);
        assert_eq!(exposure.worst(2, 5).worst.len(), 1);
        // One that nobody holds is lost as it is, and no set of devices loses it once more.
        exposure.add(layout, vec![vec![]], Stakes { data: 5, metadata: 0 });
        assert_eq!(exposure.loss(&[]).lost.data, 5);
        assert_eq!(exposure.worst(1, 5).fatal, Some(0));
    }

    /// A thousand disks with copies on any two of them: too many sets of three to try.
    #[test]
    fn copies_all_over_the_place() {
        let layout = Profile::Raid1.layout(2, 65_536).unwrap();
        let mut exposure = Exposure::new(1_000);
        let mut at = 1_u64;
        for _ in 0..64 * 1_024 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = ((at >> 33) as usize % 1_000, (at >> 43) as usize % 999);
            exposure.add(
                layout,
                vec![vec![a], vec![b + usize::from(b >= a)]],
                Stakes { data: 1 << 30, metadata: 0 },
            );
        }
        let pairs = exposure.worst(2, 5);
        assert!(pairs.exact && pairs.worst.len() == 5);
        let first = &pairs.worst[0];
        assert_eq!(exposure.loss(&first.0), first.1);
        let three = exposure.worst(3, 5);
        assert!(!three.exact && three.fatal.is_none() && three.worst.len() == 5);
        assert!(three.worst[0].1.lost.data >= first.1.lost.data);
    }
}
