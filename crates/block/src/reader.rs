//! Reads objects: the bytes that a scan needs are fetched first, then decoded without waiting.
//!
//! Owns: which byte ranges are fetched, checksums, bounds.
//! Does not own: the meaning of rows to a query (`query`).
//!
//! No byte of an object is trusted: a directory may name bytes that do not exist, a section may
//! inflate, an id may be out of range. Everything returned from here was checked.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memory::Lease;
use model::{Strings, Symbols};
use storage::{Key, Store};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::cache::{Entry, Kind, Name};
use crate::codec::{Cursor, unpack};
use crate::error::Malformed;
use crate::layout::Layout;
use crate::writer::{TRAILER_BYTES, TRAILER_MAGIC};
use crate::{
    Cache, DatasetEntry, DatasetIndex, Directory, Error, FORMAT_VERSION, NameTree, Section, symbols,
};

/// Decoded bytes per byte of a decompressed section, a rough upper bound: a number of one byte becomes a field of four.
const DECODED_PER_RAW: u64 = 4;
const DECODED_PER_RAW_SYMBOLS: u64 = 6;

/// Objects up to this size are read, and cached, whole.
const WHOLE_BYTES_MAX: u64 = 2 << 20;
/// Bytes first read from the end of a larger object; they usually include the directory.
const TAIL_BYTES: u64 = 64 << 10;
/// Largest Parquet footer and directory together; a larger size is treated as damage.
const TAIL_BYTES_MAX: u64 = 256 << 20;

/// A readable object. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(crate) parts: Arc<Parts>,
    pub(crate) store: Store,
    pub(crate) cache: Cache,
}

/// The cached parts of an opened object.
pub(crate) struct Parts {
    pub(crate) key: Key,
    pub(crate) key_hash: u128,
    directory: Directory,
    pub(crate) layout: Layout,
    /// All bytes, if they are at most [`WHOLE_BYTES_MAX`].
    whole: Option<Bytes>,
}

/// Sections to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sections {
    pub index: bool,
    pub symbols: bool,
    pub tree: bool,
}

/// Sections of one dataset, each decoded (from the cache) or ready to be decoded.
pub struct FetchedSections {
    block: Reader,
    dataset: usize,
    index: Option<Source<DatasetIndex>>,
    /// Fetched with symbols or a tree, which refer to them.
    strings: Bytes,
    symbols: Option<Source<Symbols>>,
    tree: Option<Source<NameTree>>,
    lease: Lease,
}

/// A decoded section from the cache, or its fetched bytes.
pub(crate) enum Source<T> {
    Decoded(Arc<T>),
    Packed(Bytes),
}

impl Reader {
    /// Opens an object of `bytes_len` bytes; reads its end, or all of a small one, unless the cache
    /// holds it.
    ///
    /// # Errors
    /// `Storage` if the object is gone or cannot be read, `Version` if it has another format version, `Corrupt`
    /// if it is not a valid object.
    pub async fn open(store: &Store, key: &Key, bytes_len: u64, cache: &Cache) -> Result<Self, Error> {
        let key_hash = xxh3_128(key.as_str().as_bytes());
        let name = Name { object: key_hash, dataset: 0, kind: Kind::Object };
        let opened = |parts| Self { parts, store: store.clone(), cache: cache.clone() };
        if let Some(Entry::Object(parts)) = cache.get(&name) {
            return Ok(opened(parts));
        }
        let wanted = if bytes_len <= WHOLE_BYTES_MAX { bytes_len } else { TAIL_BYTES };
        let mut tail = Tail { key, bytes_len, bytes: get_end(store, cache, key, bytes_len, wanted).await? };
        let section = loop {
            match tail.directory_section()? {
                DirectorySearch::Found(section) => break section,
                DirectorySearch::Needs(bytes) => {
                    tail.bytes = get_end(store, cache, key, bytes_len, bytes).await?;
                }
            }
        };
        let (directory, layout) = tail.decode_directory(&section)?;
        let whole =
            (tail.bytes.len() as u64 == bytes_len && bytes_len <= WHOLE_BYTES_MAX).then_some(tail.bytes);
        let parts = Arc::new(Parts { key: key.clone(), key_hash, directory, layout, whole });
        cache.insert(name, Entry::Object(parts.clone()));
        Ok(opened(parts))
    }

