//! An assembled array as a read-only device.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation, RangeSet};
use formats::md::Bitmap;
use geometry::md::{Geometry, Holds, Place, Row, Shape, Spot};

use crate::Misfit;
use crate::checking::Checking;
use crate::replay::Patched;
use crate::whole_rows::{Reading, WholeRows};

/// The unit in which members are readable or not, bytes.
pub(crate) const SECTOR: u64 = 512;

/// A member of an assembled array.
#[derive(Clone, Debug)]
pub struct Source {
    /// The disk or image.
    pub device: Arc<dyn BlockDevice>,
    /// Where the array's data begins on it, bytes.
    pub start: u64,
    /// How many bytes from there on are to be believed.
    pub valid: u64,
    /// Of a stale member: the write-intent bitmap of a fresh one. It is read only where nothing else helps and the bitmap
    /// says that nothing was written since.
    pub clean: Option<Arc<Bitmap>>,
    /// What its bad-block log lists, bytes on the device: read only where nothing else helps.
    pub doubtful: Option<Arc<RangeSet>>,
    /// The member with newer data of a journal over it, to which parity does not belong yet.
    pub(crate) ahead: Option<Arc<Patched>>,
}

impl Source {
    /// A member all of which is to be believed, with its data from `start` on.
    pub fn whole(device: Arc<dyn BlockDevice>, start: u64) -> Self {
        Self { device, start, valid: u64::MAX, clean: None, doubtful: None, ahead: None }
    }
}

/// Which members a read may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// Those that are up to date.
    Fresh,
    /// Also what is surely unchanged on stale ones.
    Unchanged,
    /// Also what is listed as bad, and can be read nevertheless: such lists are known to be wrong at times.
    Listed,
}

/// Members under one geometry.
#[derive(Clone, Debug)]
pub struct Section {
    /// The map.
    pub geometry: Geometry,
    /// The members by their slots; `None` where one is missing.
    pub sources: Vec<Option<Source>>,
}

/// A run of an array that is somewhere else.
#[derive(Clone, Debug)]
pub(crate) struct SetAside {
    pub(crate) run: Range<u64>,
    pub(crate) device: Arc<dyn BlockDevice>,
    /// Where its first byte is on the device.
    pub(crate) from: u64,
}

/// An array put together from what is left of its members. Nothing is ever written to them.
#[derive(Debug)]
pub struct ArrayDevice {
    info: DeviceInfo,
    size: u64,
    section: Section,
    /// The geometry of an unfinished reshape: the array addresses that have it already.
    reshaped: Option<(Range<u64>, Section)>,
    /// What was set aside of it while its rows changed places.
    set_aside: Vec<SetAside>,
    /// Rows that were read as a whole.
    rows: WholeRows,
    /// If all that is read is checked: what did not fit, of both geometries.
    checking: Option<[Checking; 2]>,
    /// What was done to put it together that is worth telling.
    notes: Vec<String>,
}

impl ArrayDevice {
    /// The array with one geometry.
    pub fn new(name: impl Into<String>, section: Section) -> Self {
        let size = section.geometry.size();
        Self {
            info: info(name),
            size,
            section,
            reshaped: None,
            set_aside: Vec::new(),
            rows: WholeRows::default(),
            checking: None,
            notes: Vec::new(),
        }
    }

    /// An array whose reshape was interrupted: the addresses in `done` have the geometry of `new`, all others
    /// that of `old`.
    pub fn reshaping(name: impl Into<String>, old: Section, new: Section, done: Range<u64>) -> Self {
        let size = old.geometry.size().min(new.geometry.size());
        Self {
            info: info(name),
            size,
            section: old,
            reshaped: Some((done, new)),
            set_aside: Vec::new(),
            rows: WholeRows::default(),
            checking: None,
            notes: Vec::new(),
        }
    }

    /// The same with runs that are somewhere else.
    pub(crate) fn with_set_aside(self, set_aside: Vec<SetAside>) -> Self {
        Self { set_aside, ..self }
    }

