//! Calls between roles: requests that may be lost, late or doubled, and answers that may not arrive.
//!
//! Owns: the implementation of the `rpc` traits between two machines of a run.
//! Does not own: which process a role calls ([`crate::fleet`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use model::{ItemKey, PushItem};
use parking_lot::Mutex;
use rpc::{
    Call, DeleteRequest, DeletionStatus, Error, ErrorKind, FindRequest, Metastore, Relay, ScanAnswer,
    ScanRequest, SegmentHint, Snapshot,
};
use tokio::sync::oneshot;

use crate::executor::{Executor, ProcessId};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::oracle::{DeletionStep, Oracle};
use crate::random::Random;

/// A call that takes longer fails.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Frequency of each fault, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) lose_request: u64,
    pub(crate) lose_reply: u64,
    pub(crate) repeat: u64,
    pub(crate) late: u64,
    pub(crate) slow: u64,
    pub(crate) latency_millis: u64,
}

#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    executor: Executor,
    journal: Journal,
    /// The process of late and repeated requests.
    process: ProcessId,
    state: Mutex<State>,
}

struct State {
    random: Random,
    rates: Rates,
    /// Pairs of machines that do not reach each other, the smaller first.
    cut: BTreeSet<(Machine, Machine)>,
}

struct Delivery {
    there: Duration,
    back: Duration,
    is_lost: bool,
    is_reply_lost: bool,
    /// The request arrives this much later; the caller does not wait for it any more.
    late: Option<Duration>,
    /// The request arrives once more after this time.
    repeat: Option<Duration>,
    is_reset_heard: bool,
}

/// A role on another machine; empty while no process runs there.
pub(crate) struct Endpoint<R: ?Sized> {
    pub(crate) machine: Machine,
    current: Mutex<Option<(ProcessId, Arc<R>)>>,
}

impl<R: ?Sized> Endpoint<R> {
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        Arc::new(Self { machine, current: Mutex::new(None) })
    }

    pub(crate) fn set(&self, process: ProcessId, role: Arc<R>) {
        *self.current.lock() = Some((process, role));
    }

    pub(crate) fn clear(&self) {
        *self.current.lock() = None;
    }

    pub(crate) fn get(&self) -> Option<(ProcessId, Arc<R>)> {
        self.current.lock().clone()
    }
}

impl Network {
    pub(crate) fn new(executor: Executor, journal: Journal, random: Random) -> Self {
        let process = executor.start("network");
        let state = State { random, rates: Rates::default(), cut: BTreeSet::new() };
        Self(Arc::new(Inner { executor, journal, process, state: Mutex::new(state) }))
    }

    pub(crate) fn set_rates(&self, rates: Rates) {
        self.0.state.lock().rates = rates;
    }

    pub(crate) fn cut(&self, a: Machine, b: Machine) {
        self.0.state.lock().cut.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&self, a: Machine, b: Machine) {
        self.0.state.lock().cut.remove(&(a.min(b), a.max(b)));
    }

    pub(crate) fn heal_all(&self) {
        self.0.state.lock().cut.clear();
    }

    fn is_cut(&self, a: Machine, b: Machine) -> bool {
        self.0.state.lock().cut.contains(&(a.min(b), a.max(b)))
    }

    fn draw(&self) -> Delivery {
        let mut state = self.0.state.lock();
        let rates = state.rates;
        let random = &mut state.random;
        let slowest =
            if random.chance(rates.slow) { rates.latency_millis * 50 } else { rates.latency_millis };
        Delivery {
            there: random.millis(0, slowest),
            back: random.millis(0, slowest),
            is_lost: random.chance(rates.lose_request),
            is_reply_lost: random.chance(rates.lose_reply),
            late: random.chance(rates.late).then(|| random.millis(1_000, 60_000)),
            repeat: random.chance(rates.repeat).then(|| random.millis(0, 30_000)),
            is_reset_heard: random.chance(500),
        }
    }

