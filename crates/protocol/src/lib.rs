//! What commands and the process that holds a pool or a RAID set say to each other over its control socket.
//!
//! [`frame`] carries a [`request::Call`] with its payload one way and a [`request::Answer`] with its payload the other.
//! [`request`] has what a holder of a pool can be asked, [`raid`] what the holder of a RAID set can be, and [`told`]
//! what a `raidctl` command says there.

pub mod frame;
pub mod raid;
pub mod request;
pub mod told;

/// Largest payload of a frame, bytes; longer reads and writes are asked for in parts.
pub const MAX_TRANSFER: usize = 8 << 20;

/// Version of the protocol; both sides must have the same.
pub const VERSION: u32 = 1;
