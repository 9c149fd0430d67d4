//! Answers finds from memory.
//!
//! Owns: the index of live objects by tenant, service and day.
//! Does not own: which objects are live (`state`).

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::rows::DatasetSummary;
use hashbrown::{HashMap, HashSet};
use model::{DAY, Identity, ProfileType, TenantId, TimeRange, Times};
use rpc::{FindRequest, FoundDataset, FoundObject, PruneCounts};
use storage::Key;

use crate::deletions::Deletions;

/// Length of a day of Unix time, in nanoseconds.
const DAY_NANOS: i64 = DAY * 1_000_000_000;

/// The live objects, indexed for finds.
#[derive(Default)]
pub(crate) struct Index {
    objects: HashMap<u64, Entry>,
    tenants: HashMap<TenantId, Tenant>,
    /// One copy of each distinct list of profile types: services have few, datasets are many.
    types: HashSet<Arc<[ProfileType]>>,
    next_id: u64,
}

struct Entry {
    object: Arc<Object>,
    /// Rows and times of all its datasets.
    rows: u64,
    times: Times,
}

#[derive(Default)]
struct Tenant {
    /// All datasets of a service share this copy of its name.
    services: BTreeMap<Arc<str>, Service>,
    /// Spans by object. Datasets are sorted by tenant, so there is one span for each object.
    objects: BTreeMap<u64, Vec<Span>>,
}

/// A live object, as finds return it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) bytes: u64,
    /// Ordinals of items that do not count, sorted; empty for blocks.
    pub(crate) masked: Vec<u32>,
    /// The newest deletion that the object needs no more.
    pub(crate) floor: u64,
    pub(crate) datasets: Vec<DatasetSummary>,
}

/// Spans of the datasets of one service.
#[derive(Default)]
struct Service {
    days: BTreeMap<i64, Vec<Span>>,
    /// Datasets that touch more than one day; only segments have them.
    wide: Vec<Span>,
}

/// Neighbours in `Object::datasets`, from `first` up to `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    object: u64,
    first: u32,
    end: u32,
}

impl Span {
    fn datasets<'a>(&self, object: &'a Object) -> &'a [DatasetSummary] {
        &object.datasets[self.first as usize..self.end as usize]
    }
}

