//! Functions, locations and stacktraces of a recording, each kept once.
//!
//! Owns: the names of functions, and the parts of a name that differ with each run and are cut out of it.
//! Does not own: which of them a profile needs (`profiles.rs`).

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use model::{Stacktraces, Strings};

use super::constants::{Frame, Pools};
use super::{Fault, Flaw, NAME_BYTES_MAX};

/// A function at a line; 0 if the line is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Location {
    pub(super) function: u32,
    pub(super) line: i64,
}

/// The symbols of all chunks.
#[derive(Default)]
pub(super) struct Symbols {
    hasher: DefaultHashBuilder,
    /// The name of function `i` is string `i`.
    names: Strings,
    /// Of all names that were looked up.
    name_bytes: usize,
    functions: HashTable<u32>,
    locations: Vec<Location>,
    location_ids: HashMap<Location, u32>,
    stacktraces: Stacktraces,
    stacktrace_ids: HashTable<u32>,
    /// Functions and stacktraces of the current chunk by key; `None` if one is missing there.
    of_chunk: (HashMap<u64, Option<u32>>, HashMap<u64, Option<u32>>),
    frames: Vec<Frame>,
    stacktrace: Vec<u32>,
}

impl Symbols {
    pub(super) fn begin_chunk(&mut self) {
        self.of_chunk.0.clear();
        self.of_chunk.1.clear();
    }

    pub(super) fn functions(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, function: u32) -> &[u8] {
        self.names.get(function)
    }

    pub(super) fn locations(&self) -> &[Location] {
        &self.locations
    }

    /// Locations of a stacktrace, leaf first.
    pub(super) fn stacktrace(&self, stacktrace: u32) -> &[u32] {
        self.stacktraces.get(stacktrace)
    }

    /// The stacktrace with this key in the current chunk; `None` if it is missing. Frames of unknown methods are
    /// left out.
    ///
    /// # Errors
    /// If the names are together too long.
    pub(super) fn find(&mut self, pools: &Pools, key: u64) -> Result<Option<u32>, Flaw> {
        if let Some(known) = self.of_chunk.1.get(&key) {
            return Ok(*known);
        }
        let mut frames = std::mem::take(&mut self.frames);
        let exists = pools.frames(key, &mut frames);
        self.stacktrace.clear();
        for frame in &frames {
            if let Some(function) = self.function(pools, frame.method)? {
                // Hidden frames have a line of -1.
                let location = self.location(Location { function, line: frame.line.max(0) });
                self.stacktrace.push(location);
            }
        }
        self.frames = frames;
        let found = exists.then(|| self.intern());
        self.of_chunk.1.insert(key, found);
        Ok(found)
    }

    fn function(&mut self, pools: &Pools, method: u64) -> Result<Option<u32>, Flaw> {
        if let Some(known) = self.of_chunk.0.get(&method) {
            return Ok(*known);
        }
        let name =
            pools.method(method).map(|(class, name)| [&*stable(&class), ".", &*stable(&name)].concat());
        let function = match name {
            Some(name) => Some(self.named(name.as_bytes())?),
            None => None,
        };
        self.of_chunk.0.insert(method, function);
        Ok(function)
    }

    fn named(&mut self, name: &[u8]) -> Result<u32, Flaw> {
        let Self { names, hasher, .. } = self;
        self.name_bytes += name.len();
        if self.name_bytes > NAME_BYTES_MAX {
            return Err(Flaw::TooMany { kind: "bytes of function names", limit: NAME_BYTES_MAX });
        }
        let hash = hasher.hash_one(name);
        if let Some(known) = self.functions.find(hash, |id| names.get(*id) == name) {
            return Ok(*known);
        }
        let function = names.push(name);
        self.functions.insert_unique(hash, function, |id| hasher.hash_one(names.get(*id)));
        Ok(function)
    }

    fn location(&mut self, location: Location) -> u32 {
        let next = self.locations.len() as u32;
        let id = *self.location_ids.entry(location).or_insert(next);
        if id == next {
            self.locations.push(location);
        }
        id
    }

    fn intern(&mut self) -> u32 {
        let Self { stacktraces, hasher, stacktrace, .. } = self;
        let hash = hasher.hash_one(&stacktrace[..]);
        if let Some(known) = self.stacktrace_ids.find(hash, |id| stacktraces.get(*id) == &stacktrace[..]) {
            return *known;
        }
        let new = stacktraces.push(stacktrace);
        self.stacktrace_ids.insert_unique(hash, new, |id| hasher.hash_one(stacktraces.get(*id)));
        new
    }
}

/// Puts a fault where the event is.
pub(super) fn at(offset: usize) -> impl Fn(Flaw) -> Fault {
    move |flaw| Fault::new(offset, flaw)
}

