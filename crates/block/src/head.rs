//! The open segment: profiles in memory until they are cut into an object.
//!
//! Owns: merging rows per profile, dropping equal pushes, the symbols of a cut segment.
//! Does not own: symbols while the segment is open (`dictionary`), when to cut (the ingester), the bytes
//! of an object (`writer`).

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashTable};
use model::label_names::SERVICE_NAME;
use model::{ItemKey, Labels, NONE, ProfileId, PushItem, SeriesRows, Span, TenantId, ValueSchema};
use parking_lot::Mutex;

use crate::dictionary::{Dictionaries, Dictionary};
use crate::intern::{Hashes, Import, Scratch};
use crate::rows::{NewDataset, NewProfile, PreparedDataset};
use crate::writer::{ObjectWriter, WriterOptions};
use crate::{Directory, Error, Origin, Series, VALUE_COLUMNS_MAX};

/// Bytes of symbols that a head with dictionaries of its own keeps between segments.
const OWN_DICTIONARIES_BYTES: usize = 64 << 20;

/// The open segment. Not shared: its owner appends and cuts in turn.
pub struct Head {
    dictionaries: Dictionaries,
    hashes: Hashes,
    scratch: Scratch,
    datasets: Vec<OpenDataset>,
    by_name: HashMap<TenantId, HashMap<Box<str>, usize>>,
    keys: Vec<ItemKey>,
    ordinals: HashMap<ItemKey, u32>,
    byte_len: usize,
}

/// The outcome of appending a push item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendOutcome {
    /// Number of the item within the segment.
    pub ordinal: u32,
    /// The segment already holds an item with this key; this one adds no rows.
    pub duplicate: bool,
}

/// An object, ready to be stored.
#[derive(Clone, Debug)]
pub struct EncodedObject {
    pub bytes: Bytes,
    pub directory: Directory,
}

/// A closed segment that is not encoded yet.
pub struct ClosedSegment {
    datasets: Vec<OpenDataset>,
    keys: Vec<ItemKey>,
}

/// A closed segment in storage order. It can be encoded again, for another slot.
pub struct SortedSegment {
    datasets: Vec<PreparedDataset>,
    keys: Vec<ItemKey>,
}

impl Default for Head {
    fn default() -> Self {
        Self::with(Dictionaries::new(OWN_DICTIONARIES_BYTES))
    }
}

impl Head {
    /// A head with dictionaries of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A head that shares its dictionaries with other heads, earlier ones or concurrent ones.
    pub fn with(dictionaries: Dictionaries) -> Self {
        Self {
            dictionaries,
            hashes: Hashes::default(),
            scratch: Scratch::default(),
            datasets: Vec::new(),
            by_name: HashMap::new(),
            keys: Vec::new(),
            ordinals: HashMap::new(),
            byte_len: 0,
        }
    }

    /// Adds the rows of one item. A sample that the profile does not have counts as an empty
    /// stacktrace with values 0, a column that it does not have as 0.
    pub fn append(&mut self, item: &PushItem) -> AppendOutcome {
        let next = self.keys.len() as u32;
        let ordinal = *self.ordinals.entry(item.key).or_insert(next);
        if ordinal != next {
            return AppendOutcome { ordinal, duplicate: true };
        }
        self.keys.push(item.key);
        self.hashes.fill(&self.dictionaries.keys, &item.profile.symbols);
        // Usually there is one service; its symbols are imported once for all its series.
        let mut done = vec![false; item.series.len()];
        for first in 0..item.series.len() {
            if done[first] {
                continue;
            }
            let service = service_of(&item.series[first]);
            let position = self.dataset(&item.tenant, service);
            let dataset = &mut self.datasets[position];
            let before = dataset.byte_len();
            let shared = dataset.dictionary.clone();
            let mut dictionary = shared.lock();
            let known_before = dictionary.byte_len();
            let mut import = Import::new(&item.profile.symbols, &self.hashes, &mut self.scratch);
            for (i, rows) in item.series.iter().enumerate().skip(first) {
                if !done[i] && service_of(rows) == service {
                    done[i] = true;
                    dataset.append(item, rows, ordinal, &mut dictionary, &mut import);
                }
            }
            let grown = dictionary.byte_len() - known_before;
            drop(dictionary);
            if grown > 0 {
                self.dictionaries.grown(&item.tenant, service, &shared, grown);
            }
            self.byte_len += dataset.byte_len() - before + grown;
        }
        self.byte_len += size_of::<ItemKey>() * 3;
        AppendOutcome { ordinal, duplicate: false }
    }