impl Index {
    /// Makes an object visible to finds. Returns the id by which it is removed.
    pub(crate) fn insert(&mut self, mut object: Object) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        for (first, entry) in (0..).zip(&mut object.datasets) {
            let span = Span { object: id, first, end: first + 1 };
            entry.profile_types = self.types.get_or_insert(entry.profile_types.clone()).clone();
            let tenant = self.tenants.entry(entry.tenant.clone()).or_default();
            if let Some((name, _)) = tenant.services.get_key_value(&entry.service) {
                entry.service = name.clone();
            }
            let service = tenant.services.entry(entry.service.clone()).or_default();
            service.spans(entry).push(span);
            let spans = tenant.objects.entry(id).or_default();
            match spans.last_mut() {
                Some(last) if last.end == first => last.end = span.end,
                _ => spans.push(span),
            }
        }
        let datasets = || object.datasets.iter();
        let rows = datasets().map(|entry| entry.rows).sum();
        let never = Times { first: i64::MAX, last: i64::MIN };
        let times = datasets().map(|entry| entry.times).reduce(Times::join).unwrap_or(never);
        self.objects.insert(id, Entry { object: Arc::new(object), rows, times });
        id
    }

    /// Hides an object from finds.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Arc<Object>> {
        let Entry { object, .. } = self.objects.remove(&id)?;
        for entry in &object.datasets {
            let Some(tenant) = self.tenants.get_mut(&entry.tenant) else {
                continue;
            };
            tenant.objects.remove(&id);
            let Some(service) = tenant.services.get_mut(&entry.service) else {
                continue;
            };
            service.spans(entry).retain(|span| span.object != id);
            service.days.retain(|_, spans| !spans.is_empty());
            if service.days.is_empty() && service.wide.is_empty() {
                tenant.services.remove(&entry.service);
            }
            if tenant.services.is_empty() {
                self.tenants.remove(&entry.tenant);
            }
        }
        Some(object)
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Arc<Object>> {
        self.objects.get(&id).map(|entry| &entry.object)
    }

    /// Every live object with a dataset that matches `request`, with only these datasets. Datasets that end before
    /// `kept_from(tenant, service)` are expired and left out.
    pub(crate) fn find(
        &self,
        request: &FindRequest,
        deletions: &Deletions,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> Vec<FoundObject> {
        let (spans, kept) = self.candidates(request, kept_from);
        let mut types = TypeFilter::new(request.profile_type.as_ref());
        let mut found: Vec<FoundObject> = Vec::new();
        for spans in spans.chunk_by(|a, b| a.object == b.object) {
            let Some(Entry { object, rows, times }) = self.objects.get(&spans[0].object) else {
                continue;
            };
            if !request.range.overlaps(*times) {
                continue;
            }
            let mut datasets = Vec::with_capacity(spans.iter().map(|span| span.datasets(object).len()).sum());
            for dataset in spans.iter().flat_map(|span| span.datasets(object)) {
                let is_kept =
                    kept.get(&Identity(&dataset.service)).is_none_or(|from| dataset.times.last >= *from);
                if is_kept && request.range.overlaps(dataset.times) && types.matches(&dataset.profile_types) {
                    datasets.push(FoundDataset {
                        position: dataset.position,
                        tenant: dataset.tenant.clone(),
                        service: dataset.service.clone(),
                        bytes: share(object.bytes, dataset.rows, *rows),
                        times: dataset.times,
                        profile_types: dataset.profile_types.clone(),
                    });
                }
            }
            if !datasets.is_empty() {
                found.push(FoundObject {
                    key: object.key.clone(),
                    bytes: object.bytes,
                    masked: object.masked.clone(),
                    deletions: deletions.needed_by(object.floor, &object.datasets),
                    datasets,
                });
            }
        }
        found
    }

    /// Spans of the datasets that may match `request`, sorted, and the results of `kept_from` for their services,
    /// each by the service's name, which all datasets of the service share.
    fn candidates(
        &self,
        request: &FindRequest,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> (Vec<Span>, HashMap<Identity<'_, str>, i64>) {
        let mut spans: Vec<Span> = Vec::new();
        let mut kept = HashMap::new();
        for id in &request.tenants {
            let Some(tenant) = self.tenants.get(id) else {
                continue;
            };
            match &request.services {
                Some(names) => {
                    for (name, service) in
                        names.iter().filter_map(|name| tenant.services.get_key_value(name.as_str()))
                    {
                        kept.insert(Identity(name), kept_from(id, name));
                        service.collect(request.range, &mut spans);
                    }
                }
                None => {
                    kept.extend(tenant.services.keys().map(|name| (Identity(name), kept_from(id, name))));
                    let is_in_range = |id: &u64| {
                        let entry = self.objects.get(id);
                        entry.is_some_and(|entry| request.range.overlaps(entry.times))
                    };
                    let objects = tenant.objects.iter().filter(|(id, _)| is_in_range(id));
                    spans.extend(objects.flat_map(|(_, spans)| spans));
                }
            }
        }
        // A tenant or service may be named twice.
        spans.sort_unstable();
        spans.dedup();
        (spans, kept)
    }

    /// Counts the datasets of the tenants that [`Index::find`] leaves out, by reason. Looks at all of them.
    pub(crate) fn pruned(
        &self,
        request: &FindRequest,
        kept_from: impl Fn(&TenantId, &str) -> i64,
    ) -> PruneCounts {
        let mut pruned = PruneCounts::default();
        for id in request.tenants.iter().collect::<HashSet<_>>() {
            let services = self.tenants.get(id).into_iter().flat_map(|tenant| &tenant.services);
            for (name, service) in services {
                let spans = || service.wide.iter().chain(service.days.values().flatten());
                if request.services.as_ref().is_some_and(|names| !names.iter().any(|n| **n == **name)) {
                    pruned.by_service += spans().count() as u64;
                    continue;
                }
                let from = kept_from(id, name);
                for span in spans() {
                    let Some(Entry { object, .. }) = self.objects.get(&span.object) else {
                        continue;
                    };
                    let dataset = &object.datasets[span.first as usize];
                    let wanted = request.profile_type.as_ref();
                    if !request.range.overlaps(dataset.times) {
                        pruned.by_time += 1;
                    } else if dataset.times.last < from {
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

/// Tells whether lists of profile types hold the wanted one. Neighbours mostly share one list, so the last result is
/// kept.
struct TypeFilter<'a> {
    wanted: Option<&'a ProfileType>,
    last: Option<(&'a Arc<[ProfileType]>, bool)>,
}

impl<'a> TypeFilter<'a> {
    fn new(wanted: Option<&'a ProfileType>) -> Self {
        Self { wanted, last: None }
    }

    fn matches(&mut self, types: &'a Arc<[ProfileType]>) -> bool {
        let Some(wanted) = self.wanted else {
            return true;
        };
        match self.last {
            Some((last, holds)) if Arc::ptr_eq(last, types) => holds,
            _ => {
                let holds = types.contains(wanted);
                self.last = Some((types, holds));
                holds
            }
        }
    }
}

/// Estimated bytes of `rows` out of `all_rows` of an object, at least one.
fn share(bytes: u64, rows: u64, all_rows: u64) -> u64 {
    let share = match bytes.checked_mul(rows) {
        Some(product) => product / all_rows.max(1),
        None => {
            (u128::from(bytes) * u128::from(rows) / u128::from(all_rows.max(1))).try_into().unwrap_or(bytes)
        }
    };
    share.max(1)
}

impl Service {
    fn spans(&mut self, dataset: &DatasetSummary) -> &mut Vec<Span> {
        let first = dataset.times.first.div_euclid(DAY_NANOS);
        let last = dataset.times.last.div_euclid(DAY_NANOS);
        if first == last { self.days.entry(first).or_default() } else { &mut self.wide }
    }

    fn collect(&self, range: TimeRange, spans: &mut Vec<Span>) {
        spans.extend(&self.wide);
        if range.start >= range.end {
            return;
        }
        let first = range.start.div_euclid(DAY_NANOS);
        let last = (range.end - 1).div_euclid(DAY_NANOS);
        spans.extend(self.days.range(first..=last).flat_map(|(_, spans)| spans));
    }
}
