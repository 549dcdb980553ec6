//! The NBD server byte by byte: negotiation, every command, its errors, and a model of the contents.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::client::*;
use common::{Server, noise};
use export::testing::{MemoryTarget, PAGE};
use export::{ExportTable, Exports, Listen, NbdServer, Run, ServeError, Target, TargetError};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

fn memory() -> Server {
    Server::with("vol", Arc::new(MemoryTarget::new(64 * PAGE)))
}

#[derive(Debug)]
struct Described(ExportTable);

impl Exports for Described {
    fn names(&self) -> Vec<String> {
        self.0.names()
    }
    fn open(&self, name: &str) -> Option<Arc<dyn Target>> {
        self.0.open(name)
    }
    fn description(&self, name: &str) -> Option<String> {
        (name == "b").then(|| "the second".to_owned())
    }
}

#[test]
fn options() {
    let exports = Arc::new(Described(ExportTable::new()));
    exports.0.insert("a", Arc::new(MemoryTarget::new(MIB)));
    exports.0.insert("b", Arc::new(MemoryTarget::new(2 * MIB).into_read_only()));
    let server = Server::start(exports.clone());
    let mut client = Client::connect(&server.socket);

    let names = client.option(LIST, &[]);
    assert_eq!(names[0], (SERVER, b"\0\0\0\x01a".to_vec()));
    assert_eq!(names[1], (SERVER, b"\0\0\0\x01bthe second".to_vec()));
    assert_eq!(names[2], (ACK, vec![]));
    let kind = |replies: Vec<(u32, Vec<u8>)>| replies.last().unwrap().0;
    assert_eq!(kind(client.option(LIST, b"x")), ERR_INVALID);
    assert_eq!(kind(client.option(STARTTLS, &[])), ERR_POLICY);
    assert_eq!(kind(client.option(STARTTLS, b"x")), ERR_INVALID);
    for unknown in [0, 4, 11, 12, 1000, u32::MAX] {
        assert_eq!(kind(client.option(unknown, b"whatever")), ERR_UNSUPPORTED);
    }
    assert_eq!(kind(client.option(77, &vec![0; 100_000])), ERR_TOO_BIG);

    // Contexts need structured replies.
    assert_eq!(kind(client.option(LIST_META_CONTEXT, &contexts("a", &[]))), ERR_INVALID);
    assert_eq!(kind(client.option(SET_META_CONTEXT, &contexts("a", &["base:allocation"]))), ERR_INVALID);
    assert_eq!(kind(client.option(STRUCTURED_REPLY, b"x")), ERR_INVALID);
    assert_eq!(kind(client.option(STRUCTURED_REPLY, &[])), ACK);
    for queries in [&[][..], &["base:"], &["base:allocation"], &["x", "base:allocation", "base:"]] {
        let replies = client.option(LIST_META_CONTEXT, &contexts("a", queries));
        assert_eq!(replies, [(META_CONTEXT, b"\0\0\0\0base:allocation".to_vec()), (ACK, vec![])]);
    }
    for queries in [&["qemu:"][..], &["base:other"], &["base"], &[""]] {
        assert_eq!(client.option(LIST_META_CONTEXT, &contexts("a", queries)), [(ACK, vec![])]);
    }
    let replies = client.option(SET_META_CONTEXT, &contexts("a", &["base:allocation"]));
    assert_eq!(replies, [(META_CONTEXT, b"\0\0\0\x01base:allocation".to_vec()), (ACK, vec![])]);
    assert_eq!(client.option(SET_META_CONTEXT, &contexts("a", &["base:"])), [(ACK, vec![])]);
    assert_eq!(kind(client.option(SET_META_CONTEXT, &contexts("c", &[]))), ERR_UNKNOWN);
    assert_eq!(kind(client.option(SET_META_CONTEXT, &contexts("a", &[])[..3])), ERR_INVALID);
    let mut lying = contexts("a", &["base:allocation"]);
    lying[8] = 200; // queries announced
    assert_eq!(kind(client.option(SET_META_CONTEXT, &lying)), ERR_INVALID);

    let told = client.option(INFO, &information("b", &[1, 2, 3, 77]));
    assert_eq!((told[0].0, be64(&told[0].1[2..])), (REP_INFO, 2 * MIB));
    let flags = u16::from_be_bytes([told[0].1[10], told[0].1[11]]);
    assert_eq!(flags, 1 | 2 | 4 | 1 << 7 | 1 << 8 | 1 << 10, "read-only, flush, DF, multi-conn, cache");
    assert_eq!(told[1], (REP_INFO, b"\0\x01b".to_vec()));
    assert_eq!(told[2], (REP_INFO, b"\0\x02the second".to_vec()));
    assert_eq!(told[3].1[..2], [0, 3]);
    let sizes = [be32(&told[3].1[2..]), be32(&told[3].1[6..]), be32(&told[3].1[10..])];
    assert_eq!(sizes, [1, 4096, 32 << 20]);
    assert_eq!(kind(client.option(INFO, &information("", &[]))), ERR_UNKNOWN, "two exports: no default");
    assert_eq!(kind(client.option(GO, &information("c", &[]))), ERR_UNKNOWN);
    assert_eq!(kind(client.option(GO, b"\0\0\0\xff")), ERR_INVALID);
    assert_eq!(kind(client.option(GO, &[&information("a", &[])[..], b"x"].concat())), ERR_INVALID);
    assert_eq!(kind(client.option(GO, b"\0\0\0\x02\xff\xff\0\0")), ERR_INVALID, "not UTF-8");

    // The context was selected for another export.
    client.option(SET_META_CONTEXT, &contexts("a", &["base:allocation"]));
    client.structured = true;
    client.go("b");
    assert_eq!(client.status(0, 0, 4096), Err(EINVAL));

    let client = Client::connect(&server.socket);
    assert_eq!(client.option(ABORT, &[]), [(ACK, vec![])]);
    assert!(client.hangs_up());
    let client = Client::connect(&server.socket);
    client.send_option(EXPORT_NAME, b"c");
    assert!(client.hangs_up(), "the only way to refuse");

    // Exports come and go while the server runs.
    exports.0.remove("b");
    let mut client = Client::connect(&server.socket);
    client.go("");
    assert_eq!(client.size, MIB);
}

