//! Why a server could not be started or kept running.

use std::io;
use std::path::PathBuf;

/// A server could not start or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another process answers on that socket.
    #[error("another server is already listening on {}; stop it or choose another path", .path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket has that name.
    #[error("{} exists and is not a socket; remove it or choose another path", .path.display())]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Path or network address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for clients failed.
    #[error("cannot accept clients on {address}: {source}")]
    Accept {
        /// Path or network address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory can't be mounted on.
    #[error("cannot mount on {}: {source}", .directory.display())]
    Mount {
        /// The mount point.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system can't be unmounted.
    #[error("cannot unmount {}: {source}; close what still uses it and try again", .directory.display())]
    Unmount {
        /// The mount point.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
