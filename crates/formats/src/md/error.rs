//! What is wrong with a structure.

/// A field of an on-disk structure that can't be what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{structure} at offset {offset} of {device}: {field} is {found}, wanted {wanted}")]
pub struct FieldError {
    /// The device it is on.
    pub device: String,
    /// Where the structure begins, bytes.
    pub offset: u64,
    /// What kind of structure it is.
    pub structure: &'static str,
    /// The field.
    pub field: &'static str,
    /// What it holds.
    pub found: String,
    /// What it may hold.
    pub wanted: String,
}

/// Where a structure is, for the errors of its fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) device: &'a str,
    pub(crate) offset: u64,
    pub(crate) structure: &'static str,
}

#[allow(clippy::needless_pass_by_value, reason = "numbers and literals, for short calls")]
impl Site<'_> {
    pub(crate) fn error(
        &self,
        field: &'static str,
        found: impl ToString,
        wanted: impl ToString,
    ) -> FieldError {
        FieldError {
            device: self.device.to_owned(),
            offset: self.offset,
            structure: self.structure,
            field,
            found: found.to_string(),
            wanted: wanted.to_string(),
        }
    }

    /// An error unless `fits`.
    pub(crate) fn require(
        &self,
        fits: bool,
        field: &'static str,
        found: impl ToString,
        wanted: impl ToString,
    ) -> Result<(), FieldError> {
        if fits { Ok(()) } else { Err(self.error(field, found, wanted)) }
    }
}
