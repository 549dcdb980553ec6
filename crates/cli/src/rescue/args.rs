//! What can be typed behind `coffer rescue`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `rescue`.
#[derive(Args, Debug)]
pub(crate) struct Rescue {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: RescueCommand,
}

/// Commands of `rescue`.
#[derive(Debug, Subcommand)]
pub(crate) enum RescueCommand {
    /// Show what disks or images are, what belongs together and what is wrong
    Scan(Pile),
    /// Propose ways to put arrays together, best first
    Plan(MakePlan),
    /// List the volumes on the arrays of a plan
    Volumes(Volumes),
    /// Serve the volumes of a plan until interrupted, read-only or with changes kept elsewhere
    Serve(Serve),
    /// Show what was changed on overlays
    Diff(Diff),
    /// Copy a volume out
    Copy(CopyOut),
    /// Copy the files of a volume out without mounting it
    Files(Files),
    /// Image a failing disk, the easy parts first
    Image(TakeImage),
    /// Break a small array of its own and rescue it, explaining each step
    Demo(Demo),
}

/// `IMAGE=FILE`.
#[derive(Clone, Debug)]
pub(crate) struct MapOf {
    /// The image.
    pub(crate) image: PathBuf,
    /// Its map.
    pub(crate) map: PathBuf,
}

fn map_of(text: &str) -> Result<MapOf, String> {
    match text.split_once('=') {
        Some((image, map)) if !image.is_empty() && !map.is_empty() => {
            Ok(MapOf { image: image.into(), map: map.into() })
        }
        _ => Err("write it as IMAGE=FILE".to_owned()),
    }
}

/// Disks and images.
#[derive(Args, Debug)]
pub(crate) struct Pile {
    /// Map of bad sectors of an image, as ddrescue writes it; without it, IMAGE.map beside the image
    #[arg(long = "map", value_name = "IMAGE=FILE", value_parser = map_of)]
    pub(crate) maps: Vec<MapOf>,
    /// What mdadm --grow --backup-file wrote; it may be among the paths as well
    #[arg(long, value_name = "FILE")]
    pub(crate) backup_file: Option<PathBuf>,
    /// Disks or images
    #[arg(required = true, value_name = "PATH")]
    pub(crate) path: Vec<PathBuf>,
}

/// `rescue plan`.
#[derive(Args, Debug)]
pub(crate) struct MakePlan {
    /// Write the plan to a file, which may be edited
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Also ask e2fsck, xfs_repair and btrfs, where installed, about the best candidates
    #[arg(long)]
    pub(crate) check: bool,
    /// A plan that looks at the parity of all that is read, and reads right what one member of a RAID 6 has silently wrong
    #[arg(long)]
    pub(crate) check_parity: bool,
    /// Overwrite the file of --save, whatever is in it
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The pile.
    #[command(flatten)]
    pub(crate) pile: Pile,
}

/// A plan, and which of its candidates.
#[derive(Args, Debug)]
pub(crate) struct UsePlan {
    /// Plan
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// Only this candidate of the plan, from 1; else the best of each array
    #[arg(long, value_name = "N")]
    pub(crate) candidate: Option<usize>,
}

/// `rescue volumes`.
#[derive(Args, Debug)]
pub(crate) struct Volumes {
    /// The plan.
    #[command(flatten)]
    pub(crate) plan: UsePlan,
    /// Also ask e2fsck, xfs_repair and btrfs, where installed; they work on changes that are thrown away
    #[arg(long)]
    pub(crate) check: bool,
}

/// Where what is found wrong is written down.
#[derive(Args, Debug)]
pub(crate) struct Record {
    /// Add what parity says is wrong to this file, a line of JSON each; for plans made with --check-parity
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

/// `rescue serve`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["fuse", "socket", "listen"]))]
pub(crate) struct Serve {
    /// The plan.
    #[command(flatten)]
    pub(crate) plan: UsePlan,
    /// As files in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) fuse: Option<PathBuf>,
    /// As network block devices on a unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// As network block devices on a TCP port
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Let volumes be written; changes go to files in this folder, never to the members
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: Option<PathBuf>,
    /// What is found wrong.
    #[command(flatten)]
    pub(crate) record: Record,
}

/// `rescue diff`.
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The plan.
    #[command(flatten)]
    pub(crate) plan: UsePlan,
    /// Folder with the overlays
    #[arg(long, value_name = "DIR")]
    pub(crate) overlay: PathBuf,
}

/// What stands where bytes are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fill {
    /// Zeros.
    Zero,
}

/// `rescue copy`.
#[derive(Args, Debug)]
pub(crate) struct CopyOut {
    /// The plan.
    #[command(flatten)]
    pub(crate) plan: UsePlan,
    /// Where to copy it to
    #[arg(long, value_name = "FILE|DEVICE")]
    pub(crate) to: PathBuf,
    /// Map of what was copied and what is lost, from which the copy goes on later; else FILE.map
    #[arg(long, value_name = "FILE")]
    pub(crate) map: Option<PathBuf>,
    /// Write this where bytes are lost, and count that as done
    #[arg(long, value_enum)]
    pub(crate) fill: Option<Fill>,
    /// What is found wrong.
    #[command(flatten)]
    pub(crate) record: Record,
    /// Volume, as 'rescue volumes' names it
    pub(crate) volume: String,
}

/// `rescue files`.
#[derive(Args, Debug)]
pub(crate) struct Files {
    /// The plan.
    #[command(flatten)]
    pub(crate) plan: UsePlan,
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Write this where bytes of a file are lost; without it, damaged files are only named
    #[arg(long, value_enum)]
    pub(crate) fill: Option<Fill>,
    /// What is found wrong.
    #[command(flatten)]
    pub(crate) record: Record,
    /// Volume, as 'rescue volumes' names it
    pub(crate) volume: String,
}

/// `rescue image`.
#[derive(Args, Debug)]
pub(crate) struct TakeImage {
    /// Image file
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Map of what was read and what is bad, as ddrescue writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) map: PathBuf,
    /// Only what this plan still lacks of the disk
    #[arg(long, value_name = "PLAN")]
    pub(crate) needed_for: Option<PathBuf>,
    /// Disk
    #[arg(value_name = "DEV")]
    pub(crate) device: PathBuf,
}

/// `rescue demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Folder for the disk files, which are left there; else a temporary one
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}
