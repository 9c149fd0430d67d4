//! Causes of failed requests, with texts that an operator can act on.
//!
//! Owns: telling causes apart, the advice. Does not own: retries (`store::retry`).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use object_store::client::{HttpError, HttpErrorKind};

use crate::hide_url_secrets;
use crate::metrics::Operation;
use crate::presence::DirectoryGone;
use crate::remote::{NoResponse, Refusal};

/// A refused signature means a wrong clock, not a wrong key, if the clocks are further apart than this.
const SKEW_SUSPECTED: i64 = 300_000;

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A fault of the store or of the network; the next request may succeed.
    Fault(String),
    /// No server answers at that address.
    Unreachable {
        host: String,
        reason: String,
    },
    /// The store asks for fewer requests.
    Throttled {
        retry_after: Option<Duration>,
        reason: String,
    },
    NoBucket {
        reason: String,
    },
    /// The bucket is elsewhere, or the endpoint speaks another protocol.
    Misdirected {
        reason: String,
    },
    /// The store does not know the credentials, or there are none.
    Credentials {
        reason: String,
    },
    /// The credentials are valid but lack a permission.
    Denied {
        needs: &'static str,
        reason: String,
    },
    /// Signatures carry the time, and this machine's clock is too far from the store's.
    Skewed {
        ahead_millis: Option<i64>,
    },
    Full {
        reason: String,
    },
    /// A local directory whose files belong to another user, or which is mounted read-only.
    NotAllowed {
        /// `read`, `write`, …
        action: &'static str,
        reason: String,
    },
    /// The local directory was removed, replaced or unmounted since the start.
    Gone {
        reason: String,
    },
    /// The store refuses a range because it begins or ends beyond the object.
    OutOfRange {
        reason: String,
    },
    /// The store does not support the request.
    Unsupported {
        reason: String,
    },
}

impl Problem {
    pub(crate) fn of(operation: Operation, error: &object_store::Error) -> Self {
        use object_store::Error;
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        let mut kind = None;
        while let Some(error) = cause {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                return Self::of_refusal(operation, refusal);
            }
            if let Some(silence) = error.downcast_ref::<NoResponse>() {
                return Self::of_silence(silence, kind);
            }
            if let Some(http) = error.downcast_ref::<HttpError>() {
                kind = kind.or(Some(http.kind()));
            }
            if let Some(gone) = error.downcast_ref::<DirectoryGone>() {
                return Self::Gone { reason: gone.to_string() };
            }
            let io = error.downcast_ref::<io::Error>();
            if let Some(problem) = io.and_then(|error| Self::of_io(operation, error)) {
                return problem;
            }
            cause = error.source();
        }
        match error {
            Error::PermissionDenied { .. } => {
                Self::Denied { needs: needs(operation), reason: root_text(error) }
            }
            Error::Unauthenticated { .. } => Self::Credentials { reason: root_text(error) },
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                Self::Unsupported { reason: hide_url_secrets(&error.to_string()) }
            }
            _ => Self::Fault(root_text(error)),
        }
    }

    fn of_refusal(operation: Operation, refusal: &Refusal) -> Self {
        let reason = hide_url_secrets(&refusal.to_string());
        let is_far = refusal.ahead_millis.is_some_and(|ahead| ahead.abs() > SKEW_SUSPECTED);
        match (refusal.status, refusal.code.as_str()) {
            (_, "RequestTimeTooSkewed") => Self::Skewed { ahead_millis: refusal.ahead_millis },
            (400 | 401 | 403, _) if is_far => Self::Skewed { ahead_millis: refusal.ahead_millis },
            (_, "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName") => Self::NoBucket { reason },
            (429 | 503, _) | (_, "SlowDown") => Self::Throttled { retry_after: refusal.retry_after, reason },
            (_, code) if UNKNOWN_CREDENTIALS.contains(&code) => Self::Credentials { reason },
            (401, _) => Self::Credentials { reason },
            (400 | 403, _) if issues_credentials(&refusal.host) => Self::Credentials { reason },
            (403, _) => Self::Denied { needs: needs(operation), reason },
            (501, _) | (405, _) => Self::Unsupported { reason },
            (416, _) => Self::OutOfRange { reason },
            (300..400, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                Self::Misdirected { reason }
            }
            _ => Self::Fault(reason),
        }
    }

    fn of_silence(silence: &NoResponse, kind: Option<HttpErrorKind>) -> Self {
        let reason = root_text(silence);
        if issues_credentials(&silence.host) {
            return Self::Credentials { reason: format!("{silence}, which issues them: {reason}") };
        }
        match kind {
            Some(HttpErrorKind::Connect) => Self::Unreachable { host: silence.host.clone(), reason },
            _ => Self::Fault(format!("{silence}: {reason}")),
        }
    }

    fn of_io(operation: Operation, error: &io::Error) -> Option<Self> {
        let reason = error.to_string();
        let action = match operation {
            Operation::create => "write",
            Operation::get | Operation::range => "read",
            Operation::list => "list",
            Operation::delete => "delete",
        };
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full { reason }),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Some(Self::NotAllowed { action, reason })
            }
            _ => None,
        }
    }

    /// Whether the same request may succeed if it is sent again soon.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Fault(_) | Self::Unreachable { .. } | Self::Throttled { .. })
    }
}

