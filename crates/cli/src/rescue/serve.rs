//! `coffer rescue serve`: volumes of rescued arrays for other programs, until interrupted.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use device::BlockDevice;
use export::{ExportTable, FuseOptions, Listen, NbdServer};

use super::args::Serve;
use super::misfits;
use super::opened::{Opened, open};
use super::targets::Served;
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::signals::Interrupt;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is told what was found wrong.
const TELL: Duration = Duration::from_secs(10);

/// `coffer rescue serve`.
///
/// # Errors
/// The plan can't be used, the place is taken, or changes could not be made durable at the end.
pub(super) fn serve(context: &Context, args: &Serve) -> Outcome {
    let interrupt = Interrupt::catch()?;
    let opened = open(&args.plan, args.overlay.as_deref())?;
    let record = args.record.record.as_deref();
    misfits::check(&opened, record)?;
    let read_only = args.overlay.is_none();
    let table = ExportTable::new();
    let mut names = Vec::new();
    for volume in &opened.volumes {
        if let Some(device) = &volume.device {
            table.insert(&*volume.name, Arc::new(Served::new(Arc::clone(device), read_only)?));
            names.push(volume.name.clone());
        } else {
            eprintln!("coffer rescue serve: note: {} is not served: {}", volume.name, volume.health);
        }
    }
    let table = Arc::new(table);
    let refused = |error: export::ServeError| Failure::refused(error.to_string());
    if let Some(folder) = &args.fuse {
        let options = FuseOptions {
            read_only,
            // The same bytes are shown under several names.
            direct_io: !read_only,
            source: "rescue".to_owned(),
            ..FuseOptions::default()
        };
        let mut session = export::mount(folder, table, &options).map_err(refused)?;
        for name in &names {
            context.say(&format!("showing {name} at {}", folder.join(name).display()))?;
        }
        let mut told = Instant::now();
        while !interrupt.is_set() && !session.has_ended() {
            thread::sleep(LOOK);
            tell_now_and_then(&opened, record, &mut told)?;
        }
        if !session.has_ended() {
            session.stop().map_err(refused)?;
        }
        return settle(&opened, record);
    }
    let listen = match (&args.socket, args.listen) {
        (Some(path), _) => Listen::Unix(std::path::absolute(path).map_err(Failure::io("find the socket"))?),
        (None, Some(address)) => Listen::Tcp(address),
        (None, None) => return Err(Failure::usage("say where with --fuse, --socket or --listen")),
    };
    let server = NbdServer::bind(listen, table).map_err(refused)?;
    for name in &names {
        let place = match (server.tcp_address(), &args.socket) {
            (Some(address), _) => format!("nbd://{address}/{name}"),
            (None, Some(path)) => format!("nbd+unix:///{name}?socket={}", path.display()),
            (None, None) => name.clone(),
        };
        context.say(&format!("serving {name} at {place}"))?;
    }
    let stop = server.handle();
    let thread = thread::Builder::new().name("nbd".into()).spawn(move || server.serve());
    let thread = thread.map_err(Failure::io("start a thread"))?;
    let mut told = Instant::now();
    while !interrupt.is_set() && !thread.is_finished() {
        thread::sleep(LOOK);
        tell_now_and_then(&opened, record, &mut told)?;
    }
    stop.stop();
    let served = thread.join().unwrap_or(Ok(())).map_err(refused);
    settle(&opened, record).and(served)
}

/// Tells what parity said is wrong since the last time, if that is a while ago.
fn tell_now_and_then(opened: &Opened, record: Option<&Path>, told: &mut Instant) -> Outcome {
    if told.elapsed() < TELL {
        return Ok(());
    }
    *told = Instant::now();
    tell(opened, record)
}

fn tell(opened: &Opened, record: Option<&Path>) -> Outcome {
    let news = misfits::news(opened, record)?;
    for line in misfits::words(&news).lines() {
        eprintln!("coffer rescue serve: note: {line}");
    }
    Ok(())
}

/// Makes what was written durable, and tells the last of what was found.
fn settle(opened: &Opened, record: Option<&Path>) -> Outcome {
    tell(opened, record)?;
    opened
        .arrays
        .iter()
        .filter_map(|array| array.overlay.as_ref())
        .try_for_each(|overlay| Ok(overlay.flush()?))
}
