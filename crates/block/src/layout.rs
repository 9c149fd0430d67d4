//! The positions of the pages of each column in an object. Stored beside the directory, so that
//! reading needs no Parquet footer and every page has a checksum.

use crate::codec::{Cursor, put};
use crate::error::Malformed;

/// The first column that a reader needs; before it are `dataset`, `series` and `time`.
pub(crate) const STACK: usize = 3;

/// Most rows of one row group.
pub(crate) const ROW_GROUP_ROWS_MAX: usize = 1 << 20;

/// Pages of one object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    pub(crate) value_columns: u32,
    /// Whether `span_id`, `trace_id_high` and `trace_id_low` follow the value columns.
    pub(crate) has_spans: bool,
    /// Distinct stacktraces of each dataset: the bound of its stack ids.
    pub(crate) stacks: Vec<u32>,
    pub(crate) row_groups: Vec<RowGroup>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RowGroup {
    pub(crate) first_row: u64,
    pub(crate) rows: u32,
    /// Pages of the columns that a reader needs: from [`STACK`] on.
    pub(crate) columns: Vec<Vec<Page>>,
}

/// One data page: zstd over a byte stream split of `rows` values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// Offset of the compressed bytes, after the page's header.
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    /// First row within the row group.
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    /// xxh3-64 of the compressed bytes.
    pub(crate) checksum: u64,
}

impl Layout {
    pub(crate) fn stored_columns(&self) -> usize {
        1 + self.value_columns as usize + if self.has_spans { 3 } else { 0 }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put(out, u64::from(self.value_columns));
        out.push(u8::from(self.has_spans));
        for stacks in &self.stacks {
            put(out, u64::from(*stacks));
        }
        put(out, self.row_groups.len() as u64);
        for group in &self.row_groups {
            put(out, u64::from(group.rows));
            for pages in &group.columns {
                put(out, pages.len() as u64);
                for page in pages {
                    put(out, page.offset);
                    put(out, u64::from(page.bytes));
                    put(out, u64::from(page.rows));
                    out.extend_from_slice(&page.checksum.to_le_bytes());
                }
            }
        }
    }

    /// `object_bytes`: size of the object; no page may end after it.
    pub(crate) fn read(
        cursor: &mut Cursor<'_>,
        datasets: usize,
        object_bytes: u64,
    ) -> Result<Self, Malformed> {
        let value_columns = cursor.index(crate::VALUE_COLUMNS_MAX + 1, "too many value columns")?;
        let has_spans = match cursor.byte()? {
            0 => false,
            1 => true,
            _ => return Err(cursor.malformed("a flag is neither 0 nor 1")),
        };
        let mut layout = Self { value_columns, has_spans, ..Self::default() };
        for _ in 0..datasets {
            layout.stacks.push(cursor.u32()?);
        }
        let group_count = cursor.count()?;
        let mut first_row = 0;
        for _ in 0..group_count {
            let rows = cursor.index(ROW_GROUP_ROWS_MAX + 1, "a row group has too many rows")?;
            let columns = (0..layout.stored_columns())
                .map(|_| read_pages(cursor, rows, object_bytes))
                .collect::<Result<Vec<_>, Malformed>>()?;
            layout.row_groups.push(RowGroup { first_row, rows, columns });
            first_row += u64::from(rows);
        }
        Ok(layout)
    }
}

fn read_pages(cursor: &mut Cursor<'_>, rows: u32, object_bytes: u64) -> Result<Vec<Page>, Malformed> {
    let count = cursor.count()?;
    let mut pages = Vec::new();
    let mut first_row = 0;
    for _ in 0..count {
        let page = Page {
            offset: cursor.varint()?,
            bytes: cursor.u32()?,
            first_row,
            rows: cursor.u32()?,
            checksum: u64::from_le_bytes(cursor.array()?),
        };
        if page.offset.checked_add(page.bytes.into()).is_none_or(|end| end > object_bytes) {
            return Err(cursor.malformed("a page ends behind the object"));
        }
        if page.rows > rows - first_row {
            return Err(cursor.malformed("pages have more rows than their row group"));
        }
        first_row += page.rows;
        pages.push(page);
    }
    if first_row != rows {
        return Err(cursor.malformed("pages have fewer rows than their row group"));
    }
    Ok(pages)
}