    pub fn key(&self) -> &Key {
        &self.parts.key
    }

    pub fn directory(&self) -> &Directory {
        &self.parts.directory
    }

    /// Number of distinct stacktraces of a dataset; every stack id in a batch is smaller.
    pub fn stacktraces(&self, dataset: usize) -> usize {
        self.parts.layout.stacks.get(dataset).map_or(0, |count| *count as usize)
    }

    /// Fetches sections of one dataset, by its position in the directory, in at most one round trip.
    ///
    /// # Errors
    /// `Storage`; `Corrupt` if there is no such dataset.
    pub async fn fetch(&self, dataset: usize, wanted: Sections) -> Result<FetchedSections, Error> {
        let entry = self.entry(dataset)?;
        let mut fetched = FetchedSections {
            block: self.clone(),
            dataset,
            index: None,
            strings: Bytes::new(),
            symbols: None,
            tree: None,
            lease: Lease::default(),
        };
        let cached = |kind| self.cache.get(&self.name(dataset, kind));
        if wanted.index
            && let Some(Entry::Index(index)) = cached(Kind::Index)
        {
            fetched.index = Some(Source::Decoded(index));
        }
        if wanted.tree
            && let Some(Entry::Tree(tree)) = cached(Kind::Tree)
        {
            fetched.tree = Some(Source::Decoded(tree));
        }
        // A tree that is not stored is built from the symbols.
        let build_tree = wanted.tree && fetched.tree.is_none() && entry.tree.is_none();
        let need_symbols = wanted.symbols || build_tree;
        if need_symbols && let Some(Entry::Symbols(symbols)) = cached(Kind::Symbols) {
            fetched.symbols = Some(Source::Decoded(symbols));
        }
        let fetch_index = wanted.index && fetched.index.is_none();
        let fetch_symbols = need_symbols && fetched.symbols.is_none();
        let fetch_tree = if wanted.tree && fetched.tree.is_none() { entry.tree } else { None };
        let fetch_strings = fetch_symbols || fetch_tree.is_some();
        let sections = [
            fetch_index.then_some(entry.index),
            fetch_strings.then_some(entry.strings),
            fetch_symbols.then_some(entry.symbols),
            fetch_tree,
        ];
        let ranges: Vec<Range<u64>> = sections
            .iter()
            .flatten()
            .map(|section| section.offset..section.offset.saturating_add(section.bytes.into()))
            .collect();
        let mut got = self.get_ranges(&ranges).await?.into_iter();
        if fetch_index {
            fetched.index = got.next().map(Source::Packed);
        }
        if fetch_strings {
            fetched.strings = got.next().unwrap_or_default();
        }
        if fetch_symbols {
            fetched.symbols = got.next().map(Source::Packed);
        }
        if fetch_tree.is_some() {
            fetched.tree = got.next().map(Source::Packed);
        }
        Ok(fetched)
    }

    pub(crate) fn entry(&self, dataset: usize) -> Result<&DatasetEntry, Error> {
        let entry = self.parts.directory.datasets.get(dataset);
        entry.ok_or_else(|| {
            self.corrupt("directory", Malformed { byte: 0, problem: "a dataset does not exist" })
        })
    }

    pub(crate) fn name(&self, dataset: usize, kind: Kind) -> Name {
        Name { object: self.parts.key_hash, dataset: dataset as u32, kind }
    }

    pub(crate) fn corrupt(&self, section: &'static str, malformed: Malformed) -> Error {
        corrupt(&self.parts.key, section, malformed)
    }

    /// Reads ranges in at most one round trip. A range outside of the object is `Corrupt`.
    pub(crate) async fn get_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        match &self.parts.whole {
            Some(whole) => ranges
                .iter()
                .map(|range| {
                    slice(whole, range).ok_or_else(|| {
                        let problem = "a section lies outside of the object";
                        self.corrupt("directory", Malformed { byte: range.start, problem })
                    })
                })
                .collect(),
            None => Ok(self.cache.read(&self.store, &self.parts.key, ranges).await?),
        }
    }
}

