//! Options of the store. Their doc comments are the reference of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `filesystem` (a local directory), `s3`, `gcs` or `azure`.
    pub backend: Backend,
    /// Put before every object key, so that one bucket can serve several clusters.
    pub prefix: String,
    /// A process with another name refuses to use the bucket: two clusters never mix by mistake.
    pub cluster_name: String,
    pub filesystem: FilesystemConfig,
    pub s3: S3Config,
    pub gcs: GcsConfig,
    pub azure: AzureConfig,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Filesystem,
    S3,
    Gcs,
    Azure,
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
    /// Id of the key that may read, write, list and delete in the bucket. Empty: the keys in `credentials_file`, or
    /// else those that AWS gives to the process: variables, web identity (IRSA), pod identity, task role, instance
    /// role.
    pub access_key_id: String,
    /// The secret of that key.
    pub secret_access_key: String,
    /// For temporary keys.
    pub session_token: String,
    /// A file in the format of `~/.aws/credentials`. It is read again every minute, so keys may be changed while
    /// the process runs.
    pub credentials_file: String,
    /// The section of that file.
    pub credentials_profile: String,
    /// Use the keys that AWS gives to the process even if one is configured.
    pub native_aws_auth_enabled: bool,
    /// Talk plain HTTP to an endpoint given without a scheme.
    pub insecure: bool,
    /// `https://endpoint/bucket` instead of `https://bucket.endpoint`; always so for a custom endpoint, unless
    /// `bucket_lookup_type` says otherwise.
    pub force_path_style: bool,
    /// `path-style`, `virtual-hosted-style`, or `auto`, which is the former for a custom endpoint.
    pub bucket_lookup_type: String,
    /// Sign the request but not the uploaded bytes. Saves hashing them; integrity is left to TLS.
    pub unsigned_payload: bool,
    pub sse: SseConfig,
    pub http: HttpConfig,
}

/// Encryption by the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SseConfig {
    /// `SSE-S3`, `SSE-KMS` or `SSE-C`; empty: as the bucket is configured.
    pub r#type: String,
    /// The key of `SSE-KMS`; empty: the one of the bucket, or of the account.
    pub kms_key_id: String,
    /// Use one data key for many objects: far fewer requests to KMS.
    pub kms_bucket_key: bool,
    /// Must be empty: the client in use cannot sign it. Known for compatibility with Pyroscope.
    pub kms_encryption_context: String,
    /// The key of `SSE-C`: 32 bytes in base64. Without it nothing in the bucket can be read again.
    pub customer_key: String,
}

/// How requests reach the store.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// A file with the certificates, in PEM, of authorities to trust beside those of the system.
    pub tls_ca_path: String,
    /// Accept any certificate. An attacker on the network path can read and change all data.
    pub insecure_skip_verify: bool,
    /// For example `http://proxy:3128`; empty: the proxy that HTTPS_PROXY and NO_PROXY name.
    pub proxy_url: String,
    /// Hosts, with commas between them, that are reached without `proxy_url`.
    pub proxy_excludes: String,
    /// Connections kept open for the next request.
    pub max_idle_connections_per_host: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct GcsConfig {
    /// The bucket; it must exist.
    pub bucket_name: String,
    /// The key of a service account, as JSON. Empty: the account that Google gives to the process: the file that
    /// GOOGLE_APPLICATION_CREDENTIALS names, workload identity, the account of the machine.
    pub service_account: String,
    /// An address other than Google's. Requests to one with `http://` carry no credentials: for emulators.
    pub endpoint: String,
    pub http: HttpConfig,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AzureConfig {
    /// The storage account.
    pub account_name: String,
    /// A key of that account. Empty: the credentials that Azure gives to the process: variables, workload identity,
    /// managed identity.
    pub account_key: String,
    /// The container; it must exist.
    pub container_name: String,
    /// The part of the address after the account's name.
    pub endpoint_suffix: String,
    /// The whole address of the account, instead of name and suffix: for emulators.
    pub endpoint: String,
    /// Client id of a user-assigned managed identity; empty: the identity of the machine.
    pub user_assigned_id: String,
    pub http: HttpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Filesystem,
            prefix: String::new(),
            cluster_name: "pyrograph".into(),
            filesystem: FilesystemConfig::default(),
            s3: S3Config::default(),
            gcs: GcsConfig::default(),
            azure: AzureConfig::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            tls_ca_path: String::new(),
            insecure_skip_verify: false,
            proxy_url: String::new(),
            proxy_excludes: String::new(),
            max_idle_connections_per_host: 100,
        }
    }
}

impl Default for AzureConfig {
    fn default() -> Self {
        Self {
            account_name: String::new(),
            account_key: String::new(),
            container_name: String::new(),
            endpoint_suffix: "blob.core.windows.net".into(),
            endpoint: String::new(),
            user_assigned_id: String::new(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for FilesystemConfig {
    fn default() -> Self {
        Self { dir: "./data".into() }
    }
}
