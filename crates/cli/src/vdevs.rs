//! The grammar of vdevs, which is zpool's: words separated by blanks, in which a keyword begins a group
//! that reaches to the next keyword. Devices before the first keyword are plain disks.
//!
//! Pure text: nothing is opened here, and devices are whatever words are no keywords.

use pool::spec::{DraidError, DraidWord, GroupKind, GroupSpec};

/// Why words are no vdevs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VdevError {
    /// There are none.
    #[error("missing vdev specification: name at least one device")]
    Empty,
    /// A keyword without enough devices after it.
    #[error("invalid vdev specification: {keyword} requires at least {needed} devices, and {given} {} given", if *.given == 1 { "is" } else { "are" })]
    TooFew {
        /// The keyword as given.
        keyword: String,
        /// Devices it takes at least.
        needed: usize,
        /// Devices that follow it.
        given: usize,
    },
    /// A keyword right after a keyword.
    #[error(
        "invalid vdev specification: vdevs cannot be nested: '{inner}' stands where a device of '{outer}' is expected"
    )]
    Nested {
        /// The group.
        outer: String,
        /// The keyword that stands in it.
        inner: String,
    },
    /// A kind that zpool knows and this version doesn't make.
    #[error(
        "{keyword} vdevs cannot be made yet: this version makes plain disks, mirror, raidz1 to raidz3, draid1 to draid3 and spare"
    )]
    NotYet {
        /// The keyword as given.
        keyword: String,
    },
    /// Something like a keyword that is none.
    #[error(
        "unknown vdev type '{keyword}': it is one of mirror, raidz, raidz1, raidz2, raidz3, draid, draid1, draid2, draid3 and spare"
    )]
    Unknown {
        /// The word as given.
        keyword: String,
    },
    /// A draid whose numbers are none, or disagree.
    #[error("invalid vdev specification: {0}")]
    Draid(#[from] DraidError),
    /// A draid where a kind is asked for that a vdev can become.
    #[error("a vdev cannot become a {keyword}: add a draid of other devices and remove the vdev")]
    NoConversion {
        /// The keyword as given.
        keyword: String,
    },
    /// `spare` twice.
    #[error("invalid vdev specification: '{keyword}' can be specified only once")]
    Twice {
        /// The keyword.
        keyword: String,
    },
    /// The same word twice.
    #[error("invalid vdev specification: {device} is given twice")]
    SameDevice {
        /// The word.
        device: String,
    },
    /// A pool of spares alone.
    #[error("invalid vdev specification: at least one vdev that holds data is needed beside the spares")]
    OnlySpares,
    /// Groups that survive different losses.
    #[error("mismatched replication level: {first} and {second} vdevs in one pool; use '-f' to override")]
    Mismatched {
        /// The first group.
        first: String,
        /// One that differs.
        second: String,
    },
}

/// The vdevs that some words ask for, plain disks first and in one group.
///
/// # Errors
/// See [`VdevError`].
pub(crate) fn parse(words: &[String]) -> Result<Vec<GroupSpec<String>>, VdevError> {
    let mut groups: Vec<(Keyword, String, GroupSpec<String>)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for word in words {
        if let Some(keyword) = keyword(word)? {
            if let Some((_, outer, group)) = groups.last()
                && group.devices.is_empty()
            {
                return Err(VdevError::Nested { outer: outer.clone(), inner: word.clone() });
            }
            let kind = match keyword {
                Keyword::Kind(kind) => kind,
                // Its kind is known once its devices are counted.
                Keyword::Draid(_) => GroupKind::Plain,
            };
            if kind == GroupKind::Spare && groups.iter().any(|(.., group)| group.kind == kind) {
                return Err(VdevError::Twice { keyword: word.clone() });
            }
            groups.push((keyword, word.clone(), GroupSpec { kind, devices: Vec::new() }));
            continue;
        }
        if !seen.insert(word) {
            return Err(VdevError::SameDevice { device: word.clone() });
        }
        if groups.is_empty() {
            let kind = GroupKind::Plain;
            groups.push((Keyword::Kind(kind), "plain".to_owned(), GroupSpec { kind, devices: Vec::new() }));
        }
        if let Some((.., group)) = groups.last_mut() {
            group.devices.push(word.clone());
        }
    }
    if groups.is_empty() {
        return Err(VdevError::Empty);
    }
    for (keyword, word, group) in &mut groups {
        if let Keyword::Draid(draid) = keyword {
            group.kind = GroupKind::Draid(draid.of(group.devices.len())?);
        }
        let needed = group.kind.min_devices();
        if group.devices.len() < needed {
            return Err(VdevError::TooFew { keyword: word.clone(), needed, given: group.devices.len() });
        }
    }
    Ok(groups.into_iter().map(|(.., group)| group).collect())
}