const UNKNOWN_CREDENTIALS: &[&str] = &[
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    // versitygw, with 404.
    "XAdminUserNotFound",
    "InvalidToken",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidIdentityToken",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];

/// Whether `host` serves credentials rather than objects.
fn issues_credentials(host: &str) -> bool {
    let prefixes = ["169.254.", "[fd00:ec2:", "sts.", "metadata.", "login.", "oauth2."];
    prefixes.iter().any(|prefix| host.starts_with(prefix))
}

/// The permission that `operation` needs, as advice.
fn needs(operation: Operation) -> &'static str {
    match operation {
        Operation::create => "create objects (S3: s3:PutObject; with SSE-KMS also kms:GenerateDataKey)",
        Operation::get | Operation::range => {
            "read objects and list the bucket (S3: s3:GetObject, s3:ListBucket; with SSE-KMS also kms:Decrypt)"
        }
        Operation::list => "list the bucket (S3: s3:ListBucket)",
        Operation::delete => "delete objects (S3: s3:DeleteObject)",
    }
}

/// The text of the deepest cause.
fn root_text(error: &(dyn StdError + 'static)) -> String {
    hide_url_secrets(&root(error).to_string())
}

fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(reason) => f.write_str(reason),
            Self::Unreachable { host, reason } => {
                write!(f, "cannot connect to {host}: {reason}; check the endpoint, DNS and the network")?;
                if reason.contains("certificate") {
                    f.write_str(
                        " (-storage.s3.http.tls-ca-path names the authority of a private certificate)",
                    )?;
                }
                Ok(())
            }
            Self::Throttled { reason, .. } => write!(f, "{reason}; the store asks for fewer requests"),
            Self::NoBucket { reason } => {
                write!(f, "the bucket does not exist: {reason}; create it or correct its name and region")
            }
            Self::Misdirected { reason } => {
                write!(f, "the bucket is not at this endpoint: {reason}; correct region or endpoint")
            }
            Self::Credentials { reason } => {
                write!(f, "the store does not accept the credentials: {reason}; check the keys or the role")
            }
            Self::Denied { needs, reason } => {
                write!(f, "not permitted: {reason}; allow these credentials to {needs}")
            }
            Self::Skewed { ahead_millis: Some(ahead) } => {
                let (by, way) = (Duration::from_secs(ahead.unsigned_abs() / 1_000), behind_or_ahead(*ahead));
                write!(f, "the clock of this machine is {by:?} {way} the store's; set it, best by NTP")
            }
            Self::Skewed { ahead_millis: None } => {
                f.write_str("the clock of this machine is too far from the store's; set it, best by NTP")
            }
            Self::Full { reason } => {
                write!(f, "no space left: {reason}; free some, or shorten the retention")
            }
            Self::NotAllowed { action, reason } => {
                write!(
                    f,
                    "cannot {action}: {reason}; check the owner of the directory and its content, and how it is \
                     mounted"
                )
            }
            Self::Gone { reason } => write!(f, "{reason}; put it back, or restart"),
            Self::OutOfRange { reason } => write!(f, "the store refuses a range beyond the object: {reason}"),
            Self::Unsupported { reason } => write!(f, "the store cannot do that: {reason}"),
        }
    }
}

