//! `/api/v1/delete`: deletions, for people and scripts.
//!
//! Owns: what a deletion looks like in JSON, the trial run. Does not own: what becomes of a deletion (the metastore).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use edge::Body;
use edge::rest::json_response;
use model::label_names::SERVICE_NAME;
use model::{TenantId, TimeRange};
use query::kind::heatmap;
use query::{Answer, Kind, Query, Selector};
use rpc::{DeleteRequest, DeletionProgress, DeletionStatus};
use serde::{Deserialize, Serialize};

use crate::http::render::refusal;
use crate::http::request::selector;
use crate::{Asker, Error, Querier};

/// What to delete.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// At least one matcher.
    selector: String,
    /// In Unix milliseconds; included.
    start: i64,
    /// In Unix milliseconds; not included.
    end: i64,
    /// Only say what would be deleted.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Trial {
    dry_run: bool,
    profiles: u64,
    services: Vec<Service>,
    /// Segments and blocks that may have to be rewritten.
    objects: usize,
    /// Objects that could not be read; what they hold is not counted.
    unreadable: usize,
}

#[derive(Serialize)]
struct Service {
    name: String,
    profiles: u64,
}

#[derive(Serialize)]
struct Deletion {
    number: u64,
    created: i64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
    /// That may still hold something that it erases.
    objects_left: usize,
    /// Of those, the ones that cannot be read, and so not be rewritten.
    objects_unreadable: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<i64>,
}

#[derive(Serialize)]
struct Deletions {
    #[serde(rename = "orders")]
    deletions: Vec<Deletion>,
}

pub(crate) async fn delete(State(querier): State<Arc<Querier>>, asker: Asker, body: Body) -> Response {
    match answer(&querier, &asker, &body.bytes).await {
        Ok(response) => response,
        Err(error) => refusal(error),
    }
}

pub(crate) async fn list(State(querier): State<Arc<Querier>>, asker: Asker) -> Response {
    let listed = async {
        let deletions = querier.metastore.deletions(tenant(&asker)?).await?;
        Ok::<_, Error>(json_response(&Deletions { deletions: deletions.into_iter().map(deletion).collect() }))
    };
    listed.await.unwrap_or_else(refusal)
}

async fn answer(querier: &Querier, asker: &Asker, body: &[u8]) -> Result<Response, Error> {
    let tenant = tenant(asker)?;
    let asked: Asked = serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!(
            "the body is not what it must be, {{\"selector\", \"start\", \"end\"}}: {error}"
        ))
    })?;
    let selector = selector(&asked.selector)?;
    if selector.is_empty() {
        let what = "selector {} would delete everything: name at least one matcher, \
                    for example {service_name=\"app\"}";
        return Err(Error::invalid(what));
    }
    if asked.start >= asked.end {
        return Err(Error::invalid(format!("end {} is not after start {}", asked.end, asked.start)));
    }
    let nanos = |millis: i64| millis.saturating_mul(1_000_000);
    let range = TimeRange { start: nanos(asked.start), end: nanos(asked.end) };
    if asked.dry_run {
        return Ok(json_response(&trial(querier, asker, selector, range).await?));
    }
    let made = querier.metastore.delete(DeleteRequest { tenant, selector, range }).await?;
    Ok(json_response(&deletion(made)))
}

fn tenant(asker: &Asker) -> Result<TenantId, Error> {
    match asker.tenants() {
        [tenant] => Ok(tenant.clone()),
        tenants => Err(Error::invalid(format!("deletions are of 1 tenant, got {}", tenants.len()))),
    }
}

/// Counts what a deletion would erase.
async fn trial(
    querier: &Querier,
    asker: &Asker,
    selector: Selector,
    range: TimeRange,
) -> Result<Trial, Error> {
    // Every profile is a point in one slot.
    let (start_millis, end_millis) = (range.start / 1_000_000, range.end / 1_000_000);
    let question = heatmap::Question {
        start_millis,
        end_millis,
        step_millis: end_millis.saturating_sub(start_millis).max(1),
        of: heatmap::Of::Profiles,
        group_by: vec![SERVICE_NAME.into()],
        exemplars: false,
    };
    let query = Query { range, selector, profile_type: None, kind: Kind::Heatmap(question) };
    let objects = querier.find(asker, &query).await?.objects.len();
    let answered = querier.execute(asker, query).await?;
    let Answer::Heatmap(points) = answered.partial.answer else {
        return Err(Error::Internal("a count was answered with something else".into()));
    };
    let mut services: Vec<Service> = Vec::new();
    for point in points.as_slice() {
        let name = point.group.get(SERVICE_NAME).unwrap_or_default();
        match services.iter_mut().find(|service| service.name == name) {
            Some(service) => service.profiles += 1,
            None => services.push(Service { name: name.to_owned(), profiles: 1 }),
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let profiles = services.iter().map(|service| service.profiles).sum();
    let unreadable = answered.report.missing.len();
    Ok(Trial { dry_run: true, profiles, services, objects, unreadable })
}

fn deletion(status: DeletionStatus) -> Deletion {
    let millis = |nanos: i64| nanos.div_euclid(1_000_000);
    let about = status.deletion.as_ref();
    let (state, objects_left, objects_unreadable, finished) = match status.progress {
        DeletionProgress::Rewriting { objects, unreadable } => {
            ("rewriting", objects + unreadable, unreadable, None)
        }
        DeletionProgress::Sweeping { objects } => ("sweeping", objects, 0, None),
        DeletionProgress::Finished { millis } => ("finished", 0, 0, Some(millis)),
    };
    Deletion {
        number: status.number,
        created: status.created_millis,
        state,
        selector: about.map(|deletion| deletion.selector.to_string()),
        start: about.map(|deletion| millis(deletion.range.start)),
        end: about.map(|deletion| millis(deletion.range.end)),
        objects_left,
        objects_unreadable,
        finished,
    }
}
