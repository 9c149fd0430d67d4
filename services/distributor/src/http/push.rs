//! `push.v1.PusherService/Push`: batches of series, each with pprof documents.

use std::sync::Arc;

use edge::Tenants;
use rpc::ErrorKind;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use wire::push::v1::pusher_service_server::{PusherService, PusherServiceServer};
use wire::push::v1::{PushRequest, PushResponse};

use crate::Distributor;
use crate::document::{Document, PushDocument};
use crate::error::Errors;
use crate::http::{receipt_headers, retry_after_secs};

pub(crate) fn routes(distributor: Arc<Distributor>) -> edge::Routes {
    let service =
        PusherServiceServer::new(Pusher(distributor)).max_decoding_message_size(edge::MESSAGE_BYTES_MAX);
    edge::Routes::new().service(edge::Effect::Change, service)
}

struct Pusher(Arc<Distributor>);

#[tonic::async_trait]
impl PusherService for Pusher {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let tenant = Tenants::of(request.extensions())?.one()?.clone();
        let documents = documents(request.into_inner());
        let receipt = self.0.push(tenant, documents).await.map_err(|errors| status(&errors))?;
        let mut response = Response::new(PushResponse {});
        for (name, value) in receipt_headers(&receipt) {
            if let Ok(value) = MetadataValue::try_from(value) {
                response.metadata_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

fn documents(request: PushRequest) -> Vec<Document> {
    let mut documents = Vec::new();
    for series in request.series {
        let labels = series.labels.into_iter().map(|label| (label.name, label.value));
        let samples = series.samples.into_iter().map(|sample| sample.raw_profile);
        documents.extend(PushDocument::of_series(labels, samples).map(Document::Push));
    }
    documents
}

fn status(errors: &Errors) -> Status {
    let mut status = Status::new(errors.kind().code(), errors.to_string());
    if let ErrorKind::Exhausted { retry_after } = errors.kind() {
        status.metadata_mut().insert("retry-after", retry_after_secs(retry_after).into());
    }
    status
}
