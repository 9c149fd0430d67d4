//! The deadline that a client sets.

use std::time::Duration;

use http::HeaderMap;

/// The time at which the client stops waiting, on the scale of `Clock::monotonic`; a request extension. The edge then
/// answers `deadline_exceeded` and drops the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Duration);

/// Reads `Connect-Timeout-Ms`: at most ten digits.
pub(crate) fn connect_timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    if text.len() > 10 {
        return Err(format!("parse timeout: {text:?} has more than 10 digits"));
    }
    match digits(text) {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(format!("parse timeout: {text:?} is no number of milliseconds")),
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let parsed = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let number = digits(number).filter(|_| number.len() <= 8)?;
        match unit {
            "H" => Some(Duration::from_secs(number * 3600)),
            "M" => Some(Duration::from_secs(number * 60)),
            "S" => Some(Duration::from_secs(number)),
            "m" => Some(Duration::from_millis(number)),
            "u" => Some(Duration::from_micros(number)),
            "n" => Some(Duration::from_nanos(number)),
            _ => None,
        }
    });
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(format!("parse timeout: {text:?} is not up to 8 digits and a unit")),
    }
}

fn digits(text: &str) -> Option<u64> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_both_dialects() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let connect = |value| connect_timeout(&with("connect-timeout-ms", value));
        assert_eq!(connect("5000"), Ok(Some(Duration::from_secs(5))));
        assert!(connect("abc").is_err());
        assert!(connect("-1").is_err());
        assert!(connect("12345678901").is_err());
        let grpc = |value| grpc_timeout(&with("grpc-timeout", value));
        assert_eq!(grpc("2M"), Ok(Some(Duration::from_secs(120))));
        assert_eq!(grpc("99999999n"), Ok(Some(Duration::from_nanos(99_999_999))));
        for bad in ["", "5", "S", "123456789S", "5x", "+5S"] {
            assert!(grpc(bad).is_err(), "{bad}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), Ok(None));
    }
}