#[test]
fn export_name_with_and_without_zeroes() {
    let server = memory();
    for (flags, zeroes) in [(3_u32, 0), (1, 124)] {
        let mut stream = std::os::unix::net::UnixStream::connect(&server.socket).unwrap();
        let mut hello = [0; 18];
        std::io::Read::read_exact(&mut stream, &mut hello).unwrap();
        stream.write_all(&flags.to_be_bytes()).unwrap();
        stream.write_all(&OPTION_MAGIC.to_be_bytes()).unwrap();
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
        stream.write_all(&encode(DISCONNECT, 0, 0, 0, 0)).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        assert_eq!(answer.len(), 10 + zeroes);
        assert_eq!(be64(&answer), 64 * PAGE);
    }
    let mut stream = std::os::unix::net::UnixStream::connect(&server.socket).unwrap();
    stream.write_all(&7_u32.to_be_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    assert_eq!(answer.len(), 18, "unknown client flags end the session");
}

#[test]
fn refusals() {
    let server = memory();
    let size = 64 * PAGE;
    for structured in [false, true] {
        let mut client = Client::open(&server.socket, "vol", structured);
        assert_eq!(client.flags & 0b1101_0110_1101, 0b1101_0110_1101, "{:b}", client.flags);
        assert_eq!(client.flags & 1 << 7 != 0, structured, "DF needs structured replies");
        for (offset, length) in [(size, 1), (size - 1, 2), (u64::MAX, 1), (u64::MAX - 4, 8)] {
            assert_eq!(client.read(0, offset, length), Err(EINVAL));
            assert_eq!(client.write(0, offset, &vec![0; length as usize]), Err(ENOSPC));
            assert_eq!(client.plain(WRITE_ZEROES, 0, offset, length), Err(ENOSPC));
            assert_eq!(client.plain(TRIM, 0, offset, length), Err(EINVAL));
            assert_eq!(client.plain(CACHE, 0, offset, length), Err(EINVAL));
            assert_eq!(client.status(0, offset, length), Err(EINVAL));
        }
        assert_eq!(client.read(0, 0, (32 << 20) + 1), Err(EINVAL));
        assert_eq!(client.write(0, 0, &vec![0; (32 << 20) + 1]), Err(EINVAL), "skipped, then refused");
        for command in [8, 9, 0x7fff, u16::MAX] {
            assert_eq!(client.plain(command, 0, 0, 0), Err(EINVAL));
        }
        assert_eq!(client.plain(FLUSH, FAST_ZERO, 0, 0), Err(EINVAL));
        assert_eq!(client.read(REQ_ONE, 0, 512), Err(EINVAL));
        assert_eq!(client.read(DF, 0, 512).is_err(), !structured);
        assert_eq!(client.write(1 << 9, 0, &[1; 512]), Err(EINVAL));
        assert_eq!(client.status(0, 0, 0), Err(EINVAL));
        assert_eq!(client.status(0, 0, 512).is_err(), !structured);
        // After all that the stream is still in step.
        client.write(FUA, 5, b"fine").unwrap();
        assert_eq!(client.read(FUA, 5, 4).unwrap(), b"fine");
        assert_eq!(client.read(0, 5, 0).unwrap(), b"");
        client.plain(CACHE, 0, 0, 4096).unwrap();
        client.request(DISCONNECT, 0, 0, 0, &[]);
        assert!(client.hangs_up());
    }
}

#[test]
fn read_only() {
    let server = Server::with("snap", Arc::new(MemoryTarget::new(MIB).into_read_only()));
    let mut client = Client::open(&server.socket, "snap", true);
    assert_eq!(client.write(0, 0, b"x"), Err(EPERM));
    assert_eq!(client.write(0, 0, &vec![0; 500_000]), Err(EPERM));
    assert_eq!(client.plain(TRIM, 0, 0, 512), Err(EPERM));
    assert_eq!(client.plain(WRITE_ZEROES, 0, 0, 512), Err(EPERM));
    client.plain(FLUSH, 0, 0, 0).unwrap();
    assert_eq!(client.read(0, 0, 3).unwrap(), [0; 3]);
}

#[test]
fn holes_are_not_sent() {
    let server = memory();
    let mut client = Client::open(&server.socket, "vol", true);
    let data = noise(1, PAGE as usize);
    client.write(0, 2 * PAGE, &data).unwrap();
    let page = PAGE as u32;
    assert_eq!(client.status(0, 0, 8 * page).unwrap(), [(2 * page, 3), (page, 0), (5 * page, 3)]);
    assert_eq!(client.status(REQ_ONE, 100, 8 * page).unwrap(), [(2 * page - 100, 3)]);
    assert_eq!(client.status(0, 2 * PAGE + 7, 10).unwrap(), [(10, 0)]);

    let cookie = client.request(READ, 0, 0, 8 * page, &[]);
    let chunks = client.reply(cookie, 0);
    let kinds: Vec<_> = chunks.iter().map(|chunk| (chunk.kind, chunk.done)).collect();
    assert_eq!(kinds, [(OFFSET_HOLE, false), (OFFSET_DATA, false), (OFFSET_HOLE, true)]);
    let read = assemble(&chunks, 0, 8 * page);
    assert!(read[2 * PAGE as usize..][..data.len()] == data);
    let cookie = client.request(READ, DF, 0, 8 * page, &[]);
    let whole = client.reply(cookie, 0);
    assert_eq!(whole.len(), 1, "not fragmented");
    assert!(assemble(&whole, 0, 8 * page) == read);

    client.plain(TRIM, FUA, 2 * PAGE, page).unwrap();
    assert_eq!(client.status(0, 0, 8 * page).unwrap(), [(8 * page, 3)]);
    client.plain(WRITE_ZEROES, NO_HOLE, 2 * PAGE, page).unwrap();
    assert_eq!(client.status(0, 0, 3 * page).unwrap(), [(2 * page, 3), (page, 0)]);
    assert_eq!(client.plain(WRITE_ZEROES, NO_HOLE | FAST_ZERO, 0, page), Err(ENOTSUP));
    client.plain(WRITE_ZEROES, FAST_ZERO, 0, 3 * page).unwrap();
    assert_eq!(client.status(0, 0, 3 * page).unwrap(), [(3 * page, 3)]);
}

/// A volume that writes down what it is asked, and can be made to wait or fail.
#[derive(Debug)]
struct Recording {
    memory: MemoryTarget,
    log: Mutex<Vec<String>>,
    held: Mutex<Option<u64>>,
    release: Condvar,
    fails: Mutex<HashMap<u64, TargetError>>,
    /// Takes so long that worker threads do the work.
    slow: AtomicBool,
}

impl Recording {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryTarget::new(64 * MIB),
            log: Mutex::default(),
            held: Mutex::default(),
            release: Condvar::new(),
            fails: Mutex::default(),
            slow: AtomicBool::new(false),
        })
    }

    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Requests at that offset wait, or nothing waits any more.
    fn hold(&self, offset: Option<u64>) {
        *self.held.lock().unwrap() = offset;
        self.release.notify_all();
    }

    fn pass(&self, offset: u64) -> Result<(), TargetError> {
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(300));
        }
        let held = self.held.lock().unwrap();
        drop(self.release.wait_while(held, |held| *held == Some(offset)).unwrap());
        self.fails.lock().unwrap().get(&offset).map_or(Ok(()), |error| Err(error.clone()))
    }
}

