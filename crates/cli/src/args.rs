//! The command line: one declaration, from which parsing, help, completions and man pages come.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use geometry::Profile;

use crate::sizes;

pub(crate) use balance::{Balance, BalanceCommand, BalanceStart, Convert, Resize};
pub(crate) use checkpoint::Checkpoint;
pub(crate) use jobs::{Scrub, Wait};
pub(crate) use plan::{Plan, PlanCommand};
pub(crate) use whatif::Whatif;

mod balance;
mod checkpoint;
mod jobs;
mod plan;
mod whatif;

/// Storage pools in user space that survive losing disks.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, arg_required_else_help = true)]
#[command(after_help = "Pools that were created or imported are remembered in $COFFER_STATE_DIR \
(default /var/lib/cofferdam).\nExit codes: 0 done, 1 error, 2 wrong usage.")]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell errors only, besides what was asked for
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// `PROP=VAL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Property.
    pub(crate) property: String,
    /// Value.
    pub(crate) value: String,
}

/// Properties whose values are sizes.
const SIZES: [&str; 3] = ["refreservation", "scan_rate", "volsize"];

/// Splits `PROP=VAL`.
fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some((property, value)) if !property.is_empty() => {
            // Sizes may be written as everywhere else; the engine wants bytes.
            let bytes = SIZES.contains(&property).then(|| sizes::parse(value).ok()).flatten();
            let value = bytes.map_or_else(|| value.to_owned(), |bytes| bytes.to_string());
            Ok(Setting { property: property.to_owned(), value })
        }
        _ => Err("write it as PROPERTY=VALUE".to_owned()),
    }
}

/// A size for clap.
fn size(text: &str) -> Result<u64, String> {
    sizes::parse(text).map_err(|error| error.to_string())
}

/// A word for a device. What is named from this folder on, as only a path can be (`./disk`, `../disk`), becomes a full path
/// here: the process that opens it may be another one, in another folder.
fn device_word(text: &str) -> Result<String, String> {
    if !text.starts_with("./") && !text.starts_with("../") {
        return Ok(text.to_owned());
    }
    let path = std::path::absolute(text).map_err(|error| error.to_string())?;
    let full = match (path.parent().map(std::fs::canonicalize), path.file_name()) {
        (Some(Ok(folder)), Some(name)) => folder.join(name),
        _ => path,
    };
    full.into_os_string().into_string().map_err(|_| "the path is not UTF-8".to_owned())
}

