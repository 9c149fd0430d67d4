//! Encodes an object: rows as Parquet, sections between the row groups and the footer.
//!
//! Owns: the order of bytes in the file, as defined in `FORMAT.md`.
//! Does not own: the content of the rows (`head`, `merge`), or the key of the object.

use std::sync::Arc;

use bytes::Bytes;
use model::{ItemKey, Span, Times};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::pack;
use crate::index::LABEL_BYTES_MAX;
use crate::layout::{Layout, ROW_GROUP_ROWS_MAX, RowGroup, STACK, pages_of_chunk};
use crate::roll::roll;
use crate::rows::PreparedDataset;
use crate::symbols::{STACK_LOCATIONS_MAX, STRING_BYTES_MAX};
use crate::{CellSection, DatasetEntry, Directory, EncodedObject, Error, NameTree, Origin, Section};

/// Version of the format that this release writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 2;

/// The last bytes of the trailer, which ends where the Parquet footer begins.
pub(crate) const TRAILER_MAGIC: &[u8; 8] = b"PYROGRPH";
pub(crate) const TRAILER_BYTES: usize = 44;

/// A row group ends with the dataset that brings it to this many rows.
const ROW_GROUP_ROWS: usize = 128 << 10;
/// Most rows of a page.
const PAGE_ROWS: usize = 100_000;
/// A page ends with the dataset that brings it to this many rows, so that a query about one service
/// hardly decompresses rows of others.
const PAGE_ROWS_MIN: usize = 4096;

#[derive(Clone)]
pub(crate) struct WriterOptions {
    pub(crate) origin: Origin,
    pub(crate) created_millis: i64,
    pub(crate) keys: Vec<ItemKey>,
    /// Value columns of the file: at least those of the widest dataset.
    pub(crate) value_columns: usize,
    /// Whether any dataset has spans.
    pub(crate) has_spans: bool,
}

pub(crate) struct ObjectWriter {
    file: SerializedFileWriter<Vec<u8>>,
    directory: Directory,
    layout: Layout,
    zstd_level: i32,
    rows: u64,
    group: GroupRows,
    /// Packed sections, in the order of their datasets: index, strings, symbols, tree; per length of cells
    /// their head and their chunks.
    sections: Vec<Vec<u8>>,
    described: Vec<serde_json::Value>,
}

/// Rows of the row group that is being filled.
struct GroupRows {
    /// Where datasets end.
    ends: Vec<usize>,
    dataset: Vec<i32>,
    series: Vec<i32>,
    time: Vec<i64>,
    stack: Vec<i32>,
    values: Vec<Vec<i64>>,
    spans: Option<SpanRows>,
}

#[derive(Default)]
struct SpanRows {
    id: Vec<i64>,
    trace_high: Vec<i64>,
    trace_low: Vec<i64>,
}

fn failed(source: parquet::errors::ParquetError) -> Error {
    Error::encode("rows", source)
}

impl ObjectWriter {
    pub(crate) fn new(options: WriterOptions) -> Result<Self, Error> {
        let zstd_level = match options.origin {
            Origin::Segment { .. } => 1,
            Origin::Block { .. } => 3,
        };
        let value_columns = options.value_columns.max(1);
        let schema = parse_message_type(&schema_text(value_columns, options.has_spans)).map_err(failed)?;
        let properties = properties(zstd_level)?;
        let file =
            SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(Self {
            file,
            directory: Directory {
                origin: options.origin,
                created_millis: options.created_millis,
                keys: options.keys,
                datasets: Vec::new(),
            },
            layout: Layout {
                value_columns: value_columns as u32,
                has_spans: options.has_spans,
                ..Layout::default()
            },
            zstd_level,
            rows: 0,
            group: GroupRows {
                ends: Vec::new(),
                dataset: Vec::new(),
                series: Vec::new(),
                time: Vec::new(),
                stack: Vec::new(),
                values: vec![Vec::new(); value_columns],
                spans: options.has_spans.then(SpanRows::default),
            },
            sections: Vec::new(),
            described: Vec::new(),
        })
    }

