//! From image files with superblocks to an assembled array.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use device::BlockDevice;
use geometry::md::Shape;
use rescue::{Image, MemberState, Plan, RescueError, plan, render_plan, render_scan, scan};

use crate::made::{Made, make};

const DATA: u64 = 65536;

struct Pile {
    folder: tempfile::TempDir,
    made: Made,
}

/// A version 1.2 superblock of the member with this slot, as the kernel would leave it.
pub fn superblock(shape: Shape, chunk: u64, disks: u16, slot: u16, events: u64, roles: &[u16]) -> Vec<u8> {
    let (level, layout) = shape.codes();
    let mut block = vec![0; 512];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, &0xa92b_4efc_u32.to_le_bytes());
    put(4, &1_u32.to_le_bytes());
    put(8, &(if level == 0 { 0x1000_u32 } else { 0 }).to_le_bytes());
    put(16, &[5; 16]);
    put(32, b"nas:0");
    put(72, &level.to_le_bytes());
    put(76, &layout.to_le_bytes());
    put(80, &(if level == 0 { 0 } else { 2048_u64 }).to_le_bytes());
    put(88, &((chunk / 512) as u32).to_le_bytes());
    put(92, &u32::from(disks).to_le_bytes());
    put(128, &(DATA / 512).to_le_bytes());
    put(136, &2048_u64.to_le_bytes());
    put(144, &8_u64.to_le_bytes());
    put(160, &u32::from(slot).to_le_bytes());
    put(168, &[slot as u8 + 1; 16]);
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
    block
}

/// An array of 1 MiB members in files whose names say nothing; each slot with its events, or absent.
fn pile(level: i32, layout: u32, chunk: u64, events: &[Option<u64>]) -> Pile {
    let shape = Shape::from_codes(level, layout).unwrap();
    let made = make(shape, chunk, &vec![1 << 20; events.len()], 8).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let newest = events.iter().flatten().max().copied().unwrap();
    for (slot, events_here) in events.iter().enumerate() {
        let Some(own) = *events_here else { continue };
        // Whoever is up to date knows who has been thrown out.
        let roles: Vec<u16> = events
            .iter()
            .enumerate()
            .map(|(slot, events)| {
                if events.is_some_and(|e| e >= own.min(newest.saturating_sub(1))) {
                    slot as u16
                } else {
                    0xfffe
                }
            })
            .collect();
        let mut image = vec![0; DATA as usize];
        image[4096..4608].copy_from_slice(&superblock(
            shape,
            chunk,
            events.len() as u16,
            slot as u16,
            own,
            &roles,
        ));
        image.extend_from_slice(&made.members[slot]);
        // A stale member has old bytes.
        if own + 1 < newest {
            image[DATA as usize..].iter_mut().for_each(|byte| *byte ^= 0x55);
        }
        fs::write(folder.path().join(format!("disk-{:02x}", (slot * 57 + 11) % 256)), image).unwrap();
    }
    Pile { folder, made }
}

impl Pile {
    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn images(&self) -> Vec<Image> {
        self.paths().iter().map(|path| Image::open(path).unwrap()).collect()
    }

    fn state(&self) -> Vec<(Vec<u8>, SystemTime)> {
        let state =
            |path: &PathBuf| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
        self.paths().iter().map(state).collect()
    }
}

#[test]
fn from_images_to_contents_and_no_original_changes() {
    let cases = [
        (5, 2, vec![Some(20); 4]),
        (5, 0, vec![Some(20), None, Some(20), Some(19)]),
        (5, 3, vec![Some(20), Some(20), Some(7), Some(20)]),
        (6, 2, vec![Some(20), Some(20), None, Some(20), Some(3), Some(20)]),
        (6, 10, vec![Some(20); 5]),
        (10, 0x102, vec![Some(20), None, Some(20), Some(20), Some(20)]),
        (1, 0, vec![Some(4), Some(20), Some(20)]),
        (0, 2, vec![Some(20); 3]),
    ];
    for (level, layout, events) in cases {
        let pile = pile(level, layout, if level == 1 { 0 } else { 16384 }, &events);
        let before = pile.state();
        let images = pile.images();
        let scan = scan(&images);
        assert_eq!(scan.arrays.len(), 1);
        let stale = scan.arrays[0].members.iter().filter(|member| member.state == MemberState::Stale).count();
        assert_eq!(stale, events.iter().flatten().filter(|events| **events < 19).count());
        let plan = plan(&images, &scan);
        let plan = Plan::from_text(&plan.to_text().unwrap()).unwrap();
        let best = &plan.candidates[0];
        assert_eq!(best.left_out.len(), stale, "{best:?}");
        let array = best.open().unwrap();
        let mut contents = vec![0; array.size().unwrap() as usize];
        array.read(0, &mut contents).unwrap();
        assert!(contents == pile.made.contents, "level {level} layout {layout}");
        assert!(pile.state() == before);
    }
}

