//! The devices' own bytes: every copy of everything live against the others, and parity against a decoder of our own
//! that shares nothing with the engine's but the field, GF(2^8) modulo 0x11d.

use device::BlockDevice;
use pool::{Copies, Places};

use crate::run::{Failure, Run};

/// `bytes` times 2 in the field.
fn double(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = (*byte << 1) ^ if *byte & 0x80 == 0 { 0 } else { 0x1d };
    }
}

/// The sum over `i` of `2^(power * i)` times unit number `i`.
fn parity(units: &[Vec<u8>], power: u32) -> Vec<u8> {
    let mut sum = vec![0; units.first().map_or(0, Vec::len)];
    for unit in units.iter().rev() {
        (0..power).for_each(|_| double(&mut sum));
        sum.iter_mut().zip(unit).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

impl Run {
    /// Every copy of everything live is what the others are, and every parity what the data says.
    pub(crate) fn verify_bytes(&mut self) -> Result<(), Failure> {
        let places = self.pool().places().map_err(|error| format!("places: {error}"))?;
        let disks: Vec<_> = self
            .pool()
            .device_paths()
            .into_iter()
            .filter_map(|device| Some((device.id, self.world.by_path(&device.path)?)))
            .collect();
        let mut compared = 0;
        for Places { length, data, parity: parities } in places {
            let mut read = |copies: &Copies| -> Result<Option<Vec<u8>>, Failure> {
                let mut first: Option<(usize, u64, Vec<u8>)> = None;
                for &(id, offset) in copies {
                    let Some(&(_, disk)) = disks.iter().find(|(known, _)| *known == id) else { continue };
                    let mut bytes = vec![0; length as usize];
                    let read = self.world.disks[disk].device.read(offset, &mut bytes);
                    read.map_err(|error| format!("the tester can't read: {error}"))?;
                    compared += 1;
                    match &first {
                        Some((other, at, others)) if *others != bytes => {
                            return Err(format!(
                                "{length} bytes at {offset} of d{disk} are not those at {at} of d{other}"
                            ));
                        }
                        Some(_) => {}
                        None => first = Some((disk, offset, bytes)),
                    }
                }
                Ok(first.map(|(.., bytes)| bytes))
            };
            let units: Vec<Option<Vec<u8>>> = data.iter().map(&mut read).collect::<Result<_, _>>()?;
            let Some(units) = units.into_iter().collect::<Option<Vec<_>>>() else {
                return Err("there is data without a place that is up to date".to_owned());
            };
            for (power, copies) in (0..).zip(&parities) {
                let Some(found) = read(copies)? else {
                    return Err("there is a parity without a place that is up to date".to_owned());
                };
                if found != parity(&units, power) {
                    return Err(format!("parity {power} of the row with {:?} is wrong", data[0]));
                }
            }
        }
        self.tally.add("places compared", true);
        self.world.note(|| format!("{compared} places compared"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as in a book: shift and add, then reduce.
    fn times(a: u8, b: u8) -> u8 {
        let product =
            (0..8).filter(|bit| b >> bit & 1 == 1).fold(0_u16, |sum, bit| sum ^ u16::from(a) << bit);
        let reduced = (8..15)
            .rev()
            .fold(product, |left, bit| if left >> bit & 1 == 1 { left ^ 0x11d << (bit - 8) } else { left });
        reduced as u8
    }

    #[test]
    fn parity_is_the_sum_that_it_should_be() {
        let units: Vec<Vec<u8>> =
            (0..7_u8).map(|i| (0..=255).map(|b: u8| b.wrapping_mul(37) ^ i).collect()).collect();
        for power in 0..3 {
            let sum = parity(&units, power);
            for (at, found) in sum.iter().enumerate() {
                let mut factor = 1;
                let mut wanted = 0;
                for unit in &units {
                    wanted ^= times(unit[at], factor);
                    factor = (0..power).fold(factor, |factor, _| times(factor, 2));
                }
                assert_eq!(*found, wanted);
            }
        }
    }
}