    /// Adds a dataset. Datasets must come sorted by (tenant, service). Stores `tree` if given, and the cells of each
    /// of the `lengths`, in seconds, that are worth their bytes.
    pub(crate) fn add(
        &mut self,
        dataset: &PreparedDataset,
        tree: Option<&NameTree>,
        lengths: &[u32],
    ) -> Result<(), Error> {
        check_size(dataset)?;
        let row_count = dataset.stacks.len() as u64;
        let index = self.section(&dataset.index.encode())?;
        let strings = self.section(&dataset.symbols.strings)?;
        let symbols = self.section(&dataset.symbols.tables)?;
        let own_strings = dataset.symbols.string_count;
        let tree = tree.map(|tree| self.section(&tree.encode(own_strings))).transpose()?;
        let mut cells = Vec::new();
        for seconds in lengths {
            let Some(rolled) = roll(dataset, *seconds, self.zstd_level)? else { continue };
            let head = self.section(&rolled.head.encode())?;
            let chunk_bytes =
                u32::try_from(rolled.chunks.len()).map_err(|error| Error::encode("cells", error))?;
            self.sections.push(rolled.chunks);
            cells.push(CellSection { seconds: rolled.seconds, labels: rolled.labels, head, chunk_bytes });
        }
        self.described.push(describe(dataset, self.rows));
        self.directory.datasets.push(DatasetEntry {
            rows: self.rows..self.rows + row_count,
            index,
            strings,
            symbols,
            tree,
            cells,
            ..entry(dataset)
        });
        self.layout.stacks.push(dataset.symbols.stacktraces as u32);
        self.rows += row_count;
        self.add_rows(dataset)?;
        self.group.ends.push(self.group.stack.len());
        if self.group.stack.len() >= ROW_GROUP_ROWS {
            self.flush_group()?;
        }
        Ok(())
    }

    /// Sets the number of this output of its job.
    pub(crate) fn set_part(&mut self, number: u32) {
        if let Origin::Block { part, .. } = &mut self.directory.origin {
            *part = number;
        }
    }

