//! `coffer usage`, in the shape of `btrfs filesystem usage`.

use std::fmt::Write;

use pool::report::{DeviceUsage, ProfileUsage, UsageReport};
use pool::types::DeviceId;

use crate::sizes::decimals;

/// Classes in the order in which they are shown.
const CLASSES: [&str; 3] = ["Data", "Metadata", "System"];

/// The profiles in use, by class and then by name.
fn in_order(report: &UsageReport) -> Vec<&ProfileUsage> {
    let mut profiles: Vec<&ProfileUsage> = report.profiles.iter().collect();
    profiles
        .sort_by_key(|usage| (CLASSES.iter().position(|class| *class == usage.class), usage.profile.clone()));
    profiles
}

/// The overall numbers.
fn overall(report: &UsageReport) -> String {
    let size = decimals;
    let mut text = String::from("Overall:\n");
    let mut line = |label: &str, tabs: &str, value: String, rest: String| {
        let _ = writeln!(text, "    {label}:{tabs}{value:>10}{rest}");
    };
    let none = String::new;
    line("Device size", "\t\t", size(report.device_size), none());
    line("Device allocated", "\t\t", size(report.device_allocated), none());
    line("Device unallocated", "\t\t", size(report.device_unallocated), none());
    line("Device missing", "\t\t", size(report.device_missing), none());
    line("Used", "\t\t\t", size(report.used), none());
    line(
        "Free (estimated)",
        "\t\t",
        size(report.free_estimated),
        format!("\t(min: {})", size(report.free_min)),
    );
    line("Free (statfs, df)", "\t\t", size(report.free_statfs), none());
    line("Data ratio", "\t\t\t", format!("{:.2}", report.data_ratio), none());
    line("Metadata ratio", "\t\t", format!("{:.2}", report.metadata_ratio), none());
    let reserve = format!("\t(used: {})", size(report.global_reserve_used));
    line("Global reserve", "\t\t", size(report.global_reserve), reserve);
    let multiple = if report.multiple_profiles { "yes" } else { "no" };
    line("Multiple profiles", "\t\t", multiple.to_owned(), none());
    text
}

/// A device's name; one that is missing is told by its number.
fn device_name(device: &DeviceUsage) -> String {
    if device.missing { format!("missing, ID: {}", device.id) } else { device.name.clone() }
}

/// Bytes of a profile on a device.
fn on_device(profile: &ProfileUsage, id: DeviceId) -> u64 {
    profile.devices.iter().filter(|(device, _)| *device == id).map(|(_, bytes)| bytes).sum()
}

/// With a section for each class and profile.
pub(crate) fn usage(report: &UsageReport) -> String {
    let mut text = overall(report);
    let width = report.devices.iter().map(|device| device_name(device).chars().count()).max().unwrap_or(0);
    let mut lines = |title: String, sizes: &dyn Fn(&DeviceUsage) -> u64, with_zeros: bool| {
        let _ = writeln!(text, "\n{title}");
        for device in &report.devices {
            let bytes = sizes(device);
            if bytes > 0 || with_zeros {
                let _ = writeln!(text, "   {:<width$}\t{:>10}", device_name(device), decimals(bytes));
            }
        }
    };
    for profile in in_order(report) {
        let percent = if profile.size == 0 { 0.0 } else { profile.used as f64 * 100.0 / profile.size as f64 };
        let title = format!(
            "{},{}: Size:{}, Used:{} ({percent:.2}%)",
            profile.class,
            profile.profile,
            decimals(profile.size),
            decimals(profile.used)
        );
        lines(title, &|device| on_device(profile, device.id), false);
    }
    lines("Unallocated:".to_owned(), &|device| device.unallocated, true);
    text
}

