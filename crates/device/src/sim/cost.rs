//! How long a simulated request takes.

/// The time one request costs: `request_ns`, and `seek_ns` if it does not begin where the last one ended, and
/// its bytes at `bytes_per_second`; a flush costs `flush_ns` more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostModel {
    /// Fixed cost of a request, nanoseconds.
    pub request_ns: u64,
    /// Cost of moving to another place, nanoseconds.
    pub seek_ns: u64,
    /// Transfer rate, bytes per second; 0 transfers in no time.
    pub bytes_per_second: u64,
    /// Cost of a flush, nanoseconds.
    pub flush_ns: u64,
}

impl CostModel {
    /// A 7200 rpm disk: 8 ms to another place, 200 MB/s, 4 ms to flush.
    pub const DISK: Self =
        Self { request_ns: 50_000, seek_ns: 8_000_000, bytes_per_second: 200_000_000, flush_ns: 4_000_000 };
    /// A SATA flash drive: 60 us a request, 500 MB/s, 1 ms to flush.
    pub const FLASH: Self =
        Self { request_ns: 60_000, seek_ns: 0, bytes_per_second: 500_000_000, flush_ns: 1_000_000 };
}

/// A disk's own virtual time.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    pub(super) model: CostModel,
    pub(super) busy_ns: u64,
    /// Where the last request ended.
    head: u64,
}

impl Clock {
    /// Advances by one transfer of `length` bytes at `offset`.
    pub(super) fn transfer(&mut self, offset: u64, length: u64) {
        let seek_ns = if offset == self.head { 0 } else { self.model.seek_ns };
        let bytes_ns = match self.model.bytes_per_second {
            0 => 0,
            rate => (u128::from(length) * 1_000_000_000 / u128::from(rate)) as u64,
        };
        self.head = offset.saturating_add(length);
        self.busy_ns = self.busy_ns.saturating_add(self.model.request_ns + seek_ns + bytes_ns);
    }

    /// Advances by one flush.
    pub(super) fn flush(&mut self) {
        self.busy_ns = self.busy_ns.saturating_add(self.model.request_ns + self.model.flush_ns);
    }
}
