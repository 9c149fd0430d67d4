//! An [`Error`] as a gRPC status, and back.

use std::time::Duration;
use std::{fmt, io};

use prost::Message;
use tonic::{Code, Status, TimeoutExpired};
use wire::pyrograph::rpc::v1 as proto;
use wire::pyrograph::rpc::v1::error::Kind;

use super::Unreadable;
use crate::{Error, ErrorKind};

/// Maximum size of an error's text, and of the texts of all its causes together. A status travels in headers,
/// and peers accept 16 KiB of headers.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Maximum size of the plain text beside the encoded error; it is for people who inspect the traffic.
const PLAIN_TEXT_BYTES_MAX: usize = 512;

pub(super) fn status_of(error: &Error) -> Status {
    let kind = match error.kind {
        ErrorKind::InvalidArgument => Kind::InvalidArgument,
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Exhausted { .. } => Kind::Exhausted,
        ErrorKind::TooLarge => Kind::TooLarge,
        ErrorKind::Unavailable => Kind::Unavailable,
        ErrorKind::DeadlineExceeded => Kind::DeadlineExceeded,
        ErrorKind::Corrupt => Kind::Corrupt,
        ErrorKind::Internal => Kind::Internal,
    };
    let retry_after = match error.kind {
        ErrorKind::Exhausted { retry_after } => retry_after,
        _ => Duration::ZERO,
    };
    let mut left = TEXT_BYTES_MAX;
    let mut causes = Vec::new();
    let mut next = error.source.as_deref().map(|source| source as &dyn std::error::Error);
    while let Some(cause) = next.filter(|_| left > 0) {
        let text = cause.to_string();
        let text = shortened(&text, left);
        left -= text.len().max(1);
        causes.push(text.to_owned());
        next = cause.source();
    }
    let details = proto::Error {
        kind: kind.into(),
        message: shortened(&error.message, TEXT_BYTES_MAX).to_owned(),
        retry_after_nanos: u64::try_from(retry_after.as_nanos()).unwrap_or(u64::MAX),
        causes,
    };
    let plain = shortened(&error.message, PLAIN_TEXT_BYTES_MAX);
    Status::with_details(error.kind.code(), plain, details.encode_to_vec().into())
}

/// The error of a call to `peer` that ended with `status`.
pub(super) fn error_of(status: &Status, peer: &str) -> Error {
    let details = proto::Error::decode(status.details()).ok().filter(|_| !status.details().is_empty());
    if let Some(details) = details
        && let Some(kind) = kind_of(&details)
    {
        let cause =
            details.causes.into_iter().rfold(None, |source, text| Some(Box::new(Cause { text, source })));
        return Error { kind, message: details.message, source: cause.map(|cause| cause as _) };
    }
    let kind = match status.code() {
        Code::Cancelled if status.message() == TimeoutExpired(()).to_string() => ErrorKind::DeadlineExceeded,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        // The message is too large or not one of ours; a retry would fail the same way.
        Code::OutOfRange | Code::InvalidArgument => ErrorKind::InvalidArgument,
        // The peer runs another version.
        Code::Unimplemented => ErrorKind::Internal,
        // No connection, or it broke: failures of the role itself carry details.
        _ => ErrorKind::Unavailable,
    };
    let text = format!("{peer}: {}", described(status));
    match is_refused(status) {
        true => Error::with_source(kind, text, io::Error::from(io::ErrorKind::ConnectionRefused)),
        false => Error::new(kind, text),
    }
}

fn is_refused(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    let mut io = causes.filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// The error for a request that the server cannot read.
pub(super) fn unreadable_request(error: &Unreadable) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("request cannot be read: {error}"))
}

/// The error for an answer that the client cannot read.
pub(super) fn unreadable_answer(error: Unreadable, peer: &str) -> Error {
    match error {
        Unreadable::TooLarge(error) => {
            Error::with_source(ErrorKind::InvalidArgument, error.to_string(), error)
        }
        error => Error::new(ErrorKind::Internal, format!("{peer}: answer cannot be read: {error}")),
    }
}

/// The text of a status with its causes, which is where the transport reports the reason.
fn described(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    model::append_causes(&mut text, status);
    text
}

fn kind_of(details: &proto::Error) -> Option<ErrorKind> {
    match details.kind() {
        Kind::Unspecified => None,
        Kind::InvalidArgument => Some(ErrorKind::InvalidArgument),
        Kind::NotFound => Some(ErrorKind::NotFound),
        Kind::Exhausted => {
            Some(ErrorKind::Exhausted { retry_after: Duration::from_nanos(details.retry_after_nanos) })
        }
        Kind::TooLarge => Some(ErrorKind::TooLarge),
        Kind::Unavailable => Some(ErrorKind::Unavailable),
        Kind::DeadlineExceeded => Some(ErrorKind::DeadlineExceeded),
        Kind::Corrupt => Some(ErrorKind::Corrupt),
        Kind::Internal => Some(ErrorKind::Internal),
    }
}

fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A cause of an error in another process.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
