//! Retention of single services.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Duration;

/// Maximum size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Retention of the services that a pattern matches.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceRetention {
    /// Regular expression that matches whole names of services.
    pub service: ServicePattern,
    /// Time after which profiles are deleted. 0 means never.
    pub period: Duration,
}

/// A regular expression that must match the whole name of a service.
#[derive(Clone, Debug)]
pub struct ServicePattern {
    text: String,
    compiled: Regex,
}

impl ServicePattern {
    /// # Errors
    /// Describes the fault of the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Compiled alone first: `a)|(b` is invalid, but would be valid within the group below.
        let build = |expression: &str| {
            let built = RegexBuilder::new(expression).size_limit(PATTERN_BYTES_MAX).build();
            built.map_err(|error| format!("pattern {text:?} of services cannot be used: {error}"))
        };
        build(text)?;
        Ok(Self { text: text.to_owned(), compiled: build(&format!("^(?s:{text})$"))? })
    }

    pub fn matches(&self, service: &str) -> bool {
        self.compiled.is_match(service)
    }
}

impl PartialEq for ServicePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for ServicePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ServicePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ServicePattern {
    fn schema_name() -> Cow<'static, str> {
        "ServicePattern".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}
