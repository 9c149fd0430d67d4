//! Parts of the messages of several roles.

use std::sync::Arc;

use block::Directory;
use block::codec::{Cursor, Delta, Malformed, put, put_signed};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::{Identity, Labels, LabelsBuilder, ProfileType, TenantId, TimeRange, Times};
use storage::Key;
use wire::pyrograph::rpc::v1 as proto;

use ::query::Deletion;

use super::{Unreadable, query};
use crate::{FoundDataset, FoundObject};

/// Approximate and minimum size of one dataset in a message, in bytes.
pub(super) const DATASET_BYTES: usize = 24;
const DATASET_BYTES_MIN: usize = 7;

pub(super) fn put_id(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_le_bytes())
}

pub(super) fn id(bytes: &[u8], field: &'static str) -> Result<u128, Unreadable> {
    let array = bytes.try_into();
    let array = array.map_err(|_| Unreadable::new(field, format!("has {} bytes, not 16", bytes.len())))?;
    Ok(u128::from_le_bytes(array))
}

pub(super) fn tenant(text: &str, field: &'static str) -> Result<TenantId, Unreadable> {
    let tenant =
        TenantId::parse(text).map_err(|error| Unreadable::new(field, format!("is wrong: {error}")))?;
    if tenant.as_str() != text {
        return Err(Unreadable::new(field, format!("{text:?} is not a tenant id")));
    }
    Ok(tenant)
}

pub(super) fn key(text: String, field: &'static str) -> Result<Key, Unreadable> {
    if text.is_empty() {
        return Err(Unreadable::new(field, "is empty"));
    }
    Ok(Key::from_text(text))
}

pub(super) fn put_keys<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<String> {
    keys.map(|key| key.as_str().to_owned()).collect()
}

pub(super) fn put_directory(directory: &Directory) -> Bytes {
    directory.encode().into()
}

pub(super) fn directory(bytes: &[u8]) -> Result<Directory, Unreadable> {
    Directory::decode(bytes).map_err(|error| Unreadable::new("directory", format!("is wrong: {error}")))
}

pub(super) fn put_range(range: TimeRange) -> proto::TimeRange {
    proto::TimeRange { start: range.start, end: range.end }
}

pub(super) fn range(range: Option<proto::TimeRange>) -> Result<TimeRange, Unreadable> {
    let proto::TimeRange { start, end } = range.ok_or_else(|| Unreadable::missing("range"))?;
    Ok(TimeRange { start, end })
}

pub(super) fn put_profile_type(profile_type: &ProfileType) -> proto::ProfileType {
    let ProfileType { name, sample_type, sample_unit, period_type, period_unit } = profile_type.clone();
    proto::ProfileType { name, sample_type, sample_unit, period_type, period_unit }
}

pub(super) fn profile_type(profile_type: proto::ProfileType) -> ProfileType {
    let proto::ProfileType { name, sample_type, sample_unit, period_type, period_unit } = profile_type;
    ProfileType { name, sample_type, sample_unit, period_type, period_unit }
}

pub(super) fn put_labels(labels: &Labels) -> Vec<proto::Label> {
    labels
        .iter()
        .map(|(name, value)| proto::Label { name: name.to_owned(), value: value.to_owned() })
        .collect()
}

pub(super) fn labels(labels: Vec<proto::Label>) -> Result<Labels, Unreadable> {
    if !labels.is_sorted_by(|a, b| a.name < b.name) {
        return Err(Unreadable::new("labels", "are not sorted by name"));
    }
    let mut builder = LabelsBuilder::default();
    for proto::Label { name, value } in labels {
        builder.push(name, value);
    }
    Ok(builder.build())
}

/// Checks that ordinals are sorted: they are looked up in order.
pub(super) fn masked(masked: Vec<u32>) -> Result<Vec<u32>, Unreadable> {
    match masked.is_sorted() {
        true => Ok(masked),
        false => Err(Unreadable::new("masked", "is not sorted")),
    }
}

/// `value` as the narrower type `T`.
pub(super) fn narrow<T: TryFrom<u64>>(value: u64, field: &'static str) -> Result<T, Unreadable> {
    T::try_from(value).map_err(|_| Unreadable::new(field, format!("is {value}, which is too large")))
}

/// Deletions of a message: each is written once, and then referred to by its place in the table.
#[derive(Default)]
pub(super) struct Deletions {
    places: HashMap<u64, u32, RandomState>,
    pub(super) table: Vec<proto::Deletion>,
}

impl Deletions {
    pub(super) fn put(&mut self, deletions: &[Arc<Deletion>]) -> Vec<u32> {
        let place = |deletion: &Arc<Deletion>| {
            *self.places.entry(deletion.number).or_insert_with(|| {
                self.table.push(put_deletion(deletion));
                self.table.len() as u32 - 1
            })
        };
        deletions.iter().map(place).collect()
    }
}

/// Reads the table of [`Deletions`].
pub(super) fn deletions(table: Vec<proto::Deletion>) -> Result<Vec<Arc<Deletion>>, Unreadable> {
    table.into_iter().map(|entry| deletion(entry).map(Arc::new)).collect()
}

pub(super) fn put_deletion(deletion: &Deletion) -> proto::Deletion {
    proto::Deletion {
        number: deletion.number,
        tenant: deletion.tenant.to_string(),
        matchers: query::put_selector(&deletion.selector),
        range: Some(put_range(deletion.range)),
    }
}

