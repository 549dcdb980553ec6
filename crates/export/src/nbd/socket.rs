//! One client's stream socket: whole reads, whole writes, and never a SIGPIPE.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

/// Bytes the kernel may hold of replies that the client has not taken yet.
const SEND_BUFFER: usize = 1 << 20;

/// A connected stream socket of any family. May be read by one thread while others write or shut it down.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Takes a connected socket and sets what makes small replies leave at once.
    pub(super) fn new(fd: OwnedFd) -> Self {
        // All three only tune: a socket that refuses one of them (TCP_NODELAY on a unix socket) works as well.
        let _ = sockopt::set_tcp_nodelay(&fd, true);
        let _ = sockopt::set_socket_keepalive(&fd, true);
        let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
        Self(fd)
    }

    /// Reads whatever is there, waiting for at least a byte. 0: the client sends nothing any more.
    ///
    /// # Errors
    /// The connection broke, or the time set by [`Self::set_receive_timeout`] is over.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Ok((received, _)) => return Ok(received),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::receive`], but does not wait: `None` if nothing is there yet.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((received, _)) => Ok(Some(received)),
            Err(Errno::INTR | Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills the whole buffer.
    ///
    /// # Errors
    /// As [`Self::receive`], and the client stopped sending in the middle.
    pub(super) fn receive_exact(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match recv(&self.0, &mut *buffer, RecvFlags::WAITALL) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((received, _)) => buffer = &mut buffer[received..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads and forgets `length` bytes.
    ///
    /// # Errors
    /// As [`Self::receive_exact`].
    pub(super) fn skip(&self, mut length: u64) -> io::Result<()> {
        let mut scratch = [0; 16 * 1024];
        while length > 0 {
            let piece = length.min(scratch.len() as u64) as usize;
            self.receive_exact(&mut scratch[..piece])?;
            length -= piece as u64;
        }
        Ok(())
    }

    /// Sends everything.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// How long a receive may wait; `None`: for ever.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn set_receive_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, timeout)?)
    }

    /// Makes receives return the end of the stream; replies still go out.
    pub(super) fn stop_receiving(&self) {
        let _ = shutdown(&self.0, Shutdown::Read);
    }

    /// Ends the connection, also for threads that wait in it.
    pub(super) fn close(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}