impl Target for Recording {
    fn size(&self) -> u64 {
        self.memory.size()
    }
    fn block_size(&self) -> u32 {
        3000 // not a power of two: what is told must be one all the same
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.pass(offset)?;
        self.memory.read(offset, buffer)
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.note(format!("write {offset} begins"));
        self.pass(offset)?;
        self.memory.write(offset, data)?;
        self.note(format!("write {offset} ends"));
        Ok(())
    }
    fn flush(&self) -> Result<(), TargetError> {
        self.note("flush begins".into());
        self.pass(u64::MAX)?;
        self.note("flush ends".into());
        Ok(())
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.pass(offset)?;
        self.memory.discard(offset, length)
    }
    fn write_zeroes(&self, offset: u64, length: u64, keep_allocated: bool) -> Result<(), TargetError> {
        self.pass(offset)?;
        self.memory.write_zeroes(offset, length, keep_allocated)
    }
    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError> {
        self.pass(offset)?;
        self.memory.runs(offset, length, limit)
    }
}

#[test]
fn errors_of_the_volume_are_passed_on() {
    let volume = Recording::new();
    for (index, error) in [
        TargetError::Invalid("odd".into()),
        TargetError::NoSpace,
        TargetError::Io("worn out".into()),
        TargetError::ReadOnly,
    ]
    .into_iter()
    .enumerate()
    {
        volume.fails.lock().unwrap().insert(index as u64 * MIB, error);
    }
    let server = Server::with("vol", volume.clone());
    let told = Client::connect(&server.socket).option(INFO, &information("vol", &[]));
    assert_eq!(be32(&told[1].1[6..]), 4096, "the next power of two");
    for structured in [false, true] {
        let mut client = Client::open(&server.socket, "vol", structured);
        for (index, number) in [EINVAL, ENOSPC, EIO, EPERM].into_iter().enumerate() {
            let at = index as u64 * MIB;
            assert_eq!(client.write(0, at, b"x"), Err(number));
            assert_eq!(client.write(FUA, at, &vec![0; 200_000]), Err(number));
            assert_eq!(client.read(0, at, 10), Err(number));
            assert_eq!(client.read(0, at, 300_000), Err(number));
            assert_eq!(client.plain(TRIM, 0, at, 10), Err(number));
            assert_eq!(client.plain(WRITE_ZEROES, 0, at, 10), Err(number));
        }
        assert_eq!(client.plain(WRITE_ZEROES, FAST_ZERO, 0, 10), Err(ENOTSUP), "not known to be cheap");
        // An error in the middle of a read with holes: nothing of the good half is told.
        if structured {
            client.write(0, 5 * MIB, &vec![1; PAGE as usize]).unwrap();
            client.write(0, 5 * MIB + 2 * PAGE, &vec![1; PAGE as usize]).unwrap();
            volume.fails.lock().unwrap().insert(5 * MIB + 2 * PAGE, TargetError::Io("worn out".into()));
            let cookie = client.request(READ, 0, 5 * MIB, 4 * PAGE as u32, &[]);
            let chunks = client.reply(cookie, 0);
            assert_eq!(chunks.len(), 1);
            assert_eq!((chunks[0].kind, be32(&chunks[0].data)), (ERROR, EIO));
            assert_eq!(&chunks[0].data[6..], b"worn out");
            volume.fails.lock().unwrap().remove(&(5 * MIB + 2 * PAGE));
        }
        volume.fails.lock().unwrap().insert(u64::MAX, TargetError::Io("no flush".into()));
        assert_eq!(client.plain(FLUSH, 0, 0, 0), Err(EIO));
        assert_eq!(client.write(FUA, 6 * MIB, b"x"), Err(EIO), "not durable: not done");
        volume.fails.lock().unwrap().remove(&u64::MAX);
        client.plain(FLUSH, 0, 0, 0).unwrap();
    }
}

