//! [`Ingester`] over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use block::codec::{Cursor, Delta, Malformed, put};
use bytes::Bytes;
use clock::Pool;
use model::{ItemKey, PushItem, SeriesRows, Span, ValueSchema};
use tonic::{Request, Response, Status};
use wire::pyrograph::ingester::v1 as proto;
use wire::pyrograph::ingester::v1::ingester_service_client::IngesterServiceClient;
use wire::pyrograph::ingester::v1::ingester_service_server::IngesterService;

use super::peer::{Peer, convert};
use super::serve::{failed, refused};
use super::{Unreadable, convert as common, profile};
use crate::{Error, Ingester};

/// Bytes of a span: its id and the id of its trace.
const SPAN_BYTES: usize = 24;

/// The ingester of another process.
#[derive(Clone)]
pub struct IngesterClient {
    peer: Peer,
    client: IngesterServiceClient<tonic::transport::Channel>,
}

impl IngesterClient {
    pub fn new(peer: Peer) -> Self {
        let client =
            IngesterServiceClient::new(peer.channel()).max_decoding_message_size(peer.message_bytes_max());
        Self { peer, client }
    }
}

#[async_trait]
impl Ingester for IngesterClient {
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
        let bytes = items.iter().map(PushItem::byte_len).sum();
        let encode = move || proto::PushRequest { items: items.iter().map(put_item).collect() };
        let request = self.peer.request(self.peer.convert(bytes, encode).await)?;
        let mut client = self.client.clone();
        self.peer.answer(client.push(request)).await?;
        Ok(())
    }
}

pub(super) struct IngesterServer {
    pub(super) role: Arc<dyn Ingester>,
    pub(super) pool: Pool,
}

#[async_trait]
impl IngesterService for IngesterServer {
    async fn push(
        &self,
        request: Request<proto::PushRequest>,
    ) -> Result<Response<proto::PushResponse>, Status> {
        let items = request.into_inner().items;
        let bytes = items.iter().map(|item| item.profile.len()).sum();
        let decode = move || items.into_iter().map(item).collect::<Result<Vec<_>, _>>();
        let items = convert(&self.pool, bytes, decode).await.map_err(refused)?;
        self.role.push(items).await.map_err(failed)?;
        Ok(Response::new(proto::PushResponse {}))
    }
}

fn put_item(item: &PushItem) -> proto::Item {
    let mut schemas: Vec<&Arc<ValueSchema>> = Vec::new();
    let mut series = Vec::with_capacity(item.series.len());
    for rows in item.series.iter() {
        let known = schemas.iter().position(|schema| Arc::ptr_eq(schema, &rows.schema));
        let schema = known.unwrap_or_else(|| {
            schemas.push(&rows.schema);
            schemas.len() - 1
        });
        series.push(proto::Series {
            labels: common::put_labels(&rows.labels),
            schema: schema as u32,
            samples: put_samples(&rows.samples),
            spans: put_spans(&rows.spans),
        });
    }
    proto::Item {
        tenant: item.tenant.to_string(),
        key: common::put_id(item.key.0),
        profile: profile::encode(&item.profile),
        schemas: schemas.into_iter().map(|schema| put_schema(schema)).collect(),
        series,
    }
}

fn item(item: proto::Item) -> Result<PushItem, Unreadable> {
    let profile = profile::decode(&item.profile).map_err(Unreadable::columns("profile"))?;
    let samples = profile.symbols.stacktraces.len();
    let schemas: Vec<Arc<ValueSchema>> = item.schemas.into_iter().map(|s| Arc::new(schema(s))).collect();
    let mut series = Vec::with_capacity(item.series.len());
    for rows in item.series {
        let sample_ids = read_samples(&rows.samples, samples).map_err(Unreadable::columns("samples"))?;
        if !rows.spans.is_empty() && rows.spans.len() != sample_ids.len() * SPAN_BYTES {
            let problem = format!("has {} bytes, not {SPAN_BYTES} per sample", rows.spans.len());
            return Err(Unreadable::new("spans", problem));
        }
        series.push(SeriesRows {
            labels: common::labels(rows.labels)?,
            schema: common::at(&schemas, rows.schema, "schema")?,
            samples: sample_ids,
            spans: spans(&rows.spans),
        });
    }
    if series.is_empty() {
        return Err(Unreadable::missing("series"));
    }
    Ok(PushItem {
        tenant: common::tenant(&item.tenant, "tenant")?,
        key: ItemKey(common::id(&item.key, "key")?),
        profile: Arc::new(profile),
        series: series.into(),
    })
}

fn put_schema(schema: &ValueSchema) -> proto::Schema {
    let column =
        |(name, unit): &(String, String)| proto::schema::Column { r#type: name.clone(), unit: unit.clone() };
    proto::Schema {
        name: schema.name.clone(),
        columns: schema.columns.iter().map(column).collect(),
        period: schema.period.as_ref().map(column),
    }
}

fn schema(schema: proto::Schema) -> ValueSchema {
    let column = |column: proto::schema::Column| (column.r#type, column.unit);
    ValueSchema {
        name: schema.name,
        columns: schema.columns.into_iter().map(column).collect(),
        period: schema.period.map(column),
    }
}

fn put_samples(samples: &[u32]) -> Bytes {
    let mut out = Vec::with_capacity(samples.len() + 8);
    put(&mut out, samples.len() as u64);
    let mut delta = Delta::default();
    samples.iter().for_each(|sample| delta.put(&mut out, i64::from(*sample)));
    out.into()
}

fn read_samples(bytes: &[u8], limit: usize) -> Result<Vec<u32>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.count()?;
    let mut samples = Vec::with_capacity(count);
    let mut delta = Delta::default();
    for _ in 0..count {
        let sample = delta.read(&mut cursor)?;
        if sample < 0 || sample >= limit as i64 {
            return Err(cursor.malformed("a sample does not exist"));
        }
        samples.push(sample as u32);
    }
    cursor.end()?;
    Ok(samples)
}

fn put_spans(spans: &[Span]) -> Bytes {
    let mut out = Vec::with_capacity(spans.len() * SPAN_BYTES);
    for span in spans {
        out.extend_from_slice(&span.span_id.to_le_bytes());
        out.extend_from_slice(&span.trace_id.to_le_bytes());
    }
    out.into()
}

fn spans(bytes: &[u8]) -> Vec<Span> {
    let (spans, _) = bytes.as_chunks::<SPAN_BYTES>();
    let number = |bytes: &[u8]| bytes.iter().rfold(0u128, |number, byte| number << 8 | u128::from(*byte));
    spans
        .iter()
        .map(|span| Span { span_id: number(&span[..8]) as u64, trace_id: number(&span[8..]) })
        .collect()
}