    pub(crate) fn finish(mut self) -> Result<EncodedObject, Error> {
        self.flush_group()?;
        self.file.flush().map_err(|e| Error::encode("rows", e))?;
        let mut offset = self.file.bytes_written() as u64;
        for dataset in &mut self.directory.datasets {
            let sections = [
                Some(&mut dataset.index),
                Some(&mut dataset.strings),
                Some(&mut dataset.symbols),
                dataset.tree.as_mut(),
            ];
            for section in sections.into_iter().flatten() {
                section.offset = offset;
                offset += u64::from(section.bytes);
            }
            for cells in &mut dataset.cells {
                cells.head.offset = offset;
                offset += u64::from(cells.head.bytes) + u64::from(cells.chunk_bytes);
            }
        }
        for section in &self.sections {
            self.file.write_all(section).map_err(|e| Error::encode("section", e))?;
        }
        let mut raw = self.directory.encode();
        self.layout.encode(&mut raw);
        let (packed, mut directory) = pack(&raw, self.zstd_level)?;
        directory.offset = offset;
        self.file.write_all(&packed).map_err(|e| Error::encode("directory", e))?;
        self.file.write_all(&trailer(&directory)).map_err(|e| Error::encode("trailer", e))?;
        for (key, value) in [
            ("pyrograph.format", FORMAT_VERSION.to_string()),
            ("pyrograph.datasets", serde_json::Value::Array(self.described).to_string()),
        ] {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let bytes = self.file.into_inner().map_err(failed)?;
        Ok(EncodedObject { bytes: Bytes::from(bytes), directory: self.directory })
    }

    fn section(&mut self, raw: &[u8]) -> Result<Section, Error> {
        let (packed, section) = pack(raw, self.zstd_level)?;
        self.sections.push(packed);
        Ok(section)
    }

    fn add_rows(&mut self, dataset: &PreparedDataset) -> Result<(), Error> {
        let number = self.directory.datasets.len() as i32 - 1;
        let profiles = &dataset.index.profiles;
        let mut profile = 0;
        for schema in &dataset.schemas {
            let mut from = schema.rows.start;
            while from < schema.rows.end {
                let room = ROW_GROUP_ROWS_MAX - self.group.stack.len();
                if room == 0 {
                    self.flush_group()?;
                    continue;
                }
                let to = schema.rows.end.min(from + room);
                let group = &mut self.group;
                let length = group.stack.len() + (to - from);
                group.dataset.resize(length, number);
                while group.series.len() < length {
                    // Profiles are in the order of the rows; one may continue in the next row group.
                    let done = from + group.series.len() + (to - from) - length;
                    while (profiles.row_starts[profile + 1] as usize) <= done {
                        profile += 1;
                    }
                    let end = (profiles.row_starts[profile + 1] as usize).min(to);
                    let next = group.series.len() + (end - done);
                    group.series.resize(next, profiles.series[profile] as i32);
                    group.time.resize(next, profiles.time_nanos[profile]);
                }
                group.stack.extend(dataset.stacks[from..to].iter().map(|stack| *stack as i32));
                let within = from - schema.rows.start..to - schema.rows.start;
                for (column, into) in group.values.iter_mut().enumerate() {
                    match schema.values.get(column) {
                        Some(values) => into.extend_from_slice(&values[within.clone()]),
                        None => into.resize(length, 0),
                    }
                }
                if let Some(spans) = &mut group.spans {
                    match dataset.spans.get(from..to) {
                        Some(row_spans) => row_spans.iter().for_each(|span| spans.push(*span)),
                        None => (from..to).for_each(|_| spans.push(Span::default())),
                    }
                }
                from = to;
            }
        }
        Ok(())
    }

    fn flush_group(&mut self) -> Result<(), Error> {
        let rows = self.group.stack.len();
        if rows == 0 {
            return Ok(());
        }
        let GroupRows { ends, dataset, series, time, stack, values, spans } = &mut self.group;
        if ends.last() != Some(&rows) {
            ends.push(rows);
        }
        let mut writer = self.file.next_row_group().map_err(failed)?;
        write_column::<Int32Type>(&mut writer, dataset, ends)?;
        write_column::<Int32Type>(&mut writer, series, ends)?;
        write_column::<Int64Type>(&mut writer, time, ends)?;
        write_column::<Int32Type>(&mut writer, stack, ends)?;
        for values in values {
            write_column::<Int64Type>(&mut writer, values, ends)?;
        }
        if let Some(spans) = spans {
            write_column::<Int64Type>(&mut writer, &mut spans.id, ends)?;
            write_column::<Int64Type>(&mut writer, &mut spans.trace_high, ends)?;
            write_column::<Int64Type>(&mut writer, &mut spans.trace_low, ends)?;
        }
        ends.clear();
        writer.close().map_err(failed)?;
        self.file.flush().map_err(|e| Error::encode("rows", e))?;
        self.record_pages(rows)
    }

    /// Records the positions of the pages of the last written row group.
    fn record_pages(&mut self, rows: usize) -> Result<(), Error> {
        let wrong = |problem| Error::encode("rows", problem);
        let Some(metadata) = self.file.flushed_row_groups().last() else {
            return Err(wrong("a row group was not written"));
        };
        let bytes = self.file.inner();
        let mut columns = Vec::with_capacity(self.layout.stored_columns());
        for column in metadata.columns().iter().skip(STACK) {
            let offset = column.data_page_offset() as usize;
            let Some(chunk) = bytes.get(offset..offset + column.compressed_size() as usize) else {
                return Err(wrong("a column chunk is not where it should be"));
            };
            let pages = pages_of_chunk(chunk, offset as u64).map_err(|malformed| wrong(malformed.problem))?;
            columns.push(pages);
        }
        let first_row = self.layout.row_groups.last().map_or(0, |g| g.first_row + u64::from(g.rows));
        self.layout.row_groups.push(RowGroup { first_row, rows: rows as u32, columns });
        Ok(())
    }
}

impl SpanRows {
    fn push(&mut self, span: Span) {
        self.id.push(span.span_id as i64);
        self.trace_high.push((span.trace_id >> 64) as i64);
        self.trace_low.push(span.trace_id as i64);
    }
}

/// Refuses a dataset that a reader would refuse.
fn check_size(dataset: &PreparedDataset) -> Result<(), Error> {
    let symbols = &dataset.symbols;
    let label_bytes = dataset.index.series.iter().map(|series| series.labels.byte_len()).sum();
    let limits = [
        ("rows", dataset.stacks.len(), u32::MAX as usize),
        ("bytes of labels", label_bytes, LABEL_BYTES_MAX),
        ("bytes of strings", symbols.string_bytes, STRING_BYTES_MAX),
        ("locations in stacktraces", symbols.stack_locations, STACK_LOCATIONS_MAX),
    ];
    for (resource, count, limit) in limits {
        if count > limit {
            let dataset = dataset.service.clone();
            return Err(Error::TooLarge { dataset, resource, count: count as u64, limit: limit as u64 });
        }
    }
    Ok(())
}

/// Writes the next column. `ends` are the rows at which a page may end early.
fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &mut Vec<T::T>,
    ends: &[usize],
) -> Result<(), Error> {
    let Some(mut column) = group.next_column().map_err(failed)? else {
        return Err(Error::encode("rows", "the schema has too few columns"));
    };
    let mut start = 0;
    for end in ends {
        column.typed::<T>().write_batch(&values[start..*end], None, None).map_err(failed)?;
        start = *end;
    }
    column.close().map_err(failed)?;
    values.clear();
    Ok(())
}

