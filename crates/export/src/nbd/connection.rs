//! The second phase of a connection: requests and replies.
//!
//! The reading thread takes as many bytes from the socket as there are, runs small requests at once and in
//! place, and sends their replies together. What is large, or has lately turned out slow, goes to worker
//! threads of this connection, started as they are needed; each sends its reply by itself. So a volume in
//! memory costs no thread switch per request, and a volume on disks sees many requests at a time.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::execute::{execute, refuse};
use super::handshake::Session;
use super::protocol::{Command, MAX_PAYLOAD, Request, command_flag};
use super::queue::{Handover, Job, Queue};
use super::reply::Replies;
use super::socket::Socket;

/// Bytes taken from the socket at once.
const RECEIVE: usize = 256 * 1024;
/// Requests up to this size may run on the reading thread.
const SMALL_MAX: u32 = 64 * 1024;
/// Replies are sent when so many bytes have come together, if not before.
const SEND_AT: usize = 128 * 1024;
/// Bytes taken at once behind a large write: its successor is likely as large, and better received in place.
const RECEIVE_HEADERS: usize = 4096;
/// A client that answers within so long is watched for, instead of sleeping until it does: waking up costs
/// more, above all in a virtual machine.
const WATCH_WORTH: Duration = Duration::from_micros(100);
/// How long it is watched for.
const WATCH_MAX: Duration = Duration::from_micros(50);
/// Bytes of buffer that a thread keeps from one request to the next.
const KEEP: usize = 2 << 20;
/// Small requests run on the reading thread while they take less than this on average: a thread switch
/// and back costs about as much.
const QUICK_MAX: Duration = Duration::from_micros(60);

/// Serves one client until it leaves. All threads have ended when this returns.
pub(super) fn serve(socket: &Socket, session: &Session) {
    let connection = Connection {
        socket,
        session,
        sending: Mutex::new(()),
        broken: AtomicBool::new(false),
        queue: Queue::default(),
        reads: Pace::default(),
        writes: Pace::default(),
    };
    thread::scope(|scope| {
        let closing = CloseQueue(&connection);
        let mut reader = Reader {
            connection: &connection,
            scope,
            buffer: vec![0; RECEIVE],
            start: 0,
            end: 0,
            expects_more: false,
            after_large_write: false,
            replies: Replies::default(),
        };
        if reader.run().is_err() {
            connection.give_up();
        }
        drop(closing);
    });
}

/// Lets the workers end, also when the reading thread panics.
struct CloseQueue<'a>(&'a Connection<'a>);

impl Drop for CloseQueue<'_> {
    fn drop(&mut self) {
        self.0.queue.close(self.0.broken.load(Ordering::Relaxed));
    }
}

/// How long requests of one kind took lately.
#[derive(Debug, Default)]
struct Pace(AtomicU32);

impl Pace {
    /// Moves the average by an eighth of the way. Threads may overwrite each other's news: it is an estimate.
    fn note(&self, since: Instant) {
        let took = u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX).min(1 << 28);
        let average = self.0.load(Ordering::Relaxed);
        self.0.store(average - average / 8 + took / 8, Ordering::Relaxed);
    }

    fn is_quick(&self) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) < QUICK_MAX.as_nanos()
    }
}

/// What the threads of one connection share.
struct Connection<'a> {
    socket: &'a Socket,
    session: &'a Session,
    /// Held while a batch of replies is being sent, so that replies do not mix.
    sending: Mutex<()>,
    /// Replies can't be sent any more.
    broken: AtomicBool,
    queue: Queue,
    reads: Pace,
    writes: Pace,
}

impl Connection<'_> {
    fn send(&self, replies: &mut Replies) -> io::Result<()> {
        let sent = {
            let _alone = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
            self.socket.send_all(replies.pending())
        };
        replies.clear(KEEP);
        if sent.is_err() {
            self.give_up();
        }
        sent
    }

    /// The client can't be reached any more: nothing more is begun.
    fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.socket.close();
    }

    /// The average that tells how quick such a request will be, if it is of a kind that may be quick.
    fn pace(&self, request: &Request) -> Option<&Pace> {
        match request.command {
            Command::Read => Some(&self.reads),
            Command::Write if !request.has(command_flag::FUA) => Some(&self.writes),
            _ => None,
        }
    }

    fn execute(&self, request: &Request, payload: &[u8], replies: &mut Replies) {
        let pace = self.pace(request).filter(|_| request.length <= SMALL_MAX);
        let start = pace.map(|_| Instant::now());
        execute(self.session, request, payload, replies);
        if let (Some(pace), Some(start)) = (pace, start) {
            pace.note(start);
        }
    }

    /// Runs a job that was popped from the queue and sends its reply.
    fn run(&self, job: Job, replies: &mut Replies) {
        let Job { request, payload, bytes } = job;
        let ended = Ended { connection: self, bytes, payload };
        if !self.broken.load(Ordering::Relaxed) {
            let data = if request.command == Command::Write { request.length as usize } else { 0 };
            self.execute(&request, &ended.payload[..data], replies);
            let _ = self.send(replies); // a failure is noted in `broken`
        }
    }

    /// What a worker thread does.
    fn work(&self) {
        let mut replies = Replies::default();
        while let Some(job) = self.queue.pop() {
            self.run(job, &mut replies);
        }
    }
}

/// Counts a job as ended. If the volume panicked, nobody will answer that request: the client is cut off.
struct Ended<'a> {
    connection: &'a Connection<'a>,
    bytes: usize,
    payload: Vec<u8>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.connection.give_up();
        }
        self.connection.queue.finished(self.bytes, std::mem::take(&mut self.payload));
    }
}

