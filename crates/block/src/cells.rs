//! Sums of whole windows of time: the cells of one dataset for one length of window.
//!
//! Owns: the definition and encoding of cells.
//! Does not own: which cells are worth their bytes (`roll`), fetching them (`cell_rows`), when they may
//! replace rows (`query`).

use std::ops::Range;
use std::sync::Arc;

use model::ValueSchema;

use crate::codec::{Cursor, Delta, put, put_signed};
use crate::error::Malformed;
use crate::index::{decode_schemas, decode_series, encode_schemas, encode_series};
use crate::{Series, StoredColumn};

/// Most stacktraces of one chunk, unless a single cell has more.
pub(crate) const CHUNK_ROWS: usize = 64 << 10;

/// The head of the cells of one dataset: everything but their stacktraces.
///
/// A cell is one window, one schema, and one set of values of the kept labels. Cell `i` is
/// row `i` of each column; cells are sorted by (schema, window, group).
#[derive(Clone, Debug, Default)]
pub struct Cells {
    /// Length of a window in seconds. Windows are numbered from the epoch on.
    pub seconds: u32,
    pub schemas: Vec<Arc<ValueSchema>>,
    /// Where the value columns of each schema are stored in a chunk: `columns[schema][column]`.
    pub columns: Vec<Vec<StoredColumn>>,
    /// The schema and the kept labels that the series of a cell have in common.
    pub groups: Vec<Series>,
    /// Index into `groups`.
    pub group: Vec<u32>,
    pub window: Vec<i64>,
    /// Stacktraces of cell `i` are the rows `row_starts[i]..row_starts[i + 1]`; one more entry than cells.
    pub row_starts: Vec<u32>,
    /// One per column of the schema: `totals[total_starts[i]..total_starts[i + 1]]`.
    pub totals: Vec<CellTotal>,
    pub total_starts: Vec<u32>,
    pub(crate) chunks: Vec<Chunk>,
}

/// The profiles of a cell and the sum of one of their columns. The window's first millisecond is
/// summed separately: a step of a time series includes its last millisecond, which is the first one of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CellTotal {
    pub first: Total,
    pub later: Total,
}

/// Covers only profiles whose total of the column is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Total {
    pub profiles: u64,
    /// Sum of their totals, wrapping.
    pub sum: i64,
}

/// Cells whose stacktraces are stored together, all of one schema.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) cells: Range<u32>,
    /// The stacktraces, then the stored value columns of the schema.
    pub(crate) columns: Vec<PackedColumn>,
}

/// A compressed column; the offset counts from the end of the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PackedColumn {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) checksum: u64,
}

impl Cells {
    pub fn len(&self) -> usize {
        self.group.len()
    }

    pub fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    pub fn schema(&self, cell: usize) -> u32 {
        self.groups[self.group[cell] as usize].schema
    }

    pub fn total(&self, cell: usize, column: usize) -> CellTotal {
        self.totals[self.total_starts[cell] as usize + column]
    }