/// A block size for clap.
fn block_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes).map_err(|_| format!("{text} is larger than any block"))
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListKind {
    /// Pools.
    Pool,
    /// Volumes.
    Volume,
    /// Snapshots.
    Snapshot,
    /// Everything.
    All,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a pool of devices
    Create(Create),
    /// List pools, volumes and snapshots
    List(List),
    /// Show the health of pools
    Status(Status),
    /// Show how the space of a pool is used, by class, profile and device
    Usage(Usage),
    /// Show where every chunk of a pool lives
    Map(OnePool),
    /// Show which data would be lost if devices failed now
    Whatif(Whatif),
    /// Show what a change would come to: room, redundancy at each step, and time
    Plan(Plan),
    /// Show the administrative commands a pool has seen
    History(OnePool),
    /// Show what happened to a pool lately
    Events(Events),
    /// Take pools into use, or show which could be
    Import(Import),
    /// Give a pool up so that another host can import it
    Export(OnePool),
    /// Destroy a pool, a volume or a snapshot
    Destroy(Destroy),
    /// Remove a pool's labels from a device that no pool uses
    Labelclear(Labelclear),
    /// Add vdevs or spares to a pool
    Add(Add),
    /// Attach a device to a disk or mirror, which then holds one more copy, or to a raidz or draid, which gets wider
    Attach(Attach),
    /// Detach a device from a mirror, a replacement or a spare in use
    Detach(Detach),
    /// Remove devices or groups from a pool; what is on them goes to the others first
    Remove(Remove),
    /// Make a mirror or raidz vdev another kind; what it holds is relocated while the pool is in use
    Convert(Convert),
    /// Use less of a device, or more; what lies behind its new end is relocated first
    Resize(Resize),
    /// Replace a device by another
    Replace(Replace),
    /// Take devices out of use
    Offline(Offline),
    /// Bring devices back into use
    Online(Online),
    /// Clear error counters, and take faulted devices back
    Clear(Clear),
    /// Keep the state of a pool as it is now, to go back to with 'import --rewind-to-checkpoint'
    Checkpoint(Checkpoint),
    /// Verify everything in pools and repair what is damaged
    Scrub(Scrub),
    /// Move what is in chunks elsewhere: to compact them, or to give them another profile
    Balance(Balance),
    /// Wait until a pool's scrub, resilver, balance and removals have ended; does the work itself if no server does
    Wait(Wait),
    /// Show properties
    Get(Get),
    /// Set a property
    Set(Set),
    /// Create, resize, write and read volumes
    Volume(Volume),
    /// Take a snapshot of a volume
    Snapshot(Snapshot),
    /// Take a volume back to its newest snapshot
    Rollback(Snapshot),
    /// Serve volumes as network block devices until interrupted
    Nbd(Nbd),
    /// Serve all volumes and snapshots of a pool as files in a folder until interrupted
    Fuse(Fuse),
    /// Hold pools and do their background work until interrupted
    Serve(Serve),
    /// Prove that the structures of a pool agree; changes nothing
    Check(Check),
    /// Get the data off an array that no longer starts, never writing to its members
    Rescue(crate::rescue::args::Rescue),
    /// Show on files in a temporary folder what a pool survives
    Demo(Demo),
    /// RAID sets: the options of raidctl(8), or one of nbd, fuse, hold, read, write, scrub and list
    #[command(disable_help_flag = true)]
    Raid(Raid),
    /// Print a shell's completions
    Completions(Completions),
    /// Write the manual pages into a folder
    Man(Man),
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Use devices that hold something else, and vdevs that survive different losses
    #[arg(short)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Set a property from the start
    #[arg(short = 'o', value_name = "PROP=VAL", value_parser = setting)]
    pub(crate) settings: Vec<Setting>,
    /// Profile of data on plain disks: single, dup, raid0, raid1, raid1c3, raid1c4, raid10, raid5 or raid6
    #[arg(long, value_name = "PROFILE")]
    pub(crate) data: Option<Profile>,
    /// Profile of metadata on plain disks
    #[arg(long, value_name = "PROFILE")]
    pub(crate) metadata: Option<Profile>,
    /// Name of the pool
    pub(crate) pool: String,
    /// Devices, in groups that begin with mirror, raidz1, raidz2, raidz3, draid or spare
    #[arg(required = true, value_parser = device_word)]
    pub(crate) vdev: Vec<String>,
}

/// `list`.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// What to list
    #[arg(short = 't', value_enum, value_name = "pool|volume|snapshot|all")]
    pub(crate) kind: Option<ListKind>,
    /// Without a header, columns separated by tabs
    #[arg(short = 'H')]
    pub(crate) scripted: bool,
    /// Exact numbers
    #[arg(short = 'p')]
    pub(crate) exact: bool,
    /// A pool or volume, or all of them
    pub(crate) name: Option<String>,
}

/// `status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// List the places that are damaged for good
    #[arg(short)]
    pub(crate) verbose: bool,
    /// Only pools that are not well
    #[arg(short = 'x')]
    pub(crate) unhealthy: bool,
    /// Pools; all if none is named
    pub(crate) pool: Vec<String>,
}

/// `usage`.
#[derive(Args, Debug)]
pub(crate) struct Usage {
    /// As a table
    #[arg(short = 'T')]
    pub(crate) table: bool,
    /// Pool
    pub(crate) pool: String,
}

/// A command that takes a pool and nothing else.
#[derive(Args, Debug)]
pub(crate) struct OnePool {
    /// Pool
    pub(crate) pool: String,
}

/// `events`.
#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Go on printing events as they come
    #[arg(short)]
    pub(crate) follow: bool,
    /// Pool
    pub(crate) pool: String,
}

/// `import`.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// Folder (or device) to look for members in; several may be given
    #[arg(short, value_name = "DIR")]
    pub(crate) dir: Vec<PathBuf>,
    /// readonly=on, or a property to set
    #[arg(short = 'o', value_name = "PROP=VAL", value_parser = setting)]
    pub(crate) settings: Vec<Setting>,
    /// Import although another host may be using it
    #[arg(short)]
    pub(crate) force: bool,
    /// Go back to the newest state that opens; says first what is lost
    #[arg(short = 'F', conflicts_with = "txg")]
    pub(crate) rewind: bool,
    /// Go back to this transaction group; says first what is lost
    #[arg(short = 'T', value_name = "TXG")]
    pub(crate) txg: Option<u64>,
    /// Go back to the checkpoint, which is gone with that; says first what is lost. With -o readonly=on only look at it
    #[arg(long, conflicts_with_all = ["rewind", "txg"])]
    pub(crate) rewind_to_checkpoint: bool,
    /// With -F, -T or --rewind-to-checkpoint: say what would be lost, and do nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Name or number of the pool; without it, pools that can be imported are shown
    #[arg(value_name = "POOL|GUID")]
    pub(crate) pool: Option<String>,
    /// Name that the pool is to have from now on
    pub(crate) new_name: Option<String>,
}

