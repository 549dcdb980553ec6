//! The components of a set and what each is good for right now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::BlockDevice;

use super::admin::SetError;
use super::spread::Spread;
use crate::label::Label;
use crate::layout::Layout;
use crate::paritymap::{Bits, Parameters as MapParameters, ParityMap};

/// State of a component, as RAIDframe names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In use and complete.
    Optimal,
    /// Not in use.
    Failed,
    /// Being rebuilt, here or on a spare.
    Reconstructing,
    /// Replaced by a spare.
    Spared,
    /// Waiting.
    Spare,
    /// In use in place of a component, or being filled to be.
    UsedSpare,
}

impl Status {
    /// The word that `raidctl -s` prints.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Optimal => "optimal",
            Self::Failed => "failed",
            Self::Reconstructing => "reconstructing",
            Self::Spared => "spared",
            Self::Spare => "spare",
            Self::UsedSpare => "used_spare",
        }
    }
}

/// A device that is or may become part of a set.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) device: Option<Arc<dyn BlockDevice>>,
    pub(super) status: Status,
    /// What was last on it; `None` if it never had one, and then none is written before there is reason to.
    pub(super) label: Option<Label>,
}

/// What a rebuild does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildKind {
    /// Making a lost column again.
    Reconstruction,
    /// Copying a spare back to the component that it replaces.
    Copyback,
}

/// A rebuild that is under way.
#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) kind: RebuildKind,
    pub(super) column: usize,
    pub(super) target: Arc<dyn BlockDevice>,
    /// Only regions that the column missed are done.
    pub(super) partial: bool,
    /// Rows that are done. Changed only under the lock of the stripe that was done last.
    pub(super) rows: AtomicU64,
    /// Rows that are done and durable.
    pub(super) durable: AtomicU64,
    /// What a copyback had done before a crash.
    pub(super) before: Before,
    /// Whether it fills the free units, or empties them.
    pub(super) spread: Spread,
}

impl Rebuild {
    pub(super) fn new(kind: RebuildKind, column: usize, target: Arc<dyn BlockDevice>) -> Self {
        let (rows, durable) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            kind,
            column,
            target,
            partial: false,
            rows,
            durable,
            before: Before::default(),
            spread: Spread::No,
        }
    }

    /// From `rows` on.
    pub(super) fn done(self, rows: u64) -> Self {
        Self { rows: AtomicU64::new(rows), durable: AtomicU64::new(rows), ..self }
    }

    /// A copyback that goes on after a crash: what it had done counts, but for the doubtful regions.
    pub(super) fn doubting(self, doubtful: Bits, layout: &Layout, map: MapParameters) -> Self {
        let rows = self.rows.load(Ordering::Acquire);
        let regions = ParityMap::new(layout, map, Bits::clean());
        let in_doubt = |row: &u64| {
            // A free unit may hold that of another column.
            let free = || layout.free_column(*row).map(|_| *row);
            let stripe = layout.stripe_of(*row, self.column).or_else(free);
            stripe.is_some_and(|stripe| doubtful.get(regions.region(stripe)))
        };
        let first = if doubtful.count() > 0 { (0..rows).find(in_doubt) } else { None };
        Self { before: Before { rows, doubtful }, ..self }.done(first.unwrap_or(rows))
    }

    /// Whether writes to a row go to the target as well as to the spare that is copied back.
    fn beside(&self, row: u64) -> bool {
        self.kind == RebuildKind::Copyback && row < self.rows.load(Ordering::Acquire).max(self.before.rows)
    }
}

/// Rows that a copyback had done when power failed. Of writes that were under way the spare may hold something else than
/// the target: those regions are copied once more.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) rows: u64,
    pub(super) doubtful: Bits,
}

impl Default for Before {
    fn default() -> Self {
        Self { rows: 0, doubtful: Bits::clean() }
    }
}

/// All components. Never changed: changes make a new one.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) columns: Vec<Component>,
    pub(super) spares: Vec<Component>,
    /// The spare that each column uses.
    pub(super) spare_of: Vec<Option<usize>>,
    pub(super) rebuild: Option<Arc<Rebuild>>,
}

