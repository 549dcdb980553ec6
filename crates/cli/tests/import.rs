//! Import: going back to older states, damaged labels, too little left.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../export/tests/common/client.rs"]
mod client;
mod common;

use std::fs;
use std::path::Path;

use client::Client;
use common::{Bench, bring_back, damage, digest, noise, take_away};

/// Size of the disks here, the least there may be, bytes.
const SMALL: u64 = 64 << 20;
/// Size of a label, bytes.
const LABEL: u64 = 256 << 10;
/// Where the four labels of a disk of [`SMALL`] begin.
const LABELS: [u64; 4] = [0, LABEL, SMALL - 2 * LABEL, SMALL - LABEL];

/// The ranges, in sectors, where two images of a disk differ outside the labels.
fn changed(before: &[u8], after: &[u8]) -> Vec<u64> {
    let sectors = before.chunks(4096).zip(after.chunks(4096)).enumerate();
    let differ = sectors.filter(|(_, (before, after))| before != after).map(|(index, _)| index as u64 * 4096);
    differ.filter(|at| (LABELS[1] + LABEL..LABELS[2]).contains(at)).collect()
}

/// The roots that can be imported, newest first.
fn roots(bench: &Bench, dir: &str) -> Vec<u64> {
    let said = bench.fails(&format!("import -d {dir} -n -T 999999 tank"));
    let list = said.rsplit_once("are ").expect("a list").1;
    list.trim().split(", ").map(|txg| txg.parse().expect("a number")).collect()
}

/// A mirror that a killed server has left: what its volume held before and after the last write, the images of its
/// disks before that write, and their paths.
struct Left {
    bench: Bench,
    disks: Vec<String>,
    before: Vec<Vec<u8>>,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn left() -> Left {
    let bench = Bench::new();
    let disks: Vec<String> = (0..2).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 0);
    let (old, new) = (noise(98, 1 << 20), noise(99, 1 << 20));
    let socket = bench.path("nbd.sock");
    let server = bench.start(&format!("nbd tank/vol --socket {socket}"));
    let mut client = Client::open(Path::new(&socket), "tank/vol", true);
    let mut write = |bytes: &[u8]| {
        client.write(0, 0, bytes).unwrap();
        client.plain(client::FLUSH, 0, 0, 0).unwrap();
    };
    write(&old);
    let before = disks.iter().map(|disk| fs::read(disk).unwrap()).collect();
    write(&new);
    server.kill();
    fs::remove_dir_all(bench.path("state")).unwrap();
    Left { bench, disks, before, old, new }
}

