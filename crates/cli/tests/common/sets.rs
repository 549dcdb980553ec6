//! RAID sets on disk files, by their configuration files.

use std::fs;

use super::Bench;

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
