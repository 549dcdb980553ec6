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
    println!("{:?} {}", found[0], tag(&disks[2], first.members[0].start));
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
    println!("{:?} {}", found[0], tag(&disks[1], of("dvol0").members[0].start));
}