/// That there is something to hold data beside the spares, and, unless `force`, that all groups survive the
/// same losses with the same number of devices, as zpool wants it.
///
/// # Errors
/// [`VdevError::OnlySpares`], [`VdevError::Mismatched`].
pub(crate) fn check_pool<D>(groups: &[GroupSpec<D>], force: bool) -> Result<(), VdevError> {
    let mut data = groups.iter().filter(|group| group.kind != GroupKind::Spare);
    let Some(first) = data.next() else { return Err(VdevError::OnlySpares) };
    match data.find(|other| describe(first) != describe(other)) {
        Some(second) if !force => {
            Err(VdevError::Mismatched { first: describe(first), second: describe(second) })
        }
        _ => Ok(()),
    }
}

/// A group's redundancy in words.
fn describe<D>(group: &GroupSpec<D>) -> String {
    group.kind.describe(group.devices.len())
}

/// The kind that a word names.
///
/// # Errors
/// It names none, or one that is not there yet.
pub(crate) fn kind(word: &str) -> Result<GroupKind, VdevError> {
    match keyword(word)? {
        Some(Keyword::Kind(kind)) => Ok(kind),
        Some(Keyword::Draid(_)) => Err(VdevError::NoConversion { keyword: word.to_owned() }),
        None => Err(VdevError::Unknown { keyword: word.to_owned() }),
    }
}

/// What a word begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyword {
    /// A group of this kind.
    Kind(GroupKind),
    /// A draid, which depends on the number of its devices.
    Draid(DraidWord),
}