    /// The same with something to tell.
    pub(crate) fn with_notes(self, notes: Vec<String>) -> Self {
        Self { notes, ..self }
    }

    /// How many bytes of data a row has, if all of it is in rows of one geometry.
    pub fn row_width(&self) -> Option<u64> {
        let geometry = &self.section.geometry;
        let row = geometry.row(0).filter(|_| self.reshaped.is_none())?;
        Some(row.data.len() as u64 * geometry.chunk())
    }

    /// The same, which looks at the parity of whatever is read: what a single member has silently wrong is told by two
    /// parities, and read right.
    pub fn checking(self) -> Self {
        Self { checking: Some(Default::default()), ..self }
    }

    /// What did not fit in what was read until now, if that is looked at.
    pub fn misfits(&self) -> Vec<Misfit> {
        self.checked(Checking::misfits)
    }

    /// What did not fit since this was last asked.
    pub fn new_misfits(&self) -> Vec<Misfit> {
        self.checked(Checking::news)
    }

    fn checked(&self, what: fn(&Checking, &Section) -> Vec<Misfit>) -> Vec<Misfit> {
        let new = self.reshaped.as_ref().map(|(_, new)| new);
        let both = [Some(&self.section), new].into_iter().zip(self.checking.iter().flatten());
        both.filter_map(|(section, checking)| Some(what(checking, section?))).flatten().collect()
    }

    /// What did not fit in these rows, if that is looked at; rows that a journal has newer data of have no parity to fit.
    fn checking_of(&self, section: &Section) -> Option<&Checking> {
        let [own, other] = self.checking.as_ref()?;
        let ahead = section.sources.iter().flatten().any(|source| source.ahead.is_some());
        let checking = if std::ptr::eq(section, &raw const self.section) { own } else { other };
        (!ahead).then_some(checking)
    }

    /// What was done to put it together that is worth telling, such as what came of a journal.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The map; the old one while reshaping.
    pub fn geometry(&self) -> &Geometry {
        &self.section.geometry
    }

