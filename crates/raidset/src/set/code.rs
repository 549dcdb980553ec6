//! What the redundancy of a stripe is computed by: copies, parity, or the even-odd code, which goes by whole sectors.

use device::{DeviceError, DeviceErrorKind, Operation};

use super::RaidSet;
use super::stripe::Span;
use crate::evenodd;
use crate::layout::{Code, Stripe};

impl RaidSet {
    fn code(&self) -> Code {
        self.layout().level().code()
    }

    pub(super) fn mirrored(&self) -> bool {
        self.code() == Code::Copies
    }

    /// The least range of units with `span` in it that has redundancy of its own.
    pub(super) fn whole_span(&self, span: Span) -> Span {
        if self.code() != Code::EvenOdd {
            return span;
        }
        let sector = self.sector_size() as usize;
        span.start / sector * sector..span.end.next_multiple_of(sector)
    }

    /// Computes the redundancy of data units, over a [`RaidSet::whole_span`] of all of them.
    ///
    /// # Errors
    /// Never: lengths and numbers of units come from the layout.
    pub(super) fn generate(
        &self,
        operation: Operation,
        stripe: &Stripe,
        data: &[&[u8]],
        redundancy: &mut [&mut [u8]],
    ) -> Result<(), DeviceError> {
        match (self.code(), redundancy) {
            (Code::Copies, copies) => copies.iter_mut().for_each(|copy| copy.copy_from_slice(data[0])),
            (Code::EvenOdd, [p, e]) => evenodd::generate(data, self.sector_size() as usize, p, e),
            (_, []) => {}
            (_, parity) => {
                parity::generate(data, parity).map_err(|error| self.impossible(operation, stripe, error))?;
            }
        }
        Ok(())
    }

    /// Whether the redundancy of a stripe matches its data.
    pub(super) fn matches(&self, stripe: &Stripe, units: &[&[u8]]) -> bool {
        let (data, redundancy) = units.split_at(stripe.data_columns());
        match (self.code(), redundancy) {
            (Code::Copies, copies) => copies.iter().all(|copy| *copy == data[0]),
            (Code::EvenOdd, [p, e]) => {
                let (mut right_p, mut right_e) = (vec![0; p.len()], vec![0; e.len()]);
                evenodd::generate(data, self.sector_size() as usize, &mut right_p, &mut right_e);
                right_p == *p && right_e == *e
            }
            (_, []) => true,
            (_, parity) => parity::verify(data, parity).unwrap_or(false),
        }
    }

    /// Makes lost units of a stripe of those that are present, over a [`RaidSet::whole_span`]; not of copies.
    ///
    /// # Errors
    /// Too many are lost.
    pub(super) fn reconstruct(
        &self,
        stripe: &Stripe,
        present: &[Option<&[u8]>],
        wanted: &mut [(usize, &mut [u8])],
    ) -> Result<(), DeviceError> {
        if self.code() != Code::EvenOdd {
            return parity::reconstruct(stripe.data_columns(), present, wanted)
                .map_err(|error| self.impossible(Operation::Read, stripe, error));
        }
        let all = evenodd::reconstruct(present, self.sector_size() as usize)
            .ok_or_else(|| self.error(Operation::Read, stripe, None))?;
        wanted.iter_mut().for_each(|(unit, out)| out.copy_from_slice(&all[*unit]));
        Ok(())
    }

    /// Lengths and numbers of columns come from the layout, so the parity code has nothing to object to.
    fn impossible(&self, operation: Operation, stripe: &Stripe, error: parity::ParityError) -> DeviceError {
        let mut told = self.error(operation, stripe, None);
        told.kind = DeviceErrorKind::Io(error.to_string());
        told
    }
}
