//! What an array had written down before it stopped, and not yet carried out: the write journal of RAID 4, 5 and 6, and the
//! partial parity log of RAID 5. Both are replayed in memory; what they change lies over the members, which stay as they are.
//!
//! ```text
//! superblocks --noted--> Logs (a part of the plan) --replay--> for each slot: pages over it --over--> Source, Source, ...
//! ```
//!
//! A stripe that the journal has with its parity is as it says. Of one that it has data of alone (it was a cache then) the data
//! is right, and what is missing is computed from the old rest of the row, to which the old parity still belongs.

mod journal;
mod pages;
mod partial_parity;

use std::path::PathBuf;
use std::sync::Arc;

use device::BlockDevice;
use formats::md::{Role, Superblock};
use geometry::md::Geometry;
use serde::{Deserialize, Serialize};

use crate::{Image, Slot, Source, scan::uuid_text};

use pages::Pages;
pub(crate) use pages::Patched;

/// Bytes that logs speak of at a time.
const PAGE: u64 = 4096;
/// Most of them that are replayed: a journal of 16 GiB without a gap.
const PAGES_MAX: usize = 4 << 20;

/// The logs of an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// The array's UUID, by which they are known.
    pub uuid: String,
    /// Its journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalAt>,
    /// Where each slot's partial parity log is: first byte on the disk, and length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial_parity: Vec<Option<(u64, u64)>>,
}

/// Where a journal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalAt {
    /// The disk or image.
    pub path: PathBuf,
    /// Its ddrescue map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<PathBuf>,
    /// Where the journal begins on it, bytes.
    pub offset: u64,
    /// Its length, after which it begins anew, bytes.
    pub size: u64,
    /// The first block that may not have been carried out, bytes from `offset`.
    pub tail: u64,
}

/// What the superblocks of an array say of its logs, and what is to be told of them.
pub(crate) fn noted(
    images: &[&Image],
    group: &[&(usize, Superblock)],
    newest: &Superblock,
    slots: &[Option<Slot>],
) -> (Option<Logs>, Vec<String>) {
    let mut told = Vec::new();
    let mut logs = Logs { uuid: uuid_text(newest.array_uuid), journal: None, partial_parity: Vec::new() };
    let has_journal = newest.roles.contains(&Role::Journal);
    let journals = || group.iter().filter(|(_, superblock)| superblock.role == Role::Journal);
    let fresh = journals().find(|(_, superblock)| superblock.events.saturating_add(1) >= newest.events);
    if newest.reshape.is_some() && has_journal {
        told.push("its journal is not replayed, since it was being reshaped".to_owned());
    } else if let Some((image, superblock)) = fresh {
        let image = images[*image];
        let start = image.start.saturating_add(superblock.data_offset);
        logs.journal = superblock.journal_tail.map(|tail| JournalAt {
            path: image.path.clone(),
            map: image.map.clone(),
            offset: start,
            size: superblock.data_size / PAGE * PAGE,
            tail: tail.saturating_sub(superblock.data_offset),
        });
    } else if has_journal {
        let why = if journals().next().is_some() { "is out of date" } else { "is not among the disks" };
        told.push(format!("its journal {why}: rows that were being written last may not fit together"));
    }
    let log = |slot: &Option<Slot>| {
        let slot = slot.as_ref().filter(|slot| slot.clean_by.is_none())?;
        let (image, superblock) = group.iter().find(|(image, superblock)| {
            superblock.ppl.is_some()
                && images[*image].path == slot.path
                && images[*image].start.saturating_add(superblock.data_offset) == slot.data_offset
        })?;
        superblock.ppl.map(|(at, length)| (images[*image].start.saturating_add(at), length))
    };
    if newest.ppl.is_some() && newest.reshape.is_none() {
        logs.partial_parity = slots.iter().map(log).collect();
    }
    let any = logs.journal.is_some() || logs.partial_parity.iter().any(Option::is_some);
    (any.then_some(logs), told)
}

/// What the logs change on one member.
#[derive(Debug, Default)]
struct Member {
    /// What fits with the parity there.
    whole: Pages,
    /// Data that parity does not know of.
    ahead: Pages,
}

/// What the logs change.
pub(crate) struct Replayed {
    members: Vec<Member>,
    /// What was replayed, and what could not be, in words.
    pub(crate) told: Vec<String>,
}