    /// Reads what can be had: fills `buffer` from `offset` on except for the returned ranges of the array,
    /// which are lost. Their bytes in the buffer mean nothing.
    ///
    /// # Errors
    /// Only if the range does not lie within the array.
    pub fn read_around_losses(&self, offset: u64, buffer: &mut [u8]) -> Result<Vec<Range<u64>>, DeviceError> {
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(self.error(
                Operation::Read,
                offset,
                length,
                DeviceErrorKind::OutOfRange { size: self.size },
            ));
        }
        let mut lost = Vec::new();
        let mut done = 0;
        while done < buffer.len() {
            let address = offset + done as u64;
            let (section, mut most) = self.section_at(address);
            if let Some((aside, left)) = self.aside_at(address, &mut most) {
                let step = left.min(length - done as u64) as usize;
                let from = aside.from + (address - aside.run.start);
                if aside.device.read(from, &mut buffer[done..done + step]).is_ok() {
                    done += step;
                    continue;
                }
            }
            let Some((place, run)) = section.geometry.locate(address) else {
                // Sizes were compared above, so this is beyond the smaller geometry: nothing is there.
                lose(&mut lost, address..offset + length);
                break;
            };
            let checking = self.checking_of(section);
            if let Place::Row { row, .. } = &place
                && (section.lacks() || checking.is_some())
                && let Some(got) = self.rows.read(
                    Reading { section, row, checking },
                    address,
                    most,
                    &mut buffer[done..],
                    length,
                )
            {
                done += got;
                continue;
            }
            let step = run.min(most).min(length - done as u64) as usize;
            if let (Place::Row { spot, row }, Some(checking)) = (&place, checking) {
                let part = &mut buffer[done..done + step];
                section.recover_checked((*spot, *row), address, part, &mut lost, checking);
                done += step;
                continue;
            }
            section.recover(&place, 0, address, &mut buffer[done..done + step], &mut lost);
            done += step;
        }
        Ok(lost)
    }

    /// Looks at `samples` rows all over the array: how many have parity that fits, or copies that are alike, and how many
    /// have not. Rows that are empty or not readable on all members count as neither. `None` if the array has no redundancy,
    /// is being reshaped, or lacks a member that its parity needs.
    pub fn sample_parity(&self, samples: u64) -> Option<(u64, u64)> {
        if self.reshaped.is_none() && matches!(self.section.geometry.shape(), Shape::Raid1 | Shape::Raid10(_))
        {
            return Some(self.sample_copies(samples));
        }
        let section = &self.section;
        let chunk = section.geometry.chunk();
        let width = section.geometry.row(0)?.data.len() as u64 * chunk;
        if self.reshaped.is_some() || section.sources.iter().any(Option::is_none) {
            return None;
        }
        let sectors = chunk / SECTOR;
        let rows = self.size / width.max(1) * sectors;
        let step = (rows / samples.max(1)).max(1);
        let (mut right, mut wrong) = (0, 0);
        // An odd step meets all rotations and all places within chunks.
        for place in (0..rows).step_by((step | 1) as usize) {
            let row = section.geometry.row(place / sectors)?;
            match section.row_fits(row, place * SECTOR) {
                Some(true) => right += 1,
                Some(false) => wrong += 1,
                None => {}
            }
        }
        Some((right, wrong))
    }

    /// How many sectors have copies that are alike, and how many have not.
    fn sample_copies(&self, samples: u64) -> (u64, u64) {
        let sectors = self.size / SECTOR;
        let step = (sectors / samples.max(1)).max(1) | 1;
        let (mut right, mut wrong) = (0, 0);
        for sector in (0..sectors).step_by(step as usize) {
            let Some((Place::Copies(spots), _)) = self.section.geometry.locate(sector * SECTOR) else {
                continue;
            };
            let read = |spot: &Spot| {
                let mut bytes = vec![0; SECTOR as usize];
                self.section.fetch(*spot, 0, &mut bytes, Use::Fresh).then_some(bytes)
            };
            let copies: Vec<Vec<u8>> = spots.iter().filter_map(read).collect();
            let empty = copies.iter().flatten().all(|byte| *byte == 0);
            if copies.len() > 1 && !empty {
                let alike = copies.windows(2).all(|pair| pair[0] == pair[1]);
                if alike { right += 1 } else { wrong += 1 }
            }
        }
        (right, wrong)
    }

    /// What was set aside at an address, and how many bytes of it follow; otherwise `most` is kept short of the next such run.
    fn aside_at(&self, address: u64, most: &mut u64) -> Option<(&SetAside, u64)> {
        for aside in &self.set_aside {
            if aside.run.contains(&address) {
                return Some((aside, aside.run.end - address));
            }
            if let Some(before) = aside.run.start.checked_sub(address) {
                *most = before.min(*most);
            }
        }
        None
    }

    /// The geometry that holds at an address, and for how many bytes.
    fn section_at(&self, address: u64) -> (&Section, u64) {
        match &self.reshaped {
            Some((done, new)) if done.contains(&address) => (new, done.end - address),
            Some((done, _)) if address < done.start => (&self.section, done.start - address),
            _ => (&self.section, u64::MAX),
        }
    }

    fn error(&self, operation: Operation, offset: u64, length: u64, kind: DeviceErrorKind) -> DeviceError {
        DeviceError { device: self.info.name.clone(), operation, offset, length, kind }
    }
}

fn info(name: impl Into<String>) -> DeviceInfo {
    DeviceInfo {
        name: name.into(),
        logical_sector: SECTOR as u32,
        physical_sector: 4096,
        discards: false,
        block_device: false,
    }
}

/// Adds a range to a list in order, joined with the last one if it goes on there.
pub(crate) fn lose(lost: &mut Vec<Range<u64>>, range: Range<u64>) {
    match lost.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => lost.push(range),
    }
}