/// The kind that a word begins; `None` if it is a device.
fn keyword(word: &str) -> Result<Option<Keyword>, VdevError> {
    Ok(Some(Keyword::Kind(match word {
        "mirror" => GroupKind::Mirror,
        "raidz" | "raidz1" => GroupKind::Raidz(1),
        "raidz2" => GroupKind::Raidz(2),
        "raidz3" => GroupKind::Raidz(3),
        "spare" => GroupKind::Spare,
        "log" | "cache" | "special" | "dedup" => return Err(VdevError::NotYet { keyword: word.to_owned() }),
        "disk" | "file" | "replacing" => return Err(VdevError::Unknown { keyword: word.to_owned() }),
        "draid" => return Ok(Some(Keyword::Draid(word.parse()?))),
        _ => {
            // What follows such a stem (`draid2:4d:1s`, `raidz4`, `mirrors`) is meant as a keyword: no device is called so.
            let rest = |stem| word.strip_prefix(stem).and_then(|rest: &str| rest.chars().next());
            if rest("draid").is_some_and(|next| next.is_ascii_digit() || next == ':') {
                return Ok(Some(Keyword::Draid(word.parse()?)));
            }
            if rest("raidz").is_some()
                || rest("raid").is_some_and(|next| next.is_ascii_digit())
                || word == "mirrors"
                || word == "spares"
            {
                return Err(VdevError::Unknown { keyword: word.to_owned() });
            }
            return Ok(None);
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// A pool's vdevs as text: `raidz1(a b c) spare(d)`.
    fn shown(text: &str) -> Result<String, VdevError> {
        let groups = parse(&words(text))?;
        let one = |group: &GroupSpec<String>| {
            let kind = match group.kind {
                GroupKind::Plain => "plain".to_owned(),
                GroupKind::Mirror => "mirror".to_owned(),
                GroupKind::Spare => "spare".to_owned(),
                GroupKind::Raidz(parity) => format!("raidz{parity}"),
                GroupKind::Draid(draid) => draid.name(group.devices.len()),
            };
            format!("{kind}({})", group.devices.join(" "))
        };
        Ok(groups.iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn grammar() {
        for (text, wanted) in [
            ("sda", "plain(sda)"),
            ("sda sdb /tmp/x", "plain(sda sdb /tmp/x)"),
            ("mirror sda sdb mirror sdc sdd", "mirror(sda sdb) mirror(sdc sdd)"),
            ("mirror sda sdb spare sdc sdd", "mirror(sda sdb) spare(sdc sdd)"),
            ("raidz a b", "raidz1(a b)"),
            ("raidz1 a b c", "raidz1(a b c)"),
            ("raidz2 a b c raidz2 d e f spare g", "raidz2(a b c) raidz2(d e f) spare(g)"),
            ("raidz3 a b c d", "raidz3(a b c d)"),
            ("a b spare c", "plain(a b) spare(c)"),
            ("spare a", "spare(a)"),
            ("spare a mirror b c", "spare(a) mirror(b c)"),
            ("a mirror b c", "plain(a) mirror(b c)"),
            ("draid a b c d", "draid1:3d:4c:0s(a b c d)"),
            ("draid2:2d:5c:1s a b c d e spare f", "draid2:2d:5c:1s(a b c d e) spare(f)"),
            ("draid3:1s a b c d e f draid:1d g h", "draid3:2d:6c:1s(a b c d e f) draid1:1d:2c:0s(g h)"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn mistakes() {
        let few = |keyword: &str, needed, given| VdevError::TooFew { keyword: keyword.into(), needed, given };
        let nested =
            |outer: &str, inner: &str| VdevError::Nested { outer: outer.into(), inner: inner.into() };
        let not_yet = |keyword: &str| VdevError::NotYet { keyword: keyword.into() };
        let unknown = |keyword: &str| VdevError::Unknown { keyword: keyword.into() };
        for (text, wanted) in [
            ("", VdevError::Empty),
            ("mirror", few("mirror", 2, 0)),
            ("mirror a", few("mirror", 2, 1)),
            ("raidz a", few("raidz", 2, 1)),
            ("raidz1 a", few("raidz1", 2, 1)),
            ("raidz2 a b", few("raidz2", 3, 2)),
            ("raidz3 a b c", few("raidz3", 4, 3)),
            ("mirror a b spare", few("spare", 1, 0)),
            ("mirror raidz a b", nested("mirror", "raidz")),
            ("raidz2 mirror a b", nested("raidz2", "mirror")),
            ("spare mirror a b", nested("spare", "mirror")),
            ("mirror a b log c", not_yet("log")),
            ("a cache b", not_yet("cache")),
            ("special a", not_yet("special")),
            ("dedup a", not_yet("dedup")),
            ("raidz4 a b c", unknown("raidz4")),
            ("raidz0 a b c", unknown("raidz0")),
            ("raid5 a b c", unknown("raid5")),
            ("mirror a b spare c spare d", VdevError::Twice { keyword: "spare".into() }),
            ("mirror a a", VdevError::SameDevice { device: "a".into() }),
            ("mirror a b spare a", VdevError::SameDevice { device: "a".into() }),
        ] {
            assert_eq!(parse(&words(text)).err(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn draids_whose_numbers_disagree() {
        for (text, wanted) in [
            ("draid", "at least 2 devices, 0 given"),
            ("draid2:4d:1s a b c", "at least 7 devices, 3 given"),
            ("draid2:1d:4c a b c", "is to have 4 children (:4c), and 3 are given"),
            ("draid4 a b c d e f", "its parity is 1, 2 or 3"),
            ("draid1:2x a b c", "it is written draid"),
            ("draid1:0d a b c", "one data column at least"),
        ] {
            let told = parse(&words(text)).expect_err(text).to_string();
            assert!(
                told.starts_with("invalid vdev specification: ") && told.contains(wanted),
                "{text}: {told}"
            );
        }
        assert_eq!(
            parse(&words("draid mirror a b")).err(),
            Some(VdevError::Nested { outer: "draid".into(), inner: "mirror".into() })
        );
        assert_eq!(kind("draid2:4d").err(), Some(VdevError::NoConversion { keyword: "draid2:4d".into() }));
    }

    #[test]
    fn replication_must_match() {
        let check = |text: &str, force| parse(&words(text)).and_then(|groups| check_pool(&groups, force));
        assert_eq!(check("mirror a b mirror c d spare e", false), Ok(()));
        assert_eq!(check("a b spare c", false), Ok(()));
        assert_eq!(check("spare c", true), Err(VdevError::OnlySpares));
        for text in
            ["a mirror b c", "mirror a b mirror c d e", "mirror a b raidz c d", "raidz a b c raidz2 d e f"]
        {
            assert!(matches!(check(text, false), Err(VdevError::Mismatched { .. })), "{text}");
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
    }
}
