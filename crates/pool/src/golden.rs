//! Known values against committed bytes: what is written today must be readable forever.
//!
//! Each test builds one record of known values and compares it byte by byte with `tests/golden/NAME.bin`, then decodes
//! the file. The files change only together with a format version; `COFFER_GOLDEN_WRITE=1` makes missing ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use geometry::{Kind, Layout, Profile};
use tree::{Key, NodePtr};

use crate::checkpoint::{Checkpoint, Rewind};
use crate::checksum::ChecksumKind;
use crate::chunk::{BitmapAnchor, Chunk, Class, Column, Moved, Placement, Stale};
use crate::compress::Compression;
use crate::core::{Device, Group, Relation, StandIn};
use crate::dataset::{Dataset, NewDataset, Zombie, dead_value};
use crate::label::{Label, Uberblock};
use crate::pointer::{BlockPtr, Extent};
use crate::report::Counters;
use crate::space::NodeSpace;
use crate::spec::{Draid, GroupKind};
use crate::types::{DatasetId, DeviceId, GroupId, Guid, Logical, Millis, Session, Txg};

const POOL: Guid = Guid(0x1122_3344_5566_7788);

/// The committed bytes, which `bytes` must be.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin"));
    if std::env::var_os("COFFER_GOLDEN_WRITE").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    let known = std::fs::read(&path).unwrap();
    let differs = known.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name}: first difference");
    assert_eq!(known.len(), bytes.len(), "{name}: length");
    known
}

fn pointer(address: u64, level: u8) -> NodePtr {
    NodePtr { address, birth: 0x0102_0304, checksum: std::array::from_fn(|i| 0xa0 + i as u8), level }
}

fn chunk() -> Chunk {
    let mut stale = Stale::NONE;
    for region in [0, 63, 64, 255] {
        stale.insert(region);
    }
    let place = |device, offset, stale| Placement {
        device: DeviceId(device),
        offset,
        generation: Txg(0x0b0c),
        stale,
    };
    Chunk {
        address: Logical(0x4000_0000),
        class: Class::Data,
        group: GroupId(2),
        layout: Layout::new(Kind::Parity { parity: 1 }, 3, 16384).unwrap(),
        column_bytes: 1 << 24,
        columns: vec![
            Column { placements: vec![place(1, 0x10_0000, Stale::NONE)] },
            Column { placements: vec![place(2, 0x10_0000, Stale::NONE), place(9, 0x0200_0000, stale)] },
            Column { placements: vec![place(3, 0x0030_0000, Stale::NONE)] },
        ],
        used: 77 * 4096,
        birth: Txg(0x0b0c),
        bitmap: BitmapAnchor::default(),
        closed: false,
    }
}

fn system_chunk() -> Chunk {
    let place = |device| Placement {
        device: DeviceId(device),
        offset: 0x0050_0000,
        generation: Txg(1),
        stale: Stale::NONE,
    };
    Chunk {
        address: Logical(0x10_0000),
        class: Class::System,
        group: GroupId(0),
        layout: Layout::new(Kind::Copies, 2, 65536).unwrap(),
        column_bytes: 1 << 20,
        columns: vec![Column { placements: vec![place(1)] }, Column { placements: vec![place(2)] }],
        used: 3 * 16384,
        birth: Txg(1),
        bitmap: BitmapAnchor { slot: 1, txg: Txg(0x2a), checksum: std::array::from_fn(|i| i as u8) },
        closed: false,
    }
}

#[test]
fn label() {
    let label = Label {
        pool: POOL,
        device: Guid(0x99aa_bbcc_ddee_ff00),
        id: DeviceId(3),
        size: 0x0812_3000,
        txg: Txg(0x2b),
        config: r#"{"format":"cofferdam pool","version":1,"name":"tank"}"#.to_owned(),
    };
    let known = golden("label", &label.encode(2));
    assert_eq!(Label::decode(&known, 2), Ok(label));
}

