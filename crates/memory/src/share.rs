//! Shares of the memory, accounts of requests, and leases.
//!
//! Owns: counting bytes, refusals. Does not own: the measured memory of the process (`room`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::room::Room;

/// The budget of one kind of work, in bytes; cheap to clone.
#[derive(Clone)]
pub struct Share(Arc<Inner>);

struct Inner {
    name: &'static str,
    /// The setting that raises the limit, for refusals.
    setting: &'static str,
    limit: u64,
    held: AtomicU64,
    refusals: AtomicU64,
    room: Option<Room>,
}

/// Accounts up to this size are not refused because the process is full: they make no difference.
const SMALL_BYTES: u64 = 1 << 20;

/// The setting that raises the limit of the process, for refusals.
const PROCESS_SETTING: &str = "server.memory_limit_bytes";

/// The memory of one request or one job within a share; cheap to clone. The default belongs to no share: it counts
/// nothing and refuses nothing.
#[derive(Clone, Default)]
pub struct Account(Option<Arc<AccountState>>);

struct AccountState {
    share: Share,
    held: AtomicU64,
}

/// Bytes of an account, released when the last clone is dropped. The default belongs to no account: it counts
/// nothing and refuses nothing.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<LeaseState>>);

struct LeaseState {
    account: Arc<AccountState>,
    bytes: AtomicU64,
}

/// A lease was refused: the share, or the process, has too little memory left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub share: &'static str,
    pub setting: &'static str,
    /// Bytes that the account would hold with the lease.
    pub needed: u64,
    /// Bytes that other accounts hold.
    pub others: u64,
    /// Bytes that all accounts may hold together.
    pub limit: u64,
}

impl Refusal {
    /// Whether the request would fit if it ran alone.
    pub fn fits_alone(&self) -> bool {
        self.needed <= self.limit
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, setting, needed, others, limit } = self;
        write!(f, "needs {needed} bytes of memory or more; {share} may hold {limit} bytes ({setting})")?;
        match others {
            0 => Ok(()),
            others => write!(f, ", others hold {others} of them"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Share {
    /// `setting` is the name of the setting that raises `limit`.
    pub fn new(name: &'static str, setting: &'static str, limit: u64) -> Self {
        Self::of(name, setting, limit, None)
    }

    /// As [`Self::new`], within `room`: while that is full, leases are refused even if the share has bytes left.
    pub fn within(name: &'static str, setting: &'static str, limit: u64, room: Room) -> Self {
        Self::of(name, setting, limit, Some(room))
    }

    fn of(name: &'static str, setting: &'static str, limit: u64, room: Option<Room>) -> Self {
        let (held, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { name, setting, limit, held, refusals, room }))
    }

    /// A share that refuses nothing.
    pub fn unlimited() -> Self {
        Self::new("everything", "", u64::MAX)
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Maximum bytes of all leases.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes of all leases.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// A new account of 0 bytes.
    pub fn account(&self) -> Account {
        Account(Some(Arc::new(AccountState { share: self.clone(), held: AtomicU64::new(0) })))
    }

    /// A lease of `bytes`, with an account of its own.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn take(&self, bytes: u64) -> Result<Lease, Refusal> {
        let lease = self.account().lease();
        lease.grow(bytes)?;
        Ok(lease)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({}: {} of {})", self.0.name, self.held(), self.0.limit)
    }
}

impl Account {
    /// A new lease of 0 bytes.
    pub fn lease(&self) -> Lease {
        Lease(
            self.0
                .as_ref()
                .map(|open| Arc::new(LeaseState { account: open.clone(), bytes: AtomicU64::new(0) })),
        )
    }

    /// Bytes of all leases of the account.
    pub fn held(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.held.load(Ordering::Relaxed))
    }

    /// Whether the account belongs to a share.
    pub fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// Maximum bytes of all accounts of the share; `u64::MAX` without a share.
    pub fn limit(&self) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |open| open.share.limit())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.held())
    }
}

