//! Sets of Intel's metadata and of DDF, made by mdadm: each volume's members begin where its tags are.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use common::image;
use device::{BlockDevice, MemoryDevice};
use formats::container;

fn tag(device: &MemoryDevice, at: u64) -> String {
    let mut bytes = [0; 24];
    device.read(at, &mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn intel() {
    let disks = ["a", "b", "c"].map(|disk| image(&format!("imsm-{disk}")));
    let found = disks.each_ref().map(|disk| container(disk).unwrap().expect("it is there"));
    assert!(found.iter().all(|own| *own == found[0]));
    assert_eq!((found[0].kind, found[0].volumes.len()), ("imsm", 2));
    let [first, second] = &found[0].volumes[..] else { panic!() };
    assert_eq!((first.level, first.layout, first.chunk, first.slots), (5, 0, 65536, 3));
    assert_eq!((second.level, second.chunk, second.members.len()), (0, 65536, 3));
    assert!(second.members[0].start >= first.members[0].start + first.used);
    assert_eq!(first.name.as_deref(), Some("vol0"));
    assert_eq!(tag(&disks[2], first.members[0].start), "vol0                   0");
}

#[test]
fn ddf() {
    let disks = ["d", "e", "f", "g"].map(|disk| image(&format!("ddf-{disk}")));
    let found = disks.each_ref().map(|disk| container(disk).unwrap().expect("it is there"));
    assert!(found.iter().all(|own| own.kind == "ddf" && own.id == found[0].id));
    for own in &found {
        let this = own.own.as_ref().expect("each knows itself");
        assert!(own.volumes.iter().all(|volume| volume.members.iter().any(|member| member.disk == *this)));
    }
    let of =
        |name: &str| found[0].volumes.iter().find(|volume| volume.name.as_deref() == Some(name)).unwrap();
    assert_eq!((of("dvol0").level, of("dvol0").slots), (5, 4));
    assert_eq!((of("dvol1").level, of("dvol1").slots), (10, 4));
    // Slots 0 to 3 are e, g, d, f.
    let slots = [1, 3, 0, 2].map(|disk: usize| found[disk].own.clone().unwrap());
    assert_eq!(of("dvol0").members.iter().map(|member| member.disk.clone()).collect::<Vec<_>>(), slots);
    assert_eq!(tag(&disks[1], of("dvol0").members[0].start), "dvol0                  0");
}

/// Whatever the fields say, nothing panics, also where the checksums are right.
#[test]
fn hostile_fields() {
    let mut rng = device::Rng::new(5);
    for round in 0..600 {
        let disk = image(if round % 2 == 0 { "imsm-b" } else { "ddf-f" }).snapshot("hostile");
        let size = disk.size().unwrap();
        let mut tail = vec![0; 64 << 10];
        let at = size - tail.len() as u64;
        disk.read(at, &mut tail).unwrap();
        if round % 2 == 0 {
            // The anchor and the sectors before it, in their order.
            let anchor = tail.len() - 1024;
            let length = u32::from_le_bytes(tail[anchor + 0x24..anchor + 0x28].try_into().unwrap()) as usize;
            let more = length.saturating_sub(512).next_multiple_of(512);
            for _ in 0..rng.within(1..6) {
                let place = rng.below(length as u64 - 0x28) as usize + 0x28;
                let place = if place < 512 { anchor + place } else { anchor - more + place - 512 };
                tail[place] = *rng.choose(&[0, 1, 0x7f, 0x80, 0xff]).unwrap();
            }
            tail[anchor + 0x20..anchor + 0x24].fill(0);
            let whole = [&tail[anchor..anchor + 512], &tail[anchor - more..anchor]].concat();
            let words =
                whole[..length].chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            let sum = words.fold(0, u32::wrapping_add);
            tail[anchor + 0x20..anchor + 0x24].copy_from_slice(&sum.to_le_bytes());
            disk.write(at, &tail).unwrap();
        } else {
            // Any sector that begins with a magic number of DDF.
            let magics = [[0xde, 0x11, 0xde, 0x11], [0xee; 4], [0x33; 4]];
            for sector in 0..size / 512 {
                let sector = size - 512 - sector * 512;
                if sector + (40 << 20) < size {
                    break;
                }
                let mut bytes = vec![0; 512];
                disk.read(sector, &mut bytes).unwrap();
                if magics.iter().any(|magic| bytes.starts_with(magic)) && rng.chance(1, 2) {
                    bytes[rng.within(8..512) as usize] = *rng.choose(&[0, 1, 0x7f, 0x80, 0xff]).unwrap();
                    bytes[4..8].fill(0xff);
                    let mut sum = 0_u32;
                    for byte in &bytes {
                        sum ^= u32::from(*byte);
                        (0..8)
                            .for_each(|_| sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 });
                    }
                    bytes[4..8].copy_from_slice(&sum.to_be_bytes());
                    disk.write(sector, &bytes).unwrap();
                }
                if sector == 0 {
                    break;
                }
            }
        }
        let _ = container(&disk).unwrap();
    }
}
