//! Answers finds from memory.
//!
//! Owns: the live objects by tenant, service and day.
//! Does not own: which objects are live (`state`).

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::rows::DatasetSummary;
use hashbrown::{HashMap, HashSet};
use model::{ProfileType, TenantId};
use rpc::{FindRequest, Found, FoundDataset, Pruned, Snapshot};
use storage::Key;

use crate::orders::{Orders, needed};
use crate::state::State;

/// Length of a day of Unix time, in nanoseconds.
const DAY_NANOS: i64 = 86_400_000_000_000;

impl State {
    /// What is known now. What ends before `kept_from(tenant, service)` is past its time.
    pub(crate) fn snapshot(
        &self,
        request: &FindRequest,
        epoch: u64,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> Snapshot {
        let objects = self.index.find(request, &self.orders, &kept_from);
        let pruned = request.explain.then(|| self.index.pruned(request, &kept_from));
        let quarantined = self.quarantined.iter().filter(|(_, quarantined)| {
            let datasets = &quarantined.datasets;
            request.range.overlaps(quarantined.why.time_min, quarantined.why.time_max)
                && (datasets.is_empty()
                    || datasets.iter().any(|d| {
                        request.tenants.contains(&d.tenant) && request.range.overlaps(d.time_min, d.time_max)
                    }))
        });
        let quarantined = quarantined.map(|(key, q)| (key.clone(), q.why.reason.clone())).collect();
        Snapshot { version: self.version, epoch, stale: None, objects, quarantined, pruned }
    }
}

/// The live objects, by what finds ask for.
#[derive(Default)]
pub(crate) struct Index {
    objects: HashMap<u64, Live>,
    tenants: HashMap<TenantId, BTreeMap<Arc<str>, Service>>,
    /// One copy of each distinct list of profile types: services have few, datasets are many.
    types: HashSet<Arc<[ProfileType]>>,
    next_id: u64,
}

struct Live {
    object: Arc<Object>,
    /// Of all its datasets.
    rows: u64,
}

/// A live object as finds see it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) bytes: u64,
    /// Sorted; empty for blocks.
    pub(crate) masked: Vec<u32>,
    /// The newest order to delete that it needs no more.
    pub(crate) floor: u64,
    pub(crate) datasets: Vec<DatasetSummary>,
}

/// Where the datasets of one service lie: by object id and index into `Object::datasets`.
#[derive(Default)]
struct Service {
    days: BTreeMap<i64, Vec<Place>>,
    /// Datasets that touch more than one day; only segments have such.
    wide: Vec<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    object: u64,
    dataset: u32,
}

