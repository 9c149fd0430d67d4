//! [`Metastore`] over gRPC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::Pool;
use model::{JobId, TenantId, Window, WriterId};
use storage::Key;
use tonic::{Request, Response, Status};
use wire::pyrograph::metastore::v1 as proto;
use wire::pyrograph::metastore::v1::metastore_service_client::MetastoreServiceClient;
use wire::pyrograph::metastore::v1::metastore_service_server::MetastoreService;

use super::peer::{Peer, convert};
use super::serve::{failed, refused};
use super::status::unreadable_answer;
use super::{Unreadable, convert as common, query};
use crate::{
    DeadObject, DeleteRequest, DeletionProgress, DeletionStatus, Error, FindRequest, FoundObject, Job,
    JobFailure, JobInput, JobOutput, JobQueue, Metastore, ObjectIndex, Ownership, PruneCounts, Publication,
    PublishOutcome, SegmentHint, SegmentHints, Snapshot, Standing,
};

/// The metastore of another process.
#[derive(Clone)]
pub struct MetastoreClient {
    peer: Peer,
    client: MetastoreServiceClient<tonic::transport::Channel>,
}

impl MetastoreClient {
    pub fn new(peer: Peer) -> Self {
        let client =
            MetastoreServiceClient::new(peer.channel()).max_decoding_message_size(peer.message_bytes_max());
        Self { peer, client }
    }

    fn unreadable(&self) -> impl Fn(Unreadable) -> Error {
        |error| unreadable_answer(error, self.peer.name())
    }
}

#[async_trait]
impl SegmentHints for MetastoreClient {
    async fn segment_written(&self, hint: SegmentHint) -> Result<(), Error> {
        let request = self.peer.request(proto::SegmentWrittenRequest {
            writer: common::put_id(hint.writer.0),
            seq: hint.seq,
            bytes: hint.bytes,
            directory: common::put_directory(&hint.directory),
        })?;
        self.peer.answer(self.client.clone().segment_written(request)).await?;
        Ok(())
    }
}

#[async_trait]
impl ObjectIndex for MetastoreClient {
    async fn find(&self, request: FindRequest) -> Result<Snapshot, Error> {
        let request = self.peer.request(proto::FindRequest {
            tenants: request.tenants.iter().map(ToString::to_string).collect(),
            range: Some(common::put_range(request.range)),
            services: request.services.map(|names| proto::find_request::Services { names }),
            profile_type: request.profile_type.as_ref().map(common::put_profile_type),
            explain: request.explain,
        })?;
        let answer = self.peer.answer(self.client.clone().find(request)).await?;
        let bytes = answer
            .objects
            .iter()
            .flat_map(|objects| &objects.objects)
            .map(|object| object.datasets.len())
            .sum();
        self.peer.convert(bytes, || snapshot(answer)).await.map_err(self.unreadable())
    }

    async fn quarantine(&self, damaged: Vec<(Key, String)>) -> Result<(), Error> {
        let objects = damaged
            .into_iter()
            .map(|(key, reason)| proto::quarantine_request::Damaged { key: key.as_str().to_owned(), reason });
        let request = self.peer.request(proto::QuarantineRequest { objects: objects.collect() })?;
        self.peer.answer(self.client.clone().quarantine(request)).await?;
        Ok(())
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeletionStatus, Error> {
        let request = self.peer.request(proto::DeleteRequest {
            tenant: request.tenant.to_string(),
            matchers: query::put_selector(&request.selector),
            range: Some(common::put_range(request.range)),
        })?;
        let answer = self.peer.answer(self.client.clone().delete(request)).await?;
        let deletion = answer.deletion.ok_or_else(|| Unreadable::missing("deletion")).and_then(status);
        deletion.map_err(self.unreadable())
    }

    async fn deletions(&self, tenant: TenantId) -> Result<Vec<DeletionStatus>, Error> {
        let request = self.peer.request(proto::DeletionsRequest { tenant: tenant.to_string() })?;
        let answer = self.peer.answer(self.client.clone().orders(request)).await?;
        let deletions = answer.deletions.into_iter().map(status);
        deletions.collect::<Result<_, Unreadable>>().map_err(self.unreadable())
    }
}

#[async_trait]
impl JobQueue for MetastoreClient {
    async fn claim_job(&self) -> Result<Option<Job>, Error> {
        let request = self.peer.request(proto::ClaimJobRequest {})?;
        let answer = self.peer.answer(self.client.clone().claim_job(request)).await?;
        answer.job.map(job).transpose().map_err(self.unreadable())
    }