impl Parts {
    pub(crate) fn byte_len(&self) -> usize {
        let whole = self.whole.as_ref().map_or(0, Bytes::len);
        let datasets: usize = self
            .directory
            .datasets
            .iter()
            .map(|d| {
                let cells: usize = d.cells.iter().map(|cells| 64 + cells.labels.len() * 32).sum();
                256 + d.service.len() + d.profile_types.len() * 200 + d.label_names.len() * 32 + cells
            })
            .sum();
        let pages: usize =
            self.layout.row_groups.iter().flat_map(|g| &g.columns).map(|pages| 24 + pages.len() * 32).sum();
        whole + datasets + pages + self.directory.keys.len() * 16
    }
}

impl FetchedSections {
    pub fn block(&self) -> &Reader {
        &self.block
    }

    /// Charges decoded sections to `lease`.
    pub fn charged_to(self, lease: Lease) -> Self {
        Self { lease, ..self }
    }

    /// The index, decoded now unless the cache had it.
    ///
    /// # Errors
    /// `Corrupt`; `Memory` if there is no room for it.
    pub fn index(&self) -> Result<Arc<DatasetIndex>, Error> {
        let section = &self.entry()?.index;
        self.decode(&self.index, section, "index", Kind::Index, Entry::Index, |raw| {
            let index = DatasetIndex::decode(raw)?;
            let entry_rows = self.entry().map_or(0, |entry| entry.rows.end - entry.rows.start);
            let index_rows = index.profiles.row_starts.last().copied().unwrap_or(0);
            let value_columns = self.block.parts.layout.value_columns;
            if u64::from(index_rows) != entry_rows {
                return Err(Malformed { byte: 0, problem: "has other rows than the directory says" });
            }
            if index.columns.iter().flatten().any(|stored| stored.value >= value_columns) {
                return Err(Malformed { byte: 0, problem: "a value column does not exist" });
            }
            Ok(index)
        })
    }

    /// The symbols, decoded now unless the cache had them.
    ///
    /// # Errors
    /// `Corrupt`; `Memory` if there is no room for them.
    pub fn symbols(&self) -> Result<Arc<Symbols>, Error> {
        let section = &self.entry()?.symbols;
        self.decode(&self.symbols, section, "symbols", Kind::Symbols, Entry::Symbols, |raw| {
            let symbols = symbols::decode_tables(&mut Cursor::new(raw), self.strings()?)?;
            self.check_stacktraces(symbols.stacktraces.len())?;
            Ok(symbols)
        })
    }

    /// The name tree, decoded or built now unless the cache had it.
    ///
    /// # Errors
    /// `Corrupt`; `Memory` if there is no room for it.
    pub fn tree(&self) -> Result<Arc<NameTree>, Error> {
        let entry = self.entry()?;
        if let (Some(section), Some(_)) = (&entry.tree, &self.tree) {
            return self.decode(&self.tree, section, "tree", Kind::Tree, Entry::Tree, |raw| {
                let tree = NameTree::decode(raw, self.strings()?)?;
                self.check_stacktraces(tree.leaves.len())?;
                Ok(tree)
            });
        }
        if let Some(Source::Decoded(tree)) = &self.tree {
            return Ok(tree.clone());
        }
        let symbols = self.symbols()?;
        let built = NameTree::build_within(&symbols, &self.lease);
        let tree = Arc::new(built.map_err(|refusal| self.out_of_memory("tree", refusal))?);
        self.block.cache.insert(self.block.name(self.dataset, Kind::Tree), Entry::Tree(tree.clone()));
        Ok(tree)
    }

    fn entry(&self) -> Result<&DatasetEntry, Error> {
        self.block.entry(self.dataset)
    }

    fn strings(&self) -> Result<Strings, Malformed> {
        let missing = Malformed { byte: 0, problem: "was not asked for when fetching" };
        let raw = unpack(&self.strings, &self.entry().map_err(|_| missing)?.strings)?;
        let mut cursor = Cursor::new(&raw);
        let strings = symbols::decode_strings(&mut cursor)?;
        cursor.end()?;
        Ok(strings)
    }

    fn out_of_memory(&self, section: &str, refusal: memory::Refusal) -> Error {
        Error::Memory { purpose: format!("object {}: {section}", self.block.key()), refusal }
    }