/// Replays the logs of an array with this geometry, whose members and whose journal are given.
pub(crate) fn replay(
    logs: &Logs,
    geometry: &Geometry,
    sources: &[Option<Source>],
    disk: Option<&Arc<dyn BlockDevice>>,
) -> Replayed {
    let members = sources.iter().map(|_| Member::default()).collect();
    let mut replayed = Replayed { members, told: Vec::new() };
    let Some(uuid) = bytes_of(&logs.uuid).filter(|_| geometry.row(0).is_some()) else {
        replayed
            .told
            .push("its logs are not replayed: only RAID 4, 5 and 6 of known UUID have any".to_owned());
        return replayed;
    };
    if let (Some(at), Some(disk)) = (&logs.journal, disk) {
        let told = journal::replay(at, &uuid, geometry, disk, &mut replayed.members);
        replayed.told.push(told);
    }
    for (slot, (log, source)) in logs.partial_parity.iter().zip(sources).enumerate() {
        if let (Some(log), Some(source)) = (log, source) {
            let told =
                partial_parity::replay(slot, *log, source, &uuid, geometry, sources, &mut replayed.members);
            replayed.told.extend(told);
        }
    }
    replayed
}

impl Replayed {
    /// The members as the logs make them.
    pub(crate) fn over(self, sources: Vec<Option<Source>>) -> Vec<Option<Source>> {
        let over = |(source, member): (Option<Source>, Member)| {
            if member.whole.is_empty() && member.ahead.is_empty() {
                return source;
            }
            // Of a member that is missing there is what the journal has.
            let start = source.as_ref().map_or(0, |source| source.start);
            let own = source.as_ref().map(|source| Arc::clone(&source.device));
            let whole = Arc::new(Patched::new(own, start, vec![member.whole.clone()]));
            let ahead = (!member.ahead.is_empty()).then(|| {
                Patched::new(
                    source.as_ref().map(|source| Arc::clone(&source.device)),
                    start,
                    vec![member.ahead, member.whole],
                )
            });
            let mut source = source.unwrap_or_else(|| Source::whole(whole.clone(), 0));
            source.device = whole;
            source.ahead = ahead.map(Arc::new);
            Some(source)
        };
        sources.into_iter().zip(self.members).map(over).collect()
    }
}

