use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::local::LocalDir;
use crate::{Backend, Config, Metrics, S3Config, Store, cluster};

/// A server that does not even accept a connection is given up quickly, because others may.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest silence within one response; the whole request has a deadline by its size (`store`).
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open storage")]
    Backend(#[from] object_store::Error),
    #[error("cannot ask storage which cluster it belongs to")]
    Ask(#[from] crate::Error),
    #[error("storage prefix {prefix:?} is not a path")]
    Prefix { prefix: String },
    #[error("storage.s3.bucket-name is empty")]
    NoBucket,
    #[error("cannot use directory {dir:?} (choose another with -storage.filesystem.dir)")]
    Directory {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "directory {dir:?} is in use by process {}: stop it, or choose another with -storage.filesystem.dir",
        pid.map_or("unknown".to_owned(), |pid| pid.to_string())
    )]
    Locked { dir: PathBuf, pid: Option<u32> },
    #[error(
        "{store} overwrites an object that it was asked to create only if absent (If-None-Match: *): \
         acknowledged profiles could be lost, so it cannot be used"
    )]
    Overwrites { store: String },
    #[error("object cluster cannot be read")]
    Cluster(#[source] serde_json::Error),
    #[error(
        "storage has layout version {found}, this version of pyrograph reads {}",
        cluster::LAYOUT_VERSION
    )]
    Layout { found: u32 },
    #[error("storage belongs to cluster {found:?}, this process is configured for {configured:?}")]
    Name { found: String, configured: String },
}

/// Opens the store that `config` names, checks that it can be used, and joins its cluster.
///
/// # Errors
/// Says what is wrong with the configuration, the directory or the bucket.
pub async fn open(config: &Config, clock: Clock, metrics: Metrics) -> Result<Store, OpenError> {
    let backend: Arc<dyn ObjectStore> = match config.backend {
        Backend::Filesystem => Arc::new(LocalDir::open(&config.filesystem.dir).await?),
        Backend::S3 => Arc::new(s3(&config.s3)?),
    };
    let prefix =
        Path::parse(&config.prefix).map_err(|_| OpenError::Prefix { prefix: config.prefix.clone() })?;
    let backend = match prefix.as_ref() {
        "" => backend,
        _ => Arc::new(PrefixStore::new(backend, prefix)),
    };
    let store = Store::new(backend, clock.clone(), metrics);
    let store = match config.backend {
        Backend::Filesystem => store.exclusive(),
        Backend::S3 => store,
    };
    let cluster = cluster::join(&store, &config.cluster_name, &clock).await?;
    tracing::info!(%store, cluster = cluster.name, id = cluster.id, "opened storage");
    Ok(store)
}

fn s3(config: &S3Config) -> Result<object_store::aws::AmazonS3, OpenError> {
    if config.bucket_name.is_empty() {
        return Err(OpenError::NoBucket);
    }
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(SILENCE_TIMEOUT)
        .with_pool_idle_timeout(POOL_IDLE_TIMEOUT);
    // No retries inside: a create that is sent twice collides with itself, and reads are repeated
    // by `Store`, where they are counted.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = if config.access_key_id.is_empty() {
        // Whatever AWS provides to the process: variables, web identity, instance metadata.
        AmazonS3Builder::from_env()
    } else {
        AmazonS3Builder::new()
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(&config.secret_access_key)
    };
    if !config.region.is_empty() {
        builder = builder.with_region(&config.region);
    }
    let custom = !config.endpoint.is_empty();
    if custom {
        let endpoint = endpoint_url(&config.endpoint, config.insecure);
        builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    }
    Ok(builder
        .with_bucket_name(&config.bucket_name)
        .with_virtual_hosted_style_request(!custom && !config.force_path_style)
        .with_client_options(client.with_allow_http(custom))
        .with_retry(retry)
        .build()?)
}

fn endpoint_url(endpoint: &str, insecure: bool) -> String {
    match (endpoint.contains("://"), insecure) {
        (true, _) => endpoint.to_owned(),
        (false, true) => format!("http://{endpoint}"),
        (false, false) => format!("https://{endpoint}"),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::FilesystemConfig;

    fn config(dir: &std::path::Path, cluster_name: &str, prefix: &str) -> Config {
        Config {
            filesystem: FilesystemConfig { dir: dir.to_str().expect("utf-8").to_owned() },
            cluster_name: cluster_name.to_owned(),
            prefix: prefix.to_owned(),
            ..Config::default()
        }
    }

    async fn try_open(config: &Config) -> Result<Store, OpenError> {
        open(config, Clock::system(), Metrics::default()).await
    }

    #[tokio::test]
    async fn a_directory_opens_again_under_the_same_name_only() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path().join("new/data");
        drop(try_open(&config(&dir, "one", "")).await.expect("founds the cluster"));
        drop(try_open(&config(&dir, "one", "")).await.expect("joins the cluster"));
        let refused = try_open(&config(&dir, "two", "")).await.err().expect("refused");
        assert!(matches!(refused, OpenError::Name { .. }), "{refused}");
        drop(try_open(&config(&dir, "two", "a/b")).await.expect("another prefix is another cluster"));
        assert!(dir.join("a/b/cluster").exists());
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let other = r#"{"id": "00", "name": "pyrograph", "layout_version": 2}"#;
        std::fs::write(temp.path().join("cluster"), other).expect("file");
        let refused = try_open(&config(temp.path(), "pyrograph", "")).await.err().expect("refused");
        assert!(matches!(refused, OpenError::Layout { found: 2 }), "{refused}");
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_refused() {
        let careless = Arc::new(crate::fault::Careless(InMemory::new()));
        let store = Store::new(careless, Clock::system(), Metrics::default());
        let refused = cluster::join(&store, "pyrograph", &Clock::system()).await.err();
        assert!(matches!(refused, Some(OpenError::Overwrites { .. })), "{refused:?}");
    }

    #[test]
    fn endpoints_get_a_scheme() {
        assert_eq!(endpoint_url("minio:9000", true), "http://minio:9000");
        assert_eq!(endpoint_url("minio:9000", false), "https://minio:9000");
        assert_eq!(endpoint_url("http://minio:9000", false), "http://minio:9000");
    }
}
