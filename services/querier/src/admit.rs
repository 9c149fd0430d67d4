//! Admission: which queries run, and in which order the others wait.
//!
//! The running queries of one tenant have a limit of estimated bytes, and hold at most three quarters of the permits,
//! so that one tenant alone cannot hold all of them unless there are fewer than four. Tenants with waiting queries are served in turn; queries of one tenant
//! keep their order.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{Config, Error};

/// Time after which a refused client may retry.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Admission {
    running_max: usize,
    tenant_running_max: usize,
    tenant_waiting_max: usize,
    tenant_bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    next_id: u64,
    tenants: HashMap<String, Tenant, RandomState>,
    /// Tenants with waiting queries, each once; the first is served next.
    turns: VecDeque<String>,
}

#[derive(Default)]
struct Tenant {
    running: usize,
    bytes: u64,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    id: u64,
    bytes: u64,
    granted: oneshot::Sender<()>,
}

/// The right to run, or a position in the queue. Dropping it releases either.
pub(crate) struct Permit<'a> {
    admission: &'a Admission,
    tenant: String,
    bytes: u64,
    id: u64,
}

impl Admission {
    pub(crate) fn new(config: &Config) -> Self {
        let running_max = config.max_concurrent.max(1);
        Self {
            running_max,
            tenant_running_max: (running_max - running_max / 4).max(1),
            tenant_waiting_max: config.max_waiting,
            tenant_bytes_max: config.max_tenant_inflight_bytes.max(1),
            state: Mutex::default(),
        }
    }