#[test]
fn slow_requests_do_not_hold_up_others() {
    let volume = Recording::new();
    let server = Server::with("vol", volume.clone());
    let mut client = Client::open(&server.socket, "vol", true);
    volume.hold(Some(MIB));
    // All in one packet, so that the server finds more to do behind the slow one.
    let mut bytes = encode(WRITE, FUA, 1, MIB, 4);
    bytes.extend(b"slow");
    bytes.extend(encode(READ, 0, 2, 0, 4096));
    bytes.extend(encode(TRIM, 0, 3, 0, 4096));
    bytes.extend(encode(READ, 0, 4, 2 * MIB, 300_000));
    client.send(&bytes);
    let mut cookies = vec![];
    while cookies.len() < 3 {
        let chunk = client.chunk(0).unwrap();
        if chunk.done {
            cookies.push(chunk.cookie);
        }
    }
    cookies.sort_unstable();
    assert_eq!(cookies, [2, 3, 4]);
    volume.hold(None);
    assert_eq!(client.chunk(0).unwrap().cookie, 1);
    assert_eq!(client.read(0, MIB, 4).unwrap(), b"slow");
}

/// Multi-conn: a flush on one connection covers what any connection has completed, and is not answered
/// before the volume's flush, which began after those writes had ended.
#[test]
fn flush_covers_all_connections() {
    let volume = Recording::new();
    let server = Server::with("vol", volume.clone());
    let mut writers: Vec<_> = (0..8).map(|_| Client::open(&server.socket, "vol", true)).collect();
    let mut flusher = Client::open(&server.socket, "vol", false);
    assert!(flusher.flags & 1 << 8 != 0);
    for round in 0..20_u64 {
        std::thread::scope(|scope| {
            for (index, writer) in writers.iter_mut().enumerate() {
                let at = index as u64 * MIB + round * 4096;
                scope.spawn(move || writer.write(0, at, &[1; 512]).unwrap());
            }
        });
        let before = volume.log().len();
        flusher.plain(FLUSH, 0, 0, 0).unwrap();
        let log = volume.log();
        assert_eq!(log[before..], ["flush begins", "flush ends"], "a real flush for each");
        let ended = log[..before].iter().filter(|line| line.ends_with(" ends")).count() as u64;
        assert_eq!(ended, (round + 1) * 9 - 1, "eight writes each round, and the flushes before");
    }
    // A flush is answered only when it has ended, while others go on.
    volume.hold(Some(u64::MAX));
    let cookie = flusher.request(FLUSH, 0, 0, 0, &[]);
    writers[0].write(0, 0, b"meanwhile").unwrap();
    flusher.stream.set_nonblocking(true).unwrap();
    assert!(flusher.chunk(0).is_err(), "not yet");
    flusher.stream.set_nonblocking(false).unwrap();
    volume.hold(None);
    assert_eq!(outcome(&flusher.reply(cookie, 0)), Ok(()));
    // FUA: the write ends before its flush begins.
    let before = volume.log().len();
    writers[0].write(FUA, 0, b"now").unwrap();
    assert_eq!(volume.log()[before..], ["write 0 begins", "write 0 ends", "flush begins", "flush ends"]);
}