fn schema_text(value_columns: usize, has_spans: bool) -> String {
    let mut text = String::from(
        "message samples {
            required int32 dataset (INTEGER(32,false));
            required int32 series (INTEGER(32,false));
            required int64 time (TIMESTAMP(NANOS,true));
            required int32 stack (INTEGER(32,false));",
    );
    for column in 0..value_columns {
        text.push_str(&format!("required int64 value_{column};"));
    }
    if has_spans {
        for name in ["span_id", "trace_id_high", "trace_id_low"] {
            text.push_str(&format!("required int64 {name} (INTEGER(64,false));"));
        }
    }
    text.push('}');
    text
}

fn properties(zstd_level: i32) -> Result<WriterProperties, Error> {
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("pyrograph format {FORMAT_VERSION}"))
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::BYTE_STREAM_SPLIT)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd_level).map_err(failed)?))
        // The writer checks the limit after every batch, and a batch is at most the rows of a dataset.
        .set_data_page_row_count_limit(PAGE_ROWS_MIN)
        .set_data_page_size_limit(PAGE_ROWS * 8)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        // Page indexes would be stored between the trailer and the footer, and pages are hardly
        // smaller than row groups.
        .set_offset_index_disabled(true);
    for column in ["dataset", "series", "time"] {
        let path = ColumnPath::from(column);
        builder = builder
            .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
            .set_column_statistics_enabled(path, EnabledStatistics::Chunk);
    }
    Ok(builder.build())
}

fn trailer(directory: &Section) -> Vec<u8> {
    let mut out = Vec::with_capacity(TRAILER_BYTES);
    out.extend_from_slice(&directory.offset.to_le_bytes());
    out.extend_from_slice(&directory.checksum.to_le_bytes());
    out.extend_from_slice(&directory.bytes.to_le_bytes());
    out.extend_from_slice(&directory.raw_bytes.to_le_bytes());
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
    out.extend_from_slice(TRAILER_MAGIC);
    out
}

