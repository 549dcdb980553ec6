//! The even-odd code with 17 rows, as RAIDframe computes it sector by sector.
//!
//! A sector has 16 rows of a 16th of its bytes; row 16 is zero. Data unit c has number a = c + 2, from 2 to 16. P is the XOR of each row.
//! E holds the diagonals: E\[i\] = S + sum over a of `D_a`\[(i - a) mod 17\], S being the diagonal 16, sum over a of `D_a`\[16 - a\]. Any two units
//! that are lost can be made again (Blaum, Brady, Bruck, Menon: EVENODD, 1995); RAIDframe itself has no code for that.

/// Rows of the code; the last one is zero.
const ROWS: usize = 17;
/// Most data units.
pub const MAX_DATA: usize = ROWS - 2;

fn xor(into: &mut [u8], from: &[u8]) {
    into.iter_mut().zip(from).for_each(|(into, from)| *into ^= from);
}

/// One sector of a unit, by rows.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    row: usize,
}

impl<'a> Rows<'a> {
    fn get(self, row: usize) -> &'a [u8] {
        self.bytes.get(row * self.row..(row + 1) * self.row).unwrap_or(&[])
    }
}

/// Number of a data unit in the code.
const fn number(unit: usize) -> usize {
    unit + 2
}

/// The row that unit `unit` has on diagonal `diagonal`.
const fn on_diagonal(unit: usize, diagonal: usize) -> usize {
    (diagonal + 2 * ROWS - number(unit)) % ROWS
}

/// Adds what some data units give to each of the 17 diagonals; `diagonals` has 17 rows.
fn add_diagonals(data: &[Option<Rows<'_>>], diagonals: &mut [u8], row: usize) {
    for (unit, rows) in data.iter().enumerate().filter_map(|(unit, rows)| Some((unit, (*rows)?))) {
        for (diagonal, into) in diagonals.chunks_mut(row).enumerate() {
            xor(into, rows.get(on_diagonal(unit, diagonal)));
        }
    }
}

/// Computes P and E of data units, which all have the same length, a multiple of `sector` bytes; `sector` is one of 16.
pub fn generate(data: &[&[u8]], sector: usize, p: &mut [u8], e: &mut [u8]) {
    p.fill(0);
    data.iter().for_each(|unit| xor(p, unit));
    let row = sector / (ROWS - 1);
    let mut diagonals = vec![0; ROWS * row];
    for (index, e) in e.chunks_mut(sector).enumerate() {
        let units: Vec<_> = data.iter().map(|unit| Some(sector_of(unit, index, sector))).collect();
        diagonals.fill(0);
        add_diagonals(&units, &mut diagonals, row);
        let (rows, common) = diagonals.split_at(sector);
        e.copy_from_slice(rows);
        e.chunks_mut(row).for_each(|e| xor(e, common));
    }
}

fn sector_of(unit: &[u8], index: usize, sector: usize) -> Rows<'_> {
    let bytes = unit.get(index * sector..(index + 1) * sector).unwrap_or(&[]);
    Rows { bytes, row: sector / (ROWS - 1) }
}

/// Makes units again of those that are there: `units` are the data units, then P, then E. `None` if more than two are missing.
pub fn reconstruct(units: &[Option<&[u8]>], sector: usize) -> Option<Vec<Vec<u8>>> {
    let length = units.iter().flatten().next()?.len();
    let data = units.len().checked_sub(2)?;
    let missing: Vec<usize> = (0..units.len()).filter(|&unit| units[unit].is_none()).collect();
    let mut all: Vec<Vec<u8>> =
        units.iter().map(|unit| unit.map_or_else(|| vec![0; length], <[u8]>::to_vec)).collect();
    match missing[..] {
        [] => return Some(all),
        [lost] if lost < data => by_rows(&mut all, lost),
        [lost, other] if lost < data && other == data + 1 => by_rows(&mut all, lost),
        [lost, other] if lost < data && other == data => by_diagonals(&mut all, lost, sector),
        [a, b] if b < data => by_both(&mut all, a, b, sector),
        [_] | [_, _] => {}
        _ => return None,
    }
    let (columns, parity) = all.split_at_mut(data);
    let columns: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
    if let [p, e] = parity {
        generate(&columns, sector, p, e);
    }
    Some(all)
}

/// A data unit from P and the others.
fn by_rows(all: &mut [Vec<u8>], lost: usize) {
    let mut sum = vec![0; all[lost].len()];
    let data = all.len() - 2;
    (0..=data).filter(|&unit| unit != lost).for_each(|unit| xor(&mut sum, &all[unit]));
    all[lost] = sum;
}

