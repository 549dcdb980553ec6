//! The first phase of a connection: fixed newstyle negotiation, up to the choice of an export.
//!
//! Every option is read whole (at most [`MAX_OPTION`] bytes), answered, and forgotten; what stays is the
//! [`Session`]. Names and flags come from the client and are trusted for nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, INIT_MAGIC, MAX_PAYLOAD, MAX_STRING, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, handshake_flag, info, option, option_reply, transmission_flag,
};
use super::socket::Socket;
use crate::{Exports, Target};

/// Bytes of one option that are looked at; all legitimate ones are far smaller.
const MAX_OPTION: u32 = 64 * 1024;
/// Bytes of one option that are skipped for the sake of a proper refusal; beyond it the client is cut off.
const MAX_SKIPPED_OPTION: u32 = 16 << 20;
/// Options of one client: enough to ask about thousands of exports, and an end for those who never choose.
const MAX_OPTIONS: u32 = 64 * 1024;
/// A client that says nothing for so long during negotiation is cut off.
const SILENCE: Duration = Duration::from_mins(1);

/// What was agreed on.
#[derive(Debug)]
pub(super) struct Session {
    /// The chosen volume.
    pub(super) target: Arc<dyn Target>,
    /// Structured replies were asked for.
    pub(super) structured: bool,
    /// The `base:allocation` context was selected for this volume.
    pub(super) allocation: bool,
}

/// Negotiates. `None`: the client went away, asked to end, or broke the rules beyond repair.
///
/// # Errors
/// The connection broke.
pub(super) fn negotiate(socket: &Socket, exports: &dyn Exports) -> io::Result<Option<Session>> {
    socket.set_receive_timeout(Some(SILENCE))?;
    let mut hello = Vec::with_capacity(18);
    hello.extend(INIT_MAGIC.to_be_bytes());
    hello.extend(OPTION_MAGIC.to_be_bytes());
    hello.extend(((handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES) as u16).to_be_bytes());
    socket.send_all(&hello)?;

    let mut flags = [0; 4];
    socket.receive_exact(&mut flags)?;
    let flags = u32::from_be_bytes(flags);
    if flags & !(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES) != 0 {
        return Ok(None);
    }
    let zeroes = flags & handshake_flag::NO_ZEROES == 0;
    let mut negotiation =
        Negotiation { socket, exports, zeroes, structured: false, allocation_of: None, out: Vec::new() };
    for _ in 0..MAX_OPTIONS {
        match negotiation.option()? {
            Next::Continue => {}
            Next::End => return Ok(None),
            Next::Serve(session) => {
                socket.set_receive_timeout(None)?;
                return Ok(Some(session));
            }
        }
    }
    Ok(None)
}

enum Next {
    Continue,
    End,
    Serve(Session),
}

struct Negotiation<'a> {
    socket: &'a Socket,
    exports: &'a dyn Exports,
    /// The client wants the 124 zeros of old behind the answer to `EXPORT_NAME`.
    zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was selected.
    allocation_of: Option<String>,
    /// Replies to the current option.
    out: Vec<u8>,
}

