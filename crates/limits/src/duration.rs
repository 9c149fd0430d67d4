//! Durations in flags and YAML.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration that is written as in flags and YAML: `500ms`, `1h30m`, `1.5h`, `7d`, `31d`, `0`.
///
/// The units are those of Go and Prometheus: `ns us µs ms s m h d w y`; a day has 24 h, and a year 365
/// days. Maximum: about 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(std::time::Duration);

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("duration {text:?} {problem}, write for example \"500ms\", \"1h30m\" or \"7d\"")]
pub struct DurationError {
    text: String,
    problem: &'static str,
}

/// Unit names and their nanoseconds.
const UNITS: [(&str, u64); 11] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
    ("y", 31_536_000_000_000_000),
];

impl Duration {
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    pub const fn from_hours(hours: u64) -> Self {
        Self::from_secs(hours * 3600)
    }

    pub const fn from_days(days: u64) -> Self {
        Self::from_hours(days * 24)
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Nanoseconds, at most `i64::MAX`.
    pub fn nanos(&self) -> i64 {
        i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl schemars::JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let wrong = |problem| DurationError { text: text.to_owned(), problem };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(wrong("is empty"));
        }
        let mut nanos: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let (number, after) = rest.split_at(digits);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if whole.is_empty() || fraction.len() > 9 || fraction.contains('.') {
                return Err(wrong("has no plain number where one is expected"));
            }
            let length = after.bytes().take_while(|b| !b.is_ascii_digit()).count();
            let (name, next) = after.split_at(length);
            let Some((_, unit)) = UNITS.iter().find(|(unit, _)| *unit == name) else {
                return Err(wrong(if name.is_empty() {
                    "has a number without unit"
                } else {
                    "has an unknown unit"
                }));
            };
            let part = whole
                .parse::<u64>()
                .ok()
                .and_then(|whole| whole.checked_mul(*unit))
                .and_then(|part| part.checked_add(fraction_of(fraction, *unit)));
            nanos = part
                .and_then(|part| nanos.checked_add(part))
                .ok_or_else(|| wrong("is longer than 584 years"))?;
            rest = next;
        }
        Ok(Self(std::time::Duration::from_nanos(nanos)))
    }
}

/// `0.<digits>` of `unit`, rounded down; at most nine digits.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut numerator, mut denominator) = (0u128, 1u128);
    for digit in digits.bytes() {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    (numerator * u128::from(unit) / denominator) as u64
}

impl fmt::Display for Duration {
    /// The shortest exact form in units up to days: `31d`, `1h30m`, `1s500ms`, `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0");
        }
        for name in ["d", "h", "m", "s", "ms", "us", "ns"] {
            let unit = UNITS.iter().find(|(unit, _)| *unit == name).map_or(1, |(_, nanos)| *nanos);
            let count = rest / u128::from(unit);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
            rest %= u128::from(unit);
        }
        Ok(())
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"500ms\", \"1h30m\" or \"7d\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Duration, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Duration, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_all_units() {
        let check = |text: &str, millis: u64, shown: &str| {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(duration), "{text}");
        };
        check("0", 0, "0");
        check("0s", 0, "0");
        check("500ms", 500, "500ms");
        check("1h30m", 5_400_000, "1h30m");
        check("1.5h", 5_400_000, "1h30m");
        check("1h0m0s", 3_600_000, "1h");
        check("90s", 90_000, "1m30s");
        check("7d", 604_800_000, "7d");
        check("1w", 604_800_000, "7d");
        check("31d", 2_678_400_000, "31d");
        check("1y", 31_536_000_000, "365d");
        check(" 15s ", 15_000, "15s");
    }

    #[test]
    fn an_invalid_duration_is_refused_with_its_text() {
        for text in ["", "5", "h", "5 h", "-5m", "5x", "1.2.3s", ".5s", "1e3s", "600y"] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