    /// Bytes of memory for decoding a section, a rough upper bound.
    fn decoding_bytes(&self, section: &Section, kind: Kind) -> u64 {
        let raw = u64::from(section.raw_bytes);
        let strings = self.entry().map_or(0, |entry| u64::from(entry.strings.raw_bytes));
        match kind {
            Kind::Symbols => raw * (1 + DECODED_PER_RAW_SYMBOLS) + strings * (1 + DECODED_PER_RAW),
            Kind::Tree => raw * (1 + DECODED_PER_RAW) + strings * (1 + DECODED_PER_RAW),
            _ => raw * (1 + DECODED_PER_RAW),
        }
    }

    fn check_stacktraces(&self, found: usize) -> Result<(), Malformed> {
        if found != self.block.stacktraces(self.dataset) {
            return Err(Malformed { byte: 0, problem: "has other stacktraces than the directory says" });
        }
        Ok(())
    }

    fn decode<T>(
        &self,
        source: &Option<Source<T>>,
        section: &Section,
        name: &'static str,
        kind: Kind,
        entry: fn(Arc<T>) -> Entry,
        decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Arc<T>, Error> {
        let packed = match source {
            Some(Source::Decoded(decoded)) => return Ok(decoded.clone()),
            Some(Source::Packed(packed)) => packed,
            None => {
                let malformed =
                    Malformed { byte: section.offset, problem: "was not asked for when fetching" };
                return Err(self.block.corrupt(name, malformed));
            }
        };
        let held = self.lease.bytes();
        self.lease
            .grow(self.decoding_bytes(section, kind))
            .map_err(|refusal| self.out_of_memory(name, refusal))?;
        let decoded = unpack(packed, section).and_then(|raw| decode(&raw));
        let decoded = Arc::new(decoded.map_err(|malformed| self.block.corrupt(name, malformed))?);
        let entry = entry(decoded.clone());
        self.lease.shrink_to(held.saturating_add(entry.byte_len() as u64));
        self.block.cache.insert(self.block.name(self.dataset, kind), entry);
        Ok(decoded)
    }
}

fn corrupt(key: &Key, section: &'static str, malformed: Malformed) -> Error {
    Error::Corrupt { object: key.clone(), section, byte: malformed.byte, problem: malformed.problem }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let start = usize::try_from(range.start).ok()?;
    let end = usize::try_from(range.end).ok()?;
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

async fn get_end(
    store: &Store,
    cache: &Cache,
    key: &Key,
    bytes_len: u64,
    wanted: u64,
) -> Result<Bytes, Error> {
    let range = bytes_len.saturating_sub(wanted)..bytes_len;
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let mut got = cache.read(store, key, std::slice::from_ref(&range)).await?;
    let end = got.pop().unwrap_or_default();
    if end.len() as u64 != range.end - range.start {
        let malformed =
            Malformed { byte: range.start + end.len() as u64, problem: "the object ends too early" };
        return Err(corrupt(key, "footer", malformed));
    }
    Ok(end)
}

/// The end of an object: trailer and Parquet footer, the directory before them.
struct Tail<'a> {
    key: &'a Key,
    bytes_len: u64,
    bytes: Bytes,
}

enum DirectorySearch {
    Found(Section),
    /// Bytes of the object's end that must be read to continue.
    Needs(u64),
}

impl Tail<'_> {
    fn directory_section(&self) -> Result<DirectorySearch, Error> {
        let wrong = |byte: u64, problem| corrupt(self.key, "footer", Malformed { byte, problem });
        let magic = self.last(8, 8)?;
        if &magic[4..] != b"PAR1" {
            return Err(wrong(self.bytes_len - 4, "does not end as a Parquet file does"));
        }
        let footer_bytes = u64::from(u32::from_le_bytes([magic[0], magic[1], magic[2], magic[3]]));
        let trailer_distance = footer_bytes + 8 + TRAILER_BYTES as u64;
        if trailer_distance > self.bytes_len.min(TAIL_BYTES_MAX) {
            return Err(wrong(self.bytes_len - 8, "the footer is longer than the object, or than allowed"));
        }
        if trailer_distance > self.bytes.len() as u64 {
            return Ok(DirectorySearch::Needs(trailer_distance + TAIL_BYTES));
        }
        let trailer = self.last(trailer_distance, TRAILER_BYTES)?;
        let trailer_offset = self.bytes_len - trailer_distance;
        if &trailer[36..44] != TRAILER_MAGIC {
            return Err(wrong(trailer_offset, "the trailer is missing"));
        }
        let version = u32::from_le_bytes([trailer[24], trailer[25], trailer[26], trailer[27]]);
        if version != FORMAT_VERSION {
            return Err(Error::Version { object: self.key.clone(), version, read: FORMAT_VERSION });
        }
        let (content, rest) = trailer.split_at(28);
        if rest[..8] != xxh3_64(content).to_le_bytes() {
            return Err(wrong(trailer_offset, "the checksum of the trailer does not match"));
        }
        let section = read_trailer(content).map_err(|m| corrupt(self.key, "footer", m))?;
        let end = section.offset.checked_add(section.bytes.into());
        if end != Some(trailer_offset) {
            return Err(wrong(trailer_offset, "the directory does not end where the trailer begins"));
        }
        let distance = self.bytes_len - section.offset;
        if distance > TAIL_BYTES_MAX {
            return Err(wrong(trailer_offset, "the directory is larger than allowed"));
        }
        Ok(if distance > self.bytes.len() as u64 {
            DirectorySearch::Needs(distance)
        } else {
            DirectorySearch::Found(section)
        })
    }

