//! Units for other programs, until interrupted: NBD, FUSE, or just held.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::Args;
use device::{BlockDevice, DeviceError};
use export::{
    ExportTable, FuseOptions, FuseSession, Listen, NbdServer, Run, StopHandle, Target, TargetError,
};
use protocol::raid::RaidRequest;
use protocol::request::Place;
use raidset::set::RaidSet;

use super::Context;
use super::holder::Holder;
use super::told;
use super::unit::{Reach, Unit};
use crate::commands::print_bytes;
use crate::error::{Failure, Outcome};
use crate::signals::Interrupt;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(50);
/// Zeros that are written at once, bytes at most.
const ZEROS: u64 = 4 << 20;

/// `coffer raid nbd`.
#[derive(Debug, Args)]
pub(crate) struct Nbd {
    /// Listen on this unix socket
    #[arg(long, value_name = "PATH", conflicts_with = "listen", required_unless_present = "listen")]
    socket: Option<PathBuf>,
    /// Listen on this TCP address
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The unit
    pub(super) unit: String,
}

/// `coffer raid fuse`.
#[derive(Debug, Args)]
pub(crate) struct Fuse {
    /// The unit
    pub(super) unit: String,
    /// The folder, which must exist
    dir: PathBuf,
}

/// A set as something that can be served.
#[derive(Debug)]
struct RaidTarget(Arc<RaidSet>);

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: DeviceError) -> TargetError {
    match error.kind {
        device::DeviceErrorKind::OutOfRange { .. } => TargetError::Invalid(error.to_string()),
        _ => TargetError::Io(error.to_string()),
    }
}

impl Target for RaidTarget {
    fn size(&self) -> u64 {
        self.0.size().unwrap_or(0)
    }

    fn block_size(&self) -> u32 {
        self.0.sector_size().max(4096)
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        BlockDevice::read(&*self.0, offset, buffer).map_err(failed)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        BlockDevice::write(&*self.0, offset, data).map_err(failed)
    }

    fn flush(&self) -> Result<(), TargetError> {
        BlockDevice::flush(&*self.0).map_err(failed)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        // Nothing can be given back without making parity wrong, but the range is to read as zeros.
        self.write_zeroes(offset, length, true)
    }

    fn write_zeroes(&self, offset: u64, length: u64, _keep_allocated: bool) -> Result<(), TargetError> {
        let zeros = vec![0; length.min(ZEROS) as usize];
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            // Pieces end on multiples, so that whole stripes stay whole.
            let piece = (end - at).min(ZEROS - at % ZEROS);
            self.write(at, &zeros[..piece as usize])?;
            at += piece;
        }
        Ok(())
    }

    fn runs(&self, _offset: u64, length: u64, _limit: usize) -> Result<Vec<Run>, TargetError> {
        Ok(vec![Run { length, hole: false }])
    }
}

/// A unit that is being served. Dropping it ends that.
pub(crate) enum Export {
    /// By an NBD server.
    Nbd(StopHandle, Option<JoinHandle<Result<(), export::ServeError>>>),
    /// As a file.
    Fuse(FuseSession),
}

impl Export {
    fn has_ended(&self) -> bool {
        match self {
            Self::Nbd(_, thread) => thread.as_ref().is_none_or(JoinHandle::is_finished),
            Self::Fuse(session) => session.has_ended(),
        }
    }

