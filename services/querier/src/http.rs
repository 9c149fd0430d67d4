//! The public query API. One file per group of calls: request → query → answer → response.

mod deletes;
mod diff;
mod dot;
mod heatmap;
mod labels;
mod plain;
mod pprof;
mod render;
mod request;
mod series;
mod service;
mod stacktraces;
mod stats;

use std::sync::Arc;

use edge::Effect;
use wire::querier::v1::querier_service_server::QuerierServiceServer;

use crate::Querier;

pub(crate) fn routes(querier: Arc<Querier>) -> edge::Routes {
    let service = QuerierServiceServer::new(service::Service(querier.clone()))
        .max_decoding_message_size(edge::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(edge::MESSAGE_BYTES_MAX);
    edge::Routes::new()
        .service(Effect::Read, service)
        .get("/pyroscope/render", &querier, render::render)
        .get("/pyroscope/render-diff", &querier, render::render_diff)
        .get("/pyroscope/label-values", &querier, plain::label_values)
        .get("/api/apps", &querier, plain::apps)
        .get("/api/v1/delete", &querier, deletes::list)
        .post("/api/v1/delete", Effect::Administer, &querier, deletes::delete)
}
