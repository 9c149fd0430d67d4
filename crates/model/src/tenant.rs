//! Tenant ids and their rules.

use std::fmt;
use std::sync::Arc;

/// The owner of data; from `X-Scope-OrgID` or the credential.
///
/// At most 150 bytes of `[A-Za-z0-9!_.*'()-]`, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    #[error("no org id")]
    Missing,
    #[error("tenant id {0:?} is too long: {len} bytes, limit is 150", len = .0.len())]
    TooLong(String),
    #[error("tenant id {0:?} is not allowed: it is a path")]
    Path(String),
    #[error("tenant id {id:?} contains unsupported character {character:?}")]
    Character { id: String, character: char },
}

impl TenantId {
    /// The tenant of all data while multitenancy is off.
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }

    /// Checks one id as a client sent it; anything after the first `:` is metadata and is dropped.
    ///
    /// # Errors
    /// The rule of the type that the id breaks.
    pub fn parse(text: &str) -> Result<Self, TenantError> {
        let id = text.split(':').next().unwrap_or_default();
        if id.is_empty() {
            return Err(TenantError::Missing);
        }
        if id.len() > 150 {
            return Err(TenantError::TooLong(id.to_owned()));
        }
        if id == "." || id == ".." {
            return Err(TenantError::Path(id.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        match id.chars().find(|c| !allowed(*c)) {
            Some(character) => Err(TenantError::Character { id: id.to_owned(), character }),
            None => Ok(Self(Arc::from(id))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_after_a_colon_is_dropped() {
        assert_eq!(TenantId::parse("team-a:x=y").map(|t| t.to_string()), Ok("team-a".into()));
    }

    #[test]
    fn paths_and_slashes_are_refused() {
        assert!(TenantId::parse("..").is_err());
        assert!(TenantId::parse("a/b").is_err());
        assert!(TenantId::parse(&"x".repeat(151)).is_err());
        assert_eq!(TenantId::parse(""), Err(TenantError::Missing));
    }
}