    fn end(mut self) -> Outcome {
        let ended = match &mut self {
            Self::Nbd(stop, thread) => {
                stop.stop();
                thread.take().and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
            }
            Self::Fuse(session) if session.has_ended() => Ok(()),
            Self::Fuse(session) => session.stop(),
        };
        ended.map_err(|error| Failure::refused(error.to_string()))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Self::Nbd(stop, thread) = self {
            stop.stop();
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// Begins to serve a unit; also a sentence that tells where.
///
/// # Errors
/// The place is taken.
pub(crate) fn start(unit: &Arc<Unit>, place: &Place) -> Outcome<(Export, String)> {
    let name = format!("raid{}", unit.number());
    let refused = |error: export::ServeError| Failure::refused(error.to_string());
    let table = ExportTable::new();
    table.insert(&*name, Arc::new(RaidTarget(Arc::clone(unit.set()))));
    let listen = match place {
        Place::NbdSocket(path) => Listen::Unix(path.clone()),
        Place::NbdListen(address) => Listen::Tcp(*address),
        Place::Fuse(dir) => {
            let options = FuseOptions { source: name.clone(), ..FuseOptions::default() };
            let session = export::mount(dir, Arc::new(table), &options).map_err(refused)?;
            return Ok((Export::Fuse(session), format!("showing {name} as {}", dir.join(&name).display())));
        }
    };
    let server = NbdServer::bind(listen, Arc::new(table)).map_err(refused)?;
    let line = match (place, server.tcp_address()) {
        (Place::NbdSocket(path), None) => {
            format!("serving {name} at nbd+unix:///{name}?socket={}", path.display())
        }
        (_, Some(address)) => format!("serving {name} at nbd://{address}/{name}"),
        _ => format!("serving {name}"),
    };
    let stop = server.handle();
    let thread = thread::Builder::new()
        .name("nbd".into())
        .spawn(move || server.serve())
        .map_err(Failure::io("start a thread"))?;
    Ok((Export::Nbd(stop, Some(thread)), line))
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(Failure::io(format!("find {}", path.display())))
}

/// `coffer raid nbd`.
///
/// # Errors
/// The unit cannot be used, or the place is taken.
pub(crate) fn nbd(context: &Context, number: u32, args: Nbd) -> Outcome<u8> {
    let place = match (args.socket, args.listen) {
        (Some(path), _) => Place::NbdSocket(absolute(&path)?),
        (None, Some(address)) => Place::NbdListen(address),
        (None, None) => return Err(Failure::usage("say where to listen with --socket or --listen")),
    };
    serve(context, number, Some(&place))
}

/// `coffer raid fuse`.
///
/// # Errors
/// As [`nbd`].
pub(crate) fn fuse(context: &Context, number: u32, args: &Fuse) -> Outcome<u8> {
    serve(context, number, Some(&Place::Fuse(absolute(&args.dir)?)))
}

/// `coffer raid hold`.
///
/// # Errors
/// The unit cannot be used, or another process holds it.
pub(crate) fn hold(context: &Context, number: u32) -> Outcome<u8> {
    serve(context, number, None)
}

fn serve(context: &Context, number: u32, place: Option<&Place>) -> Outcome<u8> {
    let interrupt = Interrupt::catch()?;
    match (context.reach(number)?, place) {
        (Reach::Local(unit), _) => {
            let holder = Holder::start(&unit, &context.units)?;
            let (export, line) = if let Some(place) = place {
                let (export, line) = start(holder.unit(), place)?;
                (Some(export), line)
            } else {
                (None, format!("holding raid{number}"))
            };
            print_bytes(format!("{line}\n").as_bytes())?;
            while !interrupt.is_set() && !export.as_ref().is_some_and(Export::has_ended) {
                thread::sleep(LOOK);
            }
            let ended = export.map_or(Ok(()), Export::end);
            ended.and(holder.stop()).map(|()| 0)
        }
        (Reach::Remote(_), None) => {
            Err(Failure::refused(format!("another process holds raid{number} already")))
        }
        (mut reach @ Reach::Remote(_), Some(place)) => {
            let told = reach.ask(&RaidRequest::Serve { place: place.clone() })?;
            told::print(&told, context)?;
            let Reach::Remote(client) = &reach else { return Ok(0) };
            // The holder ends the export when this connection ends, in whatever way.
            let mut stream = client.stream()?;
            stream.set_read_timeout(Some(LOOK)).map_err(Failure::io("wait for the holder"))?;
            while !interrupt.is_set() {
                use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                match stream.read(&mut [0]) {
                    Ok(0) => return Err(Failure::refused("the process that holds the unit has ended")),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
                    Err(error) => return Err(Failure::io("wait for the holder")(error)),
                }
            }
            Ok(0)
        }
    }
}