    fn decode_directory(&self, section: &Section) -> Result<(Directory, Layout), Error> {
        let packed = self.last(self.bytes_len - section.offset, section.bytes as usize)?;
        let decode = || {
            let raw = unpack(packed, section)?;
            let mut cursor = Cursor::new(&raw);
            let directory = Directory::read(&mut cursor)?;
            let layout = Layout::read(&mut cursor, directory.datasets.len(), self.bytes_len)?;
            cursor.end()?;
            check(&directory, &layout, section)?;
            Ok((directory, layout))
        };
        decode().map_err(|malformed| corrupt(self.key, "directory", malformed))
    }

    /// `length` bytes that begin `distance` bytes before the end of the object.
    fn last(&self, distance: u64, length: usize) -> Result<&[u8], Error> {
        let start = (self.bytes.len() as u64).checked_sub(distance);
        let found = start.and_then(|start| self.bytes.get(start as usize..)?.get(..length));
        found.ok_or_else(|| {
            let byte = self.bytes_len.saturating_sub(distance);
            corrupt(self.key, "footer", Malformed { byte, problem: "the object ends too early" })
        })
    }
}

fn read_trailer(content: &[u8]) -> Result<Section, Malformed> {
    let mut cursor = Cursor::new(content);
    let offset = u64::from_le_bytes(cursor.array()?);
    let checksum = u64::from_le_bytes(cursor.array()?);
    let bytes = u32::from_le_bytes(cursor.array()?);
    let raw_bytes = u32::from_le_bytes(cursor.array()?);
    Ok(Section { offset, bytes, raw_bytes, checksum })
}

/// Checks that all sections end before the directory, and that the rows of datasets are contiguous.
fn check(directory: &Directory, layout: &Layout, own: &Section) -> Result<(), Malformed> {
    let wrong = |problem| Err(Malformed { byte: own.offset, problem });
    let mut row = 0;
    for dataset in &directory.datasets {
        if dataset.rows.start != row {
            return wrong("datasets do not follow one another");
        }
        row = dataset.rows.end;
        for section in [Some(dataset.index), Some(dataset.strings), Some(dataset.symbols), dataset.tree]
            .into_iter()
            .flatten()
        {
            if section.offset.checked_add(section.bytes.into()).is_none_or(|end| end > own.offset) {
                return wrong("a section does not lie before the directory");
            }
        }
        for cells in &dataset.cells {
            let end =
                cells.head.offset.checked_add(u64::from(cells.head.bytes) + u64::from(cells.chunk_bytes));
            if end.is_none_or(|end| end > own.offset) {
                return wrong("cells do not lie before the directory");
            }
        }
    }
    if layout.row_groups.iter().map(|group| u64::from(group.rows)).sum::<u64>() != row {
        return wrong("row groups have other rows than the datasets");
    }
    Ok(())
}
