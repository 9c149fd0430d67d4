//! The stores of servers: a local directory, or a SeaweedFS started here.
//!
//! Owns: starting SeaweedFS, the flags that name a store, copying a directory into the bucket.
//! Does not own: the content of objects.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};

use crate::Error;
use crate::process::free_port;

const BUCKET: &str = "bench";
const KEY: &str = "pyrograph";
const SECRET: &str = "pyrograph-secret";
const WRITABLE_WITHIN: Duration = Duration::from_secs(60);

/// A measured kind of store.
#[derive(Clone, Copy)]
pub(crate) enum MeasuredStore<'a> {
    Directory(&'a Path),
    Seaweed(&'a Seaweed),
}

impl MeasuredStore<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory(_) => "directory",
            Self::Seaweed(_) => "SeaweedFS",
        }
    }

    /// The flags of a server whose objects are separate from those of other names.
    pub(crate) fn flags(self, name: &str) -> Vec<String> {
        match self {
            Self::Directory(scratch) => {
                vec![format!("-storage.filesystem.dir={}", scratch.join(name).display())]
            }
            Self::Seaweed(seaweed) => seaweed.flags(name),
        }
    }
}

/// A SeaweedFS with an empty bucket.
pub(crate) struct Seaweed {
    child: Child,
    s3_port: u16,
    bucket: Arc<dyn ObjectStore>,
}

impl Seaweed {
    /// Starts SeaweedFS on a directory in `scratch`, and waits until an object can be written.
    ///
    /// # Errors
    /// If it cannot be started, or takes no object in time.
    pub(crate) async fn start(weed: &Path, scratch: &Path, clock: &Clock) -> Result<Self, Error> {
        let directory = scratch.join("weed");
        std::fs::create_dir(&directory)?;
        let s3_port = low_port()?;
        let mut command = Command::new(weed);
        command.arg("mini").args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]);
        command.arg(format!("-dir={}", directory.display())).arg(format!("-bucket={BUCKET}"));
        command.arg(format!("-s3.port={s3_port}"));
        for other in ["filer", "master", "volume", "webdav", "admin"] {
            command.arg(format!("-{other}.port={}", low_port()?));
        }
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", weed.display()))?;
        let bucket = AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{s3_port}"))
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
            .build()?;
        let mut seaweed = Self { child, s3_port, bucket: Arc::new(bucket) };
        seaweed.writable(clock).await?;
        Ok(seaweed)
    }

    /// Waits until SeaweedFS takes an object: it answers 403 until its bucket exists.
    async fn writable(&mut self, clock: &Clock) -> Result<(), Error> {
        let started = clock.monotonic();
        loop {
            match self.bucket.put(&ObjectPath::from("writable"), "yes".into()).await {
                Ok(_) => return Ok(()),
                Err(error) if clock.monotonic() - started > WRITABLE_WITHIN => {
                    return Err(
                        format!("SeaweedFS took no object within {WRITABLE_WITHIN:?}: {error}").into()
                    );
                }
                Err(_) => clock.sleep(Duration::from_millis(200)).await,
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("SeaweedFS ended before it took an object: {status}").into());
            }
        }
    }

    fn flags(&self, prefix: &str) -> Vec<String> {
        vec![
            "-storage.backend=s3".into(),
            format!("-storage.prefix={prefix}"),
            format!("-storage.s3.endpoint=127.0.0.1:{}", self.s3_port),
            format!("-storage.s3.bucket-name={BUCKET}"),
            "-storage.s3.region=us-east-1".into(),
            format!("-storage.s3.access-key-id={KEY}"),
            format!("-storage.s3.secret-access-key={SECRET}"),
            "-storage.s3.insecure".into(),
            "-storage.s3.force-path-style".into(),
        ]
    }

    /// Puts the files below `directory` under `prefix`; returns their size in bytes.
    ///
    /// # Errors
    /// If a file cannot be read, or the bucket does not take it.
    pub(crate) async fn copy(&self, directory: &Path, prefix: &str) -> Result<u64, Error> {
        let mut bytes = 0;
        for file in files_below(directory)? {
            let content = std::fs::read(&file)?;
            bytes += content.len() as u64;
            let key = format!("{prefix}/{}", file.strip_prefix(directory)?.display());
            self.bucket.put(&ObjectPath::from(key), content.into()).await?;
        }
        Ok(bytes)
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        // Its data are not needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All files below `directory`, except those that begin with a dot, which are not objects.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut files, mut folders) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// SeaweedFS listens 10,000 above each of its ports as well.
fn low_port() -> Result<u16, Error> {
    loop {
        let port = free_port()?;
        if port < 55_000 {
            return Ok(port);
        }
    }
}
