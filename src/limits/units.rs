//! Sizes and durations as people write them: `64MiB`, `1GB`, `10s`, `1h30m`.
//!
//! A plain number is in bytes for a size, and in the flag's own unit for a duration.

const SIZE_UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const MICROSECOND: u64 = 1;
const MILLISECOND: u64 = 1_000;
const TIME_UNITS: [(&str, u64); 6] = [
    ("us", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// Reads a size in bytes. Upper and lower case are the same.
pub fn bytes<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    const HOW: &str = "write bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB";
    let (number, unit) = split(text.trim()).ok_or(HOW)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(HOW)?;
    let bytes = number.times(*scale)?.ok_or("it is not a whole number of bytes")?;
    T::try_from(bytes).map_err(|_| "it is too large".to_owned())
}

/// Reads a duration in milliseconds; a plain number is milliseconds.
pub fn milliseconds(text: &str) -> Result<u64, String> {
    duration(text, Some(MILLISECOND), MILLISECOND)
}

/// Reads a duration in microseconds; a plain number is microseconds.
pub fn microseconds(text: &str) -> Result<u64, String> {
    duration(text, Some(MICROSECOND), MICROSECOND)
}

/// Reads a duration in milliseconds that must have a unit.
pub fn milliseconds_with_unit(text: &str) -> Result<u64, String> {
    duration(text, None, MILLISECOND)
}

/// Reads one or several numbers with units, `1h30m`; `plain` is the unit of a number alone.
fn duration(text: &str, plain: Option<u64>, result: u64) -> Result<u64, String> {
    const HOW: &str = "write a number with ms, s, m, h or d, as in 500ms, 10s or 1h30m";
    let (mut rest, mut micros) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return Err(HOW.to_owned());
    }
    while !rest.is_empty() {
        let (number, tail) = split(rest).ok_or(HOW)?;
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let is_alone = rest.len() == text.trim().len() && next.is_empty();
        let scale = match TIME_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, scale)) => *scale,
            None if unit.is_empty() && is_alone => plain.ok_or_else(|| {
                format!("{text} has no unit: write {text}s for seconds, {text}ms for milliseconds")
            })?,
            None => return Err(HOW.to_owned()),
        };
        let part = number.times(scale)?.ok_or("it is finer than a microsecond")?;
        micros = micros.checked_add(part).ok_or("it is too long")?;
        rest = next.trim_start();
    }
    match micros % result {
        0 => Ok(micros / result),
        _ => Err("it is finer than a millisecond".to_owned()),
    }
}

/// A decimal number, exact: `1.5` is 15 tenths.
struct Decimal {
    digits: u128,
    scale: u128,
}

impl Decimal {
    /// The product, where it is an integer.
    fn times(&self, unit: u64) -> Result<Option<u64>, String> {
        let product = self.digits.checked_mul(u128::from(unit)).ok_or("it is too large")?;
        if !product.is_multiple_of(self.scale) {
            return Ok(None);
        }
        let whole = u64::try_from(product / self.scale).map_err(|_| "it is too large")?;
        Ok(Some(whole))
    }
}

/// Splits a number off the front.
fn split(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // A number with more digits is too large, or too precise, for any use here.
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    Some((Decimal { digits, scale }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1000_and_of_1024() {
        for (text, expected) in [
            ("0", 0),
            ("67108864", 64 << 20),
            ("1GB", 1_000_000_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("0.5kB", 500),
            ("4k", 4096),
            ("2T", 2 << 40),
            ("7B", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes::<u64>(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_may_be_combined() {
        for (text, expected) in [
            ("250", 250),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("3H", 10_800_000),
            ("0", 0),
        ] {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
        assert_eq!(microseconds("50"), Ok(50));
        assert_eq!(microseconds("2ms"), Ok(2000));
        assert_eq!(milliseconds_with_unit("10s"), Ok(10_000));
    }

    #[test]
    fn text_that_is_no_size_or_duration_is_refused_with_an_example() {
        for text in ["", " ", "GB", "-1", "1XB", "1..5", ".", "1.", ".5", "0.5", "1e3", "0x10"] {
            assert!(bytes::<u64>(text).is_err(), "{text}");
        }
        for text in ["", "s", "-1s", "1w", "10s5", "1.0001ms", "1h30", "5 5", "ms5"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        let huge = "9".repeat(40);
        for text in ["18446744073709551616", "99999999TB", huge.as_str()] {
            assert!(bytes::<u64>(text).is_err(), "{text}");
            assert!(milliseconds(&format!("{text}d")).is_err(), "{text}");
        }
        assert!(bytes::<u8>("256").is_err());
        assert!(milliseconds_with_unit("10").unwrap_err().contains("write 10s"));
    }
}
