//! The control socket: how other commands reach the process that holds a pool.
//!
//! A unix socket of mode 0600 in the state folder carries frames both ways ([`protocol::frame`]): a [`Call`] with its
//! payload, then an [`Answer`] with its payload, as often as the client likes. `server` is the holder's side, one
//! thread per client; `client` the other. A client that does not speak the protocol is hung up on.
//!
//! [`Call`]: protocol::request::Call
//! [`Answer`]: protocol::request::Answer

mod client;
mod server;

pub(crate) use client::{Client, Connected, connect};
pub(crate) use server::{Connection, ControlServer, Handler};
