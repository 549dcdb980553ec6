//! `coffer rescue demo`: an array like the one people write to mailing lists about, and the way back to its data.

mod made;
mod peer;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use device::{BadMap, BlockDevice, FileDevice, Rescue};
use export::{ExportTable, Listen, NbdServer};
use rescue::{CopyOptions, Image, Volume};
use serde::Serialize;

use super::args::Demo;
use super::plans::failure;
use super::targets::Served;
use crate::commands::{Context, print_bytes};
use crate::error::{Failure, Outcome};

/// What the demo came to.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// The best candidate's score.
    score: u8,
    /// Volumes found.
    volumes: Vec<Volume>,
    /// Bytes of the copy that were lost.
    lost: u64,
    /// All other bytes of the copy are right.
    copy_is_right: bool,
    /// No member was changed.
    originals_untouched: bool,
}

/// `coffer rescue demo`.
///
/// # Errors
/// The folder can't be written, or the rescue does not give what it must.
pub(crate) fn demo(context: &Context, args: &Demo) -> Outcome {
    let temporary = tempfile::tempdir().map_err(Failure::io("make a folder"))?;
    let folder = match &args.dir {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(Failure::io(format!("make {}", dir.display())))?;
            if dir.join("disk-a.img").exists() {
                return Err(Failure::refused(format!("{} holds a demo already", dir.display())));
            }
            dir.as_path()
        }
        None => temporary.path(),
    };
    let mut report = Report::default();
    walk(context, folder, &mut report)?;
    context.print(&report, |_| String::new())?;
    if report.copy_is_right && report.originals_untouched {
        Ok(())
    } else {
        Err(Failure::refused("the rescue did not give back what was there"))
    }
}

fn tell(context: &Context, title: &str, text: &str) -> Outcome {
    if context.json { Ok(()) } else { print_bytes(format!("== {title}\n{text}\n").as_bytes()) }
}

fn digests(members: &[PathBuf]) -> Outcome<Vec<blake3::Hash>> {
    let digest = |path: &PathBuf| fs::read(path).map(|bytes| blake3::hash(&bytes));
    members.iter().map(digest).collect::<Result<_, _>>().map_err(Failure::io("read a member"))
}

fn walk(context: &Context, folder: &Path, report: &mut Report) -> Outcome {
    let made = made::make(folder).map_err(|error| Failure::refused(error.to_string()))?;
    let before = digests(&made.members)?;
    let paths = made.members.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    tell(
        context,
        "A broken array",
        &format!(
            "Five members of a RAID 5, in {}: one dropped out long ago, a second one last night, and a third has bad\n\
             sectors. The array does not start. Nothing from here on writes to a member.\n",
            folder.display()
        ),
    )?;
    let images = made.members.iter().map(Image::open).collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let scan = rescue::scan(&images);
    let text = rescue::render_scan(&scan);
    tell(context, "What is there", &format!("$ coffer rescue scan {paths}\n{text}"))?;
    let plan = rescue::plan(&images, &scan);
    let plan_file = folder.join("demo.plan");
    fs::write(&plan_file, plan.to_text().map_err(failure)?).map_err(Failure::io("write the plan"))?;
    let plan_name = plan_file.display();
    let text = rescue::render_plan(&plan);
    tell(
        context,
        "How it goes together",
        &format!(
            "$ coffer rescue plan --save {plan_name} {paths}\n{text}\n\
             The member that dropped out first is left out: what it holds is old. The one that dropped out last is\n\
             needed and hardly behind. The plan is a file that may be edited."
        ),
    )?;
    let chosen = rescue::chosen(&plan, None).map_err(failure)?;
    let [candidate] = &chosen[..] else { return Err(Failure::refused("there is more than one array")) };
    report.score = candidate.score;
    let name = rescue::volume_name(&candidate.array, &[]);
    let array: Arc<dyn BlockDevice> = Arc::new(candidate.open().map_err(failure)?);
    let volumes = rescue::discover(&[(name, array)]);
    let mut text = format!("$ coffer rescue volumes --plan {plan_name}\n");
    for volume in &volumes {
        let _ = writeln!(
            text,
            "{}: {} bytes, {}; {}",
            volume.name,
            volume.size,
            volume.holds.join(" and "),
            volume.health
        );
    }
    tell(context, "What is on it", &text)?;
    let partition = volumes.iter().find(|volume| volume.kind == "partition");
    let partition = partition.ok_or_else(|| Failure::refused("the partition was not found"))?;
    let device = partition.open().map_err(failure)?;
    tell(context, "Look into it", &serve(folder, &plan_file, &partition.name, &device)?)?;
    let to = folder.join("copy.img");
    let size = device.size()?;
    let output = FileDevice::create(&to, size)?;
    let mut map = BadMap::filled(Rescue::NonTried);
    let options = CopyOptions { sparse: true, fill_zero: false, rows: None };
    let copied = rescue::copy_out(&*device, &output, &mut map, options, |_, _| Ok(true))?;
    fs::write(folder.join("copy.img.map"), map.print(size)).map_err(Failure::io("write the map"))?;
    report.lost = copied.lost;
    let bytes = fs::read(&to).map_err(Failure::io("read the copy"))?;
    report.copy_is_right = bytes.len() == made.partition.len()
        && map.runs(0..size).all(|(range, status)| {
            let range = range.start as usize..range.end as usize;
            status != Rescue::Finished || bytes[range.clone()] == made.partition[range]
        });
    report.originals_untouched = digests(&made.members)? == before;
    report.volumes.clone_from(&volumes);
    let right =
        if report.copy_is_right { "equal to what was on the array" } else { "NOT what was on the array" };
    let untouched = if report.originals_untouched { "has" } else { "HAS NOT" };
    tell(
        context,
        "Copy it out",
        &format!(
            "$ coffer rescue copy --plan {plan_name} {} --to {}\n\
             {} of {size} bytes are lost, where sectors are bad and too few other members are left; the map beside the\n\
             copy says which. All others are {right}. Every member {untouched} the bytes it had before.\n",
            partition.name,
            to.display(),
            copied.lost,
        ),
    )
}

/// Serves a volume on a socket and reads from it as any client would.
fn serve(folder: &Path, plan: &Path, name: &str, device: &Arc<dyn BlockDevice>) -> Outcome<String> {
    let refused = |error: export::ServeError| Failure::refused(error.to_string());
    let table = ExportTable::new();
    table.insert(name, Arc::new(Served::new(Arc::clone(device), true)?));
    let socket = folder.join("demo.socket");
    let server = NbdServer::bind(Listen::Unix(socket.clone()), Arc::new(table)).map_err(refused)?;
    let stop = server.handle();
    let thread = thread::spawn(move || server.serve());
    let read = peer::read(&socket, name, 0, 512);
    stop.stop();
    thread.join().unwrap_or(Ok(())).map_err(refused)?;
    let boot = read.map_err(Failure::io("read from the server"))?;
    let label = String::from_utf8_lossy(boot.get(43..54).unwrap_or_default()).trim().to_owned();
    Ok(format!(
        "$ coffer rescue serve --plan {} --socket {}\n\
         A client of the network block device read the first sector: a file system labelled '{label}'. With --fuse DIR\n\
         the volumes are files to mount with -o ro,loop; with --overlay DIR they may be written, by fsck for one, and\n\
         what was written goes to DIR and can be thrown away.\n",
        plan.display(),
        socket.display(),
    ))
}
