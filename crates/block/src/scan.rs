//! Samples: the rows of a dataset, as slices.
//!
//! Owns: which pages hold the requested rows, and decoding them.
//! Does not own: which rows to request (`query`), or their use.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use model::Span;
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::{Entry, Kind};
use crate::codec::decompress;
use crate::error::Malformed;
use crate::layout::Page;
use crate::{Error, Reader, StoredColumn};

/// Columns of a dataset with at most this many rows are always decoded and cached whole.
const CACHED_ROWS_ALWAYS: u64 = 128 << 10;
/// Columns of a dataset with at most this many rows are decoded and cached whole if at least 1 / `LARGE_PART` of the
/// rows is requested. Otherwise each scan fetches and decodes only the pages that it needs.
const CACHED_ROWS_MAX: u64 = 1 << 20;
const LARGE_PART: u64 = 8;

/// Rows of one batch: their columns together stay in a core's cache.
const BATCH_ROWS: u32 = 16 << 10;

/// Stored columns as the layout counts them: the stack, then the values, then the spans.
const STACK_COLUMN: usize = 0;
const FIRST_VALUE_COLUMN: usize = 1;

/// Adjacent rows, in the order of the dataset.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Relative to the dataset's first row.
    pub first_row: u32,
    pub stacks: &'a [u32],
    /// In the unit of the profile type: factors are applied.
    pub values: &'a [i64],
    /// Empty if spans were not requested, or no row of the object has one.
    pub spans: &'a [Span],
}

/// Rows of one dataset, ready to be decoded.
pub struct FetchedSamples {
    block: Reader,
    dataset: usize,
    factor: i64,
    pieces: Vec<Piece>,
}

/// Rows that are decoded together. Row numbers are relative to the dataset's first row.
struct Piece {
    rows: Range<u32>,
    /// The requested ones of `rows`; sorted.
    ranges: Vec<Range<u32>>,
    /// The stacks, the values unless all are 0, the three span columns if there are any.
    columns: Vec<ColumnSource>,
}

/// A decoded column from the cache, or its fetched pages.
enum ColumnSource {
    Decoded(Arc<Column>),
    /// The pages that hold the rows of the piece. `cached`: the decoded column goes into the cache, because the
    /// piece is the whole dataset.
    Pages {
        number: usize,
        pages: Vec<FetchedPage>,
        cached: bool,
    },
}

struct FetchedPage {
    page: Page,
    /// Rows of the page that belong to the piece.
    rows: Range<u32>,
    bytes: Bytes,
}

/// A stored column, decoded.
pub(crate) enum Column {
    Stacks(Vec<u32>),
    Numbers(Vec<i64>),
}

impl Column {
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Stacks(stacks) => stacks.len() * 4,
            Self::Numbers(numbers) => numbers.len() * 8,
        }
    }

    pub(crate) fn stacks(&self) -> &[u32] {
        match self {
            Self::Stacks(stacks) => stacks,
            Self::Numbers(_) => &[],
        }
    }

    pub(crate) fn numbers(&self) -> &[i64] {
        match self {
            Self::Numbers(numbers) => numbers,
            Self::Stacks(_) => &[],
        }
    }
}

