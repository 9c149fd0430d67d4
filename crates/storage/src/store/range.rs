//! Reads of parts of an object: byte ranges, and its end.
//!
//! Owns: recognising an object that is shorter than expected, ends of objects on stores without suffix ranges.
//! Does not own: sending a slow read twice (`hedge`).

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore, ObjectStoreExt, coalesce_ranges,
};

use super::meter::{READ_TIMEOUT, time_for};
use super::{Store, path};
use crate::error::Failure;
use crate::metrics::Operation;
use crate::{Error, Key};

/// The last bytes of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// Fewer than asked for if the object is shorter.
    pub bytes: Bytes,
    pub object_bytes: u64,
}

impl Store {
    /// Several byte ranges of one object, in the order asked for.
    ///
    /// # Errors
    /// As [`Store::get`]; `Short` if the object ends before a range does.
    pub async fn get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let wanted = ranges.iter().map(|range| range.end).max().unwrap_or_default();
        match self.try_get_ranges(key, ranges).await {
            Err(error) if error.may_be_short() => match self.size(key).await {
                Some(bytes) if bytes < wanted => Err(Error::Short { key: key.clone(), bytes, wanted }),
                _ => Err(error),
            },
            got => got,
        }
    }

    async fn try_get_ranges(&self, key: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let location = path(key)?;
        if !self.is_exclusive {
            let fetch = |range: Range<u64>| {
                let (bytes, location) = (range.end.saturating_sub(range.start), &location);
                self.read_range(key, bytes, move || {
                    let range = range.clone();
                    async move { Ok((whole_range(&*self.objects, location, range).await?, bytes)) }
                })
            };
            return coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await;
        }
        let asked = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.read_range(key, asked, || async {
            let parts = self.objects.get_ranges(&location, ranges).await?;
            let len = parts.iter().map(|part| part.len() as u64).sum();
            Ok((parts, len))
        })
        .await
    }

    /// The last `len` bytes of an object, and the length of the object; in one request if the store can do that.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_tail(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        if !self.has_suffix_ranges() {
            return self.get_tail_by_size(key, len).await;
        }
        match self.try_get_tail(key, len).await {
            // Some stores refuse a suffix that is longer than the object, and all of them one of an empty object.
            Err(error) if error.may_be_short() => match self.size(key).await {
                Some(0) => Ok(Tail { bytes: Bytes::new(), object_bytes: 0 }),
                Some(bytes) if bytes < len => {
                    let tail = self.get_tail_by_size(key, len).await?;
                    if error.is_out_of_range() {
                        self.give_up_suffix_ranges(&error);
                    }
                    Ok(tail)
                }
                _ => Err(error),
            },
            got => got,
        }
    }

    async fn try_get_tail(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        let location = path(key)?;
        self.read_range(key, len, || async {
            let options = GetOptions { range: Some(GetRange::Suffix(len)), ..GetOptions::default() };
            let got = self.objects.get_opts(&location, options).await?;
            let object_bytes = got.meta.size;
            let bytes = got.bytes().await?;
            let read = bytes.len() as u64;
            Ok((Tail { bytes, object_bytes }, read))
        })
        .await
    }

    async fn get_tail_by_size(&self, key: &Key, len: u64) -> Result<Tail, Error> {
        let location = path(key)?;
        let head = || async { Ok((self.objects.head(&location).await?.size, 0)) };
        let object_bytes = self.read(key, Operation::range, READ_TIMEOUT, head).await?;
        if object_bytes == 0 {
            return Ok(Tail { bytes: Bytes::new(), object_bytes });
        }
        let end = object_bytes.saturating_sub(len)..object_bytes;
        let bytes = self.get_ranges(key, std::slice::from_ref(&end)).await?.pop().unwrap_or_default();
        Ok(Tail { bytes, object_bytes })
    }

    /// The length of the object, from one request, to explain another error; `None` if that request fails too.
    async fn size(&self, key: &Key) -> Option<u64> {
        let location = path(key).ok()?;
        let head = async { Ok((self.objects.head(&location).await?.size, 0)) };
        self.meter.request(key, Operation::range, READ_TIMEOUT, head).await.ok()
    }

    /// As [`Store::read`], for about `bytes` bytes of an object; with hedging, an attempt may be two requests.
    async fn read_range<T, F>(&self, key: &Key, bytes: u64, request: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<(T, u64), Failure>>,
    {
        let limit = time_for(READ_TIMEOUT, bytes);
        let attempt = || self.meter.request(key, Operation::range, limit, request());
        match &self.hedging {
            None => self.retries.repeat(Operation::range, attempt).await,
            Some(hedging) => {
                self.retries.repeat(Operation::range, || hedging.first_answer(bytes, &attempt)).await
            }
        }
    }
}

/// All bytes of `range`. A store answers a range that ends beyond the object with the bytes up to its end, and
/// splitting these into ranges beyond them would panic.
async fn whole_range(
    objects: &dyn ObjectStore,
    location: &Path,
    range: Range<u64>,
) -> Result<Bytes, Failure> {
    let bytes = objects.get_range(location, range.clone()).await?;
    if bytes.len() as u64 == range.end - range.start {
        return Ok(bytes);
    }
    Err(Failure::CutOff { bytes: range.start + bytes.len() as u64, wanted: range.end })
}
