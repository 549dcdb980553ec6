//! Arrays of md and sets of RAIDframe around given contents, as image files.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use device::Rng;
use formats::raidframe::{ByteOrder, LABEL_OFFSET, Label, Version};
use geometry::md::{Geometry, Place, Shape};
use rescue::{Candidate, Slot};

/// How an array is made.
#[derive(Clone, Debug)]
pub struct Made {
    pub shape: Shape,
    pub chunk: u64,
    pub data_offset: u64,
    /// Bytes of each member.
    pub size: u64,
    pub uuid: [u8; 16],
    /// The members by slot.
    pub paths: Vec<PathBuf>,
    /// Members have component labels of RAIDframe, not superblocks.
    pub raidframe: bool,
}

/// Member sizes that hold `contents` bytes.
pub fn member_size(shape: Shape, chunk: u64, members: usize, contents: u64) -> Option<u64> {
    let mut size = chunk.max(4096) * 2;
    loop {
        if Geometry::new(shape, chunk, &vec![size; members]).ok()?.size() >= contents {
            return Some(size);
        }
        size += (size / 16 / chunk.max(4096)).max(1) * chunk.max(4096);
    }
}

impl Made {
    /// Writes the members of an array with these contents.
    pub fn write(&self, contents: &[u8]) {
        let members = self.paths.len();
        let geometry = Geometry::new(self.shape, self.chunk, &vec![self.size; members]).unwrap();
        let mut bytes = vec![vec![0; self.size as usize]; members];
        let mut at = 0;
        let mut stripes = Vec::new();
        while at < contents.len() {
            let Some((place, run)) = geometry.locate(at as u64) else { break };
            let step = run.min((contents.len() - at) as u64) as usize;
            let (spots, row) = match place {
                Place::Copies(spots) => (spots, None),
                Place::Row { spot, row } => (vec![spot], Some((row.clone(), spot.offset / self.chunk))),
            };
            for spot in spots {
                bytes[usize::from(spot.member)][spot.offset as usize..][..step]
                    .copy_from_slice(&contents[at..at + step]);
            }
            stripes.extend(row.filter(|(_, stripe)| stripes.last().is_none_or(|(_, last)| last != stripe)));
            at += step;
        }
        for (row, stripe) in stripes {
            let range = (stripe * self.chunk) as usize..((stripe + 1) * self.chunk) as usize;
            let zeros = vec![0; range.len()];
            let mut columns = vec![&zeros[..]; row.columns()];
            for (index, member) in row.data.iter().enumerate() {
                columns[row.column(index, *member)] = &bytes[usize::from(*member)][range.clone()];
            }
            let count = 1 + usize::from(row.q.is_some());
            let mut parity = vec![vec![0; range.len()]; count];
            let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            parity::generate(&columns, &mut out).unwrap();
            for (member, parity) in [Some(row.p), row.q].into_iter().flatten().zip(parity) {
                bytes[usize::from(member)][range.clone()].copy_from_slice(&parity);
            }
        }
        for (path, bytes) in self.paths.iter().zip(&bytes) {
            let file = File::create(path).unwrap();
            // Some disks are a little longer than what is used of them.
            file.set_len(self.data_offset + self.size + (1 << 20)).unwrap();
            for (index, unit) in bytes.chunks(65536).enumerate() {
                if unit.iter().any(|byte| *byte != 0) {
                    file.write_all_at(unit, self.data_offset + index as u64 * 65536).unwrap();
                }
            }
        }
    }

    /// Writes a component label on the member in this slot.
    fn label(&self, slot: usize, counter: u64) {
        let letter = match self.shape {
            Shape::Raid1 if self.paths.len() != 2 => 'N',
            Shape::Raid1 | Shape::Raid10(_) => '1',
            shape => char::from_digit(shape.codes().0.cast_unsigned(), 10).unwrap(),
        };
        let file = File::options().write(true).open(&self.paths[slot]).unwrap();
        let label = Label {
            version: Version::V2,
            byte_order: if self.uuid[5].is_multiple_of(4) { ByteOrder::Big } else { ByteOrder::Little },
            serial_number: i32::from_le_bytes([self.uuid[0], self.uuid[1], self.uuid[2], 1]),
            mod_counter: i32::try_from(counter).unwrap(),
            row: 0,
            column: slot as u32,
            num_rows: 1,
            num_columns: self.paths.len() as u32,
            clean: self.uuid[3].is_multiple_of(2),
            status: 0,
            sectors_per_unit: (self.chunk / 512) as u32,
            units_per_parity_unit: 1,
            units_per_recon_unit: 1,
            parity_config: letter.into(),
            max_outstanding: 100,
            block_size: 512,
            num_blocks: self.size / 512,
            partition_size: file.metadata().unwrap().len() / 512,
            map_mod_counter: 0,
            map_flags: 0,
            map_tick_ms: 0,
            map_cooldown: 0,
            map_regions: 0,
            future_use: [0; 28],
            autoconfigure: 1,
            root_partition: 0,
            last_unit: u32::from(self.uuid[4] % 4),
            config_order: 0,
            future_use2: [0; 42],
        };
        file.write_all_at(&label.encode(), LABEL_OFFSET).unwrap();
    }

    /// Zeros what says how the member in this slot belongs to the others.
    pub fn forget(&self, slot: usize) {
        let file = File::options().write(true).open(&self.paths[slot]).unwrap();
        file.write_all_at(&[0; 4096], if self.raidframe { LABEL_OFFSET } else { 4096 }).unwrap();
    }