pub(super) fn deletion(deletion: proto::Deletion) -> Result<Deletion, Unreadable> {
    let selector = query::selector(deletion.matchers)?;
    if selector.is_empty() {
        return Err(Unreadable::missing("matcher of a deletion"));
    }
    Ok(Deletion {
        number: deletion.number,
        tenant: tenant(&deletion.tenant, "tenant")?,
        selector,
        range: range(deletion.range)?,
    })
}

/// The deletions at `places` of the table.
pub(super) fn deletions_at(
    table: &[Arc<Deletion>],
    places: &[u32],
) -> Result<Vec<Arc<Deletion>>, Unreadable> {
    places.iter().map(|place| at(table, *place, "deletion")).collect()
}

/// Encodes objects. Tenants, services, profile types and deletions are written once, in tables.
pub(super) fn put_objects(objects: &[FoundObject]) -> proto::Objects {
    let mut tenants: HashMap<&str, u32, RandomState> = HashMap::default();
    let mut services: HashMap<&str, u32, RandomState> = HashMap::default();
    // Datasets with the same types share one list.
    let mut types: HashMap<Identity<'_, [ProfileType]>, u32, RandomState> = HashMap::default();
    let mut deletions = Deletions::default();
    let mut out = proto::Objects::default();
    for found in objects {
        let mut datasets = Vec::with_capacity(1 + found.datasets.len() * DATASET_BYTES);
        put(&mut datasets, found.datasets.len() as u64);
        let (mut positions, mut times) = (Delta::default(), Delta::default());
        for dataset in &found.datasets {
            let tenant = *tenants.entry(dataset.tenant.as_str()).or_insert_with(|| {
                out.tenants.push(dataset.tenant.to_string());
                out.tenants.len() as u32 - 1
            });
            let service = *services.entry(&dataset.service).or_insert_with(|| {
                out.services.push(dataset.service.to_string());
                out.services.len() as u32 - 1
            });
            let profile_types = *types.entry(Identity(&dataset.profile_types)).or_insert_with(|| {
                let types = dataset.profile_types.iter().map(put_profile_type).collect();
                out.profile_types.push(proto::ProfileTypes { types });
                out.profile_types.len() as u32 - 1
            });
            positions.put(&mut datasets, i64::from(dataset.position));
            for place in [tenant, service, profile_types] {
                put(&mut datasets, u64::from(place));
            }
            times.put(&mut datasets, dataset.times.first);
            put_signed(&mut datasets, dataset.times.last.wrapping_sub(dataset.times.first));
            put(&mut datasets, dataset.bytes);
        }
        out.objects.push(proto::Object {
            key: found.key.as_str().to_owned(),
            bytes: found.bytes,
            masked: found.masked.clone(),
            datasets: datasets.into(),
            deletions: deletions.put(&found.deletions),
        });
    }
    out.deletions = deletions.table;
    out
}

pub(super) fn objects(objects: Option<proto::Objects>) -> Result<Vec<FoundObject>, Unreadable> {
    let proto::Objects { tenants, services, profile_types, objects, deletions: table } =
        objects.ok_or_else(|| Unreadable::missing("objects"))?;
    let table = deletions(table)?;
    let tenants: Vec<TenantId> =
        tenants.iter().map(|text| tenant(text, "tenant")).collect::<Result<_, Unreadable>>()?;
    let services: Vec<Arc<str>> = services.into_iter().map(Arc::from).collect();
    let mut types: Vec<Arc<[ProfileType]>> = Vec::with_capacity(profile_types.len());
    for proto::ProfileTypes { types: list } in profile_types {
        let list: Vec<ProfileType> = list.into_iter().map(profile_type).collect();
        if !list.is_sorted_by(|a, b| a < b) {
            return Err(Unreadable::new("profile types", "are not sorted and distinct"));
        }
        types.push(list.into());
    }
    let mut all = Vec::with_capacity(objects.len());
    for object in objects {
        let datasets = datasets(&object.datasets, &tenants, &services, &types);
        all.push(FoundObject {
            key: key(object.key, "key")?,
            bytes: object.bytes,
            masked: masked(object.masked)?,
            deletions: deletions_at(&table, &object.deletions)?,
            datasets: datasets.map_err(Unreadable::columns("datasets"))?,
        });
    }
    Ok(all)
}

/// Reads the datasets of one object.
fn datasets(
    bytes: &[u8],
    tenants: &[TenantId],
    services: &[Arc<str>],
    types: &[Arc<[ProfileType]>],
) -> Result<Vec<FoundDataset>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.count()?;
    let mut datasets = Vec::with_capacity(count.min(bytes.len() / DATASET_BYTES_MIN));
    let (mut positions, mut times) = (Delta::default(), Delta::default());
    for _ in 0..count {
        let position = positions.read(&mut cursor)?;
        let position = u32::try_from(position).map_err(|_| cursor.malformed("a position is too large"))?;
        let tenant = cursor.index(tenants.len(), "a tenant does not exist")?;
        let service = cursor.index(services.len(), "a service does not exist")?;
        let profile_types = cursor.index(types.len(), "profile types do not exist")?;
        let first = times.read(&mut cursor)?;
        datasets.push(FoundDataset {
            position,
            tenant: tenants[tenant as usize].clone(),
            service: services[service as usize].clone(),
            times: Times { first, last: first.wrapping_add(cursor.signed()?) },
            bytes: cursor.varint()?,
            profile_types: types[profile_types as usize].clone(),
        });
    }
    cursor.end()?;
    Ok(datasets)
}

pub(super) fn at<T: Clone>(table: &[T], index: u32, field: &'static str) -> Result<T, Unreadable> {
    let entry = table.get(index as usize).cloned();
    entry.ok_or_else(|| Unreadable::new(field, format!("{index} does not exist, there are {}", table.len())))
}