impl Section {
    /// Fills `buffer` with what is `skip` bytes into `place`, where array address `address` lies; as a whole
    /// if that works, else each half by itself.
    pub(crate) fn recover(
        &self,
        place: &Place<'_>,
        skip: u64,
        address: u64,
        buffer: &mut [u8],
        lost: &mut Vec<Range<u64>>,
    ) {
        let length = buffer.len() as u64;
        let first = match place {
            Place::Copies(spots) => spots.first().map_or(0, |spot| spot.offset),
            Place::Row { spot, .. } => spot.offset,
        };
        let mut attempt = |using: Use| match place {
            Place::Copies(spots) => spots.iter().any(|spot| self.fetch(*spot, skip, buffer, using)),
            Place::Row { spot, row } => {
                self.fetch_ahead(*spot, skip, buffer, using)
                    // What the journal has a part of is gone about page by page: the rest of the row knows only older data.
                    || !self.is_ahead(*spot, skip, length) && self.rebuild(*spot, row, skip, buffer, using)
            }
        };
        let any = |with: &dyn Fn(&Source) -> bool| self.sources.iter().flatten().any(with);
        let (stale, listed) =
            (any(&|source| source.clean.is_some()), any(&|source| source.doubtful.is_some()));
        if attempt(Use::Fresh) || stale && attempt(Use::Unchanged) || listed && attempt(Use::Listed) {
            return;
        }
        let at = first + skip;
        if at / SECTOR == (at + length - 1) / SECTOR {
            lose(lost, address..address + length);
            return;
        }
        // Halves meet at a sector of the members, and neither is empty: the range touches two sectors.
        let middle = ((at + length / 2) / SECTOR * SECTOR).max((at / SECTOR + 1) * SECTOR) - at;
        let (left, right) = buffer.split_at_mut(middle as usize);
        self.recover(place, skip, address, left, lost);
        self.recover(place, skip + middle, address + middle, right, lost);
    }

    /// Whether a member is missing, and rows are all there is of the others.
    fn lacks(&self) -> bool {
        self.sources.iter().any(Option::is_none)
            && self.sources.iter().flatten().all(|source| source.ahead.is_none())
    }

    /// Whether a journal has newer data of a member, of which parity does not know, anywhere in a range.
    fn is_ahead(&self, spot: Spot, skip: u64, length: u64) -> bool {
        let source = self.sources.get(usize::from(spot.member)).and_then(Option::as_ref);
        let ahead = source.and_then(|source| source.ahead.as_ref());
        ahead.is_some_and(|ahead| ahead.covers(spot.offset + skip..spot.offset + skip + length))
    }

    /// Fills `buffer` from one member as it would be had the journal been carried out; says whether that worked.
    fn fetch_ahead(&self, spot: Spot, skip: u64, buffer: &mut [u8], using: Use) -> bool {
        let source = self.sources.get(usize::from(spot.member)).and_then(Option::as_ref);
        let Some(ahead) = source.and_then(|source| source.ahead.as_ref()) else {
            return self.fetch(spot, skip, buffer, using);
        };
        let at = Spot { offset: spot.offset + skip, ..spot };
        let place = self.place(at, buffer.len() as u64, using);
        place.is_some_and(|(_, at)| ahead.read(at, buffer).is_ok())
    }

    /// Fills `buffer` from one member; says whether that worked.
    pub(crate) fn fetch(&self, spot: Spot, skip: u64, buffer: &mut [u8], using: Use) -> bool {
        let length = buffer.len() as u64;
        let place = self.place(Spot { offset: spot.offset + skip, ..spot }, length, using);
        place.is_some_and(|(device, at)| device.read(at, buffer).is_ok())
    }

    /// The device and the byte there at which so many bytes of a member lie, if they may be used.
    pub(crate) fn place(&self, spot: Spot, length: u64, using: Use) -> Option<(&dyn BlockDevice, u64)> {
        let source = self.sources.get(usize::from(spot.member))?.as_ref()?;
        let unchanged = match &source.clean {
            None => true,
            Some(bitmap) => using >= Use::Unchanged && !self.dirty(bitmap, spot, length),
        };
        let at = source.start.checked_add(spot.offset)?;
        let listed = |set: &Arc<RangeSet>| set.first_overlap(at..at.saturating_add(length)).is_some();
        let doubted = using < Use::Listed && source.doubtful.as_ref().is_some_and(listed);
        let believed = unchanged && !doubted && spot.offset.checked_add(length)? <= source.valid;
        believed.then_some((&*source.device, at))
    }