/// `destroy`.
#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// Destroy a pool although it is being served, or although it can't be opened
    #[arg(short)]
    pub(crate) force: bool,
    /// What to destroy
    #[arg(value_name = "POOL|POOL/VOL|POOL/VOL@SNAP")]
    pub(crate) name: String,
}

/// `labelclear`.
#[derive(Args, Debug)]
pub(crate) struct Labelclear {
    /// Although the device seems to belong to a pool that was not exported
    #[arg(short)]
    pub(crate) force: bool,
    /// Device
    #[arg(value_name = "DEV", value_parser = device_word)]
    pub(crate) device: String,
}

/// `add`.
#[derive(Args, Debug)]
pub(crate) struct Add {
    /// Use devices that hold something else, and vdevs that survive different losses
    #[arg(short)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Pool
    pub(crate) pool: String,
    /// Devices, in groups that begin with mirror, raidz1, raidz2, raidz3, draid or spare
    #[arg(required = true, value_parser = device_word)]
    pub(crate) vdev: Vec<String>,
}

/// `attach`.
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// Use a device that holds something else
    #[arg(short)]
    pub(crate) force: bool,
    /// Wait until the new device is up to date
    #[arg(short)]
    pub(crate) wait: bool,
    /// Pool
    pub(crate) pool: String,
    /// Device that is in the pool, or a raidz or draid vdev such as raidz1-0
    #[arg(value_parser = device_word)]
    pub(crate) device: String,
    /// Device to attach to it
    #[arg(value_parser = device_word)]
    pub(crate) new_device: String,
}

/// `detach`.
#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// Pool
    pub(crate) pool: String,
    /// Device
    #[arg(value_parser = device_word)]
    pub(crate) device: String,
}

/// A pool and some of its devices.
#[derive(Args, Debug)]
pub(crate) struct Devices {
    /// Pool
    pub(crate) pool: String,
    /// Devices
    #[arg(required = true, value_parser = device_word)]
    pub(crate) device: Vec<String>,
}

/// `remove`.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Say what would be done, and change nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Give up the removal that is under way
    #[arg(short = 's', conflicts_with_all = ["dry_run", "device"])]
    pub(crate) stop: bool,
    /// Pool
    pub(crate) pool: String,
    /// Devices, and groups such as mirror-1
    #[arg(required_unless_present = "stop", value_parser = device_word)]
    pub(crate) device: Vec<String>,
}

/// `replace`.
#[derive(Args, Debug)]
pub(crate) struct Replace {
    /// Use a device that holds something else
    #[arg(short)]
    pub(crate) force: bool,
    /// Read the device that is replaced only for what has no other good copy
    #[arg(short = 'r')]
    pub(crate) source_last: bool,
    /// Wait until the new device is up to date
    #[arg(short)]
    pub(crate) wait: bool,
    /// Pool
    pub(crate) pool: String,
    /// Device to be replaced: name, path or number
    #[arg(value_parser = device_word)]
    pub(crate) device: String,
    /// Device that takes its place; without it, a new disk at the same path
    #[arg(value_parser = device_word)]
    pub(crate) new_device: Option<String>,
}

/// `offline`.
#[derive(Args, Debug)]
pub(crate) struct Offline {
    /// Only until the pool is imported again
    #[arg(short)]
    pub(crate) temporary: bool,
    /// Pool
    pub(crate) pool: String,
    /// Devices
    #[arg(required = true, value_parser = device_word)]
    pub(crate) device: Vec<String>,
}

/// `online`.
#[derive(Args, Debug)]
pub(crate) struct Online {
    /// Use all of a device that has grown or replaced a smaller one
    #[arg(short)]
    pub(crate) expand: bool,
    /// Pool
    pub(crate) pool: String,
    /// Devices
    #[arg(required = true, value_parser = device_word)]
    pub(crate) device: Vec<String>,
}