/// Requests of all sizes in one stream, cut by the socket wherever it likes.
#[test]
fn pipelined_writes_of_all_sizes() {
    for slow in [false, true] {
        pipelined_writes(slow);
    }
}

fn pipelined_writes(slow: bool) {
    let sizes = [1, 512, 4096, 65_536, 65_537, 100_000, 262_144 - 28, 300_000];
    let volume = Recording::new();
    volume.slow.store(slow, Ordering::Relaxed);
    let server = Server::with("vol", volume.clone());
    let client = Client::open(&server.socket, "vol", true);
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let choices = noise(5, 300);
    for (cookie, choice) in choices.iter().enumerate() {
        let data = noise(cookie as u64, sizes[usize::from(*choice) % sizes.len()]);
        stream.extend(encode(WRITE, 0, cookie as u64, expected.len() as u64, data.len() as u32));
        stream.extend(&data);
        expected.extend(data);
    }
    std::thread::scope(|scope| {
        let socket = &client.stream;
        scope.spawn(move || (&*socket).write_all(&stream).unwrap());
        let mut answered = vec![false; choices.len()];
        for _ in &choices {
            let chunk = client.chunk(0).unwrap();
            assert_eq!(outcome(std::slice::from_ref(&chunk)), Ok(()));
            assert!(!std::mem::replace(&mut answered[chunk.cookie as usize], true));
        }
    });
    let mut found = vec![0; expected.len()];
    volume.read(0, &mut found).unwrap();
    assert!(found == expected);
}

