//! Profiles and the ideal use of devices, against tables and an exhaustive search.
#![allow(clippy::unwrap_used, dead_code)]

use geometry::ideal::{Ideal, usable};
use geometry::{Kind, Profile, ProfileError};
use proptest::prelude::*;

#[test]
fn names_go_both_ways() {
    for profile in Profile::ALL {
        assert_eq!(profile.to_string().parse(), Ok(profile));
    }
    let error = "RAID1".parse::<Profile>().unwrap_err();
    let known = "single, dup, raid0, raid1, raid1c3, raid1c4, raid10, raid5, raid6";
    assert_eq!(error.to_string(), format!("there is no profile \"RAID1\": choose one of {known}"));
}

#[test]
fn profiles_take_what_devices_there_are() {
    let shape = |profile: Profile, devices| {
        profile.layout(devices, 65536).map(|layout| (layout.kind(), layout.columns(), layout.tolerance()))
    };
    assert_eq!(shape(Profile::Single, 9), Ok((Kind::Copies, 1, 0)));
    assert_eq!(shape(Profile::Dup, 1), Ok((Kind::Copies, 2, 1)));
    assert_eq!(shape(Profile::Raid0, 5), Ok((Kind::Stripe, 5, 0)));
    assert_eq!(shape(Profile::Raid1c3, 7), Ok((Kind::Copies, 3, 2)));
    assert_eq!(shape(Profile::Raid10, 7), Ok((Kind::StripedCopies { copies: 2 }, 6, 1)));
    assert_eq!(shape(Profile::Raid5, 4), Ok((Kind::Parity { parity: 1 }, 4, 1)));
    assert_eq!(shape(Profile::Raid6, 1000), Ok((Kind::Parity { parity: 2 }, 257, 2)));
    for profile in Profile::ALL {
        let min = profile.min_devices();
        assert!(shape(profile, min).is_ok());
        assert!(shape(profile, u16::MAX).is_ok());
        let few = ProfileError::Devices { profile, available: min - 1 };
        assert_eq!(shape(profile, min - 1), Err(few));
    }
    let text = shape(Profile::Raid6, 2).unwrap_err().to_string();
    assert_eq!(text, "raid6 takes at least 3 devices, and there are 2");
}

#[test]
fn usable_of_known_heaps() {
    let of = |profile: Profile, sizes: &[u64]| usable(profile.into(), sizes);
    // 1 + 2 + 3: a mirror of half; 1 + 1 + 4: the large one is limited by the others.
    assert_eq!(of(Profile::Raid1, &[1, 2, 3]), 3);
    assert_eq!(of(Profile::Raid1, &[1, 1, 4]), 2);
    assert_eq!(of(Profile::Raid1, &[8]), 0);
    assert_eq!(of(Profile::Raid1c3, &[5, 5, 5, 5]), 6);
    assert_eq!(of(Profile::Raid1c3, &[1, 9, 9, 9]), 9);
    assert_eq!(of(Profile::Raid1c3, &[2, 3, 100, 100]), 5);
    assert_eq!(of(Profile::Raid1c4, &[2, 3, 100]), 0);
    assert_eq!(of(Profile::Raid10, &[4, 4, 4]), 6);
    assert_eq!(of(Profile::Single, &[4, 5]), 9);
    assert_eq!(of(Profile::Dup, &[4, 5]), 4);
    assert_eq!(of(Profile::Raid0, &[4, 5]), 9);
    // Level by level: 4 columns of 1, 3 columns of 1, 2 columns of 1; the rest of the largest is unused.
    assert_eq!(of(Profile::Raid5, &[1, 2, 3, 9]), 3 + 2 + 1);
    assert_eq!(of(Profile::Raid6, &[1, 2, 3, 9]), 2 + 1);
    assert_eq!(of(Profile::Raid6, &[7, 7]), 0);
    assert_eq!(usable(Ideal::Parity { parity: 3 }, &[10; 8]), 50);
    for profile in Profile::ALL {
        assert_eq!(of(profile, &[]), 0);
        assert_eq!(of(profile, &[0, 0, 0, 0]), 0);
    }
    assert_eq!(of(Profile::Raid0, &[u64::MAX, u64::MAX]), u64::MAX, "saturates");
    assert_eq!(of(Profile::Raid1, &[u64::MAX, u64::MAX]), u64::MAX);
}

/// Most bytes by trying every sequence of chunks of height 1. `widths` says which widths a chunk may have
/// and how many bytes one of that width holds.
fn search(sizes: &mut Vec<u64>, gain: &dyn Fn(usize) -> Option<u64>) -> u64 {
    let mut best = 0;
    for subset in 1_u32..1 << sizes.len() {
        let members: Vec<usize> = (0..sizes.len()).filter(|i| subset >> i & 1 == 1).collect();
        let Some(bytes) = gain(members.len()) else { continue };
        if members.iter().any(|i| sizes[*i] == 0) {
            continue;
        }
        for i in &members {
            sizes[*i] -= 1;
        }
        best = best.max(bytes + search(sizes, gain));
        for i in &members {
            sizes[*i] += 1;
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn usable_is_the_optimum(mut sizes in proptest::collection::vec(0_u64..4, 0..5)) {
        prop_assume!(sizes.iter().sum::<u64>() <= 9);
        for copies in 1..=4_u8 {
            let mirror = |width| (width == usize::from(copies)).then_some(1);
            let want = search(&mut sizes, &mirror);
            prop_assert_eq!(usable(Ideal::Copies { copies }, &sizes), want);
            let mirrors = |width: usize| {
                width.is_multiple_of(copies.into()).then_some((width / usize::from(copies)) as u64)
            };
            let want = search(&mut sizes, &mirrors);
            prop_assert_eq!(usable(Ideal::StripedCopies { copies }, &sizes), want);
        }
        for parity in 1..=3_u8 {
            let row = |width: usize| width.checked_sub(usize::from(parity)).filter(|d| *d > 0).map(|d| d as u64);
            let want = search(&mut sizes, &row);
            prop_assert_eq!(usable(Ideal::Parity { parity }, &sizes), want);
        }
        prop_assert_eq!(usable(Ideal::Stripe, &sizes), sizes.iter().sum::<u64>());
    }
}
