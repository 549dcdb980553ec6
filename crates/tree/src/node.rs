//! Committed nodes and their format on disk.
//!
//! A node is `NODE_SIZE` = 16384 bytes. All numbers are little-endian.
//!
//! ```text
//! header
//! offset  size  field
//!      0     8  magic "CofrNode"
//!      8     2  format version, 1
//!     10     1  level: 0 = leaf, n = its children are of level n - 1; at most 15
//!     11     1  reserved, zero
//!     12     2  item count, at least 1
//!     14     2  heap length H: bytes of values at the end of the node; 0 above the leaves
//!     16     8  pool id
//!     24     8  tree id: the tree that wrote the node (a clone shares nodes of its origin)
//!     32     8  session id: the import of the pool that wrote the node
//!     40     8  birth: transaction group that wrote the node, at least 1
//!     48     8  the node's own logical address
//!     56     8  self checksum: xxh3-64 (seed 0) of all NODE_SIZE bytes with this field zero
//!     64    32  reserved, zero
//!     96        entries, by ascending key, none twice
//!
//! entry of a leaf, 21 bytes                       entry of a branch, 57 bytes
//!      0     8  key: object                            0     8  key: object
//!      8     1  key: kind                              8     1  key: kind
//!      9     8  key: offset                            9     8  key: offset
//!     17     2  offset of the value in the node       17    40  node pointer (see `pointer.rs`)
//!     19     2  length of the value, at most 4000
//! ```
//! After the entries come zeros up to the heap, the last H bytes of the node. The values fill the heap
//! completely, without overlap, in any order; an empty value's offset is anywhere in it or at its end.
//! The key of a branch's entry is a lower bound of the keys below that child, and above all keys of the child
//! before; it need not occur in the tree. A child is never younger than its parent.

use std::sync::Arc;

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::bytes::{array, get_u16, get_u64, put_u16, put_u64};
use crate::error::NodeError;
use crate::key::{KEY_SIZE, Key};
use crate::pointer::{NodePtr, POINTER_SIZE};

/// Length of a node, bytes.
pub const NODE_SIZE: usize = 16384;
/// Length of the node header, bytes.
pub const HEADER_SIZE: usize = 96;
/// Longest value, bytes. Four items of that length fit in a leaf.
pub const MAX_VALUE: usize = 4000;
/// Highest level of a node. Trees never get near it: every split adds a level for 35 times as many nodes or more.
pub const MAX_LEVEL: u8 = 15;

/// First bytes of every node.
pub const MAGIC: [u8; 8] = *b"CofrNode";
/// The format version that is written, and the only one that is read.
pub const VERSION: u16 = 1;

/// Length of an entry of a leaf: key, offset and length of the value.
pub(crate) const SLOT: usize = KEY_SIZE + 4;
/// Length of an entry of a branch: key and pointer.
pub(crate) const ENTRY: usize = KEY_SIZE + POINTER_SIZE;
/// Bytes of a node that entries and values share.
pub(crate) const CAPACITY: usize = NODE_SIZE - HEADER_SIZE;
/// Most children of a branch.
pub(crate) const FANOUT: usize = CAPACITY / ENTRY;

const CHECKSUM_AT: usize = 56;

/// The bytes of a node.
pub(crate) type Page = [u8; NODE_SIZE];

/// A page of zeros, made on the heap.
pub(crate) fn zero_page() -> Box<Page> {
    vec![0; NODE_SIZE].into_boxed_slice().try_into().expect("the slice is NODE_SIZE long")
}

/// A copy of a page, made on the heap without a detour over the stack.
pub(crate) fn copy_page(page: &Page) -> Box<Page> {
    page.to_vec().into_boxed_slice().try_into().expect("the slice is NODE_SIZE long")
}

/// Key of entry `index`; entries are `stride` bytes.
#[inline]
pub(crate) fn entry_key(page: &Page, stride: usize, index: usize) -> Key {
    Key::decode(array(page, HEADER_SIZE + index * stride))
}

/// Where `key` is among the first `count` entries, or where it belongs.
#[inline]
pub(crate) fn search(page: &Page, stride: usize, count: usize, key: Key) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if entry_key(page, stride, middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low < count && entry_key(page, stride, low) == key { Ok(low) } else { Err(low) }
}

