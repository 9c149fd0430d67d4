//! The `tree` and `trie` formats of `/ingest`: nodes in preorder, each `length name value children`, where all
//! but the name are unsigned LEB128 numbers.
//!
//! In a tree a node is one frame with its self value; the first node is the root, which is no frame. In a trie the
//! names along a path make a folded stack (`root;…;leaf`) and may be divided anywhere.
//!
//! Owns: both encodings. Does not own: the profile made of stacks of names ([`crate::folded`]), or the type of the
//! values ([`crate::ingest`]).
//!
//! Nodes are read one after the other, without recursion: a path may be as long as the body.

use hashbrown::HashMap;
use model::{Profile, Strings};

use crate::folded;
use crate::ingest::Column;

/// Longest frame name.
pub const NAME_BYTES_MAX: usize = 65_535;

/// Most children of one node of a tree.
pub const CHILDREN_MAX: u64 = 16_000;

/// Most locations of all stacks together: a path with a value at every node is repeated at each.
pub const LOCATIONS_MAX: usize = 16 << 20;

/// Most bytes of names that are looked up: parts of a name may be shared, and each of its ends is looked up.
pub const NAME_WORK_MAX: usize = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("body ends within a node, at byte {offset}")]
    Truncated { offset: usize },
    #[error("number at byte {offset} is larger than 64 bits")]
    Number { offset: usize },
    #[error("a frame name is longer than the limit of {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    #[error("a node has {children} children, limit is {CHILDREN_MAX}")]
    Children { children: u64 },
    #[error("stacks have more than {LOCATIONS_MAX} frames together")]
    Locations,
    #[error("frame names have more than {NAME_WORK_MAX} bytes together")]
    Names,
    #[error("a value of {value} is more than 2^63 - 1")]
    Value { value: u64 },
    #[error("{0}")]
    Overflow(#[from] folded::Overflow),
}

/// Every node of a tree with a self value becomes a sample. `time_nanos` is the time of the profile.
///
/// Bytes after the tree are ignored.
///
/// # Errors
/// If the body is not a tree, or larger than the limits.
pub fn decode_tree(body: &[u8], column: &Column, time_nanos: i64) -> Result<Profile, Error> {
    let mut reader = Reader { body, offset: 0 };
    let mut builder = Builder::default();
    if body.is_empty() {
        return Ok(builder.finish(column, time_nanos)?);
    }
    // The number of children still to read, of each node on the path; and the path itself, without the root.
    let mut open = Vec::new();
    let mut path = Vec::new();
    loop {
        let name = reader.name()?;
        let value = reader.number()?;
        let children = reader.number()?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        if children > CHILDREN_MAX {
            return Err(Error::Children { children });
        }
        if !open.is_empty() {
            path.push(builder.frame(name)?);
        }
        if value > 0 {
            builder.add(&path, value)?;
        }
        open.push(children);
        while let Some(left) = open.last_mut() {
            if *left > 0 {
                *left -= 1;
                break;
            }
            open.pop();
            path.pop();
        }
        if open.is_empty() {
            return Ok(builder.finish(column, time_nanos)?);
        }
    }
}

