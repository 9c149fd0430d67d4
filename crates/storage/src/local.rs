//! A directory of this machine as an object store that survives a power cut.
//!
//! Owns: the lock on the directory, the cleanup at a start, which folders are known to be on disk, refusals while the
//! directory is missing or full.
//! Does not own: writing one file (`object_store` stages it as `…#N`, syncs it, links it, syncs the folder), noticing
//! that the directory is missing (`presence`), the space for the catalog (`reserve`).
//!
//! `object_store` leaves two gaps, which are closed here. Of two creates that race for a new folder, one may return
//! before the other has synced the folder's own entry. And "already exists" may report a link that another call made
//! but has not synced yet.

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
use tracing::warn;

use crate::presence::{DirectoryGone, Presence};
use crate::reserve::{RESERVE_FILE, Reserve, is_out_of_space};
use crate::{OpenError, key};

/// Holds the pid of the process that uses the directory, and the lock itself.
const LOCK_FILE: &str = ".lock";
/// Threads for the blocking calls of this wrapper.
const THREADS: usize = 4;

#[derive(Clone)]
pub(crate) struct LocalDir(Arc<Inner>);

struct Inner {
    files: LocalFileSystem,
    root: PathBuf,
    pool: Pool,
    /// Folders whose entries, up to the root, are on disk.
    durable: Mutex<HashSet<PathBuf>>,
    /// Held for reading while an object is created, for writing while empty folders are removed.
    folders: tokio::sync::RwLock<()>,
    /// Keeps the lock, which lasts as long as its file is open.
    presence: Arc<Presence>,
    reserve: Arc<Reserve>,
    /// Prefix of every key of the cluster; empty, or ends with a slash.
    prefix: String,
}