fn behind_or_ahead(ahead_millis: i64) -> &'static str {
    if ahead_millis < 0 { "behind" } else { "ahead of" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, ahead_millis: Option<i64>) -> object_store::Error {
        let refusal = Refusal {
            host: "s3.example".into(),
            status,
            code: code.into(),
            message: "because".into(),
            retry_after: Some(Duration::from_secs(2)),
            ahead_millis,
        };
        let source = HttpError::new(HttpErrorKind::Request, refusal);
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    #[test]
    fn each_refusal_has_its_own_text() {
        let check = |status, code: &str, ahead_millis, expected: &str| {
            let problem = Problem::of(Operation::delete, &refusal(status, code, ahead_millis));
            let text = problem.to_string();
            assert!(text.contains(expected), "{status} {code}: {text}");
        };
        check(
            404,
            "NoSuchBucket",
            None,
            "the bucket does not exist: s3.example answered 404 NoSuchBucket: because",
        );
        check(403, "InvalidAccessKeyId", Some(1_000), "does not accept the credentials");
        check(403, "SignatureDoesNotMatch", Some(-3_600_000), "the clock of this machine is 3600s behind");
        check(403, "RequestTimeTooSkewed", None, "is too far from the store's");
        check(403, "RequestTimeTooSkewed", Some(3_600_000), "is 3600s ahead of the store's; set it");
        check(
            403,
            "AccessDenied",
            Some(0),
            "allow these credentials to delete objects (S3: s3:DeleteObject)",
        );
        check(301, "PermanentRedirect", None, "correct region or endpoint");
        check(404, "XAdminUserNotFound", None, "does not accept the credentials");
        check(404, "NoSuchThing", None, "s3.example answered 404 NoSuchThing: because");
        check(416, "InvalidRange", None, "refuses a range beyond the object");
        check(503, "SlowDown", None, "asks for fewer requests");
        check(500, "InternalError", None, "s3.example answered 500 InternalError: because");
    }

    #[test]
    fn only_passing_problems_are_retried() {
        let check = |status, code: &str, expected: bool| {
            let problem = Problem::of(Operation::get, &refusal(status, code, None));
            assert_eq!(problem.may_pass(), expected, "{status} {code}");
        };
        check(500, "InternalError", true);
        check(503, "SlowDown", true);
        check(429, "", true);
        check(403, "AccessDenied", false);
        check(404, "NoSuchBucket", false);
        check(404, "XAdminUserNotFound", false);
        check(416, "InvalidRange", false);
    }

    #[test]
    fn a_full_disk_and_a_read_only_one_have_different_texts() {
        let check = |operation, kind: io::ErrorKind, expected: &str| {
            let source = Box::new(io::Error::from(kind));
            let error = object_store::Error::Generic { store: "directory", source };
            let text = Problem::of(operation, &error).to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(Operation::create, io::ErrorKind::StorageFull, "no space left");
        check(Operation::create, io::ErrorKind::ReadOnlyFilesystem, "cannot write");
        check(Operation::create, io::ErrorKind::PermissionDenied, "check the owner");
        check(Operation::get, io::ErrorKind::PermissionDenied, "cannot read");
        check(Operation::list, io::ErrorKind::PermissionDenied, "cannot list");
        check(Operation::delete, io::ErrorKind::PermissionDenied, "cannot delete");
    }
}
