//! Counts the active series of each tenant.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use model::TenantId;
use parking_lot::Mutex;

/// A series stays active for at least this time after its last push, and for at most twice as long.
pub const SERIES_ACTIVE: Duration = Duration::from_secs(3600);

/// Maximum number of series of all tenants, at about 18 bytes each. Beyond it, series are forgotten early: invented
/// tenants cannot use up memory, and the limits of other tenants are looser for a while.
pub const SERIES_TRACKED_MAX: usize = 4_000_000;

/// The active series of each tenant, as 64-bit hashes.
///
/// Two series with one hash count as one; among a million series, the probability of such a pair is 3 in 100 million.
pub struct ActiveSeries {
    table: Mutex<Table>,
    tracked_max: usize,
}

/// A push was refused because its new series would exceed the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManySeries {
    pub active: usize,
    pub new: usize,
}

#[derive(Default)]
struct Table {
    tenants: HashMap<TenantId, TenantSeries>,
    /// Number of series of all tenants.
    tracked: usize,
    swept: Duration,
}

/// The series of one tenant; the two sets are disjoint.
#[derive(Default)]
struct TenantSeries {
    current: Hashes,
    previous: Hashes,
    /// Start of `current`.
    began: Duration,
}

type Hashes = HashSet<u64, BuildHasherDefault<IdentityHasher>>;

/// Hasher for keys that are hashes themselves.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for ActiveSeries {
    fn default() -> Self {
        Self::new()
    }
}

impl ActiveSeries {
    pub fn new() -> Self {
        Self { table: Mutex::default(), tracked_max: SERIES_TRACKED_MAX }
    }

    /// Counts the series of one push; `now` is monotonic time. A refused push does not count, and a push without new
    /// series is never refused. A `limit` of 0 means no limit.
    ///
    /// # Errors
    /// `tenant` would have more than `limit` active series.
    pub fn admit(
        &self,
        tenant: &TenantId,
        series: &[u64],
        limit: usize,
        now: Duration,
    ) -> Result<(), TooManySeries> {
        if limit == 0 {
            return Ok(());
        }
        let mut table = self.table.lock();
        if now.saturating_sub(table.swept) >= SERIES_ACTIVE {
            table.sweep(now);
        }
        if table.tracked.saturating_add(series.len()) > self.tracked_max {
            table.forget(self.tracked_max / 2);
        }
        let fresh = || TenantSeries { began: now, ..TenantSeries::default() };
        let active = table.tenants.entry(tenant.clone()).or_insert_with(fresh);
        let before = active.len();
        active.rotate(now);
        let outcome = active.admit(series, limit);
        let after = active.len();
        table.tracked = (table.tracked + after).saturating_sub(before);
        outcome
    }
}

impl Table {
    /// Removes tenants without active series.
    fn sweep(&mut self, now: Duration) {
        self.swept = now;
        self.tenants.values_mut().for_each(|active| active.rotate(now));
        self.tenants.retain(|_, active| active.len() > 0);
        self.tracked = self.tenants.values().map(TenantSeries::len).sum();
    }

    /// Forgets the older half of each tenant's series, and all series if more than `keep` are left.
    fn forget(&mut self, keep: usize) {
        self.tenants.values_mut().for_each(|active| active.previous = Hashes::default());
        self.tenants.retain(|_, active| active.len() > 0);
        self.tracked = self.tenants.values().map(TenantSeries::len).sum();
        if self.tracked > keep {
            self.tenants.clear();
            self.tracked = 0;
        }
    }
}

impl TenantSeries {
    fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    fn rotate(&mut self, now: Duration) {
        let age = now.saturating_sub(self.began);
        if age < SERIES_ACTIVE {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.previous = if age < 2 * SERIES_ACTIVE { current } else { Hashes::default() };
        self.began = now;
    }

    fn admit(&mut self, series: &[u64], limit: usize) -> Result<(), TooManySeries> {
        let is_new = |hash: &&u64| !self.current.contains(*hash) && !self.previous.contains(*hash);
        let (active, new) = (self.len(), series.iter().filter(is_new).count());
        if new > 0 && active + new > limit {
            return Err(TooManySeries { active, new });
        }
        for hash in series {
            self.previous.remove(hash);
            self.current.insert(*hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    #[test]
    fn new_series_are_refused_beyond_the_limit_and_known_series_never() {
        let (series, a) = (ActiveSeries::new(), tenant("a"));
        let admit = |hashes: &[u64], limit| series.admit(&a, hashes, limit, Duration::ZERO);
        assert_eq!(admit(&[1, 2], 3), Ok(()));
        assert_eq!(admit(&[2, 3, 4], 3), Err(TooManySeries { active: 2, new: 2 }));
        assert_eq!(admit(&[2, 3], 3), Ok(()), "the refused push did not count");
        assert_eq!(admit(&[1, 2, 3], 1), Ok(()), "a lower limit does not affect active series");
        assert_eq!(admit(&[4], 0), Ok(()));
        assert_eq!(series.admit(&tenant("b"), &[4], 1, Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_series_is_forgotten_between_one_and_two_hours_after_its_last_push() {
        let (series, a) = (ActiveSeries::new(), tenant("a"));
        let admit = |hash, minutes: u64| series.admit(&a, &[hash], 1, Duration::from_secs(60 * minutes));
        assert_eq!(admit(1, 0), Ok(()));
        assert_eq!(admit(1, 59), Ok(()));
        assert!(admit(2, 118).is_err(), "59 minutes old");
        assert_eq!(admit(2, 179), Ok(()), "two hours old");
        assert_eq!(admit(3, 1000), Ok(()));
    }

    #[test]
    fn tenants_without_series_are_removed_and_the_total_is_bounded() {
        let series = ActiveSeries { tracked_max: 1000, ..ActiveSeries::new() };
        for number in 0..100 {
            assert_eq!(series.admit(&tenant(&format!("t{number}")), &[1], 1, Duration::ZERO), Ok(()));
        }
        assert_eq!(series.admit(&tenant("a"), &[1], 1, 3 * SERIES_ACTIVE), Ok(()));
        assert_eq!(series.table.lock().tenants.len(), 1);
        for number in 0..5 {
            let many: Vec<u64> = (0..300).collect();
            let admitted = series.admit(&tenant(&format!("t{number}")), &many, usize::MAX, 3 * SERIES_ACTIVE);
            assert_eq!(admitted, Ok(()));
        }
        let table = series.table.lock();
        assert!(table.tracked <= 1000, "{}", table.tracked);
        assert_eq!(table.tracked, table.tenants.values().map(TenantSeries::len).sum::<usize>());
    }
}
