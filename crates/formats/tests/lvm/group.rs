//! Groups from labels and metadata areas that are whole, old, or in part gone.

use device::BlockDevice;
use formats::lvm::{Group, GroupMetadata, Lvm, PvScan, Standing};

use crate::common::{bytes, flipped, image, truncated, zeroed};
use crate::reader::Lab;

#[test]
fn a_whole_group() {
    let lab = Lab::all_kinds();
    let group = lab.group();
    assert_eq!((group.volumes.name.as_str(), group.volumes.extent_size), ("lab", 256 << 10));
    assert_eq!(group.problems, Vec::<String>::new());
    assert_eq!(group.standing, Standing::Committed);
    assert_eq!(group.members.len(), 5);
    assert!(group.members.iter().all(Option::is_some));
    assert!(lab.lvm.strays.is_empty());
    let visible: Vec<&str> = group
        .volumes
        .logical
        .iter()
        .filter(|volume| volume.visible)
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(visible.len(), 23, "{visible:?}");
    assert_eq!(lab.scans[0].label.as_ref().unwrap().used, Some(true));
}

#[test]
fn removed_volumes_are_in_the_history() {
    let lab = Lab::all_kinds();
    assert_eq!(lab.group().volumes.find("older"), None);
    let texts = Lvm::generations(&lab.scans);
    assert!(texts.len() > 3, "{}", texts.len());
    assert!(texts.windows(2).all(|pair| pair[0].group.seqno > pair[1].group.seqno));
    assert_eq!(texts[0].standing, Standing::Committed);
    let text = texts.iter().find(|text| text.group.find("older").is_some()).expect("it was there once");
    assert_eq!(text.standing, Standing::Old);
    let before = Group::at(&lab.scans, text);
    let lv = before.volumes.find("older").unwrap();
    let (place, length) = before.locate(lv, 0).unwrap();
    let formats::lvm::Place::Physical { pv, offset } = place else { panic!("{place:?}") };
    assert_eq!(length, 3 * (256 << 10));
    // Its extents were not used again before the end.
    let device = &lab.devices[before.members[pv].unwrap()];
    assert!(bytes(device, offset, 24).starts_with(b"old "));
}

#[test]
fn a_ring_that_wraps() {
    let scans: Vec<PvScan> = ["a", "b"]
        .iter()
        .map(|disk| PvScan::read(&image(&format!("lvm-wrap-{disk}"))).unwrap().unwrap())
        .collect();
    assert_eq!((scans[0].areas.len(), scans[1].areas.len()), (1, 2));
    for area in scans.iter().flat_map(|scan| &scan.areas) {
        assert_eq!(area.problems, []);
        let numbers: Vec<u64> = area.generations.iter().map(|text| text.group.seqno).collect();
        assert_eq!(area.generations[0].standing, Standing::Committed);
        // The oldest that is whole depends on the area's size; the text that wraps is read as well.
        let oldest = if area.offset == 4096 { 22 } else { 20 };
        let wanted: Vec<u64> = (oldest..=146).rev().collect();
        assert!(numbers == wanted, "{numbers:?}");
        let first = area.offset + 512;
        assert!(area.generations.iter().any(|text| text.offset > first + 200_000));
    }
    let lvm = Lvm::assemble(&scans);
    let group = &lvm.groups[0];
    assert_eq!(group.problems, Vec::<String>::new());
    assert_eq!(group.volumes.seqno, 146);
    let names: Vec<&str> = group.volumes.logical.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["vol1", "vol3", "vol4"]);
    // The same text as vgcfgbackup writes it.
    let backup = std::fs::read(crate::common::fixture("lvm-wrap.vg")).unwrap();
    let backup = GroupMetadata::parse(&backup, "wrap.vg", 0).unwrap();
    assert_eq!(backup.logical, group.volumes.logical);
    assert_eq!(backup.physical, group.volumes.physical);
}

