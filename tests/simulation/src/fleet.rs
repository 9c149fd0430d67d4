//! The machines of a run, and the composition of their processes.
//!
//! Owns: starting and stopping processes, and which processes each of them calls.
//! Does not own: when ([`crate::storm`]), the pushes and queries ([`crate::load`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use catalog::NumberedCatalog;
use clock::{Clock, Pool};
use cluster::{Callers, FixedMembers, Ingesters, LastKnown, Member, Membership, Owner};
use futures::future::{self, BoxFuture, Either};
use metastore::{Candidate, Parts, Seat, Viewer};
use model::{ItemKey, PushItem, TenantId};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use querier::{FixedLeaves, NamedLeaf, Querier};
use rpc::ObjectIndex as _;
use storage::{Key, Store};
use tokio::sync::oneshot;

use crate::bucket::{Bucket, ID_TAG, Objects};
use crate::executor::{Executor, ProcessId};
use crate::journal::Journal;
use crate::load::everything;
use crate::machine::{Kind, Machine};
use crate::network::{Endpoint, Network, RemoteIngester, RemoteLeaf, RemoteMetastore};
use crate::oracle::Oracle;
use crate::planted::Planted;
use crate::random::Random;
use crate::settings::Settings;
use crate::watched::CheckedEngine;

/// Longest time for a process to stop by itself.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Time after which a distributor gives up a push.
const PUSH_MAX: Duration = Duration::from_secs(10);
/// Longest time that a client waits for a deletion.
const DELETE_MAX: Duration = Duration::from_secs(60);

/// How long each metastore is asked directly after one has opened the catalog.
const ASKED_AFTER_OPENING: Duration = Duration::from_secs(4);

/// The tenant whose data have an age.
pub(crate) const SHORT_LIVED: &str = "short";

pub(crate) struct Fleet {
    pub(crate) executor: Executor,
    pub(crate) journal: Journal,
    pub(crate) oracle: Oracle,
    pub(crate) bucket: Bucket,
    pub(crate) network: Network,
    pub(crate) settings: Settings,
    planted: Option<Planted>,
    /// An older copy of the catalog's files.
    pub(crate) older_catalog: Mutex<Option<Objects>>,
    /// Objects of another cluster that were mixed into the bucket.
    pub(crate) others: Mutex<Vec<(Key, Bytes)>>,
    hosts: BTreeMap<Machine, Host>,
    distributors: BTreeMap<Machine, Arc<Endpoint<dyn rpc::Ingester>>>,
    ingesters: BTreeMap<Machine, Arc<Endpoint<dyn rpc::Ingester>>>,
    metastores: BTreeMap<Machine, Arc<Endpoint<dyn rpc::Metastore>>>,
    leaves: BTreeMap<Machine, Arc<Endpoint<dyn rpc::Leaf>>>,
    roots: BTreeMap<Machine, Arc<Endpoint<Querier>>>,
    /// The owner of the catalog as each querier finds it.
    owners: BTreeMap<Machine, Arc<Endpoint<dyn rpc::Metastore>>>,
}

struct Host {
    /// Lead of its wall clock over the true time.
    skew_nanos: Arc<AtomicI64>,
    random: Mutex<Random>,
    process: Mutex<Option<ProcessId>>,
    /// The members that its process takes for alive.
    membership: Mutex<Arc<FixedMembers>>,
    /// Drains the process.
    drain: Mutex<Option<Drain>>,
}

/// The node name of a process; a new one after every start.
fn node_of(machine: Machine, process: ProcessId) -> String {
    format!("{machine}/{process:?}")
}

type Drain = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