/// Reading leaves no traces, where the system lets whoever owns a file ask for that.
#[test]
fn access_times_stay() {
    let pile = pile(5, 2, 16384, &[Some(20); 4]);
    let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(24);
    for path in pile.paths() {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
    }
    let images = pile.images();
    let plan = plan(&images, &scan(&images));
    let array = plan.candidates[0].open().unwrap();
    array.read(0, &mut vec![0; array.size().unwrap() as usize]).unwrap();
    assert!(pile.paths().iter().all(|path| fs::metadata(path).unwrap().accessed().unwrap() == old));
}

#[test]
fn a_stale_member_is_used_only_where_nothing_else_is_left() {
    let pile = pile(5, 2, 16384, &[Some(20), Some(12), None, Some(20)]);
    let images = pile.images();
    let plan = plan(&images, &scan(&images));
    let best = &plan.candidates[0];
    assert!(best.slots[1].is_some());
    assert!(best.reasons.iter().any(|reason| reason.contains("8 events behind")), "{:?}", best.reasons);
}

/// What a stale member holds is in the wrong place anyway: that nothing on the array is known says nothing of an older one below it.
#[test]
fn a_stale_member_is_no_sign_of_an_older_array() {
    let doubted = |events: &[Option<u64>]| {
        let pile = pile(5, 2, 16384, events);
        let images = pile.images();
        let plan = plan(&images, &scan(&images));
        let best = &plan.candidates[0];
        (best.reasons.iter().any(|reason| reason.contains("created over an older array")), best.score)
    };
    let (doubt, fresh) = doubted(&[Some(20), Some(20), None, Some(20)]);
    assert!(doubt, "no file system is on it");
    let (doubt, stale) = doubted(&[Some(20), Some(12), None, Some(20)]);
    assert!(!doubt);
    // It costs what the stale member costs, and no more.
    assert!(stale + 5 >= fresh, "{stale} {fresh}");
}

/// Of RAID 10 it counts which members are missing: one of each pair may be, and a stale one is not asked where its fresh copy is there.
#[test]
fn of_pairs_a_stale_member_is_used_only_where_both_are_not_fresh() {
    let planned = |events: &[Option<u64>]| {
        let images = pile(10, 0x102, 16384, events);
        let images = images.images();
        plan(&images, &scan(&images)).candidates.remove(0)
    };
    let whole = planned(&[Some(12), Some(20), Some(20), None]);
    assert!(whole.slots[0].is_none(), "{whole:?}");
    assert!(whole.reasons.iter().any(|reason| reason.contains("redundancy makes up for")), "{whole:?}");
    let lacking = planned(&[Some(12), None, Some(20), None]);
    assert!(lacking.slots[0].is_some(), "{lacking:?}");
    let lost = planned(&[None, None, Some(20), Some(20)]);
    assert!(lost.reasons.iter().any(|reason| reason.contains("parts are lost")), "{lost:?}");
}

#[test]
fn a_new_array_over_an_old_one_is_not_believed_at_once() {
    let used = pile(5, 2, 16384, &[Some(20); 4]);
    let created = pile(5, 2, 16384, &[Some(0); 4]);
    let score = |pile: &Pile| {
        let images = pile.images();
        plan(&images, &scan(&images)).candidates[0].score
    };
    assert!(score(&used) >= score(&created) + 30);
}

