//! The client's side of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use protocol::request::{Answer, Call, Reply, Request};
use protocol::{VERSION, frame};

use crate::error::{Failure, Outcome};

/// A connection to the process that holds a pool.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    command: String,
}

/// What lies behind a control socket's path.
#[derive(Debug)]
pub(crate) enum Connected {
    /// A process that holds the pool.
    Holder(Client),
    /// Nobody.
    Nobody,
}

/// Connects to the holder of a pool; `command` is the command line, for the history.
///
/// # Errors
/// The socket is there and can't be used.
pub(crate) fn connect(socket: &Path, command: &str) -> Outcome<Connected> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Connected::Holder(Client { stream, command: command.to_owned() })),
        // A socket that nobody listens on was left by a process that was killed.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(Connected::Nobody)
        }
        Err(error) => Err(Failure::io(format!("connect to {}", socket.display()))(error)),
    }
}

impl Client {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The holder refuses, or it ended before it answered.
    pub(crate) fn call(&mut self, request: &Request, payload: &[u8]) -> Outcome<(Reply, Vec<u8>)> {
        let call = Call { version: VERSION, command: self.command.clone(), request: request.clone() };
        // A holder that hangs up while it is written to may still have said why.
        let written = frame::write(&mut self.stream, &call, payload);
        match frame::read(&mut self.stream, frame::MAX_JSON) {
            Ok(Some((Answer::Ok(reply), data))) => Ok((reply, data)),
            Ok(Some((Answer::Failed(why), _))) => Err(Failure::refused(why)),
            Ok(None) => {
                let error = written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                Err(Failure::HolderEnded(error))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Failure::io("understand the process that holds the pool")(error))
            }
            Err(error) => Err(Failure::HolderEnded(error)),
        }
    }

    /// The connection, to wait for its end or to end it from another thread.
    ///
    /// # Errors
    /// No more descriptors.
    pub(crate) fn stream(&self) -> Outcome<UnixStream> {
        self.stream.try_clone().map_err(Failure::io("duplicate the control connection"))
    }
}