#[test]
fn an_older_state_is_imported_by_its_number() {
    let Left { bench, disks, old, new, .. } = left();
    let dir = bench.path("");
    let roots = roots(&bench, &dir);
    assert!((2..=3).contains(&roots.len()), "{roots:?}");
    // What is only planned changes nothing, and says what would be lost.
    let untouched: Vec<_> = disks.iter().map(|disk| digest(disk)).collect();
    let mut holds_old = None;
    for txg in &roots[1..] {
        let said = bench.ok(&format!("import -d {dir} -n -T {txg} tank"));
        assert!(said.contains(&format!("to {txg}")) && said.contains("lost"), "{said}");
        assert!(said.contains("going back") && !said.contains("was imported"), "{said}");
        bench.ok(&format!("import -d {dir} -o readonly=on -T {txg} tank"));
        let head = bench.bytes("volume read tank/vol --length 1M");
        if head == old {
            holds_old = holds_old.or(Some(*txg));
        }
        bench.ok("export tank");
    }
    let said = bench.ok(&format!("import -d {dir} -n -T {} tank", roots[0]));
    assert!(said.contains("nothing is lost"), "{said}");
    assert_eq!(disks.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), untouched);
    bench.ok(&format!("import -d {dir} -o readonly=on tank"));
    bench.holds("tank/vol", &new);
    bench.ok("export tank");
    // Then for good: told first, and from then on it is the state of the pool.
    let txg = holds_old.expect("one of the roots is from before the write");
    let ran = bench.run(&format!("import -d {dir} -T {txg} tank"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let at = |part: &str| ran.err.find(part).unwrap_or_else(|| panic!("no '{part}' in {}", ran.err));
    assert!(at("lost") < at(&format!("was imported as of transaction group {txg}")), "{}", ran.err);
    assert!(at(&format!("to {txg}")) < at("was imported"), "{}", ran.err);
    bench.holds("tank/vol", &old);
    assert!(bench.ok("check tank").contains("no problems"));
    assert!(bench.ok("scrub -w tank").contains("with 0 errors"));
    bench.ok("export tank");
    bench.ok("import tank");
    bench.holds("tank/vol", &old);
    assert_eq!(bench.feed("volume write tank/vol --offset 2M", &new).code, 0);
    assert!(bench.bytes("volume read tank/vol --offset 2M --length 1M") == new);
}

#[test]
fn the_newest_state_that_opens_is_imported() {
    let Left { bench, disks, before, old, .. } = left();
    let dir = bench.path("");
    // What the last write has put on the disks is damaged on both of them.
    for (disk, before) in disks.iter().zip(&before) {
        let after = fs::read(disk).unwrap();
        for at in changed(before, &after) {
            damage(disk, at, &noise(at, 4096));
        }
    }
    let said = bench.fails_untouched(&format!("import -d {dir} tank"), &disks);
    assert!(said.contains("does not open") && said.contains("-F"), "{said}");
    let untouched: Vec<_> = disks.iter().map(|disk| digest(disk)).collect();
    let said = bench.ok(&format!("import -d {dir} -n -F tank"));
    assert!(said.contains("going back") && said.contains("lost"), "{said}");
    assert_eq!(disks.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), untouched);
    let ran = bench.run(&format!("import -d {dir} -F tank"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("lost"), "{}", ran.err);
    bench.holds("tank/vol", &old);
    assert!(bench.ok("check tank").contains("no problems"));
    let said = bench.ok("scrub -w tank");
    assert!(said.contains("with 0 errors"), "{said}");
    bench.ok("export tank");
    // The newest state opens now.
    let said = bench.ok(&format!("import -d {dir} -n -F tank"));
    assert!(said.contains("nothing is lost"), "{said}");
    bench.ok("import tank");
    bench.holds("tank/vol", &old);
}

/// What happens to a label.
fn wounds(label: &[u8], foreign: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let half = label.len() / 2;
    let flipped = |at: usize| {
        let mut bytes = label.to_vec();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut ring = label.to_vec();
    ring[128 << 10..].chunks_mut(8192).for_each(|slot| slot[100] ^= 1);
    vec![
        ("zeroed", vec![0; label.len()]),
        ("noise", noise(5, label.len())),
        ("cut off in the middle", [&label[..half], &vec![0; half][..]].concat()),
        (
            "cut off in its header",
            [&label[..(16 << 10) + 40], &vec![0; label.len() - (16 << 10) - 40]].concat(),
        ),
        ("a bit of its magic flipped", flipped(16 << 10)),
        ("a bit of the pool's number flipped", flipped((16 << 10) + 25)),
        ("a bit of its checksum flipped", flipped((20 << 10) - 1)),
        ("a bit of its configuration flipped", flipped((20 << 10) + 30)),
        ("a bit in each of its roots flipped", ring),
        ("the label of another pool", foreign.to_vec()),
    ]
}

fn label(disk: &str, at: u64) -> Vec<u8> {
    fs::read(disk).unwrap()[at as usize..(at + LABEL) as usize].to_vec()
}

/// Each copy in turn, on every disk of the pool, so that no other disk helps.
#[test]
fn three_of_four_labels_are_enough_whatever_the_fourth_holds() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..2).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    // Another pool, which has seen more than this one.
    let other = bench.disk("other", SMALL);
    bench.ok(&format!("create other {other}"));
    for round in 0..6 {
        bench.ok(&format!("set comment={round} other"));
    }
    bench.ok("export other");
    let dir = bench.path("pool");
    fs::create_dir(&dir).unwrap();
    let disks: Vec<String> = (0..2)
        .map(|index| {
            let at = format!("{dir}/d{index}");
            fs::rename(&disks[index], &at).unwrap();
            at
        })
        .collect();
    for (number, at) in LABELS.into_iter().enumerate() {
        let whole: Vec<Vec<u8>> = disks.iter().map(|disk| label(disk, at)).collect();
        for (what, bytes) in wounds(&whole[0], &label(&other, at)) {
            for (disk, whole) in disks.iter().zip(&whole) {
                // What is flipped is flipped in this disk's own label.
                let bytes = wounds(whole, &bytes).into_iter().find(|(name, _)| *name == what).unwrap().1;
                damage(disk, at, &bytes);
            }
            let ran = bench.run(&format!("import -o readonly=on -d {dir} tank"));
            assert_eq!(ran.code, 0, "label {number} {what}: {}", ran.err);
            bench.holds("tank/vol", &data);
            assert_eq!(bench.state("tank"), "ONLINE", "label {number} {what}");
            bench.ok("export tank");
            disks.iter().zip(&whole).for_each(|(disk, whole)| damage(disk, at, whole));
        }
        // For use, and used.
        disks.iter().for_each(|disk| damage(disk, at, &noise(number as u64, LABEL as usize)));
        bench.ok(&format!("import -d {dir} tank"));
        bench.holds("tank/vol", &data);
        bench.ok("export tank");
        assert!(bench.ok(&format!("import -d {dir}")).contains("pool: tank"));
    }
}

