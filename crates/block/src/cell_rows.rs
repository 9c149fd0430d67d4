//! Reads cells: the head first, then the columns of the chunks that a query needs.
//!
//! Owns: which chunks are fetched, decoding them.
//! Does not own: which cells a query uses (`query`).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::{Entry, Kind};
use crate::cells::{PackedColumn, decode_stacks, decode_values};
use crate::codec::unpack;
use crate::error::Malformed;
use crate::reader::Source;
use crate::scan::Column;
use crate::{Batch, CellSection, Cells, Error, Reader, Section};

/// The head of the cells of one length, decoded (from the cache) or ready to be decoded.
pub struct FetchedCells {
    block: Reader,
    dataset: usize,
    /// Position among the cell sections of the dataset.
    position: usize,
    source: Source<Cells>,
}

/// Stacktraces and values of some cells, ready to be decoded.
pub struct FetchedCellRows {
    block: Reader,
    dataset: usize,
    position: usize,
    cells: Arc<Cells>,
    pieces: Vec<Piece>,
}

/// The requested cells of one chunk.
struct Piece {
    chunk: usize,
    /// Sorted.
    wanted: Vec<Range<u32>>,
    factor: i64,
    stacks: ColumnSource,
    /// `None` if all are 0.
    values: Option<ColumnSource>,
}

/// A decoded column from the cache, or its number in the chunk and its fetched bytes.
enum ColumnSource {
    Decoded(Arc<Column>),
    Packed(u32, Bytes),
}

impl Reader {
    /// Fetches the heads of cells of one dataset, by their positions in the directory, in at most one round trip.
    ///
    /// # Errors
    /// `Storage`; `Corrupt` if there are no such cells.
    pub async fn fetch_cells(&self, dataset: usize, positions: &[usize]) -> Result<Vec<FetchedCells>, Error> {
        let mut wanted = Vec::new();
        let mut sources = Vec::new();
        for position in positions {
            let head = self.cell_section(dataset, *position)?.head;
            let known = match self.cache.get(&self.name(dataset, Kind::Cells(*position as u32))) {
                Some(Entry::Cells(cells)) => Some(cells),
                _ => None,
            };
            if known.is_none() {
                wanted.push(head.offset..head.offset + u64::from(head.bytes));
            }
            sources.push(known);
        }
        let mut got = self.get_ranges(&wanted).await?.into_iter();
        let fetched = sources.into_iter().zip(positions).map(|(known, position)| {
            let source = match known {
                Some(cells) => Source::Decoded(cells),
                None => Source::Packed(got.next().unwrap_or_default()),
            };
            FetchedCells { block: self.clone(), dataset, position: *position, source }
        });
        Ok(fetched.collect())
    }

    fn cell_section(&self, dataset: usize, position: usize) -> Result<&CellSection, Error> {
        let section = self.entry(dataset)?.cells.get(position);
        section.ok_or_else(|| self.corrupt("directory", Malformed { byte: 0, problem: "cells do not exist" }))
    }
}

