//! Columns of several messages: values, text, label sets.

use block::codec::{Cursor, Malformed, put, put_signed};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::{Labels, LabelsBuilder, NONE};

/// Maximum bytes of the labels of one message with every reference expanded. A set may be referred to often, so the
/// size of the message does not bound them.
const LABEL_BYTES_MAX: usize = 1 << 30;

/// Encodes values as multiples of their greatest common divisor: samples of one period are then small numbers.
pub(super) fn put_values(out: &mut Vec<u8>, values: &[i64]) {
    let factor = match values.iter().fold(0, |all, value| common_divisor(all, value.unsigned_abs())) {
        0 => 1,
        divisor => i64::try_from(divisor).unwrap_or(1),
    };
    put(out, factor as u64);
    match factor {
        1 => values.iter().for_each(|value| put_signed(out, *value)),
        _ => values.iter().for_each(|value| put_signed(out, value / factor)),
    }
}

/// Reads `count` values that [`put_values`] wrote.
pub(super) fn values(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    let factor = cursor.varint()? as i64;
    if count > cursor.remaining() {
        return Err(cursor.malformed("there are fewer values than there must be"));
    }
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(cursor.signed()?.wrapping_mul(factor));
    }
    Ok(values)
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    // Nearly every number is a multiple of the divisor of the previous ones.
    if a == 1 || b == 0 {
        return a;
    }
    while a != 0 {
        (a, b) = (b % a, a);
    }
    b
}

/// Encodes an index, or [`NONE`].
pub(super) fn put_index(out: &mut Vec<u8>, index: u32) {
    put(out, u64::from(index.wrapping_add(1)));
}

/// Reads an index that [`put_index`] wrote: [`NONE`], or below `limit`. `problem` is the error otherwise.
pub(super) fn index(cursor: &mut Cursor<'_>, limit: usize, problem: &'static str) -> Result<u32, Malformed> {
    let value = cursor.u32()?;
    if value as usize > limit {
        return Err(cursor.malformed(problem));
    }
    Ok(value.checked_sub(1).unwrap_or(NONE))
}

/// Encodes all lengths, then all bytes.
pub(super) fn put_strings<'a>(out: &mut Vec<u8>, strings: impl ExactSizeIterator<Item = &'a [u8]> + Clone) {
    put(out, strings.len() as u64);
    let mut bytes = 0;
    for string in strings.clone() {
        bytes += string.len();
        put(out, string.len() as u64);
    }
    out.reserve(bytes);
    strings.for_each(|string| out.extend_from_slice(string));
}

/// Reads the output of [`put_strings`]: all bytes, as a slice of `all`, which the cursor reads, and `(offset, length)`
/// of each string.
pub(super) fn strings(cursor: &mut Cursor<'_>, all: &Bytes) -> Result<(Bytes, Vec<(u32, u32)>), Malformed> {
    let count = cursor.count()?;
    let mut spans = Vec::with_capacity(count);
    let mut offset = 0_u32;
    for _ in 0..count {
        let length = cursor.u32()?;
        spans.push((offset, length));
        offset = match offset.checked_add(length) {
            Some(end) => end,
            None => return Err(cursor.malformed("strings are longer than allowed")),
        };
    }
    let start = all.len() - cursor.remaining();
    cursor.take(offset as usize)?;
    Ok((all.slice(start..start + offset as usize), spans))
}

/// Distinct label sets of a message that is written.
#[derive(Default)]
pub(super) struct LabelSetWriter<'a> {
    ids: HashMap<&'a Labels, u32, RandomState>,
    sets: Vec<&'a Labels>,
}

impl<'a> LabelSetWriter<'a> {
    pub(super) fn id(&mut self, labels: &'a Labels) -> u32 {
        *self.ids.entry(labels).or_insert_with(|| {
            self.sets.push(labels);
            self.sets.len() as u32 - 1
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let mut ids: HashMap<&str, u32, RandomState> = HashMap::default();
        let mut texts: Vec<&[u8]> = Vec::new();
        let mut rows = Vec::new();
        put(&mut rows, self.sets.len() as u64);
        for set in &self.sets {
            put(&mut rows, set.len() as u64);
            for text in set.iter().flat_map(|(name, value)| [name, value]) {
                let id = *ids.entry(text).or_insert_with(|| {
                    texts.push(text.as_bytes());
                    texts.len() as u32 - 1
                });
                put(&mut rows, u64::from(id));
            }
        }
        put_strings(out, texts.iter().copied());
        out.extend_from_slice(&rows);
    }
}

/// Label sets of a message that is read, and the rest of [`LABEL_BYTES_MAX`].
pub(super) struct LabelSetReader {
    sets: Vec<Labels>,
    left: usize,
}

impl LabelSetReader {
    /// Reads the output of [`LabelSetWriter::put`].
    pub(super) fn read(cursor: &mut Cursor<'_>, all: &Bytes) -> Result<Self, Malformed> {
        let (data, spans) = strings(cursor, all)?;
        let mut texts = Vec::with_capacity(spans.len());
        for (offset, length) in spans {
            let bytes = &data[offset as usize..(offset + length) as usize];
            texts.push(std::str::from_utf8(bytes).map_err(|_| cursor.malformed("a label is not UTF-8"))?);
        }
        let count = cursor.count()?;
        let mut read = Self { sets: Vec::with_capacity(count), left: LABEL_BYTES_MAX };
        for _ in 0..count {
            let mut labels = LabelsBuilder::default();
            let mut previous = None;
            for _ in 0..cursor.count()? {
                let name = texts[cursor.index(texts.len(), "a label's name does not exist")? as usize];
                let value = texts[cursor.index(texts.len(), "a label's value does not exist")? as usize];
                if previous.is_some_and(|previous| previous >= name) {
                    return Err(cursor.malformed("labels are not sorted by name"));
                }
                previous = Some(name);
                read.spend(cursor, name.len() + value.len())?;
                labels.push(name, value);
            }
            read.sets.push(labels.build());
        }
        Ok(read)
    }

    /// Reads the id of a set.
    pub(super) fn id(&self, cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
        Ok(cursor.index(self.sets.len(), "a label set does not exist")? as usize)
    }

    /// Reads the id of a set, and copies the set.
    pub(super) fn copy(&mut self, cursor: &mut Cursor<'_>) -> Result<Labels, Malformed> {
        let id = self.id(cursor)?;
        self.spend(cursor, self.sets[id].byte_len())?;
        Ok(self.sets[id].clone())
    }

    pub(super) fn into_sets(self) -> Vec<Labels> {
        self.sets
    }

    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }

    /// The set with the id `id`, as [`Self::id`] returns it.
    pub(super) fn get(&self, id: usize) -> &Labels {
        &self.sets[id]
    }

    fn spend(&mut self, cursor: &Cursor<'_>, bytes: usize) -> Result<(), Malformed> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Err(cursor.malformed("labels are larger than allowed")),
        }
        Ok(())
    }
}
