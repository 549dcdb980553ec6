//! The holder's side of the control socket.

use std::any::Any;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use protocol::request::{Answer, Call, Reply};
use protocol::{VERSION, frame};

use crate::error::{Failure, Outcome};

/// Clients at a time.
const MAX_CLIENTS: usize = 128;
/// Pause when no client can be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who answers calls.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one call.
    ///
    /// # Errors
    /// Whatever is to be told to the client.
    fn handle(&self, call: Call, payload: Vec<u8>, connection: &mut Connection) -> Outcome<(Reply, Vec<u8>)>;
}

/// What lives as long as a client's connection.
#[derive(Default)]
pub(crate) struct Connection {
    held: Vec<Box<dyn Any + Send>>,
}

impl Connection {
    /// Keeps `thing` until the client goes.
    pub(crate) fn hold(&mut self, thing: impl Any + Send) {
        self.held.push(Box::new(thing));
    }
}

/// A control socket that is being served. Dropping it hangs up on all clients, waits for their calls to be
/// answered, and removes the socket.
#[derive(Debug)]
pub(crate) struct ControlServer {
    path: PathBuf,
    /// The acceptor's listener, to wake it: the path may be gone by then.
    listener: UnixListener,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    clients: AtomicUsize,
    streams: Mutex<Vec<(usize, UnixStream)>>,
}

impl ControlServer {
    /// Serves calls at `path`. The caller has the pool's lock, so a socket that is there already is a dead one's.
    ///
    /// # Errors
    /// The socket can't be made.
    pub(crate) fn start(path: &Path, handler: Arc<dyn Handler>) -> Outcome<Self> {
        let doing = || format!("listen on {}", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Failure::io(doing())(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(Failure::io(doing()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(Failure::io(doing()))?;
        let twin = listener.try_clone().map_err(Failure::io(doing()))?;
        let shared = Arc::new(Shared::default());
        let for_acceptor = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &for_acceptor, &handler))
            .map_err(Failure::io("start a thread"))?;
        Ok(Self { path: path.to_owned(), listener: twin, shared, acceptor: Some(acceptor) })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor, whose listener fails from now on.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = fs::remove_file(&self.path);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let streams =
            std::mem::take(&mut *self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, stream) in streams {
            // Ends the reading of further calls; an answer that is being worked on can still be sent.
            let _ = stream.shutdown(std::net::Shutdown::Read);
        }
        // Some seconds are enough for any answer; a client that does not read its answer is not waited for longer.
        for _ in 0..200 {
            if self.shared.clients.load(Ordering::SeqCst) == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(25));
        }
    }
}

/// Accepts clients until told to stop.
fn accept(listener: &UnixListener, shared: &Arc<Shared>, handler: &Arc<dyn Handler>) {
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        if shared.stop.load(Ordering::SeqCst) || shared.clients.load(Ordering::SeqCst) >= MAX_CLIENTS {
            continue;
        }
        let Ok(twin) = stream.try_clone() else { continue };
        number += 1;
        shared.streams.lock().unwrap_or_else(PoisonError::into_inner).push((number, twin));
        shared.clients.fetch_add(1, Ordering::SeqCst);
        let leaver = Leaver { shared: Arc::clone(shared), number };
        let handler = Arc::clone(handler);
        // Should no thread start, the closure is dropped, and with it the client.
        let _ = thread::Builder::new().name("control-client".into()).spawn(move || {
            serve(stream, &*handler);
            drop(leaver);
        });
    }
}

/// A client's place in the list, given up when its thread ends in whatever way.
struct Leaver {
    shared: Arc<Shared>,
    number: usize,
}

