//! A metastore process: a candidate, which owns the catalog at times and watches its owner otherwise.
//!
//! Owns: when the catalog is taken over, the answers until then. Does not own: the work of an owner ([`Metastore`]),
//! membership (`cluster`).
//!
//! The longest running metastore is the owner. The next one takes over when each before it leaves, or is gone from
//! membership and either refuses connections or has failed direct calls for `takeover_after`, on the monotonic clock. A
//! wrong takeover costs only time: the engine lets one owner commit, and a fenced owner becomes a candidate again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use cluster::{Callers, Member, Membership, Role};
use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use rpc::{Error, ErrorKind, Ownership as _, Standing};
use storage::Store;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::Metastore;
use crate::config::Config;
use crate::error::OpenError;
use crate::metrics::Metrics;
use crate::opening::Opening;
use crate::parts::{Parts, Resources};
use crate::rebuild::Progress;
use crate::retention::Retention;

/// Between calls of the other metastores.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A call of another metastore's standing fails after this time.
const STANDING_MAX: Duration = Duration::from_secs(1);
/// A fenced owner leaves the catalog alone for this long; twice as long each time that it is fenced again soon after.
const FENCED_PAUSE_MIN: Duration = Duration::from_secs(10);
const FENCED_PAUSE_MAX: Duration = Duration::from_secs(300);
/// An owner that is fenced within this time was fenced soon.
const FENCED_SOON: Duration = Duration::from_secs(60);
/// Before opening a catalog is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// … if the failure lasts until an operator repairs the bucket.
const LASTING_PAUSE: Duration = Duration::from_secs(60);

/// The place of a process among the metastores of its cluster.
pub struct Seat {
    /// Name of this process among the members.
    pub node: String,
    pub membership: Arc<dyn Membership>,
    pub others: Callers<dyn rpc::Metastore>,
    /// Whether members become known one after another, and not all at once: then this process gives them time first,
    /// and relies on ingesters to report the logs that they have open.
    pub discovers: bool,
}

/// A process that owns the catalog, or may come to own it.
pub struct Candidate {
    config: Config,
    store: Store,
    parts: Parts,
    retention: Retention,
    clock: Clock,
    metrics: Metrics,
    seat: Seat,
    owner: RwLock<Option<Arc<Metastore>>>,
    believed: Mutex<Standing>,
    /// Progress of a rebuild by this process.
    progress: Progress,
    stop: watch::Sender<bool>,
}

/// The answer of another metastore to a call of its standing.
enum Answer {
    Standing(Standing),
    /// No answer in time, or an error.
    Failed,
    /// Its address refuses connections, or belongs to another process now.
    Gone,
}

/// Another metastore, alive or gone a short time ago.
struct Rival {
    member: Member,
    is_present: bool,
    is_gone: bool,
    /// Since when calls of its standing have failed, on the monotonic clock.
    failing: Option<Duration>,
    /// Whether it says that it owns the catalog.
    claims: bool,
}

impl Candidate {
    /// Sends no request before [`Self::run`].
    pub fn new(
        config: Config,
        store: Store,
        parts: Parts,
        retention: Retention,
        seat: Seat,
        clock: Clock,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = Metrics::register(registry);
        let (owner, believed) = (RwLock::new(None), Mutex::default());
        let (progress, stop) = (Progress::default(), watch::Sender::new(false));
        Arc::new(Self {
            config,
            store,
            parts,
            retention,
            clock,
            metrics,
            seat,
            owner,
            believed,
            progress,
            stop,
        })
    }

    /// Takes the catalog from any owner: for a process that is the only metastore, before it serves. A catalog that
    /// has to be rebuilt first is left to [`Self::run`], so that pushes are accepted meanwhile.
    ///
    /// # Errors
    /// The catalog cannot be read, or is newer than this program.
    pub async fn take_over_at_start(&self) -> Result<(), OpenError> {
        match self.take_over(None).await {
            Err(OpenError::RebuildNeeded(reason)) => {
                self.progress.begin();
                warn!(reason, "queries are not answered until the catalog is rebuilt; pushes are accepted");
                Ok(())
            }
            taken => taken,
        }
    }