/// Every node of a trie with a value becomes a sample. `time_nanos` is the time of the profile.
///
/// The trie may end between any two nodes.
///
/// # Errors
/// If the body is not a trie, or larger than the limits.
pub fn decode_trie(body: &[u8], column: &Column, time_nanos: i64) -> Result<Profile, Error> {
    let mut reader = Reader { body, offset: 0 };
    let mut builder = Builder::default();
    let mut open = Vec::<OpenNode>::new();
    let mut path = Vec::new();
    // The name of the unfinished frame, after the names of the nodes above that it continues.
    let mut names = Vec::new();
    let mut begin = 0;
    while reader.offset < body.len() {
        while let Some(node) = open.last_mut() {
            if node.children > 0 {
                node.children -= 1;
                path.truncate(node.path);
                names.truncate(node.names);
                begin = node.begin;
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            (path, names, begin) = (Vec::new(), Vec::new(), 0);
        }
        let mut parts = reader.name()?.split(|byte| *byte == b';');
        names.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            path.push(builder.frame(&names[begin..])?);
            begin = names.len();
            names.extend_from_slice(part);
        }
        if names.len() - begin > NAME_BYTES_MAX {
            return Err(Error::NameTooLong);
        }
        let value = reader.number()?;
        if value > 0 {
            let ended = path.len();
            // A separator at the end does not begin a frame.
            if begin < names.len() || path.is_empty() {
                path.push(builder.frame(&names[begin..])?);
            }
            builder.add(&path, value)?;
            path.truncate(ended);
        }
        let children = reader.number()?;
        open.push(OpenNode { children, path: path.len(), names: names.len(), begin });
    }
    Ok(builder.finish(column, time_nanos)?)
}

/// A node of a trie whose children are not all read yet, with the lengths of path and names at its end.
struct OpenNode {
    children: u64,
    path: usize,
    names: usize,
    begin: usize,
}

struct Reader<'b> {
    body: &'b [u8],
    offset: usize,
}

impl<'b> Reader<'b> {
    fn number(&mut self) -> Result<u64, Error> {
        let start = self.offset;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.body.get(self.offset).ok_or(Error::Truncated { offset: self.offset })?;
            self.offset += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::Number { offset: start })
    }

    fn name(&mut self) -> Result<&'b [u8], Error> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let end = self.offset.checked_add(length).filter(|end| *end <= self.body.len());
        let end = end.ok_or(Error::Truncated { offset: self.body.len() })?;
        let name = &self.body[self.offset..end];
        self.offset = end;
        Ok(name)
    }
}

#[derive(Default)]
struct Builder {
    /// Function of each frame name.
    frames: HashMap<Vec<u8>, u32>,
    strings: Strings,
    looked_up: usize,
    profile: Profile,
}

impl Builder {
    fn frame(&mut self, name: &[u8]) -> Result<u32, Error> {
        self.looked_up += name.len();
        if self.looked_up > NAME_WORK_MAX {
            return Err(Error::Names);
        }
        if self.strings.is_empty() {
            self.strings.push(b"");
        }
        let next = self.frames.len() as u32;
        let strings = &mut self.strings;
        Ok(*self.frames.entry_ref(name).or_insert_with(|| {
            strings.push(name);
            next
        }))
    }

    /// `path` is root first.
    fn add(&mut self, path: &[u32], value: u64) -> Result<(), Error> {
        let stacktraces = &mut self.profile.symbols.stacktraces;
        if stacktraces.locations.len() + path.len() > LOCATIONS_MAX {
            return Err(Error::Locations);
        }
        stacktraces.locations.extend(path.iter().rev());
        stacktraces.offsets.push(stacktraces.locations.len() as u32);
        let samples = &mut self.profile.samples;
        samples.values.push(i64::try_from(value).map_err(|_| Error::Value { value })?);
        samples.label_offsets.push(0);
        Ok(())
    }

