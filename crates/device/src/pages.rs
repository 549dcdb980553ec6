//! Sparse bytes in memory, cut into pages that copies share until one of them writes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of one page. Small enough that breaking the sharing of one is cheap, large enough that the index
/// of a whole device stays small.
pub(crate) const PAGE: u64 = 16 * 1024;

/// Pages of one leaf.
const LEAF: u64 = 64;

type Page = [u8; PAGE as usize];
/// Pages that are shared together, so that copying a device costs little however much it stores.
type Leaf = [Option<Arc<Page>>; LEAF as usize];

/// A sparse array of bytes without a size of its own; what was never stored reads as zeros.
///
/// A clone costs one reference count per MiB stored; the first write to each after that one per page in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    leaves: BTreeMap<u64, Arc<Leaf>>,
}

/// The part of a page a range touches: page number, first byte in the page, number of bytes.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(length);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let start = at % PAGE;
        let count = (PAGE - start).min(end - at);
        let piece = (at / PAGE, start as usize, count as usize);
        at += count;
        Some(piece)
    })
}

impl Pages {
    /// Copies the bytes from `offset` on into `buffer`.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        let mut rest = buffer;
        for (number, start, count) in pieces(offset, rest.len() as u64) {
            let (part, after) = rest.split_at_mut(count);
            match self.stored_page(number) {
                Some(page) => part.copy_from_slice(&page[start..start + count]),
                None => part.fill(0),
            }
            rest = after;
        }
    }

    /// Stores `bytes` from `offset` on.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (number, start, count) in pieces(offset, bytes.len() as u64) {
            let (part, after) = rest.split_at(count);
            let page = self.slot(number);
            match page.as_mut().and_then(Arc::get_mut) {
                Some(own) => own[start..start + count].copy_from_slice(part),
                None if count as u64 == PAGE => *page = Arc::<[u8]>::from(part).try_into().ok(),
                None => own_page(page)[start..start + count].copy_from_slice(part),
            }
            rest = after;
        }
    }

    /// Makes the pages that the range touches those of `other`, shared with it.
    pub(crate) fn share(&mut self, other: &Self, offset: u64, length: u64) {
        for (number, ..) in pieces(offset, length) {
            let leaf = other.leaves.get(&(number / LEAF));
            let theirs = leaf.and_then(|leaf| leaf[(number % LEAF) as usize].as_ref());
            if theirs.is_some() || self.stored_page(number).is_some() {
                *self.slot(number) = theirs.cloned();
            }
        }
    }

    /// Makes the range read as zeros; pages wholly inside it are freed.
    pub(crate) fn clear(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        let first_whole = offset.div_ceil(PAGE);
        let after_whole = end / PAGE;
        if first_whole < after_whole {
            self.forget(first_whole..after_whole);
        }
        for (number, start, count) in edges(offset, end) {
            if self.stored_page(number).is_some() {
                self.page(number)[start..start + count].fill(0);
            }
        }
    }

    /// Calls `change` with every stored piece of the range and its offset.
    pub(crate) fn change_stored(&mut self, range: Range<u64>, mut change: impl FnMut(u64, &mut [u8])) {
        if range.is_empty() {
            return;
        }
        let last = (range.end - 1) / PAGE;
        for (leaf_number, leaf) in self.leaves.range_mut(range.start / PAGE / LEAF..=last / LEAF) {
            for (number, page) in (leaf_number * LEAF..).zip(Arc::make_mut(leaf)) {
                let base = number * PAGE;
                let start = range.start.max(base);
                let end = range.end.min(base.saturating_add(PAGE));
                if let Some(page) = page.as_mut().filter(|_| start < end) {
                    change(start, &mut Arc::make_mut(page)[(start - base) as usize..(end - base) as usize]);
                }
            }
        }
    }

    /// Whether every byte of the range has memory behind it.
    pub(crate) fn stores(&self, offset: u64, length: u64) -> bool {
        pieces(offset, length).all(|(number, ..)| self.stored_page(number).is_some())
    }

    /// Bytes of memory in use, counting shared pages in full.
    pub(crate) fn stored(&self) -> u64 {
        self.iter().count() as u64 * PAGE
    }

    /// The stored pages in order of their offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.leaves.iter().flat_map(|(leaf_number, leaf)| {
            let numbers = leaf_number * LEAF..;
            numbers
                .zip(leaf.iter())
                .filter_map(|(number, page)| Some((number * PAGE, page.as_ref()?.as_slice())))
        })
    }

    fn stored_page(&self, number: u64) -> Option<&Page> {
        self.leaves.get(&(number / LEAF))?[(number % LEAF) as usize].as_deref()
    }

    /// The page to write to, made if it was not there.
    fn page(&mut self, number: u64) -> &mut Page {
        own_page(self.slot(number))
    }

    /// Where a page is, or is to be.
    fn slot(&mut self, number: u64) -> &mut Option<Arc<Page>> {
        let leaf =
            self.leaves.entry(number / LEAF).or_insert_with(|| Arc::new([const { None }; LEAF as usize]));
        &mut Arc::make_mut(leaf)[(number % LEAF) as usize]
    }

    /// Frees whole pages.
    fn forget(&mut self, numbers: Range<u64>) {
        let (first, end) = (numbers.start.div_ceil(LEAF), numbers.end / LEAF);
        if first < end {
            self.leaves.extract_if(first..end, |_, _| true).for_each(drop);
        }
        // What is left to do lies in the leaves at both ends.
        for leaf_number in [numbers.start / LEAF, end] {
            if let Some(leaf) = self.leaves.get_mut(&leaf_number) {
                for (number, page) in (leaf_number * LEAF..).zip(Arc::make_mut(leaf)) {
                    if numbers.contains(&number) {
                        *page = None;
                    }
                }
            }
        }
    }
}

