//! Distributed raid from the command line.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, bring_back, take_away};

#[test]
fn a_draid_is_made_and_its_spare_is_used() {
    let bench = Bench::new();
    let disks = bench.disks(7);
    let d = |range: std::ops::Range<usize>| disks[range].join(" ");
    for (words, wanted) in [
        (format!("draid2:2d:7c:1s {}", d(0..6)), "is to have 7 children (:7c), and 6 are given"),
        (format!("draid2:4d:1s {}", d(0..6)), "at least 7 devices, 6 given"),
        (format!("draid4 {}", d(0..6)), "its parity is 1, 2 or 3"),
        (format!("draid1:2x {}", d(0..6)), "it is written draid"),
    ] {
        let refused = bench.fails_untouched(&format!("create tank {words}"), &disks);
        assert!(refused.contains(wanted), "{words}: {refused}");
    }
    assert!(bench.ok(&format!("plan create tank draid:2d:1s {}", d(0..6))).contains("draid1:2d:6c:1s-0"));
    let data = bench.pool_with_data(&format!("draid:2d:6c:1s {}", d(0..6)), 8 << 20);
    let status = bench.ok("status tank");
    for part in ["draid1:2d:6c:1s-0", "spares", "draid1-0-0", "AVAIL"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    // It steps in by itself, and goes back.
    let away = take_away(&disks[1]);
    bench.ok("wait tank");
    let status = bench.ok("status tank");
    for part in ["spare-1", "draid1-0-0", "INUSE", "currently in use"] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(bench.ok("events tank").contains("spare draid1-0-0 steps in for"));
    bench.holds("tank/vol", &data);
    let json = bench.ok("status tank --json");
    assert!(json.contains("\"draid1-0-0\"") && json.contains("INUSE"), "{json}");
    bring_back(&away, &disks[1]);
    bench.ok(&format!("online tank {}", disks[1]));
    bench.ok("wait tank");
    assert!(!bench.ok("status tank").contains("INUSE"));
    // Called by hand, told beforehand, and sent back.
    let planned = bench.ok(&format!("plan replace tank {} draid1-0-0", disks[3]));
    assert!(planned.contains("on all children at once"), "{planned}");
    bench.ok(&format!("replace tank {} draid1-0-0", disks[3]));
    assert!(bench.ok("history tank").contains("draid1-0-0"));
    assert!(bench.fails(&format!("replace tank {} draid1-0-0", disks[4])).contains("in use already"));
    bench.ok("wait tank");
    assert!(bench.ok("status tank").contains("INUSE"));
    assert!(bench.fails("remove tank draid1-0-0").contains("distributed spare"));
    bench.ok("detach tank draid1-0-0");
    assert!(!bench.ok("status tank").contains("INUSE"));
    // One more child; a vdev like it is added, another one is not.
    bench.ok(&format!("attach tank draid1:2d:6c:1s-0 {}", disks[6]));
    assert!(bench.ok("status tank").contains("draid1:2d:7c:1s-0"));
    bench.ok("export tank");
    let found = bench.ok(&format!("import -d {}", bench.path("")));
    assert!(found.contains("draid1:2d:7c:1s-0") && found.contains("draid1-0-0"), "{found}");
    bench.ok(&format!("import -d {} tank", bench.path("")));
    bench.holds("tank/vol", &data);
    assert!(bench.fails("convert tank draid1:2d:7c:1s-0 raidz1").contains("no mirror or raidz"));
    assert!(bench.ok("check tank").contains("no"));
}
