//! A directory of this machine as an object store that survives a power cut.
//!
//! Owns: the lock on the directory, what a start cleans up, which folders are known to be on disk.
//! Does not own: writing one file (`object_store` stages it as `…#N`, syncs it, links it, syncs the folder).
//!
//! `object_store` leaves open: two creates that race for a new folder, of which one returns before
//! the other has synced the folder's own entry; and "already exists", which may report a link that
//! another call made and has not synced yet.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clock::Pool;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::OpenError;

/// Holds the pid of the process that uses the directory, and the lock itself.
const LOCK_FILE: &str = ".lock";
/// Blocking calls that this wrapper adds, at once.
const THREADS: usize = 4;

#[derive(Clone)]
pub(crate) struct LocalDir(Arc<Inner>);

struct Inner {
    files: LocalFileSystem,
    root: PathBuf,
    pool: Pool,
    /// Folders whose entries, up to the root, are on disk.
    durable: Mutex<HashSet<PathBuf>>,
    /// Held for reading while something is created, for writing while empty folders are removed.
    folders: tokio::sync::RwLock<()>,
    /// The lock lasts as long as the file is open.
    _lock: File,
}

impl LocalDir {
    /// Creates the directory if there is none, locks it and removes what a crash left behind.
    pub(crate) async fn open(dir: &str) -> std::result::Result<Self, OpenError> {
        let pool = Pool::new(THREADS);
        let owned = PathBuf::from(dir);
        let (root, lock) = pool.run(move || lock_and_recover(&owned)).await?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self(Arc::new(Inner {
            files,
            durable: Mutex::new(HashSet::from([root.clone()])),
            root,
            pool,
            folders: tokio::sync::RwLock::default(),
            _lock: lock,
        })))
    }

    /// Makes the folder of `file`, and syncs every entry on the way to it, once.
    async fn folder_of(&self, file: &FilePath) -> Result<PathBuf> {
        let folder = file.parent().unwrap_or(&self.0.root).to_owned();
        if self.0.durable.lock().contains(&folder) {
            return Ok(folder);
        }
        let (root, wanted) = (self.0.root.clone(), folder.clone());
        self.0.pool.run(move || make_folder(&root, &wanted)).await.map_err(generic)?;
        self.0.durable.lock().insert(folder.clone());
        Ok(folder)
    }

    async fn delete_one(self, location: Path) -> Result<Path> {
        self.0.files.delete(&location).await?;
        let file = self.0.files.path_to_filesystem(&location)?;
        // Under load the folder stays, until its next deletion or the next start.
        if let Ok(_alone) = self.0.folders.try_write() {
            let root = self.0.root.clone();
            let removed = self.0.pool.run(move || remove_empty_folders(&root, &file)).await;
            let mut durable = self.0.durable.lock();
            for folder in removed {
                durable.remove(&folder);
            }
        }
        Ok(location)
    }
}

#[async_trait]
impl ObjectStore for LocalDir {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let _keep_folders = self.0.folders.read().await;
        let file = self.0.files.path_to_filesystem(location)?;
        let folder = self.folder_of(&file).await?;
        let put = self.0.files.put_opts(location, payload, options).await;
        if let Err(Error::AlreadyExists { .. }) = &put {
            self.0.pool.run(move || sync(&folder)).await.map_err(generic)?;
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let file = self.0.files.path_to_filesystem(location)?;
        self.folder_of(&file).await?;
        self.0.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations.and_then(move |location| this.clone().delete_one(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        without_lock(self.0.files.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        without_lock(self.0.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.0.files.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| object.location.as_ref() != LOCK_FILE);
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _keep_folders = self.0.folders.read().await;
        let file = self.0.files.path_to_filesystem(to)?;
        self.folder_of(&file).await?;
        self.0.files.copy_opts(from, to, options).await
    }
}

impl fmt::Display for LocalDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.0.root.display())
    }
}

impl fmt::Debug for LocalDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn without_lock(listed: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    listed.try_filter(|object| std::future::ready(object.location.as_ref() != LOCK_FILE)).boxed()
}