impl Index {
    /// Makes an object visible to finds; gives the id by which it is removed.
    pub(crate) fn insert(&mut self, mut object: Object) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        for (dataset, entry) in object.datasets.iter_mut().enumerate() {
            entry.profile_types = self.types.get_or_insert(entry.profile_types.clone()).clone();
            let services = self.tenants.entry(entry.tenant.clone()).or_default();
            if let Some((name, _)) = services.get_key_value(&entry.service) {
                entry.service = name.clone();
            }
            let service = services.entry(entry.service.clone()).or_default();
            service.places(entry).push(Place { object: id, dataset: dataset as u32 });
        }
        let rows = object.datasets.iter().map(|entry| entry.rows).sum();
        self.objects.insert(id, Live { object: Arc::new(object), rows });
        id
    }

    /// Hides an object from finds.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Arc<Object>> {
        let Live { object, .. } = self.objects.remove(&id)?;
        for entry in &object.datasets {
            let Some(services) = self.tenants.get_mut(&entry.tenant) else {
                continue;
            };
            let Some(service) = services.get_mut(&entry.service) else {
                continue;
            };
            service.places(entry).retain(|place| place.object != id);
            service.days.retain(|_, places| !places.is_empty());
            if service.days.is_empty() && service.wide.is_empty() {
                services.remove(&entry.service);
            }
            if services.is_empty() {
                self.tenants.remove(&entry.tenant);
            }
        }
        Some(object)
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Arc<Object>> {
        self.objects.get(&id).map(|live| &live.object)
    }

    /// Every live object that holds a dataset `request` asks for, with just those datasets. What
    /// ends before `kept_from(tenant, service)` is past its time and not found.
    pub(crate) fn find(
        &self,
        request: &FindRequest,
        orders: &Orders,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> Vec<Found> {
        // Each with the first instant that is kept of it.
        let mut places: Vec<(Place, i64)> = Vec::new();
        for tenant in &request.tenants {
            let Some(services) = self.tenants.get(tenant) else {
                continue;
            };
            match &request.services {
                Some(names) => {
                    for name in names {
                        if let Some(service) = services.get(name.as_str()) {
                            service.collect(request, kept_from(tenant, name), &mut places);
                        }
                    }
                }
                None => {
                    for (name, service) in services {
                        service.collect(request, kept_from(tenant, name), &mut places);
                    }
                }
            }
        }
        // A tenant or service may be named twice.
        places.sort_unstable();
        places.dedup();
        let mut found: Vec<Found> = Vec::new();
        let mut last = None;
        for (place, kept_from) in places {
            let Some(Live { object, rows }) = self.objects.get(&place.object) else {
                continue;
            };
            let dataset = &object.datasets[place.dataset as usize];
            if !request.range.overlaps(dataset.time_min, dataset.time_max) || dataset.time_max < kept_from {
                continue;
            }
            if let Some(wanted) = &request.profile_type
                && !dataset.profile_types.contains(wanted)
            {
                continue;
            }
            if last != Some(place.object) {
                last = Some(place.object);
                found.push(Found {
                    key: object.key.clone(),
                    bytes: object.bytes,
                    masked: object.masked.clone(),
                    orders: needed(orders, object.floor, object.datasets.iter()),
                    datasets: Vec::new(),
                });
            }
            if let Some(found) = found.last_mut() {
                found.datasets.push(FoundDataset {
                    position: dataset.position,
                    tenant: dataset.tenant.clone(),
                    service: dataset.service.clone(),
                    bytes: share(object.bytes, dataset.rows, *rows),
                    time_min: dataset.time_min,
                    time_max: dataset.time_max,
                    profile_types: dataset.profile_types.clone(),
                });
            }
        }
        found
    }

    /// What [`Index::find`] does not give of the tenants' datasets, by reason. Looks at all of them.
    pub(crate) fn pruned(&self, request: &FindRequest, kept_from: impl Fn(&TenantId, &str) -> i64) -> Pruned {
        let mut pruned = Pruned::default();
        for tenant in request.tenants.iter().collect::<HashSet<_>>() {
            for (name, service) in self.tenants.get(tenant).into_iter().flatten() {
                let places = || service.wide.iter().chain(service.days.values().flatten());
                if request.services.as_ref().is_some_and(|names| !names.iter().any(|n| **n == **name)) {
                    pruned.by_service += places().count() as u64;
                    continue;
                }
                let from = kept_from(tenant, name);
                for place in places() {
                    let Some(Live { object, .. }) = self.objects.get(&place.object) else {
                        continue;
                    };
                    let dataset = &object.datasets[place.dataset as usize];
                    let wanted = request.profile_type.as_ref();
                    if !request.range.overlaps(dataset.time_min, dataset.time_max) {
                        pruned.by_time += 1;
                    } else if dataset.time_max < from {
                        pruned.by_retention += 1;
                    } else if wanted.is_some_and(|wanted| !dataset.profile_types.contains(wanted)) {
                        pruned.by_profile_type += 1;
                    }
                }
            }
        }
        pruned
    }
}

/// What a part of the rows of an object has of its bytes, at least one.
fn share(bytes: u64, rows: u64, of: u64) -> u64 {
    let share = u128::from(bytes) * u128::from(rows) / u128::from(of.max(1));
    u64::try_from(share).unwrap_or(bytes).max(1)
}

impl Service {
    fn places(&mut self, dataset: &DatasetSummary) -> &mut Vec<Place> {
        let first = dataset.time_min.div_euclid(DAY_NANOS);
        let last = dataset.time_max.div_euclid(DAY_NANOS);
        if first == last { self.days.entry(first).or_default() } else { &mut self.wide }
    }

    fn collect(&self, request: &FindRequest, kept_from: i64, places: &mut Vec<(Place, i64)>) {
        let mut add = |found: &[Place]| places.extend(found.iter().map(|place| (*place, kept_from)));
        add(&self.wide);
        if request.range.start >= request.range.end {
            return;
        }
        let first = request.range.start.div_euclid(DAY_NANOS);
        let last = (request.range.end - 1).div_euclid(DAY_NANOS);
        for places_of_day in self.days.range(first..=last).map(|(_, places)| places) {
            add(places_of_day);
        }
    }
}