pub(super) fn same(a: &Arc<dyn BlockDevice>, b: &Arc<dyn BlockDevice>) -> bool {
    // Addresses alone: the tables of one type may differ from one part of the program to another.
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Members {
    /// Whether any device in use has a label: not so between `-C` and `-I` of a new set.
    pub(super) fn labelled(&self) -> bool {
        let mut whole = (0..self.columns.len()).filter_map(|column| self.whole(column));
        whole.any(|component| component.label.is_some())
    }

    /// Whether the column cannot be relied upon everywhere.
    pub(super) fn lost(&self, column: usize) -> bool {
        matches!(self.columns[column].status, Status::Failed | Status::Reconstructing)
    }

    /// Where the column's contents are kept, if it is all there.
    pub(super) fn whole(&self, column: usize) -> Option<&Component> {
        match self.columns[column].status {
            Status::Optimal => Some(&self.columns[column]),
            Status::Spared => self.spare_of[column].map(|spare| &self.spares[spare]),
            _ => None,
        }
    }

    /// Whether any column is on a disk, not a file.
    pub(super) fn any_disk(&self) -> bool {
        let mut devices = (0..self.columns.len())
            .filter_map(|column| self.whole(column).and_then(|whole| whole.device.as_ref()));
        devices.any(|device| device.info().block_device)
    }

    /// The device that holds a row of a column, for reading and writing.
    pub(super) fn at(&self, column: usize, row: u64) -> Option<&Arc<dyn BlockDevice>> {
        if let Some(component) = self.whole(column) {
            return component.device.as_ref();
        }
        let rebuild = self.rebuild.as_ref().filter(|rebuild| rebuild.column == column)?;
        // What is in the free units is the unit of another column: see `spread`.
        (rebuild.spread != Spread::Into && row < rebuild.rows.load(Ordering::Acquire))
            .then_some(&rebuild.target)
    }

    /// The device that must be written as well: the target of a copyback that has passed the row.
    pub(super) fn also(&self, column: usize, row: u64) -> Option<&Arc<dyn BlockDevice>> {
        let rebuild = self.rebuild.as_ref()?;
        (rebuild.column == column && rebuild.beside(row)).then_some(&rebuild.target)
    }

    /// Whether the column's contents are kept on this device.
    pub(super) fn uses(&self, column: usize, device: &Arc<dyn BlockDevice>) -> bool {
        let whole = self.whole(column).and_then(|component| component.device.as_ref());
        let target = self.rebuild.as_ref().filter(|rebuild| rebuild.column == column);
        whole.is_some_and(|whole| same(whole, device))
            || target.is_some_and(|target| same(&target.target, device))
    }

    /// Whether a device is the target of the copyback of this column.
    pub(super) fn copies_back_to(&self, column: usize, device: &Arc<dyn BlockDevice>) -> bool {
        self.rebuild.as_ref().is_some_and(|rebuild| {
            rebuild.kind == RebuildKind::Copyback && rebuild.column == column && same(&rebuild.target, device)
        })
    }

    /// Asks that no rebuild is running.
    ///
    /// # Errors
    /// One is.
    pub(super) fn require_no_rebuild(&self) -> Result<(), SetError> {
        match &self.rebuild {
            Some(rebuild) => Err(SetError::Rebuilding {
                name: self.columns[rebuild.column].name.clone(),
                kind: rebuild.kind,
            }),
            None => Ok(()),
        }
    }

    /// Gives a rebuild up.
    pub(super) fn abort_rebuild(&mut self) {
        let Some(rebuild) = self.rebuild.take() else { return };
        if rebuild.kind == RebuildKind::Reconstruction {
            self.columns[rebuild.column].status = Status::Failed;
            if let Some(spare) = self.spare_of[rebuild.column].take() {
                self.spares[spare].status = Status::Spare;
            }
        }
    }

    /// Takes a column, and the spare that it uses, out of use.
    pub(super) fn fail(&mut self, column: usize) {
        if self.rebuild.as_ref().is_some_and(|rebuild| rebuild.column == column) {
            self.abort_rebuild();
        }
        self.columns[column].status = Status::Failed;
        if let Some(spare) = self.spare_of[column].take() {
            self.spares[spare].status = Status::Failed;
        }
    }
}