#[test]
fn disks_that_were_cut_short() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..3).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let data = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let dir = bench.path("");
    let cut =
        |disk: &str, size: u64| fs::File::options().write(true).open(disk).unwrap().set_len(size).unwrap();
    for size in [SMALL - 4096, SMALL - LABEL, SMALL - 2 * LABEL, SMALL / 2, 4096, 0] {
        let whole: Vec<Vec<u8>> = disks[..2].iter().map(|disk| fs::read(disk).unwrap()).collect();
        // One can be missed.
        cut(&disks[0], size);
        bench.ok(&format!("import -o readonly=on -d {dir} tank"));
        assert_eq!(bench.state("tank"), "DEGRADED", "cut to {size}");
        bench.holds("tank/vol", &data);
        bench.ok("export tank");
        // Two can't: both are named, and nothing is changed.
        cut(&disks[1], size);
        let said = bench.fails_untouched(&format!("import -d {dir} tank"), &disks);
        assert!(disks[..2].iter().all(|disk| said.contains(disk.as_str())), "cut to {size}: {said}");
        disks.iter().zip(&whole).for_each(|(disk, whole)| fs::write(disk, whole).unwrap());
    }
    bench.ok(&format!("import -d {dir} tank"));
    assert_eq!(bench.state("tank"), "ONLINE");
    bench.holds("tank/vol", &data);
}