impl Negotiation<'_> {
    /// Reads one option and answers it.
    fn option(&mut self) -> io::Result<Next> {
        let mut header = [0; 16];
        self.socket.receive_exact(&mut header)?;
        let [m0, m1, m2, m3, m4, m5, m6, m7, o0, o1, o2, o3, l0, l1, l2, l3] = header;
        if u64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]) != OPTION_MAGIC {
            return Ok(Next::End);
        }
        let number = u32::from_be_bytes([o0, o1, o2, o3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > MAX_OPTION {
            if length > MAX_SKIPPED_OPTION || number == option::EXPORT_NAME {
                return Ok(Next::End);
            }
            self.socket.skip(u64::from(length))?;
            self.refuse(number, option_reply::ERR_TOO_BIG, "the option is too long");
            return self.answered(Next::Continue);
        }
        let mut data = vec![0; length as usize];
        self.socket.receive_exact(&mut data)?;

        let next = match number {
            option::EXPORT_NAME => return self.export_name(&data),
            option::ABORT => {
                self.reply(number, option_reply::ACK, &[]);
                Next::End
            }
            option::LIST => self.list(&data),
            option::STARTTLS => {
                if data.is_empty() {
                    self.refuse(number, option_reply::ERR_POLICY, "TLS is not configured on this server");
                } else {
                    self.refuse(number, option_reply::ERR_INVALID, "STARTTLS takes no data");
                }
                Next::Continue
            }
            option::INFO | option::GO => self.info(number, &data),
            option::STRUCTURED_REPLY => {
                if data.is_empty() {
                    self.structured = true;
                    self.reply(number, option_reply::ACK, &[]);
                } else {
                    self.refuse(number, option_reply::ERR_INVALID, "STRUCTURED_REPLY takes no data");
                }
                Next::Continue
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(number, &data),
            _ => {
                self.refuse(number, option_reply::ERR_UNSUPPORTED, "this server does not know that option");
                Next::Continue
            }
        };
        self.answered(next)
    }

    /// Sends what has been replied.
    fn answered(&mut self, next: Next) -> io::Result<Next> {
        self.socket.send_all(&self.out)?;
        self.out.clear();
        Ok(next)
    }

    fn reply(&mut self, number: u32, kind: u32, data: &[u8]) {
        self.out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
        self.out.extend(number.to_be_bytes());
        self.out.extend(kind.to_be_bytes());
        self.out.extend((data.len() as u32).to_be_bytes());
        self.out.extend(data);
    }

    fn refuse(&mut self, number: u32, kind: u32, why: &str) {
        self.reply(number, kind, why.as_bytes());
    }

    /// The export a client means, under its real name: "" stands for the only one.
    fn find(&self, name: &str) -> Option<(String, Arc<dyn Target>)> {
        if let Some(target) = self.exports.open(name) {
            return Some((name.to_owned(), target));
        }
        match (name, self.exports.names().as_slice()) {
            ("", [only]) => self.exports.open(only).map(|target| (only.clone(), target)),
            _ => None,
        }
    }

    fn transmission_flags(&self, target: &dyn Target) -> u16 {
        use transmission_flag as flag;
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
        if target.read_only() {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_FUA | flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
        }
        if self.structured {
            flags |= flag::SEND_DF;
        }
        flags
    }

    /// The old way to choose, which can't refuse but by hanging up.
    fn export_name(&mut self, data: &[u8]) -> io::Result<Next> {
        let Some((name, target)) = text(data).and_then(|name| self.find(name)) else {
            return Ok(Next::End);
        };
        self.out.extend(target.size().to_be_bytes());
        self.out.extend(self.transmission_flags(&*target).to_be_bytes());
        if self.zeroes {
            self.out.extend([0; 124]);
        }
        let session = self.session(&name, target);
        self.answered(Next::Serve(session))
    }

    fn session(&self, name: &str, target: Arc<dyn Target>) -> Session {
        let allocation = self.structured && self.allocation_of.as_deref() == Some(name);
        Session { target, structured: self.structured, allocation }
    }

    fn list(&mut self, data: &[u8]) -> Next {
        if !data.is_empty() {
            self.refuse(option::LIST, option_reply::ERR_INVALID, "LIST takes no data");
            return Next::Continue;
        }
        for name in self.exports.names() {
            if name.len() > MAX_STRING {
                continue; // the protocol can't name it
            }
            let description = self.exports.description(&name).unwrap_or_default();
            let mut entry = Vec::with_capacity(4 + name.len() + description.len());
            entry.extend((name.len() as u32).to_be_bytes());
            entry.extend(name.as_bytes());
            entry.extend(shortened(&description).as_bytes());
            self.reply(option::LIST, option_reply::SERVER, &entry);
        }
        self.reply(option::LIST, option_reply::ACK, &[]);
        Next::Continue
    }

    /// `INFO` and `GO` differ only in what follows.
    fn info(&mut self, number: u32, data: &[u8]) -> Next {
        let Some((name, wanted)) = parse_info(data) else {
            self.refuse(number, option_reply::ERR_INVALID, "malformed request for information");
            return Next::Continue;
        };
        let Some((name, target)) = self.find(name) else {
            self.refuse(number, option_reply::ERR_UNKNOWN, "there is no export of that name");
            return Next::Continue;
        };
        let mut item = info::EXPORT.to_be_bytes().to_vec();
        item.extend(target.size().to_be_bytes());
        item.extend(self.transmission_flags(&*target).to_be_bytes());
        self.reply(number, option_reply::INFO, &item);
        if wanted.contains(&info::NAME) {
            let item = [&info::NAME.to_be_bytes()[..], name.as_bytes()].concat();
            self.reply(number, option_reply::INFO, &item);
        }
        if wanted.contains(&info::DESCRIPTION)
            && let Some(description) = self.exports.description(&name)
        {
            let item = [&info::DESCRIPTION.to_be_bytes()[..], shortened(&description).as_bytes()].concat();
            self.reply(number, option_reply::INFO, &item);
        }
        // Told even to those who did not ask: nothing in it forbids what they would do by default.
        let preferred = target.block_size().clamp(512, MAX_PAYLOAD).next_power_of_two();
        let mut item = info::BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, preferred, MAX_PAYLOAD] {
            item.extend(size.to_be_bytes());
        }
        self.reply(number, option_reply::INFO, &item);
        self.reply(number, option_reply::ACK, &[]);
        if number == option::GO { Next::Serve(self.session(&name, target)) } else { Next::Continue }
    }

    fn meta_context(&mut self, number: u32, data: &[u8]) -> Next {
        let setting = number == option::SET_META_CONTEXT;
        if setting {
            self.allocation_of = None;
        }
        if !self.structured {
            self.refuse(number, option_reply::ERR_INVALID, "structured replies must be negotiated first");
            return Next::Continue;
        }
        let Some((name, queries)) = parse_meta_context(data) else {
            self.refuse(number, option_reply::ERR_INVALID, "malformed list of metadata contexts");
            return Next::Continue;
        };
        let Some((name, _)) = self.find(name) else {
            self.refuse(number, option_reply::ERR_UNKNOWN, "there is no export of that name");
            return Next::Continue;
        };
        let selected = if setting {
            queries.contains(&BASE_ALLOCATION)
        } else {
            queries.is_empty() || queries.iter().any(|query| [BASE_ALLOCATION, "base:"].contains(query))
        };
        if selected {
            // When listing, the number means nothing.
            let id = if setting { BASE_ALLOCATION_ID } else { 0 };
            let item = [&id.to_be_bytes()[..], BASE_ALLOCATION.as_bytes()].concat();
            self.reply(number, option_reply::META_CONTEXT, &item);
            if setting {
                self.allocation_of = Some(name);
            }
        }
        self.reply(number, option_reply::ACK, &[]);
        Next::Continue
    }
}

