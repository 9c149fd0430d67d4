//! `/api/v1/delete`: deletions, for people and scripts.
//!
//! Owns: the JSON of a deletion, the trial run. Does not own: the progress of a deletion (the metastore).

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
use crate::{Client, Error, Querier};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct DeleteBody {
    /// At least one matcher.
    selector: String,
    /// In Unix milliseconds, inclusive.
    start: i64,
    /// In Unix milliseconds, exclusive.
    end: i64,
    /// Only report what would be deleted.
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
    /// Objects that could not be read; their profiles are not counted.
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
    /// Objects that may still hold data of the deletion.
    objects_left: usize,
    /// Those of `objects_left` that cannot be read, and therefore not be rewritten.
    objects_unreadable: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<i64>,
}

#[derive(Serialize)]
struct Deletions {
    #[serde(rename = "orders")]
    deletions: Vec<Deletion>,
}

pub(crate) async fn delete(State(querier): State<Arc<Querier>>, client: Client, body: Body) -> Response {
    match answer(&querier, &client, &body.bytes).await {
        Ok(response) => response,
        Err(error) => refusal(error),
    }
}

pub(crate) async fn list(State(querier): State<Arc<Querier>>, client: Client) -> Response {
    let listed = async {
        let deletions = querier.metastore.deletions(tenant(&client)?).await?;
        Ok::<_, Error>(json_response(&Deletions { deletions: deletions.into_iter().map(deletion).collect() }))
    };
    listed.await.unwrap_or_else(refusal)
}

async fn answer(querier: &Querier, client: &Client, body: &[u8]) -> Result<Response, Error> {
    let tenant = tenant(client)?;
    let request: DeleteBody = serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!(
            "the body is not what it must be, {{\"selector\", \"start\", \"end\"}}: {error}"
        ))
    })?;
    let selector = selector(&request.selector)?;
    if selector.is_empty() {
        let text = "selector {} would delete everything: name at least one matcher, \
                    for example {service_name=\"app\"}";
        return Err(Error::invalid(text));
    }
    if request.start >= request.end {
        return Err(Error::invalid(format!("end {} is not after start {}", request.end, request.start)));
    }
    let nanos = |millis: i64| millis.saturating_mul(1_000_000);
    let range = TimeRange { start: nanos(request.start), end: nanos(request.end) };
    if request.dry_run {
        return Ok(json_response(&trial(querier, client, selector, range).await?));
    }
    let status = querier.metastore.delete(DeleteRequest { tenant, selector, range }).await?;
    Ok(json_response(&deletion(status)))
}

fn tenant(client: &Client) -> Result<TenantId, Error> {
    match client.tenants() {
        [tenant] => Ok(tenant.clone()),
        tenants => Err(Error::invalid(format!("deletions are of 1 tenant, got {}", tenants.len()))),
    }
}

/// Counts the profiles that a deletion would erase.
async fn trial(
    querier: &Querier,
    client: &Client,
    selector: Selector,
    range: TimeRange,
) -> Result<Trial, Error> {
    // A heat map with one slot over the whole range: every profile is a point in it.
    let (start_millis, end_millis) = (range.start / 1_000_000, range.end / 1_000_000);
    let parameters = heatmap::Parameters {
        start_millis,
        end_millis,
        step_millis: end_millis.saturating_sub(start_millis).max(1),
        point_kind: heatmap::PointKind::Profiles,
        group_by: vec![SERVICE_NAME.into()],
        exemplars: false,
    };
    let query = Query { range, selector, profile_type: None, kind: Kind::Heatmap(parameters) };
    let objects = querier.find(client, &query).await?.objects.len();
    let result = querier.execute(client, query).await?;
    let Answer::Heatmap(points) = result.partial.answer else {
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
    let unreadable = result.report.missing.len();
    Ok(Trial { dry_run: true, profiles, services, objects, unreadable })
}

fn deletion(status: DeletionStatus) -> Deletion {
    let millis = |nanos: i64| nanos.div_euclid(1_000_000);
    let requested = status.deletion.as_ref();
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
        selector: requested.map(|deletion| deletion.selector.to_string()),
        start: requested.map(|deletion| millis(deletion.range.start)),
        end: requested.map(|deletion| millis(deletion.range.end)),
        objects_left,
        objects_unreadable,
        finished,
    }
}