/// The page of a slot as one's own: made if it was not there, copied if it is shared.
fn own_page(slot: &mut Option<Arc<Page>>) -> &mut Page {
    Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PAGE as usize])))
}

/// The range with all of the pages that it touches.
pub(crate) fn whole_pages(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.div_ceil(PAGE).saturating_mul(PAGE)
}

/// The pieces of `offset..end` that are not whole pages: none, one or two.
fn edges(offset: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let head_end = offset.div_ceil(PAGE).saturating_mul(PAGE).min(end);
    let tail_start = (end / PAGE * PAGE).max(head_end);
    pieces(offset, head_end.saturating_sub(offset)).chain(pieces(tail_start, end.saturating_sub(tail_start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_frees_whole_pages_and_zeroes_the_edges() {
        let mut pages = Pages::default();
        pages.write(0, &vec![7; 4 * PAGE as usize]);
        let copy = pages.clone();
        pages.clear(PAGE - 1, 2 * PAGE + 2);
        assert_eq!(pages.stored(), 2 * PAGE);
        let mut bytes = vec![1; 4 * PAGE as usize];
        pages.read(0, &mut bytes);
        for (at, byte) in bytes.iter().enumerate() {
            let cleared = (PAGE as usize - 1..3 * PAGE as usize + 1).contains(&at);
            assert_eq!(*byte, if cleared { 0 } else { 7 }, "byte {at}");
        }
        copy.read(0, &mut bytes);
        assert!(bytes.iter().all(|&b| b == 7), "the copy must not see the clearing");
    }

    #[test]
    fn clearing_across_leaves_frees_all_of_them() {
        for (first, end) in [(0, 4), (1, 2), (1, 3), (0, 1), (2, 4)] {
            for (before, after) in [(0, 0), (5, 0), (0, 5), (5, 5)] {
                let mut pages = Pages::default();
                for number in 0..4 * LEAF {
                    pages.write(number * PAGE, &[1]);
                }
                let cleared = first * LEAF + before..end * LEAF - after;
                pages.clear(cleared.start * PAGE, (cleared.end - cleared.start) * PAGE);
                let left: Vec<_> = pages.iter().map(|(offset, _)| offset / PAGE).collect();
                let expected: Vec<_> = (0..4 * LEAF).filter(|number| !cleared.contains(number)).collect();
                assert_eq!(left, expected);
                let mut touched = Vec::new();
                pages.change_stored(PAGE / 2..4 * LEAF * PAGE, |at, _| touched.push(at / PAGE));
                assert_eq!(touched, expected);
            }
        }
    }

    #[test]
    fn clearing_inside_one_page_keeps_its_neighbours() {
        let mut pages = Pages::default();
        pages.write(0, &[9; 100]);
        pages.clear(10, 20);
        let mut bytes = [0; 100];
        pages.read(0, &mut bytes);
        assert!(bytes[..10].iter().chain(&bytes[30..]).all(|&b| b == 9));
        assert_eq!(bytes[10..30], [0; 20]);
        pages.clear(0, u64::MAX);
        assert_eq!(pages.stored(), 0);
    }
}