/// A string of the protocol, if it is one.
fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_STRING { None } else { std::str::from_utf8(bytes).ok() }
}

/// As much of a text as the protocol allows.
pub(super) fn shortened(text: &str) -> &str {
    let mut end = text.len().min(MAX_STRING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Takes an integer and that many bytes of text from the front.
fn take_text<'a>(data: &mut &'a [u8]) -> Option<&'a str> {
    let length = u32::from_be_bytes(*data.split_off(..4)?.first_chunk()?);
    text(data.split_off(..usize::try_from(length).ok()?)?)
}

/// The data of `INFO` and `GO`: name, and the kinds of information wanted.
fn parse_info(mut data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let name = take_text(&mut data)?;
    let count = u16::from_be_bytes(*data.split_off(..2)?.first_chunk()?);
    if data.len() != usize::from(count) * 2 {
        return None;
    }
    let (pairs, _) = data.as_chunks::<2>();
    Some((name, pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect()))
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`: name, and queries.
fn parse_meta_context(mut data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let name = take_text(&mut data)?;
    let count = u32::from_be_bytes(*data.split_off(..4)?.first_chunk()?);
    let mut queries = Vec::new(); // grows only as far as there is data: each query takes four bytes at least
    for _ in 0..count {
        queries.push(take_text(&mut data)?);
    }
    data.is_empty().then_some((name, queries))
}