#[test]
fn one_of_two_areas_is_enough() {
    let device = image("lvm-wrap-b");
    let scan = PvScan::read(&device).unwrap().unwrap();
    for area in &scan.areas {
        // Header gone, header damaged, text damaged.
        let damaged = [
            zeroed(&device, area.offset, 512),
            flipped(&device, area.offset + 40, 1),
            flipped(&device, area.generations[0].offset + 30, 1),
        ];
        for device in damaged {
            let scan = PvScan::read(&device).unwrap().unwrap();
            let lvm = Lvm::assemble(&[scan]);
            assert_eq!(lvm.groups[0].volumes.seqno, 146);
            assert_eq!(lvm.groups[0].standing, Standing::Committed);
        }
    }
    // With both headers damaged, the newest old text is as good, and that is said.
    let both = flipped(&flipped(&device, scan.areas[0].offset + 40, 1), scan.areas[1].offset + 40, 1);
    let scan = PvScan::read(&both).unwrap().unwrap();
    assert_eq!(scan.areas.iter().map(|area| area.problems.len()).collect::<Vec<_>>(), [1, 1]);
    let text = scan.areas[0].problems[0].to_string();
    assert!(text.starts_with("LVM2 metadata area at offset 4096 of flipped: crc is 0x"), "{text}");
    let lvm = Lvm::assemble(&[scan]);
    assert_eq!((lvm.groups[0].volumes.seqno, lvm.groups[0].standing), (146, Standing::Old));
    assert!(lvm.groups[0].problems.iter().any(|text| text.contains("not the valid one")));
}

#[test]
fn a_lost_label_is_replaced_by_the_others() {
    let mut lab = Lab::all_kinds();
    let uuid = |lab: &Lab, scan: usize| lab.scans[scan].label.as_ref().map(|label| label.uuid.clone());
    let lost = uuid(&lab, 2).unwrap();
    // All of the first four sectors, as a new partition table would do.
    lab.devices[2] = zeroed(&lab.devices[2], 0, 2048);
    let lab = Lab::new(lab.devices);
    assert_eq!(uuid(&lab, 2), None);
    let pv = lab.group().volumes.physical.iter().position(|entry| entry.uuid == lost).unwrap();
    assert_eq!(lab.group().members[pv], Some(2));
    assert!(lab.group().problems.iter().any(|text| text.contains("has no valid label")));
    assert!(lab.content("raid6_zr").starts_with(b"raid6_zr "));
}

#[test]
fn what_is_missing_is_said() {
    let lab = Lab::all_kinds();
    let mut scans = lab.scans.clone();
    scans.remove(0);
    let lvm = Lvm::assemble(&scans);
    assert_eq!(lvm.groups[0].members.iter().filter(|member| member.is_none()).count(), 1);
    assert!(lvm.groups[0].problems[0].contains("is missing (it was /dev/vd"), "{:?}", lvm.groups[0].problems);

    let mut scans = lab.scans.clone();
    scans.push(lab.scans[1].clone());
    let lvm = Lvm::assemble(&scans);
    assert!(lvm.groups[0].problems[0].contains("more than once"), "{:?}", lvm.groups[0].problems);
    assert!(lvm.strays.is_empty(), "a copy is no stray");

    let short = truncated(&lab.devices[0], 60 << 20);
    let mut scans = lab.scans.clone();
    scans[0] = PvScan::read(&short).unwrap().unwrap();
    let lvm = Lvm::assemble(&scans);
    assert!(lvm.groups[0].problems[0].contains("it was cut off"), "{:?}", lvm.groups[0].problems);
}

#[test]
fn unreadable_sectors_cost_only_what_lies_there() {
    let device = image("lvm-wrap-a");
    let size = device.size().unwrap();
    let map = format!("0 + 1\n0 0x2000 +\n0x2000 0x1000 -\n0x3000 {:#x} +\n", size - 0x3000);
    let map = device::BadMap::parse(&map).unwrap();
    let device = device::BadMapDevice::new(std::sync::Arc::new(device), map);
    let scan = PvScan::read(&device).unwrap().unwrap();
    assert_eq!(scan.areas[0].problems.len(), 1);
    assert!(scan.areas[0].generations.len() > 115, "{}", scan.areas[0].generations.len());
    assert_eq!(Lvm::assemble(&[scan]).groups[0].volumes.seqno, 146);
}

#[test]
fn nothing_is_no_physical_volume() {
    assert_eq!(PvScan::read(&device::MemoryDevice::new("empty", 1 << 20)).unwrap(), None);
}