#[test]
fn copies_strays_and_empty_files_are_told() {
    let pile = pile(5, 2, 16384, &[Some(20); 3]);
    let first = pile.paths()[0].clone();
    fs::copy(&first, pile.folder.path().join("x-copy")).unwrap();
    fs::write(pile.folder.path().join("y-empty"), []).unwrap();
    fs::write(pile.folder.path().join("z-short"), vec![0xa5; 5000]).unwrap();
    let mut images = pile.images();
    images.push(Image::open(&first).unwrap());
    let scan = scan(&images);
    let duplicates = scan.arrays[0].members.iter().filter(|member| member.state == MemberState::Duplicate);
    assert_eq!(duplicates.count(), 1);
    assert!(scan.images.last().unwrap().problems[0].contains("same file"));
    let plan = plan(&images, &scan);
    let mut contents = vec![0; pile.made.contents.len()];
    plan.candidates[0].open().unwrap().read(0, &mut contents).unwrap();
    assert!(contents == pile.made.contents);
    assert!(Image::open(pile.folder.path()).is_err());
}

#[test]
fn a_member_that_is_cut_short_is_told() {
    let pile = pile(5, 2, 16384, &[Some(20); 3]);
    let told = |pile: &Pile| -> Vec<String> {
        scan(&pile.images()).images.into_iter().flat_map(|image| image.problems).collect()
    };
    assert_eq!(told(&pile), Vec::<String>::new());
    let file = fs::OpenOptions::new().write(true).open(&pile.paths()[1]).unwrap();
    file.set_len(DATA + (1 << 20) - 70_100).unwrap();
    let told = told(&pile);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("it ends 70100 bytes before"), "{told:?}");
}

/// What is cut off a member counts, the more so if the others can't make up for it.
#[test]
fn a_member_that_is_cut_short_counts_in_the_score() {
    let pile = pile(5, 2, 16384, &[Some(20); 4]);
    let best = |pile: &Pile| {
        let images = pile.images();
        plan(&images, &scan(&images)).candidates.remove(0)
    };
    let cut = |pile: &Pile, number: usize| {
        let file = fs::OpenOptions::new().write(true).open(&pile.paths()[number]).unwrap();
        file.set_len(DATA + (1 << 20) - 70_100).unwrap();
    };
    let whole = best(&pile);
    cut(&pile, 1);
    let one = best(&pile);
    assert_eq!(one.score, whole.score - 5);
    let told = |candidate: &rescue::Candidate, what: &str| {
        candidate.reasons.iter().filter(|reason| reason.contains(what)).count()
    };
    assert_eq!(told(&whole, "cut short"), 0);
    assert_eq!(told(&one, "the last 70100 bytes of what the array uses of it are not there"), 1);
    assert_eq!(told(&one, "what they held is read from the others"), 1, "{:?}", one.reasons);
    // The array is all there nevertheless.
    let mut bytes = vec![0; pile.made.contents.len()];
    one.open().unwrap().read(0, &mut bytes).unwrap();
    assert!(bytes == pile.made.contents);
    cut(&pile, 2);
    let two = best(&pile);
    assert!(two.score + 10 < one.score, "{} {}", two.score, one.score);
    assert_eq!(told(&two, "what they held is lost"), 2, "{:?}", two.reasons);
}

#[test]
fn what_cannot_be_is_an_error() {
    let pile = pile(0, 2, 16384, &[Some(20), None, Some(20)]);
    let images = pile.images();
    let mut plan = plan(&images, &scan(&images));
    let best = &mut plan.candidates[0];
    assert_eq!(best.score, 0);
    assert!(matches!(best.open(), Err(RescueError::SizeUnknown { slot: 1, .. })));
    best.layout = 99;
    assert!(matches!(best.open(), Err(RescueError::Geometry { .. })));
    assert!(Plan::from_text("{\"candidates\": [{}]}").is_err());
    best.slots.fill_with(|| None);
    let told = |plan: &Plan| rescue::chosen(plan, None).unwrap_err().to_string();
    assert_eq!(told(&plan), "no candidate of the plan names a member");
    plan.candidates.clear();
    assert_eq!(told(&plan), "the plan has no candidates");
    edits_are_checked();
    fs::write(pile.folder.path().join("a.map"), "nonsense").unwrap();
    fs::write(pile.folder.path().join("a"), [0; 512]).unwrap();
    assert!(matches!(Image::open(pile.folder.path().join("a")), Err(RescueError::Map { .. })));
}

