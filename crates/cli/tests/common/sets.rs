//! RAID sets on disk files, by their configuration files.

use std::fs;

use device::{Access, FileDevice};
use raidset::label::Label;
use serde_json::Value;

use super::{Bench, digest};

/// Size of a component, bytes.
pub const SIZE: u64 = 6 << 20;

/// A configuration file `NAME` of a set; each stripe unit has 16 sectors.
pub fn file(bench: &Bench, name: &str, disks: &[&str], spares: &[&str], level: char) -> String {
    let path = bench.path(name);
    let text = format!(
        "# a set\nSTART array\n# numCol numSpare\n{} {}\n\nSTART disks\n{}\n\nSTART spare\n{}\n\nSTART layout\n\
         # sectPerSU SUsPerParityUnit SUsPerReconUnit RAID_level\n16 1 1 {level}\n\nSTART queue\nfifo 100\n",
        disks.len(),
        spares.len(),
        disks.join("\n"),
        spares.join("\n")
    );
    fs::write(&path, text).unwrap();
    path
}

/// Names as they are listed in a configuration.
pub fn all(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Disk files, a set over the first `columns` of them as `unit`, with labels and good parity.
pub fn new_unit(bench: &Bench, unit: &str, first: usize, columns: usize, level: char) -> Vec<String> {
    let disks: Vec<String> = (first..first + columns).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
    let conf = file(bench, &format!("{unit}.conf"), &all(&disks), &[], level);
    bench.ok(&format!("raid -C {conf} {unit}"));
    bench.ok(&format!("raid -I {} {unit}", 1000 + first));
    bench.ok(&format!("raid -i {unit}"));
    disks
}

/// What `-s` says, as JSON.
pub fn status(bench: &Bench, unit: &str) -> Value {
    bench.run(&format!("raid --json -s {unit}")).data()
}

/// `name: status` of components and spares, with the last part of each name.
pub fn states(bench: &Bench, unit: &str) -> String {
    let data = status(bench, unit);
    let parts = [data["components"].as_array().unwrap().clone(), data["spares"].as_array().unwrap().clone()];
    let told = parts.concat().into_iter().map(|part| {
        let name = part["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        format!("{name}: {}", part["status"].as_str().unwrap())
    });
    told.collect::<Vec<_>>().join(", ")
}

/// That a command fails with exit code 1, saying all of `words`, and leaves the disks as they are.
pub fn refused(bench: &Bench, line: &str, disks: &[String], words: &[&str]) {
    let there = |disk: &&String| fs::metadata(disk).is_ok();
    let before: Vec<_> = disks.iter().filter(there).map(|disk| digest(disk)).collect();
    let ran = bench.run(line);
    assert_eq!(ran.code, 1, "coffer {line}\n{}{}", ran.out, ran.err);
    for word in words {
        assert!(ran.err.contains(word), "coffer {line}: {word:?} is missing in\n{}", ran.err);
    }
    assert!(
        before == disks.iter().filter(there).map(|disk| digest(disk)).collect::<Vec<_>>(),
        "coffer {line}"
    );
}

/// Changes a component's label behind everybody's back.
pub fn edit_label(path: &str, change: impl Fn(&mut Label)) {
    let device = FileDevice::open(path, Access::ReadWrite).unwrap();
    let mut label = Label::read(&device).unwrap().unwrap();
    change(&mut label);
    label.write(&device).unwrap();
}