impl Reader {
    /// Fetches the stacks and one value column of some rows of a dataset, in at most one round trip.
    ///
    /// `rows` are sorted, do not overlap, and count from the dataset's first row. `spans` fetches
    /// spans too, if the object has any.
    ///
    /// # Errors
    /// `Storage`; `Corrupt` if rows or column do not exist.
    pub async fn fetch_samples(
        &self,
        dataset: usize,
        rows: &[Range<u32>],
        column: StoredColumn,
        spans: bool,
    ) -> Result<FetchedSamples, Error> {
        let entry = self.entry(dataset)?;
        let layout = &self.parts.layout;
        let row_count = (entry.rows.end - entry.rows.start) as u32;
        let ordered = rows.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let within = rows.iter().all(|range| range.start <= range.end && range.end <= row_count);
        if !ordered || !within || (column.factor != 0 && column.value >= layout.value_columns) {
            let problem = "a scan asks for rows or columns that do not exist";
            return Err(self.corrupt("samples", Malformed { byte: 0, problem }));
        }
        let mut numbers = vec![STACK_COLUMN];
        if column.factor != 0 {
            numbers.push(FIRST_VALUE_COLUMN + column.value as usize);
        }
        if spans && layout.has_spans {
            let first = FIRST_VALUE_COLUMN + layout.value_columns as usize;
            numbers.extend(first..first + 3);
        }
        let ranges: Vec<Range<u32>> = rows.iter().filter(|range| !range.is_empty()).cloned().collect();
        let requested: u64 = ranges.iter().map(|range| range.len() as u64).sum();
        let all = u64::from(row_count);
        let cached = all <= CACHED_ROWS_ALWAYS || (all <= CACHED_ROWS_MAX && requested * LARGE_PART >= all);
        let mut pieces = if cached {
            vec![Piece { rows: 0..row_count, ranges, columns: Vec::new() }]
        } else {
            self.pieces(entry.rows.start, row_count, &ranges)
        };
        pieces.retain(|piece| !piece.ranges.is_empty());
        let mut wanted = Vec::new();
        for piece in &mut pieces {
            for number in &numbers {
                let source = self.source(dataset, entry.rows.start, piece, *number, cached);
                if let ColumnSource::Pages { pages, .. } = &source {
                    wanted
                        .extend(pages.iter().map(|p| p.page.offset..p.page.offset + u64::from(p.page.bytes)));
                }
                piece.columns.push(source);
            }
        }
        let mut got = self.get_ranges(&wanted).await?.into_iter();
        for source in pieces.iter_mut().flat_map(|piece| &mut piece.columns) {
            if let ColumnSource::Pages { pages, .. } = source {
                for page in pages {
                    page.bytes = got.next().unwrap_or_default();
                }
            }
        }
        Ok(FetchedSamples { block: self.clone(), dataset, factor: column.factor, pieces })
    }

