//! RAIDframe's component labels and parity maps.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]

use raidset::label::Label;
use raidset::paritymap::{Bits, Parameters};

/// A component label, what is made of it, and a parity map.
pub fn run(data: &[u8]) {
    if let Ok(mut label) = Label::decode(data) {
        let bytes = label.encode();
        assert_eq!(Label::decode(&bytes).as_ref(), Ok(&label));
        let _ = (label.letter(), label.root(), Parameters::of_label(&label), format!("{label:?}"));
        let _ = label.fix_sizes(u64::MAX);
        let _ = label.fix_sizes(1000);
    }
    if let Some(Ok(label)) = Label::recognise(data) {
        assert_eq!(Label::decode(data), Ok(label));
    }
    let mut map = [0; raidset::paritymap::MAP_LENGTH];
    let length = map.len().min(data.len());
    map[..length].copy_from_slice(&data[..length]);
    let mut bits = Bits::decode(&map);
    assert_eq!(bits.encode(), &map);
    let region = data.first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    let _ = bits.get(region);
    bits.set(region, true);
    bits.merge(&Bits::dirty(region));
    let _ = bits.count();
}
