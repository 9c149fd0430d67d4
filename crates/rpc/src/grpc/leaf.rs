//! [`Leaf`] over gRPC.

use std::sync::Arc;
use std::time::Duration;

use ::query::Query;
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
use crate::{Effort, Error, ErrorKind, Leaf, Missing, ScanAnswer, ScanRequest};

/// Memory of a decoded answer, as a multiple of its encoded bytes.
const DECODED_SIZES: u64 = 2;

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
    async fn scan(&self, request: ScanRequest) -> Result<ScanAnswer, Error> {
        let query = request.query.clone();
        let limit = self.peer.limit(request.time_left);
        let memory = request.memory.lease();
        let request = proto::ScanRequest {
            query: Some(super::query::put(&request.query)),
            objects: Some(common::put_objects(&request.objects)),
            time_left_nanos: request.time_left.map(nanos),
            skip_gone: request.skip_gone,
            skip_unavailable: request.skip_unavailable,
            explain: request.explain,
        };
        let request = self.peer.request_within(request, limit)?;
        let mut client = self.client.clone();
        let answer = self.peer.answer_within(limit, client.scan(request)).await?;
        let bytes = answer.encoded_len();
        // Held during the conversion; the caller charges for the result.
        memory.grow(bytes as u64 * DECODED_SIZES).map_err(|refusal| {
            let text = format!("the answer of {} {refusal}", self.peer.name());
            Error::with_source(ErrorKind::of_memory(&refusal), text, refusal)
        })?;
        let read = self.peer.convert(bytes, move || scanned(answer, &query)).await;
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
        let bytes = partial::bytes(&answer.partial);
        Ok(Response::new(convert(&self.pool, bytes, move || put_scanned(answer)).await))
    }
}

fn scan_request(request: proto::ScanRequest) -> Result<ScanRequest, Unreadable> {
    Ok(ScanRequest {
        query: query::read(request.query)?,
        objects: common::objects(request.objects)?,
        time_left: request.time_left_nanos.map(Duration::from_nanos),
        skip_gone: request.skip_gone,
        skip_unavailable: request.skip_unavailable,
        explain: request.explain,
        memory: memory::Account::default(),
    })
}

fn put_scanned(scanned: ScanAnswer) -> proto::ScanResponse {
    let mut response = partial::put_partial(scanned.partial);
    let missing = scanned.missing.into_iter();
    let missing = missing.map(|Missing { key, reason, is_damaged }| proto::Missing {
        key: key.as_str().to_owned(),
        reason,
        is_damaged,
    });
    response.missing = missing.collect();
    response.effort = scanned.effort.map(|effort| proto::Effort {
        took_nanos: nanos(effort.took),
        fetch_nanos: nanos(effort.fetch),
        scan_nanos: nanos(effort.scan),
        merge_nanos: nanos(effort.merge),
        known_datasets: effort.known_datasets,
        memory_hits: effort.memory_hits,
        memory_misses: effort.memory_misses,
        disk_bytes: effort.disk_bytes,
        store_bytes: effort.store_bytes,
        store_requests: effort.store_requests,
    });
    response
}

fn scanned(mut response: proto::ScanResponse, query: &Query) -> Result<ScanAnswer, Unreadable> {
    let missing = std::mem::take(&mut response.missing).into_iter();
    let missing = missing.map(|object| {
        let proto::Missing { key, reason, is_damaged } = object;
        Ok(Missing { key: common::key(key, "key")?, reason, is_damaged })
    });
    let missing = missing.collect::<Result<_, Unreadable>>()?;
    let effort = response.effort.map(|effort| Effort {
        took: Duration::from_nanos(effort.took_nanos),
        fetch: Duration::from_nanos(effort.fetch_nanos),
        scan: Duration::from_nanos(effort.scan_nanos),
        merge: Duration::from_nanos(effort.merge_nanos),
        known_datasets: effort.known_datasets,
        memory_hits: effort.memory_hits,
        memory_misses: effort.memory_misses,
        disk_bytes: effort.disk_bytes,
        store_bytes: effort.store_bytes,
        store_requests: effort.store_requests,
    });
    Ok(ScanAnswer { partial: partial::read_partial(response, query)?, missing, effort })
}

/// Nanoseconds, at most `u64::MAX` (584 years).
fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