/// Whatever is asked of a pool of which too much is missing, the disks that are there stay as they are.
#[test]
fn a_refused_import_changes_no_disk() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..5).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let data = bench.pool_with_data(&format!("raidz2 {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let dir = bench.path("");
    let away: Vec<_> = disks[..3].iter().map(|disk| take_away(disk)).collect();
    // Out of sight: a folder is searched for labels, whatever the files are called.
    let far = tempfile::tempdir().unwrap();
    for (index, away) in away.iter().enumerate() {
        fs::rename(away, far.path().join(index.to_string())).unwrap();
    }
    let left = &disks[3..];
    for options in ["", "-f", "-F", "-F -n", "-f -F", "-o readonly=on", "-T 4", "-f -T 4"] {
        let said = bench.fails_untouched(&format!("import -d {dir} {options} tank"), left);
        assert!(said.starts_with("coffer import:"), "{said}");
        if options.is_empty() {
            assert!(disks[..3].iter().all(|disk| said.contains(disk.as_str())), "{said}");
            assert!(said.contains("enough would be any 1 of the 3"), "{said}");
        }
    }
    let listed = bench.ok(&format!("import -d {dir}"));
    assert!(listed.contains("tank") && !listed.contains("state: ONLINE"), "{listed}");
    assert_eq!(bench.ok("list"), "no pools available\n");
    bring_back(&far.path().join("0"), &disks[0]);
    bench.ok(&format!("import -d {dir} tank"));
    bench.holds("tank/vol", &data);
}

/// A command that is killed between labelling devices and the root that names them leaves labels alone.
#[test]
fn labels_without_a_root_are_shown_and_stand_in_nobodys_way() {
    let bench = Bench::new();
    let left = bench.disk("left", SMALL);
    bench.ok(&format!("create tank {left}"));
    bench.ok("export tank");
    for at in LABELS {
        damage(&left, at + (128 << 10), &vec![0; 128 << 10]);
    }
    let dir = bench.path("");
    let listed = bench.ok(&format!("import -d {dir}"));
    assert!(listed.contains("state: FAULTED") && listed.contains("cannot be imported"), "{listed}");
    let said = bench.fails_untouched(&format!("import -d {dir} tank"), std::slice::from_ref(&left));
    assert!(said.contains("no device") && said.contains("uberblock"), "{said}");
    // Another pool of that name is the one that is meant.
    let disks: Vec<String> = (0..2).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    bench.ok(&format!("import -d {dir} tank"));
    bench.holds("tank/vol", &data);
    bench.ok(&format!("create -f other {left}"));
}

/// A disk of a pool in use that was used elsewhere meanwhile stands in nobody's way: the pool goes on with the others, and
/// what is on that disk stays as it is.
#[test]
fn a_disk_that_was_used_elsewhere_does_not_stop_a_pool_in_use() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..3).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    let away = take_away(&disks[2]);
    let elsewhere = bench.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let copy = format!("{elsewhere}/disk");
    fs::copy(&away, &copy).unwrap();
    // Here it goes on...
    bench.ok("volume create -V 1M tank/here");
    // ...and there, on another host, much further.
    let there = |line: &str| {
        let mut command = bench.command(line);
        command.env("COFFER_STATE_DIR", bench.path("other")).env("COFFER_HOST_ID", "2002");
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    there(&format!("import -f -d {elsewhere} tank"));
    for index in 0..8 {
        there(&format!("volume create -V 1M tank/there{index}"));
    }
    fs::copy(&copy, &disks[2]).unwrap();
    let before = fs::read(&disks[2]).unwrap();
    assert_eq!(bench.state("tank"), "DEGRADED");
    bench.holds("tank/vol", &data);
    bench.ok("volume create -V 1M tank/later");
    let listed = bench.ok("list -t volume");
    assert!(
        listed.contains("tank/here") && listed.contains("tank/later") && !listed.contains("there0"),
        "{listed}"
    );
    assert!(fs::read(&disks[2]).unwrap() == before, "the disk from elsewhere was changed");
    // Where all disks went on elsewhere, that is not gone back on.
    bench.ok("export tank");
}