    /// Whether a bitmap says that this may have been written since a member was lost. Bitmaps of RAID 10 speak of the array's
    /// addresses, others of those of members.
    fn dirty(&self, bitmap: &Bitmap, spot: Spot, length: u64) -> bool {
        if !matches!(self.geometry.shape(), Shape::Raid10(_)) {
            return bitmap.dirty(spot.offset..spot.offset + length);
        }
        // What is asked for never leaves a chunk.
        match self.geometry.holds(spot) {
            Holds::Data(address) => bitmap.dirty(address..address + length),
            _ => true,
        }
    }

    /// Whether the parity of one sector of a row fits; `None` if it can't be read or is all zeros.
    fn row_fits(&self, row: &Row, offset: u64) -> Option<bool> {
        let read = |member: u16| {
            let mut bytes = vec![0; SECTOR as usize];
            self.fetch(Spot { member, offset }, 0, &mut bytes, Use::Fresh).then_some(bytes)
        };
        let mut data = vec![vec![0; SECTOR as usize]; row.columns()];
        for (index, &member) in row.data.iter().enumerate() {
            data[row.column(index, member)] = read(member)?;
        }
        let parity = [Some(row.p), row.q].into_iter().flatten().map(read).collect::<Option<Vec<_>>>()?;
        if data.iter().chain(&parity).all(|bytes| bytes.iter().all(|byte| *byte == 0)) {
            return None;
        }
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let parity: Vec<&[u8]> = parity.iter().map(Vec::as_slice).collect();
        parity::verify(&data, &parity).ok()
    }

    /// Computes what `spot` holds from the rest of its row; says whether enough of it is readable.
    fn rebuild(&self, spot: Spot, row: &Row, skip: u64, buffer: &mut [u8], using: Use) -> bool {
        let read = |member: u16| {
            let mut bytes = vec![0; buffer.len()];
            self.fetch(Spot { member, ..spot }, skip, &mut bytes, using).then_some(bytes)
        };
        // Columns that hold nothing, as DDF counts them, are zeros.
        let columns = row.columns();
        let mut data = vec![Some(vec![0; buffer.len()]); columns];
        let mut wanted = None;
        let mut losses = 0;
        for (index, &member) in row.data.iter().enumerate() {
            let column = row.column(index, member);
            if member == spot.member {
                (wanted, data[column]) = (Some(column), None);
            } else {
                data[column] = read(member);
            }
            losses += usize::from(data[column].is_none());
        }
        let Some(wanted) = wanted else { return false };
        let p = read(row.p);
        // Q is needed only where P does not do.
        let q = row.q.filter(|_| losses > usize::from(p.is_some())).and_then(read);
        if losses > usize::from(p.is_some()) + usize::from(q.is_some()) {
            return false;
        }
        let mut present: Vec<Option<&[u8]>> = data.iter().map(Option::as_deref).collect();
        present.push(p.as_deref());
        if row.q.is_some() {
            present.push(q.as_deref());
        }
        parity::reconstruct(columns, &present, &mut [(wanted, buffer)]).is_ok()
    }
}

impl BlockDevice for ArrayDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let mut at = offset;
        for buffer in buffers {
            let lost = self.read_around_losses(at, buffer)?;
            if let Some(Range { start, end }) = lost.first() {
                let why = format!("bytes {start} to {end} are lost: too few members are readable there");
                let kind = DeviceErrorKind::Io(why);
                return Err(self.error(Operation::Read, at, buffer.len() as u64, kind));
            }
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let length = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        Err(self.error(Operation::Write, offset, length, DeviceErrorKind::ReadOnly))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        Err(self.error(Operation::Discard, offset, length, DeviceErrorKind::ReadOnly))
    }
}