/// Offset in the page and length of the value of leaf slot `index`.
#[inline]
pub(crate) fn slot_range(page: &Page, index: usize) -> (usize, usize) {
    let at = HEADER_SIZE + index * SLOT + KEY_SIZE;
    (get_u16(page, at).into(), get_u16(page, at + 2).into())
}

/// Value of leaf slot `index`.
#[inline]
pub(crate) fn slot_value(page: &Page, index: usize) -> &[u8] {
    let (offset, length) = slot_range(page, index);
    &page[offset..offset + length]
}

/// Pointer of branch entry `index`.
#[inline]
pub(crate) fn entry_pointer(page: &Page, index: usize) -> NodePtr {
    NodePtr::read(&array(page, HEADER_SIZE + index * ENTRY + KEY_SIZE))
}

/// What the header of a node says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Height above the leaves.
    pub level: u8,
    /// Number of items (leaf) or children (branch).
    pub count: u16,
    /// Bytes of values at the end of the node.
    pub heap: u16,
    /// Pool id.
    pub pool: u64,
    /// Id of the tree that wrote the node.
    pub tree: u64,
    /// Session that wrote the node.
    pub session: u64,
    /// Transaction group that wrote the node.
    pub birth: u64,
    /// The node's own logical address.
    pub address: u64,
}

impl Header {
    fn read(page: &Page) -> Self {
        Self {
            level: page[10],
            count: get_u16(page, 12),
            heap: get_u16(page, 14),
            pool: get_u64(page, 16),
            tree: get_u64(page, 24),
            session: get_u64(page, 32),
            birth: get_u64(page, 40),
            address: get_u64(page, 48),
        }
    }

    fn write(&self, page: &mut Page) {
        page[..HEADER_SIZE].fill(0);
        page[..8].copy_from_slice(&MAGIC);
        put_u16(page, 8, VERSION);
        page[10] = self.level;
        put_u16(page, 12, self.count);
        put_u16(page, 14, self.heap);
        put_u64(page, 16, self.pool);
        put_u64(page, 24, self.tree);
        put_u64(page, 32, self.session);
        put_u64(page, 40, self.birth);
        put_u64(page, 48, self.address);
    }
}

/// What is known about a node before it is read. What is `None` is not compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Pool id.
    pub pool: Option<u64>,
    /// Tree id.
    pub tree: Option<u64>,
    /// The pointer that led to the node.
    pub pointer: Option<NodePtr>,
}

impl Expected {
    /// A node of pool `pool` that `pointer` leads to, of any tree.
    pub fn new(pool: u64, pointer: NodePtr) -> Self {
        Self { pool: Some(pool), tree: None, pointer: Some(pointer) }
    }
}

/// A committed node: its bytes, all of which have been checked. Never changes.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    header: Header,
    page: Box<Page>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.header).finish()
    }
}

impl Node {
    /// Takes `bytes` for a node if every field of them is what it may be and what `expected` says.
    ///
    /// # Errors
    /// Names the first field that is wrong, what it is and what it should be.
    pub fn parse(bytes: Box<[u8]>, expected: &Expected) -> Result<Self, NodeError> {
        let wanted_at = expected.pointer.map(|pointer| pointer.address);
        let mut page: Box<Page> = bytes.try_into().map_err(|bytes: Box<[u8]>| {
            NodeError::new(wanted_at.unwrap_or(0), "length of the node", bytes.len(), NODE_SIZE)
        })?;
        let header = Header::read(&page);
        let check = Check { address: wanted_at.unwrap_or(header.address) };

        check.equal("magic", hex(&page[..8]), hex(&MAGIC))?;
        check.equal("format version", get_u16(&*page, 8), VERSION)?;
        if let Some(pointer) = expected.pointer {
            let found = XxHash3_128::oneshot(&*page).to_le_bytes();
            // A fuzzer is believed.
            if found != pointer.checksum && !cfg!(fuzzing) {
                return Err(check.error("checksum", hex(&found), hex(&pointer.checksum)));
            }
            check.equal("level", header.level, pointer.level)?;
            check.equal("birth", header.birth, pointer.birth)?;
            check.equal("own address", header.address, pointer.address)?;
        }
        if let Some(pool) = expected.pool {
            check.equal("pool id", header.pool, pool)?;
        }
        if let Some(tree) = expected.tree {
            check.equal("tree id", header.tree, tree)?;
        }
        let stored = get_u64(&*page, CHECKSUM_AT);
        put_u64(&mut *page, CHECKSUM_AT, 0);
        let computed = XxHash3_64::oneshot(&*page);
        put_u64(&mut *page, CHECKSUM_AT, stored);
        if !cfg!(fuzzing) {
            check.equal("self checksum", stored, computed)?;
        }

        check.at_most("level", header.level.into(), MAX_LEVEL.into())?;
        check.at_least("birth", header.birth, 1)?;
        check.at_least("item count", header.count.into(), 1)?;
        check.equal("reserved byte 11", page[11], 0)?;
        check.zeros(&page, CHECKSUM_AT + 8, HEADER_SIZE)?;
        if header.level == 0 {
            check.leaf(&page, &header)?;
        } else {
            check.branch(&page, &header)?;
        }
        Ok(Self { header, page })
    }