    async fn publish(&self, publication: Publication) -> Result<PublishOutcome, Error> {
        let request = self.peer.request(proto::PublishRequest {
            job: common::put_id(publication.job.0),
            attempt: publication.attempt,
            outputs: publication.outputs.iter().map(put_output).collect(),
        })?;
        let answer = self.peer.answer(self.client.clone().publish(request)).await?;
        Ok(if answer.done { PublishOutcome::Done } else { PublishOutcome::Rejected })
    }

    async fn fail_job(&self, failure: JobFailure) -> Result<(), Error> {
        let JobFailure { job, attempt, reason, inputs_sound } = failure;
        let job = common::put_id(job.0);
        let request = self.peer.request(proto::FailJobRequest { job, attempt, reason, inputs_sound })?;
        self.peer.answer(self.client.clone().fail_job(request)).await?;
        Ok(())
    }

    async fn sweepable(&self, limit: usize) -> Result<Vec<DeadObject>, Error> {
        let request = self.peer.request(proto::SweepableRequest { limit: limit as u64 })?;
        let answer = self.peer.answer(self.client.clone().sweepable(request)).await?;
        let dead = answer.keys.into_iter().map(|key| Ok(DeadObject { key: common::key(key, "key")? }));
        dead.collect::<Result<_, Unreadable>>().map_err(self.unreadable())
    }

    async fn swept(&self, keys: Vec<Key>) -> Result<(), Error> {
        let request = self.peer.request(proto::SweptRequest { keys: common::put_keys(keys.iter()) })?;
        self.peer.answer(self.client.clone().swept(request)).await?;
        Ok(())
    }
}

#[async_trait]
impl Ownership for MetastoreClient {
    async fn standing(&self) -> Result<Standing, Error> {
        let request = self.peer.request(proto::StandingRequest {})?;
        let answer = self.peer.answer(self.client.clone().standing(request)).await?;
        let proto::StandingResponse { node, is_owner, epoch, owner } = answer;
        Ok(Standing { node, is_owner, epoch, owner })
    }
}

fn put_status(status: DeletionStatus) -> proto::DeletionStatus {
    use proto::deletion_status::{Finished, Progress, Rewriting, Sweeping};
    let progress = match status.progress {
        DeletionProgress::Rewriting { objects, unreadable } => {
            Progress::Rewriting(Rewriting { objects: objects as u64, unreadable: unreadable as u64 })
        }
        DeletionProgress::Sweeping { objects } => Progress::Sweeping(Sweeping { objects: objects as u64 }),
        DeletionProgress::Finished { millis } => Progress::Finished(Finished { millis }),
    };
    proto::DeletionStatus {
        number: status.number,
        created_millis: status.created_millis,
        deletion: status.deletion.map(|deletion| common::put_deletion(&deletion)),
        progress: Some(progress),
    }
}

fn status(status: proto::DeletionStatus) -> Result<DeletionStatus, Unreadable> {
    use proto::deletion_status::{Finished, Progress, Rewriting, Sweeping};
    let count = |count| common::narrow(count, "number of objects");
    let progress = match status.progress.ok_or_else(|| Unreadable::missing("progress"))? {
        Progress::Rewriting(Rewriting { objects, unreadable }) => {
            DeletionProgress::Rewriting { objects: count(objects)?, unreadable: count(unreadable)? }
        }
        Progress::Sweeping(Sweeping { objects }) => DeletionProgress::Sweeping { objects: count(objects)? },
        Progress::Finished(Finished { millis }) => DeletionProgress::Finished { millis },
    };
    Ok(DeletionStatus {
        number: status.number,
        created_millis: status.created_millis,
        deletion: status.deletion.map(|deletion| common::deletion(deletion).map(Arc::new)).transpose()?,
        progress,
    })
}

pub(super) struct MetastoreServer {
    pub(super) role: Arc<dyn Metastore>,
    pub(super) pool: Pool,
}

#[async_trait]
impl MetastoreService for MetastoreServer {
    async fn segment_written(
        &self,
        request: Request<proto::SegmentWrittenRequest>,
    ) -> Result<Response<proto::SegmentWrittenResponse>, Status> {
        let hint = hint(request.into_inner()).map_err(refused)?;
        self.role.segment_written(hint).await.map_err(failed)?;
        Ok(Response::new(proto::SegmentWrittenResponse {}))
    }

    async fn find(
        &self,
        request: Request<proto::FindRequest>,
    ) -> Result<Response<proto::FindResponse>, Status> {
        let request = find_request(request.into_inner()).map_err(refused)?;
        let snapshot = self.role.find(request).await.map_err(failed)?;
        let datasets: usize = snapshot.objects.iter().map(|found| found.datasets.len()).sum();
        let encode = move || put_snapshot(&snapshot);
        Ok(Response::new(convert(&self.pool, datasets * common::DATASET_BYTES, encode).await))
    }