impl Drop for Leaver {
    fn drop(&mut self) {
        let mut streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|(number, _)| *number != self.number);
        drop(streams);
        self.shared.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Answers one client until it leaves or stops making sense.
fn serve(mut stream: UnixStream, handler: &dyn Handler) {
    let mut connection = Connection::default();
    loop {
        let (answer, data, last) = match frame::read::<Call>(&mut stream, frame::MAX_REQUEST) {
            Ok(None) => return,
            Ok(Some((call, _))) if call.version != VERSION => {
                let why = format!(
                    "the process that holds the pool speaks version {VERSION} of the control protocol, this command \
                     version {}; use the same program for both",
                    call.version
                );
                (Answer::Failed(why), Vec::new(), true)
            }
            Ok(Some((call, payload))) => match handler.handle(call, payload, &mut connection) {
                Ok((reply, data)) => (Answer::Ok(reply), data, false),
                Err(error) => (Answer::Failed(error.to_string()), Vec::new(), false),
            },
            Err(error) => {
                (Answer::Failed(format!("the request was not understood: {error}")), Vec::new(), true)
            }
        };
        if frame::write(&mut stream, &answer, &data).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::control::{Connected, connect};
    use protocol::request::Request;

    /// Answers everything with "done", and refuses flushes.
    struct Echo;

    impl Handler for Echo {
        fn handle(&self, call: Call, payload: Vec<u8>, _: &mut Connection) -> Outcome<(Reply, Vec<u8>)> {
            match call.request {
                Request::Flush => Err(Failure::refused("no flush today")),
                _ => Ok((Reply::Done, payload)),
            }
        }
    }

    fn server() -> (tempfile::TempDir, PathBuf, ControlServer) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.sock");
        let server = ControlServer::start(&path, Arc::new(Echo)).unwrap();
        (dir, path, server)
    }

    fn client(path: &Path) -> crate::control::Client {
        match connect(path, "coffer test").unwrap() {
            Connected::Holder(client) => client,
            Connected::Nobody => panic!("nobody listens"),
        }
    }

    #[test]
    fn calls_are_answered_in_turn_and_many_clients_are_served() {
        let (_dir, path, _server) = server();
        let mut clients: Vec<_> = (0..8).map(|_| client(&path)).collect();
        for client in &mut clients {
            assert_eq!(client.call(&Request::Status, b"abc").unwrap(), (Reply::Done, b"abc".to_vec()));
            let error = client.call(&Request::Flush, b"").unwrap_err();
            assert_eq!(error.to_string(), "no flush today");
            assert!(client.call(&Request::Status, b"").is_ok());
        }
    }

    #[test]
    fn garbage_closes_only_its_own_connection() {
        let (_dir, path, _server) = server();
        let mut well = client(&path);
        let mut junk =
            vec![b"\0".to_vec(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 100_000], b"CFR1".to_vec()];
        junk.push(b"CFR1\x04\0\0\0\0\0\0\0null".to_vec());
        junk.push(b"CFR1\xff\xff\x00\0\0\0\0\0{".to_vec());
        junk.push([b"CFR1\x40\0\0\0\0\0\0\0".as_slice(), &[b'['; 64]].concat());
        let mut noise = 1_u64;
        for _ in 0..50 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            junk.push(noise.to_le_bytes().repeat(1 + noise as usize % 7));
        }
        for bytes in junk {
            let mut stream = UnixStream::connect(&path).unwrap();
            // The server may hang up before it has read all of it.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(well.call(&Request::Status, b"").is_ok());
        }
        assert!(client(&path).call(&Request::Status, b"").is_ok());
    }

    #[test]
    fn another_version_is_told_so() {
        let (_dir, path, _server) = server();
        let mut stream = UnixStream::connect(&path).unwrap();
        let call = Call { version: VERSION + 1, command: String::new(), request: Request::Status };
        frame::write(&mut stream, &call, b"").unwrap();
        let (answer, _) = frame::read::<Answer>(&mut stream, frame::MAX_JSON).unwrap().unwrap();
        assert!(matches!(answer, Answer::Failed(why) if why.contains("version")));
    }

    #[test]
    fn only_the_owner_may_connect_and_a_dead_socket_is_replaced() {
        let (_dir, path, server) = server();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(server);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(connect(&path, "").unwrap(), Connected::Nobody));
        let _server = ControlServer::start(&path, Arc::new(Echo)).unwrap();
        assert!(client(&path).call(&Request::Status, b"").is_ok());
    }

    #[test]
    fn it_ends_although_its_socket_was_removed() {
        let (_dir, path, server) = server();
        fs::remove_file(&path).unwrap();
        drop(server);
    }

    #[test]
    fn what_a_connection_holds_goes_with_it() {
        struct Holding(Arc<()>);
        impl Handler for Holding {
            fn handle(&self, _: Call, _: Vec<u8>, connection: &mut Connection) -> Outcome<(Reply, Vec<u8>)> {
                connection.hold(Arc::clone(&self.0));
                Ok((Reply::Done, Vec::new()))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("7.sock");
        let thing = Arc::new(());
        let _server = ControlServer::start(&path, Arc::new(Holding(Arc::clone(&thing)))).unwrap();
        let mut caller = client(&path);
        caller.call(&Request::Status, b"").unwrap();
        assert_eq!(Arc::strong_count(&thing), 3);
        drop(caller);
        while Arc::strong_count(&thing) > 2 {
            thread::yield_now();
        }
    }
}