#[test]
fn uberblock() {
    let uberblock = Uberblock {
        pool: POOL,
        txg: Txg(0x2a),
        session: Session(0x5e55),
        time: Millis(1_700_000_000_123),
        host: 0x0405_0607,
        exported: true,
        oldest: Txg(0x28),
        incompatible: 0,
        read_only_compatible: 0,
        chunk_root: Some(pointer(0x10_8000, 1)),
        meta_root: Some(pointer(0x20_8000, 0)),
        extent_root: None,
        system_chunks: vec![system_chunk()],
        devices: vec![(1, Guid(0x0101)), (2, Guid(0x0202))],
        took_part: vec![Guid(0x0101), Guid(0x0303)],
        back_to: Some((Session(0x5e54), Txg(0x27))),
    };
    let known = golden("uberblock", &uberblock.encode().unwrap());
    assert_eq!(Uberblock::decode(&known), Ok(uberblock));
    for bit in (0..known.len() * 8).step_by(7) {
        let mut damaged = known.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Uberblock::decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn features_decide_who_may_read_and_write() {
    let mut uberblock = Uberblock::decode(&golden_bytes("uberblock")).unwrap();
    assert!(uberblock.readable() && uberblock.writable());
    uberblock.read_only_compatible = 1 << 40;
    assert!(uberblock.readable() && !uberblock.writable());
    uberblock.incompatible = 1;
    assert!(!uberblock.readable() && !uberblock.writable());
}

fn golden_bytes(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin")))
        .unwrap()
}

#[test]
fn chunk_items() {
    for (name, chunk) in [("chunk-data", chunk()), ("chunk-system", system_chunk())] {
        let known = golden(name, &chunk.encode());
        assert_eq!(Chunk::decode(&known), Ok(chunk));
    }
}

#[test]
fn remap_item() {
    let moved = Moved { length: 0x0003_0000, to: Logical(0x4000_5000) };
    let known = golden("remap", &moved.encode());
    assert_eq!(Moved::decode(Logical(0x1000), &known), Ok(moved));
}

#[test]
fn device_item() {
    let mut device = Device::new(
        DeviceId(9),
        Guid(0x0909),
        "/dev/disk/by-id/ata-X".into(),
        1 << 30,
        Relation::For(DeviceId(2), StandIn::Spare),
    );
    device.spare = true;
    device.faulted = true;
    device.errors = Counters { read: 1, write: 2, checksum: 3 };
    let known = golden("device", &device.encode());
    let back = Device::decode(DeviceId(9), &known).unwrap();
    assert_eq!((back.guid, back.size, back.relation), (device.guid, device.size, device.relation));
    assert_eq!(
        (back.spare, back.offline, back.faulted, back.degraded, back.avoid_reads),
        (true, false, true, false, false)
    );
    assert_eq!((back.errors, back.path), (device.errors, device.path));
}

#[test]
fn group_item() {
    let group = Group {
        devices: vec![DeviceId(4), DeviceId(7), DeviceId(5)],
        ..Group::new(GroupId(2), GroupKind::Raidz(2), Profile::Single, Profile::Raid1)
    };
    let known = golden("group", &group.encode());
    assert_eq!(Group::decode(GroupId(2), &known), Ok(group));
}

#[test]
fn group_item_of_a_draid() {
    let kind = GroupKind::Draid(Draid { parity: 2, data: 3, spares: 2 });
    let mut group = Group::new(GroupId(1), kind, Profile::Single, Profile::Raid1);
    group.devices = (1..=7).map(DeviceId).collect();
    group.spares[1] = Some((DeviceId(6), StandIn::Called));
    let known = golden("group-draid", &group.encode());
    assert_eq!(Group::decode(GroupId(1), &known), Ok(group));
    // No data columns; more columns than a chunk may have; a spare in use in a way that there is none.
    let at = known.len() - 12;
    for (place, wrong) in [(at, 0), (at, 63), (known.len() - 1, 2), (known.len() - 1, 9)] {
        let mut bytes = known.clone();
        bytes[place] = wrong;
        assert!(Group::decode(GroupId(1), &bytes).is_err(), "{place} {wrong}");
    }
}

#[test]
fn block_pointers_and_extents() {
    for (name, kind) in [("xxh3", ChecksumKind::Xxh3), ("blake3", ChecksumKind::Blake3)] {
        let block = BlockPtr {
            address: Logical(0x4000_3000),
            stored: 8192,
            length: 16384,
            birth: Txg(0x2a),
            extent_birth: Txg(0x29),
            compression: Compression::Lz4,
            checksum: kind.of(b"cofferdam"),
        };
        let known = golden(&format!("block-{name}"), &block.encode());
        assert_eq!(BlockPtr::decode(&known), Ok(block));
        let extent = Extent { references: 2, ..block.extent() };
        let known = golden(&format!("extent-{name}"), &extent.encode());
        assert_eq!(Extent::decode(&known), Ok(extent));
    }
}

#[test]
fn dataset_item() {
    let new = NewDataset { pool: POOL, id: DatasetId(19), name: "vol@monday".into(), trees: (17, 20) };
    let mut dataset = Dataset {
        head: Some(DatasetId(16)),
        previous: Some(DatasetId(18)),
        created_txg: Txg(0x2a),
        created: Millis(1_700_000_000_456),
        size: 1 << 30,
        block_size: 16384,
        reservation: 1 << 20,
        referenced: 5 << 14,
        dead_bytes: 3 << 14,
        properties: BTreeMap::from([
            ("checksum".into(), "blake3".into()),
            ("compression".into(), "zstd-7".into()),
        ]),
        ..Dataset::new(new)
    };
    dataset.apply_properties();
    let known = golden("dataset", &dataset.encode());
    let back = Dataset::decode(POOL, DatasetId(19), &known).unwrap();
    assert_eq!((back.head, back.previous, &back.name[..]), (dataset.head, dataset.previous, "vol@monday"));
    assert_eq!((back.compression, back.checksum), (Compression::Zstd(7), ChecksumKind::Blake3));
    assert_eq!((back.tree.identity().tree, back.deadlist.identity().tree), (17, 20));
    assert_eq!(back.encode(), known);
}

#[test]
fn zombie_item_and_deadlist_value() {
    let zombie = Zombie {
        id: 21,
        tree: 17,
        root: pointer(0x20_c000, 1),
        min_birth: Txg(0x29),
        cursor: Key { object: 1, kind: 1, offset: 0x77 },
    };
    let known = golden("zombie", &zombie.encode());
    assert_eq!(Zombie::decode(21, &known).unwrap().encode(), known);
    golden("deadlist-value", &dead_value(8192));
}

#[test]
fn checkpoint_and_rewind_items() {
    let mut w = crate::codec::Writer::default();
    w.u8(1);
    w.u64(0x2a);
    w.u64(1_700_000_000_789);
    w.raw(&pointer(0x24_0000, 1).encode());
    w.u64(23);
    w.raw(&pointer(0x24_4000, 0).encode());
    w.u64(7 << 14);
    w.u64(5);
    let known = golden("checkpoint", &w.finish());
    let back = Checkpoint::decode(POOL, &known).unwrap();
    assert_eq!(back.encode(), known);
    assert_eq!((back.txg, back.taken, back.is_kept()), (Txg(0x2a), Millis(1_700_000_000_789), true));
    assert_eq!(
        (back.meta_root, back.held.root()),
        (Some(pointer(0x24_0000, 1)), Some(pointer(0x24_4000, 0)))
    );
    assert_eq!((back.held.identity().tree, back.held_numbers()), (23, (7 << 14, 5)));
    // A root without the state that goes with it, and the other way round.
    for state in [0, 2, 3] {
        let mut wrong = known.clone();
        wrong[0] = state;
        assert!(Checkpoint::decode(POOL, &wrong).is_err());
    }
    assert!((0..known.len()).all(|cut| Checkpoint::decode(POOL, &known[..cut]).is_err()));
    let rewind = Rewind { after: Txg(0x2a), before: Txg(0x33), cursor: Logical(0x4000_5000) };
    let known = golden("rewind", &rewind.encode());
    assert_eq!(Rewind::decode(&known), Ok(rewind));
}

#[test]
fn bitmap_slot() {
    let mut space = NodeSpace::new(1 << 20);
    for _ in 0..9 {
        space.allocate();
    }
    space.free_node(4, false, Txg(1));
    let known = golden("bitmap", &space.encode(POOL, Session(0x5e55), Txg(0x2a), Logical(0x10_0000)));
    let mut back = NodeSpace::new(1 << 20);
    assert!(back.load(&known, POOL, Logical(0x10_0000)));
    assert_eq!(back.iter_live().collect::<Vec<_>>(), [2, 3, 5, 6, 7, 8, 9, 10]);
}

/// Compressors may change what they write; what was written stays readable.
#[test]
fn compressed_blocks() {
    let block: Vec<u8> = (0..16384u32).map(|i| (i / 97) as u8).collect();
    for method in [Compression::Lz4, Compression::Zstd(3)] {
        let name = format!("compressed-{}", if method == Compression::Lz4 { "lz4" } else { "zstd" });
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.bin"));
        if std::env::var_os("COFFER_GOLDEN_WRITE").is_some() && !path.exists() {
            std::fs::write(&path, method.compress(&block).unwrap()).unwrap();
        }
        let known = golden_bytes(&name);
        assert_eq!(known.len() % 4096, 0);
        assert_eq!(method.decompress(&known, block.len()), Some(block.clone()));
    }
}