#[test]
fn people_are_told() {
    let pile = pile(5, 2, 16384, &[Some(20), Some(7), Some(20), None, Some(20)]);
    let images = pile.images();
    let scan = scan(&images);
    let text = render_scan(&scan);
    for part in [
        "Array nas:0, UUID 05050505:05050505:05050505:05050505",
        "updated 1970-01-01 00:17:00 UTC, up to date",
        "updated 1970-01-01 00:16:47 UTC, stale, 13 events behind",
        "slot 3: missing",
        "coffer rescue plan --save",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = render_plan(&plan(&images, &scan));
    for part in ["1. nas:0: raid5 left-symmetric, chunk 16 KiB", "13 events behind", "data at 64 KiB"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(render_plan(&Plan { candidates: Vec::new() }).contains("No way"));
    // One member whose superblock says another chunk than the others do.
    let other = superblock(Shape::from_codes(5, 2).unwrap(), 65536, 5, 2, 20, &[0, 1, 2, 0xfffe, 4]);
    let path = pile.folder.path().join(format!("disk-{:02x}", 2 * 57 + 11));
    std::os::unix::fs::FileExt::write_all_at(
        &fs::OpenOptions::new().write(true).open(&path).unwrap(),
        &other,
        4096,
    )
    .unwrap();
    let scan = rescue::scan(&pile.images());
    let text = render_scan(&scan);
    assert_eq!(scan.arrays[0].contradictions.len(), 1, "{text}");
    assert!(text.contains("says chunk") && text.contains("the newest member says"), "{text}");
}

/// Random bytes give no hint where the array begins and whether data goes on after the parity, so the right
/// answer is among several, and none is told as sure.
#[test]
fn raid_6_without_superblocks() {
    let starts = 2048 * 512;
    for (layout, count, chunk) in [(0, 5, 16384), (1, 4, 65536), (2, 6, 4096), (3, 7, 32768)] {
        let shape = Shape::from_codes(6, layout).unwrap();
        let made = make(shape, chunk, &vec![20 * 65536; count], 31).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (slot, member) in made.members.iter().enumerate() {
            let mut image = vec![0; starts];
            image.extend_from_slice(member);
            fs::write(folder.path().join(format!("disk-{:02x}", (slot * 57 + 11) % 256)), image).unwrap();
        }
        let pile = Pile { folder, made };
        let images = pile.images();
        let plan = plan(&images, &scan(&images));
        assert!(plan.candidates.iter().all(|candidate| candidate.score <= 50));
        let right = plan.candidates.iter().filter(|candidate| {
            let mut contents = vec![0; pile.made.contents.len()];
            (candidate.layout, candidate.chunk) == (layout, chunk)
                && candidate.open().unwrap().read(0, &mut contents).is_ok()
                && contents == pile.made.contents
        });
        assert_eq!(right.count(), 1, "layout {layout}");
        assert!(plan.candidates.iter().all(|candidate| candidate.chunk == chunk));
    }
}

/// Disks that are no RAID 6 are not said to be one.
#[test]
fn other_disks_are_no_raid_6() {
    let folder = tempfile::tempdir().unwrap();
    let made = make(Shape::from_codes(5, 2).unwrap(), 16384, &[1 << 20; 5], 3).unwrap();
    for (slot, member) in made.members.iter().enumerate() {
        fs::write(folder.path().join(slot.to_string()), [&vec![0; 1 << 20], member.as_slice()].concat())
            .unwrap();
    }
    let pile = Pile { folder, made };
    let images = pile.images();
    assert!(plan(&images, &scan(&images)).candidates.is_empty());
}

/// Gives a member a write-intent bitmap with these bits, one for each 64 KiB.
fn put_bitmap(path: &PathBuf, events: u64, bits: u16) {
    let mut image = fs::read(path).unwrap();
    image[4096 + 8] |= 1;
    image[4096 + 96..4096 + 100].copy_from_slice(&16_i32.to_le_bytes());
    image[4096 + 216..4096 + 220].fill(0);
    let words =
        image[4096..4608].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    image[4096 + 216..4096 + 220].copy_from_slice(&sum.to_le_bytes());
    let mut put =
        |at: usize, field: &[u8]| image[12288 + at..12288 + at + field.len()].copy_from_slice(field);
    put(0, b"bitm");
    put(4, &4_u32.to_le_bytes());
    put(8, &[5; 16]);
    put(24, &events.to_le_bytes());
    put(32, &10_u64.to_le_bytes());
    put(40, &2048_u64.to_le_bytes());
    put(52, &65536_u32.to_le_bytes());
    put(256, &bits.to_le_bytes());
    fs::write(path, image).unwrap();
}

/// A member that was lost first is as good as new wherever nothing was written since: there it makes up for bad sectors of
/// the others, and nowhere else.
#[test]
fn a_stale_member_is_read_where_the_bitmap_is_clean() {
    let pile = pile(5, 2, 4096, &[Some(100), Some(50), Some(100), Some(100)]);
    let paths = pile.paths();
    let path_of = |slot: usize| pile.folder.path().join(format!("disk-{:02x}", (slot * 57 + 11) % 256));
    for slot in [0, 2, 3] {
        put_bitmap(&path_of(slot), 100, 1 << 3 | 1 << 7);
    }
    // What was written since lies in the fourth and the eighth 64 KiB; the rest of it is as it was.
    let mut stale = fs::read(path_of(1)).unwrap();
    for (unit, bytes) in stale[DATA as usize..].chunks_mut(65536).enumerate() {
        if ![3, 7].contains(&unit) {
            bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        }
    }
    fs::write(path_of(1), stale).unwrap();
    // The third member can't be read in the second and the eighth.
    let map = pile.folder.path().join("map");
    let (clean, dirty) = (DATA + 65536, DATA + 7 * 65536);
    fs::write(
        &map,
        format!(
            "0 + 1\n0 {clean:#x} +\n{clean:#x} 0x2000 -\n{:#x} {:#x} +\n{dirty:#x} 0x1000 -\n{:#x} 0x80000 +\n",
            clean + 0x2000,
            dirty - clean - 0x2000,
            dirty + 0x1000
        ),
    )
    .unwrap();
    let images: Vec<Image> = paths
        .iter()
        .map(|path| Image::open_with(path, (*path == path_of(2)).then_some(&*map)).unwrap())
        .collect();
    let plan = plan(&images, &scan(&images));
    let best = &plan.candidates[0];
    assert!(best.slots[1].as_ref().unwrap().clean_by.is_some(), "{:?}", best.reasons);
    assert_eq!(Plan::from_text(&plan.to_text().unwrap()).unwrap(), plan);
    let array = best.open().unwrap();
    let mut bytes = vec![0; pile.made.contents.len()];
    let lost = array.read_around_losses(0, &mut bytes).unwrap();
    // One chunk of the row can't be had, and that is the only one.
    let gone: u64 = lost.iter().map(|range| range.end - range.start).sum();
    assert!(gone == 4096 || gone == 8192, "{lost:?}");
    for range in &lost {
        let range = range.start as usize..range.end as usize;
        bytes[range.clone()].copy_from_slice(&pile.made.contents[range]);
    }
    assert!(bytes == pile.made.contents);
}

/// What people get wrong in a plan is told with the place where it stands.
fn edits_are_checked() {
    let pile = pile(5, 2, 4096, &[Some(100), Some(100), Some(100)]);
    let images = pile.images();
    let text = plan(&images, &scan(&images)).to_text().unwrap();
    let told = |text: &str| match Plan::from_text(text).and_then(|plan| plan.candidates[0].open()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(&text), "");
    let wrong = |from: &str, to: &str| told(&text.replacen(from, to, 1));
    let said = wrong("\"level\"", "\"lvl\"");
    assert!(said.contains("unknown field `lvl`") && said.contains("line"), "{said}");
    assert!(wrong("\"chunk\": 4096", "\"chunk\": 0").contains("chunk"));
    assert!(wrong("\"chunk\": 4096", "\"chunk\": \"4K\"").contains("line"));
    let reshape = "\"reshape\": {\"level\": 5, \"layout\": 2, \"chunk\": 4096, \"old_disks\": 3, \"new_disks\": \
                   1000000000000, \"position\": 0, \"backwards\": false}, \"level\"";
    assert!(wrong("\"level\"", reshape).contains("1000000000000 members"));
    assert!(wrong("\"level\": 5", "\"level\": 7").contains("level"));
    let far = wrong("\"data_offset\": 65536", "\"data_offset\": 655360000");
    assert!(far.starts_with("slot 0 ") && far.contains("behind the end"), "{far}");
    let paths: Vec<String> = pile.paths().iter().map(|path| path.display().to_string()).collect();
    let twice = wrong(&paths[1], &paths[0]);
    assert!(twice.contains("is in slot") && twice.contains("as well"), "{twice}");
    assert!(wrong(&paths[2], "/nowhere/disk").contains("/nowhere/disk"));
}
