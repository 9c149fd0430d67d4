//! Which questions run, and in which order the others wait.
//!
//! A tenant's questions may read so many estimated bytes at once, and take three quarters of the places at
//! most: there is always one for somebody else. Tenants with waiting questions take turns; questions of one tenant
//! keep their order.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{Config, Error};

/// When a client that was refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Admission {
    running_max: usize,
    /// Of one tenant.
    running_of_one_max: usize,
    waiting_of_one_max: usize,
    bytes_of_one_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    next_id: u64,
    tenants: HashMap<String, Tenant, RandomState>,
    /// Tenants with waiting questions, each once; the first is next.
    turns: VecDeque<String>,
}

#[derive(Default)]
struct Tenant {
    running: usize,
    bytes: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: u64,
    bytes: u64,
    granted: oneshot::Sender<()>,
}

/// A place among those that run, or the hope for one; dropping it makes room.
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
            running_of_one_max: (running_max - running_max / 4).max(1),
            waiting_of_one_max: config.max_waiting,
            bytes_of_one_max: config.max_tenant_inflight_bytes.max(1),
            state: Mutex::default(),
        }
    }

    /// Waits for a permit; the question may run while it is held. One that reads more than a tenant may at once runs
    /// alone.
    ///
    /// # Errors
    /// `Exhausted` if too many of the same tenants wait already.
    pub(crate) async fn enter(&self, tenants: &[TenantId], bytes: u64) -> Result<Permit<'_>, Error> {
        let tenant = tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("|");
        let (granted, granting) = oneshot::channel();
        let permit = {
            let mut state = self.state.lock();
            let id = state.next_id;
            state.next_id += 1;
            let of = state.tenants.entry_ref(tenant.as_str()).or_default();
            if of.waiting.len() >= self.waiting_of_one_max.max(1) {
                let message = format!(
                    "tenant {tenant}: {} queries run and are to read {} bytes (limit {}), {} wait (limit {}); this \
                     one is to read {bytes} bytes",
                    of.running,
                    of.bytes,
                    self.bytes_of_one_max,
                    of.waiting.len(),
                    self.waiting_of_one_max
                );
                return Err(Error::Exhausted { message, retry_after: RETRY_AFTER });
            }
            let bytes = bytes.min(self.bytes_of_one_max);
            of.waiting.push_back(Waiting { id, bytes, granted });
            if of.waiting.len() == 1 {
                state.turns.push_back(tenant.clone());
            }
            self.advance(&mut state);
            Permit { admission: self, tenant, bytes, id }
        };
        granting.await.map_err(|_| Error::Internal("a query lost its permit".into()))?;
        Ok(permit)
    }

    /// Lets run what may run.
    fn advance(&self, state: &mut State) {
        let mut passed = 0;
        while state.running < self.running_max && passed < state.turns.len() {
            let Some(name) = state.turns.pop_front() else { break };
            let Some(of) = state.tenants.get_mut(&name) else { continue };
            let fits = |next: &Waiting| {
                of.running < self.running_of_one_max
                    && of.bytes.saturating_add(next.bytes) <= self.bytes_of_one_max
            };
            match of.waiting.front().is_some_and(fits) {
                true => {
                    passed = 0;
                    if let Some(next) = of.waiting.pop_front() {
                        of.running += 1;
                        of.bytes += next.bytes;
                        state.running += 1;
                        // Whoever gave up has left the queue before.
                        let _ = next.granted.send(());
                    }
                }
                false => passed += 1,
            }
            if !of.waiting.is_empty() {
                state.turns.push_back(name);
            }
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        let state = &mut *state;
        if let Some(of) = state.tenants.get_mut(&self.tenant) {
            match of.waiting.iter().position(|waiting| waiting.id == self.id) {
                Some(at) => drop(of.waiting.remove(at)),
                None => {
                    of.running -= 1;
                    of.bytes -= self.bytes;
                    state.running -= 1;
                }
            }
            if of.waiting.is_empty() {
                state.turns.retain(|name| *name != self.tenant);
                if of.running == 0 {
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

    fn of(name: &str) -> [TenantId; 1] {
        [TenantId::parse(name).expect("a tenant")]
    }

    #[tokio::test]
    async fn one_waits_and_the_next_is_refused_with_the_numbers() {
        let admission = admission(1, 1);
        let a = of("a");
        let running = admission.enter(&a, 7).await.expect("free");
        let mut waiting = Box::pin(admission.enter(&a, 8));
        assert!(futures::poll!(&mut waiting).is_pending());
        let Err(Error::Exhausted { message, .. }) = admission.enter(&a, 9).await else {
            panic!("is refused");
        };
        let expected = "tenant a: 1 queries run and are to read 7 bytes (limit 100), 1 wait (limit 1); this one is to \
                        read 9 bytes";
        assert_eq!(message, expected);
        drop(running);
        drop(waiting.await.expect("its turn"));
        assert!(admission.state.lock().tenants.is_empty());
    }

    #[tokio::test]
    async fn a_tenant_reads_so_many_bytes_at_once_and_others_do_not_wait_for_that() {
        let admission = admission(8, 8);
        let (a, b) = (of("a"), of("b"));
        // A month: more than it may ever read at once.
        let month = admission.enter(&a, 5000).await.expect("runs alone");
        let mut next = Box::pin(admission.enter(&a, 1));
        assert!(futures::poll!(&mut next).is_pending());
        let _others = admission.enter(&b, 100).now_or_never().expect("does not wait").expect("runs");
        drop(month);
        assert!(next.await.is_ok());
    }

    #[tokio::test]
    async fn one_tenant_never_takes_all_places_and_those_who_wait_take_turns() {
        let admission = admission(4, 100);
        let (a, b, c) = (of("a"), of("b"), of("c"));
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(admission.enter(&a, 1).await.expect("runs"));
        }
        let mut many: Vec<_> = (0..50).map(|_| Box::pin(admission.enter(&a, 1))).collect();
        for waiting in &mut many {
            assert!(futures::poll!(waiting).is_pending());
        }
        let first_of_b = admission.enter(&b, 1).now_or_never().expect("has a place").expect("runs");
        let mut second_of_b = Box::pin(admission.enter(&b, 1));
        let mut of_c = Box::pin(admission.enter(&c, 1));
        assert!(futures::poll!(&mut second_of_b).is_pending() && futures::poll!(&mut of_c).is_pending());
        // Three places become free: one for each of those who wait.
        drop(first_of_b);
        drop(running);
        assert!(second_of_b.now_or_never().is_some() && of_c.now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_nothing_behind() {
        let admission = admission(1, 10);
        let a = of("a");
        let running = admission.enter(&a, 1).await.expect("runs");
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(admission.enter(&a, 1))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        drop(waiting.remove(0));
        drop(running);
        // Granted, and given up before it knows.
        drop(waiting.remove(0));
        assert!(waiting.remove(0).now_or_never().is_some());
        assert!(admission.state.lock().tenants.is_empty() && admission.state.lock().running == 0);
    }
}