/// Whichever devices are missing, those with the only copies of the trees too, they are named, with what would be enough.
#[test]
fn what_is_missing_is_named_whatever_lies_on_it() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..4).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let spare = bench.disk("spare", SMALL);
    bench.pool_with_data(&format!("raidz1 {} spare {spare}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let far = tempfile::tempdir().unwrap();
    let dir = bench.path("");
    for lost in 1_u32..16 {
        let count = lost.count_ones();
        let gone: Vec<usize> = (0..4).filter(|index| lost & 1 << index != 0).collect();
        if count < 2 {
            continue;
        }
        for &index in &gone {
            fs::rename(&disks[index], far.path().join(index.to_string())).unwrap();
        }
        let rest: Vec<String> = disks.iter().filter(|disk| fs::exists(disk).unwrap()).cloned().collect();
        let said = bench.fails_untouched(&format!("import -d {dir} tank"), &rest);
        for (index, disk) in disks.iter().enumerate() {
            assert_eq!(said.contains(disk.as_str()), gone.contains(&index), "without {gone:?}: {said}");
        }
        let enough = format!("enough would be any {} of the {count} missing from raidz1-0", count - 1);
        assert!(said.contains(&enough) && !said.contains("-F"), "without {gone:?}: {said}");
        for &index in &gone {
            fs::rename(far.path().join(index.to_string()), &disks[index]).unwrap();
        }
    }
    let listed = bench.ok(&format!("import -d {dir}"));
    assert!(listed.contains(&format!("spares\n\t  {spare}")) && listed.contains("AVAIL"), "{listed}");
    bench.ok(&format!("import -d {dir} tank"));
}

/// A property that does not exist is told before anything is imported, let alone gone back to.
#[test]
fn an_import_with_a_wrong_property_changes_nothing() {
    let bench = Bench::new();
    let disk = bench.disk("d", SMALL);
    let data = bench.pool_with_data(&disk, 1 << 20);
    bench.ok("export tank");
    let dir = bench.path("");
    let older = roots(&bench, &dir)[0];
    for wrong in ["no-such-property=1", "failmode=perhaps", "scan_rate=fast"] {
        for back in [String::new(), "-F".to_owned(), format!("-T {older}")] {
            bench.fails_untouched(
                &format!("import -d {dir} {back} -o {wrong} tank"),
                std::slice::from_ref(&disk),
            );
        }
    }
    bench.ok(&format!("import -d {dir} -o comment=mine tank"));
    assert!(bench.ok("get comment tank").contains("mine"));
    bench.holds("tank/vol", &data);
}

/// A copy of a member is no second member: the listing says so, as the import does.
#[test]
fn copies_of_a_member_are_told() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..2).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    fs::copy(&disks[0], bench.path("copy")).unwrap();
    let dir = bench.path("");
    let listed = bench.ok(&format!("import -d {dir}"));
    assert!(listed.contains("UNAVAIL") && listed.contains("carry the same label"), "{listed}");
    assert!(bench.fails(&format!("import -d {dir} tank")).contains("carry the same label"));
    fs::remove_file(bench.path("copy")).unwrap();
    bench.ok(&format!("import -d {dir} tank"));
}

/// What is gone for good does not keep its name for ever.
#[test]
fn a_pool_that_does_not_open_can_be_given_up() {
    let bench = Bench::new();
    let disks: Vec<String> = (0..3).map(|index| bench.disk(&format!("d{index}"), SMALL)).collect();
    let dir = bench.path("");
    for left in 0..2 {
        bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 1 << 20);
        let away: Vec<_> = disks[left..].iter().map(|disk| take_away(disk)).collect();
        let far = tempfile::tempdir().unwrap();
        for (index, away) in away.iter().enumerate() {
            fs::rename(away, far.path().join(index.to_string())).unwrap();
        }
        let status = bench.ok("status tank");
        assert!(status.contains("state: UNAVAIL") && status.contains(disks[1].as_str()), "{status}");
        let listed = bench.run("list -H");
        assert_eq!(
            (listed.code, listed.out.as_str()),
            (1, "tank\t-\t-\t-\t-\t-\t-\tUNAVAIL\n"),
            "{}",
            listed.err
        );
        assert!(bench.fails("destroy tank").contains("destroy -f"));
        bench.ok("export tank");
        assert_eq!(bench.ok("list"), "no pools available\n");
        for (index, disk) in disks[left..].iter().enumerate() {
            bring_back(&far.path().join(index.to_string()), disk);
        }
        bench.ok(&format!("import -d {dir} tank"));
        assert_eq!(bench.state("tank"), "ONLINE");
        // Now for good.
        disks[left..].iter().for_each(|disk| fs::remove_file(disk).unwrap());
        bench.ok("destroy -f tank");
        assert_eq!(bench.ok("list"), "no pools available\n");
        assert_eq!(bench.ok(&format!("import -d {dir}")), "no pools available to import\n");
        for disk in &disks {
            fs::remove_file(disk).unwrap_or_default();
            bench.disk(disk.rsplit('/').next().unwrap(), SMALL);
        }
    }
}