    async fn take_over(&self, rebuild: Option<&Progress>) -> Result<(), OpenError> {
        let began = self.clock.monotonic();
        let Self { config, store, parts, clock, .. } = self;
        let opened = Opening { config, store, parts, clock, rebuild }.open().await?;
        let resources = Resources {
            config: config.clone(),
            store: store.clone(),
            parts: parts.clone(),
            retention: self.retention.clone(),
            clock: clock.clone(),
            metrics: self.metrics.clone(),
            membership: self.seat.discovers.then(|| self.seat.membership.clone()),
        };
        let owner = Metastore::take_over(opened, resources).await?;
        let took = self.clock.monotonic() - began;
        info!(epoch = owner.catalog.epoch(), ?took, "owns the catalog");
        self.metrics.takeovers.inc();
        self.metrics.is_owner.set(1);
        *self.owner.write() = Some(owner);
        Ok(())
    }

    /// Watches the other metastores, and owns the catalog whenever it is this one's turn, until [`Self::drain`].
    pub async fn run(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut rivals = BTreeMap::new();
        let mut pause = FENCED_PAUSE_MIN;
        let mut not_before = self.clock.monotonic();
        let mut is_new = self.seat.discovers;
        if is_new {
            not_before += self.config.takeover_after.get();
        }
        loop {
            let owner = self.owner.read().clone();
            if let Some(owner) = owner {
                let began = self.clock.monotonic();
                // Awaited to its end, even after the stop: a commit must not be cut off.
                owner.clone().run().await;
                if *self.stop.borrow() {
                    return;
                }
                self.owner.write().take();
                self.metrics.no_longer_owner();
                if owner.is_outdated.load(Ordering::SeqCst) {
                    not_before = self.clock.monotonic();
                    continue;
                }
                self.metrics.fenced.inc();
                let now = self.clock.monotonic();
                let is_soon = now - began < FENCED_SOON;
                pause = if is_soon { (pause * 2).min(FENCED_PAUSE_MAX) } else { FENCED_PAUSE_MIN };
                (not_before, is_new) = (now + pause, false);
                warn!(?pause, "another process took the catalog: watching it from now on");
            }
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.watch_until_owner(&mut rivals, not_before, is_new) => {}
            }
        }
    }

    /// Stops if another metastore can take over. Call before the members learn that this process leaves, so that the
    /// successor finds the catalog without an owner.
    pub async fn hand_over(&self) {
        let members = self.seat.membership.members().borrow().clone();
        let mut others = members.iter().filter(|m| m.has(Role::Metastore) && m.node != self.seat.node);
        if others.any(|other| !other.is_leaving) {
            self.drain().await;
        }
    }

    /// Commits the pending rows and stops; finds are not answered here from now on.
    pub async fn drain(&self) {
        self.stop.send_replace(true);
        let owner = self.owner.write().take();
        self.metrics.is_owner.set(0);
        if let Some(owner) = owner {
            owner.drain().await;
        }
        self.metrics.no_longer_owner();
    }

    /// Whether finds are answered here, or this process knows the owner.
    pub fn is_ready(&self) -> bool {
        self.owner.read().is_some() || !self.believed.lock().owner.is_empty()
    }

    /// Returns when this process has become the owner, not before `not_before` on the monotonic clock. A new process
    /// waits only until it knows an owner.
    async fn watch_until_owner(
        &self,
        rivals: &mut BTreeMap<String, Rival>,
        mut not_before: Duration,
        mut is_new: bool,
    ) {
        let mut members = self.seat.membership.members();
        loop {
            members.borrow_and_update();
            self.look(rivals).await;
            let now = self.clock.monotonic();
            if is_new && !self.believed.lock().owner.is_empty() {
                // By now the members are known.
                (not_before, is_new) = (now, false);
            }
            if now >= not_before && self.is_its_turn(rivals) {
                match self.take_over(Some(&self.progress)).await {
                    Ok(()) => {
                        self.progress.end();
                        return;
                    }
                    Err(error) => {
                        // A record that cannot be read stays so until an operator repairs it.
                        let is_lasting = matches!(error, OpenError::Conflict(_) | OpenError::Object { .. });
                        let pause = if is_lasting { LASTING_PAUSE } else { FAILED_PAUSE };
                        let error: &dyn std::error::Error = &error;
                        warn!(error, "cannot take the catalog over, trying again");
                        not_before = self.clock.monotonic() + pause;
                    }
                }
            }
            self.clock.timeout(LOOK_INTERVAL, members.changed()).await;
        }
    }

    /// The progress of a rebuild of the catalog, in words; `None` if there is none.
    pub fn rebuilding(&self) -> Option<String> {
        self.progress.is_running().then(|| self.progress.to_string())
    }

    /// Updates `rivals`: calls the standing of each.
    async fn look(&self, rivals: &mut BTreeMap<String, Rival>) {
        let members = self.seat.membership.members().borrow().clone();
        rivals.values_mut().for_each(|rival| rival.is_present = false);
        for member in members.iter().filter(|m| m.has(Role::Metastore) && m.node != self.seat.node) {
            let (member, is_present) = (member.clone(), true);
            match rivals.get_mut(&member.node) {
                Some(rival) => (rival.member, rival.is_present) = (member, is_present),
                None => {
                    let node = member.node.clone();
                    rivals.insert(
                        node,
                        Rival { member, is_present, is_gone: false, failing: None, claims: false },
                    );
                }
            }
        }
        let began = self.clock.monotonic();
        let asked = rivals.values_mut().map(|rival| async {
            let answer = self.ask(&rival.member).await;
            rival.is_gone = matches!(answer, Answer::Gone);
            let standing = match answer {
                Answer::Standing(standing) => Some(standing),
                Answer::Failed | Answer::Gone => None,
            };
            rival.claims = standing.as_ref().is_some_and(|standing| standing.is_owner);
            rival.failing = match &standing {
                Some(_) => None,
                None => rival.failing.or(Some(began)),
            };
            standing
        });
        let standings = join_all(asked).await;
        let owner = standings.into_iter().flatten().filter(|s| s.is_owner).max_by_key(|s| s.epoch);
        self.believe(owner);
        let now = self.clock.monotonic();
        let is_over = |since: Duration| now - since >= self.config.takeover_after.get();
        rivals.retain(|_, rival| rival.is_present || !(rival.is_gone || rival.failing.is_some_and(is_over)));
    }

    async fn ask(&self, member: &Member) -> Answer {
        let Some(metastore) = self.seat.others.of(member) else {
            return Answer::Failed;
        };
        match self.clock.timeout(STANDING_MAX, metastore.standing()).await {
            Some(Ok(standing)) if standing.node == member.node => Answer::Standing(standing),
            Some(Ok(_)) => Answer::Gone,
            Some(Err(error)) if error.is_refused() => Answer::Gone,
            Some(Err(_)) | None => Answer::Failed,
        }
    }

    fn believe(&self, owner: Option<Standing>) {
        let mut believed = self.believed.lock();
        match owner {
            Some(owner) => {
                *believed = Standing { owner: owner.node, epoch: owner.epoch, ..Standing::default() }
            }
            None => believed.owner.clear(),
        }
    }

    /// Whether no other metastore has a better rank or owns the catalog. Leaving ones do not count.
    fn is_its_turn(&self, rivals: &BTreeMap<String, Rival>) -> bool {
        let members = self.seat.membership.members().borrow().clone();
        let Some(me) = members.iter().find(|member| member.node == self.seat.node) else {
            return false;
        };
        let mut others = rivals.values().filter(|rival| !rival.member.is_leaving);
        !me.is_leaving && !others.any(|rival| rival.claims || rival.member.rank() < me.rank())
    }

    fn owner(&self) -> Result<Arc<Metastore>, Error> {
        self.owner.read().clone().ok_or_else(|| {
            if let Some(progress) = self.rebuilding() {
                return Error::new(ErrorKind::Unavailable, progress);
            }
            let text = match self.believed.lock().owner.as_str() {
                "" => "it does not own the catalog, and knows no owner".to_owned(),
                owner => format!("it does not own the catalog, {owner} does"),
            };
            Error::new(ErrorKind::Unavailable, text)
        })
    }
}

#[async_trait]
impl rpc::Relay for Candidate {
    async fn relay<T: Send + 'static>(&self, call: rpc::Call<T>) -> Result<T, Error> {
        call.on(self.owner()?).await
    }

    async fn standing(&self) -> Result<Standing, Error> {
        let owner = self.owner.read().clone();
        let standing = match owner {
            Some(owner) => Standing { owner: self.seat.node.clone(), ..owner.standing().await? },
            None => self.believed.lock().clone(),
        };
        Ok(Standing { node: self.seat.node.clone(), ..standing })
    }
}