    async fn claim_job(
        &self,
        _: Request<proto::ClaimJobRequest>,
    ) -> Result<Response<proto::ClaimJobResponse>, Status> {
        let job = self.role.claim_job().await.map_err(failed)?;
        Ok(Response::new(proto::ClaimJobResponse { job: job.map(put_job) }))
    }

    async fn publish(
        &self,
        request: Request<proto::PublishRequest>,
    ) -> Result<Response<proto::PublishResponse>, Status> {
        let publication = publication(request.into_inner()).map_err(refused)?;
        let published = self.role.publish(publication).await.map_err(failed)?;
        Ok(Response::new(proto::PublishResponse { done: published == PublishOutcome::Done }))
    }

    async fn fail_job(
        &self,
        request: Request<proto::FailJobRequest>,
    ) -> Result<Response<proto::FailJobResponse>, Status> {
        let proto::FailJobRequest { job, attempt, reason, inputs_sound } = request.into_inner();
        let job = JobId(common::id(&job, "job").map_err(refused)?);
        self.role.fail_job(JobFailure { job, attempt, reason, inputs_sound }).await.map_err(failed)?;
        Ok(Response::new(proto::FailJobResponse {}))
    }

    async fn sweepable(
        &self,
        request: Request<proto::SweepableRequest>,
    ) -> Result<Response<proto::SweepableResponse>, Status> {
        let limit = common::narrow(request.into_inner().limit, "limit").map_err(refused)?;
        let dead = self.role.sweepable(limit).await.map_err(failed)?;
        let keys = common::put_keys(dead.iter().map(|object| &object.key));
        Ok(Response::new(proto::SweepableResponse { keys }))
    }

    async fn swept(
        &self,
        request: Request<proto::SweptRequest>,
    ) -> Result<Response<proto::SweptResponse>, Status> {
        let keys = request.into_inner().keys.into_iter().map(|key| common::key(key, "key"));
        let keys = keys.collect::<Result<_, Unreadable>>().map_err(refused)?;
        self.role.swept(keys).await.map_err(failed)?;
        Ok(Response::new(proto::SweptResponse {}))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let request = delete_request(request.into_inner()).map_err(refused)?;
        let deletion = self.role.delete(request).await.map_err(failed)?;
        Ok(Response::new(proto::DeleteResponse { deletion: Some(put_status(deletion)) }))
    }

    async fn orders(
        &self,
        request: Request<proto::DeletionsRequest>,
    ) -> Result<Response<proto::DeletionsResponse>, Status> {
        let tenant = common::tenant(&request.into_inner().tenant, "tenant").map_err(refused)?;
        let deletions = self.role.deletions(tenant).await.map_err(failed)?;
        Ok(Response::new(proto::DeletionsResponse {
            deletions: deletions.into_iter().map(put_status).collect(),
        }))
    }

    async fn quarantine(
        &self,
        request: Request<proto::QuarantineRequest>,
    ) -> Result<Response<proto::QuarantineResponse>, Status> {
        let objects = request.into_inner().objects.into_iter();
        let damaged = objects.map(|object| Ok((common::key(object.key, "key")?, object.reason)));
        let damaged = damaged.collect::<Result<_, Unreadable>>().map_err(refused)?;
        self.role.quarantine(damaged).await.map_err(failed)?;
        Ok(Response::new(proto::QuarantineResponse {}))
    }

