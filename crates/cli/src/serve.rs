//! `coffer nbd`, `coffer fuse`, `coffer serve`: volumes for other programs, until interrupted.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use export::{ExportTable, Exports, FuseOptions, Listen, NbdServer, StopHandle, Target};
use protocol::request::{Place, Reply, Request};

use crate::args;
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::holder::{Holder, Served, Shared};
use crate::host;
use crate::names;
use crate::session::{self, Mode, Session};
use crate::signals::Interrupt;
use crate::targets::Volume;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(50);

/// Volumes that are being served. Dropping it ends that; requests that were received are answered first.
pub(crate) enum Export {
    /// By an NBD server.
    Nbd {
        /// Ends it.
        stop: StopHandle,
        /// Runs it.
        thread: Option<JoinHandle<Result<(), export::ServeError>>>,
    },
    /// As files, for which the whole pool is in use.
    Fuse(export::FuseSession, #[expect(dead_code, reason = "it is there to be dropped")] Served),
}

impl Export {
    /// Whether it ended by itself: the server failed, or the folder was unmounted.
    fn has_ended(&self) -> bool {
        match self {
            Self::Nbd { thread, .. } => thread.as_ref().is_none_or(JoinHandle::is_finished),
            Self::Fuse(session, _) => session.has_ended(),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// The server had failed, or the folder is in use: then it is unmounted when its last user leaves.
    fn end(mut self) -> Outcome {
        let ended = match &mut self {
            Self::Nbd { stop, thread } => {
                stop.stop();
                thread.take().and_then(|thread| thread.join().ok()).unwrap_or(Ok(()))
            }
            Self::Fuse(session, _) if session.has_ended() => Ok(()),
            Self::Fuse(session, _) => session.stop(),
        };
        ended.map_err(|error| Failure::refused(error.to_string()))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Self::Nbd { stop, thread } = self {
            stop.stop();
            // A failure of the server was told to the clients that it had.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// All volumes and snapshots of a pool, under their names without the pool's.
#[derive(Debug)]
struct PoolFiles(Arc<Shared>);

impl Exports for PoolFiles {
    fn names(&self) -> Vec<String> {
        let rows = self.0.with(|pool| Ok(pool.list()?)).unwrap_or_default();
        let prefix = format!("{}/", self.0.name);
        rows.iter().filter_map(|row| row.name.strip_prefix(&prefix).map(str::to_owned)).collect()
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Target>> {
        Volume::open(&self.0, name).ok().map(|volume| Arc::new(volume) as Arc<dyn Target>)
    }
}

/// Begins to serve volumes of held pools (to FUSE: all of the one pool); also a sentence for each.
///
/// # Errors
/// There is no such volume, or the place is taken.
pub(crate) fn start(pools: &[(Arc<Shared>, Vec<String>)], place: &Place) -> Outcome<(Export, Vec<String>)> {
    let refused = |error: export::ServeError| Failure::refused(error.to_string());
    let listen = match place {
        Place::NbdSocket(path) => Listen::Unix(path.clone()),
        Place::NbdListen(address) => Listen::Tcp(*address),
        Place::Fuse(dir) => {
            let Some((shared, _)) = pools.first() else { return Err(Failure::usage("name a pool")) };
            let options = FuseOptions { source: shared.name.clone(), ..FuseOptions::default() };
            let session =
                export::mount(dir, Arc::new(PoolFiles(Arc::clone(shared))), &options).map_err(refused)?;
            let line = format!("showing the volumes of {} in {}", shared.name, dir.display());
            let served = shared.note_served(&format!("its files in {}", dir.display()));
            return Ok((Export::Fuse(session, served), vec![line]));
        }
    };
    let table = ExportTable::new();
    let mut names = Vec::new();
    for (shared, volumes) in pools {
        for volume in volumes {
            let name = format!("{}/{volume}", shared.name);
            table.insert(&*name, Arc::new(Volume::open(shared, volume)?));
            names.push(name);
        }
    }
    let server = NbdServer::bind(listen, Arc::new(table)).map_err(refused)?;
    let uri = |name: &str| match (place, server.tcp_address()) {
        (_, Some(address)) => format!("nbd://{address}/{}", encode(name)),
        (Place::NbdSocket(path), None) => format!("nbd+unix:///{}?socket={}", encode(name), path.display()),
        _ => name.to_owned(),
    };
    let lines = names.iter().map(|name| format!("serving {name} at {}", uri(name))).collect();
    let stop = server.handle();
    let thread = thread::Builder::new()
        .name("nbd".into())
        .spawn(move || server.serve())
        .map_err(Failure::io("start a thread"))?;
    Ok((Export::Nbd { stop, thread: Some(thread) }, lines))
}

/// An export's name within a URI.
fn encode(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/@:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// `coffer nbd`.
///
/// # Errors
/// A volume isn't there or the place is taken; the pool could not be committed at the end.
pub(crate) fn nbd(context: &Context, args: args::Nbd) -> Outcome {
    let place = match (args.socket, args.listen) {
        (Some(path), _) => Place::NbdSocket(absolute(&path)?),
        (None, Some(address)) => Place::NbdListen(address),
        (None, None) => return Err(Failure::usage("say where to listen with --socket or --listen")),
    };
    let mut pools: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in &args.name {
        let (pool, dataset) = names::dataset(name)?;
        pools.entry(pool).or_default().push(dataset);
    }
    serve_at(context, pools, &place, args.cache)
}

/// `coffer fuse`.
///
/// # Errors
/// As [`nbd`].
pub(crate) fn fuse(context: &Context, args: &args::Fuse) -> Outcome {
    let place = Place::Fuse(absolute(&args.dir)?);
    serve_at(context, BTreeMap::from([(names::pool(&args.pool)?, Vec::new())]), &place, args.cache)
}

/// `coffer serve`.
///
/// # Errors
/// A pool isn't there or is held already; one could not be committed at the end.
pub(crate) fn serve(context: &Context, args: args::Serve) -> Outcome {
    let names = if args.pool.is_empty() {
        context.state.in_use()?.into_iter().map(|record| record.name).collect()
    } else {
        args.pool
    };
    if names.is_empty() {
        return Err(Failure::refused("there is no pool to serve: create or import one"));
    }
    let interrupt = Interrupt::catch()?;
    let mut holders = Vec::new();
    let cache = args.cache.unwrap_or_else(|| host::server_cache_bytes(names.len()));
    for name in &names {
        match session::open_with_cache(&context.state, name, Mode::Change, &context.command_line, cache)? {
            Session::Local(local) => holders.push(Holder::start(*local, true)?),
            Session::Remote(_) => {
                return Err(Failure::refused(format!("pool '{name}' is held by another process already")));
            }
        }
        context.say(&format!("holding pool '{name}'"))?;
    }
    while !interrupt.is_set() && !holders.iter().all(|holder| holder.shared().has_ended()) {
        thread::sleep(LOOK);
        // A pool that was exported or destroyed through the control socket is let go at once.
        while let Some(gone) = holders.iter().position(|holder| holder.shared().has_ended()) {
            holders.remove(gone).stop()?;
            if holders.is_empty() {
                return Ok(());
            }
        }
    }
    holders.into_iter().map(Holder::stop).fold(Ok(()), Outcome::and)
}

/// The full path, which stays right in another process.
fn absolute(path: &Path) -> Outcome<std::path::PathBuf> {
    std::path::absolute(path).map_err(Failure::io(format!("find {}", path.display())))
}

/// Serves volumes at a place: from this process, or, if another one holds the pool, from that one on our behalf.
fn serve_at(
    context: &Context,
    pools: BTreeMap<String, Vec<String>>,
    place: &Place,
    cache: Option<u64>,
) -> Outcome {
    let interrupt = Interrupt::catch()?;
    let cache = cache.unwrap_or_else(|| host::server_cache_bytes(pools.len()));
    let mut local = Vec::new();
    let only = pools.len() == 1;
    for (pool, volumes) in pools {
        match session::open_with_cache(&context.state, &pool, Mode::Change, &context.command_line, cache)? {
            Session::Local(held) => local.push((Holder::start(*held, true)?, volumes)),
            Session::Remote(client) if only => {
                return serve_remotely(context, client, volumes, place, &interrupt);
            }
            Session::Remote(_) => {
                return Err(Failure::refused(format!(
                    "pool '{pool}' is held by another process: serve its volumes with a command of their own"
                )));
            }
        }
    }
    let shared: Vec<_> =
        local.iter().map(|(holder, volumes)| (Arc::clone(holder.shared()), volumes.clone())).collect();
    let (export, lines) = start(&shared, place)?;
    announce(context, &lines)?;
    while !interrupt.is_set() && !export.has_ended() && !shared.iter().any(|(shared, _)| shared.has_ended()) {
        thread::sleep(LOOK);
    }
    let ended = export.end();
    local.into_iter().map(|(holder, _)| holder.stop()).fold(ended, Outcome::and)
}

/// Has the holder serve, and stays for as long as it is to.
fn serve_remotely(
    context: &Context,
    mut client: crate::control::Client,
    volumes: Vec<String>,
    place: &Place,
    interrupt: &Interrupt,
) -> Outcome {
    let (reply, _) = client.call(&Request::Serve { volumes, place: place.clone() }, &[])?;
    if let Reply::Serving(lines) = reply {
        announce(context, &lines)?;
    }
    let mount = match place {
        Place::Fuse(dir) => Mount::at(dir),
        _ => None,
    };
    // The holder ends the export when this connection ends, in whatever way.
    let mut stream = client.stream()?;
    let mut byte = [0];
    stream.set_read_timeout(Some(LOOK)).map_err(Failure::io("wait for the holder"))?;
    while !interrupt.is_set() && mount.as_ref().is_none_or(Mount::is_there) {
        match stream.read(&mut byte) {
            Ok(0) => return Err(Failure::refused("the process that holds the pool has ended")),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock
                        | std::io::ErrorKind::TimedOut
                        | std::io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(Failure::io("wait for the holder")(error)),
        }
    }
    Ok(())
}

/// A folder on which something is mounted.
struct Mount(String);

impl Mount {
    /// The one at `dir`; `None` if it can't be seen from here.
    fn at(dir: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(dir).ok()?;
        // As the kernel writes it.
        let mut text = String::new();
        for c in path.to_str()?.chars() {
            match c {
                ' ' | '\t' | '\n' | '\\' => text += &format!("\\{:03o}", u32::from(c)),
                c => text.push(c),
            }
        }
        let mount = Self(text);
        mount.is_there().then_some(mount)
    }

    /// Whether it is still there; does not ask whoever serves it.
    fn is_there(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table.is_empty() || table.lines().any(|line| line.split(' ').nth(4) == Some(self.0.as_str()))
    }
}

/// Says where the volumes are.
fn announce(context: &Context, lines: &[String]) -> Outcome {
    lines.iter().try_for_each(|line| context.say(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_uris() {
        assert_eq!(encode("tank/vol@a-b_c.d"), "tank/vol@a-b_c.d");
        assert_eq!(encode("tank/a b%"), "tank/a%20b%25");
    }
}
