//! Scans and plans as text for people, in the words that users of mdadm know.

use std::fmt::Write;

use crate::{Candidate, ComponentSet, ComponentState, MemberState, Plan, Scan};

/// What a scan found: images, then arrays with their members, then what to do next.
pub fn render_scan(scan: &Scan) -> String {
    let mut text = String::new();
    for image in &scan.images {
        let holds =
            if image.holds.is_empty() { "nothing recognised".to_owned() } else { image.holds.join("; ") };
        line(&mut text, format_args!("{}: {}, {holds}", image.path, bytes(image.size)));
        if image.bad > 0 {
            line(&mut text, format_args!("    {} can't be read", bytes(image.bad)));
        }
        for problem in &image.problems {
            line(&mut text, format_args!("    problem: {problem}"));
        }
        for partition in &image.partitions {
            let holds = if partition.holds.is_empty() {
                "nothing recognised".to_owned()
            } else {
                partition.holds.join("; ")
            };
            let (number, size) = (partition.number, bytes(partition.size));
            line(&mut text, format_args!("    partition {number}: {size}, {holds}"));
            for problem in &partition.problems {
                line(&mut text, format_args!("        problem: {problem}"));
            }
        }
    }
    for array in &scan.arrays {
        let name = array.name.as_deref().unwrap_or("without a name");
        line(&mut text, format_args!(""));
        line(&mut text, format_args!("Array {name}, UUID {}", array.uuid));
        line(
            &mut text,
            format_args!(
                "    {}, {} devices, chunk {}, metadata {}, events {}",
                array.shape,
                array.raid_disks,
                bytes(array.chunk),
                array.version,
                array.events
            ),
        );
        if array.reshaping {
            line(&mut text, format_args!("    a reshape was interrupted"));
        }
        for member in &array.members {
            let slot = member.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
            let state = match member.state {
                MemberState::Fresh => "up to date".to_owned(),
                MemberState::Stale => {
                    format!("stale, {} events behind", array.events.saturating_sub(member.events))
                }
                MemberState::Duplicate => "a copy of another image".to_owned(),
                MemberState::NoSlot => "no slot: spare, journal or faulty".to_owned(),
            };
            let partition =
                member.partition.map_or_else(String::new, |number| format!(" (partition {number})"));
            line(
                &mut text,
                format_args!(
                    "    slot {slot}: {}{partition}, updated {}, {state}",
                    member.path,
                    utc(member.updated)
                ),
            );
            for note in &member.notes {
                line(&mut text, format_args!("        {note}"));
            }
        }
        for contradiction in &array.contradictions {
            line(&mut text, format_args!("    problem: {contradiction}"));
        }
        for slot in &array.missing {
            line(&mut text, format_args!("    slot {slot}: missing"));
        }
    }
    for set in &scan.sets {
        let kind = if set.kind == "imsm" { "Intel (IMSM)" } else { "DDF" };
        line(&mut text, format_args!("\n{kind} set {}, state {}", set.id, set.generation));
        for volume in &set.volumes {
            line(&mut text, format_args!("    volume {volume}"));
        }
        for (path, generation) in &set.disks {
            let state = if *generation == set.generation { "up to date" } else { "stale" };
            line(&mut text, format_args!("    {path}, {state}"));
        }
    }
    for set in &scan.component_sets {
        component_set_lines(&mut text, set);
    }
    let next = if scan.arrays.is_empty() && scan.sets.is_empty() && scan.component_sets.is_empty() {
        "No array says what it was. A plan may still be found from the contents."
    } else {
        "Next: 'coffer rescue plan --save FILE' with the same disks; 'coffer rescue volumes --plan FILE' shows what it gives."
    };
    line(&mut text, format_args!("\n{next}"));
    text
}

/// A set of RAIDframe, in the words that users of raidctl know.
fn component_set_lines(text: &mut String, set: &ComponentSet) {
    line(text, format_args!("\nRAIDframe set raid{}, serial number {}", set.unit, set.serial_number));
    let clean = |clean: bool| if clean { "Yes" } else { "No" };
    line(
        text,
        format_args!(
            "    {}, {} columns, sectPerSU {}, blocksize {}, mod counter {}, clean: {}",
            set.shape,
            set.num_columns,
            set.sectors_per_unit,
            set.block_size,
            set.mod_counter,
            clean(set.clean)
        ),
    );
    for component in &set.components {
        let difference = set.mod_counter.abs_diff(component.mod_counter);
        let state = match component.state {
            ComponentState::Current => "up to date".to_owned(),
            ComponentState::Stale => format!("stale, mod counter {difference} behind"),
            ComponentState::Ahead => {
                format!("mod counter {difference} ahead of the others, which do without it")
            }
            ComponentState::Duplicate => "another component of the same column".to_owned(),
        };
        let partition =
            component.partition.map_or_else(String::new, |number| format!(" (partition {number})"));
        line(
            text,
            format_args!(
                "    column {}: {}{partition}, mod counter {}, clean: {}, {state}",
                component.column,
                component.path,
                component.mod_counter,
                clean(component.clean)
            ),
        );
    }
    for column in &set.missing {
        line(text, format_args!("    column {column}: missing"));
    }
    for problem in &set.problems {
        line(text, format_args!("    problem: {problem}"));
    }
}

/// The candidates of a plan, best first, with the reasons.
pub fn render_plan(plan: &Plan) -> String {
    if plan.candidates.is_empty() {
        return "No way to put these together was found. Are all disks there?\n".to_owned();
    }
    let mut text = String::new();
    for (number, candidate) in (1..).zip(&plan.candidates) {
        candidate_lines(&mut text, number, candidate);
    }
    text
}

fn candidate_lines(text: &mut String, number: usize, candidate: &Candidate) {
    let Candidate { array, score, shape, .. } = candidate;
    line(
        text,
        format_args!("{number}. {array}: {shape}, chunk {}, score {score} of 100", bytes(candidate.chunk)),
    );
    if let Some(reshape) = &candidate.reshape {
        line(
            text,
            format_args!(
                "    reshape from {} to {} devices stopped at {}",
                reshape.old_disks,
                reshape.new_disks,
                bytes(reshape.position)
            ),
        );
    }
    for (index, slot) in candidate.slots.iter().enumerate() {
        match slot {
            Some(slot) => line(
                text,
                format_args!(
                    "    slot {index}: {}, data at {}",
                    slot.path.display(),
                    bytes(slot.data_offset)
                ),
            ),
            None => line(text, format_args!("    slot {index}: missing")),
        }
    }
    for left_out in &candidate.left_out {
        line(text, format_args!("    left out: {}: {}", left_out.path.display(), left_out.reason));
    }
    for reason in &candidate.reasons {
        line(text, format_args!("    - {reason}"));
    }
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{what}");
}

/// A time in seconds since 1970 as mdadm's users know it, in UTC.
fn utc(seconds: u64) -> String {
    let (mut days, rest) = (seconds / 86_400, seconds % 86_400);
    // No superblock is from a later age.
    if days > 3_000_000 {
        return format!("{seconds} s after 1970");
    }
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02}:{:02} UTC", days + 1, rest / 3600, rest / 60 % 60, rest % 60)
}

/// A size in the largest unit that it is a whole number of.
fn bytes(count: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count > 0 && count.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", count / unit),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(u64::MAX), format!("{} s after 1970", u64::MAX));
    }
}
