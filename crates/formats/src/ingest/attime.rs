//! The time parameters of `/ingest`.

use model::DAY;

const SECOND: i64 = 1_000_000_000;

/// Parses the time of parameters such as `from`; returns Unix nanoseconds.
///
/// Digits alone are a day (`20251231`, UTC), or Unix time in milli-, micro- or nanoseconds if there are 13, 16
/// or 19 of them, else seconds. Anything else is `now` plus or minus the offset after the first `+` or `-`, for
/// example `now-1h30m`. There are no errors: unknown text means now.
pub fn attime(text: &str, now_nanos: i64) -> i64 {
    let text: String = text.chars().filter(|c| !matches!(c, '_' | ',') && !c.is_whitespace()).collect();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return absolute(&text).unwrap_or(now_nanos);
    }
    let offset = match (text.split_once('+'), text.split_once('-')) {
        (Some((_, offset)), _) => seconds(offset),
        (None, Some((_, offset))) => seconds(offset).saturating_neg(),
        (None, None) => 0,
    };
    now_nanos.saturating_add(offset.saturating_mul(SECOND))
}

fn absolute(digits: &str) -> Option<i64> {
    let number: i64 = digits.parse().ok()?;
    match digits.len() {
        8 => day(number).or(Some(number)).map(|seconds| seconds * SECOND),
        13 => number.checked_mul(1_000_000),
        16 => number.checked_mul(1000),
        19 => Some(number),
        _ => Some(number.saturating_mul(SECOND)),
    }
}

/// Unix seconds of the start of a day written as yyyymmdd, if there is such a day after 1900.
fn day(number: i64) -> Option<i64> {
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if year <= 1900 || !(1..=days).contains(&day) {
        return None;
    }
    // Years are counted from March, so that a leap day is the last day of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year;
    Some((days - 719_468) * DAY)
}

/// The sum of `<number><unit>` parts, in seconds.
fn seconds(mut text: &str) -> i64 {
    let mut sum = 0_i64;
    loop {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let Ok(number) = text[..digits].parse::<i64>() else {
            return sum;
        };
        text = &text[digits..];
        let letters = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
        sum = sum.saturating_add(number.saturating_mul(unit(&text[..letters])));
        text = &text[letters..];
    }
}

fn unit(name: &str) -> i64 {
    let units = [
        ("s", 1),
        ("mon", 30 * DAY),
        ("M", 30 * DAY),
        ("m", 60),
        ("h", 3600),
        ("d", DAY),
        ("w", 7 * DAY),
        ("y", 365 * DAY),
    ];
    let found = units.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map_or(0, |(_, seconds)| *seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_digits_or_offsets_from_now() {
        let now = 1_750_000_000;
        let cases = [
            ("1600000000", 1_600_000_000),
            ("1600000000000", 1_600_000_000),
            ("1600000000000000", 1_600_000_000),
            ("1600000000000000000", 1_600_000_000),
            ("1_600_000_000", 1_600_000_000),
            ("12345", 12_345),
            ("19700102", DAY),
            ("20240229", 1_709_164_800),
            ("20230229", 20_230_229),
            ("99999999", 99_999_999),
            ("now", now),
            ("", now),
            ("garbage", now),
            ("now-10s", now - 10),
            ("now - 1h", now - 3600),
            ("-2d", now - 2 * DAY),
            ("+5m", now + 300),
            ("now-5min", now - 300),
            ("now-1mon", now - 30 * DAY),
            ("now-1M", now - 30 * DAY),
            ("now-1w", now - 7 * DAY),
            ("now-1y", now - 365 * DAY),
            ("now-1h30m", now - 5400),
            ("now-7x", now),
            ("now-", now),
            ("2024-01-01T00:00:00Z", now),
        ];
        for (text, expected) in cases {
            assert_eq!(attime(text, now * SECOND), expected * SECOND, "{text:?}");
        }
    }

    #[test]
    fn times_out_of_range_do_not_overflow() {
        for text in ["9".repeat(18), "9".repeat(19), "9".repeat(100), format!("now-{}y", i64::MAX)] {
            attime(&text, i64::MAX);
            attime(&text, i64::MIN);
        }
    }
}
