//! The filters of `balance start`, spelled as btrfs spells them: `usage=10..50,limit=2,convert=raid1,soft`.

use std::ffi::OsString;
use std::str::FromStr;

use geometry::Profile;
use pool::spec::BalanceFilters;

use crate::sizes;

/// Groups whose layout is no profile.
const GROUP_PROFILES: [&str; 4] = ["mirror", "raidz1", "raidz2", "raidz3"];

/// Reads the filters for one class; none at all is every chunk.
///
/// # Errors
/// A sentence about the filter that is none, or has no such value.
pub(crate) fn parse(text: &str) -> Result<BalanceFilters, String> {
    let mut filters = BalanceFilters::default();
    for filter in text.split(',').filter(|_| !text.is_empty()) {
        let (name, value) =
            filter.split_once('=').map_or((filter, None), |(name, value)| (name, Some(value)));
        let needed =
            || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} needs a value"));
        match name {
            // One percentage means what is below it.
            "usage" => filters.usage = Some(range(needed()?, 0, 100, |most| (0, most), number)?),
            "profiles" => {
                filters.profiles = needed()?.split('|').map(profile_name).collect::<Result<_, _>>()?;
            }
            "devid" => filters.devid = Some(number(needed()?)?),
            "drange" => filters.drange = Some(range(needed()?, 0, u64::MAX, |end| (0, end), size)?),
            "vrange" => filters.vrange = Some(range(needed()?, 0, u64::MAX, |end| (0, end), size)?),
            "stripes" => filters.stripes = Some(range(needed()?, 1, u16::MAX, |one| (one, one), number)?),
            "limit" => filters.limit = Some(range(needed()?, 0, u32::MAX, |most| (0, most), number)?),
            "convert" => {
                let name = needed()?;
                let profile = name.to_lowercase().parse::<Profile>();
                filters.convert = Some(profile.map_err(|error| error.to_string())?);
            }
            "soft" if value.is_none() => filters.soft = true,
            _ => return Err(format!("'{filter}' is no filter")),
        }
    }
    Ok(filters)
}

/// `A..B`, `A..`, `..B`, or one number, which means what `alone` says.
fn range<T: Copy>(
    text: &str,
    least: T,
    most: T,
    alone: impl Fn(T) -> (T, T),
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(T, T), String> {
    let Some((from, to)) = text.split_once("..") else { return parse(text).map(alone) };
    if from.is_empty() && to.is_empty() {
        return Err("a range needs at least one end".to_owned());
    }
    let end = |text: &str, open| if text.is_empty() { Ok(open) } else { parse(text) };
    Ok((end(from, least)?, end(to, most)?))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("'{text}' is no number that fits here"))
}

fn size(text: &str) -> Result<u64, String> {
    sizes::parse(text).map_err(|error| error.to_string())
}

fn profile_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    if GROUP_PROFILES.contains(&name.as_str()) {
        return Ok(name);
    }
    name.parse::<Profile>().map(|profile| profile.name().to_owned()).map_err(|error| error.to_string())
}

/// The words of a command line with filters that hang on their letter (`-dusage=5`) as clap reads them (`--data=usage=5`).
pub(crate) fn spelled_out(words: &[OsString]) -> Vec<OsString> {
    let is = |index: usize, word: &str| words.get(index).is_some_and(|found| found == word);
    let Some(start) = (1..words.len()).find(|&index| is(index, "balance") && is(index + 1, "start")) else {
        return words.to_vec();
    };
    let spell = |(index, word): (usize, &OsString)| {
        let text = word.to_str().filter(|_| index > start + 1).and_then(|text| text.strip_prefix('-'));
        let option = text.and_then(|text| match text.split_at_checked(1)? {
            ("d", filters) => Some(("data", filters)),
            ("m", filters) => Some(("metadata", filters)),
            ("s", filters) => Some(("system", filters)),
            _ => None,
        });
        match option {
            Some((name, "")) => format!("--{name}").into(),
            Some((name, filters)) => {
                format!("--{name}={}", filters.strip_prefix('=').unwrap_or(filters)).into()
            }
            None => word.clone(),
        }
    };
    words.iter().enumerate().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_btrfs_spells_them() {
        assert_eq!(parse(""), Ok(BalanceFilters::default()));
        let all =
            "usage=10..50,profiles=raid1|SINGLE|raidz2,devid=3,drange=1M..2M,vrange=..1G,stripes=2..,limit=4";
        let wanted = BalanceFilters {
            usage: Some((10, 50)),
            profiles: vec!["raid1".to_owned(), "single".to_owned(), "raidz2".to_owned()],
            devid: Some(3),
            drange: Some((1 << 20, 2 << 20)),
            vrange: Some((0, 1 << 30)),
            stripes: Some((2, u16::MAX)),
            limit: Some((0, 4)),
            ..BalanceFilters::default()
        };
        assert_eq!(parse(all), Ok(wanted));
        let convert = parse("convert=raid6,soft").unwrap();
        assert_eq!((convert.convert, convert.soft), (Some(Profile::Raid6), true));
        assert_eq!(parse("usage=5").unwrap().usage, Some((0, 5)));
        assert_eq!(parse("limit=2..3").unwrap().limit, Some((2, 3)));
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for text in [
            "usage",
            "usage=",
            "usage=x",
            "usage=300",
            "usage=..",
            "profiles=raid7",
            "devid=-1",
            "drange=1Q..2",
            "stripes=70000",
            "convert=mirror",
            "soft=1",
            "colour=red",
            ",",
            "limit=1,",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn letters_are_spelled_out_behind_balance_start_alone() {
        let spelled = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let words: Vec<String> =
                spelled_out(&words).into_iter().map(|word| word.into_string().unwrap()).collect();
            words.join(" ")
        };
        assert_eq!(
            spelled("coffer balance start -dusage=5,soft -m -s=limit=1 -f tank"),
            "coffer balance start --data=usage=5,soft --metadata --system=limit=1 -f tank"
        );
        assert_eq!(spelled("coffer balance status -d"), "coffer balance status -d");
        assert_eq!(spelled("coffer scrub -s tank"), "coffer scrub -s tank");
    }
}