/// `clear`.
#[derive(Args, Debug)]
pub(crate) struct Clear {
    /// Pool
    pub(crate) pool: String,
    /// Device; all if none is named
    #[arg(value_parser = device_word)]
    pub(crate) device: Option<String>,
}

/// `get`.
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Without a header, columns separated by tabs
    #[arg(short = 'H')]
    pub(crate) scripted: bool,
    /// Exact numbers
    #[arg(short = 'p')]
    pub(crate) exact: bool,
    /// Property, several separated by commas, or all
    #[arg(value_name = "PROP|all")]
    pub(crate) property: String,
    /// Pool, volume or snapshot
    pub(crate) name: String,
}

/// `set`.
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// Property and its new value
    #[arg(value_name = "PROP=VAL", value_parser = setting)]
    pub(crate) setting: Setting,
    /// Pool or volume
    pub(crate) name: String,
}

/// `volume`.
#[derive(Args, Debug)]
pub(crate) struct Volume {
    /// What to do with it.
    #[command(subcommand)]
    pub(crate) command: VolumeCommand,
}

/// Commands on volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Create a volume
    Create(VolumeCreate),
    /// Make a volume larger or smaller
    Resize(VolumeResize),
    /// Write a file or standard input into a volume
    Write(VolumeWrite),
    /// Read a volume or snapshot into a file or standard output
    Read(VolumeRead),
}

/// `volume create`.
#[derive(Args, Debug)]
pub(crate) struct VolumeCreate {
    /// Size of the volume
    #[arg(short = 'V', value_name = "SIZE", value_parser = size, required = true)]
    pub(crate) size: u64,
    /// Reserve no space for it
    #[arg(short)]
    pub(crate) sparse: bool,
    /// Block size, a power of two from 4K to 1M
    #[arg(short, value_name = "BLOCKSIZE", value_parser = block_size, default_value = "16K")]
    pub(crate) block_size: u32,
    /// Set a property from the start
    #[arg(short = 'o', value_name = "PROP=VAL", value_parser = setting)]
    pub(crate) settings: Vec<Setting>,
    /// Name
    #[arg(value_name = "POOL/VOL")]
    pub(crate) name: String,
}

/// `volume resize`.
#[derive(Args, Debug)]
pub(crate) struct VolumeResize {
    /// Name
    #[arg(value_name = "POOL/VOL")]
    pub(crate) name: String,
    /// New size
    #[arg(value_parser = size)]
    pub(crate) size: u64,
}

/// `volume write`.
#[derive(Args, Debug)]
pub(crate) struct VolumeWrite {
    /// Name
    #[arg(value_name = "POOL/VOL")]
    pub(crate) name: String,
    /// What to write; - or nothing is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Where in the volume to begin
    #[arg(long, value_name = "N", value_parser = size, default_value = "0")]
    pub(crate) offset: u64,
}

/// `volume read`.
#[derive(Args, Debug)]
pub(crate) struct VolumeRead {
    /// Name
    #[arg(value_name = "POOL/VOL[@SNAP]")]
    pub(crate) name: String,
    /// Where to write it; - or nothing is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Where in the volume to begin
    #[arg(long, value_name = "N", value_parser = size, default_value = "0")]
    pub(crate) offset: u64,
    /// How much to read; all if not given
    #[arg(long, value_name = "N", value_parser = size)]
    pub(crate) length: Option<u64>,
}

/// `snapshot`, `rollback`.
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// Name
    #[arg(value_name = "POOL/VOL@SNAP")]
    pub(crate) name: String,
}

/// `nbd`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["socket", "listen"]))]
pub(crate) struct Nbd {
    /// Volumes or snapshots, each an export of that name
    #[arg(required = true, value_name = "POOL/VOL")]
    pub(crate) name: Vec<String>,
    /// Listen on a unix socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Listen on a TCP port
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Memory for blocks read and not yet written [default: an eighth of the machine's, from 256M to 2G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) cache: Option<u64>,
}

/// `fuse`.
#[derive(Args, Debug)]
pub(crate) struct Fuse {
    /// Memory for blocks read and not yet written [default: an eighth of the machine's, from 256M to 2G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) cache: Option<u64>,
    /// Pool
    pub(crate) pool: String,
    /// Folder to mount on
    pub(crate) dir: PathBuf,
}

/// `serve`.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Memory of each pool for blocks read and not yet written [default: an eighth of the machine's, from 256M to 2G,
    /// shared among the pools]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) cache: Option<u64>,
    /// Pools; all imported ones if none is named
    pub(crate) pool: Vec<String>,
}

