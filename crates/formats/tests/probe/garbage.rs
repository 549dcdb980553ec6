//! Random bytes are not recognised, and nothing makes the parsers panic or read outside of the device.
#![allow(clippy::unwrap_used, dead_code)]

use device::{DeviceErrorKind, Operation};
use formats::probe;
use proptest::prelude::*;

use crate::common::{Image, assert_wipes, found, sentences};
use crate::samples;

/// Pseudo-random bytes (xorshift).
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    seed |= 1;
    let mut word = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| word()).take(length).collect()
}

#[test]
fn empty_and_tiny_devices_hold_nothing() {
    for size in (0..3000).chain([4096, 8192, 65535, 65536, 65537, 131_072, 262_144, 524_288, 1 << 20]) {
        assert_eq!(sentences(&Image::new(size)), [] as [String; 0]);
        assert_eq!(sentences(&Image::new(size).put(0, &vec![0xff; size as usize])), [] as [String; 0]);
    }
}

#[test]
fn a_bad_sector_is_an_error_and_not_nothing() {
    for broken in [1024..1536, (8 << 20) - 512..8 << 20] {
        let mut image = Image::new(8 << 20);
        image.broken = broken;
        let error = probe(&image).unwrap_err();
        assert_eq!(
            (error.operation, &error.kind),
            (Operation::Read, &DeviceErrorKind::Io("bad sector".into()))
        );
    }
    // Where btrfs may have its second superblock, far from both ends.
    let mut image = Image::new(256 << 20);
    image.broken = 64 << 20..65 << 20;
    assert_eq!(probe(&image).unwrap_err().offset, 64 << 20);
    // Where nothing is looked for, nothing is read.
    image.broken = 5 << 20..64 << 20;
    assert!(probe(&image).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn random_bytes_are_nothing(seed in any::<u64>(), size in prop_oneof![0_usize..5000, 0_usize..3 << 20]) {
        let image = Image::new(size as u64).put(0, &noise(seed, size));
        prop_assert_eq!(sentences(&image), [] as [String; 0]);
    }

    /// Any sample with a few bytes changed around its signatures, and perhaps cut off: whatever is still
    /// recognised lies within the device, and zeroing the signatures hides it.
    #[test]
    fn damaged_headers_do_no_harm(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), -64_i64..600, any::<u8>()), 0..12),
        cut in prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
    ) {
        let samples = samples::all();
        let mut image = which.get(&samples).image.clone();
        let places: Vec<u64> = found(&image).iter().flat_map(|f| f.signatures().iter().map(|r| r.start)).collect();
        for (place, distance, byte) in changes {
            let at = place.get(&places).saturating_add_signed(distance);
            image = image.put(at, &[byte]);
        }
        if let Some(cut) = cut {
            let size = cut.index(usize::try_from(image.size).expect("64-bit"));
            image = image.cut(size as u64);
        }
        assert_wipes(&image);
    }

    /// Extreme values in fields that are offsets, sizes and counts, where overflow would happen.
    #[test]
    fn extreme_fields_do_no_harm(
        which in any::<prop::sample::Index>(),
        words in proptest::collection::vec((0_u64..150, any::<bool>(), 0_u8..3), 1..5),
    ) {
        let samples = samples::all();
        let mut image = which.get(&samples).image.clone();
        let start = found(&image)[0].offset;
        for (word, wide, value) in words {
            let byte = [0xff, 0x00, 0x7f][usize::from(value)];
            image = image.put(start + word * 4, &vec![byte; if wide { 8 } else { 4 }]);
        }
        assert_wipes(&image);
    }
}
