//! Serves a sparse volume in memory until interrupted: `serve_memory <socket path> <MiB>`.

use std::path::PathBuf;
use std::sync::Arc;

use export::testing::MemoryTarget;
use export::{ExportTable, Listen, NbdServer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("usage: serve_memory <socket path> <MiB>")?);
    let size: u64 =
        arguments.next().and_then(|size| size.into_string().ok()).unwrap_or("1024".into()).parse()?;
    let exports = Arc::new(ExportTable::new());
    exports.insert("memory", Arc::new(MemoryTarget::new(size << 20)));
    NbdServer::bind(Listen::Unix(path), exports)?.serve()?;
    Ok(())
}