/// The directory entry of a dataset; the caller sets rows and sections.
fn entry(dataset: &PreparedDataset) -> DatasetEntry {
    let nowhere = Section { offset: 0, bytes: 0, raw_bytes: 0, checksum: 0 };
    let index = &dataset.index;
    let mut profile_types: Vec<_> = index
        .schemas
        .iter()
        .zip(&index.columns)
        // A column of zeros is a profile type without samples.
        .flat_map(|(schema, stored)| {
            let counts = |column: &usize| stored[*column].factor != 0;
            (0..schema.columns.len()).filter(counts).map(|column| schema.profile_type(column))
        })
        .collect();
    profile_types.sort();
    profile_types.dedup();
    let mut label_names: Vec<&str> =
        index.series.iter().flat_map(|series| series.labels.iter().map(|(name, _)| name)).collect();
    label_names.sort_unstable();
    label_names.dedup();
    let times = &index.profiles.time_nanos;
    DatasetEntry {
        tenant: dataset.tenant.clone(),
        service: dataset.service.clone(),
        times: Times {
            first: times.iter().copied().min().unwrap_or(0),
            last: times.iter().copied().max().unwrap_or(0),
        },
        rows: 0..0,
        profiles: index.profiles.len() as u32,
        profile_types,
        label_names: label_names.into_iter().map(str::to_owned).collect(),
        index: nowhere,
        strings: nowhere,
        symbols: nowhere,
        tree: None,
        cells: Vec::new(),
    }
}

/// The description of a dataset for users of SQL.
fn describe(dataset: &PreparedDataset, first_row: u64) -> serde_json::Value {
    let index = &dataset.index;
    let schemas: Vec<_> = index
        .schemas
        .iter()
        .zip(&index.columns)
        .zip(&dataset.schemas)
        .map(|((schema, stored), rows)| {
            let values: Vec<_> = (0..schema.columns.len())
                .map(|i| {
                    serde_json::json!({
                        "profile_type": schema.profile_type(i).to_string(),
                        "column": format!("value_{}", stored[i].value),
                        "factor": stored[i].factor,
                    })
                })
                .collect();
            let series: Vec<_> = (0..index.series.len())
                .filter(|id| Arc::ptr_eq(&index.schemas[index.series[*id].schema as usize], schema))
                .collect();
            serde_json::json!({
                "first_row": first_row + rows.rows.start as u64,
                "rows": rows.rows.len(),
                "first_series": series.first(),
                "series": series.len(),
                "values": values,
            })
        })
        .collect();
    serde_json::json!({
        "tenant": dataset.tenant.as_str(),
        "service": dataset.service,
        "schemas": schemas,
    })
}

#[cfg(test)]
mod tests {
    use model::{Symbols, TenantId};

    use super::*;
    use crate::rows::NewDataset;
    use crate::symbols::EncodedSymbols;

    #[test]
    fn a_dataset_that_readers_would_refuse_is_not_written() {
        let add = |strings: usize, locations: usize| {
            let symbols = EncodedSymbols {
                string_bytes: strings,
                stack_locations: locations,
                ..EncodedSymbols::new(&Symbols::default())
            };
            let dataset = NewDataset {
                tenant: TenantId::parse("acme").expect("valid"),
                service: "api".to_owned(),
                schemas: Vec::new(),
                series: Vec::new(),
                profiles: Vec::new(),
                stacks: Vec::new(),
                values: Vec::new(),
                spans: Vec::new(),
                symbols,
            };
            let options = WriterOptions {
                origin: Origin::Segment { writer: model::WriterId(1), seq: 0 },
                created_millis: 0,
                keys: Vec::new(),
                value_columns: 1,
                has_spans: false,
            };
            ObjectWriter::new(options).expect("opens").add(&dataset.prepare(), None, &[])
        };
        assert!(add(STRING_BYTES_MAX, STACK_LOCATIONS_MAX).is_ok());
        for (strings, locations) in [(STRING_BYTES_MAX + 1, 0), (0, STACK_LOCATIONS_MAX + 1)] {
            assert!(matches!(add(strings, locations), Err(Error::TooLarge { .. })));
        }
    }
}
