//! The arguments of `coffer balance`, `coffer convert` and `coffer resize`.

use clap::{Args, Subcommand};
use pool::spec::BalanceFilters;

use super::OnePool;
use crate::{filters, sizes};

/// What filters there are.
const FILTERS_HELP: &str = "Filters, separated by commas; numbers may be ranges, A..B, A.. or ..B:
  usage=PERCENT      chunks less full than that, or within the range
  profiles=P|P...    single, dup, raid0, raid1, raid1c3, raid1c4, raid10, raid5, raid6, mirror, raidz1 to raidz3
  devid=ID           chunks with a part on this device (see 'coffer usage -T')
  drange=START..END  and that part within these bytes of it
  vrange=START..END  chunks at these logical addresses
  stripes=N          chunks of so many columns
  limit=N            so many chunks at most; with a range none if there are fewer
  convert=PROFILE    give what is relocated, and all that is new, this profile (plain disks)
  soft               with convert: leave out what has the profile already";

/// `convert`.
#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// Convert to what survives fewer failed devices
    #[arg(short)]
    pub(crate) force: bool,
    /// Say what would be done, and change nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Pool
    pub(crate) pool: String,
    /// A mirror or raidz vdev as 'status' names it, such as mirror-0
    pub(crate) vdev: String,
    /// mirror, raidz1, raidz2 or raidz3
    pub(crate) kind: String,
}

/// `resize`.
#[derive(Args, Debug)]
pub(crate) struct Resize {
    /// Say what would be done, and change nothing
    #[arg(short = 'n')]
    pub(crate) dry_run: bool,
    /// Pool
    pub(crate) pool: String,
    /// A device and how much of it the pool is to use: max, a size, or one with + or - in front
    #[arg(value_name = "DEVICE:SIZE", value_parser = resize)]
    pub(crate) to: (String, pool::spec::Resize),
}

/// A device and its size for clap, as `btrfs filesystem resize` spells sizes.
fn resize(text: &str) -> Result<(String, pool::spec::Resize), String> {
    use pool::spec::Resize;
    let Some((device, size)) = text.rsplit_once(':').filter(|(device, _)| !device.is_empty()) else {
        return Err("write it as DEVICE:SIZE or DEVICE:max".to_owned());
    };
    let parse = |size: &str| sizes::parse(size).map_err(|error| error.to_string());
    let by = |size: &str| parse(size).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let to = match size.split_at_checked(1) {
        _ if size == "max" => Resize::Max,
        Some(("+", more)) => Resize::By(by(more)?),
        Some(("-", less)) => Resize::By(-by(less)?),
        _ => Resize::To(parse(size)?),
    };
    Ok((super::device_word(device)?, to))
}

/// `balance`.
#[derive(Args, Debug)]
pub(crate) struct Balance {
    #[command(subcommand)]
    pub(crate) command: BalanceCommand,
}

/// What to do about a balance.
#[derive(Debug, Subcommand)]
pub(crate) enum BalanceCommand {
    /// Begin one: all chunks, or those of the classes named, which pass every filter given for their class
    Start(Box<BalanceStart>),
    /// Show where it stands
    Status(OnePool),
    /// Pause it
    Pause(OnePool),
    /// Go on with a paused one
    Resume(OnePool),
    /// Give it up
    Cancel(OnePool),
}

/// `balance start`.
#[derive(Args, Debug)]
#[command(after_help = FILTERS_HELP)]
pub(crate) struct BalanceStart {
    /// Data chunks; filters may follow at once, as in -dusage=10,limit=2
    #[arg(short, long, value_name = "FILTERS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "", value_parser = filters::parse)]
    pub(crate) data: Option<BalanceFilters>,
    /// Metadata chunks, and system chunks along with them
    #[arg(short, long, value_name = "FILTERS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "", value_parser = filters::parse)]
    pub(crate) metadata: Option<BalanceFilters>,
    /// System chunks by filters of their own; only with -f
    #[arg(short, long, value_name = "FILTERS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "", value_parser = filters::parse)]
    pub(crate) system: Option<BalanceFilters>,
    /// Reduce the integrity of what is converted, if that is asked for
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Show what would be done
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Do not warn and wait before everything is rewritten
    #[arg(long)]
    pub(crate) full_balance: bool,
    /// Do not wait for it to end
    #[arg(long, visible_alias = "bg")]
    pub(crate) background: bool,
    /// Wait until a balance that is going on has ended, and begin then
    #[arg(long)]
    pub(crate) enqueue: bool,
    /// Pool
    pub(crate) pool: String,
}
