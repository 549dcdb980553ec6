//! What a change is said to come to, against what it does.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use geometry::Profile;
use pool::report::Forecast;
use pool::spec::{CreateSpec, GroupKind};
use pool::{Change, Pool, ReplaceOptions};

fn kinds(disks: &Disks) -> Vec<(CreateSpec, u16)> {
    let of = |kind, data| {
        let mut spec = spec(vec![disks.group(kind, 0..4)]);
        spec.data = data;
        spec
    };
    vec![
        (of(GroupKind::Plain, None), 0),
        (of(GroupKind::Plain, Some(Profile::Raid1)), 1),
        (of(GroupKind::Plain, Some(Profile::Raid5)), 1),
        (of(GroupKind::Raidz(1), None), 1),
        (of(GroupKind::Raidz(2), None), 2),
        (of(GroupKind::Mirror, None), 3),
    ]
}

/// That what was foretold is what there is, within so many percent.
fn assert_came(forecast: &Forecast, pool: &Pool, percent: u64, what: &str) {
    let (told, is) = (forecast.then.available, pool.usage().free_estimated);
    assert!(
        told.abs_diff(is) <= is * percent / 100,
        "{what}: {told} bytes were told to be available, {is} are"
    );
}

/// What `forecast` says, after seeing that it changed nothing.
fn looked(pool: &mut Pool, change: &Change<'_>) -> Forecast {
    let state = |pool: &mut Pool| (pool.usage(), pool.status());
    let before = state(pool);
    let forecast = pool.forecast(change).unwrap();
    assert_eq!(state(pool), before);
    forecast
}

fn fill(pool: &mut Pool) {
    let id = volume(pool, "vol", 64 * MIB);
    pool.write(id, 0, &noise(1, 40 << 20)).unwrap();
    pool.flush().unwrap();
}

#[test]
fn a_new_pool() {
    let disks = Disks::new(&[256, 256, 300, 512]);
    for (spec, survives) in kinds(&disks) {
        let forecast = Pool::forecast_create(&env(1), &spec, &host()).unwrap();
        let what = format!("{:?} {:?}", spec.groups[0].kind, spec.data);
        assert!(Pool::examine(&*disks.0[0]).unwrap().is_none(), "{what}: a device was written");
        assert_eq!(forecast.then.survives, Some(survives), "{what}");
        let disks = Disks::new(&[256, 256, 300, 512]);
        let mut real = spec.clone();
        real.groups = vec![disks.group(spec.groups[0].kind, 0..4)];
        assert_came(&forecast, &create(&real), 1, &what);
    }
}

#[test]
fn more_devices() {
    for index in 0..6 {
        let disks = Disks::new(&[256; 8]);
        let (spec, survives) = kinds(&disks).swap_remove(index);
        let what = format!("{:?} {:?}", spec.groups[0].kind, spec.data);
        let mut pool = create(&spec);
        fill(&mut pool);
        let more = [disks.group(spec.groups[0].kind, 4..8)];
        let forecast = looked(&mut pool, &Change::Add { groups: &more, force: false });
        assert_eq!(forecast.now.as_ref().unwrap().survives, Some(survives), "{what}");
        assert_eq!(forecast.then.survives, Some(survives), "{what}");
        pool.add(&more, false).unwrap();
        assert_came(&forecast, &pool, 1, &what);
    }
}

#[test]
fn fewer_devices() {
    for (kind, data) in [
        (GroupKind::Plain, None),
        (GroupKind::Plain, Some(Profile::Raid1)),
        (GroupKind::Plain, Some(Profile::Raid6)),
        (GroupKind::Raidz(1), None),
        (GroupKind::Raidz(2), None),
    ] {
        let disks = Disks::new(&[256; 6]);
        let mut spec = spec(vec![disks.group(kind, 0..6)]);
        spec.data = data;
        let mut pool = create(&spec);
        fill(&mut pool);
        let names = ["/disks/d5".to_owned()];
        let forecast = looked(&mut pool, &Change::Remove { names: &names });
        assert_eq!(forecast.then.vdevs[0].devices, 5);
        assert!(forecast.steps[0].bytes > 0 && forecast.steps[0].busiest > 0);
        pool.remove(&names).unwrap();
        settle(&mut pool);
        // New chunks lie beside those that were not empty yet, and leave room between them that is too small for others.
        assert_came(&forecast, &pool, 3, &format!("{kind:?} {data:?}"));
    }
    let disks = Disks::new(&[256; 3]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..3)]));
    let names = ["/disks/d2".to_owned()];
    let refused = pool.forecast(&Change::Remove { names: &names }).unwrap_err();
    assert_eq!(refused, pool.remove(&names).unwrap_err());
}

#[test]
fn another_kind() {
    for (from, to, survives) in [
        (GroupKind::Mirror, GroupKind::Raidz(1), 1),
        (GroupKind::Raidz(1), GroupKind::Raidz(2), 2),
        (GroupKind::Raidz(2), GroupKind::Raidz(1), 1),
        (GroupKind::Raidz(2), GroupKind::Mirror, 3),
    ] {
        let disks = Disks::new(&[256; 4]);
        let mut pool = create(&spec(vec![disks.group(from, 0..4)]));
        fill(&mut pool);
        let name = pool.status().vdevs[0].name.clone();
        let forecast = looked(&mut pool, &Change::Convert { name: &name, kind: to, force: true });
        assert_eq!(forecast.then.survives, Some(survives));
        assert_eq!(forecast.steps[0].survives, forecast.now.as_ref().unwrap().survives.min(Some(survives)));
        assert!(forecast.steps[0].bytes >= 40 << 20 && forecast.steps[0].busiest > 0);
        pool.convert(&name, to, true).unwrap();
        settle(&mut pool);
        // The old chunks go with the last root that knows something in them.
        for _ in 0..4 {
            pool.set("", "autoexpand", "off").unwrap();
        }
        assert_came(&forecast, &pool, 3, &format!("{from:?} to {to:?}"));
    }
}

#[test]
fn other_devices() {
    let disks = Disks::new(&[256, 256, 256, 256, 512, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..4)]));
    fill(&mut pool);
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(&[1, 4, 5]));
    // More than the small one holds.
    let id = pool.open("vol").unwrap();
    pool.volume_resize("vol", 256 * MIB).unwrap();
    pool.write(id, 64 * MIB, &noise(2, 160 << 20)).unwrap();
    pool.flush().unwrap();
    pool.set("", "autoexpand", "on").unwrap();
    let larger = disks.new_device(4);
    let forecast = looked(&mut pool, &Change::Replace { name: "/disks/d1", new: &larger });
    // What is being resilvered has lost a device until it is done.
    assert_eq!(forecast.steps[0].survives, Some(1));
    assert_eq!((forecast.now.as_ref().unwrap().survives, forecast.then.survives), (Some(1), Some(2)));
    let small = disks.new_device(5);
    let refused = pool.forecast(&Change::Replace { name: "/disks/d0", new: &small }).unwrap_err();
    assert_eq!(refused, pool.replace("/disks/d0", &small, ReplaceOptions::default()).unwrap_err());
    pool.replace("/disks/d1", &larger, ReplaceOptions::default()).unwrap();
    settle(&mut pool);
    assert_came(&forecast, &pool, 1, "a larger device");
    let other = disks.new_device(1);
    let again = pool.forecast(&Change::Replace { name: "/disks/d4", new: &other });
    assert!(again.unwrap().then.available <= pool.usage().free_estimated);
}
