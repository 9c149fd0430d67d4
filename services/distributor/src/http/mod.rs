//! The HTTP and gRPC interfaces, one file each.

pub(crate) mod ingest;
pub(crate) mod push;

use std::time::Duration;

use crate::receipt::Receipt;

/// Response header: the number of durable samples of an accepted request.
const STORED_SAMPLES_HEADER: &str = "x-pyrograph-stored-samples";

/// Response header: the numbers of discarded samples by reason, as `negative_value=2, unknown_location=1`.
const DISCARDED_SAMPLES_HEADER: &str = "x-pyrograph-discarded-samples";

fn receipt_headers(receipt: &Receipt) -> impl Iterator<Item = (&'static str, String)> {
    let discarded = (!receipt.discarded.is_empty()).then(|| receipt.discarded.header());
    let discarded = discarded.map(|value| (DISCARDED_SAMPLES_HEADER, value));
    [(STORED_SAMPLES_HEADER, receipt.stored.to_string())].into_iter().chain(discarded)
}

/// Whole seconds to wait before a retry, at least one, for the header `Retry-After`.
fn retry_after_secs(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(retry_after_secs(Duration::from_millis(1)), 1);
        assert_eq!(retry_after_secs(Duration::from_millis(1001)), 2);
        assert_eq!(retry_after_secs(Duration::ZERO), 1);
    }
}
