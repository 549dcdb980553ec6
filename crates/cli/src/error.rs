//! Why a command failed, and the exit code that tells so.

use std::io;

/// Exit code of a command that failed.
pub(crate) const EXIT_ERROR: u8 = 1;
/// Exit code of a command that was called in a way that can't be right.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line itself is wrong, beyond what its grammar can tell.
    #[error("{0}")]
    Usage(String),
    /// It could not be done; nothing more is known than the sentence.
    #[error("{0}")]
    Refused(String),
    /// The pool's engine said no.
    #[error(transparent)]
    Pool(#[from] pool::PoolError),
    /// A device said no.
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    /// Something of the host failed.
    #[error("cannot {doing}: {error}")]
    Io {
        /// What was being done, such as `read /tmp/x`.
        doing: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The process that holds the pool went away while it was asked: what looks, or waits, may ask whoever holds it now.
    #[error("the process that holds the pool ended before it answered ({0})")]
    HolderEnded(io::Error),
    /// Standard output was closed by its reader, which is no failure of ours.
    #[error("the reader of the output went away")]
    BrokenPipe,
    /// The answer was printed already and is bad news.
    #[error("")]
    Told,
    /// Interrupted by the user.
    #[error("{0}")]
    Interrupted(String),
}

/// What every step of a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A refusal in one sentence.
    pub(crate) fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }

    /// A wrong command line.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::Usage(sentence.into())
    }

    /// Makes the closure that wraps an I/O error, for `map_err`.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing: doing.into(), error }
    }

    /// The code to exit with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Usage(_) => EXIT_USAGE,
            _ => EXIT_ERROR,
        }
    }
}
