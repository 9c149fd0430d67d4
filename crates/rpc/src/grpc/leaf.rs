//! [`Leaf`] over gRPC.

use std::sync::Arc;

use ::query::Partial;
use async_trait::async_trait;
use clock::Pool;
use prost::Message;
use tonic::{Request, Response, Status};
use wire::pyrograph::leaf::v1 as proto;
use wire::pyrograph::leaf::v1::leaf_service_client::LeafServiceClient;
use wire::pyrograph::leaf::v1::leaf_service_server::LeafService;

use super::peer::{Peer, convert};
use super::serve::{failed, refused};
use super::status::unreadable_answer;
use super::{Unreadable, convert as common, partial, query};
use crate::{Error, Leaf, ScanRequest};

/// The leaf of another process.
#[derive(Clone)]
pub struct LeafClient {
    peer: Peer,
    client: LeafServiceClient<tonic::transport::Channel>,
}

impl LeafClient {
    pub fn new(peer: Peer) -> Self {
        let client =
            LeafServiceClient::new(peer.channel()).max_decoding_message_size(peer.message_bytes_max());
        Self { peer, client }
    }
}

#[async_trait]
impl Leaf for LeafClient {
    async fn scan(&self, request: ScanRequest) -> Result<Partial, Error> {
        let asked = request.query.clone();
        let request = self.peer.request(proto::ScanRequest {
            query: Some(query::put(&request.query)),
            objects: Some(common::put_objects(&request.objects)),
        })?;
        let mut client = self.client.clone();
        let answer = self.peer.answer(client.scan(request)).await?;
        let read =
            self.peer.convert(answer.encoded_len(), move || partial::read_partial(answer, &asked)).await;
        read.map_err(|error| unreadable_answer(error, self.peer.name()))
    }
}

pub(super) struct LeafServer {
    pub(super) role: Arc<dyn Leaf>,
    pub(super) pool: Pool,
}

#[async_trait]
impl LeafService for LeafServer {
    async fn scan(
        &self,
        request: Request<proto::ScanRequest>,
    ) -> Result<Response<proto::ScanResponse>, Status> {
        let request = scan_request(request.into_inner()).map_err(refused)?;
        let answer = self.role.scan(request).await.map_err(failed)?;
        let bytes = partial::bytes(&answer);
        Ok(Response::new(convert(&self.pool, bytes, move || partial::put_partial(answer)).await))
    }
}

fn scan_request(request: proto::ScanRequest) -> Result<ScanRequest, Unreadable> {
    Ok(ScanRequest { query: query::read(request.query)?, objects: common::objects(request.objects)? })
}