/// Whether to go on reading.
#[derive(PartialEq, Eq)]
enum Flow {
    /// The rest of the next request has not arrived yet.
    More,
    /// The client said goodbye, or talks nonsense.
    End,
}

/// The reading thread.
struct Reader<'scope, 'env> {
    connection: &'env Connection<'env>,
    scope: &'scope Scope<'scope, 'env>,
    /// Bytes `start..end` have been received and not been used.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The last wait for the client was short.
    expects_more: bool,
    /// The last request was a large write, and nothing that came after it has been received.
    after_large_write: bool,
    /// Replies to requests run on this thread.
    replies: Replies,
}

impl<'env> Reader<'_, 'env> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let flow = self.use_received()?;
            self.send()?;
            if flow == Flow::End || !self.receive()? {
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.replies.len() == 0 { Ok(()) } else { self.connection.send(&mut self.replies) }
    }

    /// Waits for bytes; false: there will be none.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // There is room in either case: what is left over is nothing, or less than a small request.
        let size = if self.after_large_write { RECEIVE_HEADERS } else { RECEIVE };
        self.after_large_write = false;
        let start = Instant::now();
        let received = match self.watch(start, size)? {
            Some(received) => received,
            None => self.connection.socket.receive(&mut self.buffer[self.end..size])?,
        };
        self.expects_more = start.elapsed() < WATCH_WORTH;
        self.end += received;
        Ok(received > 0)
    }

    /// Looks for bytes again and again for a while, if some are expected. Others may have the processor meanwhile.
    fn watch(&mut self, start: Instant, size: usize) -> io::Result<Option<usize>> {
        while self.expects_more && start.elapsed() < WATCH_MAX {
            let received = self.connection.socket.receive_now(&mut self.buffer[self.end..size])?;
            if received.is_some() {
                return Ok(received);
            }
            thread::yield_now();
        }
        Ok(None)
    }

    /// Works off all requests that have arrived in full.
    fn use_received(&mut self) -> io::Result<Flow> {
        loop {
            let Some(header) = self.buffer[self.start..self.end].first_chunk() else {
                return Ok(Flow::More);
            };
            let Some(request) = Request::decode(header) else {
                return Ok(Flow::End); // no way to tell where the next request starts
            };
            if request.command == Command::Disconnect {
                return Ok(Flow::End);
            }
            let payload = if request.command == Command::Write { request.length } else { 0 };
            let arrived = self.end - self.start - Request::SIZE;
            if payload > MAX_PAYLOAD {
                self.refuse_payload(&request, arrived)?;
            } else if payload > SMALL_MAX {
                self.large_write(request, arrived)?;
            } else if arrived < payload as usize {
                return Ok(Flow::More);
            } else {
                self.small(request, payload as usize)?;
            }
            if self.replies.len() >= SEND_AT {
                self.send()?;
            }
        }
    }

    /// A request whose payload, if any, lies in the buffer as a whole.
    fn small(&mut self, request: Request, payload: usize) -> io::Result<()> {
        let start = self.start + Request::SIZE;
        self.start = start + payload;
        let connection = self.connection;
        let quick = request.length <= SMALL_MAX && connection.pace(&request).is_some_and(Pace::is_quick);
        if quick || (self.start == self.end && connection.queue.is_idle()) {
            // Either it will be done in no time, or there is nothing else to do meanwhile.
            let payload = &self.buffer[start..self.start];
            connection.execute(&request, payload, &mut self.replies);
            return Ok(());
        }
        let bytes =
            if request.command == Command::Read { request.length.min(MAX_PAYLOAD) as usize } else { payload };
        self.make_room(bytes)?;
        let mut copy = Vec::new();
        if payload > 0 {
            copy = connection.queue.payload_buffer(payload);
            copy[..payload].copy_from_slice(&self.buffer[start..self.start]);
        }
        self.hand_over(Job { request, payload: copy, bytes });
        Ok(())
    }

    /// A write whose payload goes straight to a buffer of its own. `arrived` bytes of it may be here already.
    fn large_write(&mut self, request: Request, arrived: usize) -> io::Result<()> {
        let length = request.length as usize;
        self.make_room(length)?;
        let mut payload = self.connection.queue.payload_buffer(length);
        let arrived = arrived.min(length);
        let start = self.start + Request::SIZE;
        self.start = start + arrived;
        payload[..arrived].copy_from_slice(&self.buffer[start..self.start]);
        if arrived < length {
            self.send()?;
            self.connection.socket.receive_exact(&mut payload[arrived..length])?;
        }
        self.after_large_write = self.start == self.end;
        self.hand_over(Job { request, payload, bytes: length });
        Ok(())
    }

    /// A write larger than anyone may send: its payload is skipped, so that the client hears why.
    fn refuse_payload(&mut self, request: &Request, arrived: usize) -> io::Result<()> {
        let length = request.length as usize;
        let arrived = arrived.min(length);
        self.start += Request::SIZE + arrived;
        self.send()?;
        self.connection.socket.skip((length - arrived) as u64)?;
        refuse(self.connection.session, request, "more than 32 MiB in one write", &mut self.replies);
        Ok(())
    }

    /// Waits until the queue takes a job of that many bytes. Replies do not wait with us.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        if !self.connection.queue.has_room(bytes) {
            self.send()?;
            self.connection.queue.wait_for_room(bytes);
        }
        Ok(())
    }

    fn hand_over(&mut self, job: Job) {
        let connection: &'env Connection<'env> = self.connection;
        if let Handover::Taken = connection.queue.push(job) {
            return;
        }
        let worker = thread::Builder::new().name("nbd-worker".into());
        if worker.spawn_scoped(self.scope, || connection.work()).is_err()
            && let Some(job) = connection.queue.worker_not_started()
        {
            connection.run(job, &mut self.replies);
        }
    }
}
