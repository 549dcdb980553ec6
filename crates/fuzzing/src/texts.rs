//! Texts that people or other programs write: configuration of RAID sets, maps of bad sectors, rescue plans.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]

use std::sync::Arc;

use device::{BadMap, BlockDevice, MemoryDevice};
use raidset::config::Config;
use rescue::Plan;

/// The first byte says which.
pub fn run(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(data);
    match kind % 3 {
        0 => {
            let wedge = |name: &str| name.len().is_multiple_of(2).then(|| format!("/dev/dk{}", name.len()));
            if let Ok(config) = Config::parse("raid.conf", &text, wedge) {
                let _ = config.generate("raid0");
            }
        }
        1 => {
            if let Ok(map) = BadMap::parse(&text) {
                let size = 1 << 30;
                let printed = map.print(size);
                let again = BadMap::parse(&printed).expect("what is printed is read");
                assert_eq!(again.print(size), printed);
            }
        }
        _ => {
            let Ok(plan) = Plan::from_text(&text) else { return };
            let again = plan.to_text().expect("what was read can be printed");
            assert_eq!(Plan::from_text(&again).expect("what is printed is read"), plan);
            for candidate in plan.candidates.iter().take(4).filter(|candidate| candidate.slots.len() <= 64) {
                let device = || -> Arc<dyn BlockDevice> { Arc::new(MemoryDevice::new("fuzzed", 1 << 20)) };
                let devices: Vec<_> =
                    candidate.slots.iter().map(|slot| slot.as_ref().map(|_| device())).collect();
                if let Ok(array) = candidate.assemble(&devices) {
                    let mut bytes = [0; 8192];
                    let size = array.size().unwrap_or(0);
                    let _ = array.read(0, &mut bytes);
                    let _ = array.read(size.saturating_sub(8192), &mut bytes);
                }
            }
        }
    }
}