    /// Divides a large dataset into pieces, one per page of its stacks.
    fn pieces(&self, first_row: u64, row_count: u32, ranges: &[Range<u32>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (start, page) in self.pages(STACK_COLUMN, first_row..first_row + u64::from(row_count)) {
            let page_start = (start.max(first_row) - first_row) as u32;
            let page_end = (start + u64::from(page.rows) - first_row).min(row_count.into()) as u32;
            let touched = ranges
                .iter()
                .map(|range| range.start.max(page_start)..range.end.min(page_end))
                .filter(|range| !range.is_empty())
                .collect();
            pieces.push(Piece { rows: page_start..page_end, ranges: touched, columns: Vec::new() });
        }
        pieces
    }

    /// The pages of a stored column that hold any of the file's `rows`, each with its first row.
    fn pages(&self, number: usize, rows: Range<u64>) -> impl Iterator<Item = (u64, Page)> {
        let groups = self.parts.layout.row_groups.iter();
        groups
            .skip_while({
                let start = rows.start;
                move |group| group.first_row + u64::from(group.rows) <= start
            })
            .take_while({
                let end = rows.end;
                move |group| group.first_row < end
            })
            .flat_map(move |group| {
                let pages = group.columns.get(number).into_iter().flatten();
                pages.map(|page| (group.first_row + u64::from(page.first_row), *page))
            })
            .filter(move |(start, page)| *start < rows.end && start + u64::from(page.rows) > rows.start)
    }

    fn source(
        &self,
        dataset: usize,
        first_row: u64,
        piece: &Piece,
        number: usize,
        cached: bool,
    ) -> ColumnSource {
        let name = self.name(dataset, Kind::Column(number as u32));
        if cached && let Some(Entry::Column(column)) = self.cache.get(&name) {
            return ColumnSource::Decoded(column);
        }
        let start = first_row + u64::from(piece.rows.start);
        let end = first_row + u64::from(piece.rows.end);
        let pages = self
            .pages(number, start..end)
            .map(|(page_start, page)| FetchedPage {
                page,
                rows: (start.saturating_sub(page_start)) as u32
                    ..(end - page_start).min(page.rows.into()) as u32,
                bytes: Bytes::new(),
            })
            .collect();
        ColumnSource::Pages { number, pages, cached }
    }
}

/// All columns of all rows of a dataset, for a merge.
pub(crate) struct DatasetRows {
    samples: FetchedSamples,
    value_columns: usize,
}

/// Decoded rows of a dataset, for a merge: factors are not applied.
pub(crate) struct DecodedRows {
    pub(crate) stacks: Vec<u32>,
    pub(crate) values: Vec<Vec<i64>>,
    /// Empty if the object has none.
    pub(crate) spans: Vec<Span>,
}

impl Reader {
    pub(crate) async fn fetch_rows(&self, dataset: usize) -> Result<DatasetRows, Error> {
        let entry = self.entry(dataset)?;
        let layout = &self.parts.layout;
        let row_count = (entry.rows.end - entry.rows.start) as u32;
        let mut piece = Piece { rows: 0..row_count, ranges: Vec::new(), columns: Vec::new() };
        let mut wanted = Vec::new();
        for number in 0..layout.stored_columns() {
            let source = self.source(dataset, entry.rows.start, &piece, number, false);
            if let ColumnSource::Pages { pages, .. } = &source {
                wanted.extend(pages.iter().map(|p| p.page.offset..p.page.offset + u64::from(p.page.bytes)));
            }
            piece.columns.push(source);
        }
        let mut got = self.get_ranges(&wanted).await?.into_iter();
        for source in &mut piece.columns {
            if let ColumnSource::Pages { pages, .. } = source {
                for page in pages {
                    page.bytes = got.next().unwrap_or_default();
                }
            }
        }
        Ok(DatasetRows {
            samples: FetchedSamples { block: self.clone(), dataset, factor: 1, pieces: vec![piece] },
            value_columns: layout.value_columns as usize,
        })
    }
}

impl DatasetRows {
    pub(crate) fn decode(self) -> Result<DecodedRows, Error> {
        let mut columns = Vec::new();
        for piece in &self.samples.pieces {
            for source in &piece.columns {
                columns.push(self.samples.decode(source, piece.rows.len())?);
            }
        }
        let mut columns = columns.into_iter().map(|column| Arc::try_unwrap(column).ok());
        let stacks = match columns.next().flatten() {
            Some(Column::Stacks(stacks)) => stacks,
            _ => Vec::new(),
        };
        let mut numbers = columns.map(|column| match column {
            Some(Column::Numbers(numbers)) => numbers,
            _ => Vec::new(),
        });
        let values = numbers.by_ref().take(self.value_columns).collect();
        let spans = match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(ids), Some(highs), Some(lows)) => {
                (0..ids.len()).map(|i| span_of(ids[i], highs[i], lows[i])).collect()
            }
            _ => Vec::new(),
        };
        Ok(DecodedRows { stacks, values, spans })
    }
}

fn span_of(id: i64, high: i64, low: i64) -> Span {
    Span { span_id: id as u64, trace_id: (u128::from(high as u64) << 64) | u128::from(low as u64) }
}

