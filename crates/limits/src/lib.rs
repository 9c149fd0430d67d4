//! Limits of tenants: their values, overrides per tenant, the token bucket of pushed bytes, the count of series.
//!
//! Owns: the values and the arithmetic. Does not own: the checks (each is where its limit applies), reading the values
//! from files and flags (the binary).

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