#[test]
fn stop_answers_what_was_asked() {
    let volume = Recording::new();
    let server = Server::with("vol", volume.clone());
    let socket = server.socket.clone();
    let mut client = Client::open(&socket, "vol", true);
    let idle = Client::open(&socket, "vol", true);
    volume.hold(Some(0));
    let cookie = client.request(WRITE, 0, 0, 4, b"last");
    while volume.log().is_empty() {
        std::thread::yield_now();
    }
    let stopper = std::thread::spawn(move || server.stop());
    assert!(idle.hangs_up());
    volume.hold(None);
    assert_eq!(outcome(&client.reply(cookie, 0)), Ok(()));
    assert!(client.hangs_up());
    stopper.join().unwrap();
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn socket_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let exports = Arc::new(ExportTable::new());
    let bind = || NbdServer::bind(Listen::Unix(path.clone()), exports.clone());

    let first = bind().unwrap();
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    assert!(matches!(bind(), Err(ServeError::SocketInUse { .. })));
    assert!(path.exists(), "a live server keeps its socket");
    drop(first);
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap()); // leaves its file behind, as a crash would
    let second = bind().unwrap();
    // Someone replaced the file: it is not ours to remove.
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(second);
    assert!(path.exists());
    fs::remove_file(&path).unwrap();

    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(), Err(ServeError::NotASocket { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let nowhere = directory.path().join("no/such/place");
    assert!(matches!(
        NbdServer::bind(Listen::Unix(nowhere), exports.clone()),
        Err(ServeError::Listen { .. })
    ));
    let too_long = directory.path().join("x".repeat(200));
    assert!(NbdServer::bind(Listen::Unix(too_long), exports.clone()).is_err());
}

#[test]
fn tcp() {
    let exports = Arc::new(ExportTable::new());
    exports.insert("vol", Arc::new(MemoryTarget::new(MIB)));
    let server = NbdServer::bind(Listen::Tcp("127.0.0.1:0".parse().unwrap()), exports).unwrap();
    let address = server.tcp_address().unwrap();
    let handle = server.handle();
    let thread = std::thread::spawn(move || server.serve());
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut hello = [0; 18];
    std::io::Read::read_exact(&mut stream, &mut hello).unwrap();
    stream.write_all(&3_u32.to_be_bytes()).unwrap();
    stream.write_all(&OPTION_MAGIC.to_be_bytes()).unwrap();
    stream.write_all(&[0, 0, 0, 1, 0, 0, 0, 3, b'v', b'o', b'l']).unwrap();
    let mut answer = [0; 10];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    assert_eq!(be64(&answer), MIB);
    handle.stop();
    thread.join().unwrap().unwrap();
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Read(u64, u32, bool),
    Trim(u64, u32),
    Zero(u64, u32, bool),
    Status(u64, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..8 * PAGE;
    let length = prop_oneof![1..5000_u32, 1..(4 * PAGE as u32)];
    let step = prop_oneof![
        (at.clone(), length.clone(), any::<u64>())
            .prop_map(|(at, length, seed)| Step::Write(at, noise(seed, length as usize))),
        (at.clone(), length.clone(), any::<bool>()).prop_map(|(at, length, df)| Step::Read(at, length, df)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Step::Trim(at, length)),
        (at.clone(), length.clone(), any::<bool>())
            .prop_map(|(at, length, keep)| Step::Zero(at, length, keep)),
        (at, length).prop_map(|(at, length)| Step::Status(at, length)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Every reply agrees with a plain array of bytes, whatever the replies' form.
    #[test]
    fn contents_agree_with_a_model(steps in steps(), structured: bool) {
        let size = 8 * PAGE;
        let server = Server::with("vol", Arc::new(MemoryTarget::new(size)));
        let mut client = Client::open(&server.socket, "", structured);
        let mut model = vec![0_u8; size as usize];
        for step in steps {
            let (Step::Write(at, _) | Step::Read(at, ..) | Step::Trim(at, _) | Step::Zero(at, ..) | Step::Status(at, _)) = step;
            let length = match &step {
                Step::Write(_, data) => data.len() as u32,
                Step::Read(_, length, _) | Step::Trim(_, length) | Step::Zero(_, length, _) | Step::Status(_, length) => *length,
            };
            let fits = at + u64::from(length) <= size;
            let range = at as usize..(at as usize + length as usize).min(model.len());
            match step {
                Step::Write(_, data) => {
                    prop_assert_eq!(client.write(0, at, &data).is_ok(), fits);
                    if fits {
                        model[range].copy_from_slice(&data);
                    }
                }
                Step::Read(_, _, df) => match client.read(if df && structured { DF } else { 0 }, at, length) {
                    Ok(data) => prop_assert!(fits && data == model[range]),
                    Err(error) => prop_assert!(!fits && error == EINVAL),
                },
                Step::Trim(..) => {
                    prop_assert_eq!(client.plain(TRIM, 0, at, length).is_ok(), fits);
                    if fits {
                        model[range].fill(0);
                    }
                }
                Step::Zero(_, _, keep) => {
                    let flags = if keep { NO_HOLE } else { 0 };
                    prop_assert_eq!(client.plain(WRITE_ZEROES, flags, at, length).is_ok(), fits);
                    if fits {
                        model[range].fill(0);
                    }
                }
                Step::Status(..) if !structured => {}
                Step::Status(..) => match client.status(0, at, length) {
                    Err(error) => prop_assert!(!fits && error == EINVAL),
                    Ok(runs) => {
                        let mut start = at as usize;
                        for (length, flags) in runs {
                            let end = start + length as usize;
                            prop_assert!(length > 0 && end <= range.end);
                            prop_assert!(flags == 0 || model[start..end].iter().all(|byte| *byte == 0));
                            start = end;
                        }
                        prop_assert_eq!(start, range.end);
                    }
                },
            }
        }
        prop_assert!(client.read(0, 0, size as u32).unwrap() == model);
    }
}