impl FetchedSamples {
    /// Calls `take` with all requested rows, in order.
    ///
    /// # Errors
    /// `Corrupt`, possibly after some batches.
    pub fn for_each(&self, mut take: impl FnMut(Batch<'_>)) -> Result<(), Error> {
        let mut values: Vec<i64> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        for piece in &self.pieces {
            let columns = piece
                .columns
                .iter()
                .map(|source| self.decode(source, piece.rows.len()))
                .collect::<Result<Vec<_>, Error>>()?;
            let stacks = columns.first().map_or(&[][..], |column| column.stacks());
            let (stored, span_columns) = match self.factor {
                0 => (&[][..], columns.get(1..).unwrap_or_default()),
                _ => (columns.get(1).map_or(&[][..], |c| c.numbers()), columns.get(2..).unwrap_or_default()),
            };
            for range in &piece.ranges {
                let mut from = range.start;
                while from < range.end {
                    let to = range.end.min(from.saturating_add(BATCH_ROWS));
                    let rows = (from - piece.rows.start) as usize..(to - piece.rows.start) as usize;
                    let batch_values = match self.factor {
                        1 => &stored[rows.clone()],
                        0 => {
                            values.clear();
                            values.resize(rows.len(), 0);
                            &values
                        }
                        factor => {
                            values.clear();
                            values.extend(stored[rows.clone()].iter().map(|v| v.wrapping_mul(factor)));
                            &values
                        }
                    };
                    spans.clear();
                    if let [ids, highs, lows] = span_columns {
                        let (ids, highs, lows) = (ids.numbers(), highs.numbers(), lows.numbers());
                        spans.extend(rows.clone().map(|i| span_of(ids[i], highs[i], lows[i])));
                    }
                    take(Batch {
                        first_row: from,
                        stacks: &stacks[rows],
                        values: batch_values,
                        spans: &spans,
                    });
                    from = to;
                }
            }
        }
        Ok(())
    }

    /// Decodes a column of `rows` rows.
    fn decode(&self, source: &ColumnSource, rows: usize) -> Result<Arc<Column>, Error> {
        let (number, pages, cached) = match source {
            ColumnSource::Decoded(column) => return Ok(column.clone()),
            ColumnSource::Pages { number, pages, cached } => (*number, pages, *cached),
        };
        let mut raw = Vec::new();
        let malformed = |m| self.block.corrupt("samples", m);
        let column = if number == STACK_COLUMN {
            let mut stacks = Vec::with_capacity(rows);
            let limit = self.block.stacktraces(self.dataset);
            for page in pages {
                page.unpack(4, &mut raw).map_err(malformed)?;
                join_u32(&raw, &page.rows, &mut stacks);
                let decoded = &stacks[stacks.len() - page.rows.len()..];
                if decoded.iter().max().is_some_and(|largest| *largest as usize >= limit) {
                    return Err(malformed(page.malformed("a stacktrace does not exist")));
                }
            }
            Column::Stacks(stacks)
        } else {
            let mut numbers = Vec::with_capacity(rows);
            for page in pages {
                page.unpack(8, &mut raw).map_err(malformed)?;
                join_i64(&raw, &page.rows, &mut numbers);
            }
            Column::Numbers(numbers)
        };
        let found = column.stacks().len() + column.numbers().len();
        if found != rows {
            return Err(malformed(Malformed { byte: 0, problem: "pages have fewer rows than the dataset" }));
        }
        let column = Arc::new(column);
        if cached {
            let name = self.block.name(self.dataset, Kind::Column(number as u32));
            self.block.cache.insert(name, Entry::Column(column.clone()));
        }
        Ok(column)
    }
}

impl FetchedPage {
    fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed { byte: self.page.offset, problem }
    }

    /// Verifies the checksum and decompresses into `raw`, which then has `width` bytes per row of the page.
    fn unpack(&self, width: usize, raw: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.bytes.len() != self.page.bytes as usize || xxh3_64(&self.bytes) != self.page.checksum {
            return Err(self.malformed("checksum does not match"));
        }
        let raw_bytes = self.page.rows as usize * width;
        raw.resize(raw_bytes, 0);
        let written = decompress(&self.bytes, raw);
        if written.ok() != Some(raw_bytes) {
            return Err(self.malformed("a page cannot be decompressed"));
        }
        Ok(())
    }
}

/// Joins the bytes of each value: byte `k` of value `i` is `raw[k * n + i]`.
fn join_u32(raw: &[u8], rows: &Range<u32>, out: &mut Vec<u32>) {
    let n = raw.len() / 4;
    let rows = rows.start as usize..rows.end as usize;
    let stream = |k: usize| &raw[k * n..(k + 1) * n][rows.clone()];
    let (a, b, c, d) = (stream(0), stream(1), stream(2), stream(3));
    out.extend((0..rows.len()).map(|i| u32::from_le_bytes([a[i], b[i], c[i], d[i]])));
}

fn join_i64(raw: &[u8], rows: &Range<u32>, out: &mut Vec<i64>) {
    let n = raw.len() / 8;
    let rows = rows.start as usize..rows.end as usize;
    let stream = |k: usize| &raw[k * n..(k + 1) * n][rows.clone()];
    let s: [&[u8]; 8] = std::array::from_fn(stream);
    out.extend((0..rows.len()).map(|i| {
        i64::from_le_bytes([s[0][i], s[1][i], s[2][i], s[3][i], s[4][i], s[5][i], s[6][i], s[7][i]])
    }));
}
