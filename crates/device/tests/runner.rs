//! Every runner gives what running the requests one after another gives.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use common::Loop;
use device::{
    Access, AlignedBuffer, BlockDevice, DeviceErrorKind, FileDevice, Inline, MemoryDevice, Op, OverlayDevice,
    Request, Rng, Runner, Threads, Uring, best_runner,
};

const SIZE: u64 = 4 << 20;

/// All runners that work here, by name.
fn runners() -> Vec<(&'static str, Box<dyn Runner>)> {
    let mut runners: Vec<(_, Box<dyn Runner>)> = vec![
        ("inline", Box::new(Inline)),
        ("threads", Box::new(Threads::new(4).unwrap())),
        ("best", best_runner().unwrap()),
    ];
    match Uring::new(4) {
        // A shallow ring, so that batches are longer than it.
        Ok(uring) => runners.push(("uring", Box::new(uring))),
        Err(error) => println!("skipped: no io_uring: {error}"),
    }
    runners
}

/// A batch of writes to places that do not overlap, then a flush, then reads of all of them. Buffers are aligned
/// or not; requests have one or many of them.
fn exercise(runner: &dyn Runner, devices: &[Box<dyn BlockDevice>], seed: u64) {
    let mut rng = Rng::new(seed);
    let mut writes = Vec::new();
    for index in 0..devices.len() {
        let mut at = 0;
        loop {
            at += rng.below(50) * 512;
            let sectors = 1 + rng.below(40);
            let length = if rng.chance(1, 8) { rng.below(3000) } else { sectors * 512 };
            if at + length > SIZE {
                break;
            }
            let mut bytes = AlignedBuffer::new(length as usize + 1);
            rng.fill(&mut bytes);
            // One byte off, so that the memory is not aligned.
            let shift = usize::from(rng.chance(1, 4));
            writes.push((index, at, bytes, shift, length as usize, 1 + rng.below(3) as usize * 512));
            at = (at + length).next_multiple_of(512);
        }
    }
    rng.shuffle(&mut writes);
    let mut requests: Vec<_> = writes
        .iter()
        .map(|(index, offset, bytes, shift, length, cut)| {
            let buffers = bytes[*shift..*shift + *length].chunks(*cut).map(IoSlice::new).collect();
            Request::new(&*devices[*index], Op::Write { offset: *offset, buffers })
        })
        .collect();
    runner.run(&mut requests);
    assert!(requests.iter().all(|request| request.result.is_ok()));
    let mut flushes: Vec<_> = devices.iter().map(|device| Request::new(&**device, Op::Flush)).collect();
    runner.run(&mut flushes);
    assert!(flushes.iter().all(|request| request.result.is_ok()));
    let mut back: Vec<_> = writes.iter().map(|(_, _, bytes, ..)| AlignedBuffer::new(bytes.len())).collect();
    let mut requests = Vec::new();
    for ((index, offset, _, shift, length, cut), back) in writes.iter().zip(&mut back) {
        let buffers = back[*shift..*shift + *length].chunks_mut(*cut).map(IoSliceMut::new).collect();
        requests.push(Request::new(&*devices[*index], Op::Read { offset: *offset, buffers }));
    }
    runner.run(&mut requests);
    assert!(requests.iter().all(|request| request.result.is_ok()));
    drop(requests);
    for ((_, offset, bytes, shift, length, _), back) in writes.iter().zip(&back) {
        let range = *shift..*shift + *length;
        assert!(bytes[range.clone()] == back[range], "the bytes at {offset} differ");
    }
}

#[test]
fn batches_over_devices_of_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    for (name, runner) in runners() {
        let path = |file: &str| folder.path().join(format!("{name}-{file}"));
        let base = Arc::new(MemoryDevice::new("base", SIZE));
        let mut devices: Vec<Box<dyn BlockDevice>> = vec![
            Box::new(FileDevice::create(path("a"), SIZE).unwrap()),
            Box::new(MemoryDevice::new("memory", SIZE)),
            Box::new(FileDevice::create(path("b"), SIZE).unwrap()),
            Box::new(OverlayDevice::create(base, path("delta")).unwrap()),
        ];
        std::fs::write(path("disk"), vec![0; SIZE as usize]).unwrap();
        let disk = Loop::over(&path("disk"));
        if let Some(disk) = &disk {
            devices.push(Box::new(FileDevice::open(&disk.path, Access::ReadWrite).unwrap()));
        }
        for seed in 0..6 {
            exercise(&*runner, &devices, seed);
        }
        drop(devices);
    }
}

#[test]
fn batches_from_several_threads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (name, runner) in runners() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = folder.path().join(format!("{name}-{thread}"));
                let runner = &runner;
                scope.spawn(move || {
                    let devices: Vec<Box<dyn BlockDevice>> =
                        vec![Box::new(FileDevice::create(path, SIZE).unwrap())];
                    (0..4).for_each(|seed| exercise(&**runner, &devices, seed + thread));
                });
            }
        });
    }
}

/// Each failing request has its own error, the same from every runner, and the others succeed.
#[test]
fn errors_are_those_of_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    drop(FileDevice::create(&path, SIZE).unwrap());
    let device = FileDevice::open(&path, Access::ReadOnly).unwrap();
    for (name, runner) in runners() {
        let mut buffers = vec![vec![1; 4096]; 3];
        let mut parts: Vec<_> = buffers.iter_mut().map(|b| vec![IoSliceMut::new(b)]).collect();
        let mut read = |offset| Request::new(&device, Op::Read { offset, buffers: parts.pop().unwrap() });
        let bytes = [7; 4096];
        let write = |offset| Request::new(&device, Op::Write { offset, buffers: vec![IoSlice::new(&bytes)] });
        let mut batch = vec![
            read(0),
            read(SIZE - 100),
            write(0),
            write(SIZE),
            Request::new(&device, Op::Flush),
            Request::new(&device, Op::Discard { offset: 0, length: 4096 }),
            read(SIZE - 4096),
        ];
        runner.run(&mut batch);
        let kinds: Vec<_> = batch.iter().map(|r| r.result.clone().err().map(|error| error.kind)).collect();
        let out_of_range = Some(DeviceErrorKind::OutOfRange { size: SIZE });
        let read_only = Some(DeviceErrorKind::ReadOnly);
        let expected = [None, out_of_range, read_only.clone(), read_only.clone(), None, read_only, None];
        assert_eq!(kinds, expected, "{name}");
        let errors = batch.iter().filter_map(|r| r.result.as_ref().err());
        assert!(errors.into_iter().all(|error| error.device == path.to_string_lossy()));
        drop(batch);
        assert_eq!(buffers[0], [0; 4096]);
    }
    assert_eq!(std::fs::read(&path).unwrap(), vec![0; SIZE as usize]);
}

#[test]
fn empty_and_single_batches() {
    let device = MemoryDevice::new("memory", 4096);
    for (_, runner) in runners() {
        runner.run(&mut []);
        let mut one = [Request::new(&device, Op::Discard { offset: 0, length: 4096 })];
        runner.run(&mut one);
        assert_eq!(one[0].result, Ok(()));
    }
}
