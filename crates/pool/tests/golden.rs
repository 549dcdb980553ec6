//! A committed image of a small pool is imported and read, and its bytes are where the format says.
//!
//! The image is one 64 MiB disk, zstd-compressed. It is never made anew while the format's version stays:
//! `COFFER_GOLDEN_WRITE=1` makes it only where there is none.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::*;
use device::{BlockDevice, MemoryDevice};
use pool::Pool;
use pool::spec::{GroupKind, ImportOptions, NewDevice, VolumeSpec};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const SIZE: usize = 64 << 20;

/// What the volume holds, and what it held when the snapshot was taken.
const HASH_NOW: u64 = 0x4961_7a31_2d06_fffe;
const HASH_THEN: u64 = 0xd11f_e4d3_017c_355e;

fn contents(round: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..96_000u64).map(|i| (i / 61 + round * 31) as u8).collect();
    bytes.extend_from_slice(&noise(round, 2048));
    bytes
}

fn make(path: &PathBuf) {
    let disks = Disks::new(&[64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..1)]));
    let properties = vec![("compression".to_owned(), "lz4".to_owned())];
    pool.volume_create("vol", &VolumeSpec { size: 1 << 20, block_size: 16384, sparse: true, properties })
        .unwrap();
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &contents(1)).unwrap();
    pool.snapshot("vol@then").unwrap();
    pool.set("vol", "checksum", "blake3").unwrap();
    pool.write(id, 30_000, &contents(2)).unwrap();
    pool.log_history("coffer snapshot tank/vol@then").unwrap();
    pool.export().unwrap();
    let mut bytes = vec![0; SIZE];
    disks.0[0].read(0, &mut bytes).unwrap();
    std::fs::write(path, zstd::bulk::compress(&bytes, 19).unwrap()).unwrap();
}

fn image() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pool-v1.img.zst");
    if std::env::var_os("COFFER_GOLDEN_WRITE").is_some() && !path.exists() {
        make(&path);
    }
    zstd::bulk::decompress(&std::fs::read(path).unwrap(), SIZE).unwrap()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn an_old_image_is_imported_and_read() {
    for read_only in [true, false] {
        let memory = Arc::new(MemoryDevice::from_bytes("golden", &image()));
        let device = NewDevice::new(memory, "/golden".into());
        let info = Pool::examine(&*device.device).unwrap().unwrap();
        assert_eq!((&info.pool_name[..], info.exported, info.damaged_labels), ("tank", true, 0));
        let options = ImportOptions { read_only, host: host(), ..ImportOptions::default() };
        let (mut pool, _) = Pool::import(&env(5), info.pool_guid, vec![device], &options).unwrap();
        let mut names = Vec::new();
        for (name, hash) in [("vol", HASH_NOW), ("vol@then", HASH_THEN)] {
            let id = pool.open(name).unwrap();
            let bytes = read(&mut pool, id, 0, 1 << 20);
            names.push(format!("{name} {:#x}", xxh3_64(&bytes)));
            assert_eq!(xxh3_64(&bytes), hash, "{names:?}");
        }
        assert_sound(&mut pool);
        assert_eq!(pool.history().unwrap().len(), 2);
        if !read_only {
            pool.snapshot_destroy("vol@then").unwrap();
            settle(&mut pool);
            assert_sound(&mut pool);
        }
    }
}

/// Offsets from `docs/on-disk-format.md`, without any code of the engine.
#[test]
fn labels_uberblocks_and_headers_are_where_the_document_says() {
    let image = image();
    let mut newest = (0, 0);
    for (index, at) in [0, 0x4_0000, SIZE - 0x8_0000, SIZE - 0x4_0000].into_iter().enumerate() {
        let header = &image[at + 0x4000..at + 0x5000];
        assert_eq!(&header[..16], b"COFFERDAM-LABEL\0");
        assert_eq!(number(header, 16), 1 | (index as u64) << 32);
        assert_eq!(xxh3_128(&header[..4080]).to_le_bytes(), header[4080..]);
        let length = u32::from_le_bytes(header[44..48].try_into().unwrap()) as usize;
        assert_eq!(number(header, 56), SIZE as u64);
        let config = &image[at + 0x5000..at + 0x5000 + length];
        assert_eq!(xxh3_128(config).to_le_bytes(), header[64..80]);
        assert!(config.starts_with(br#"{"format":"cofferdam pool","version":1,"name":"tank","guid":"#));
        for slot in 0..16 {
            let uberblock = &image[at + 0x2_0000 + slot * 0x2000..][..0x2000];
            if &uberblock[..8] != b"CDUBERBK" {
                assert!(uberblock.iter().all(|&byte| byte == 0));
                continue;
            }
            assert_eq!(xxh3_128(&uberblock[..0x1ff0]).to_le_bytes(), uberblock[0x1ff0..]);
            let txg = number(uberblock, 40);
            assert_eq!((txg % 2, txg / 2 % 16), (index as u64 % 2, slot as u64));
            assert_eq!(number(uberblock, 32), number(header, 24));
            newest = newest.max((txg, at + 0x2_0000 + slot * 0x2000));
        }
    }
    // From the newest uberblock to the system chunk, its column header and the root of the chunk tree.
    let uberblock = &image[newest.1..][..0x2000];
    let pool = number(uberblock, 32);
    assert_eq!(u32::from_le_bytes(uberblock[12..16].try_into().unwrap()), 1, "exported");
    let (root, birth) = (number(uberblock, 80) as usize, number(uberblock, 88));
    let checksum = &uberblock[96..112];
    let devices = usize::from(uberblock[200]);
    let chunk = 202 + devices * 12 + 4;
    let address = number(uberblock, chunk) as usize;
    assert_eq!(&uberblock[chunk + 8..chunk + 10], [1, 1], "system, copies");
    let offset = number(uberblock, chunk + 70 + 1 + 4) as usize;
    let column = &image[offset..offset + 4096];
    assert_eq!(&column[..8], b"CDCOLUMN");
    assert_eq!((number(column, 8), number(column, 24)), (pool, address as u64));
    assert_eq!(xxh3_128(&column[..4080]).to_le_bytes(), column[4080..]);
    let node = &image[offset + 4096 + root - address..][..16384];
    assert_eq!(&node[..8], b"CofrNode");
    assert_eq!((number(node, 16), number(node, 24), number(node, 40)), (pool, 1, birth));
    assert_eq!(number(node, 48), root as u64);
    assert_eq!(xxh3_128(node).to_le_bytes(), checksum);
}
