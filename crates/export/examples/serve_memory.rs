//! Serves a sparse volume in memory, to measure what the protocols cost:
//! `serve_memory nbd <socket path> <MiB>` until killed, or `serve_memory fuse <directory> <MiB>` until unmounted.

use std::path::PathBuf;
use std::sync::Arc;

use export::testing::MemoryTarget;
use export::{ExportTable, FuseOptions, Listen, NbdServer};

const USAGE: &str = "usage: serve_memory nbd|fuse <socket or directory> <MiB>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, place, size] = &arguments[..] else { return Err(USAGE.into()) };
    let place = PathBuf::from(place);
    let exports = Arc::new(ExportTable::new());
    exports.insert("memory", Arc::new(MemoryTarget::new(size.parse::<u64>()? << 20)));
    match kind.as_str() {
        "nbd" => NbdServer::bind(Listen::Unix(place), exports)?.serve()?,
        "fuse" => export::mount(&place, exports, &FuseOptions::default())?.wait()?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}