    async fn standing(
        &self,
        _: Request<proto::StandingRequest>,
    ) -> Result<Response<proto::StandingResponse>, Status> {
        let Standing { node, is_owner, epoch, owner } = self.role.standing().await.map_err(failed)?;
        Ok(Response::new(proto::StandingResponse { node, is_owner, epoch, owner }))
    }
}

fn hint(hint: proto::SegmentWrittenRequest) -> Result<SegmentHint, Unreadable> {
    Ok(SegmentHint {
        writer: WriterId(common::id(&hint.writer, "writer")?),
        seq: hint.seq,
        bytes: hint.bytes,
        directory: common::directory(&hint.directory)?,
    })
}

fn delete_request(request: proto::DeleteRequest) -> Result<DeleteRequest, Unreadable> {
    Ok(DeleteRequest {
        tenant: common::tenant(&request.tenant, "tenant")?,
        selector: query::selector(request.matchers)?,
        range: common::range(request.range)?,
    })
}

fn find_request(request: proto::FindRequest) -> Result<FindRequest, Unreadable> {
    if request.tenants.is_empty() {
        return Err(Unreadable::missing("tenant"));
    }
    let tenants = request.tenants.iter().map(|tenant| common::tenant(tenant, "tenant"));
    Ok(FindRequest {
        tenants: tenants.collect::<Result<_, Unreadable>>()?,
        range: common::range(request.range)?,
        services: request.services.map(|services| services.names),
        profile_type: request.profile_type.map(common::profile_type),
        explain: request.explain,
    })
}

fn put_snapshot(snapshot: &Snapshot) -> proto::FindResponse {
    let quarantined = snapshot.quarantined.iter();
    let quarantined = quarantined.map(|(key, reason)| proto::find_response::Quarantined {
        key: key.as_str().to_owned(),
        reason: reason.clone(),
    });
    proto::FindResponse {
        version: snapshot.version,
        objects: Some(common::put_objects(&snapshot.objects)),
        quarantined: quarantined.collect(),
        epoch: snapshot.epoch,
        stale_millis: snapshot.stale.map(|age| age.as_millis().try_into().unwrap_or(u64::MAX)),
        pruned: snapshot.pruned.map(|pruned| {
            let PruneCounts { by_service, by_time, by_profile_type, by_retention } = pruned;
            proto::find_response::Pruned { by_service, by_time, by_profile_type, by_retention }
        }),
    }
}

fn snapshot(answer: proto::FindResponse) -> Result<Snapshot, Unreadable> {
    let quarantined = answer.quarantined.into_iter();
    let quarantined = quarantined.map(|object| Ok((common::key(object.key, "key")?, object.reason)));
    let objects: Vec<FoundObject> = common::objects(answer.objects)?;
    Ok(Snapshot {
        version: answer.version,
        epoch: answer.epoch,
        stale: answer.stale_millis.map(Duration::from_millis),
        objects,
        quarantined: quarantined.collect::<Result<_, Unreadable>>()?,
        pruned: answer.pruned.map(|pruned| {
            let proto::find_response::Pruned { by_service, by_time, by_profile_type, by_retention } = pruned;
            PruneCounts { by_service, by_time, by_profile_type, by_retention }
        }),
    })
}

fn put_job(job: Job) -> proto::Job {
    let inputs = job.inputs.into_iter();
    let mut deletions = common::Deletions::default();
    let inputs = inputs.map(|input| proto::job::Input {
        key: input.key.as_str().to_owned(),
        bytes: input.bytes,
        masked: input.masked,
        datasets: input.datasets,
        deletions: deletions.put(&input.deletions),
    });
    let inputs = inputs.collect();
    proto::Job {
        id: common::put_id(job.id.0),
        attempt: job.attempt,
        inputs,
        level: job.level.into(),
        windows: job.windows.into_iter().map(put_window).collect(),
        deletions: deletions.table,
        shard_bits: job.shard_bits.into(),
    }
}

fn job(job: proto::Job) -> Result<Job, Unreadable> {
    let deletions = common::deletions(job.deletions)?;
    let inputs = job.inputs.into_iter().map(|input| {
        if !input.datasets.is_sorted() {
            return Err(Unreadable::new("datasets", "are not sorted"));
        }
        Ok(JobInput {
            key: common::key(input.key, "key")?,
            bytes: input.bytes,
            masked: common::masked(input.masked)?,
            datasets: input.datasets,
            deletions: common::deletions_at(&deletions, &input.deletions)?,
        })
    });
    Ok(Job {
        id: JobId(common::id(&job.id, "job")?),
        attempt: job.attempt,
        inputs: inputs.collect::<Result<_, Unreadable>>()?,
        level: common::narrow(job.level.into(), "level")?,
        windows: job.windows.into_iter().map(window).collect(),
        shard_bits: common::narrow(job.shard_bits.into(), "shard_bits")?,
    })
}

fn put_output(output: &JobOutput) -> proto::publish_request::Output {
    proto::publish_request::Output {
        key: output.key.as_str().to_owned(),
        bytes: output.bytes,
        tenant: output.tenant.to_string(),
        window: Some(put_window(output.window)),
        directory: common::put_directory(&output.directory),
    }
}

fn put_window(window: Window) -> proto::Window {
    proto::Window { start: window.start, length: window.length }
}

fn window(window: proto::Window) -> Window {
    Window { start: window.start, length: window.length }
}

fn publication(request: proto::PublishRequest) -> Result<Publication, Unreadable> {
    let outputs = request.outputs.into_iter().map(|output| {
        let output_window = output.window.ok_or_else(|| Unreadable::missing("window"))?;
        Ok(JobOutput {
            key: common::key(output.key, "key")?,
            bytes: output.bytes,
            tenant: common::tenant(&output.tenant, "tenant")?,
            window: window(output_window),
            directory: common::directory(&output.directory)?,
        })
    });
    Ok(Publication {
        job: JobId(common::id(&request.job, "job")?),
        attempt: request.attempt,
        outputs: outputs.collect::<Result<_, Unreadable>>()?,
    })
}