    /// Finishes a page whose entries and values stand: writes the header, zeros the gap, computes both checksums.
    pub(crate) fn seal(mut page: Box<Page>, header: Header) -> (NodePtr, Arc<Self>) {
        let stride = if header.level == 0 { SLOT } else { ENTRY };
        page[HEADER_SIZE + usize::from(header.count) * stride..NODE_SIZE - usize::from(header.heap)].fill(0);
        header.write(&mut page);
        let checksum = XxHash3_64::oneshot(&*page);
        put_u64(&mut *page, CHECKSUM_AT, checksum);
        let pointer = NodePtr {
            address: header.address,
            birth: header.birth,
            checksum: XxHash3_128::oneshot(&*page).to_le_bytes(),
            level: header.level,
        };
        (pointer, Arc::new(Self { header, page }))
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All `NODE_SIZE` bytes, as they are on disk.
    pub fn bytes(&self) -> &[u8] {
        &*self.page
    }

    /// The pointer that leads to this node. Computes the checksum.
    pub fn pointer(&self) -> NodePtr {
        NodePtr {
            address: self.header.address,
            birth: self.header.birth,
            checksum: XxHash3_128::oneshot(&*self.page).to_le_bytes(),
            level: self.header.level,
        }
    }

    /// The bytes back.
    pub fn into_bytes(self) -> Box<[u8]> {
        self.page
    }

    /// Number of items or children, at least 1.
    pub fn len(&self) -> usize {
        self.header.count.into()
    }

    /// Never: a node has at least one item or child.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height above the leaves.
    pub fn level(&self) -> u8 {
        self.header.level
    }

    /// The items of a leaf in ascending order; none for a branch.
    pub fn items(&self) -> impl DoubleEndedIterator<Item = (Key, &[u8])> + ExactSizeIterator {
        let count = if self.header.level == 0 { self.len() } else { 0 };
        (0..count).map(|index| self.item(index))
    }

    /// The children of a branch in ascending order, each with the lower bound of its keys; none for a leaf.
    pub fn children(&self) -> impl DoubleEndedIterator<Item = (Key, NodePtr)> + ExactSizeIterator {
        let count = if self.header.level == 0 { 0 } else { self.len() };
        (0..count).map(|index| self.child(index))
    }

    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    pub(crate) fn into_page(self) -> Box<Page> {
        self.page
    }

    /// Item `index` of a leaf.
    pub(crate) fn item(&self, index: usize) -> (Key, &[u8]) {
        (entry_key(&self.page, SLOT, index), slot_value(&self.page, index))
    }

    /// Child `index` of a branch.
    pub(crate) fn child(&self, index: usize) -> (Key, NodePtr) {
        (entry_key(&self.page, ENTRY, index), entry_pointer(&self.page, index))
    }

    /// Where `key` is among the items of a leaf, or where it belongs.
    pub(crate) fn search_item(&self, key: Key) -> Result<usize, usize> {
        search(&self.page, SLOT, self.len(), key)
    }

    /// Index of the child of a branch that `key` belongs to.
    pub(crate) fn search_child(&self, key: Key) -> usize {
        search(&self.page, ENTRY, self.len(), key).unwrap_or_else(|after| after.saturating_sub(1))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The checks of `Node::parse`, with the address that errors name.
struct Check {
    address: u64,
}

impl Check {
    #[cold]
    fn error(
        &self,
        field: impl std::fmt::Display,
        found: impl std::fmt::Display,
        wanted: impl std::fmt::Display,
    ) -> NodeError {
        NodeError::new(self.address, field, found, wanted)
    }

    fn equal<T: PartialEq + std::fmt::Display>(
        &self,
        field: &str,
        found: T,
        wanted: T,
    ) -> Result<(), NodeError> {
        if found == wanted { Ok(()) } else { Err(self.error(field, found, wanted)) }
    }

    fn at_least(&self, field: &str, found: u64, least: u64) -> Result<(), NodeError> {
        if found >= least { Ok(()) } else { Err(self.error(field, found, format_args!("at least {least}"))) }
    }

    fn at_most(&self, field: &str, found: u64, most: u64) -> Result<(), NodeError> {
        if found <= most { Ok(()) } else { Err(self.error(field, found, format_args!("at most {most}"))) }
    }

    fn zeros(&self, page: &Page, from: usize, to: usize) -> Result<(), NodeError> {
        // The sum keeps the usual case free of branches.
        if page[from..to].iter().fold(0, |any, byte| any | byte) == 0 {
            return Ok(());
        }
        let at = page[from..to].iter().position(|&byte| byte != 0).map_or(from, |at| from + at);
        Err(self.error(format_args!("unused byte {at}"), page[at], 0))
    }

    /// Keys ascend, and entries of `stride` bytes leave room for the heap.
    fn entries(&self, page: &Page, header: &Header, stride: usize) -> Result<(), NodeError> {
        let count = usize::from(header.count);
        self.at_most("item count", count as u64, (CAPACITY / stride) as u64)?;
        self.at_most("heap length", header.heap.into(), (CAPACITY - count * stride) as u64)?;
        self.zeros(page, HEADER_SIZE + count * stride, NODE_SIZE - usize::from(header.heap))?;
        let mut before = entry_key(page, stride, 0);
        for index in 1..count {
            let key = entry_key(page, stride, index);
            if key <= before {
                return Err(self.error(format_args!("key {index}"), key, format_args!("more than {before}")));
            }
            before = key;
        }
        Ok(())
    }

    fn leaf(&self, page: &Page, header: &Header) -> Result<(), NodeError> {
        self.entries(page, header, SLOT)?;
        let heap = NODE_SIZE - usize::from(header.heap);
        // One bit for each byte of the node. Values that add up to the heap's length and touch all of it can
        // neither overlap nor leave a hole.
        let mut touched = [0_u64; NODE_SIZE / 64];
        let mut total = 0;
        for index in 0..usize::from(header.count) {
            let (offset, length) = slot_range(page, index);
            if length > MAX_VALUE {
                return Err(self.error(
                    format_args!("length of value {index}"),
                    length,
                    format_args!("at most {MAX_VALUE}"),
                ));
            }
            if offset < heap || offset + length > NODE_SIZE {
                return Err(self.error(
                    format_args!("range of value {index}"),
                    format_args!("{offset} + {length}"),
                    format_args!("within {heap} and {NODE_SIZE}"),
                ));
            }
            total += length;
            mark(&mut touched, offset, length);
        }
        self.equal("sum of value lengths", total, header.heap.into())?;
        let covered: u32 = touched.iter().map(|word| word.count_ones()).sum();
        self.equal("bytes of the heap that values cover", covered, header.heap.into())
    }

    fn branch(&self, page: &Page, header: &Header) -> Result<(), NodeError> {
        self.equal("heap length", header.heap, 0)?;
        self.entries(page, header, ENTRY)?;
        for index in 0..usize::from(header.count) {
            let bytes = array(page, HEADER_SIZE + index * ENTRY + KEY_SIZE);
            let child = NodePtr::decode(&bytes).map_err(|error| {
                self.error(format_args!("child {index}: {}", error.field), error.found, error.wanted)
            })?;
            if child.level + 1 != header.level {
                return Err(self.error(
                    format_args!("level of child {index}"),
                    child.level,
                    header.level - 1,
                ));
            }
            if child.birth > header.birth {
                return Err(self.error(
                    format_args!("birth of child {index}"),
                    child.birth,
                    format_args!("at most {}", header.birth),
                ));
            }
            if child.address == header.address {
                return Err(self.error(
                    format_args!("address of child {index}"),
                    child.address,
                    "another than the node's own",
                ));
            }
        }
        Ok(())
    }
}

/// Sets `length` bits from `offset` on.
fn mark(bits: &mut [u64; NODE_SIZE / 64], offset: usize, length: usize) {
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let stop = ((at | 63) + 1).min(end);
        // `stop - at` is 1 to 64, so the shift is at most 63.
        bits[at / 64] |= (u64::MAX >> (64 - (stop - at))) << (at % 64);
        at = stop;
    }
}