/// A UUID as mdadm writes it, in bytes.
fn bytes_of(uuid: &str) -> Option<[u8; 16]> {
    let words = uuid.split(':').map(|word| u32::from_str_radix(word, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use device::MemoryDevice;
    use geometry::md::{Rotation5, Shape};

    use super::*;
    use crate::{ArrayDevice, Section};

    const UUID: [u8; 16] = [7; 16];
    const CHUNK: u64 = 8192;
    const SIZE: u64 = 16 * CHUNK;
    const START: u64 = 4096;

    fn device(bytes: &[u8]) -> Arc<dyn BlockDevice> {
        let device = MemoryDevice::new("member", bytes.len() as u64);
        device.write(0, bytes).unwrap();
        Arc::new(device)
    }

    fn page(value: u8) -> Vec<u8> {
        (0..PAGE).map(|at| value ^ at as u8).collect()
    }

    fn sum(bytes: &[u8]) -> u32 {
        !crc32c::crc32c_append(crc32c::crc32c(&UUID), bytes)
    }

    /// A block of a journal at sector `position` with these payloads: kind, location, pages that follow.
    fn block(sequence: u64, position: u64, payloads: &[(u16, u64, Vec<Vec<u8>>)]) -> Vec<u8> {
        let mut head = vec![0; 32];
        let mut rest = Vec::new();
        for (kind, location, pages) in payloads {
            head.extend(kind.to_le_bytes());
            head.extend([0; 2]);
            head.extend((pages.len() as u32 * 8).to_le_bytes());
            head.extend(location.to_le_bytes());
            for bytes in pages {
                head.extend(sum(bytes).to_le_bytes());
                rest.extend(bytes);
            }
        }
        let length = head.len() as u32;
        head[0..4].copy_from_slice(&0x6433_c509_u32.to_le_bytes());
        head[8] = 1;
        head[12..16].copy_from_slice(&length.to_le_bytes());
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..32].copy_from_slice(&position.to_le_bytes());
        head.resize(PAGE as usize, 0);
        let sum = sum(&head);
        head[4..8].copy_from_slice(&sum.to_le_bytes());
        [head, rest].concat()
    }

    /// A RAID 5 of three that is all zeros, read with a journal of these bytes, without the members that are absent.
    fn read(journal: &[u8], tail: u64, absent: &[usize]) -> (Vec<u8>, Vec<String>) {
        let geometry = Geometry::new(Shape::Raid5(Rotation5::LeftSymmetric), CHUNK, &[SIZE; 3]).unwrap();
        let member = |slot: usize| {
            let bytes = vec![0; (START + SIZE) as usize];
            (!absent.contains(&slot)).then(|| Source::whole(device(&bytes), START))
        };
        let sources: Vec<Option<Source>> = (0..3).map(member).collect();
        let at =
            JournalAt { path: PathBuf::new(), map: None, offset: PAGE, size: journal.len() as u64, tail };
        let logs = Logs { uuid: uuid_text(UUID), journal: Some(at), partial_parity: Vec::new() };
        let disk = device(&[vec![0; PAGE as usize], journal.to_vec()].concat());
        let replayed = replay(&logs, &geometry, &sources, Some(&disk));
        let told = replayed.told.clone();
        let array = ArrayDevice::new("array", Section { geometry, sources: replayed.over(sources) });
        let mut bytes = vec![1; array.size().unwrap() as usize];
        array.read(0, &mut bytes).unwrap();
        (bytes, told)
    }

    fn placed(pages: &[(u64, u8)]) -> Vec<u8> {
        let mut bytes = vec![0; (2 * SIZE) as usize];
        for (sector, value) in pages {
            let at = (sector * 512) as usize;
            bytes[at..at + PAGE as usize].copy_from_slice(&page(*value));
        }
        bytes
    }

    #[test]
    fn a_journal_is_replayed_as_far_as_it_goes() {
        let xor = |one: u8, two: u8| {
            page(one).iter().zip(page(two)).map(|(one, two)| one ^ two).collect::<Vec<u8>>()
        };
        // The first row, both of its data chunks' first pages with parity; then one page of the second row alone.
        let first = block(9, 24, &[(0, 0, vec![page(3)]), (0, 16, vec![page(5)]), (1, 0, vec![xor(3, 5)])]);
        let second = block(10, 24 + first.len() as u64 / 512, &[(0, 32, vec![page(8)])]);
        // A block that does not follow, and one whose page is torn.
        let mut torn = block(11, 24 + (first.len() + second.len()) as u64 / 512, &[(0, 64, vec![page(9)])]);
        torn[5000] ^= 1;
        let mut journal = vec![0; 3 * PAGE as usize];
        journal.extend([&first[..], &second, &torn].concat());
        journal.resize(32 * PAGE as usize, 0);
        let wanted = placed(&[(0, 3), (16, 5), (32, 8)]);
        for absent in [&[][..], &[0], &[1], &[2]] {
            let (bytes, told) = read(&journal, 3 * PAGE, absent);
            assert!(bytes == wanted, "without {absent:?}: {told:?}");
            assert!(told[0].contains("2 blocks, 1 rows of 4 KiB with their parity, 1 with data"), "{told:?}");
        }
        // The same turned so that it goes on at the ring's beginning: places are part of what is summed up, so it ends there.
        let mut turned = journal.clone();
        turned.rotate_left(4 * PAGE as usize);
        assert!(read(&turned, 31 * PAGE, &[]).0 == placed(&[]));
        // A tail that is nowhere, and a journal of nothing.
        assert!(read(&journal, 1 << 40, &[]).1[0].contains("can't be"));
        assert!(read(&[], 0, &[]).1[0].contains("can't be"));
    }

    #[test]
    fn partial_parity_makes_up_for_a_write_that_did_not_end() {
        // Row 0 of three: data in slots 0 and 1, parity in 2. Slot 0 was written, parity was not.
        let geometry = Geometry::new(Shape::Raid5(Rotation5::LeftSymmetric), CHUNK, &[SIZE; 3]).unwrap();
        let mut members = vec![vec![0; (START + SIZE) as usize]; 3];
        let place = START as usize..(START + PAGE) as usize;
        members[0][place.clone()].copy_from_slice(&page(3));
        members[1][place.clone()].copy_from_slice(&page(5));
        members[2][place].copy_from_slice(&page(77));
        // Of the sectors before the data the log is: a header, and the sum of what was not written, which is slot 1's.
        let mut header = vec![0xff; 512];
        header.resize(PAGE as usize, 0);
        header[512..516].copy_from_slice(&crc32c::crc32c(&UUID).to_le_bytes());
        header[520] = 1;
        header[528] = 1;
        for (at, value) in [
            (536 + 8, PAGE as u32),
            (536 + 12, PAGE as u32),
            (536 + 16, 2),
            (536 + 20, crc32c::crc32c(&page(5))),
        ] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32c::crc32c(&header);
        header[532..536].copy_from_slice(&sum.to_le_bytes());
        let at = members[2].len() as u64;
        members[2].extend([header, page(5)].concat());
        let sources: Vec<Option<Source>> =
            (0..3).map(|slot| (slot != 1).then(|| Source::whole(device(&members[slot]), START))).collect();
        let logs = Logs {
            uuid: uuid_text(UUID),
            journal: None,
            partial_parity: vec![None, None, Some((at, 2 * PAGE))],
        };
        let replayed = replay(&logs, &geometry, &sources, None);
        assert_eq!(
            replayed.told,
            ["the partial parity log of slot 2 is replayed in memory: 1 pages of parity"]
        );
        let array = ArrayDevice::new("array", Section { geometry, sources: replayed.over(sources) });
        let mut bytes = vec![0; PAGE as usize];
        array.read(CHUNK, &mut bytes).unwrap();
        assert!(bytes == page(5));
    }
}