impl FetchedCells {
    /// The head, decoded now unless the cache had it.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn cells(&self) -> Result<Arc<Cells>, Error> {
        let packed = match &self.source {
            Source::Decoded(cells) => return Ok(cells.clone()),
            Source::Packed(packed) => packed,
        };
        let section = self.block.cell_section(self.dataset, self.position)?;
        let decoded = unpack(packed, &section.head)
            .and_then(|raw| Cells::decode(&raw, section.seconds, section.chunk_bytes));
        let cells = Arc::new(decoded.map_err(|malformed| self.block.corrupt("cells", malformed))?);
        let name = self.block.name(self.dataset, Kind::Cells(self.position as u32));
        self.block.cache.insert(name, Entry::Cells(cells.clone()));
        Ok(cells)
    }

    /// Fetches the stacktraces and values of cells in at most one round trip. `columns` are `(schema, column,
    /// cells)`; the cells are ranges, sorted and without overlap.
    ///
    /// # Errors
    /// `Storage`; `Corrupt`.
    pub async fn fetch_rows(
        &self,
        columns: impl Iterator<Item = (u32, u32, &[Range<u32>])>,
    ) -> Result<FetchedCellRows, Error> {
        let cells = self.cells()?;
        let section = self.block.cell_section(self.dataset, self.position)?;
        let first = section.head.offset + u64::from(section.head.bytes);
        let mut pieces = Vec::new();
        let mut ranges = Vec::new();
        for (schema, column, wanted) in columns {
            let stored = cells.columns.get(schema as usize).and_then(|columns| columns.get(column as usize));
            let Some(stored) = stored.copied() else {
                let problem = "a query asks for a column that does not exist";
                return Err(self.block.corrupt("cells", Malformed { byte: 0, problem }));
            };
            for (number, chunk) in cells.chunks.iter().enumerate() {
                let touched = wanted
                    .iter()
                    .map(|cells| cells.start.max(chunk.cells.start)..cells.end.min(chunk.cells.end))
                    .filter(|cells| !cells.is_empty());
                let touched: Vec<Range<u32>> = touched.collect();
                if touched.is_empty() {
                    continue;
                }
                let mut source = |column: u32| {
                    let kind = Kind::CellColumn { cells: self.position as u32, chunk: number as u32, column };
                    if let Some(Entry::Column(known)) =
                        self.block.cache.get(&self.block.name(self.dataset, kind))
                    {
                        return ColumnSource::Decoded(known);
                    }
                    if let Some(packed) = chunk.columns.get(column as usize) {
                        let start = first + u64::from(packed.offset);
                        ranges.push(start..start + u64::from(packed.bytes));
                    }
                    ColumnSource::Packed(column, Bytes::new())
                };
                pieces.push(Piece {
                    chunk: number,
                    wanted: touched,
                    factor: stored.factor,
                    stacks: source(0),
                    values: (stored.factor != 0).then(|| source(stored.value + 1)),
                });
            }
        }
        let mut got = self.block.get_ranges(&ranges).await?.into_iter();
        for piece in &mut pieces {
            for source in std::iter::once(&mut piece.stacks).chain(piece.values.as_mut()) {
                if let ColumnSource::Packed(_, bytes) = source {
                    *bytes = got.next().unwrap_or_default();
                }
            }
        }
        let block = self.block.clone();
        Ok(FetchedCellRows { block, dataset: self.dataset, position: self.position, cells, pieces })
    }
}

impl FetchedCellRows {
    /// Calls `take` with the stacktraces of all requested cells and their sums.
    ///
    /// # Errors
    /// `Corrupt`, possibly after some batches.
    pub fn for_each(&self, mut take: impl FnMut(Batch<'_>)) -> Result<(), Error> {
        let mut scaled: Vec<i64> = Vec::new();
        for piece in self.pieces.iter().filter(|piece| piece.factor != 0) {
            let Some(values) = &piece.values else { continue };
            let chunk = &self.cells.chunks[piece.chunk];
            let stacks = self.decode(&piece.stacks, piece.chunk)?;
            let values = self.decode(values, piece.chunk)?;
            let row = |cell: u32| self.cells.row_starts[cell as usize] as usize;
            let first = row(chunk.cells.start);
            for cells in &piece.wanted {
                let rows = row(cells.start) - first..row(cells.end) - first;
                let (stacks, values) = (&stacks.stacks()[rows.clone()], &values.numbers()[rows]);
                let values = match piece.factor {
                    1 => values,
                    factor => {
                        scaled.clear();
                        scaled.extend(values.iter().map(|value| value.wrapping_mul(factor)));
                        &scaled
                    }
                };
                take(Batch { first_row: 0, stacks, values, spans: &[] });
            }
        }
        Ok(())
    }

    fn decode(&self, source: &ColumnSource, chunk_number: usize) -> Result<Arc<Column>, Error> {
        let (number, packed) = match source {
            ColumnSource::Decoded(column) => return Ok(column.clone()),
            ColumnSource::Packed(number, packed) => (*number, packed),
        };
        let cells = &self.cells;
        let chunk = &cells.chunks[chunk_number];
        let stored = chunk.columns.get(number as usize);
        let decode = || {
            let Some(PackedColumn { bytes, raw_bytes, checksum, offset }) = stored.copied() else {
                return Err(Malformed { byte: 0, problem: "a chunk lacks a column" });
            };
            let raw = unpack(packed, &Section { offset: offset.into(), bytes, raw_bytes, checksum })?;
            let starts = &cells.row_starts[chunk.cells.start as usize..chunk.cells.end as usize + 1];
            let rows = starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
            Ok(match number {
                0 => Column::Stacks(decode_stacks(&raw, rows, self.block.stacktraces(self.dataset))?),
                _ => Column::Numbers(decode_values(&raw, rows.sum())?),
            })
        };
        let column = Arc::new(decode().map_err(|malformed| self.block.corrupt("cells", malformed))?);
        let kind =
            Kind::CellColumn { cells: self.position as u32, chunk: chunk_number as u32, column: number };
        self.block.cache.insert(self.block.name(self.dataset, kind), Entry::Column(column.clone()));
        Ok(column)
    }
}
