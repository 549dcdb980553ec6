//! Listening sockets, and unix socket files that are neither stolen nor left behind.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::ServeError;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket that only the server's own user can connect to.
    Unix(PathBuf),
    /// A network address. Anyone who can reach it has access: the protocol as served here knows no passwords.
    Tcp(SocketAddr),
}

/// A listening socket. A unix socket's file is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    address: Address,
}

#[derive(Debug)]
enum Address {
    Unix { path: PathBuf, device: u64, inode: u64 },
    Tcp(SocketAddr),
}

impl Listener {
    pub(super) fn bind(address: Listen) -> Result<Self, ServeError> {
        match address {
            Listen::Unix(path) => bind_unix(path),
            Listen::Tcp(address) => {
                let failed = |source| ServeError::Listen { address: address.to_string(), source };
                let listener = TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Self { fd: listener.into(), address: Address::Tcp(address) })
            }
        }
    }

    /// The network address, with the port that was chosen.
    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Unix { .. } => None,
            Address::Tcp(address) => Some(address),
        }
    }

    /// The address as text.
    pub(super) fn name(&self) -> String {
        match &self.address {
            Address::Unix { path, .. } => path.display().to_string(),
            Address::Tcp(address) => address.to_string(),
        }
    }

    /// Takes a waiting client, if there is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; others as the system says.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        Ok(rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC)?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only the file we made: by now another server may have put its own there.
        if let Address::Unix { path, device, inode } = &self.address
            && identity(path).is_ok_and(|found| found == (*device, *inode))
        {
            let _ = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn bind_unix(path: PathBuf) -> Result<Listener, ServeError> {
    let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
    clear_stale(&path)?;
    let address = SocketAddrUnix::new(&path).map_err(|error| failed(error.into()))?;
    let make = || -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Linux gives the file the mode that the socket has: at no time may others connect.
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::fchmod(&fd, mode)?;
        bind(&fd, &address)?;
        rustix::fs::chmod(&path, mode)?;
        listen(&fd, 1024)?;
        Ok(fd)
    };
    let fd = make().map_err(|error| match error {
        rustix::io::Errno::ADDRINUSE => ServeError::SocketInUse { path: path.clone() },
        error => failed(error.into()),
    })?;
    let (device, inode) = identity(&path).map_err(failed)?;
    Ok(Listener { fd, address: Address::Unix { path, device, inode } })
}

/// Removes a socket file that nobody listens on any more.
fn clear_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whether it answers, is too busy to answer, or belongs to someone else: it is alive.
        _ => Err(ServeError::SocketInUse { path: path.to_owned() }),
    }
}
