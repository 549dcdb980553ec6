//! Programs as text: a line for the seed, each group, each profile and each step, so that a program that found a
//! defect can be kept, whatever becomes of the weights by which programs are chosen.

use std::fmt;
use std::str::FromStr;

use pool::spec::{Draid, DraidWord, GroupKind};

use crate::program::{Program, Setup, Step, WEIGHTS};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (kind, sizes) in &self.setup.groups {
            write!(f, "group {}", group_name(*kind))?;
            sizes.iter().try_for_each(|size| write!(f, " {size}"))?;
            writeln!(f)?;
        }
        for (class, profile) in [("data", self.setup.data), ("metadata", self.setup.metadata)] {
            if let Some(profile) = profile {
                writeln!(f, "{class} {profile}")?;
            }
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "step {step}"))
    }
}

impl FromStr for Program {
    type Err = String;

    /// Empty lines and those that begin with `#` are passed over.
    fn from_str(text: &str) -> Result<Self, String> {
        let setup = Setup { groups: Vec::new(), data: None, metadata: None };
        let mut program = Self { seed: 0, setup, steps: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let unknown = || format!("'{line}' is no line of a program");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["seed", seed] => program.seed = seed.parse().map_err(|_| unknown())?,
                ["group", kind, ref sizes @ ..] => {
                    let kind = group_kind(kind, sizes.len()).ok_or_else(unknown)?;
                    let sizes = sizes.iter().map(|size| size.parse().map_err(|_| unknown()));
                    program.setup.groups.push((kind, sizes.collect::<Result<_, _>>()?));
                }
                ["data", profile] => program.setup.data = Some(profile.parse().map_err(|_| unknown())?),
                ["metadata", profile] => {
                    program.setup.metadata = Some(profile.parse().map_err(|_| unknown())?);
                }
                ["step", kind, seed] => {
                    let kinds = WEIGHTS.iter().map(|(kind, _)| *kind);
                    let kind =
                        kinds.into_iter().find(|known| format!("{known:?}") == kind).ok_or_else(unknown)?;
                    let seed = seed.strip_prefix("0x").ok_or_else(unknown)?;
                    let seed = u64::from_str_radix(seed, 16).map_err(|_| unknown())?;
                    program.steps.push(Step { kind, seed });
                }
                _ => return Err(unknown()),
            }
        }
        Ok(program)
    }
}

fn group_name(kind: GroupKind) -> String {
    match kind {
        GroupKind::Plain => "plain".into(),
        GroupKind::Mirror => "mirror".into(),
        GroupKind::Raidz(parity) => format!("raidz{parity}"),
        GroupKind::Spare => "spare".into(),
        GroupKind::Draid(Draid { parity, data, spares }) => format!("draid{parity}:{data}d:{spares}s"),
    }
}

fn group_kind(name: &str, devices: usize) -> Option<GroupKind> {
    if let Ok(word) = name.parse::<DraidWord>() {
        return word.of(devices).ok().map(GroupKind::Draid);
    }
    let kinds = [GroupKind::Plain, GroupKind::Mirror, GroupKind::Spare];
    let all = kinds.into_iter().chain((1..=3).map(GroupKind::Raidz));
    all.into_iter().find(|kind| group_name(*kind) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_come_back_from_their_text() {
        for seed in 0..50 {
            let program = Program::new(seed, 40);
            assert_eq!(program.to_string().parse(), Ok(program));
        }
        for wrong in [
            "group raidz4 64",
            "group draid1:2d:2s 64 64 64 64",
            "step Nothing 0x1",
            "step Write 1",
            "data raid7",
            "seed",
            "word",
        ] {
            assert!(wrong.parse::<Program>().is_err(), "{wrong}");
        }
    }
}
