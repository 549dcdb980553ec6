//! `coffer rescue` with a plan that looks at parity, on a RAID 6 of four with a member that is silently wrong; and what plans and
//! lists of volumes say of what is odd.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::Bench;
use serde_json::{Value, json};

const CHUNK: usize = 16 << 10;
const ROWS: usize = 12;
/// Where the data begins on each member.
const START: usize = 8192;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 77_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Members of a left-symmetric RAID 6 with this content, and a plan for them.
fn raid6(bench: &Bench, contents: &[u8]) -> (Vec<String>, Value) {
    let mut members = vec![vec![0; START]; 4];
    for (stripe, row) in contents.chunks(2 * CHUNK).enumerate() {
        let (first, second) = row.split_at(CHUNK);
        let double = |byte: u8| (byte << 1) ^ if byte & 0x80 == 0 { 0 } else { 0x1d };
        let p = 3 - stripe % 4;
        members[p].extend(first.iter().zip(second).map(|(a, b)| a ^ b));
        members[(p + 1) % 4].extend(first.iter().zip(second).map(|(a, b)| a ^ double(*b)));
        members[(p + 2) % 4].extend_from_slice(first);
        members[(p + 3) % 4].extend_from_slice(second);
    }
    let paths: Vec<String> = (0..4).map(|number| bench.path(&format!("disk{number}"))).collect();
    paths.iter().zip(members).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let slot = |path: &String| json!({ "path": path, "data_offset": START, "size": ROWS * CHUNK });
    let slots: Vec<Value> = paths.iter().map(slot).collect();
    let candidate = json!({
        "array": "nas", "score": 100, "reasons": [], "level": 6, "layout": 2, "chunk": CHUNK, "slots": slots,
    });
    (paths, json!({ "candidates": [candidate] }))
}

fn save(bench: &Bench, name: &str, plan: &Value) -> String {
    let path = bench.path(name);
    fs::write(&path, plan.to_string()).unwrap();
    path
}

/// Changes bytes of a member as a disk would that lies.
fn spoil(path: &str, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 100].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_member_that_is_silently_wrong_is_found_corrected_and_recorded() {
    let bench = Bench::new();
    let contents = noise(2 * CHUNK * ROWS);
    let (members, mut plan) = raid6(&bench, &contents);
    // Member 1 holds data there in row 0, which is at byte 16 KiB of the array and on, and Q in row 2.
    spoil(&members[1], START + 1024);
    spoil(&members[1], START + 2 * CHUNK);
    // In row 4 two members with data are wrong.
    spoil(&members[1], START + 4 * CHUNK + 512);
    spoil(&members[2], START + 4 * CHUNK + 560);
    let plain = save(&bench, "plain", &plan);
    let to = bench.path("as-it-is");
    bench.ok(&format!("rescue copy --plan {plain} nas --to {to}"));
    assert!(fs::read(&to).unwrap() != contents);
    let record = bench.path("record");
    let line = format!("rescue copy --plan {plain} nas --to {to}.2 --record {record}");
    assert_eq!(bench.run(&line).code, 2, "there is nothing to record");

    plan["candidates"][0]["check_parity"] = json!(true);
    let plan = save(&bench, "plan", &plan);
    let to = bench.path("checked");
    let said = bench.ok(&format!("rescue copy --plan {plan} nas --to {to} --record {record}"));
    assert!(said.contains(&format!("1024 bytes of {} (slot 1) are silently wrong", members[1])), "{said}");
    assert!(said.contains("parity does not fit in 512 bytes of its rows"), "{said}");
    let copy = fs::read(&to).unwrap();
    let wrong: Vec<usize> = (0..copy.len()).filter(|at| copy[*at] != contents[*at]).collect();
    assert!(!wrong.is_empty() && wrong.iter().all(|at| at / (2 * CHUNK) == 4), "only what can't be told");
    let text = fs::read_to_string(&record).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let of = |slot: Value, at: usize| {
        lines.iter().find(|line| line["slot"] == slot && line["at"] == json!(at)).unwrap_or(&Value::Null)
    };
    let data = of(json!(1), START + 1024);
    assert_eq!((&data["member"], &data["length"]), (&json!(members[1]), &json!(512)));
    assert_eq!(data["address"], 1024, "{data}");
    assert_eq!(of(json!(1), START + 2 * CHUNK)["address"], Value::Null, "it is parity");
    assert_eq!(of(Value::Null, 4 * CHUNK + 512)["length"], 512);
    // The record is never a member or the copy.
    let line = format!("rescue copy --plan {plan} nas --to {to}.3 --record");
    bench.fails(&format!("{line} {}", members[0]));
    assert_eq!(bench.run(&format!("{line} {to}.3")).code, 2);
}

/// A volume with nothing on it that anybody knows is not called well.
#[test]
fn what_is_not_recognised_is_not_ok() {
    let bench = Bench::new();
    let (_, plan) = raid6(&bench, &noise(2 * CHUNK * ROWS));
    let plan = save(&bench, "plan", &plan);
    let said = bench.ok(&format!("rescue volumes --plan {plan}"));
    assert!(said.contains("  unknown  nothing recognised; nothing to check"), "{said}");
    assert!(said.contains("1 volume, 0 with errors, 1 unknown"), "{said}");
    assert!(!said.contains(" ok "), "{said}");
    let listed = bench.run(&format!("--json rescue volumes --plan {plan}")).data();
    assert_eq!(listed[0]["state"], "unknown");
}

/// A plan that was edited is not lost to a second `plan --save`.
#[test]
fn an_edited_plan_is_overwritten_only_by_force() {
    let bench = Bench::new();
    let folder = bench.path("demo");
    bench.ok(&format!("rescue demo --dir {folder}"));
    let members: Vec<String> = "abcde".chars().map(|c| format!("{folder}/disk-{c}.img")).collect();
    let plan = bench.path("plan");
    let line = format!("rescue plan --save {plan} {}", members.join(" "));
    let said = bench.ok(&line);
    assert!(said.contains("1 member is missing, which its redundancy makes up for"), "{said}");
    let made = fs::read_to_string(&plan).unwrap();
    // The same once more is no loss.
    bench.ok(&line);
    let edited = made.replace("\"score\"", "\"score\" ");
    fs::write(&plan, &edited).unwrap();
    let refused = bench.fails(&line);
    assert!(refused.contains("exists and is not this plan") && refused.contains("-f"), "{refused}");
    assert_eq!(fs::read_to_string(&plan).unwrap(), edited);
    bench.ok(&format!("{line} -f"));
    assert_eq!(fs::read_to_string(&plan).unwrap(), made);
    assert!(!made.contains("check_parity"), "{made}");
    bench.ok(&format!("{line} -f --check-parity"));
    assert!(fs::read_to_string(&plan).unwrap().contains("\"check_parity\": true"));
    // Something else is not overwritten either, and not by accident.
    let other = bench.path("precious");
    fs::write(&other, "precious").unwrap();
    bench.fails(&format!("rescue plan --save {other} {}", members.join(" ")));
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
}
