//! Sizes as people write and read them: zpool's way (`1.50T`) and btrfs's way (`229.47GiB`).

/// Letters of the powers of 1024, from the zeroth on.
const LETTERS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size: write a number with an optional unit, such as 4096, 64K, 1.5G or 10T")]
pub(crate) struct BadSize {
    /// What was written.
    text: String,
}

/// Reads a size in bytes: `4096`, `16k`, `1.5G`, `64MiB`, `10TB`. Units are powers of 1024; a fraction is cut to whole bytes.
///
/// # Errors
/// It is no number, the unit is unknown, or it does not fit into 64 bits.
pub(crate) fn parse(text: &str) -> Result<u64, BadSize> {
    parse_exact(text.trim()).ok_or_else(|| BadSize { text: text.to_owned() })
}

/// As [`parse`], without the words.
fn parse_exact(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = power_of(unit)?;
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) => (whole, fraction),
    };
    if whole.is_empty() || fraction.len() > 15 || (power == 0 && number.contains('.')) {
        return None;
    }
    let scale = 1_u128 << (10 * power);
    let whole: u64 = whole.parse().ok()?;
    let part = match fraction {
        "" => 0,
        digits => u128::from(digits.parse::<u64>().ok()?) * scale / 10_u128.pow(digits.len() as u32),
    };
    u64::try_from(u128::from(whole) * scale + part).ok()
}

/// The power of 1024 that a unit stands for.
fn power_of(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_uppercase();
    let letter = match unit.as_str() {
        "B" => "",
        "IB" => return None,
        other => other.strip_suffix("IB").or_else(|| other.strip_suffix('B')).unwrap_or(other),
    };
    LETTERS.iter().position(|known| *known == letter).map(|power| power as u32)
}

/// At most five characters, as `zpool list` prints sizes: `512`, `1K`, `1.50T`, `96.5G`. `zero` is what no bytes print as.
fn five(number: u64, zero: &str, bytes: &str) -> String {
    if number == 0 {
        return zero.to_owned();
    }
    let power = (number.ilog2() / 10) as usize;
    let letter = LETTERS[power];
    let unit = 1_u64 << (10 * power);
    if power == 0 {
        return format!("{number}{bytes}");
    }
    if number.is_multiple_of(unit) {
        return format!("{}{letter}", number / unit);
    }
    let value = number as f64 / unit as f64;
    for digits in [2, 1] {
        let text = format!("{value:.digits$}{letter}");
        if text.len() <= 5 {
            return text;
        }
    }
    format!("{value:.0}{letter}")
}

/// A size, as `zpool list` prints it.
pub(crate) fn short(bytes: u64) -> String {
    five(bytes, "0", "")
}

/// A size inside a sentence, as `zpool status` prints it: zero is `0B`.
pub(crate) fn short_bytes(bytes: u64) -> String {
    five(bytes, "0B", "B")
}

/// A count, as `zpool status` prints error counters.
pub(crate) fn count(number: u64) -> String {
    five(number, "0", "")
}

/// A size with two decimals, as btrfs prints it: `229.47GiB`, `0.00B`.
pub(crate) fn decimals(bytes: u64) -> String {
    let power = if bytes == 0 { 0 } else { (bytes.ilog2() / 10) as usize };
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    let unit = if power == 0 { "B".to_owned() } else { format!("{}iB", LETTERS[power]) };
    format!("{value:.2}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_zpool_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("16k", 16 << 10),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5G", 3 << 29),
            ("10T", 10 << 40),
            ("0.5k", 512),
            ("15E", 15 << 60),
            ("100B", 100),
            ("1.G", 1 << 30),
        ] {
            assert_eq!(parse(text).ok(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "G", ".5G", "1.5", "-1", "1x", "16E", "99999999999999999999", "1.2.3G", "1 G", "1iB", "0x10"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_five_characters() {
        for (bytes, text) in [
            (0, "0"),
            (512, "512"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.50K"),
            (10 << 30, "10G"),
            ((9 << 30) + (1 << 29), "9.50G"),
            ((96 << 30) + (1 << 29), "96.5G"),
            ((965 << 30) + (1 << 29), "966G"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(short(bytes), text);
        }
        assert_eq!(short_bytes(0), "0B");
        assert_eq!(short_bytes(100), "100B");
    }

    #[test]
    fn sizes_print_with_two_decimals() {
        assert_eq!(decimals(0), "0.00B");
        assert_eq!(decimals(16 << 10), "16.00KiB");
        assert_eq!(decimals(246_391_554_048), "229.47GiB");
        assert_eq!(decimals(u64::MAX), "16.00EiB");
    }
}
