//! Members of arrays that Linux md made, read through our layouts: levels 0, 1, 4, 5 and 6 with md's left-symmetric algorithm are the same
//! mappings, only the data begins elsewhere. `COFFER_LAB=DIR` names a folder with a folder for each case: `disk-*.img`,
//! what the array really is in `truth.json`, and hashes of its files in `MANIFEST.sha256`. Without it nothing is tested.
//!
//! Each component of the set is a view: its first sectors in memory, then the data of a member. So labels and parity maps are written to memory
//! only, and a write of data, which nothing here may do, fails. The set is configured, all of its parity is compared with what md wrote,
//! and its contents are the file system that the manifest tells of, with every column away in turn.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{IoSlice, IoSliceMut, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use device::{Access, BlockDevice, DeviceError, DeviceInfo, FileDevice, Inline, MemoryDevice};
use raidset::layout::Level;
use raidset::set::{Parameters, RaidSet, Slot};
use serde_json::Value;

/// Bytes in front of the data of a component with 512-byte sectors.
const RESERVED: u64 = 32768;

#[derive(Debug)]
struct View {
    info: DeviceInfo,
    reserved: MemoryDevice,
    member: FileDevice,
    data_offset: u64,
    data_size: u64,
}

impl BlockDevice for View {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(RESERVED + self.data_size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        match offset.checked_sub(RESERVED) {
            Some(within) => self.member.read_vectored(self.data_offset + within, buffers),
            None => self.reserved.read_vectored(offset, buffers),
        }
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        match offset.checked_sub(RESERVED) {
            // Opened for reading only: this fails.
            Some(within) => self.member.write_vectored(self.data_offset + within, buffers),
            None => self.reserved.write_vectored(offset, buffers),
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Our level for a healthy case, and its chunk in sectors; `None` for what is no mapping of ours, or damaged.
fn level_of(case: &Path, truth: &Value) -> Option<(Level, u32)> {
    let (level, layout) = (truth["level"].as_str()?, truth["layout"].as_str());
    let level = match (level, layout) {
        ("raid0", _) => Level::Raid0,
        ("raid1", _) => Level::Mirror,
        ("raid4", _) => Level::Raid4,
        ("raid5", Some("left-symmetric")) => Level::Raid5,
        ("raid6", Some("left-symmetric")) => Level::Raid6,
        _ => return None,
    };
    let members = truth["members"].as_array()?;
    let ok = members.iter().all(|member| {
        let map = member["file"].as_str().is_none_or(|file| case.join(format!("{file}.map")).exists());
        member["state"] == "ok" && !map
    });
    let sizes = |member: &Value| member["data_size"].as_u64();
    let equal = level != Level::Raid0 || members.iter().all(|member| sizes(member) == sizes(&members[0]));
    let whole = truth["raid_disks"].as_u64() == Some(members.len() as u64);
    let clean = truth["done"].as_array()?.iter().all(|done| done == "stopped cleanly");
    let sectors = truth["chunk_bytes"].as_u64().unwrap_or(65536) / 512;
    (ok && whole && clean && equal).then_some((level, sectors as u32))
}

fn slots(case: &Path, truth: &Value) -> Vec<Slot> {
    let size = truth["md_sysfs"]["component_size"].as_str().and_then(|kib| kib.parse::<u64>().ok());
    let mut members = truth["members"].as_array().unwrap().clone();
    members.sort_by_key(|member| member["role"].as_u64());
    let slot = |member: &Value| {
        let name = member["file"].as_str().unwrap();
        let view = View {
            info: DeviceInfo {
                name: name.to_owned(),
                logical_sector: 512,
                physical_sector: 512,
                discards: false,
                block_device: false,
            },
            reserved: MemoryDevice::new(name, RESERVED),
            member: FileDevice::open(case.join(name), Access::ReadOnly).unwrap(),
            data_offset: member["data_offset"].as_u64().unwrap(),
            data_size: match size {
                Some(kib) if kib > 0 => kib * 1024,
                _ => member["data_size"].as_u64().unwrap(),
            },
        };
        Slot { name: name.to_owned(), device: Some(Arc::new(view)) }
    };
    members.iter().map(slot).collect()
}

fn contents(set: &RaidSet, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    set.read(0, &mut bytes).unwrap();
    bytes
}

/// The files of an ext4 image are those of the manifest; how many there are.
fn files_in(image: &Path, manifest: &Path) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let dump = Command::new("debugfs")
        .args(["-R", &format!("rdump / {}", dir.path().display())])
        .arg(image)
        .output()
        .expect("debugfs of e2fsprogs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let check = Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict"])
        .arg(manifest)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    fs::read_to_string(manifest).unwrap().lines().count()
}

fn try_case(case: &Path) -> Option<String> {
    let truth: Value = serde_json::from_str(&fs::read_to_string(case.join("truth.json")).ok()?).unwrap();
    let (level, sectors_per_unit) = level_of(case, &truth)?;
    let parameters = Parameters {
        level: level.clone(),
        sectors_per_unit,
        units_per_parity_unit: 1,
        units_per_recon_unit: 1,
        queue_length: 100,
    };
    let make = || {
        RaidSet::configure(0, parameters.clone(), slots(case, &truth), vec![], true, Arc::new(Inline))
            .unwrap()
    };
    let set = make();
    let size = truth["array_bytes"].as_u64().unwrap().min(set.size().unwrap());
    // md keeps its array to whole chunks; where it has no chunks, ours may be less than one shorter.
    assert!(set.size().unwrap() + u64::from(sectors_per_unit) * 512 > truth["array_bytes"].as_u64().unwrap());
    let whole = contents(&set, size as usize);
    let mut compared = 0;
    if set.layout().redundant() {
        assert_eq!(set.check_parity(&mut 0, u64::MAX, false).unwrap(), 0, "{}", case.display());
        compared = set.layout().stripes();
        for column in 0..set.layout().columns() {
            let degraded = make();
            degraded.fail_column(column).unwrap();
            assert!(contents(&degraded, size as usize) == whole, "{}, column {column} away", case.display());
        }
    }
    let mut files = None;
    if truth["filesystem"] == "ext4" && truth["lvm"] == false {
        let mut image = tempfile::NamedTempFile::new().unwrap();
        image.write_all(&whole).unwrap();
        files = Some(files_in(image.path(), &case.join("MANIFEST.sha256").canonicalize().unwrap()));
    }
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    let files =
        files.map_or_else(|| "no ext4 to look into".to_owned(), |files| format!("{files} files equal"));
    Some(format!(
        "{name}: {level} of {}, {} MiB, {compared} stripes match, {files}",
        set.layout().columns(),
        size >> 20
    ))
}

#[test]
fn members_of_linux_arrays_read_the_same() {
    let Some(lab) = std::env::var_os("COFFER_LAB").map(PathBuf::from) else {
        eprintln!("SKIPPED: COFFER_LAB names no folder of md arrays");
        return;
    };
    let mut cases: Vec<PathBuf> = fs::read_dir(lab).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let told: Vec<String> = cases.iter().filter_map(|case| try_case(case)).collect();
    told.iter().for_each(|line| eprintln!("{line}"));
    assert!(
        told.iter().any(|line| line.contains("RAID level 5")),
        "no healthy left-symmetric RAID 5 in the lab"
    );
}
