//! Clients that talk nonsense, lie about lengths, vanish or never stop: the server answers or hangs up, and
//! serves the next one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::client::*;
use common::{Server, noise};
use export::testing::{MemoryTarget, PAGE};
use export::{Run, Target, TargetError};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn memory() -> Server {
    Server::with("vol", Arc::new(MemoryTarget::new(16 * MIB)))
}

/// Whoever comes next is served as if nothing had happened.
fn assert_alive(server: &Server) {
    let mut client = Client::open(&server.socket, "vol", true);
    client.write(FUA, 5, b"alive").unwrap();
    assert_eq!(client.read(0, 5, 5).unwrap(), b"alive");
}

/// Sends everything and takes whatever comes until the server hangs up.
fn throw(mut stream: &UnixStream, bytes: &[u8]) -> usize {
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = (&*stream).write_all(bytes); // the server may hang up in the middle
            let _ = stream.shutdown(Shutdown::Write);
        });
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "the server neither answers nor hangs up"
            );
        }
        answer.len()
    })
}

/// Bytes that get further than mere noise: valid headers with wild fields, between noise.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let wild32 =
        prop_oneof![0..20_u32, Just(4096), Just(1 << 20), Just(32 << 20), Just(u32::MAX), any::<u32>()];
    let wild64 = prop_oneof![0..100_u64, Just(16 * MIB), Just(16 * MIB - 1), Just(u64::MAX), any::<u64>()];
    let request = (0..10_u16, 0..64_u16, wild64, wild32.clone())
        .prop_map(|(command, flags, offset, length)| encode(command, flags, 7, offset, length));
    let option =
        (0..13_u32, wild32, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(number, length, data)| {
            let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
            bytes.extend(number.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(data);
            bytes
        });
    let piece = prop_oneof![
        4 => request,
        4 => option,
        1 => prop::collection::vec(any::<u8>(), 0..2000),
        1 => (any::<u64>(), 0..300_000_usize).prop_map(|(seed, length)| noise(seed, length)),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_at_any_time(bytes in nonsense(), phase in 0..4) {
        let server = memory();
        match phase {
            0 => _ = throw(&UnixStream::connect(&server.socket).unwrap(), &bytes),
            1 => _ = throw(&Client::connect(&server.socket).stream, &bytes),
            _ => _ = throw(&Client::open(&server.socket, "vol", phase == 2).stream, &bytes),
        }
        assert_alive(&server);
        server.stop();
    }

    /// A valid conversation that ends anywhere.
    #[test]
    fn truncated_anywhere(cut in 0..3000_usize) {
        let server = memory();
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        for (number, data) in [
            (STRUCTURED_REPLY, vec![]),
            (LIST, vec![]),
            (SET_META_CONTEXT, contexts("vol", &["base:allocation"])),
            (GO, information("vol", &[1, 2, 3])),
        ] {
            bytes.extend(OPTION_MAGIC.to_be_bytes());
            bytes.extend(number.to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(data);
        }
        for command in [READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] {
            bytes.extend(encode(command, 0, 1, 0, 4096));
        }
        bytes.extend(encode(WRITE, 0, 1, 0, 2000));
        bytes.extend(noise(1, 2000));
        bytes.extend(encode(WRITE, 0, 1, 0, 200_000));
        bytes.extend(noise(1, 1000));
        bytes.truncate(cut);
        throw(&UnixStream::connect(&server.socket).unwrap(), &bytes);
        assert_alive(&server);
    }
}

#[test]
fn announced_lengths_are_not_believed() {
    let server = memory();
    // Options: refused properly as far as it makes sense, and cut off beyond.
    let client = Client::connect(&server.socket);
    assert_eq!(client.option(LIST, &vec![0; 1 << 20])[0].0, ERR_TOO_BIG);
    assert_eq!(client.option(INFO, &information("vol", &[])).last().unwrap().0, ACK);
    for number in [EXPORT_NAME, LIST, GO, 99] {
        let client = Client::connect(&server.socket);
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend(u32::MAX.to_be_bytes());
        client.send(&bytes);
        assert!(client.hangs_up());
    }
    let client = Client::connect(&server.socket);
    client.send_option(EXPORT_NAME, &[b'v'; 5000]);
    assert!(client.hangs_up());
    // A name and queries that claim more than there is.
    let client = Client::connect(&server.socket);
    client.option(STRUCTURED_REPLY, &[]);
    for lie in [
        &b"\xff\xff\xff\xff"[..],
        b"\0\0\0\x03vol\xff\xff\xff\xff",
        b"\0\0\0\x03vol\0\0\0\x01\xff\xff\xff\xff",
    ] {
        assert_eq!(client.option(SET_META_CONTEXT, lie)[0].0, ERR_INVALID);
        assert_eq!(client.option(LIST_META_CONTEXT, lie)[0].0, ERR_INVALID);
        assert_eq!(client.option(GO, lie)[0].0, ERR_INVALID);
    }
    // Transmission: a write of 4 GiB is announced, and the client leaves; reads of 4 GiB are refused.
    let mut client = Client::open(&server.socket, "vol", true);
    assert!(client.read(0, 0, u32::MAX).is_err());
    client.request(WRITE, 0, 0, u32::MAX, b"only this");
    drop(client);
    assert_alive(&server);
}

#[test]
fn thousands_of_options() {
    let server = memory();
    let client = Client::connect(&server.socket);
    for round in 0..5000_u32 {
        let replies = match round % 3 {
            0 => client.option(LIST, &[]),
            1 => client.option(1000 + round, &[0; 100]),
            _ => client.option(INFO, &information("vol", &[0; 50])),
        };
        assert!(!replies.is_empty());
    }
    // Without waiting for replies, and for ever: at some point it is enough.
    let client = Client::connect(&server.socket);
    let mut option = OPTION_MAGIC.to_be_bytes().to_vec();
    option.extend([0, 0, 0, 77, 0, 0, 0, 0]);
    throw(&client.stream, &option.repeat(70_000));
    assert_alive(&server);
}

#[test]
fn clients_that_vanish() {
    let server = memory();
    for round in 0..60 {
        let mut client = Client::open(&server.socket, "vol", round % 2 == 0);
        for _ in 0..20 {
            // Replies that nobody takes, more than the socket holds.
            client.request(READ, DF * u16::from(client.structured), 0, 1 << 20, &[]);
            client.request(READ, 0, 0, 4096, &[]);
        }
        if round % 3 == 0 {
            client.request(WRITE, 0, 0, 1 << 20, &noise(round, 1000));
        }
        if round % 3 == 1 {
            client.request(WRITE, 0, 0, 4096, &noise(round, 100));
        }
        drop(client);
    }
    assert_alive(&server);
    server.stop();
}

#[test]
fn stop_does_not_wait_for_those_who_do_not_listen() {
    let server = memory();
    let mut client = Client::open(&server.socket, "vol", true);
    for _ in 0..20 {
        client.request(READ, DF, 0, 4 << 20, &[]);
    }
    server.stop();
    drop(client);
}

#[test]
fn many_connections() {
    let server = memory();
    let mut clients: Vec<_> = (0..200).map(|_| Client::open(&server.socket, "vol", true)).collect();
    let requests: Vec<_> = clients
        .iter_mut()
        .enumerate()
        .map(|(index, client)| client.request(WRITE, 0, index as u64 * 512, 512, &[index as u8; 512]))
        .collect();
    for (client, cookie) in clients.iter().zip(requests) {
        assert_eq!(outcome(&client.reply(cookie, 0)), Ok(()));
    }
    for (index, client) in clients.iter_mut().enumerate().rev() {
        assert_eq!(client.read(0, index as u64 * 512, 512).unwrap(), [index as u8; 512]);
    }
    drop(clients);
    assert_alive(&server);
}

/// Counts what runs at the same time, and panics where it is told to.
#[derive(Debug)]
struct Touchy {
    memory: MemoryTarget,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Target for Touchy {
    fn size(&self) -> u64 {
        self.memory.size()
    }
    fn block_size(&self) -> u32 {
        4096
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        assert!(offset != 13, "a volume that panics, on purpose");
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.memory.read(offset, buffer)
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.memory.write(offset, data)
    }
    fn flush(&self) -> Result<(), TargetError> {
        self.memory.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.memory.discard(offset, length)
    }
    fn write_zeroes(&self, offset: u64, length: u64, keep_allocated: bool) -> Result<(), TargetError> {
        self.memory.write_zeroes(offset, length, keep_allocated)
    }
    /// Lies: empty runs, and too long ones.
    fn runs(&self, _: u64, _: u64, _: usize) -> Result<Vec<Run>, TargetError> {
        Ok(vec![
            Run { length: 0, hole: true },
            Run { length: 4096, hole: false },
            Run { length: 0, hole: false },
            Run { length: u64::MAX, hole: false },
            Run { length: u64::MAX, hole: true },
        ])
    }
}

#[test]
fn slow_and_panicking_volumes() {
    let volume = Arc::new(Touchy {
        memory: MemoryTarget::new(16 * MIB),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let server = Server::with("vol", volume.clone());
    let mut client = Client::open(&server.socket, "vol", true);
    // A flood of slow requests: all answered, many at a time but not without bound.
    let mut flood = Vec::new();
    for cookie in 0..1000_u64 {
        flood.extend(encode(READ, 0, cookie, cookie * 4096 + 512, 512));
    }
    let mut answered = vec![false; 1000];
    std::thread::scope(|scope| {
        let stream = &client.stream;
        scope.spawn(move || (&*stream).write_all(&flood).unwrap());
        for _ in 0..1000 {
            let chunk = client.chunk(0).unwrap();
            assert!(!std::mem::replace(&mut answered[chunk.cookie as usize], true));
        }
    });
    let most = volume.most.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most} at a time");
    assert_eq!(client.read(0, 0, 2 * PAGE as u32).unwrap(), vec![0; 2 * PAGE as usize]);
    let status = client.status(0, 100, 200_000).unwrap();
    assert_eq!(status, [(200_000, 0)]);

    // A panic costs that client its connection, and nobody else anything.
    let mut other = Client::open(&server.socket, "vol", true);
    let mut bytes = encode(READ, 0, 1, 13, 512);
    bytes.extend(encode(READ, 0, 2, 13, 512));
    client.send(&bytes);
    assert!(client.hangs_up());
    assert_eq!(other.read(0, 512, 512).unwrap(), [0; 512]);
    assert_alive(&server);
}
