//! Envelopes of gRPC messages, and bodies of few frames.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

/// Size of the header of an envelope: a flag, and the length of the message in big endian.
pub(crate) const HEADER_BYTES: usize = 5;

/// Flag of a compressed message.
pub(crate) const COMPRESSED: u8 = 1;

/// Flag of the trailers in the body of gRPC-web.
pub(crate) const TRAILERS: u8 = 0x80;

pub(crate) fn header(flag: u8, message_bytes: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = (message_bytes as u32).to_be_bytes();
    [flag, a, b, c, d]
}

/// Puts a message into an envelope.
pub(crate) fn seal(flag: u8, message: &[u8]) -> Bytes {
    let mut sealed = Vec::with_capacity(HEADER_BYTES + message.len());
    sealed.put_slice(&header(flag, message.len()));
    sealed.put_slice(message);
    sealed.into()
}

/// Flag and message of the first envelope, and the bytes after it. `None` if it is cut off.
pub(crate) fn open(mut bytes: Bytes) -> Option<(u8, Bytes, Bytes)> {
    let flag = bytes.try_get_u8().ok()?;
    let length = bytes.try_get_u32().ok()? as usize;
    if bytes.len() < length {
        return None;
    }
    let message = bytes.split_to(length);
    Some((flag, message, bytes))
}

/// A body of frames that are in memory already.
pub(crate) struct Frames(VecDeque<Frame<Bytes>>);

impl Frames {
    /// An uncompressed message in an envelope. The message is not copied.
    pub(crate) fn message(message: Bytes) -> Self {
        let header = Bytes::copy_from_slice(&header(0, message.len()));
        Self::data([header, message])
    }

    pub(crate) fn data<const N: usize>(chunks: [Bytes; N]) -> Self {
        Self(chunks.into_iter().filter(|chunk| !chunk.is_empty()).map(Frame::data).collect())
    }

    pub(crate) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.0.push_back(Frame::trailers(trailers));
        self
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let sizes = self.0.iter().filter_map(|frame| frame.data_ref()).map(|data| data.len());
        let bytes = sizes.sum::<usize>() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(bytes);
        // In HTTP/1.1 only a chunked body, of unknown length, can have trailers.
        if !self.0.iter().any(Frame::is_trailers) {
            hint.set_upper(bytes);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_envelope_opens() {
        let two = [seal(1, b"abc"), seal(0, b"")].concat();
        let (flag, message, rest) = open(two.into()).unwrap();
        assert_eq!((flag, &message[..], rest.len()), (1, &b"abc"[..], HEADER_BYTES));
    }

    #[test]
    fn a_cut_envelope_does_not_open() {
        let sealed = seal(0, b"abc");
        for end in 0..sealed.len() {
            assert!(open(sealed.slice(..end)).is_none());
        }
    }
}
