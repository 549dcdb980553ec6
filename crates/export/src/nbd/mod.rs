//! An NBD server: own protocol code, one thread per client and a few more where they help.
//!
//! [`NbdServer`] accepts clients (`listener`); each is served by its own thread, which first negotiates
//! (`handshake`) and then works off requests (`connection`), at once or through worker threads (`queue`);
//! `execute` carries a request out on the volume and encodes the reply (`reply`). `protocol` has the
//! numbers, `socket` the system calls.
//!
//! Fixed newstyle negotiation, structured replies, `base:allocation`; no TLS. Multi-conn: a flush on any
//! connection covers the completed writes of all, because all of a volume's clients share one
//! [`Target`](crate::Target).

mod connection;
mod execute;
mod handshake;
mod listener;
mod protocol;
mod queue;
mod reply;
mod socket;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

pub use self::listener::Listen;
use self::listener::Listener;
use self::socket::Socket;
use crate::{Exports, ServeError};

/// Clients at a time; further ones are turned away at once.
const CLIENTS_MAX: usize = 1024;
/// How long clients get at the end to take the replies to what they have asked already.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause before accepting again when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An NBD server bound to an address. Dropping it closes the address and removes its socket file.
#[derive(Debug)]
pub struct NbdServer {
    listener: Listener,
    exports: Arc<dyn Exports>,
    stop: StopHandle,
    clients: Arc<Clients>,
}

/// Ends a server from another thread.
#[derive(Clone, Debug)]
pub struct StopHandle(Arc<Stop>);

#[derive(Debug)]
struct Stop {
    asked: AtomicBool,
    wakeup: OwnedFd,
}

impl StopHandle {
    /// Makes [`NbdServer::serve`] return: no further clients, and the present ones are let go.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        // Can't fail but by overflow, and then it has been written before.
        let _ = rustix::io::write(&self.0.wakeup, &1_u64.to_ne_bytes());
    }

    fn asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl NbdServer {
    /// Binds the address; clients can connect from now on and are served once [`Self::serve`] runs.
    ///
    /// # Errors
    /// A live server has the unix socket, something else than a socket is there, or the system refuses.
    pub fn bind(address: Listen, exports: Arc<dyn Exports>) -> Result<Self, ServeError> {
        let listener = Listener::bind(address)?;
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| ServeError::Listen { address: listener.name(), source: error.into() })?;
        let stop = StopHandle(Arc::new(Stop { asked: AtomicBool::new(false), wakeup }));
        Ok(Self { listener, exports, stop, clients: Arc::default() })
    }

    /// The network address, with the port that the system chose where 0 was asked for. `None` for unix sockets.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.listener.tcp_address()
    }

    /// Something to stop the server with.
    pub fn handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Makes [`Self::serve`] return.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.clients.lock().sockets.len()
    }

    /// Serves clients until it is stopped. Requests that were received by then are carried out and
    /// answered; clients that do not take their replies within some seconds are cut off. Returns when
    /// the last client's threads have ended.
    ///
    /// # Errors
    /// The system can't wait for clients any more.
    pub fn serve(&self) -> Result<(), ServeError> {
        let outcome = self.accept_clients();
        self.clients.let_go();
        outcome.map_err(|source| ServeError::Accept { address: self.listener.name(), source })
    }

    fn accept_clients(&self) -> io::Result<()> {
        while !self.stop.asked() {
            let mut waiting = [
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.0.wakeup.as_fd(), PollFlags::IN),
            ];
            match poll(&mut waiting, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.stop.asked() {
                break;
            }
            match self.listener.accept() {
                Ok(fd) => self.welcome(fd),
                Err(error) if passing(&error) => {}
                // Out of descriptors or memory: the client stays in the queue until some are free.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
        Ok(())
    }

    /// Starts a thread for a new client. Without one, or with too many clients, it is hung up on.
    fn welcome(&self, fd: OwnedFd) {
        let socket = Arc::new(Socket::new(fd));
        let Some(presence) = Clients::enter(&self.clients, &socket) else { return };
        let exports = Arc::clone(&self.exports);
        let thread = thread::Builder::new().name("nbd-client".into());
        let _ = thread.spawn(move || {
            if let Ok(Some(session)) = handshake::negotiate(&socket, &*exports) {
                connection::serve(&socket, &session);
            }
            socket.close();
            drop(presence);
        });
    }
}

/// Serves one client on a connected socket until it leaves, on this thread.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn serve_one(fd: OwnedFd, exports: &dyn Exports) {
    let socket = Socket::new(fd);
    if let Ok(Some(session)) = handshake::negotiate(&socket, exports) {
        connection::serve(&socket, &session);
    }
    socket.close();
}

/// Whether a failed accept says nothing about the next one.
fn passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::WouldBlock | Kind::Interrupted | Kind::ConnectionAborted)
}

/// The clients connected now.
#[derive(Debug, Default)]
struct Clients {
    state: Mutex<ClientList>,
    /// Told when the last one has left.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct ClientList {
    sockets: HashMap<u64, Arc<Socket>>,
    next: u64,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, ClientList> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(clients: &Arc<Self>, socket: &Arc<Socket>) -> Option<Presence> {
        let mut list = clients.lock();
        if list.sockets.len() >= CLIENTS_MAX {
            return None;
        }
        let number = list.next;
        list.next += 1;
        list.sockets.insert(number, Arc::clone(socket));
        drop(list);
        Some(Presence { clients: Arc::clone(clients), number })
    }

    /// Takes no more requests from anyone, and waits until all have left.
    fn let_go(&self) {
        let list = self.lock();
        list.sockets.values().for_each(|socket| socket.stop_receiving());
        let (list, _) = self
            .empty
            .wait_timeout_while(list, FAREWELL, |list| !list.sockets.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        list.sockets.values().for_each(|socket| socket.close());
        let _list = self
            .empty
            .wait_while(list, |list| !list.sockets.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}

/// A client's place in the list, given up also when its thread panics.
#[derive(Debug)]
struct Presence {
    clients: Arc<Clients>,
    number: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut list = self.clients.lock();
        list.sockets.remove(&self.number);
        if list.sockets.is_empty() {
            self.clients.empty.notify_all();
        }
    }
}