    fn finish(mut self, column: &Column, time_nanos: i64) -> Result<Profile, folded::Overflow> {
        if self.strings.is_empty() {
            self.strings.push(b"");
        }
        folded::with_symbols(self.profile, self.strings, self.frames.len() as u32, column, time_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folded::tests::stacks;
    use crate::ingest::column;

    type Decode = fn(&[u8], &Column, i64) -> Result<Profile, Error>;

    #[track_caller]
    fn check(decode: Decode, body: &[u8], expected: Result<&[&str], Error>) {
        let column = column("goroutines", 100).unwrap();
        let expected = expected.map(|stacks| stacks.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(decode(body, &column, 7).map(|profile| stacks(&profile)), expected);
    }

    const TREE: &[u8] =
        b"\0\0\x01\x04main\x01\x02\x04work\x05\x02\x05parse\x1e\0\x06render\x14\0\x04idle\x0a\0";
    const TRIE: &[u8] =
        b"\0\0\x01\x04main\0\x03\x05;idle\x0a\0\x06;work;\0\x02\x05parse\x1e\0\x06render\x14\0\x05;work\x05\0";

    #[test]
    fn nodes_of_a_tree_with_a_self_value_are_samples() {
        let samples = ["main 1", "main;work 5", "main;work;parse 30", "main;work;render 20", "main;idle 10"];
        check(decode_tree, TREE, Ok(&samples));
        check(decode_tree, &[TREE, b"rest"].concat(), Ok(&samples));
        check(decode_tree, b"", Ok(&[]));
        check(decode_tree, b"\0\0\0", Ok(&[]));
        check(decode_tree, b"\0\0\x01\x01a\x80\x02\0", Ok(&["a 256"]));
    }

    #[test]
    fn keys_of_a_trie_with_a_value_are_samples() {
        let samples = ["main;idle 10", "main;work;parse 30", "main;work;render 20", "main;work 5"];
        check(decode_trie, TRIE, Ok(&samples));
        check(decode_trie, b"", Ok(&[]));
        check(decode_trie, b"\x02a;\x03\0", Ok(&["a 3"]));
        check(decode_trie, b"\0\x03\0", Ok(&[" 3"]));
        // Divided within a name, children missing at the end, and a second root.
        check(decode_trie, b"\x03a;b\x01\x02\x02cd\x02\x09", Ok(&["a;b 1", "a;bcd 2"]));
        check(decode_trie, b"\x01a\x01\0\x01b\x02\0", Ok(&["a 1", "b 2"]));
    }

    #[test]
    fn a_body_that_ends_early_or_exceeds_a_limit_is_refused() {
        let cases: [(Decode, &[u8], Error); 8] = [
            (decode_tree, &TREE[..18], Error::Truncated { offset: 18 }),
            (decode_tree, b"\0\0\x01", Error::Truncated { offset: 3 }),
            (decode_trie, &TREE[..18], Error::Truncated { offset: 18 }),
            (decode_trie, b"\x01a\x01", Error::Truncated { offset: 3 }),
            (decode_tree, &[0xff; 20], Error::Number { offset: 0 }),
            (decode_tree, b"\0\0\xff\xff\x7f", Error::Children { children: 0x1f_ffff }),
            (decode_trie, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a", Error::Truncated { offset: 11 }),
            (decode_tree, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Error::Number { offset: 0 }),
        ];
        for (decode, body, error) in cases {
            check(decode, body, Err(error));
        }
        let huge = b"\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0";
        check(decode_trie, huge, Err(Error::Value { value: u64::MAX }));
        let long = [&[0x80, 0x80, 0x04][..], &[b'x'; 1 << 16], &[1, 0]].concat();
        check(decode_tree, &long, Err(Error::NameTooLong));
        check(decode_trie, &long, Err(Error::NameTooLong));
    }

    #[test]
    fn a_path_as_long_as_the_body_is_refused_without_recursion() {
        let tree = b"\x01a\x01\x01".repeat(100_000);
        check(decode_tree, &tree, Err(Error::Locations));
        let trie = b"\x02a;\x01\x01".repeat(100_000);
        check(decode_trie, &trie, Err(Error::Locations));
        let silent = b"\x01a\0\x01".repeat(100_000);
        check(decode_tree, &silent, Err(Error::Truncated { offset: silent.len() }));
        let wide = [&b"\0\0\xff\x7c"[..], &[0xff, 0xff, 0x03], &[b'x'; 65_535]].concat();
        let wide = [&wide[..], b"\0\xff\x7c", &b"\0\x01\0".repeat(16_000)].concat();
        check(decode_trie, &wide, Err(Error::Names));
    }
}
