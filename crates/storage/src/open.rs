//! Opening the configured store: client, cluster, check.
//!
//! Owns: the order of these steps, [`OpenError`] with its advice. Does not own: the steps (`backend`, `cluster`,
//! `check`).

use std::path::PathBuf;
use std::sync::Arc;

use clock::Clock;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use tracing::warn;

use crate::{Backend, Config, Key, Metrics, Store, backend, check, cluster};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open storage: {reason}")]
    Backend { reason: String },
    #[error("cannot use storage")]
    Ask(#[from] crate::Error),
    #[error("storage.prefix {prefix:?} is not a path")]
    Prefix { prefix: String },
    #[error("{option} is empty: name it with -{option}")]
    Empty { option: &'static str },
    #[error("{option} cannot be {value:?}")]
    Option { option: &'static str, value: String },
    #[error(
        "storage.s3.sse.kms-encryption-context cannot be used: the client in use does not sign it, and S3 would \
         refuse every request; leave it empty"
    )]
    Context,
    #[error("cannot use the certificates in {path:?} (storage.s3.http.tls-ca-path)")]
    Authorities {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("this pyrograph was built without {backend}: build it with --features {backend}")]
    NotBuilt { backend: &'static str },
    #[error("cannot use directory {dir:?} (choose another with -storage.filesystem.dir)")]
    Directory {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "cannot use directory {dir:?}: the content of {path:?} cannot be read or removed; give it to the user that runs \
         pyrograph, or choose another with -storage.filesystem.dir"
    )]
    Walk {
        dir: PathBuf,
        path: PathBuf,
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
         acknowledged profiles could be lost, so it cannot be used; use a version or product that keeps the condition"
    )]
    Overwrites { store: String },
    #[error(
        "{store} {symptom}: acknowledged profiles could be lost, so it cannot be used; use a store whose reads and \
         listings see every write that ended before"
    )]
    Inconsistent { store: String, symptom: &'static str },
    #[error(
        "object cluster of {store} cannot be read: it was not written by pyrograph; use another storage.prefix"
    )]
    Cluster {
        store: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(
        "{store} has layout version {found}, this version of pyrograph reads {}: {}",
        cluster::LAYOUT_VERSION,
        if *found > cluster::LAYOUT_VERSION { "start a newer pyrograph" } else { "start the version that wrote it" }
    )]
    Layout { store: String, found: u32 },
    #[error(
        "{store} belongs to cluster {found:?} (since it was founded), this process is configured for {configured:?}: \
         two clusters on one prefix would lose data; correct -storage.cluster-name, or choose another -storage.prefix"
    )]
    Name { store: String, found: String, configured: String },
}

impl From<object_store::Error> for OpenError {
    /// Keeps the text of the whole chain without the secrets of configured URLs, which the chain quotes.
    fn from(error: object_store::Error) -> Self {
        Self::Backend { reason: crate::hide_url_secrets(&model::with_causes(&error)) }
    }
}