/// `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// A pool in use, or the devices of one that isn't
    #[arg(required = true, value_name = "POOL|DEV")]
    pub(crate) name: Vec<String>,
}

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Folder for the disk files, which are left there; else a temporary one
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Size of the smallest disk
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "96M")]
    pub(crate) size: u64,
    /// Number from which everything that looks random is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// `raid`.
#[derive(Args, Debug)]
pub(crate) struct Raid {
    /// As for raidctl(8)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Folder, made if it is not there
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_line_of_the_manual_parses() {
        for line in [
            "create -f -n -o ashift=12 -o failmode=wait --data raid1 --metadata raid1c3 tank a b c",
            "create tank mirror sda sdb spare sdc",
            "list -t all tank",
            "list -H -p",
            "status -v -x tank",
            "usage -T tank",
            "map tank",
            "history tank",
            "events -f tank",
            "import -d /a -d /b -o readonly=on -f -F 1234",
            "import -T 12 tank",
            "import",
            "export tank",
            "destroy -f tank/v@s",
            "labelclear -f /dev/sda",
            "add tank spare sdx",
            "attach tank a b",
            "detach tank a",
            "remove tank a b",
            "replace -r tank a b",
            "replace tank a",
            "offline -t tank a",
            "online -e tank a b",
            "clear tank",
            "clear tank a",
            "scrub -p tank",
            "scrub -s tank",
            "scrub -w tank",
            "wait tank",
            "get all tank/v",
            "set compression=lz4 tank",
            "volume create -V 1.5G -s -b 16k -o compression=off tank/v",
            "volume resize tank/v 2G",
            "volume write tank/v --from - --offset 1M",
            "volume read tank/v@s --to /tmp/x --offset 4k --length 1M",
            "snapshot tank/v@s",
            "rollback tank/v@s",
            "nbd tank/v tank/w --socket /tmp/s",
            "nbd tank/v --listen 127.0.0.1:10809",
            "fuse tank /mnt",
            "serve",
            "serve tank",
            "check tank",
            "rescue scan a b --map a=m",
            "rescue plan --save p a b",
            "rescue volumes --plan p --candidate 2",
            "rescue serve --plan p --fuse /mnt --overlay o",
            "rescue serve --plan p --socket s",
            "rescue diff --plan p --overlay o",
            "rescue copy --plan p md0 --to f --map m --fill zero",
            "rescue files --plan p md0 --to d",
            "rescue image /dev/sda --to f --map m --needed-for p",
            "rescue demo",
            "demo --dir /tmp/x --size 96M --seed 3",
            "completions bash",
            "man /tmp/m",
            "status --json",
            "--json list",
        ] {
            let words = std::iter::once("coffer").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn settings_take_sizes_with_units() {
        let value = |text| setting(text).map(|setting| setting.value);
        assert_eq!(value("volsize=16M").as_deref(), Ok("16777216"));
        assert_eq!(value("scan_rate=1.5k").as_deref(), Ok("1536"));
        assert_eq!(value("refreservation=none").as_deref(), Ok("none"));
        assert_eq!(value("comment=16M").as_deref(), Ok("16M"));
        assert!(setting("=1").is_err() && setting("volsize").is_err());
    }

    #[test]
    fn devices_of_this_folder_get_their_full_path() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let name = |text| device_word(text).unwrap();
        assert_eq!(name("./Cargo.toml"), here.join("Cargo.toml").to_str().unwrap());
        assert_eq!(name("../x"), here.parent().unwrap().join("x").to_str().unwrap());
        for word in ["sda", "/dev/sda", "disk/by-id/x", "mirror", "3"] {
            assert_eq!(name(word), word);
        }
    }

    #[test]
    fn wrong_lines_do_not_parse() {
        for line in [
            "frobnicate",
            "create tank",
            "create --data raid7 tank a",
            "scrub -p -s tank",
            "import -F -T 3 tank",
            "rescue serve --plan p",
            "rescue scan",
            "rescue scan a --map m",
            "rescue image /dev/sda --to f",
            "nbd tank/v",
            "nbd tank/v --socket a --listen 127.0.0.1:1",
            "volume create tank/v",
            "volume create -V 1x tank/v",
            "volume resize tank/v",
            "set compression tank",
            "list -t disk",
            "replace tank",
            "demo --seed x",
        ] {
            let words = std::iter::once("coffer").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
