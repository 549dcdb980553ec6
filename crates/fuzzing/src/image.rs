//! A pool whose disk was changed here and there.
//!
//! Built with `--cfg fuzzing`, as cargo fuzz does, the engine believes every checksum, so that changed bytes get as
//! far as they would if somebody had made them look right. Otherwise this is a pool with damage on its only disk.

use std::sync::{Arc, OnceLock};

use device::{BlockDevice, Inline, MemoryDevice};
use pool::spec::{Host, ImportOptions, NewDevice};
use pool::types::Millis;
use pool::{Clock, Env, Pool, ScrubAction};

/// The pool of `crates/pool/tests/golden.rs`.
const IMAGE: &[u8] = include_bytes!("../../pool/tests/golden/pool-v1.img.zst");
/// Bytes of it.
const SIZE: usize = 64 << 20;
/// Bytes that are looked at for where there is something.
const PAGE: usize = 4096;

/// The disk as it was, and where on it is something.
static DISK: OnceLock<(MemoryDevice, Vec<u64>)> = OnceLock::new();

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Millis {
        Millis(1_700_000_000_000)
    }
}

fn disk() -> &'static (MemoryDevice, Vec<u64>) {
    DISK.get_or_init(|| {
        let bytes = zstd::bulk::decompress(IMAGE, SIZE).expect("the committed image");
        let pages = bytes.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        (MemoryDevice::from_bytes("golden", &bytes), pages.map(|(index, _)| (index * PAGE) as u64).collect())
    })
}

/// The first byte says how it is imported; then changes: page (2 bytes), place in it (2), length (1), bytes.
#[allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]
pub fn run(data: &[u8]) {
    let Some((how, mut rest)) = data.split_first() else { return };
    let (disk, pages) = disk();
    let device = Arc::new(disk.snapshot("fuzzed"));
    let guid = Pool::examine(disk).ok().flatten().expect("the committed image").pool_guid;
    while let Some((&[p0, p1, a0, a1, length], tail)) = rest.split_first_chunk::<5>() {
        let (bytes, tail) = tail.split_at(usize::from(length % 64).min(tail.len()));
        let page = pages[usize::from(u16::from_le_bytes([p0, p1])) % pages.len()];
        let at = usize::from(u16::from_le_bytes([a0, a1])) % (PAGE - 64);
        let mut whole = [0; PAGE];
        device.read(page, &mut whole).expect("within the device");
        whole[at..at + bytes.len()].copy_from_slice(bytes);
        device.write(page, &whole).expect("within the device");
        rest = tail;
    }
    let env = Env { clock: Arc::new(Fixed), runner: Arc::new(Inline), seed: 1, cache_bytes: 1 << 20 };
    let options = ImportOptions {
        read_only: how & 1 != 0,
        rewind: how & 2 != 0,
        force: true,
        host: Host { id: 7, name: "fuzz".into() },
        ..ImportOptions::default()
    };
    let new = NewDevice::new(device.clone(), "/fuzzed".into());
    let _ = Pool::find_pools(std::slice::from_ref(&new));
    let Ok((mut pool, _)) = Pool::import(&env, guid, vec![new], &options) else { return };
    let _ = use_it(&mut pool, how & 1 != 0);
}

/// What people do with a pool; errors are welcome.
fn use_it(pool: &mut Pool, read_only: bool) -> pool::Result<()> {
    let _ = (pool.status(), pool.usage(), pool.map(), pool.history(), pool.check());
    let mut bytes = vec![0; 1 << 17];
    let names: Vec<String> = pool.list()?.into_iter().map(|row| row.name).take(8).collect();
    for name in names {
        let name = name.split_once('/').map_or(name.as_str(), |(_, dataset)| dataset);
        let Ok(id) = pool.open(name) else { continue };
        let size = pool.volume_info(id).map_or(0, |info| info.size);
        let _ = pool.read(id, 0, &mut bytes[..size.min(1 << 17) as usize]);
        let _ = pool.runs(id, 0, size, 100);
        if !read_only {
            let _ = pool.write(id, 8192.min(size), &bytes[..size.saturating_sub(8192).min(20_000) as usize]);
        }
    }
    if read_only {
        return Ok(());
    }
    pool.flush()?;
    pool.scrub(ScrubAction::Start)?;
    for _ in 0..40 {
        if !pool.tick(8 << 20)? {
            break;
        }
    }
    pool.snapshot("vol@fuzz")?;
    pool.snapshot_destroy("vol@then")?;
    pool.flush()
}