    /// Approximate bytes in memory. Of symbols, only those that the dictionaries did not know count.
    pub fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// Number of items, without duplicates.
    pub fn items(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Closes the segment; the head is empty afterwards. Quick: nothing is copied.
    pub fn cut(&mut self) -> ClosedSegment {
        let head = std::mem::replace(self, Self::with(self.dictionaries.clone()));
        ClosedSegment { datasets: head.datasets, keys: head.keys }
    }

    fn dataset(&mut self, tenant: &TenantId, service: &str) -> usize {
        if let Some(position) = self.by_name.get(tenant).and_then(|services| services.get(service)) {
            return *position;
        }
        let position = self.datasets.len();
        let dictionary = self.dictionaries.take(tenant, service);
        self.datasets.push(OpenDataset::new(tenant.clone(), service.to_owned(), dictionary));
        self.by_name.entry(tenant.clone()).or_default().insert(service.into(), position);
        position
    }
}

impl ClosedSegment {
    /// Number of items, without duplicates.
    pub fn items(&self) -> usize {
        self.keys.len()
    }

    /// As [`SortedSegment::encode`], once.
    ///
    /// # Errors
    /// As there.
    pub fn encode(self, origin: Origin, created_millis: i64) -> Result<EncodedObject, Error> {
        self.sort().encode(origin, created_millis)
    }

    /// Sorts everything into storage order. Takes milliseconds of CPU.
    pub fn sort(self) -> SortedSegment {
        let mut datasets: Vec<PreparedDataset> =
            self.datasets.into_iter().map(|dataset| dataset.finish().prepare()).collect();
        datasets.sort_by(|a, b| (&a.tenant, &a.service).cmp(&(&b.tenant, &b.service)));
        SortedSegment { datasets, keys: self.keys }
    }
}

impl SortedSegment {
    /// Encodes the segment. Takes milliseconds of CPU: run it on a pool.
    ///
    /// # Errors
    /// `TooLarge` or `Encode` if the segment exceeds the limits of the format.
    pub fn encode(&self, origin: Origin, created_millis: i64) -> Result<EncodedObject, Error> {
        let mut writer = ObjectWriter::new(WriterOptions {
            origin,
            created_millis,
            keys: self.keys.clone(),
            value_columns: self.datasets.iter().map(PreparedDataset::value_columns).max().unwrap_or(0),
            has_spans: self.datasets.iter().any(|dataset| !dataset.spans.is_empty()),
        })?;
        for dataset in &self.datasets {
            writer.add(dataset, None, &[])?;
        }
        writer.finish()
    }
}

fn service_of(rows: &SeriesRows) -> &str {
    rows.labels.get(SERVICE_NAME).unwrap_or_default()
}

/// The schema cut to the number of columns that the format allows.
fn storable(schema: &Arc<ValueSchema>) -> Arc<ValueSchema> {
    if schema.columns.len() <= VALUE_COLUMNS_MAX {
        return schema.clone();
    }
    let mut shortened = (**schema).clone();
    shortened.columns.truncate(VALUE_COLUMNS_MAX);
    Arc::new(shortened)
}

struct OpenDataset {
    tenant: TenantId,
    service: String,
    dictionary: Arc<Mutex<Dictionary>>,
    series: SeriesTable,
    profiles: Vec<NewProfile>,
    /// Stacktrace ids of the dictionary.
    stacks: Vec<u32>,
    /// Row-major; each profile has as many per row as its schema has columns.
    values: Vec<i64>,
    /// As long as `stacks` once any row has a span, empty before.
    spans: Vec<Span>,
    order: Vec<u64>,
}

impl OpenDataset {
    fn new(tenant: TenantId, service: String, dictionary: Arc<Mutex<Dictionary>>) -> Self {
        Self {
            tenant,
            service,
            dictionary,
            series: SeriesTable::default(),
            profiles: Vec::new(),
            stacks: Vec::new(),
            values: Vec::new(),
            spans: Vec::new(),
            order: Vec::new(),
        }
    }

