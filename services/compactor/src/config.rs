use serde::{Deserialize, Serialize};

/// How blocks are merged and dead objects deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
