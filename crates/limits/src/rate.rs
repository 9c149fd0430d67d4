//! Token buckets of tenants, for pushed bytes.

use std::collections::HashMap;
use std::time::Duration;

use model::TenantId;
use parking_lot::Mutex;

/// Maximum number of tenants with a bucket of their own; further tenants share one bucket. A bucket that is full again
/// is forgotten, so only tenants that pushed within the last `burst / rate` seconds count.
pub const TENANTS_TRACKED_MAX: usize = 10_000;

/// Minimum time between searches for full buckets.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket per tenant, filled with `rate` units per second up to `burst`.
///
/// A full bucket admits even more than it holds, and owes the rest: a push larger than the burst passes at the rate
/// instead of never.
#[derive(Default)]
pub struct RateLimiter {
    buckets: Mutex<Buckets>,
}

/// A push was refused: the bucket has too few tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimited {
    /// Time until the same amount would pass, if no other push comes before.
    pub retry_after: Duration,
}

#[derive(Default)]
struct Buckets {
    tenants: HashMap<TenantId, Bucket>,
    overflow: Option<Bucket>,
    swept: Duration,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    rate: f64,
    burst: f64,
    filled: Duration,
}

impl RateLimiter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `amount` from the bucket of `tenant`; `now` is monotonic time. A refused push takes nothing.
    ///
    /// # Errors
    /// The bucket holds less and is not full.
    pub fn admit(
        &self,
        tenant: &TenantId,
        amount: f64,
        rate: f64,
        burst: f64,
        now: Duration,
    ) -> Result<(), RateLimited> {
        if rate.is_infinite() {
            return Ok(());
        }
        let mut buckets = self.buckets.lock();
        let bucket = buckets.bucket(tenant, now, burst);
        bucket.fill(rate, burst, now);
        bucket.take(amount)
    }
}

impl Buckets {
    fn bucket(&mut self, tenant: &TenantId, now: Duration, burst: f64) -> &mut Bucket {
        let full = Bucket { tokens: burst, rate: 0.0, burst, filled: now };
        let is_crowded = self.tenants.len() >= TENANTS_TRACKED_MAX;
        if is_crowded && now.saturating_sub(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.tenants.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.tenants.len() >= TENANTS_TRACKED_MAX && !self.tenants.contains_key(tenant) {
            return self.overflow.get_or_insert(full);
        }
        self.tenants.entry(tenant.clone()).or_insert(full)
    }
}

impl Bucket {
    /// Adds the tokens since the last call, at the rate now in force.
    fn fill(&mut self, rate: f64, burst: f64, now: Duration) {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * rate;
        *self = Self { tokens: (self.tokens + gained).min(burst), rate, burst, filled: now };
    }

    fn is_full(&self, now: Duration) -> bool {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * self.rate;
        self.tokens + gained >= self.burst
    }

    fn take(&mut self, amount: f64) -> Result<(), RateLimited> {
        let needed = amount.min(self.burst);
        if self.tokens < needed {
            let wait = (needed - self.tokens) / self.rate;
            let retry_after = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
            return Err(RateLimited { retry_after });
        }
        self.tokens -= amount;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 4.0;
    const BURST: f64 = 8.0;

    fn at(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_applies() {
        let limiter = RateLimiter::new();
        let push = |amount, secs| limiter.admit(&tenant("a"), amount, RATE, BURST, at(secs));
        assert_eq!(push(6.0, 1.0), Ok(()));
        assert_eq!(push(2.0, 1.0), Ok(()));
        assert_eq!(push(2.0, 1.0), Err(RateLimited { retry_after: at(0.5) }));
        assert_eq!(push(2.0, 1.5), Ok(()));
        assert_eq!(push(9.0, 60.0), Ok(()));
    }

    #[test]
    fn a_push_larger_than_the_burst_passes_a_full_bucket_and_is_owed() {
        let limiter = RateLimiter::new();
        let push = |amount, secs| limiter.admit(&tenant("a"), amount, RATE, BURST, at(secs));
        assert_eq!(push(16.0, 0.0), Ok(()));
        assert_eq!(push(1.0, 2.0), Err(RateLimited { retry_after: at(0.25) }));
        assert_eq!(push(1.0, 2.25), Ok(()));
    }

    #[test]
    fn tenants_have_separate_buckets_and_an_infinite_rate_admits_all() {
        let limiter = RateLimiter::new();
        assert_eq!(limiter.admit(&tenant("a"), 8.0, RATE, BURST, at(0.0)), Ok(()));
        assert_eq!(limiter.admit(&tenant("b"), 8.0, RATE, BURST, at(0.0)), Ok(()));
        assert_eq!(limiter.admit(&tenant("b"), 1e18, f64::INFINITY, BURST, at(0.0)), Ok(()));
    }

    #[test]
    fn many_tenants_do_not_grow_the_table_beyond_its_limit() {
        let limiter = RateLimiter::new();
        for i in 0..TENANTS_TRACKED_MAX + 100 {
            let _ = limiter.admit(&tenant(&format!("t{i}")), 8.0, RATE, BURST, at(0.0));
        }
        assert_eq!(limiter.buckets.lock().tenants.len(), TENANTS_TRACKED_MAX);
        // Further tenants share one bucket, which the first of them emptied.
        assert!(limiter.admit(&tenant("late"), 1.0, RATE, BURST, at(0.0)).is_err());
        // Full buckets are forgotten.
        assert_eq!(limiter.admit(&tenant("late"), 1.0, RATE, BURST, at(10.0)), Ok(()));
        assert_eq!(limiter.buckets.lock().tenants.len(), 1);
    }
}