    fn byte_len(&self) -> usize {
        self.profiles.len() * size_of::<NewProfile>()
            + self.stacks.len() * 4
            + self.values.len() * 8
            + self.spans.len() * size_of::<Span>()
            + self.series.byte_len
    }

    fn append(
        &mut self,
        item: &PushItem,
        rows: &SeriesRows,
        ordinal: u32,
        dictionary: &mut Dictionary,
        import: &mut Import<'_>,
    ) {
        let profile = &item.profile;
        let row_start = self.stacks.len();
        let value_start = self.values.len();
        let schema = storable(&rows.schema);
        let columns = schema.columns.len();
        let stride = profile.sample_types.len();
        let has_spans =
            rows.spans.len() == rows.samples.len() && rows.spans.iter().any(|s| *s != Span::default());

        let mut order = std::mem::take(&mut self.order);
        order.clear();
        for (i, sample) in rows.samples.iter().enumerate() {
            let stack = import.stacktrace(&mut dictionary.interner, *sample);
            order.push((u64::from(stack) << 32) | i as u64);
        }
        order.sort_unstable();
        if has_spans {
            order.sort_by_key(|entry| (entry >> 32, rows.spans[*entry as u32 as usize]));
            self.spans.resize(row_start, Span::default());
        }
        let with_spans = has_spans || !self.spans.is_empty();

        let mut before = (NONE, Span::default());
        for entry in &order {
            let i = *entry as u32 as usize;
            let sample = rows.samples[i] as usize;
            let span = if has_spans { rows.spans[i] } else { Span::default() };
            let this = ((entry >> 32) as u32, span);
            let from = sample * stride;
            let values = profile.samples.values.get(from..from + stride).unwrap_or_default();
            let value = |column: usize| values.get(column).copied().unwrap_or(0);
            if this == before {
                let row = self.values.len() - columns;
                for column in 0..columns {
                    self.values[row + column] = self.values[row + column].wrapping_add(value(column));
                }
                continue;
            }
            before = this;
            self.stacks.push(this.0);
            self.values.extend((0..columns).map(value));
            if with_spans {
                self.spans.push(span);
            }
        }
        self.order = order;
        self.profiles.push(NewProfile {
            series: self.series.id(&schema, &rows.labels),
            time_nanos: profile.time_nanos,
            duration_nanos: profile.duration_nanos,
            period: profile.period,
            id: ProfileId::of(item.key).0,
            item: ordinal,
            row_start: row_start as u32,
            rows: (self.stacks.len() - row_start) as u32,
            value_start: value_start as u64,
        });
    }

    fn finish(mut self) -> NewDataset {
        let symbols = self.dictionary.lock().extract(&mut self.stacks);
        NewDataset {
            tenant: self.tenant,
            service: self.service,
            schemas: self.series.schemas,
            series: self.series.series,
            profiles: self.profiles,
            stacks: self.stacks,
            values: self.values,
            spans: self.spans,
            symbols,
        }
    }
}

/// Schemas and series of a dataset, each once.
#[derive(Default)]
pub(crate) struct SeriesTable {
    pub(crate) schemas: Vec<Arc<ValueSchema>>,
    pub(crate) series: Vec<Series>,
    ids: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    pub(crate) byte_len: usize,
}

impl SeriesTable {
    pub(crate) fn id(&mut self, schema: &Arc<ValueSchema>, labels: &Labels) -> u32 {
        use std::hash::BuildHasher;
        let known = self.schemas.iter().position(|s| Arc::ptr_eq(s, schema) || s == schema);
        let schema = known.unwrap_or_else(|| {
            self.byte_len += 256;
            self.schemas.push(schema.clone());
            self.schemas.len() - 1
        }) as u32;
        let Self { series, ids, hasher, byte_len, .. } = self;
        let hash_of = |series: &Series| hasher.hash_one((series.schema, &series.labels));
        let hash = hasher.hash_one((schema, labels));
        let same = |id: &u32| series[*id as usize].schema == schema && series[*id as usize].labels == *labels;
        if let Some(id) = ids.find(hash, same) {
            return *id;
        }
        let id = series.len() as u32;
        series.push(Series { schema, labels: labels.clone() });
        *byte_len += labels.byte_len() + labels.len() * 32 + 64;
        ids.insert_unique(hash, id, |id| hash_of(&series[*id as usize]));
        id
    }
}