    /// Number of stacktraces of adjacent cells.
    pub fn rows(&self, cells: &Range<u32>) -> u64 {
        u64::from(self.row_starts[cells.end as usize] - self.row_starts[cells.start as usize])
    }

    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> usize {
        let labels: usize = self.groups.iter().map(|s| s.labels.byte_len() + s.labels.len() * 32 + 32).sum();
        labels + self.len() * 20 + self.totals.len() * 32 + self.schemas.len() * 512 + self.chunks.len() * 128
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.groups.len() * 32 + self.len() * 8);
        encode_schemas(&mut out, &self.schemas, &self.columns);
        encode_series(&mut out, &self.groups);
        put(&mut out, self.len() as u64);
        let mut group = Delta::default();
        self.group.iter().for_each(|value| group.put(&mut out, i64::from(*value)));
        let mut window = Delta::default();
        self.window.iter().for_each(|value| window.put(&mut out, *value));
        for rows in self.row_starts.windows(2) {
            put(&mut out, u64::from(rows[1] - rows[0]));
        }
        for total in self.totals.iter().flat_map(|total| [total.first, total.later]) {
            put(&mut out, total.profiles);
            if total.profiles > 0 {
                put_signed(&mut out, total.sum);
            }
        }
        put(&mut out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            put(&mut out, u64::from(chunk.cells.end - chunk.cells.start));
            put(&mut out, chunk.columns.len() as u64);
            for column in &chunk.columns {
                put(&mut out, u64::from(column.bytes));
                put(&mut out, u64::from(column.raw_bytes));
                out.extend_from_slice(&column.checksum.to_le_bytes());
            }
        }
        out
    }

    /// `chunk_bytes`: size of the chunks after the head.
    pub(crate) fn decode(bytes: &[u8], seconds: u32, chunk_bytes: u32) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let cursor = &mut cursor;
        let (schemas, columns) = decode_schemas(cursor)?;
        let groups = decode_series(cursor, schemas.len())?;
        let count = cursor.count()?;
        let mut cells = Self { seconds, schemas, columns, groups, ..Self::default() };
        let mut group = Delta::default();
        for _ in 0..count {
            let value = group.read(cursor)?;
            if value < 0 || value >= cells.groups.len() as i64 {
                return Err(cursor.malformed("a cell's group does not exist"));
            }
            cells.group.push(value as u32);
        }
        let mut window = Delta::default();
        for _ in 0..count {
            cells.window.push(window.read(cursor)?);
        }
        let is_sorted = (1..count).all(|cell| {
            (cells.schema(cell - 1), cells.window[cell - 1]) <= (cells.schema(cell), cells.window[cell])
        });
        if !is_sorted {
            return Err(cursor.malformed("cells are not sorted"));
        }
        let mut row = 0_u32;
        cells.row_starts.push(0);
        for _ in 0..count {
            let Some(next) = row.checked_add(cursor.u32()?) else {
                return Err(cursor.malformed("cells have too many rows"));
            };
            row = next;
            cells.row_starts.push(row);
        }
        cells.total_starts.push(0);
        for cell in 0..count {
            for _ in 0..cells.schemas[cells.schema(cell) as usize].columns.len() {
                let [first, later] = [read_total(cursor)?, read_total(cursor)?];
                cells.totals.push(CellTotal { first, later });
            }
            cells.total_starts.push(cells.totals.len() as u32);
        }
        cells.read_chunks(cursor, chunk_bytes)?;
        cursor.end()?;
        Ok(cells)
    }

    fn read_chunks(&mut self, cursor: &mut Cursor<'_>, chunk_bytes: u32) -> Result<(), Malformed> {
        let mut cell = 0_u32;
        let mut offset = 0_u32;
        for _ in 0..cursor.count()? {
            let cells = cursor.index(self.len() + 1 - cell as usize, "a chunk has too many cells")?;
            let chunk = cell..cell + cells;
            cell = chunk.end;
            let schemas = chunk.start as usize..chunk.end as usize;
            let [Some(first), Some(last)] = [schemas.clone().next(), schemas.last()] else {
                return Err(cursor.malformed("a chunk has no cells"));
            };
            let (first, last) = (self.schema(first), self.schema(last));
            if first != last {
                return Err(cursor.malformed("a chunk has cells of two schemas"));
            }
            let mut columns = Vec::new();
            for _ in 0..cursor.index(crate::VALUE_COLUMNS_MAX + 2, "a chunk has too many columns")? {
                let column = PackedColumn {
                    offset,
                    bytes: cursor.u32()?,
                    raw_bytes: cursor.u32()?,
                    checksum: u64::from_le_bytes(cursor.array()?),
                };
                offset = match offset.checked_add(column.bytes) {
                    Some(end) if end <= chunk_bytes => end,
                    _ => return Err(cursor.malformed("a chunk ends behind the cells")),
                };
                columns.push(column);
            }
            let stored = &self.columns[first as usize];
            let wanted =
                stored.iter().filter(|column| column.factor != 0).map(|column| column.value as usize);
            if columns.len() < wanted.max().map_or(1, |last| last + 2) {
                return Err(cursor.malformed("a chunk lacks a column"));
            }
            self.chunks.push(Chunk { cells: chunk, columns });
        }
        if cell as usize != self.len() {
            return Err(cursor.malformed("cells are in no chunk"));
        }
        Ok(())
    }
}

fn read_total(cursor: &mut Cursor<'_>) -> Result<Total, Malformed> {
    let profiles = cursor.varint()?;
    let sum = if profiles > 0 { cursor.signed()? } else { 0 };
    Ok(Total { profiles, sum })
}

/// Writes the stacktraces of adjacent cells: ascending within a cell, each as the difference to the one before.
pub(crate) fn encode_stacks<'a>(cells: impl Iterator<Item = &'a [u32]>, out: &mut Vec<u8>) {
    for stacks in cells {
        let mut before = 0;
        for stack in stacks {
            put(out, u64::from(stack - before));
            before = *stack;
        }
    }
}

/// Decodes the output of [`encode_stacks`] for cells with these numbers of `rows`; every id is below `limit`.
pub(crate) fn decode_stacks(
    raw: &[u8],
    rows: impl Iterator<Item = usize>,
    limit: usize,
) -> Result<Vec<u32>, Malformed> {
    let mut cursor = Cursor::new(raw);
    let mut stacks = Vec::new();
    for rows in rows {
        if rows > cursor.remaining() {
            return Err(cursor.malformed("ends too early"));
        }
        stacks.reserve(rows);
        let mut stack = 0_u64;
        for _ in 0..rows {
            stack = stack.saturating_add(cursor.varint()?);
            if stack >= limit as u64 {
                return Err(cursor.malformed("a stacktrace does not exist"));
            }
            stacks.push(stack as u32);
        }
    }
    cursor.end()?;
    Ok(stacks)
}

pub(crate) fn decode_values(raw: &[u8], rows: usize) -> Result<Vec<i64>, Malformed> {
    let mut cursor = Cursor::new(raw);
    if rows > cursor.remaining() {
        return Err(cursor.malformed("ends too early"));
    }
    let values = (0..rows).map(|_| cursor.signed()).collect::<Result<Vec<i64>, Malformed>>()?;
    cursor.end()?;
    Ok(values)
}