    /// Calls `to` from the machine `from`.
    pub(crate) async fn call<R: ?Sized + Send + Sync + 'static, T: Send + 'static>(
        &self,
        from: Machine,
        to: &Arc<Endpoint<R>>,
        method: &'static str,
        call: impl Fn(Arc<R>) -> BoxFuture<'static, Result<T, Error>> + Send + Sync + Clone + 'static,
    ) -> Result<T, Error> {
        let limited = self.call_without_timeout(from, to, method, call);
        futures::pin_mut!(limited);
        let sleep = self.0.executor.sleep(CALL_TIMEOUT);
        match futures::future::select(limited, sleep).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right(_) => {
                let text = format!("{}: no answer within {CALL_TIMEOUT:?}", to.machine);
                Err(Error::new(ErrorKind::DeadlineExceeded, text))
            }
        }
    }

    async fn call_without_timeout<R: ?Sized + Send + Sync + 'static, T: Send + 'static>(
        &self,
        from: Machine,
        to: &Arc<Endpoint<R>>,
        method: &'static str,
        call: impl Fn(Arc<R>) -> BoxFuture<'static, Result<T, Error>> + Send + Sync + Clone + 'static,
    ) -> Result<T, Error> {
        let inner = &*self.0;
        let fate = self.draw();
        let machine = to.machine;
        inner.executor.sleep(fate.there).await;
        let is_cut = self.is_cut(from, machine);
        for delay in [fate.repeat, fate.late].into_iter().flatten().filter(|_| !is_cut) {
            self.deliver_later(from, to, method, delay, call.clone());
        }
        if fate.late.is_some() || fate.is_lost {
            inner.journal.note(format_args!("{from} calls {machine} {method}: lost"));
            return Err(unavailable(machine, "the connection broke"));
        }
        if is_cut {
            // No answer at all: the caller waits until its own timeout.
            inner.journal.note(format_args!("{from} calls {machine} {method}: cut off"));
            inner.executor.sleep(Duration::from_secs(600)).await;
            return Err(unavailable(machine, "cut off"));
        }
        let Some((process, role)) = to.get().filter(|(process, _)| inner.executor.is_alive(*process)) else {
            inner.executor.sleep(fate.back).await;
            return Err(unavailable(machine, "connection refused"));
        };
        let (reply, answer) = oneshot::channel();
        let handled = async move {
            let _ = reply.send(call(role).await);
        };
        let running = inner.executor.spawn(process, handled);
        // A caller that stops waiting resets its stream, which the other side may notice.
        let running = fate.is_reset_heard.then(|| running.abort_on_drop());
        let answer = answer.await.unwrap_or_else(|_| Err(unavailable(machine, "the connection broke")));
        if let Some(running) = running {
            running.disarm();
        }
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(error) => error.message.as_str(),
        };
        let lost = if fate.is_reply_lost { ", reply lost" } else { "" };
        inner.journal.note(format_args!("{from} calls {machine} {method}: {outcome}{lost}"));
        inner.executor.sleep(fate.back).await;
        if fate.is_reply_lost || self.is_cut(from, machine) {
            return Err(unavailable(machine, "the connection broke"));
        }
        answer
    }

    fn deliver_later<R: ?Sized + Send + Sync + 'static, T: Send + 'static>(
        &self,
        from: Machine,
        to: &Arc<Endpoint<R>>,
        method: &'static str,
        delay: Duration,
        call: impl Fn(Arc<R>) -> BoxFuture<'static, Result<T, Error>> + Send + Sync + 'static,
    ) {
        let (this, to) = (self.clone(), to.clone());
        let delivery = async move {
            let inner = &*this.0;
            inner.executor.sleep(delay).await;
            let Some((process, role)) = to.get() else {
                return;
            };
            let machine = to.machine;
            inner.journal.note(format_args!("{from} calls {machine} {method}: late or again"));
            let handled = async move { drop(call(role).await) };
            inner.executor.spawn(process, handled);
        };
        self.0.executor.spawn(self.0.process, delivery);
    }
}

fn unavailable(machine: Machine, reason: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{machine}: {reason}"))
}

/// The ingester of another machine.
#[derive(Clone)]
pub(crate) struct RemoteIngester {
    pub(crate) network: Network,
    pub(crate) from: Machine,
    pub(crate) to: Arc<Endpoint<dyn rpc::Ingester>>,
    pub(crate) oracle: Oracle,
}

#[async_trait]
impl rpc::Ingester for RemoteIngester {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
        let oracle = self.oracle.clone();
        let call = move |role: Arc<dyn rpc::Ingester>| -> BoxFuture<'static, _> {
            let (items, oracle) = (items.clone(), oracle.clone());
            Box::pin(async move {
                let keys: Vec<ItemKey> = items.iter().map(|item| item.key).collect();
                role.push(items).await?;
                oracle.acknowledged(&keys);
                Ok(())
            })
        };
        self.network.call(self.from, &self.to, "push", call).await
    }
}

/// The metastore of another machine.
#[derive(Clone)]
pub(crate) struct RemoteMetastore {
    pub(crate) network: Network,
    pub(crate) from: Machine,
    pub(crate) to: Arc<Endpoint<dyn Metastore>>,
    pub(crate) oracle: Oracle,
}

#[async_trait]
impl Relay for RemoteMetastore {
    async fn relay<T: Send + 'static>(&self, call: Call<T>) -> Result<T, Error> {
        let method = call.method;
        self.network.call(self.from, &self.to, method, move |role| call.on(role)).await
    }

    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        let oracle = self.oracle.clone();
        let call = move |role: Arc<dyn Metastore>| {
            let (hint, oracle) = (hint.clone(), oracle.clone());
            async move {
                let (writer, seq) = (hint.writer, hint.seq);
                role.segment_written(hint).await?;
                oracle.hinted(writer, seq);
                Ok(())
            }
        };
        self.relay(Call::new("segment_written", call)).await
    }

    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let (oracle, executor) = (self.oracle.clone(), self.network.0.executor.clone());
        let call = move |role: Arc<dyn Metastore>| {
            let (request, oracle, executor) = (request.clone(), oracle.clone(), executor.clone());
            async move {
                let before = oracle.highest_version();
                let snapshot = role.find(request).await?;
                oracle.found(&snapshot, before, executor.now());
                Ok(snapshot)
            }
        };
        self.relay(Call::new("find", call)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        let (oracle, executor) = (self.oracle.clone(), self.network.0.executor.clone());
        oracle.note_deletion_step(&request, executor.now(), DeletionStep::Sent);
        let call = move |role: Arc<dyn Metastore>| {
            let (request, oracle, executor) = (request.clone(), oracle.clone(), executor.clone());
            async move {
                oracle.note_deletion_step(&request, executor.now(), DeletionStep::Arrived);
                let made = role.delete(request.clone()).await;
                oracle.note_deletion_step(&request, executor.now(), DeletionStep::Ended);
                made
            }
        };
        self.relay(Call::new("delete", call)).await
    }
}

/// The leaf of another machine.
#[derive(Clone)]
pub(crate) struct RemoteLeaf {
    pub(crate) network: Network,
    pub(crate) from: Machine,
    pub(crate) to: Arc<Endpoint<dyn rpc::Leaf>>,
}

#[async_trait]
impl rpc::Leaf for RemoteLeaf {
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        let call = move |role: Arc<dyn rpc::Leaf>| -> BoxFuture<'static, _> {
            let request = request.clone();
            Box::pin(async move { role.scan(request).await })
        };
        self.network.call(self.from, &self.to, "scan", call).await
    }
}