    /// Waits for a permit; the query may run while it is held. `bytes` is the estimate of the bytes to read. A
    /// query above the limit of its tenant runs without others of that tenant.
    ///
    /// # Errors
    /// `Exhausted` if too many queries of the same tenants wait already.
    pub(crate) async fn enter(&self, tenants: &[TenantId], bytes: u64) -> Result<Permit<'_>, Error> {
        let name = tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|");
        let (granted, granting) = oneshot::channel();
        let permit = {
            let mut state = self.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            let tenant = state.tenants.entry_ref(name.as_str()).or_default();
            if tenant.waiting.len() >= self.tenant_waiting_max.max(1) {
                let message = format!(
                    "tenant {name}: {} queries run and are to read {} bytes (limit {}), {} wait (limit {}); this \
                     one is to read {bytes} bytes",
                    tenant.running,
                    tenant.bytes,
                    self.tenant_bytes_max,
                    tenant.waiting.len(),
                    self.tenant_waiting_max
                );
                return Err(Error::Exhausted { message, retry_after: RETRY_AFTER });
            }
            let bytes = bytes.min(self.tenant_bytes_max);
            tenant.waiting.push_back(Waiter { id, bytes, granted });
            if tenant.waiting.len() == 1 {
                state.turns.push_back(name.clone());
            }
            self.advance(&mut state);
            Permit { admission: self, tenant: name, bytes, id }
        };
        granting.await.map_err(|_| Error::Internal("a query lost its permit".into()))?;
        Ok(permit)
    }

    /// Grants permits until all are held or no waiting query fits.
    fn advance(&self, state: &mut State) {
        // Tenants in a row whose next query did not fit.
        let mut passed = 0;
        while state.running < self.running_max && passed < state.turns.len() {
            let Some(name) = state.turns.pop_front() else { break };
            let Some(tenant) = state.tenants.get_mut(&name) else { continue };
            let fits = |next: &Waiter| {
                tenant.running < self.tenant_running_max
                    && tenant.bytes.saturating_add(next.bytes) <= self.tenant_bytes_max
            };
            match tenant.waiting.front().is_some_and(fits) {
                true => {
                    passed = 0;
                    if let Some(next) = tenant.waiting.pop_front() {
                        tenant.running += 1;
                        tenant.bytes += next.bytes;
                        state.running += 1;
                        // Cannot fail: a query that gives up leaves the queue first.
                        let _ = next.granted.send(());
                    }
                }
                false => passed += 1,
            }
            if !tenant.waiting.is_empty() {
                state.turns.push_back(name);
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        let state = &mut *state;
        if let Some(tenant) = state.tenants.get_mut(&self.tenant) {
            match tenant.waiting.iter().position(|waiter| waiter.id == self.id) {
                Some(position) => drop(tenant.waiting.remove(position)),
                None => {
                    tenant.running -= 1;
                    tenant.bytes -= self.bytes;
                    state.running -= 1;
                }
            }
            if tenant.waiting.is_empty() {
                state.turns.retain(|name| *name != self.tenant);
                if tenant.running == 0 {
                    state.tenants.remove(&self.tenant);
                }
            }
        }
        self.admission.advance(state);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn admission(max_concurrent: usize, max_waiting: usize) -> Admission {
        Admission::new(&Config {
            max_concurrent,
            max_waiting,
            max_tenant_inflight_bytes: 100,
            ..Config::default()
        })
    }

    fn tenant(name: &str) -> [TenantId; 1] {
        [TenantId::parse(name).expect("a tenant")]
    }

    #[tokio::test]
    async fn a_full_queue_refuses_with_the_numbers() {
        let admission = admission(1, 1);
        let a = tenant("a");
        let running = admission.enter(&a, 7).await.expect("a free permit");
        let mut waiting = Box::pin(admission.enter(&a, 8));
        assert!(futures::poll!(&mut waiting).is_pending());
        let Err(Error::Exhausted { message, .. }) = admission.enter(&a, 9).await else {
            panic!("is refused");
        };
        let expected = "tenant a: 1 queries run and are to read 7 bytes (limit 100), 1 wait (limit 1); this one is to \
                        read 9 bytes";
        assert_eq!(message, expected);
        drop(running);
        drop(waiting.await.expect("a permit"));
        assert!(admission.state.lock().tenants.is_empty());
    }

    #[tokio::test]
    async fn the_bytes_of_a_tenant_are_limited_and_do_not_hold_up_others() {
        let admission = admission(8, 8);
        let (a, b) = (tenant("a"), tenant("b"));
        // A month: above the limit of the tenant.
        let month = admission.enter(&a, 5000).await.expect("runs alone");
        let mut next = Box::pin(admission.enter(&a, 1));
        assert!(futures::poll!(&mut next).is_pending());
        let _others = admission.enter(&b, 100).now_or_never().expect("does not wait").expect("runs");
        drop(month);
        assert!(next.await.is_ok());
    }

    #[tokio::test]
    async fn one_tenant_cannot_take_every_permit_and_waiters_are_served_in_turn() {
        let admission = admission(4, 100);
        let (a, b, c) = (tenant("a"), tenant("b"), tenant("c"));
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(admission.enter(&a, 1).await.expect("runs"));
        }
        let mut many: Vec<_> = (0..50).map(|_| Box::pin(admission.enter(&a, 1))).collect();
        for waiting in &mut many {
            assert!(futures::poll!(waiting).is_pending());
        }
        let first_of_b = admission.enter(&b, 1).now_or_never().expect("does not wait").expect("runs");
        let mut second_of_b = Box::pin(admission.enter(&b, 1));
        let mut of_c = Box::pin(admission.enter(&c, 1));
        assert!(futures::poll!(&mut second_of_b).is_pending() && futures::poll!(&mut of_c).is_pending());
        // Four permits become free; each waiting tenant gets one.
        drop(first_of_b);
        drop(running);
        assert!(second_of_b.now_or_never().is_some() && of_c.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_query_that_gives_up_leaves_no_trace() {
        let admission = admission(1, 10);
        let a = tenant("a");
        let running = admission.enter(&a, 1).await.expect("runs");
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(admission.enter(&a, 1))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        drop(waiting.remove(0));
        drop(running);
        // Dropped after it was granted and before it was polled.
        drop(waiting.remove(0));
        assert!(waiting.remove(0).now_or_never().is_some());
        assert!(admission.state.lock().tenants.is_empty() && admission.state.lock().running == 0);
    }
}