impl Fleet {
    pub(crate) fn new(
        executor: Executor,
        journal: Journal,
        settings: Settings,
        planted: Option<Planted>,
        random: &mut Random,
    ) -> Arc<Self> {
        let oracle = Oracle::new(journal.clone());
        let bucket = Bucket::new(
            executor.clone(),
            journal.clone(),
            oracle.clone(),
            random.fork(),
            planted == Some(Planted::Overwrites),
        );
        let network = Network::new(executor.clone(), journal.clone(), random.fork());
        let distributors = Machine::all(Kind::Distributor, settings.distributors);
        let ingesters = Machine::all(Kind::Ingester, settings.ingesters);
        let metastores = Machine::all(Kind::Metastore, settings.metastores);
        let queriers = || Machine::all(Kind::Querier, settings.queriers);
        let host = |machine: Machine| {
            let host = Host {
                skew_nanos: Arc::default(),
                random: Mutex::new(random.fork()),
                process: Mutex::new(None),
                membership: Mutex::new(Arc::new(FixedMembers::new("", Vec::new()))),
                drain: Mutex::new(None),
            };
            (machine, host)
        };
        let all = [
            (Kind::Metastore, settings.metastores),
            (Kind::Ingester, settings.ingesters),
            (Kind::Distributor, settings.distributors),
            (Kind::Compactor, settings.compactors),
            (Kind::Querier, settings.queriers),
        ];
        let machines = all.into_iter().flat_map(|(kind, count)| Machine::all(kind, count));
        Arc::new(Self {
            hosts: machines.map(host).collect(),
            distributors: distributors.map(|machine| (machine, Endpoint::new(machine))).collect(),
            ingesters: ingesters.map(|machine| (machine, Endpoint::new(machine))).collect(),
            metastores: metastores.map(|machine| (machine, Endpoint::new(machine))).collect(),
            leaves: queriers().map(|machine| (machine, Endpoint::new(machine))).collect(),
            roots: queriers().map(|machine| (machine, Endpoint::new(machine))).collect(),
            owners: queriers().map(|machine| (machine, Endpoint::new(machine))).collect(),
            executor,
            journal,
            oracle,
            bucket,
            network,
            settings,
            planted,
            older_catalog: Mutex::new(None),
            others: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, event: std::fmt::Arguments<'_>) {
        self.journal.note(event);
    }

    pub(crate) fn machines(&self) -> Vec<Machine> {
        self.hosts.keys().copied().collect()
    }

    pub(crate) fn machines_of(&self, kind: Kind) -> Vec<Machine> {
        self.hosts.keys().copied().filter(|machine| machine.kind == kind).collect()
    }

    fn host(&self, machine: Machine) -> &Host {
        &self.hosts[&machine]
    }

    pub(crate) fn process(&self, machine: Machine) -> Option<ProcessId> {
        let process = *self.host(machine).process.lock();
        process.filter(|process| self.executor.is_alive(*process))
    }

    pub(crate) fn set_skew(&self, machine: Machine, nanos: i64) {
        self.host(machine).skew_nanos.store(nanos, Ordering::SeqCst);
    }

    pub(crate) fn skew(&self, machine: Machine) -> i64 {
        self.host(machine).skew_nanos.load(Ordering::SeqCst)
    }

    /// The member that the process of a machine announces; `None` if it is dead or paused.
    pub(crate) fn announced_by(&self, machine: Machine) -> Option<Member> {
        let process = self.process(machine).filter(|process| !self.executor.is_paused(*process))?;
        let members = self.host(machine).membership.lock().members().borrow().clone();
        members.iter().find(|member| member.node == node_of(machine, process)).cloned()
    }

    /// Sets the members that the process of `machine` takes for alive, besides itself.
    pub(crate) fn set_membership(&self, machine: Machine, others: &[Member]) {
        let Some(me) = self.announced_by(machine) else {
            return;
        };
        let others = others.iter().filter(|other| other.name != me.name).cloned();
        let members: Vec<Member> = others.chain([me.clone()]).collect();
        let membership = self.host(machine).membership.lock().clone();
        let known = membership.members().borrow().clone();
        if known.len() != members.len() || !members.iter().all(|member| known.contains(member)) {
            membership.set(members);
        }
    }

    /// A clock of the machine, for one process on it.
    fn clock(&self, machine: Machine, process: ProcessId) -> Clock {
        let host = self.host(machine);
        self.executor.clock(process, host.skew_nanos.clone(), host.random.lock().fork())
    }

    fn store(&self, machine: Machine, clock: &Clock) -> Store {
        let way = self.bucket.from(machine);
        let way = match &self.planted {
            Some(planted) => planted.store(machine, way, &self.executor),
            None => way,
        };
        let store = Store::new(way, clock.clone(), storage::Metrics::default());
        match self.planted {
            Some(Planted::OthersTakenForOwn) => store,
            _ => store.tagged(ID_TAG),
        }
    }

    /// Callers of all ingesters that the process of `from` knows.
    fn ingesters(&self, from: Machine) -> Callers<dyn rpc::Ingester> {
        let (network, oracle, places) = (self.network.clone(), self.oracle.clone(), self.ingesters.clone());
        let planted = self.planted;
        let membership = self.host(from).membership.lock().clone();
        Callers::new(&*membership, move |member| {
            let place = places.values().find(|place| place.machine.to_string() == member.name)?;
            let (network, oracle, to) = (network.clone(), oracle.clone(), place.clone());
            let remote = Arc::new(RemoteIngester { network, from, to, oracle });
            Some(match planted {
                Some(planted) => planted.ingester(place.machine, remote),
                None => remote,
            })
        })
    }

    /// Calls the process at `place`; fails if it does not answer within `limit` or dies.
    async fn ask<R: ?Sized + Send + Sync + 'static, T: Send + 'static>(
        &self,
        place: &Endpoint<R>,
        limit: Duration,
        call: impl FnOnce(Arc<R>) -> BoxFuture<'static, Result<T, rpc::Error>> + Send + 'static,
    ) -> Result<T, rpc::Error> {
        let machine = place.machine;
        let failed = move |why| rpc::Error::new(rpc::ErrorKind::Unavailable, format!("{machine} {why}"));
        let (process, role) = place.get().ok_or_else(|| failed("does not run"))?;
        let (reply, answer) = oneshot::channel();
        let sleep = self.executor.sleep(limit);
        self.executor.spawn(process, async move {
            let answered = match future::select(call(role), sleep).await {
                Either::Left((answered, _)) => answered,
                Either::Right(_) => Err(failed("takes too long")),
            };
            let _ = reply.send(answered);
        });
        answer.await.unwrap_or_else(|_| Err(failed("is gone")))
    }

    /// Pushes like an agent, through the distributor of a machine.
    pub(crate) async fn push(&self, through: Machine, items: Vec<PushItem>) -> Result<(), rpc::Error> {
        let oracle = self.oracle.clone();
        // With this bug an item has another key in the log, so its own key is in none.
        let keeps_keys = self.planted != Some(Planted::NewKeyOnRetry);
        let push = move |distributor: Arc<dyn rpc::Ingester>| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let keys: Vec<ItemKey> = items.iter().map(|item| item.key).collect();
                distributor.push(items).await?;
                if keeps_keys {
                    oracle.acknowledged(&keys);
                }
                Ok(())
            })
        };
        self.ask(&self.distributors[&through], PUSH_MAX, push).await
    }

    /// Sends a deletion to the querier of a machine.
    pub(crate) async fn delete(
        &self,
        through: Machine,
        request: rpc::DeleteRequest,
    ) -> Result<rpc::DeletionStatus, rpc::Error> {
        let delete = move |owner: Arc<dyn rpc::Metastore>| -> BoxFuture<'static, _> {
            Box::pin(async move { owner.delete(request).await })
        };
        self.ask(&self.owners[&through], DELETE_MAX, delete).await
    }

    /// Callers of all metastores that the process of `from` knows.
    fn metastores(&self, from: Machine) -> Callers<dyn rpc::Metastore> {
        let (network, oracle, places) = (self.network.clone(), self.oracle.clone(), self.metastores.clone());
        let membership = self.host(from).membership.lock().clone();
        Callers::new(&*membership, move |member| {
            let place = places.values().find(|place| place.machine.to_string() == member.name)?;
            let (network, oracle, to) = (network.clone(), oracle.clone(), place.clone());
            Some(Arc::new(RemoteMetastore { network, from, to, oracle }) as Arc<dyn rpc::Metastore>)
        })
    }

    /// The metastore that owns the catalog, as a process of `from` finds it.
    fn owner(
        &self,
        from: Machine,
        clock: &Clock,
        last_known: Option<Arc<dyn LastKnown>>,
    ) -> Arc<dyn rpc::Metastore> {
        let owner = Arc::new(Owner::new(self.metastores(from), last_known, clock.clone()));
        match &self.planted {
            Some(planted) => planted.metastore(owner),
            None => owner,
        }
    }

    fn parts(&self, store: &Store, clock: &Clock) -> Parts {
        let engine = NumberedCatalog::new(store.clone(), clock.clone(), self.settings.catalog.options());
        let engine = Arc::new(CheckedEngine::new(engine, self.oracle.clone()));
        let parts = Parts { engine, ..Parts::with(&self.settings.metastore, store, clock) };
        match &self.planted {
            Some(planted) => planted.parts(parts),
            None => parts,
        }
    }

    fn metastore_config(&self) -> metastore::Config {
        let config = self.settings.metastore.clone();
        match &self.planted {
            Some(planted) => planted.config(config),
            None => config,
        }
    }

    pub(crate) fn root(&self, machine: Machine) -> Option<(ProcessId, Arc<Querier>)> {
        self.roots[&machine].get().filter(|(process, _)| self.executor.is_alive(*process))
    }

    /// Starts a process on a machine that has none.
    pub(crate) fn start(self: &Arc<Self>, machine: Machine) {
        if self.process(machine).is_some() {
            return;
        }
        self.note(format_args!("{machine} starts"));
        let process = self.executor.start(machine.to_string());
        *self.host(machine).process.lock() = Some(process);
        let clock = self.clock(machine, process);
        let store = self.store(machine, &clock);
        let mut registry = Registry::default();
        let me = Member {
            name: machine.to_string(),
            address: machine.to_string(),
            zone: self.settings.zone_of(machine),
            started_millis: clock.unix_millis(),
            ..Member::new(node_of(machine, process), [machine.kind.role()])
        };
        let membership = Arc::new(FixedMembers::new(me.node.clone(), vec![me.clone()]));
        *self.host(machine).membership.lock() = membership.clone();
        let drain: Option<Drain> = match machine.kind {
            Kind::Distributor => {
                let ingesters = Ingesters::new(self.ingesters(machine), me.zone, clock, &mut registry);
                let ingesters: Arc<dyn rpc::Ingester> = match &self.planted {
                    Some(planted) => planted.distributor(Arc::new(ingesters)),
                    None => Arc::new(ingesters),
                };
                self.distributors[&machine].set(process, ingesters);
                None
            }
            Kind::Ingester => {
                let (config, metastore) = (self.settings.ingester.clone(), self.owner(machine, &clock, None));
                let pool = Pool::inline();
                let ingester =
                    ingester::Ingester::start(config, store, metastore, clock, pool, &mut registry);
                self.ingesters[&machine].set(process, ingester.clone());
                let (mut writers, announced) = (ingester.writers(), membership.clone());
                self.executor.spawn(process, async move {
                    loop {
                        announced.set_writers(writers.borrow_and_update().clone());
                        if writers.changed().await.is_err() {
                            return;
                        }
                    }
                });
                Some(Box::new(move || {
                    Box::pin(async move {
                        membership.leave().await;
                        ingester.drain().await;
                    })
                }))
            }
            Kind::Metastore => {
                let seat = Seat {
                    node: me.node,
                    membership: membership.clone(),
                    others: self.metastores(machine),
                    discovers: true,
                };
                let (config, parts) = (self.metastore_config(), self.parts(&store, &clock));
                let (retention, running) = (self.retention(), clock.clone());
                let candidate = Candidate::new(config, store, parts, retention, seat, clock, &mut registry);
                self.metastores[&machine].set(process, candidate.clone());
                running.spawn_vital("metastore", candidate.clone().run());
                Some(Box::new(move || {
                    Box::pin(async move {
                        candidate.hand_over().await;
                        membership.leave().await;
                        candidate.drain().await;
                    })
                }))
            }
            Kind::Compactor => {
                let (config, metastore) =
                    (self.settings.compactor.clone(), self.owner(machine, &clock, None));
                let pool = Pool::inline();
                let compactor = compactor::Compactor::new(
                    config,
                    memory::Share::unlimited(),
                    store,
                    metastore,
                    clock.clone(),
                    pool,
                    &mut registry,
                );
                clock.spawn_vital("compactor", compactor.clone().run());
                Some(Box::new(move || Box::pin(async move { compactor.drain().await })))
            }
            Kind::Querier => {
                self.start_querier(machine, process, store, clock, &mut registry);
                None
            }
        };
        *self.host(machine).drain.lock() = drain;
    }

    fn start_querier(
        &self,
        machine: Machine,
        process: ProcessId,
        store: Store,
        clock: Clock,
        registry: &mut Registry,
    ) {
        let config = self.settings.querier.clone();
        let pool = Pool::inline();
        let (cache, memory) = (block::Cache::new(1 << 20), memory::Share::unlimited());
        let leaf = Arc::new(querier::Leaf::new(
            &config,
            memory.clone(),
            store.clone(),
            cache,
            pool.clone(),
            clock.clone(),
        ));
        let leaf: Arc<dyn rpc::Leaf> = match &self.planted {
            Some(planted) => planted.leaf(leaf),
            None => leaf,
        };
        self.leaves[&machine].set(process, leaf);
        let remote = |to: &Arc<Endpoint<dyn rpc::Leaf>>| -> NamedLeaf {
            let (network, to) = (self.network.clone(), to.clone());
            (to.machine.to_string(), Arc::new(RemoteLeaf { network, from: machine, to }))
        };
        let leaves = Arc::new(FixedLeaves(self.leaves.values().map(remote).collect()));
        let limits = Arc::new(limits::Overrides::uniform(limits::Limits::default()));
        let (engine, retention) = (self.parts(&store, &clock).engine, self.retention());
        let viewer = Arc::new(Viewer::new(self.metastore_config(), engine, retention, clock.clone()));
        let metastore = self.owner(machine, &clock, Some(viewer));
        self.owners[&machine].set(process, metastore.clone());
        let root = Querier::new(config, memory, metastore, leaves, limits, pool, clock, registry);
        self.roots[&machine].set(process, root);
    }

    pub(crate) fn retention(&self) -> metastore::Retention {
        let period = self.settings.retention;
        if self.planted == Some(Planted::NoRetention) {
            return Arc::new(|_: &TenantId, _: Option<&str>| None);
        }
        Arc::new(move |tenant: &TenantId, _: Option<&str>| (tenant.as_str() == SHORT_LIVED).then_some(period))
    }

    /// Asks each metastore directly for some seconds after each opening of the catalog: no two may answer as its
    /// owner.
    pub(crate) async fn keep_finding(self: Arc<Self>, until: Duration, mut random: Random) {
        let (queriers, metastores) =
            (self.machines_of(Kind::Querier), self.metastores.values().cloned().collect::<Vec<_>>());
        let (mut epoch, mut opened) = (0, Duration::ZERO);
        while self.executor.now() < until {
            self.executor.sleep(random.millis(10, 100)).await;
            if epoch < self.oracle.newest_epoch() {
                (epoch, opened) = (self.oracle.newest_epoch(), self.executor.now());
            }
            if self.executor.now() - opened > ASKED_AFTER_OPENING {
                continue;
            }
            if let (Some(from), Some(to)) = (random.pick(&queriers), random.pick(&metastores)) {
                let (network, oracle, from, to) =
                    (self.network.clone(), self.oracle.clone(), *from, to.clone());
                let metastore = RemoteMetastore { network, from, to, oracle };
                let asking = async move {
                    // The answer is judged where it is made.
                    _ = metastore.find(everything().find()).await;
                };
                self.executor.spawn(self.executor.start("metastore client"), asking);
            }
        }
    }

    /// The metastore that owns the catalog right now.
    pub(crate) async fn current_owner(&self) -> Option<Arc<dyn rpc::Metastore>> {
        for place in self.metastores.values() {
            if let Some((process, metastore)) = place.get()
                && self.executor.is_alive(process)
                && metastore
                    .standing()
                    .await
                    .is_ok_and(|standing| standing.is_owner && standing.owner == standing.node)
            {
                return Some(metastore);
            }
        }
        None
    }

    /// The live objects according to the owner; `None` without an owner.
    pub(crate) async fn live(&self) -> Option<Vec<storage::Key>> {
        let snapshot = self.current_owner().await?.find(crate::load::everything().find()).await.ok()?;
        Some(snapshot.objects.into_iter().map(|object| object.key).collect())
    }

    /// Drops all references to this run.
    pub(crate) fn end(&self) {
        self.distributors.values().for_each(|place| place.clear());
        self.ingesters.values().for_each(|place| place.clear());
        self.metastores.values().for_each(|place| place.clear());
        self.leaves.values().for_each(|place| place.clear());
        self.roots.values().for_each(|place| place.clear());
        self.owners.values().for_each(|place| place.clear());
        self.hosts.values().for_each(|host| drop(host.drain.lock().take()));
    }

    pub(crate) fn kill(&self, machine: Machine) {
        if let Some(process) = self.host(machine).process.lock().take() {
            self.note(format_args!("{machine} dies"));
            self.executor.kill(process);
        }
        self.host(machine).drain.lock().take();
    }

    /// Drains a process, and kills it after [`DRAIN_MAX`].
    pub(crate) async fn stop(&self, machine: Machine) {
        let (Some(process), drain) = (self.process(machine), self.host(machine).drain.lock().take()) else {
            return;
        };
        self.note(format_args!("{machine} drains"));
        if let Some(drain) = drain {
            let (done, drained) = oneshot::channel();
            let draining = drain();
            self.executor.spawn(process, async move {
                draining.await;
                let _ = done.send(());
            });
            future::select(drained, self.executor.sleep(DRAIN_MAX)).await;
        }
        // The process may have died and been replaced meanwhile.
        if self.process(machine) == Some(process) {
            self.kill(machine);
        }
    }
}
