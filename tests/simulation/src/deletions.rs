//! Requests for deletions.
//!
//! Owns: drawing deletions, retrying until one is answered. Does not own: the effect that a deletion must have
//! ([`crate::oracle`]).

use std::sync::Arc;
use std::time::Duration;

use model::TimeRange;
use query::{Matcher, Selector};
use rpc::{DeleteRequest, DeletionProgress};

use crate::audit::audit;
use crate::executor::START;
use crate::fleet::Fleet;
use crate::load::{LASTING, SERVICES, tenant_of};
use crate::machine::Kind;
use crate::oracle::{DeletionId, Item};
use crate::random::Random;

/// Most requests for one deletion.
const TRIES_MAX: u64 = 5;

/// The data that a deletion erases, among those stored before it.
#[derive(Clone, Debug)]
pub(crate) struct DeletionTarget {
    pub(crate) request: DeleteRequest,
    /// A text that occurs in its matchers and nowhere else.
    pub(crate) mark: String,
}

impl DeletionTarget {
    pub(crate) fn is_about(&self, item: &Item) -> bool {
        let DeleteRequest { tenant, selector, range } = &self.request;
        *tenant == item.tenant
            && (range.start..range.end).contains(&item.time_nanos)
            && selector.matchers.iter().all(|matcher| match &*matcher.name {
                "service_name" => matcher.matches(item.service),
                _ => matcher.matches(&item.pod()),
            })
    }
}

/// Requests deletions until `until`.
pub(crate) async fn keep_deleting(fleet: Arc<Fleet>, until: Duration, mut random: Random) {
    let every = fleet.settings.deletion_every.as_millis() as u64;
    loop {
        fleet.executor.sleep(random.millis(every / 4, 2 * every)).await;
        if fleet.executor.now() >= until {
            return;
        }
        let now = (START + fleet.executor.now()).as_nanos() as i64;
        let deletion = fleet.oracle.deletion(|number| draw(number, now, &mut random), fleet.executor.now());
        let asking = ask(fleet.clone(), deletion, random.fork());
        fleet.executor.spawn(fleet.executor.start("deletion client"), asking);
    }
}

fn draw(number: usize, now_nanos: i64, random: &mut Random) -> DeletionTarget {
    let mark = format!("deletion-{number}.");
    let pod = Matcher::regex("pod", &format!("pod-{}|{mark}", random.below(3)), false);
    let service = SERVICES[random.below(3) as usize];
    let service = random.chance(600).then(|| Matcher::equal("service_name", service));
    let end = if random.chance(400) { i64::MAX } else { now_nanos };
    let hours = [1, 6, 96][random.below(3) as usize];
    let start = if random.chance(400) { i64::MIN } else { now_nanos - hours * 3_600_000_000_000 };
    let request = DeleteRequest {
        tenant: tenant_of(LASTING[random.below(2) as usize]),
        selector: Selector { matchers: pod.into_iter().chain(service).collect() },
        range: TimeRange { start, end },
    };
    DeletionTarget { request, mark }
}

async fn ask(fleet: Arc<Fleet>, deletion: DeletionId, random: Random) {
    ask_until_answered(&fleet, deletion, random).await;
    fleet.oracle.stop_asking(deletion, fleet.executor.now());
}

async fn ask_until_answered(fleet: &Fleet, deletion: DeletionId, mut random: Random) {
    let queriers = fleet.machines_of(Kind::Querier);
    let request = fleet.oracle.request_of(deletion);
    fleet.note(format_args!("deletion requested: {} of {}", request.selector, request.tenant));
    for _ in 0..TRIES_MAX {
        let Some(querier) = random.pick(&queriers).copied() else {
            return;
        };
        match fleet.delete(querier, request.clone()).await {
            Ok(status) => {
                fleet.note(format_args!("deletion {} is in force: {}", status.number, request.selector));
                fleet.oracle.answered(deletion, fleet.executor.now());
                // Audited at once: once the data are erased, even a catalog that lost the deletion answers correctly.
                if random.chance(200) {
                    audit(fleet).await;
                }
                return;
            }
            Err(error) => fleet.note(format_args!("{} is in doubt: {error}", request.selector)),
        }
        fleet.executor.sleep(random.millis(100, 10_000)).await;
    }
}

/// Checks, long after the last deletion, that no erased data and no text of a deletion are in the bucket.
pub(crate) async fn judge_finished(fleet: &Fleet) {
    let Some(owner) = fleet.current_owner().await else {
        fleet.oracle.violate("stuck", "no owner of the catalog after the storm");
        return;
    };
    for tenant in LASTING {
        match owner.deletions(tenant_of(tenant)).await {
            Ok(deletions) => {
                for status in deletions {
                    if !matches!(status.progress, DeletionProgress::Finished { .. }) {
                        let details =
                            format!("deletion {} of {tenant} is still {:?}", status.number, status.progress);
                        fleet.oracle.violate("I16", details);
                    }
                }
            }
            Err(error) => fleet.oracle.violate("stuck", format!("cannot list the deletions: {error}")),
        }
    }
    fleet.oracle.judge_erased(&fleet.bucket.objects().contents().await);
}
