//! Common parts of the rows of segments and blocks.

use std::sync::Arc;

use model::{ProfileType, TenantId, Times};

use crate::codec::{DecodeError, Reader, Writer};

/// One service of one tenant inside a segment or block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatasetSummary {
    /// Position in the object's directory.
    pub position: u32,
    pub tenant: TenantId,
    pub service: Arc<str>,
    /// Unix nanoseconds, both included.
    pub times: Times,
    pub rows: u64,
    pub profile_types: Arc<[ProfileType]>,
}

/// Why an object cannot be read, and the time range of the queries that it affects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantine {
    pub reason: String,
    /// Unix nanoseconds, both included.
    pub times: Times,
}

pub(super) fn put_summary(out: &mut Writer, dataset: &DatasetSummary) {
    out.u64(u64::from(dataset.position));
    out.i64(dataset.times.first);
    // Wrapping, so that no pair of times is refused; the reader wraps back.
    out.u64(dataset.times.last.wrapping_sub(dataset.times.first) as u64);
    out.u64(dataset.rows);
    out.u64(dataset.profile_types.len() as u64);
    for one in dataset.profile_types.iter() {
        for part in [&one.name, &one.sample_type, &one.sample_unit, &one.period_type, &one.period_unit] {
            out.text(part);
        }
    }
}

pub(super) fn take_summary(
    value: &mut Reader<'_>,
    tenant: TenantId,
    service: Arc<str>,
) -> Result<DatasetSummary, DecodeError> {
    let position = value.u32()?;
    let first = value.i64()?;
    let times = Times { first, last: first.wrapping_add(value.u64()? as i64) };
    let rows = value.u64()?;
    let count = value.count(5)?;
    let mut types = Vec::with_capacity(count);
    for _ in 0..count {
        types.push(ProfileType {
            name: value.text()?.to_owned(),
            sample_type: value.text()?.to_owned(),
            sample_unit: value.text()?.to_owned(),
            period_type: value.text()?.to_owned(),
            period_unit: value.text()?.to_owned(),
        });
    }
    let profile_types = types.into();
    Ok(DatasetSummary { position, tenant, service, times, rows, profile_types })
}

pub(super) fn put_quarantine(out: &mut Writer, quarantine: Option<&Quarantine>) {
    match quarantine {
        None => out.u8(0),
        Some(Quarantine { reason, times }) => {
            out.u8(1);
            out.text(reason);
            out.i64(times.first);
            out.i64(times.last);
        }
    }
}

pub(super) fn take_quarantine(value: &mut Reader<'_>) -> Result<Option<Quarantine>, DecodeError> {
    if value.u8()? == 0 {
        return Ok(None);
    }
    let reason = value.text()?.to_owned();
    Ok(Some(Quarantine { reason, times: Times { first: value.i64()?, last: value.i64()? } }))
}

/// The floor and the row count; rows of version 1 have neither, which reads as 0.
pub(super) fn take_floor_and_rows(value: &mut Reader<'_>) -> Result<(u64, u64), DecodeError> {
    if value.version() < 2 { Ok((0, 0)) } else { Ok((value.u64()?, value.u64()?)) }
}