fn lock_and_recover(dir: &FilePath) -> std::result::Result<(PathBuf, File), OpenError> {
    let at = |source| OpenError::Directory { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(at)?;
    let root = dir.canonicalize().map_err(at)?;
    let lock = lock(&root)?;
    let leftovers = recover(&root).map_err(at)?;
    if leftovers > 0 {
        tracing::info!(dir = %root.display(), leftovers, "removed files of uploads that never finished");
    }
    sync(&root).map_err(at)?;
    if let Some(parent) = root.parent() {
        sync(parent).map_err(at)?;
    }
    Ok((root, lock))
}

fn lock(root: &FilePath) -> std::result::Result<File, OpenError> {
    let at = |source| OpenError::Directory { dir: root.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join(LOCK_FILE))
        .map_err(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The holder may not have written its pid yet; the refusal stands without it.
            let _ = (&mut file).take(20).read_to_string(&mut pid);
            let pid = pid.trim().parse().ok();
            return Err(OpenError::Locked { dir: root.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(at(source)),
    }
    file.set_len(0).map_err(at)?;
    file.rewind().map_err(at)?;
    writeln!(file, "{}", std::process::id()).map_err(at)?;
    Ok(file)
}

/// Removes staging files and empty folders; returns how many staging files there were.
///
/// A create that was cut short after its link and before its sync still has its staging file. So a
/// folder that holds one may have an entry that is not on disk yet, and is synced before anyone reads it.
fn recover(root: &FilePath) -> io::Result<u64> {
    let mut leftovers = 0;
    let mut folders = vec![root.to_owned()];
    let mut visited = 0;
    while visited < folders.len() {
        let folder = folders[visited].clone();
        visited += 1;
        let mut in_doubt = false;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if is_staging(&entry.file_name()) {
                std::fs::remove_file(entry.path())?;
                leftovers += 1;
                in_doubt = true;
            }
        }
        if in_doubt {
            sync(&folder)?;
        }
    }
    // Children come after their parents in the list, so backwards empties inside out.
    for folder in folders.iter().skip(1).rev() {
        // Fails, as it should, for every folder that holds something.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(leftovers)
}

fn is_staging(name: &std::ffi::OsStr) -> bool {
    let digits = name.to_str().and_then(|text| text.split_once('#'));
    digits.is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

fn make_folder(root: &FilePath, folder: &FilePath) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for ancestor in folder.ancestors() {
        sync(ancestor)?;
        if ancestor == root {
            break;
        }
    }
    Ok(())
}

fn remove_empty_folders(root: &FilePath, file: &FilePath) -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for folder in file.ancestors().skip(1) {
        if folder == root || std::fs::remove_dir(folder).is_err() {
            break;
        }
        removed.push(folder.to_owned());
    }
    removed
}

fn sync(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn generic(source: io::Error) -> Error {
    Error::Generic { store: "local directory", source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use object_store::PutMode;

    use super::*;

    async fn put(dir: &LocalDir, key: &str) {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        dir.put_opts(&Path::from(key), "x".into(), options).await.expect("put");
    }

    #[tokio::test]
    async fn a_second_opening_is_refused_with_the_pid_of_the_first() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path().to_str().expect("utf-8");
        let first = LocalDir::open(dir).await.expect("first opens");
        match LocalDir::open(dir).await {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("not refused: {other:?}"),
        }
        drop(first);
        LocalDir::open(dir).await.expect("opens once the first has gone");
    }

    #[tokio::test]
    async fn a_start_removes_staging_files_and_empty_folders() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path().join("data");
        let staged = dir.join("log/a/000000000001#1");
        std::fs::create_dir_all(dir.join("log/a")).expect("folder");
        std::fs::create_dir_all(dir.join("block/t/empty")).expect("folder");
        std::fs::write(&staged, "half").expect("file");
        std::fs::write(dir.join("log/a/000000000000"), "whole").expect("file");
        LocalDir::open(dir.to_str().expect("utf-8")).await.expect("opens");
        assert!(!staged.exists());
        assert!(!dir.join("block").exists());
        assert!(dir.join("log/a/000000000000").exists());
    }

    #[tokio::test]
    async fn neither_the_lock_nor_staging_files_are_listed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = LocalDir::open(temp.path().to_str().expect("utf-8")).await.expect("opens");
        put(&dir, "log/a/0").await;
        std::fs::write(temp.path().join("log/a/1#1"), "half").expect("file");
        let listed: Vec<_> = dir.list(None).try_collect().await.expect("list");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location.as_ref(), "log/a/0");
    }

    #[tokio::test]
    async fn the_last_deletion_removes_the_folder_and_a_later_create_makes_it_anew() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = LocalDir::open(temp.path().to_str().expect("utf-8")).await.expect("opens");
        for _ in 0..2 {
            put(&dir, "block/t/w/0").await;
            dir.delete(&Path::from("block/t/w/0")).await.expect("delete");
            assert!(!temp.path().join("block").exists());
        }
    }
}