/// Splits a column chunk of the Parquet writer into its pages. `chunk_offset` is the offset of the
/// chunk in the object.
pub(crate) fn pages_of_chunk(chunk: &[u8], chunk_offset: u64) -> Result<Vec<Page>, Malformed> {
    let mut cursor = Cursor::new(chunk);
    let mut pages = Vec::new();
    let mut first_row = 0;
    while cursor.remaining() > 0 {
        let header = PageHeader::read(&mut cursor)?;
        let offset = chunk_offset + (chunk.len() - cursor.remaining()) as u64;
        let bytes = cursor.take(header.compressed_bytes as usize)?;
        pages.push(Page {
            offset,
            bytes: header.compressed_bytes,
            first_row,
            rows: header.rows,
            checksum: xxhash_rust::xxh3::xxh3_64(bytes),
        });
        first_row += header.rows;
    }
    Ok(pages)
}

/// The needed fields of a Parquet page header, which is a Thrift struct in compact form.
#[derive(Default)]
struct PageHeader {
    compressed_bytes: u32,
    rows: u32,
}

impl PageHeader {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        const COMPRESSED_PAGE_SIZE: i64 = 3;
        const DATA_PAGE_HEADER: i64 = 5;
        const NUM_VALUES: i64 = 1;
        let mut header = Self::default();
        let mut field = 0;
        while let Some(kind) = next_field(cursor, &mut field)? {
            match (field, kind) {
                (COMPRESSED_PAGE_SIZE, 5) => header.compressed_bytes = cursor.signed()? as u32,
                (DATA_PAGE_HEADER, 12) => {
                    let mut inner = 0;
                    while let Some(inner_kind) = next_field(cursor, &mut inner)? {
                        match (inner, inner_kind) {
                            (NUM_VALUES, 5) => header.rows = cursor.signed()? as u32,
                            _ => skip(cursor, inner_kind, 0)?,
                        }
                    }
                }
                _ => skip(cursor, kind, 0)?,
            }
        }
        Ok(header)
    }
}

/// Returns the kind of the next field of a Thrift struct, and sets `field` to its number; `None` at the end.
fn next_field(cursor: &mut Cursor<'_>, field: &mut i64) -> Result<Option<u8>, Malformed> {
    let byte = cursor.byte()?;
    if byte == 0 {
        return Ok(None);
    }
    match byte >> 4 {
        0 => *field = cursor.signed()?,
        delta => *field += i64::from(delta),
    }
    Ok(Some(byte & 0x0f))
}

fn skip(cursor: &mut Cursor<'_>, kind: u8, depth: u8) -> Result<(), Malformed> {
    if depth > 8 {
        return Err(cursor.malformed("a page header is nested too deeply"));
    }
    match kind {
        1 | 2 => {}
        3 => drop(cursor.byte()?),
        4..=6 => drop(cursor.varint()?),
        7 => drop(cursor.take(8)?),
        8 => {
            let length = cursor.count()?;
            cursor.take(length)?;
        }
        9 | 10 => {
            let head = cursor.byte()?;
            let count = match head >> 4 {
                15 => cursor.count()?,
                count => count as usize,
            };
            for _ in 0..count {
                skip(cursor, head & 0x0f, depth + 1)?;
            }
        }
        12 => {
            let mut field = 0;
            while let Some(inner) = next_field(cursor, &mut field)? {
                skip(cursor, inner, depth + 1)?;
            }
        }
        _ => return Err(cursor.malformed("a page header has an unknown kind of field")),
    }
    Ok(())
}
