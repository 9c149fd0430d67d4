//! The public query API. A file per group of calls: wire → question → answer → wire.

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

use axum::Router;
use axum::routing::get;
use wire::querier::v1::querier_service_server::QuerierServiceServer;

use crate::Querier;

pub(crate) fn routes(querier: Arc<Querier>) -> edge::Routes {
    let service = QuerierServiceServer::new(service::Service(querier.clone()))
        .max_decoding_message_size(edge::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(edge::MESSAGE_BYTES_MAX);
    let rest = Router::new()
        .route("/pyroscope/render", get(render::render))
        .route("/pyroscope/render-diff", get(render::render_diff))
        .route("/pyroscope/label-values", get(plain::label_values))
        .route("/api/apps", get(plain::apps))
        .route("/api/v1/delete", get(deletes::list).post(deletes::delete))
        .with_state(querier);
    edge::Routes::new().rest(rest).service(service)
}