impl AccountState {
    fn grow(&self, bytes: u64) -> Result<(), Refusal> {
        let inner = &self.share.0;
        let own = self.held.load(Ordering::Relaxed);
        let needed = own.saturating_add(bytes);
        if let Some(room) = inner.room.as_ref().filter(|room| needed > SMALL_BYTES && room.is_full()) {
            inner.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal {
                share: "the process",
                setting: PROCESS_SETTING,
                needed,
                others: room.used().saturating_sub(own),
                limit: room.limit(),
            });
        }
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= inner.limit);
        match inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => {
                self.held.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(held) => {
                inner.refusals.fetch_add(1, Ordering::Relaxed);
                Err(Refusal {
                    share: inner.name,
                    setting: inner.setting,
                    needed,
                    others: held.saturating_sub(own),
                    limit: inner.limit,
                })
            }
        }
    }

    fn shrink(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.share.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Lease {
    /// Bytes of this lease.
    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |held| held.bytes.load(Ordering::Relaxed))
    }

    /// Whether the lease belongs to an account.
    pub fn is_counted(&self) -> bool {
        self.0.is_some()
    }

    /// An empty lease of the same account.
    pub fn sibling(&self) -> Self {
        let account = |held: &Arc<LeaseState>| held.account.clone();
        Account(self.0.as_ref().map(account)).lease()
    }

    /// Maximum bytes of all accounts of the share; `u64::MAX` without a share.
    pub fn limit(&self) -> u64 {
        self.0.as_ref().map_or(u64::MAX, |held| held.account.share.limit())
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// There is not enough memory; the lease does not change.
    pub fn grow(&self, bytes: u64) -> Result<(), Refusal> {
        if let Some(held) = &self.0 {
            held.account.grow(bytes)?;
            held.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Releases the bytes beyond `bytes`.
    pub fn shrink_to(&self, bytes: u64) {
        if let Some(held) = &self.0 {
            let before = held.bytes.fetch_min(bytes, Ordering::Relaxed);
            held.account.shrink(before.saturating_sub(bytes));
        }
    }

    /// Sets the lease to `bytes`, more or less than before.
    ///
    /// # Errors
    /// There is not enough memory for more; the lease does not change.
    pub fn resize(&self, bytes: u64) -> Result<(), Refusal> {
        match bytes.saturating_sub(self.bytes()) {
            0 => {
                self.shrink_to(bytes);
                Ok(())
            }
            more => self.grow(more),
        }
    }

    /// Takes over the bytes of `other`. A lease without an account becomes `other`.
    pub fn absorb(&mut self, other: Self) {
        match (&self.0, &other.0) {
            (None, _) => *self = other,
            (Some(_), None) => {}
            (Some(own), Some(others)) => {
                let bytes = others.bytes.swap(0, Ordering::Relaxed);
                own.bytes.fetch_add(bytes, Ordering::Relaxed);
                if !Arc::ptr_eq(&own.account, &others.account) {
                    // The sum of the share stays the same; the bytes only move to another account.
                    others.account.held.fetch_sub(bytes, Ordering::Relaxed);
                    own.account.held.fetch_add(bytes, Ordering::Relaxed);
                }
            }
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.bytes())
    }
}

impl Drop for LeaseState {
    fn drop(&mut self) {
        self.account.shrink(*self.bytes.get_mut());
    }
}

/// Metrics of the limit and the shares.
#[derive(Debug)]
pub struct SharesMetrics {
    pub limit_bytes: u64,
    pub shares: Vec<Share>,
}

impl Collector for SharesMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let limit = ConstGauge::new(self.limit_bytes as i64);
        limit.encode(encoder.encode_descriptor(
            "pyrograph_memory_limit_bytes",
            "Bytes of memory that this process may use",
            None,
            limit.metric_type(),
        )?)?;
        let gauge = |value: fn(&Share) -> u64| move |share: &Share| ConstGauge::new(value(share) as i64);
        self.family(
            &mut encoder,
            "share_limit_bytes",
            "Bytes that one kind of work may hold",
            gauge(Share::limit),
        )?;
        self.family(
            &mut encoder,
            "share_held_bytes",
            "Bytes that one kind of work holds",
            gauge(Share::held),
        )?;
        let refusals = |share: &Share| ConstCounter::new(share.0.refusals.load(Ordering::Relaxed));
        self.family(&mut encoder, "share_refusals", "Leases that were refused for lack of memory", refusals)
    }
}

