//! Create-if-absent with a known outcome.
//!
//! A reply other than "ok" proves nothing: a store may report its own lost success, or even a conflict after which no
//! object exists, as "already exists". So the key is read: equal bytes are ours, an absent key is created again, other
//! bytes belong to another writer.

use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetResult, ObjectStoreExt, PutMode, PutOptions};

use super::meter::{CREATE_TIMEOUT, time_for};
use super::{Store, path};
use crate::metrics::Operation;
use crate::{Error, Key};

/// Creates whose object proved absent are sent this often before the outcome is left unknown.
const CREATE_ATTEMPTS: u32 = 4;

/// How a create ended, once that is certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateOutcome {
    /// The object exists with exactly the given bytes, whichever request wrote them.
    Mine,
    /// The key holds other bytes: another writer was first.
    Other,
}

/// The content of a key, compared with the expected bytes.
enum Comparison {
    Absent,
    Same,
    Different,
}

impl Store {
    /// Creates `key` with `bytes` if it does not exist, and settles the outcome.
    ///
    /// # Errors
    /// The outcome is still unknown: the object may exist, or appear later.
    pub async fn settle_create(&self, key: &Key, bytes: Bytes) -> Result<CreateOutcome, Error> {
        let mut attempt = 0;
        loop {
            let Err(cause) = self.create_once(key, &bytes).await else {
                return Ok(CreateOutcome::Mine);
            };
            match self.compare(key, &bytes).await? {
                Comparison::Same => return Ok(CreateOutcome::Mine),
                Comparison::Different => return Ok(CreateOutcome::Other),
                Comparison::Absent => {}
            }
            attempt += 1;
            let is_worth_it = cause.may_pass() || cause.is_conflict();
            if attempt == CREATE_ATTEMPTS || !is_worth_it || !self.retries.spend(Operation::create) {
                return Err(cause);
            }
            self.retries.back_off(attempt, &cause).await;
        }
    }

    /// Whether the store, asked to create `key` only if absent, does so although it exists.
    ///
    /// `bytes` are the current content of the key, so that even then nothing changes.
    pub(crate) async fn overwrites(&self, key: &Key, bytes: &Bytes) -> Result<bool, Error> {
        let mut attempt = 0;
        loop {
            match self.try_create(key, bytes).await {
                Err(error) if self.retries.is_worth_another(Operation::create, &error, attempt + 1) => {
                    attempt += 1;
                    self.retries.back_off(attempt, &error).await;
                }
                settled => return settled,
            }
        }
    }

    /// Sends one create of `key`; false if the store reports that the object exists.
    pub(crate) async fn try_create(&self, key: &Key, bytes: &Bytes) -> Result<bool, Error> {
        match self.create_once(key, bytes).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create_once(&self, key: &Key, bytes: &Bytes) -> Result<(), Error> {
        let location = path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let len = bytes.len() as u64;
        self.retries.earn();
        let put = self.objects.put_opts(&location, bytes.clone().into(), options);
        let request = async {
            put.await?;
            Ok(((), len))
        };
        self.meter.request(key, Operation::create, time_for(CREATE_TIMEOUT, len), request).await
    }

    /// Reads no further than the first difference, and never holds more than one chunk.
    async fn compare(&self, key: &Key, expected: &Bytes) -> Result<Comparison, Error> {
        let location = path(key)?;
        // The limit of a create: a caller that waits for the outcome of one waits for both.
        let limit = time_for(CREATE_TIMEOUT, expected.len() as u64);
        let same = self
            .read(key, Operation::get, limit, || async {
                Ok(same_bytes(self.objects.get(&location).await?, expected).await?)
            })
            .await;
        match same {
            Ok(true) => Ok(Comparison::Same),
            Ok(false) => Ok(Comparison::Different),
            Err(Error::NotFound(_)) => Ok(Comparison::Absent),
            Err(error) => Err(error),
        }
    }
}

/// Whether an object holds exactly `expected`, and the number of bytes read if it does.
async fn same_bytes(got: GetResult, expected: &Bytes) -> object_store::Result<(bool, u64)> {
    if got.meta.size != expected.len() as u64 {
        return Ok((false, 0));
    }
    let mut rest = &expected[..];
    let mut chunks = got.into_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let Some(after) = rest.strip_prefix(&chunk[..]) else {
            return Ok((false, 0));
        };
        rest = after;
    }
    Ok((rest.is_empty(), expected.len() as u64))
}
