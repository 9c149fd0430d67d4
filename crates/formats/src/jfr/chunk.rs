//! The chunks of a recording and the events in them.
//!
//! Owns: the header of a chunk, its bounds, the size and type in front of each event.
//! Does not own: the fields of an event.

use super::reader::{Reader, Width};
use super::{Fault, Flaw};

/// First bytes of a chunk.
pub(crate) const MAGIC: [u8; 4] = *b"FLR\0";

const HEADER_BYTES: usize = 68;

/// The accepted version; each minor one is written alike.
const MAJOR: u16 = 2;

/// The flag of numbers that are compressed.
const COMPRESSED: u16 = 1;

/// Type of the event that describes the other types.
pub(super) const METADATA: u64 = 0;

/// Type of the events that hold constants.
pub(super) const CHECKPOINT: u64 = 1;

/// One chunk, by its header.
pub(super) struct Chunk<'a> {
    reader: Reader<'a>,
    /// Offset of its metadata.
    pub(super) metadata: usize,
    pub(super) ticks_per_second: i64,
}

/// An event, by its size and type.
pub(super) struct Event<'a> {
    pub(super) kind: u64,
    /// Its fields.
    pub(super) fields: Reader<'a>,
}

impl<'a> Chunk<'a> {
    /// The chunk at `start`, and the offset of the one after it.
    ///
    /// # Errors
    /// If there is no whole chunk of an accepted version.
    pub(super) fn read(data: &'a [u8], start: usize) -> Result<(Self, usize), Fault> {
        let mut header = Reader::new(data, start, data.len(), false);
        let fault = |flaw| Fault::new(start, flaw);
        let magic = header.fixed::<4>().map_err(|_| fault(Flaw::NoMagic))?;
        if magic != MAGIC {
            return Err(fault(Flaw::NoMagic));
        }
        let (major, minor) = (u16::from_be_bytes(header.fixed()?), u16::from_be_bytes(header.fixed()?));
        if major != MAJOR {
            return Err(fault(Flaw::Version { major, minor }));
        }
        let mut numbers = [0; 7];
        for number in &mut numbers {
            *number = i64::from_be_bytes(header.fixed()?);
        }
        let [bytes, _constants, metadata, _start_nanos, _duration_nanos, _start_ticks, ticks_per_second] =
            numbers;
        header.skip(2)?;
        let flags = u16::from_be_bytes(header.fixed()?);
        let left = data.len() - start;
        let length = usize::try_from(bytes).ok().filter(|length| (HEADER_BYTES..=left).contains(length));
        let length = length.ok_or_else(|| fault(Flaw::ChunkSize { bytes, left }))?;
        let metadata = usize::try_from(metadata).ok().filter(|offset| *offset < length);
        let metadata = start + metadata.ok_or_else(|| fault(Flaw::NoMetadata))?;
        let end = start + length;
        let reader = Reader::new(data, start + HEADER_BYTES, end, flags & COMPRESSED != 0);
        Ok((Self { reader, metadata, ticks_per_second }, end))
    }

    /// The event at `offset`, and the offset of the one after it.
    ///
    /// # Errors
    /// If it has no size, or one that leaves the chunk.
    #[inline(always)]
    pub(super) fn event(&self, offset: usize) -> Result<(Event<'a>, usize), Fault> {
        let mut fields = self.reader.moved_to(offset);
        let left = fields.left();
        let size = fields.number(Width::Int)?;
        let whole = usize::try_from(size).ok().filter(|size| *size > 0 && *size <= left);
        let end = offset + whole.ok_or_else(|| Fault::new(offset, Flaw::EventSize { size, left }))?;
        let mut fields = fields.ending_at(end);
        let kind = fields.key()?;
        Ok((Event { kind, fields }, end))
    }

    /// Calls `each` with every event, in their order.
    ///
    /// # Errors
    /// The first error of `each`, or an event without a valid size.
    pub(super) fn for_each(&self, mut each: impl FnMut(Event<'a>) -> Result<(), Fault>) -> Result<(), Fault> {
        let (mut offset, end) = (self.reader.at(), self.reader.at() + self.reader.left());
        while offset < end {
            let (event, next) = self.event(offset)?;
            each(event)?;
            offset = next;
        }
        Ok(())
    }

    /// A reader of all events.
    pub(super) fn reader(&self) -> Reader<'a> {
        self.reader
    }
}
