//! `coffer map`: a line for each chunk, and one for each place of its columns.

use pool::report::{ChunkReport, RemappedReport};

use crate::sizes::short_bytes;

/// All chunks.
pub(crate) fn map(chunks: &[ChunkReport], remapped: &[RemappedReport]) -> String {
    let mut text = String::new();
    for chunk in chunks {
        text.push_str(&format!(
            "{:#014x}  {:<8} {:<8} {:<10} {} of {} used, columns of {}{}\n",
            chunk.address.0,
            chunk.class,
            chunk.profile,
            chunk.group,
            short_bytes(chunk.used),
            short_bytes(chunk.length),
            short_bytes(chunk.column_length),
            if chunk.closed { ", being emptied" } else { "" }
        ));
        for place in &chunk.placements {
            let stale = match place.stale_regions {
                0 => String::new(),
                stale => format!("  {stale} of {} regions not up to date", place.regions),
            };
            text.push_str(&format!(
                "    column {:<3} device {:<3} at {:#014x}  {}{stale}\n",
                place.column, place.device, place.offset, place.name
            ));
        }
    }
    for run in remapped {
        text.push_str(&format!(
            "{:#014x}  {:<8} remapped {:<10} {} live elsewhere, {} entries up to {:#x}\n",
            run.address.0,
            run.class,
            "",
            short_bytes(run.bytes),
            run.entries,
            run.end.0
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use pool::report::PlacementReport;
    use pool::types::{DeviceId, Logical};

    use super::*;

    #[test]
    fn a_chunk_and_its_columns() {
        let place = |column, stale_regions| PlacementReport {
            column,
            device: DeviceId(u32::from(column)),
            name: format!("/x/{column}"),
            offset: 1 << 20,
            stale_regions,
            regions: 16,
        };
        let chunk = ChunkReport {
            address: Logical(1 << 30),
            length: 64 << 20,
            class: "Data".into(),
            profile: "raidz1".into(),
            closed: false,
            group: "raidz1-0".into(),
            used: 3 << 20,
            column_length: 32 << 20,
            placements: vec![place(0, 0), place(1, 4)],
        };
        let wanted = concat!(
            "0x000040000000  Data     raidz1   raidz1-0   3M of 64M used, columns of 32M\n",
            "    column 0   device 0   at 0x000000100000  /x/0\n",
            "    column 1   device 1   at 0x000000100000  /x/1  4 of 16 regions not up to date\n",
        );
        assert_eq!(map(&[chunk], &[]), wanted);
        let remapped = RemappedReport {
            address: Logical(1 << 20),
            end: Logical(3 << 20),
            class: "Data".into(),
            entries: 7,
            bytes: 1 << 20,
        };
        let line =
            "0x000000100000  Data     remapped            1M live elsewhere, 7 entries up to 0x300000\n";
        assert_eq!(map(&[], &[remapped]), line);
    }
}
