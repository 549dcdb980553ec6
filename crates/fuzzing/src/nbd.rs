//! An NBD client that sends whatever it likes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use export::testing::MemoryTarget;
use export::{ExportTable, Target};

/// Bytes of the volume.
const SIZE: u64 = 1 << 20;

/// Option `number` with its data.
fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The first byte says how far the conversation has come by itself: nothing, flags, an export chosen, with
/// structured replies.
pub fn run(data: &[u8]) {
    let Some((phase, data)) = data.split_first() else { return };
    let mut sent = Vec::new();
    let go = option(7, b"\0\0\0\x03vol\0\0");
    match phase % 4 {
        0 => {}
        1 => sent.extend([0, 0, 0, 3]),
        2 => sent.extend([&[0, 0, 0, 3][..], &go].concat()),
        _ => {
            let context = option(10, b"\0\0\0\x03vol\0\0\0\x01\0\0\0\x0fbase:allocation");
            sent.extend([&[0, 0, 0, 3][..], &option(8, &[]), &context, &go].concat());
        }
    }
    sent.extend(data);
    let target: Arc<dyn Target> = Arc::new(MemoryTarget::new(SIZE));
    let table = ExportTable::default();
    table.insert("vol", target);
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (&ours).write_all(&sent); // it may hang up in the middle
            let _ = ours.shutdown(Shutdown::Write);
        });
        scope.spawn(|| {
            let mut taken = vec![0; 1 << 16];
            while (&ours).read(&mut taken).is_ok_and(|got| got > 0) {}
        });
        export::nbd::serve_one(theirs.into(), &table);
    });
}
