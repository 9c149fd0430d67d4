//! The labels beside a recording: texts of its context ids and span names.
//!
//! Owns: the protobuf message `LabelsSnapshot`. Does not own: which sample has which context.

use std::ops::Range;

use hashbrown::HashMap;

use crate::pprof::{Error, Reader};

/// `LabelsSnapshot { map<int64, Context> contexts = 1; map<int64, string> strings = 2; }`, with
/// `Context { map<int64, int64> labels = 1; }`, whose keys and values are ids of strings.
#[derive(Default)]
pub(super) struct Labels<'a> {
    /// Range of `pairs` of each context.
    contexts: HashMap<u64, Range<usize>>,
    pairs: Vec<(u64, u64)>,
    strings: HashMap<u64, &'a [u8]>,
}

impl<'a> Labels<'a> {
    /// `None` if `bytes` are no such message. No bytes are an empty one.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut labels = Self::default();
        labels.message(bytes).ok()?;
        Some(labels)
    }

    fn message(&mut self, bytes: &'a [u8]) -> Result<(), Error> {
        let mut from = Reader::new(bytes);
        while !from.is_done() {
            match from.tag()? {
                0x0a => {
                    let first = self.pairs.len();
                    let context = self.context(from.message()?)?;
                    self.contexts.insert(context, first..self.pairs.len());
                }
                0x12 => {
                    let mut entry = from.message()?;
                    let (mut id, mut text) = (0, &b""[..]);
                    while !entry.is_done() {
                        match entry.tag()? {
                            0x08 => id = entry.varint()?,
                            0x12 => text = entry.message()?.rest(),
                            tag => entry.skip(tag, "string", 2)?,
                        }
                    }
                    self.strings.insert(id, text);
                }
                tag => from.skip(tag, "labels snapshot", 2)?,
            }
        }
        Ok(())
    }

    /// Appends the pairs of an entry of `contexts`; returns its key.
    fn context(&mut self, mut entry: Reader<'a>) -> Result<u64, Error> {
        let mut id = 0;
        while !entry.is_done() {
            match entry.tag()? {
                0x08 => id = entry.varint()?,
                0x12 => {
                    let mut context = entry.message()?;
                    while !context.is_done() {
                        match context.tag()? {
                            0x0a => {
                                let pair = pair(context.message()?)?;
                                self.pairs.push(pair);
                            }
                            tag => context.skip(tag, "context", 1)?,
                        }
                    }
                }
                tag => entry.skip(tag, "context entry", 2)?,
            }
        }
        Ok(id)
    }

    /// Ids of the key and of the value of each label of a context.
    pub(super) fn of(&self, context: u64) -> &[(u64, u64)] {
        self.contexts.get(&context).map_or(&[], |range| &self.pairs[range.clone()])
    }

    /// The string with this id; empty if it is missing.
    pub(super) fn string(&self, id: u64) -> &'a [u8] {
        self.strings.get(&id).copied().unwrap_or_default()
    }
}

fn pair(mut entry: Reader) -> Result<(u64, u64), Error> {
    let mut pair = (0, 0);
    while !entry.is_done() {
        match entry.tag()? {
            0x08 => pair.0 = entry.varint()?,
            0x10 => pair.1 = entry.varint()?,
            tag => entry.skip(tag, "label", 2)?,
        }
    }
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_refer_to_strings() {
        let message = b"\x0a\x0a\x08\x07\x12\x06\x0a\x04\x08\x01\x10\x02\x12\x07\x08\x01\x12\x03key\x12\x09\x08\x02\x12\x05value";
        let labels = Labels::read(message).unwrap();
        let [(key, value)] = labels.of(7) else { panic!("{:?}", labels.of(7)) };
        assert_eq!((labels.string(*key), labels.string(*value)), (&b"key"[..], &b"value"[..]));
        assert_eq!((labels.of(8), labels.string(3)), (&[][..], &b""[..]));
        assert!(Labels::read(b"").is_some_and(|labels| labels.of(0).is_empty()));
        assert!(Labels::read(b"nonsense \x07").is_none());
        assert!(Labels::read(&message[..5]).is_none());
    }
}