impl LocalDir {
    /// Creates the directory if it does not exist, locks it, and removes leftovers of a crash below `prefix`.
    pub(crate) async fn open(dir: &str, prefix: &str) -> std::result::Result<Self, OpenError> {
        let pool = Pool::new(THREADS);
        let (owned, below) = (PathBuf::from(dir), prefix.to_owned());
        let (root, presence, reserve) = pool.run(move || lock_and_recover(&owned, &below)).await?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self(Arc::new(Inner {
            files,
            durable: Mutex::new(HashSet::from([root.clone()])),
            root,
            pool,
            folders: tokio::sync::RwLock::default(),
            presence: Arc::new(presence),
            reserve: Arc::new(reserve),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
        })))
    }

    /// From now on the directory also counts as missing if this object is missing.
    pub(crate) async fn add_witness(&self, location: &Path) -> Result<()> {
        let file = self.0.files.path_to_filesystem(location)?;
        let presence = self.0.presence.clone();
        self.0.pool.run(move || presence.add_witness(file)).await.map_err(generic)
    }

    /// # Errors
    /// The directory was removed, replaced or unmounted since it was opened.
    pub(crate) async fn check_presence(&self) -> Result<()> {
        let presence = self.0.presence.clone();
        self.0.pool.run(move || presence.check()).await.map_err(gone)
    }

    /// Replaces "not found" if the directory is missing: then it says nothing about the object.
    async fn or_gone<T>(&self, read: Result<T>) -> Result<T> {
        if let Err(Error::NotFound { .. }) = &read {
            self.check_presence().await?;
        }
        read
    }

    /// Whether an object of `bytes` bytes may use the space that is reserved for the catalog.
    fn may_use_reserve(&self, location: &Path, bytes: usize) -> bool {
        let key = location.as_ref().strip_prefix(&self.0.prefix);
        key.is_some_and(|key| key::is_bookkeeping(key, bytes))
    }

    /// Checks that the directory is present and, unless `may_use_reserve`, that the reserve is held.
    async fn admit(&self, may_use_reserve: bool) -> Result<()> {
        let (presence, reserve) = (self.0.presence.clone(), self.0.reserve.clone());
        let admitted = self.0.pool.run(move || match presence.check() {
            Err(missing) => Err(gone(missing)),
            Ok(()) if may_use_reserve => Ok(()),
            Ok(()) => reserve.hold().map_err(generic),
        });
        admitted.await
    }

    async fn create(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let file = self.0.files.path_to_filesystem(location)?;
        let folder = self.folder_of(&file).await?;
        let put = self.0.files.put_opts(location, payload, options).await;
        if let Err(Error::AlreadyExists { .. }) = &put {
            self.0.pool.run(move || sync(&folder)).await.map_err(generic)?;
        }
        put
    }

    async fn release_reserve(&self) -> bool {
        let reserve = self.0.reserve.clone();
        self.0.pool.run(move || reserve.release()).await
    }

    /// Creates the folder of `file`, and syncs every entry on the way to it, once.
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
        self.check_presence().await?;
        self.0.files.delete(&location).await?;
        let file = self.0.files.path_to_filesystem(&location)?;
        // Under load the folder stays until the next deletion in it, or the next start.
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
        let may_use_reserve = self.may_use_reserve(location, payload.content_length());
        self.admit(may_use_reserve).await?;
        let mut put = self.create(location, payload.clone(), options.clone()).await;
        let is_full = put.as_ref().is_err_and(is_full);
        if is_full && may_use_reserve && self.release_reserve().await {
            put = self.create(location, payload, options).await;
        }
        // If the directory disappeared meanwhile, the create itself may have made a new one.
        self.check_presence().await?;
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.admit(false).await?;
        let file = self.0.files.path_to_filesystem(location)?;
        self.folder_of(&file).await?;
        self.0.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.or_gone(self.0.files.get_opts(location, options).await).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.or_gone(self.0.files.get_ranges(location, ranges).await).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations.and_then(move |location| this.clone().delete_one(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_if_present(self.0.files.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_if_present(self.0.files.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check_presence().await?;
        let mut listed = self.0.files.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| is_object(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _keep_folders = self.0.folders.read().await;
        self.admit(false).await?;
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

impl LocalDir {
    /// Checks the directory first: a listing of a missing one would be empty, and of another one wrong.
    fn list_if_present(
        &self,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        let objects = listed.try_filter(|object| std::future::ready(is_object(&object.location)));
        let checked = async move { this.check_presence().await.map(|()| objects) };
        futures::stream::once(checked).try_flatten().boxed()
    }
}

fn is_object(location: &Path) -> bool {
    ![LOCK_FILE, RESERVE_FILE].contains(&location.as_ref())
}

fn lock_and_recover(
    dir: &FilePath,
    prefix: &str,
) -> std::result::Result<(PathBuf, Presence, Reserve), OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let root = dir.canonicalize().map_err(unusable)?;
    let lock = lock(&root)?;
    let leftovers = recover(&root, prefix).map_err(|(path, source)| OpenError::Walk {
        dir: root.clone(),
        path,
        source,
    })?;
    if leftovers > 0 {
        tracing::info!(dir = %root.display(), leftovers, "removed files of uploads that never finished");
    }
    sync(&root).map_err(unusable)?;
    match root.parent().map(sync) {
        // A parent that cannot be opened, such as a mount of root, was not changed by this process either.
        Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => return Err(unusable(error)),
        Some(_) | None => {}
    }
    let reserve = Reserve::new(&root).map_err(unusable)?;
    if let Err(error) = reserve.hold() {
        warn!(%error, "no space is kept for the catalog: pushes are refused until there is some");
    }
    let lock_path = root.join(LOCK_FILE);
    let presence = Presence::new(&root, lock_path, lock);
    Ok((root, presence, reserve))
}

fn lock(root: &FilePath) -> std::result::Result<File, OpenError> {
    let unusable = |source| OpenError::Directory { dir: root.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join(LOCK_FILE))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The holder may not have written its pid yet; the refusal stands without it.
            let _ = (&mut file).take(20).read_to_string(&mut pid);
            let pid = pid.trim().parse().ok();
            return Err(OpenError::Locked { dir: root.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    match written.and_then(|()| writeln!(file, "{}", std::process::id())) {
        // The lock works without the pid, which only serves the text of a refusal.
        Err(error) if !is_out_of_space(&error) => Err(unusable(error)),
        Ok(()) | Err(_) => Ok(file),
    }
}

/// Removes staging files and empty folders of the cluster at `prefix`; returns the number of staging files. Other
/// folders, such as the `lost+found` of a file system, are not read.
///
/// A create that was cut short after its link and before its sync still has its staging file. So a
/// folder that holds one may have an entry that is not on disk yet, and is synced before it is read.
///
/// # Errors
/// The path that could not be read, synced or removed.
fn recover(root: &FilePath, prefix: &str) -> std::result::Result<u64, (PathBuf, io::Error)> {
    let base = root.join(prefix);
    let is_of_cluster = |name: &str| name.strip_prefix("cluster").is_some_and(|rest| rest.starts_with('#'));
    let mut leftovers = match base.is_dir() {
        true => remove_staging(&base, &mut Vec::new(), is_of_cluster)?,
        false => return Ok(0),
    };
    let own = key::FOLDERS.iter().map(|folder| base.join(folder));
    let mut folders: Vec<PathBuf> = own.filter(|folder| folder.is_dir()).collect();
    let mut visited = 0;
    while visited < folders.len() {
        let folder = folders[visited].clone();
        visited += 1;
        leftovers += remove_staging(&folder, &mut folders, |_| true)?;
    }
    // Children come after their parents in the list, so backwards empties inside out.
    for folder in folders.iter().rev() {
        // Fails, as it should, for every folder that is not empty.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(leftovers)
}

/// Removes the staging files of one folder whose names are chosen; adds the folders in it to `folders`.
fn remove_staging(
    folder: &FilePath,
    folders: &mut Vec<PathBuf>,
    is_chosen: impl Fn(&str) -> bool,
) -> std::result::Result<u64, (PathBuf, io::Error)> {
    let in_folder = |error| (folder.to_owned(), error);
    let mut removed = 0;
    for entry in std::fs::read_dir(folder).map_err(in_folder)? {
        let entry = entry.map_err(in_folder)?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().map_err(|error| (path.clone(), error))?.is_dir() {
            folders.push(path);
        } else if is_staging(&name) && name.to_str().is_some_and(&is_chosen) {
            std::fs::remove_file(&path).map_err(|error| (path, error))?;
            removed += 1;
        }
    }
    if removed > 0 {
        sync(folder).map_err(in_folder)?;
    }
    Ok(removed)
}

fn is_staging(name: &std::ffi::OsStr) -> bool {
    let digits = name.to_str().and_then(|text| text.split_once('#'));
    digits.is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Creates every folder between `root`, which must exist, and `folder`, and syncs them all.
fn make_folder(root: &FilePath, folder: &FilePath) -> io::Result<()> {
    let mut ancestors: Vec<&FilePath> = folder.ancestors().take_while(|ancestor| *ancestor != root).collect();
    ancestors.reverse();
    for ancestor in &ancestors {
        match std::fs::create_dir(ancestor) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for ancestor in ancestors.into_iter().rev() {
        sync(ancestor)?;
    }
    sync(root)
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

fn is_full(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_out_of_space(error);
        }
        cause = error.source();
    }
    false
}

fn gone(source: DirectoryGone) -> Error {
    Error::Generic { store: "local directory", source: Box::new(source) }
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
        let first = LocalDir::open(dir, "").await.expect("first opens");
        match LocalDir::open(dir, "").await {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("not refused: {other:?}"),
        }
        drop(first);
        LocalDir::open(dir, "").await.expect("opens once the first has gone");
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
        LocalDir::open(dir.to_str().expect("utf-8"), "").await.expect("opens");
        assert!(!staged.exists());
        assert!(!dir.join("block").exists());
        assert!(dir.join("log/a/000000000000").exists());
    }

    #[tokio::test]
    async fn neither_the_lock_nor_staging_files_are_listed() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = LocalDir::open(temp.path().to_str().expect("utf-8"), "").await.expect("opens");
        put(&dir, "log/a/0").await;
        std::fs::write(temp.path().join("log/a/1#1"), "half").expect("file");
        let listed: Vec<_> = dir.list(None).try_collect().await.expect("list");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location.as_ref(), "log/a/0");
    }

    #[tokio::test]
    async fn the_last_deletion_removes_the_folder_and_a_later_create_makes_it_again() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = LocalDir::open(temp.path().to_str().expect("utf-8"), "").await.expect("opens");
        for _ in 0..2 {
            put(&dir, "block/t/w/0").await;
            dir.delete(&Path::from("block/t/w/0")).await.expect("delete");
            assert!(!temp.path().join("block").exists());
        }
    }

    #[tokio::test]
    async fn a_start_leaves_folders_of_others_alone() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = temp.path();
        for folder in ["lost+found/empty", "a/log/empty", "other/log/empty"] {
            std::fs::create_dir_all(dir.join(folder)).expect("folder");
        }
        let staged = ["lost+found/x#1", "a/log/0#1", "other/log/0#1", "x#1", "a/cluster#1"];
        for file in staged {
            std::fs::write(dir.join(file), "half").expect("file");
        }
        LocalDir::open(dir.to_str().expect("utf-8"), "a").await.expect("opens");
        let left: Vec<_> = staged.into_iter().filter(|file| dir.join(file).exists()).collect();
        assert_eq!(left, ["lost+found/x#1", "other/log/0#1", "x#1"]);
        assert!(dir.join("lost+found/empty").exists() && dir.join("other/log/empty").exists());
        assert!(!dir.join("a/log").exists());
    }

    #[tokio::test]
    async fn a_replaced_directory_refuses_every_request() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (root, away) = (temp.path().join("data"), temp.path().join("away"));
        let dir = LocalDir::open(root.to_str().expect("utf-8"), "").await.expect("opens");
        put(&dir, "log/a/0").await;
        std::fs::rename(&root, &away).expect("rename");
        let create = |key: &'static str| {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let dir = dir.clone();
            async move { dir.put_opts(&Path::from(key), "x".into(), options).await.map(|_| ()) }
        };
        for is_replaced in [false, true] {
            if is_replaced {
                std::fs::create_dir(&root).expect("folder");
                std::fs::write(root.join(".lock"), "1").expect("file");
            }
            let failures = [
                create("log/a/1").await.err(),
                dir.get(&Path::from("log/a/0")).await.err(),
                dir.list(None).try_collect::<Vec<_>>().await.err(),
                dir.list_with_delimiter(None).await.err(),
                dir.delete(&Path::from("log/a/0")).await.err(),
            ];
            for failure in failures {
                let text = failure.expect("refused").to_string();
                assert!(text.contains("removed, replaced or unmounted"), "{text}");
            }
            assert_eq!((root.join("log").exists(), root.exists()), (false, is_replaced));
        }
        std::fs::remove_dir_all(&root).expect("remove");
        std::fs::rename(&away, &root).expect("rename");
        create("log/a/1").await.expect("it is back");
        assert_eq!(dir.list(None).try_collect::<Vec<_>>().await.expect("lists").len(), 2);
    }
}