/// A symbol without the numbers that differ with each run; otherwise each run would add functions of its own.
fn stable(symbol: &str) -> Cow<'_, str> {
    const ACCESSOR: &str = "jdk/internal/reflect/GeneratedMethodAccessor";
    const LAMBDA: &str = "$$Lambda";
    const SPRING: &str = "$$EnhancerBySpringCGLIB$$";
    if symbol.strip_prefix(ACCESSOR).is_some_and(is_digits) {
        return Cow::Owned(format!("{ACCESSOR}_"));
    }
    if memchr::memchr(b'$', symbol.as_bytes()).is_some() {
        if let Some((class, number)) = symbol.rsplit_once(LAMBDA)
            && is_lambda_number(number)
        {
            return Cow::Owned(format!("{class}{LAMBDA}_"));
        }
        if let Some((class, number)) = symbol.split_once(SPRING)
            && !number.is_empty()
        {
            return Cow::Owned(format!("{class}{SPRING}_"));
        }
    }
    Cow::Borrowed(library(symbol).unwrap_or(symbol))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is the number of a lambda class: `$14/0x000000084009c440`, `.0x7f00`, `/0x7f00`, `27`.
fn is_lambda_number(text: &str) -> bool {
    if is_digits(text) {
        return true;
    }
    let text = text.strip_prefix('$').unwrap_or(text);
    let address = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let address = address.strip_prefix(['.', '/']);
    address.is_some_and(|address| is_hex(address.strip_prefix("0x").unwrap_or(address)))
}

/// The stable name of a native library that a Java library unpacks under a new name in each process.
fn library(symbol: &str) -> Option<&'static str> {
    let path = symbol.strip_suffix(" (deleted)").unwrap_or(symbol);
    let file = path.strip_prefix("/tmp/").or_else(|| path.strip_prefix("./tmp/")).unwrap_or(path);
    let name = file.strip_suffix(".so")?;
    let is_version = |text: &str| text.split('.').count() == 3 && text.split('.').all(is_digits);
    let zstd = name.strip_prefix("libzstd-jni-").and_then(|rest| rest.split_once('-'));
    if zstd.is_some_and(|(version, number)| is_version(version) && is_digits(number)) {
        return Some("libzstd-jni-_.so");
    }
    let corretto = name.strip_prefix("lib").unwrap_or(name).strip_prefix("amazonCorrettoCryptoProvider")?;
    let number = corretto.strip_prefix("NativeLibraries.").unwrap_or(corretto);
    let inner = ["/libcrypto", "/libamazonCorrettoCryptoProvider"];
    let number = inner.iter().find_map(|inner| number.strip_suffix(inner)).unwrap_or(number);
    (number.len() == 16 && is_hex(number)).then_some("libamazonCorrettoCryptoProvider_.so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_differ_with_each_run_are_cut_out_of_symbols() {
        let cases = [
            ("java/lang/Thread", "java/lang/Thread"),
            (
                "jdk/internal/reflect/GeneratedMethodAccessor12",
                "jdk/internal/reflect/GeneratedMethodAccessor_",
            ),
            (
                "jdk/internal/reflect/GeneratedMethodAccessor1x",
                "jdk/internal/reflect/GeneratedMethodAccessor1x",
            ),
            ("App$$Lambda$14/0x000000084009c440", "App$$Lambda_"),
            ("App$$Lambda$14.1234567", "App$$Lambda_"),
            ("Costs$$Lambda/0x0000000089046000", "Costs$$Lambda_"),
            ("Costs$$Lambda.0x000000006f040210", "Costs$$Lambda_"),
            ("a/Map$$$Lambda$7/0x7f", "a/Map$$$Lambda_"),
            ("App$$Lambda27", "App$$Lambda_"),
            ("App$$Lambda+0x00007f47/12", "App$$Lambda+0x00007f47/12"),
            ("App$$Lambda", "App$$Lambda"),
            ("get$Lambda", "get$Lambda"),
            ("a/Shop$$EnhancerBySpringCGLIB$$8f3a", "a/Shop$$EnhancerBySpringCGLIB$$_"),
            ("/tmp/libzstd-jni-1.5.1-16931311898282279136.so (deleted)", "libzstd-jni-_.so"),
            ("libzstd-jni-1.5-1.so", "libzstd-jni-1.5-1.so"),
            ("libamazonCorrettoCryptoProvider109b39cf33c563eb.so", "libamazonCorrettoCryptoProvider_.so"),
            (
                "./tmp/amazonCorrettoCryptoProviderNativeLibraries.7382c2f79097f415/libcrypto.so",
                "libamazonCorrettoCryptoProvider_.so",
            ),
            ("libjvm.so", "libjvm.so"),
        ];
        for (symbol, expected) in cases {
            assert_eq!(stable(symbol), expected, "{symbol}");
        }
    }
}
