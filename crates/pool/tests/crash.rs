//! Power cuts at every moment of a commit, and a disk lost with it: what was flushed is there, and nothing needs repair.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use std::sync::Arc;

use common::*;
use device::sim::{Cut, PowerSupply};
use pool::spec::GroupKind;
use pool::{Pool, ScrubAction};
use sims::Sims;

/// After the cut the unflushed writes survive as `seed` has it; then the pool is imported without `gone`.
fn after_a_cut(kind: GroupKind, cut: u64, gone: &[usize]) -> bool {
    let sims = Sims::new(4, 64);
    let mut pool = create(&spec(vec![sims.group(kind, 0..4)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    let old = noise(1, 2 * MIB as usize);
    pool.write(id, 0, &old).unwrap();
    pool.flush().unwrap();
    let guid = pool.guid();
    let supply = Arc::new(PowerSupply::new());
    sims.0.iter().for_each(|sim| sim.set_supply(Some(supply.clone())));
    supply.cut_after(cut);
    // Every second block is overwritten; the rows that hold the others stay as they are.
    let new = noise(2 + cut, MIB as usize);
    for block in 0..64u64 {
        let from = block as usize * 16384;
        let _ = pool.write(id, block * 32768, &new[from..from + 16384]);
    }
    let acknowledged = pool.flush().is_ok();
    let finished = supply.is_on();
    drop(pool);
    for (index, sim) in sims.0.iter().enumerate() {
        sim.power_cut(Cut::Random(cut * 31 + index as u64));
    }
    supply.restore();
    // Devices that did not take the root of an acknowledged flush count among those that may be lost.
    let txgs: Vec<u64> = sims.0.iter().map(|sim| Pool::examine(&**sim).unwrap().unwrap().txg.0).collect();
    let behind = txgs.iter().filter(|&txg| Some(txg) < txgs.iter().max()).count();
    let gone = &gone[..gone.len().saturating_sub(if acknowledged { behind } else { 0 })];
    let (mut pool, _) = Pool::import(&env(7 + cut), guid, sims.without(gone), &options()).unwrap();
    let id = pool.open("vol").unwrap();
    let found = read(&mut pool, id, 0, 2 * MIB as usize);
    let is_new = found[..16384] == new[..16384];
    assert!(is_new || !acknowledged, "cut {cut}: what a flush returned for is gone");
    for (block, bytes) in found.chunks(16384).enumerate() {
        let wanted = if is_new && block % 2 == 0 {
            &new[block / 2 * 16384..][..16384]
        } else {
            &old[block * 16384..][..16384]
        };
        assert!(bytes == wanted, "cut {cut}, block {block}: all of the last flush or nothing of it");
    }
    assert_sound(&mut pool);
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    let scan = pool.scan().unwrap();
    assert_eq!((scan.errors, scan.repaired), (0, 0), "cut {cut}: nothing to repair");
    finished
}

#[test]
fn there_is_no_write_hole() {
    for (kind, gone) in
        [(GroupKind::Raidz(1), &[2][..]), (GroupKind::Raidz(2), &[0, 3]), (GroupKind::Mirror, &[0, 1, 2])]
    {
        let mut cut = 0;
        while !after_a_cut(kind, cut, if cut % 3 == 0 { &[] } else { gone }) {
            cut += 1;
        }
        assert!(cut > 20, "{kind:?}: a commit of {cut} requests");
    }
}
