//! What one tenant may do: numbers, overrides per tenant, the token bucket of pushed bytes, the count of series.
//!
//! Owns: the values and the arithmetic. Does not own: the checks themselves (each sits where its
//! limit applies), nor where the values come from (the binary reads files and flags).

mod duration;
mod overrides;
mod rate;
mod retention;
mod series;
mod values;

pub use duration::{Duration, DurationError};
pub use overrides::Overrides;
pub use rate::{RateLimited, RateLimiter, TENANTS_TRACKED_MAX};
pub use retention::{ServicePattern, ServiceRetention};
pub use series::{ActiveSeries, SERIES_ACTIVE, SERIES_TRACKED_MAX, TooManySeries};
pub use values::{Limits, MEBIBYTE};
