//! JFR recordings (JDK Flight Recorder, version 2), of the JDK and of async-profiler, → [`Profile`]s.
//!
//! Owns: the story of a recording: chunk after chunk, its metadata, its constants, its events; the limits.
//! Does not own: labels of series, or whether a profile is acceptable (`distributor`).
//!
//! A recording is read in place: of its constants only positions are kept, and a stacktrace is decoded when the first
//! event refers to it. Nothing recurses on the input.

mod chunk;
mod constants;
mod events;
mod labels;
mod layout;
mod metadata;
mod profiles;
mod reader;
mod settings;
mod symbols;

pub(crate) use chunk::MAGIC;

use model::Profile;

use chunk::Chunk;
use events::Recorder;
use labels::Labels;

/// Longest recording, decompressed: positions are 32-bit numbers.
const BYTES_MAX: usize = 1 << 31;

/// Most samples of one profile.
pub const SAMPLES_MAX: usize = 1 << 20;

/// Most labels of all samples of one recording.
pub const LABELS_MAX: usize = 1 << 20;

/// Most locations of all stacktraces: a recording has each stacktrace once, but its profiles once per sample.
pub const LOCATIONS_MAX: usize = 16 << 20;

/// Most bytes of the function names of all chunks: a recording may have the name of a class once for many methods.
pub const NAME_BYTES_MAX: usize = 64 << 20;

/// Most constants of one chunk that are kept.
pub const CONSTANTS_MAX: usize = 1 << 20;

/// What a recording does not say itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Samples of CPU and wall time per second; 0 leaves them out. If absent, the interval is that of the settings in
    /// the recording.
    pub sample_rate: Option<u32>,
    /// The time of the profiles, in Unix nanoseconds.
    pub time_nanos: i64,
    pub duration_nanos: i64,
}

/// A decoded recording.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The last setting `event`, such as `itimer`; empty if there is none.
    pub event: String,
    /// One per kind of event that occurred.
    pub profiles: Vec<NamedProfile>,
}

/// A profile with the `__name__` of its series.
#[derive(Clone, Debug)]
pub struct NamedProfile {
    pub name: &'static str,
    pub profile: Profile,
}

/// Bytes that are no recording. Positions are offsets into the decompressed recording; chunks are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("JFR recording of {bytes} bytes is larger than the limit of {BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("JFR recording: chunk {chunk}, byte {offset}: {flaw}")]
    Chunk { chunk: usize, offset: usize, flaw: Flaw },
    #[error("JFR recording has more {kind} than the limit of {limit}")]
    TooMany { kind: &'static str, limit: usize },
    #[error("labels of {bytes} bytes are no protobuf message of contexts and strings")]
    Labels { bytes: usize },
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("no chunk begins here (\"FLR\")")]
    NoMagic,
    #[error("version {major}.{minor} is not accepted, only 2")]
    Version { major: u16, minor: u16 },
    #[error("chunk of {bytes} bytes where {left} are left; a recording must be complete")]
    ChunkSize { bytes: i64, left: usize },
    #[error("no metadata at their offset")]
    NoMetadata,
    #[error("event of {size} bytes where {left} are left")]
    EventSize { size: i64, left: usize },
    #[error("a value runs past the end")]
    CutOff,
    #[error("{count} elements where {left} bytes are left")]
    Count { count: i64, left: usize },
    #[error("text has the unknown encoding {encoding}")]
    TextEncoding { encoding: u8 },
    #[error("string {index} of a table of {strings}")]
    StringIndex { index: i64, strings: usize },
    #[error("metadata are nested too deeply")]
    ElementDepth,
    #[error("type {id} is not in the metadata")]
    UnknownType { id: u64 },
    #[error("type {name:?} contains itself, or too many fields")]
    TypeSize { name: String },
    #[error("more {kind} than the limit of {limit}")]
    TooMany { kind: &'static str, limit: usize },
    #[error("values of a stacktrace are together more than 2^63 - 1")]
    Sum,
}

/// A flaw and its place. In a box, since the result of every read may be one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault(Box<(usize, Flaw)>);

impl Fault {
    #[cold]
    fn new(offset: usize, flaw: Flaw) -> Self {
        Self(Box::new((offset, flaw)))
    }

    fn in_chunk(self, chunk: usize) -> Error {
        let (offset, flaw) = *self.0;
        Error::Chunk { chunk, offset, flaw }
    }
}

/// Whether `bytes` begin like a recording.
pub fn is_recording(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Decodes a whole recording. `labels` holds the texts of context ids and of span names, if the client sent any.
///
/// References to constants that are missing are no errors: such frames, or events without a stacktrace, are left out.
///
/// # Errors
/// If a chunk is malformed, or a limit is exceeded.
pub fn decode(recording: &[u8], labels: &[u8], options: &Options) -> Result<Recording, Error> {
    if recording.len() > BYTES_MAX {
        return Err(Error::TooLarge { bytes: recording.len() });
    }
    let labels = Labels::read(labels).ok_or(Error::Labels { bytes: labels.len() })?;
    let mut recorder = Recorder::new(options);
    let (mut start, mut number) = (0, 0);
    while start < recording.len() {
        let (chunk, next) = Chunk::read(recording, start).map_err(|fault| fault.in_chunk(number))?;
        recorder.read(&chunk).map_err(|fault| fault.in_chunk(number))?;
        (start, number) = (next, number + 1);
    }
    recorder.finish(&labels)
}