/// Opens the configured store, joins its cluster, and checks that the store can be used.
///
/// # Errors
/// The configuration, the directory or the bucket cannot be used; the text has the remedy.
pub async fn open(config: &Config, clock: Clock, metrics: Metrics) -> Result<Store, OpenError> {
    let prefix =
        Path::parse(&config.prefix).map_err(|_| OpenError::Prefix { prefix: config.prefix.clone() })?;
    let client = backend::open(config, prefix.as_ref(), &clock, &metrics).await?;
    let objects = match prefix.as_ref() {
        "" => client.objects,
        _ => Arc::new(PrefixStore::new(client.objects, prefix.clone())),
    };
    let mut store = Store::new(objects, clock.clone(), metrics).with_place(&client.place);
    if config.backend == Backend::Azure {
        store.give_up_suffix_ranges(&"Azure has no ranges that count from the end");
    }
    if let Some(directory) = &client.directory {
        store = store.exclusive().with_directory(directory.clone());
    }
    let cluster = cluster::join(&store, &config.cluster_name, &clock).await?;
    match check::check(&store, &clock).await {
        Err(OpenError::Ask(error)) if error.is_full() => {
            warn!(%error, "starts without checking the store: pushes are refused until there is space");
        }
        checked => checked?,
    }
    if let Some(directory) = &client.directory {
        directory.add_witness(&prefix.join(Key::cluster().as_str())).await?;
    }
    tracing::info!(%store, cluster = cluster.name, id = cluster.id, "opened storage");
    Ok(store.with_cluster(cluster))
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
        let first = try_open(&config(&dir, "one", "")).await.expect("founds the cluster");
        let id = first.cluster_id().map(str::to_owned);
        assert!(id.is_some());
        drop(first);
        let second = try_open(&config(&dir, "one", "")).await.expect("joins the cluster");
        assert_eq!(second.cluster_id().map(str::to_owned), id);
        drop(second);
        let refused = try_open(&config(&dir, "two", "")).await.err().expect("refused");
        assert!(matches!(refused, OpenError::Name { .. }), "{refused}");
        drop(try_open(&config(&dir, "two", "a/b")).await.expect("another prefix is another cluster"));
        assert!(dir.join("a/b/cluster").exists());
    }

    #[tokio::test]
    async fn a_start_leaves_only_the_cluster_object() {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = try_open(&config(temp.path(), "one", "")).await.expect("opens");
        let listed = store.list("").await.expect("list");
        assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["cluster"]);
    }

    #[tokio::test]
    async fn a_newer_layout_is_refused() {
        let temp = tempfile::tempdir().expect("temp dir");
        let other = r#"{"id": "00", "name": "pyrograph", "layout_version": 3, "more": true}"#;
        std::fs::write(temp.path().join("cluster"), other).expect("file");
        let refused = try_open(&config(temp.path(), "pyrograph", "")).await.err().expect("refused");
        assert!(matches!(refused, OpenError::Layout { found: 3, .. }), "{refused}");
        assert!(refused.to_string().contains("start a newer pyrograph"), "{refused}");
    }

    #[tokio::test]
    async fn objects_of_another_cluster_are_not_listed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let store = try_open(&config(temp.path(), "one", "")).await.expect("opens");
        let tag = store.id_tag().expect("is tagged");
        let job = |id| Key::publish(0, model::JobId(id));
        let (own, other) = (job(store.new_id(&Clock::system())), job(crate::IdTag(!tag.0).mark(7)));
        let other_slot = Key::log_slot(model::WriterId(crate::IdTag(!tag.0).mark(7)), 0);
        for key in [&own, &other, &other_slot] {
            store.settle_create(key, "bytes".into()).await.expect("puts");
        }
        let listed = store.list("").await.expect("lists").into_iter().map(|object| object.key);
        assert_eq!(listed.collect::<Vec<_>>(), [Key::cluster(), own.clone()]);
        assert_eq!(store.list_folders("log").await.expect("lists"), []);
        assert_eq!(store.get(&other).await.expect("is there"), "bytes");

        // A copy without the object `cluster`: the cluster of these ids is not known any more.
        drop(store);
        std::fs::remove_file(temp.path().join("cluster")).expect("removes");
        let store = try_open(&config(temp.path(), "one", "")).await.expect("opens");
        assert_eq!((store.id_tag(), store.list("publish").await.expect("lists").len()), (None, 2));
    }

    #[tokio::test]
    async fn a_store_that_overwrites_is_refused() {
        let careless = Arc::new(crate::fault::Careless(InMemory::new()));
        let store = Store::new(careless, Clock::system(), Metrics::default());
        let refused = cluster::join(&store, "pyrograph", &Clock::system()).await.err();
        assert!(matches!(refused, Some(OpenError::Overwrites { .. })), "{refused:?}");
        let refused = check::check(&store, &Clock::system()).await.err();
        assert!(matches!(refused, Some(OpenError::Overwrites { .. })), "{refused:?}");
    }
}
