//! Access keys from a file in the format of `~/.aws/credentials`.
//!
//! Owns: reading the file again while the process runs. Does not own: the permissions of a key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clock::Clock;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error, Result};
use parking_lot::Mutex;

/// Keys changed in the file are in use after this long at the latest.
const READ_EVERY: Duration = Duration::from_secs(60);
const FILE_BYTES_MAX: u64 = 1 << 20;

pub(crate) struct CredentialsFile {
    path: PathBuf,
    profile: String,
    clock: Clock,
    /// The keys of the last read, and its time by the monotonic clock.
    last: Mutex<Option<(Arc<AwsCredential>, Duration)>>,
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {path:?} (storage.s3.credentials-file): {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("file {path:?} holds {bytes} bytes, limit is {FILE_BYTES_MAX}")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("section [{profile}] of {path:?} has no {key}")]
    Missing { path: PathBuf, profile: String, key: &'static str },
}

impl CredentialsFile {
    pub(crate) fn new(path: &str, profile: &str, clock: Clock) -> Self {
        let profile = if profile.is_empty() { "default" } else { profile };
        Self { path: path.into(), profile: profile.to_owned(), clock, last: Mutex::default() }
    }

    async fn read(&self) -> Result<AwsCredential, FileError> {
        let unreadable = |cause| FileError::Read { path: self.path.clone(), cause };
        let bytes = tokio::fs::metadata(&self.path).await.map_err(unreadable)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(FileError::TooLarge { path: self.path.clone(), bytes });
        }
        let text = tokio::fs::read_to_string(&self.path).await.map_err(unreadable)?;
        parse(&text, &self.profile).map_err(|key| FileError::Missing {
            path: self.path.clone(),
            profile: self.profile.clone(),
            key,
        })
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let now = self.clock.monotonic();
        let last = self.last.lock().clone();
        if let Some((credential, read)) = &last
            && now.saturating_sub(*read) < READ_EVERY
        {
            return Ok(credential.clone());
        }
        let credential = match (self.read().await, last) {
            (Ok(credential), _) => Arc::new(credential),
            // The file may be half-written at this moment.
            (Err(error), Some((credential, _))) => {
                tracing::warn!(%error, "credentials file cannot be read, keeping the keys that it had");
                credential
            }
            (Err(error), None) => {
                return Err(Error::Unauthenticated {
                    path: self.path.display().to_string(),
                    source: Box::new(error),
                });
            }
        };
        *self.last.lock() = Some((credential.clone(), now));
        Ok(credential)
    }
}

impl std::fmt::Debug for CredentialsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CredentialsFile({:?})", self.path)
    }
}

/// The keys of section `profile`.
///
/// # Errors
/// The name of the key that is missing.
fn parse(text: &str, profile: &str) -> Result<AwsCredential, &'static str> {
    let mut is_in_section = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_in_section = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_in_section) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Ok(AwsCredential {
        key_id: id.ok_or("aws_access_key_id")?,
        secret_key: secret.ok_or("aws_secret_access_key")?,
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key = B\n\n\
                        [other]\naws_access_key_id=C\naws_secret_access_key=D\naws_session_token=E\n[half]\naws_access_key_id=F\n";

    #[test]
    fn keys_are_read_from_the_named_section() {
        let check = |profile, id: &str, secret: &str, token: Option<&str>| {
            let read = parse(FILE, profile).expect("keys");
            assert_eq!(
                (read.key_id.as_str(), read.secret_key.as_str(), read.token.as_deref()),
                (id, secret, token)
            );
        };
        check("default", "A", "B", None);
        check("other", "C", "D", Some("E"));
        assert_eq!(parse(FILE, "half").err(), Some("aws_secret_access_key"));
        assert_eq!(parse(FILE, "none").err(), Some("aws_access_key_id"));
    }

    #[tokio::test]
    async fn keys_stay_in_use_after_their_file_is_removed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let path = temp.path().join("credentials");
        std::fs::write(&path, FILE).expect("file");
        let file = CredentialsFile::new(path.to_str().expect("utf-8"), "", Clock::system());
        assert_eq!(file.get_credential().await.expect("keys").key_id, "A");
        std::fs::remove_file(&path).expect("removed");
        let aged = file.last.lock().take().map(|(keys, _)| (keys, Duration::ZERO));
        *file.last.lock() = aged;
        assert_eq!(file.get_credential().await.expect("keys").key_id, "A");
        let missing = CredentialsFile::new(path.to_str().expect("utf-8"), "", Clock::system());
        let text = missing.get_credential().await.expect_err("no file").to_string();
        assert!(text.contains("storage.s3.credentials-file"), "{text}");
    }
}