/// With one table, a line for each device.
pub(crate) fn usage_table(report: &UsageReport) -> String {
    let mut columns: Vec<Vec<String>> = Vec::new();
    let cell = |bytes: u64| if bytes == 0 { "-".to_owned() } else { decimals(bytes) };
    let devices = &report.devices;
    let column = |head: [&str; 2], cells: Vec<String>, total: String, used: String| {
        let mut all = vec![head[0].to_owned(), head[1].to_owned()];
        all.extend(cells);
        all.extend([total, used]);
        all
    };
    let blank = String::new;
    columns.push(column(
        ["", "Id"],
        devices.iter().map(|device| device.id.to_string()).collect(),
        blank(),
        blank(),
    ));
    columns.push(column(
        ["", "Path"],
        devices.iter().map(device_name).collect(),
        "Total".into(),
        "Used".into(),
    ));
    for profile in in_order(report) {
        let cells = devices.iter().map(|device| cell(on_device(profile, device.id))).collect();
        columns.push(column(
            [&profile.class, &profile.profile],
            cells,
            decimals(profile.size),
            decimals(profile.used),
        ));
    }
    let unallocated = devices.iter().map(|device| cell(device.unallocated)).collect();
    columns.push(column(["", "Unallocated"], unallocated, decimals(report.device_unallocated), blank()));
    let sizes = devices.iter().map(|device| decimals(device.size)).collect();
    columns.push(column(["", "Total"], sizes, decimals(report.device_size), blank()));

    let widths: Vec<usize> = columns
        .iter()
        .map(|cells| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let rows = devices.len() + 4;
    let mut text = overall(report);
    text.push('\n');
    let rule = |text: &mut String| {
        let dashes: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        let _ = writeln!(text, "{}", dashes.join(" "));
    };
    for row in 0..rows {
        let heads = row < 2;
        let cells = columns.iter().zip(&widths).enumerate().map(|(column, (cells, &width))| {
            // Heads and names are at the left, numbers at the right.
            if (heads && column != 0) || column == 1 {
                format!("{:<width$}", cells[row])
            } else {
                format!("{:>width$}", cells[row])
            }
        });
        let line = cells.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "{}", line.trim_end());
        if row == 1 || row == rows - 3 {
            rule(&mut text);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a btrfs on two devices, as its own tool printed them.
    fn report() -> UsageReport {
        const MIB: u64 = 1 << 20;
        let on = |sizes: [u64; 2]| vec![(DeviceId(1), sizes[0] * MIB), (DeviceId(2), sizes[1] * MIB)];
        let profile = |class: &str, profile: &str, size, used, devices| ProfileUsage {
            class: class.into(),
            profile: profile.into(),
            size,
            used,
            devices,
        };
        let device = |id, name: &str, unallocated| DeviceUsage {
            id: DeviceId(id),
            name: name.into(),
            size: 300 * MIB,
            unallocated,
            missing: false,
        };
        UsageReport {
            pool: "tank".into(),
            device_size: 600 * MIB,
            device_allocated: 152 * MIB,
            device_unallocated: 448 * MIB,
            device_missing: 0,
            used: 20 * MIB + (348 << 10),
            free_estimated: 500 * MIB,
            free_min: 276 * MIB,
            free_statfs: 498 * MIB,
            data_ratio: 1.0,
            metadata_ratio: 2.0,
            global_reserve: 11 * MIB / 2,
            global_reserve_used: 0,
            multiple_profiles: false,
            profiles: vec![
                profile("System", "RAID1", 8 * MIB, 16 << 10, on([8, 8])),
                profile("Data", "single", 72 * MIB, 20 * MIB, on([8, 64])),
                profile("Metadata", "RAID1", 32 * MIB, 160 << 10, on([32, 32])),
            ],
            devices: vec![device(1, "/dev/loop0", 252 * MIB), device(2, "/dev/loop1", 196 * MIB)],
        }
    }

    const OVERALL: &str = concat!(
        "Overall:\n",
        "    Device size:\t\t 600.00MiB\n",
        "    Device allocated:\t\t 152.00MiB\n",
        "    Device unallocated:\t\t 448.00MiB\n",
        "    Device missing:\t\t     0.00B\n",
        "    Used:\t\t\t  20.34MiB\n",
        "    Free (estimated):\t\t 500.00MiB\t(min: 276.00MiB)\n",
        "    Free (statfs, df):\t\t 498.00MiB\n",
        "    Data ratio:\t\t\t      1.00\n",
        "    Metadata ratio:\t\t      2.00\n",
        "    Global reserve:\t\t   5.50MiB\t(used: 0.00B)\n",
        "    Multiple profiles:\t\t        no\n",
    );

    #[test]
    fn sections() {
        let wanted = concat!(
            "\n",
            "Data,single: Size:72.00MiB, Used:20.00MiB (27.78%)\n",
            "   /dev/loop0\t   8.00MiB\n",
            "   /dev/loop1\t  64.00MiB\n",
            "\n",
            "Metadata,RAID1: Size:32.00MiB, Used:160.00KiB (0.49%)\n",
            "   /dev/loop0\t  32.00MiB\n",
            "   /dev/loop1\t  32.00MiB\n",
            "\n",
            "System,RAID1: Size:8.00MiB, Used:16.00KiB (0.20%)\n",
            "   /dev/loop0\t   8.00MiB\n",
            "   /dev/loop1\t   8.00MiB\n",
            "\n",
            "Unallocated:\n",
            "   /dev/loop0\t 252.00MiB\n",
            "   /dev/loop1\t 196.00MiB\n",
        );
        assert_eq!(usage(&report()), format!("{OVERALL}{wanted}"));
    }

    #[test]
    fn a_table() {
        let mut report = report();
        report.devices[1].missing = true;
        report.profiles[1].devices.remove(0);
        let wanted = concat!(
            "\n",
            "                  Data     Metadata  System\n",
            "Id Path           single   RAID1     RAID1    Unallocated Total\n",
            "-- -------------- -------- --------- -------- ----------- ---------\n",
            " 1 /dev/loop0            -  32.00MiB  8.00MiB   252.00MiB 300.00MiB\n",
            " 2 missing, ID: 2 64.00MiB  32.00MiB  8.00MiB   196.00MiB 300.00MiB\n",
            "-- -------------- -------- --------- -------- ----------- ---------\n",
            "   Total          72.00MiB  32.00MiB  8.00MiB   448.00MiB 600.00MiB\n",
            "   Used           20.00MiB 160.00KiB 16.00KiB\n",
        );
        assert_eq!(usage_table(&report), format!("{OVERALL}{wanted}"));
    }
}