/// The diagonals of one sector without some units: of E and all data units but those.
fn syndromes(all: &[Vec<u8>], without: &[usize], index: usize, sector: usize) -> Vec<u8> {
    let data = all.len() - 2;
    let mut diagonals = vec![0; sector / (ROWS - 1) * ROWS];
    diagonals[..sector].copy_from_slice(sector_of(&all[data + 1], index, sector).bytes);
    let units: Vec<_> = (0..data)
        .map(|unit| (!without.contains(&unit)).then(|| sector_of(&all[unit], index, sector)))
        .collect();
    add_diagonals(&units, &mut diagonals, sector / (ROWS - 1));
    diagonals
}

/// A data unit from E and the other data units.
fn by_diagonals(all: &mut [Vec<u8>], lost: usize, sector: usize) {
    let row = sector / (ROWS - 1);
    for index in 0..all[lost].len() / sector {
        let diagonals = syndromes(all, &[lost], index, sector);
        // The diagonal on which the unit has its zero row is S alone.
        let common = diagonals[(number(lost) - 1) * row..][..row].to_vec();
        for (diagonal, sum) in diagonals.chunks(row).enumerate() {
            let at = on_diagonal(lost, diagonal);
            if at < ROWS - 1 {
                let into = &mut all[lost][index * sector + at * row..][..row];
                into.copy_from_slice(sum);
                xor(into, &common);
            }
        }
    }
}

/// Two data units, from P and E: from row to diagonal to row, beginning where one of them has its zero row.
fn by_both(all: &mut [Vec<u8>], a: usize, b: usize, sector: usize) {
    let row = sector / (ROWS - 1);
    let data = all.len() - 2;
    for index in 0..all[a].len() / sector {
        let mut common = vec![0; row];
        for unit in [data, data + 1] {
            sector_of(&all[unit], index, sector).bytes.chunks(row).for_each(|bytes| xor(&mut common, bytes));
        }
        let mut diagonals = syndromes(all, &[a, b], index, sector);
        diagonals.chunks_mut(row).for_each(|diagonal| xor(diagonal, &common));
        let mut rows = vec![0; sector];
        (0..=data)
            .filter(|&unit| unit != a && unit != b)
            .for_each(|unit| xor(&mut rows, sector_of(&all[unit], index, sector).bytes));
        let step = number(b) - number(a);
        let mut at = ROWS - 1 - step;
        let mut before = vec![0; row];
        while at < ROWS - 1 {
            let diagonal = (at + number(b)) % ROWS;
            let place = index * sector + at * row;
            // What b has on the diagonal is what is left of it without a.
            xor(&mut before, &diagonals[diagonal * row..][..row]);
            all[b][place..][..row].copy_from_slice(&before);
            xor(&mut before, &rows[at * row..][..row]);
            all[a][place..][..row].copy_from_slice(&before);
            at = (at + ROWS - step) % ROWS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::Rng;

    /// RAIDframe's loops, byte by byte: each data unit is added to the E units in turn, numbered from its place in the stripe.
    fn by_bytes(data: &[Vec<u8>], sector: usize) -> (Vec<u8>, Vec<u8>) {
        let (length, row) = (data[0].len(), sector / 16);
        let (mut p, mut e) = (vec![0; length], vec![0; length]);
        for (column, unit) in data.iter().enumerate() {
            for at in 0..length {
                p[at] ^= unit[at];
                let (sector_start, within) = (at / sector * sector, at % sector);
                let (i, byte) = (within / row, within % row);
                let part = |j: usize| if j == 16 { 0 } else { unit[sector_start + j * row + byte] };
                e[at] ^= part((i + 15 - column) % 17) ^ part((16 + 15 - column) % 17);
            }
        }
        (p, e)
    }

    #[test]
    fn it_is_raidframes_code_and_any_two_losses_are_made_good() {
        let mut rng = Rng::new(1);
        for (count, sector) in [(1, 512), (2, 512), (3, 1024), (8, 512), (15, 512), (15, 4096)] {
            let data: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let mut unit = vec![0; 2 * sector];
                    rng.fill(&mut unit);
                    unit
                })
                .collect();
            let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let (mut p, mut e) = (vec![1; 2 * sector], vec![1; 2 * sector]);
            generate(&slices, sector, &mut p, &mut e);
            assert!((p.clone(), e.clone()) == by_bytes(&data, sector), "{count} units");
            let all: Vec<&[u8]> = slices.iter().copied().chain([&p[..], &e[..]]).collect();
            for a in 0..all.len() {
                for b in a..all.len() {
                    let there: Vec<_> = all
                        .iter()
                        .enumerate()
                        .map(|(at, unit)| (at != a && at != b).then_some(*unit))
                        .collect();
                    if there.iter().all(Option::is_none) {
                        continue;
                    }
                    let made = reconstruct(&there, sector).unwrap();
                    assert!(made.iter().map(Vec::as_slice).eq(all.iter().copied()), "{count}: {a} and {b}");
                }
            }
            let three: Vec<_> = all.iter().enumerate().map(|(at, unit)| (at > 2).then_some(*unit)).collect();
            assert!(reconstruct(&three, sector).is_none());
        }
    }
}
