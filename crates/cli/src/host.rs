//! What the engine takes from the host: the time, an identity, randomness, threads.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pool::spec::Host;
use pool::types::Millis;
use pool::{Clock, Env};

/// Memory for the cache of a command that ends soon, bytes.
pub(crate) const CACHE_BYTES: u64 = 64 << 20;

/// Memory that a server takes for each of its pools unless told: an eighth of what this process may have, bytes.
pub(crate) fn server_cache_bytes(pools: usize) -> u64 {
    let ram = sysinfo::MemoryRefreshKind::nothing().with_ram();
    let system = sysinfo::System::new_with_specifics(sysinfo::RefreshKind::nothing().with_memory(ram));
    let had = system.map_or(0, |system| {
        // In a container the limit of its group counts.
        let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
        system.total_memory().min(limit)
    });
    (had / 8).clamp(256 << 20, 2 << 30) / pools.max(1) as u64
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What a pool needs from outside, for one import.
pub(crate) fn env(cache_bytes: u64) -> Env {
    Env { clock: Arc::new(SystemClock), runner: runner(), seed: random(), cache_bytes }
}

/// Who executes requests on devices.
pub(crate) fn runner() -> Arc<dyn device::Runner> {
    device::best_runner().map_or_else(|_| Arc::new(device::Inline) as Arc<dyn device::Runner>, Arc::from)
}

/// A number nobody can foretell: the standard library seeds its hashers from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// This host: `$COFFER_HOST_ID` (a number, for tests), else `/etc/machine-id`, else its name.
pub(crate) fn host() -> Host {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let name = if name.is_empty() { "localhost".to_owned() } else { name };
    let chosen = std::env::var("COFFER_HOST_ID").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let id = chosen.or_else(|| machine_id("/etc/machine-id")).unwrap_or_else(|| short_hash(name.as_bytes()));
    Host { id, name }
}

/// What tells one start of the host from the next.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The identity in a machine-id file. It is to be kept secret, so only its hash is used.
fn machine_id(path: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != "uninitialized").then(|| short_hash(text.as_bytes()))
}

/// Eight bytes of a BLAKE3 hash; never 0, which means "no host".
fn short_hash(bytes: &[u8]) -> u64 {
    let hash = blake3::derive_key("cofferdam host id", bytes);
    u64::from_le_bytes(std::array::from_fn(|i| hash[i])).max(1)
}
