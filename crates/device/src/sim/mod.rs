//! A simulated disk with a volatile write cache, faults and a virtual clock. The same seed and the same
//! requests give the same bytes, errors and times, on every machine.
//!
//! A request goes: [`PowerSupply`] -> counted and timed -> `faults` decide what happens to it -> the
//! contents: `current` is what reads see, `durable` what a power cut leaves, and `cache` the writes between
//! the two -> the trace hook.
//!
//! Everything is switched through `&self` while the device is in use. [`SimDevice::fork`] copies all of it,
//! sharing memory, so that a test can try every outcome of a crash from one state:
//!
//! ```
//! use device::BlockDevice;
//! use device::sim::{Cut, SimDevice};
//!
//! let disk = SimDevice::new("sda", 1 << 20, 1);
//! disk.write(0, &[1; 512])?;
//! disk.flush()?;
//! disk.write(0, &[2; 512])?;
//! disk.write(4096, &[3; 512])?;
//! for kept in 0..1 << disk.unflushed().len() {
//!     let crashed = disk.fork();
//!     crashed.power_cut(Cut::Mask(kept));
//!     let mut bytes = [0; 512];
//!     crashed.read(0, &mut bytes)?;
//!     assert_eq!(bytes[0], if kept & 1 == 1 { 2 } else { 1 });
//! }
//! # Ok::<(), device::DeviceError>(())
//! ```

mod cache;
mod cost;
mod faults;
mod power;
mod state;
mod trace;

pub use cache::{Cut, Sectors, Survivor, Unflushed};
pub use cost::CostModel;
pub use faults::{Discarded, Effect, Healing, Rates};
pub use power::PowerSupply;
pub use trace::{Counts, Event};

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::check::{lock, read_length, write_length};
use crate::pages::Pages;
use crate::{BlockDevice, DeviceError, DeviceInfo, Operation};
use state::State;

type Hook = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// A simulated disk; see the module for how its parts fit together.
pub struct SimDevice {
    info: DeviceInfo,
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    supply: Mutex<Option<Arc<PowerSupply>>>,
}

impl fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDevice").field("info", &self.info).finish_non_exhaustive()
    }
}

impl SimDevice {
    /// A healthy, all-zero disk of `size` bytes with 512-byte sectors and a volatile write cache. `seed`
    /// decides every choice that the caller leaves open.
    pub fn new(name: impl Into<String>, size: u64, seed: u64) -> Self {
        let info = DeviceInfo {
            name: name.into(),
            logical_sector: 512,
            physical_sector: 512,
            discards: true,
            block_device: false,
        };
        Self::with_info(info, size, seed)
    }

    /// As [`SimDevice::new`], with a name and sector sizes of one's own.
    pub fn with_info(info: DeviceInfo, size: u64, seed: u64) -> Self {
        let sector = u64::from(info.logical_sector.max(1));
        Self {
            info,
            state: Mutex::new(State::new(size, sector, seed)),
            hook: Mutex::new(None),
            supply: Mutex::new(None),
        }
    }