    /// Writes a 1.2 superblock on the member in this slot, or a component label; `roles` says who the member believes is there.
    pub fn superblock(&self, slot: usize, events: u64, roles: &[u16]) {
        if self.raidframe {
            return self.label(slot, events);
        }
        let (level, layout) = self.shape.codes();
        let mut block = vec![0; 512];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        put(0, &0xa92b_4efc_u32.to_le_bytes());
        put(4, &1_u32.to_le_bytes());
        put(8, &(if level == 0 { 0x1000_u32 } else { 0 }).to_le_bytes());
        put(16, &self.uuid);
        put(32, b"made:0");
        put(72, &level.to_le_bytes());
        put(76, &layout.to_le_bytes());
        put(80, &(if level == 0 { 0 } else { self.size / 512 }).to_le_bytes());
        put(88, &((self.chunk / 512) as u32).to_le_bytes());
        put(92, &(self.paths.len() as u32).to_le_bytes());
        put(128, &(self.data_offset / 512).to_le_bytes());
        put(136, &(self.size / 512).to_le_bytes());
        put(144, &8_u64.to_le_bytes());
        put(160, &(slot as u32).to_le_bytes());
        put(168, &[slot as u8 + 1; 8]);
        put(176, &self.uuid[..8]);
        put(192, &(1000 + events).to_le_bytes());
        put(200, &events.to_le_bytes());
        put(208, &u64::MAX.to_le_bytes());
        put(220, &128_u32.to_le_bytes());
        for number in 0..128 {
            put(256 + 2 * number, &roles.get(number).copied().unwrap_or(0xffff).to_le_bytes());
        }
        let words = block.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
        let sum: u64 = words.sum();
        let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
        block[216..220].copy_from_slice(&sum.to_le_bytes());
        let file = File::options().write(true).open(&self.paths[slot]).unwrap();
        file.write_all_at(&block, 4096).unwrap();
    }

    /// Does what a kernel does with a RAID 6 whose parity does not fit: computes it anew from whatever is there.
    pub fn rebuild(&self) {
        let geometry = Geometry::new(self.shape, self.chunk, &vec![self.size; self.paths.len()]).unwrap();
        let open = |path: &PathBuf| File::options().read(true).write(true).open(path).unwrap();
        let files: Vec<File> = self.paths.iter().map(open).collect();
        for stripe in 0..self.size / self.chunk {
            let row = geometry.row(stripe).unwrap();
            let at = self.data_offset + stripe * self.chunk;
            let zeros = vec![0; self.chunk as usize];
            let mut data = vec![zeros.clone(); row.columns()];
            for (index, member) in row.data.iter().enumerate() {
                files[usize::from(*member)].read_exact_at(&mut data[row.column(index, *member)], at).unwrap();
            }
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut parity = vec![zeros; 1 + usize::from(row.q.is_some())];
            let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            parity::generate(&data, &mut out).unwrap();
            for (member, parity) in [Some(row.p), row.q].into_iter().flatten().zip(parity) {
                files[usize::from(member)].write_all_at(&parity, at).unwrap();
            }
        }
    }

    /// What a plan ought to say, with the members that are there and not stale.
    pub fn candidate(&self, stale: &[usize]) -> Candidate {
        let (level, layout) = self.shape.codes();
        let slot = |(number, path): (usize, &PathBuf)| {
            let map = map_of(path);
            (path.exists() && !stale.contains(&number)).then(|| Slot {
                path: path.clone(),
                map: map.exists().then_some(map),
                data_offset: self.data_offset,
                size: self.size,
                valid: None,
                new_data_offset: None,
                clean_by: None,
                doubtful: Vec::new(),
            })
        };
        Candidate {
            array: "truth".to_owned(),
            score: 0,
            reasons: Vec::new(),
            level,
            layout,
            shape: String::new(),
            chunk: self.chunk,
            slots: self.paths.iter().enumerate().map(slot).collect(),
            left_out: Vec::new(),
            reshape: None,
            logs: None,
            check_parity: false,
            overwritten_by: None,
        }
    }
}

/// The map beside an image.
pub fn map_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.map", path.display()))
}

/// Makes ranges of a member unreadable: zeros in the image, and a map.
pub fn make_bad(path: &Path, ranges: &[(u64, u64)]) {
    let file = File::options().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut text = "0 + 1\n".to_owned();
    let mut at = 0;
    for (start, length) in sorted {
        let start = start.max(at);
        let end = (start + length).min(size);
        if start >= end {
            continue;
        }
        if start > at {
            writeln!(text, "{at:#x} {:#x} +", start - at).unwrap();
        }
        writeln!(text, "{start:#x} {:#x} -", end - start).unwrap();
        file.write_all_at(&vec![0; (end - start) as usize], start).unwrap();
        at = end;
    }
    if at < size {
        writeln!(text, "{at:#x} {:#x} +", size - at).unwrap();
    }
    std::fs::write(map_of(path), text).unwrap();
}

/// Names that say nothing.
pub fn names(folder: &Path, rng: &mut Rng, count: usize, tag: &str) -> Vec<PathBuf> {
    let mut numbers: Vec<u64> = (0..count as u64).collect();
    rng.shuffle(&mut numbers);
    numbers.iter().map(|number| folder.join(format!("{number:02}{tag}.img"))).collect()
}