impl SharesMetrics {
    fn family<M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        metric: impl Fn(&Share) -> M,
    ) -> fmt::Result {
        let Some(first) = self.shares.first() else { return Ok(()) };
        let kind = metric(first).metric_type();
        let name = format!("pyrograph_memory_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, kind)?;
        for share in &self.shares {
            metric(share).encode(family.encode_family(&[("share", share.name())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(limit: u64) -> Share {
        Share::new("questions", "querier.max_memory_bytes", limit)
    }

    #[test]
    fn the_bytes_of_a_dropped_lease_can_be_leased_again() {
        let share = share(10);
        let first = share.take(6).unwrap();
        let refused = share.take(5).unwrap_err();
        assert_eq!((refused.needed, refused.others, refused.fits_alone()), (5, 6, true));
        let second = share.take(4).unwrap();
        drop((first, second));
        assert_eq!(share.held(), 0);
        assert!(share.take(10).is_ok());
    }

    #[test]
    fn a_refusal_names_bytes_and_setting() {
        let share = share(10);
        let _others = share.take(3).unwrap();
        let lease = share.account().lease();
        lease.grow(2).unwrap();
        assert_eq!(
            lease.grow(9).unwrap_err().to_string(),
            "needs 11 bytes of memory or more; questions may hold 10 bytes (querier.max_memory_bytes), others hold 3 \
             of them"
        );
        assert_eq!((lease.bytes(), share.held()), (2, 5));
        assert!(!lease.grow(9).unwrap_err().fits_alone());
    }

    #[test]
    fn a_full_process_grants_only_small_leases() {
        const MIB: u64 = 1 << 20;
        let room = Room::new(100 * MIB);
        let share = Share::within("questions", "querier.max_memory_bytes", 50 * MIB, room.clone());
        let lease = share.take(2 * MIB).unwrap();
        room.measured(84 * MIB);
        lease.grow(MIB).unwrap();
        room.measured(86 * MIB);
        let refused = lease.grow(1).unwrap_err();
        assert!(refused.fits_alone(), "{refused}");
        assert_eq!(
            refused.to_string(),
            "needs 3145729 bytes of memory or more; the process may hold 104857600 bytes (server.memory_limit_bytes), \
             others hold 87031808 of them"
        );
        let little = share.take(MIB).unwrap();
        assert_eq!((lease.bytes(), little.bytes()), (3 * MIB, MIB));
        room.measured(50 * MIB);
        lease.grow(MIB).unwrap();
    }

    #[test]
    fn leases_of_one_account_count_together() {
        let share = share(10);
        let account = share.account();
        let (first, second) = (account.lease(), account.lease());
        first.grow(6).unwrap();
        let refused = second.grow(5).unwrap_err();
        assert_eq!((refused.needed, refused.others), (11, 0));
        first.shrink_to(5);
        assert!(second.grow(5).is_ok());
        assert_eq!(account.held(), 10);
    }

    #[test]
    fn a_lease_is_released_with_its_last_clone() {
        let share = share(10);
        let lease = share.take(7).unwrap();
        let clone = lease.clone();
        drop(lease);
        assert_eq!(share.held(), 7);
        drop(clone);
        assert_eq!(share.held(), 0);
    }

    #[test]
    fn absorbed_bytes_are_released_once() {
        let share = share(100);
        let mut first = share.take(7).unwrap();
        first.absorb(share.take(5).unwrap());
        assert_eq!((first.bytes(), share.held()), (12, 12));
        let mut none = Lease::default();
        none.absorb(first);
        none.absorb(Lease::default());
        assert_eq!((none.bytes(), share.held()), (12, 12));
        none.resize(20).unwrap();
        none.resize(3).unwrap();
        assert_eq!(share.held(), 3);
        drop(none);
        assert_eq!(share.held(), 0);
    }

    #[test]
    fn a_lease_without_a_share_refuses_nothing() {
        let lease = Account::default().lease();
        assert!(lease.grow(u64::MAX).is_ok() && lease.grow(1).is_ok());
        assert_eq!((lease.bytes(), lease.limit()), (0, u64::MAX));
    }

    #[test]
    fn metrics_have_limit_bytes_and_refusals_of_each_share() {
        let share = share(10);
        let _held = share.take(4).unwrap();
        let _ = share.take(7);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(SharesMetrics { limit_bytes: 20, shares: vec![share] }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "pyrograph_memory_limit_bytes 20",
            "pyrograph_memory_share_limit_bytes{share=\"questions\"} 10",
            "pyrograph_memory_share_held_bytes{share=\"questions\"} 4",
            "pyrograph_memory_share_refusals_total{share=\"questions\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