    /// A disk in exactly this state, durable and unflushed, faults and clock included. Neither sees what the
    /// other does afterwards. The trace hook and the power supply stay with the original.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            info: self.info.clone(),
            state: Mutex::new(lock(&self.state).clone()),
            hook: Mutex::new(None),
            supply: Mutex::new(None),
        }
    }

    // What survives a crash.

    /// The writes and discards that no flush has made durable yet, oldest first.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        lock(&self.state).cache.list().to_vec()
    }

    /// Power fails and returns: `cut` says which unflushed writes reached the medium; the others are lost.
    pub fn power_cut(&self, cut: Cut<'_>) {
        lock(&self.state).power_cut(cut);
    }

    /// Attaches the disk to a power supply that several disks share, or detaches it.
    pub fn set_supply(&self, supply: Option<Arc<PowerSupply>>) {
        *lock(&self.supply) = supply;
    }

    /// Whether writes are kept in a volatile cache until a flush (as on a new disk) or are durable at once.
    /// Switching the cache off flushes it.
    pub fn set_write_cache(&self, volatile: bool) {
        lock(&self.state).set_write_cache(volatile);
    }

    // Faults.

    /// Reads that touch `range` fail with a medium error.
    pub fn add_read_errors(&self, range: Range<u64>, healing: Healing) {
        lock(&self.state).faults.add_read_errors(range, healing);
    }

    /// Writes that touch `range` fail with a medium error and store nothing.
    pub fn add_write_errors(&self, range: Range<u64>) {
        lock(&self.state).faults.write_errors.insert(range);
    }

    /// Heals `range`: reads and writes of it work again.
    pub fn clear_errors(&self, range: Range<u64>) {
        lock(&self.state).faults.clear_errors(range);
    }

    /// Does `effect` to the `nth` request from now (the next one is 1), counting only those of kind
    /// `operation` if that is given. Several plans may be pending at a time.
    pub fn plan(&self, nth: u64, operation: Option<Operation>, effect: Effect) {
        lock(&self.state).faults.plan(nth, operation, effect);
    }

    /// Forgets the plans that were not due yet.
    pub fn clear_plans(&self) {
        lock(&self.state).faults.plans.clear();
    }

    /// How often requests fail by chance.
    pub fn set_rates(&self, rates: Rates) {
        lock(&self.state).faults.rates = rates;
    }

    /// Flips `bits` random bits of the stored bytes in `range`, in the cache and on the medium.
    pub fn corrupt(&self, range: Range<u64>, bits: u32) {
        lock(&self.state).corrupt(range, bits);
    }

    /// Overwrites stored bytes behind the back of whoever uses the disk: durable, uncounted, without faults.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        lock(&self.state).overwrite(offset, bytes);
    }

    /// The next read that touches `range` succeeds with one bit wrong inside the range; later reads are right.
    pub fn corrupt_next_read(&self, range: Range<u64>) {
        lock(&self.state).faults.bad_reads.push(range);
    }

    /// Pulls the disk: every request fails with `Gone` until [`SimDevice::plug_in`]. Keeps what it had,
    /// unflushed writes too; call [`SimDevice::power_cut`] as well if those are to be lost.
    pub fn pull(&self) {
        lock(&self.state).faults.gone = true;
    }

    /// Brings a pulled disk back with the contents it had.
    pub fn plug_in(&self) {
        lock(&self.state).faults.gone = false;
    }

    /// Whether the disk is there, apart from its power supply.
    pub fn is_present(&self) -> bool {
        !lock(&self.state).faults.gone
    }

    /// Whether writes to places that were never written fail for want of space, as on a thin or sparse file.
    pub fn set_full(&self, full: bool) {
        lock(&self.state).faults.full = full;
    }

    /// Whether everything that would change the disk is refused.
    pub fn set_read_only(&self, read_only: bool) {
        lock(&self.state).faults.read_only = read_only;
    }

    /// What discarded bytes read as.
    pub fn set_discarded(&self, discarded: Discarded) {
        lock(&self.state).set_discarded(discarded);
    }

    /// Makes the disk `size` bytes long, durably. New bytes are zeros.
    pub fn set_size(&self, size: u64) {
        lock(&self.state).set_size(size);
    }

    // Watching.

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// What a request costs on the virtual clock. A new disk answers in no time.
    pub fn set_cost(&self, cost: CostModel) {
        lock(&self.state).clock.model = cost;
    }

    /// How long the disk has been busy, virtual nanoseconds. Nothing ever sleeps.
    pub fn busy_ns(&self) -> u64 {
        lock(&self.state).clock.busy_ns
    }

    /// Calls `hook` after every request, outside all locks: it may call any method of this or other disks.
    pub fn set_trace(&self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Stops tracing.
    pub fn clear_trace(&self) {
        *lock(&self.hook) = None;
    }

    /// A digest of what a power cut that drops everything unflushed would leave: equal contents, equal digest.
    pub fn durable_digest(&self) -> u64 {
        digest(&lock(&self.state).durable)
    }

    /// A digest of what reads see now.
    pub fn digest(&self) -> u64 {
        digest(&lock(&self.state).current)
    }

    /// Bytes of memory that the contents take, counting pages that forks share in full.
    pub fn stored(&self) -> u64 {
        let state = lock(&self.state);
        state.current.stored() + state.durable.stored()
    }

    /// Runs one request through power supply, bookkeeping, `work` and the trace.
    fn request(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        work: impl FnOnce(&mut State, &state::Asked<'_>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let supply = lock(&self.supply).clone();
        let (sequence, outcome) = {
            let mut state = lock(&self.state);
            let power = supply.map_or(power::Power::On, |supply| supply.draw(operation));
            let target = crate::check::Target { device: &self.info.name, operation, offset, length };
            let asked = state::Asked { target, power };
            let outcome = state.begin(&asked).and_then(|()| work(&mut state, &asked));
            if outcome.is_err() {
                state.counts.errors += 1;
            }
            (state.counts.requests(), outcome)
        };
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook(&Event { device: self, sequence, operation, offset, length, outcome: &outcome });
        }
        outcome
    }
}

/// FNV-1a over the stored bytes and their places; pages of zeros count as not stored.
fn digest(pages: &Pages) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    for (offset, bytes) in pages.iter().filter(|(_, bytes)| bytes.iter().any(|&b| b != 0)) {
        add(offset);
        for word in bytes.chunks_exact(8) {
            add(u64::from_le_bytes(std::array::from_fn(|i| word[i])));
        }
    }
    hash
}

impl BlockDevice for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(lock(&self.state).size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.request(Operation::Read, offset, read_length(buffers), |state, asked| state.read(asked, buffers))
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.request(Operation::Write, offset, write_length(buffers), |state, asked| {
            state.write(asked, buffers)
        })
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.request(Operation::Flush, 0, 0, State::flush)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.request(Operation::Discard, offset, length, State::discard)
    }
}
