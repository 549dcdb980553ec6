//! Address arithmetic of chunk layouts: which bytes of which column hold a logical byte. No I/O.
//!
//! A chunk is a number of columns of equal length, each a contiguous range of some device. Its logical
//! bytes fill the columns row by row, one unit of each column to a row. The flow is always the same:
//!
//! ```text
//! logical address in the chunk --Layout::segments--> cells (row, data unit, byte within)
//!     --Layout::columns_of--> columns --Layout::column_offset--> byte offset within the column
//! column that can't be read  --Layout::sources--> the columns to read in its place
//! ```
//!
//! - [`layout`](Layout): the map itself, and what survives which losses
//! - [`ColumnSet`]: a set of columns of one chunk
//! - [`Profile`]: the names people give to layouts (`raid1c3`), and the layout each makes of some devices
//! - [`ideal`]: how many bytes a heap of devices can hold at best
//! - [`md`]: the layouts of Linux md arrays
//! - [`spread`]: which devices narrow chunks take

mod columns;
pub mod ideal;
mod layout;
pub mod md;
mod profile;
pub mod spread;

pub use columns::{ColumnSet, Columns};
pub use layout::{
    Cell, Kind, Layout, LayoutError, MAX_COLUMNS, MAX_DATA_UNITS, MAX_PARITY, MIN_UNIT, Role, Segment,
    Segments,
};
pub use profile::{Profile, ProfileError, UnknownProfile};
