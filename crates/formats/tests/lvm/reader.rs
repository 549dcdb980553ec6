//! Reads logical volumes by their maps, as simply as possible.

use device::{BlockDevice, MemoryDevice};
use formats::lvm::{Group, Lvm, Mapping, Place, PvScan, RaidMeta, RaidSet, SnapshotStore, ThinMetadata};
use geometry::md::{Geometry, Place as Spot, Shape};

use crate::common::image;

/// A group and its devices.
pub(crate) struct Lab {
    pub(crate) devices: Vec<MemoryDevice>,
    pub(crate) scans: Vec<PvScan>,
    pub(crate) lvm: Lvm,
}

impl Lab {
    pub(crate) fn new(devices: Vec<MemoryDevice>) -> Self {
        let scans: Vec<PvScan> =
            devices.iter().filter_map(|device| PvScan::read(device).expect("memory has a size")).collect();
        assert_eq!(scans.len(), devices.len(), "each is a physical volume");
        let lvm = Lvm::assemble(&scans);
        Self { devices, scans, lvm }
    }

    /// The group with volumes of all kinds, its disks out of order.
    pub(crate) fn all_kinds() -> Self {
        Self::new(["d", "a", "e", "b", "c"].map(|disk| image(&format!("lvm-lab-{disk}"))).into())
    }

    pub(crate) fn group(&self) -> &Group {
        assert_eq!(self.lvm.groups.len(), 1);
        &self.lvm.groups[0]
    }

    pub(crate) fn find(&self, name: &str) -> usize {
        self.group().volumes.find(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The whole volume, as its users see it.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let lv = self.find(name);
        let Some(snapshot) = self.group().snapshot(lv) else { return self.plain(lv) };
        let (mut content, store) = (self.plain(snapshot.origin), self.plain(lv));
        let exceptions = SnapshotStore::read(&MemoryDevice::from_bytes("store", &store)).unwrap();
        assert!(exceptions.valid && exceptions.problems.is_empty());
        assert_eq!(exceptions.chunk, snapshot.chunk);
        let mut at = 0;
        while at < content.len() {
            let (stored, run) = exceptions.locate(at as u64);
            let run = run.min((content.len() - at) as u64) as usize;
            if let Some(stored) = stored {
                content[at..at + run].copy_from_slice(&store[stored as usize..][..run]);
            }
            at += run;
        }
        content
    }

    fn plain(&self, lv: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.group().volumes.logical[lv].size as usize];
        self.read(lv, 0, &mut bytes);
        bytes
    }

    fn read(&self, lv: usize, offset: u64, mut buffer: &mut [u8]) {
        let group = self.group();
        let end = offset + buffer.len() as u64;
        for run in group.volumes.map(lv, offset..end) {
            let (part, rest) = buffer.split_at_mut(run.length as usize);
            buffer = rest;
            match run.place {
                Place::Physical { pv, offset } => {
                    self.devices[group.members[pv].unwrap()].read(offset, part).unwrap();
                }
                Place::Segment { lv, segment, offset } => {
                    self.special(&group.volumes.logical[lv].segments[segment].mapping, offset, part);
                }
                Place::Zero => part.fill(0),
                Place::Nothing => panic!("nothing at {}", run.start),
            }
        }
        assert!(buffer.is_empty(), "the runs cover all of the range");
    }

    fn special(&self, mapping: &Mapping, offset: u64, buffer: &mut [u8]) {
        match mapping {
            Mapping::Mirror { copies, log, region } => {
                assert_eq!((log, *region), (&None, 128 << 10));
                let read = |copy: &formats::lvm::Extent| {
                    let formats::lvm::Extent::Logical { lv, offset: start } = copy else {
                        panic!("{copy:?}")
                    };
                    let mut bytes = vec![0; buffer.len()];
                    self.read(*lv, start + offset, &mut bytes);
                    bytes
                };
                let copies: Vec<Vec<u8>> = copies.iter().map(read).collect();
                assert!(copies.len() == 2 && copies[0] == copies[1]);
                buffer.copy_from_slice(&copies[0]);
            }
            Mapping::Raid(set) => self.raid(set, offset, buffer),
            Mapping::Thin { pool, device, external: None } => self.thin(*pool, *device, offset, buffer),
            other => panic!("{other:?} has no bytes of its own"),
        }
    }

    pub(crate) fn raid_meta(&self, set: &RaidSet) -> Vec<Option<RaidMeta>> {
        let read = |lv: usize| {
            let mut bytes = vec![0; RaidMeta::LENGTH];
            self.read(lv, 0, &mut bytes);
            RaidMeta::parse(&bytes, "rmeta", 0).unwrap()
        };
        set.members.iter().map(|image| image.meta.and_then(read)).collect()
    }

    fn raid(&self, set: &RaidSet, offset: u64, buffer: &mut [u8]) {
        let images: Vec<usize> = set.members.iter().map(|image| image.data.unwrap()).collect();
        let sizes: Vec<u64> = images.iter().map(|lv| self.group().volumes.logical[*lv].size).collect();
        let shape = Shape::from_codes(set.level, set.layout).unwrap();
        let geometry = Geometry::new(shape, set.chunk, &sizes).unwrap();
        let mut done = 0;
        while done < buffer.len() {
            let (place, run) = geometry.locate(offset + done as u64).expect("within the set");
            let step = run.min((buffer.len() - done) as u64) as usize;
            let spots = match place {
                Spot::Copies(spots) => spots,
                Spot::Row { spot, .. } => vec![spot],
            };
            let copies: Vec<Vec<u8>> = spots
                .iter()
                .map(|spot| {
                    let mut bytes = vec![0; step];
                    self.read(images[usize::from(spot.member)], spot.offset, &mut bytes);
                    bytes
                })
                .collect();
            assert!(copies.iter().all(|copy| *copy == copies[0]), "all copies are equal");
            buffer[done..done + step].copy_from_slice(&copies[0]);
            done += step;
        }
    }

    /// The pool's metadata, in memory.
    pub(crate) fn pool(&self, pool: usize) -> (MemoryDevice, ThinMetadata, usize, u64) {
        let Mapping::ThinPool { data, metadata, chunk, .. } =
            self.group().volumes.logical[pool].segments[0].mapping
        else {
            panic!("no pool")
        };
        let device = MemoryDevice::from_bytes("tmeta", &self.plain(metadata));
        let superblock = ThinMetadata::open(&device).unwrap();
        (device, superblock, data, chunk)
    }

    fn thin(&self, pool: usize, number: u32, offset: u64, buffer: &mut [u8]) {
        let (metadata, superblock, data, chunk) = self.pool(pool);
        assert_eq!((superblock.chunk, offset), (chunk, 0), "tests read whole thin volumes");
        let (devices, damage) = superblock.devices(&metadata);
        assert!(damage.is_empty(), "{damage:?}");
        let device = devices.iter().find(|device| device.number == number).expect("it is in the pool");
        let mut runs = Vec::new();
        let damage = superblock.mappings(&metadata, device, 0..u64::MAX, &mut |run| runs.push(run));
        assert!(damage.is_empty(), "{damage:?}");
        assert_eq!(runs.iter().map(|run| run.count).sum::<u64>(), device.mapped_blocks.unwrap());
        buffer.fill(0);
        for run in runs {
            let at = (run.block * chunk) as usize;
            self.read(data, run.data * chunk, &mut buffer[at..at + (run.count * chunk) as usize]);
            assert_eq!(superblock.lookup(&metadata, device, run.block).unwrap(), Some(run.data));
        }
    }
}
