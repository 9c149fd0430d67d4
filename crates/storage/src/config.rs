use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where objects are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `filesystem` (a local directory) or `s3`.
    pub backend: Backend,
    /// Put before every object key, so that one bucket can serve several clusters.
    pub prefix: String,
    /// A process with another name refuses to use the bucket: two clusters never mix by mistake.
    pub cluster_name: String,
    pub filesystem: FilesystemConfig,
    pub s3: S3Config,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Filesystem,
    S3,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct FilesystemConfig {
    /// Created if it does not exist. One process at a time may use it.
    pub dir: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The bucket; it must exist.
    pub bucket_name: String,
    /// `host:port` or a URL; empty for AWS.
    pub endpoint: String,
    /// For example `eu-central-1`.
    pub region: String,
    /// Id of the key that may read, write, list and delete in the bucket.
    pub access_key_id: String,
    /// The secret of that key.
    pub secret_access_key: String,
    /// Talk plain HTTP to an endpoint given without a scheme.
    pub insecure: bool,
    /// `https://endpoint/bucket` instead of `https://bucket.endpoint`; always so for a custom endpoint.
    pub force_path_style: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Filesystem,
            prefix: String::new(),
            cluster_name: "pyrograph".into(),
            filesystem: FilesystemConfig::default(),
            s3: S3Config::default(),
        }
    }
}

impl Default for FilesystemConfig {
    fn default() -> Self {
        Self { dir: "./data".into() }
    }
}
