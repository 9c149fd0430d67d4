//! The files of all incarnations, from one listing of the bucket.

use storage::{CatalogFile, Key, Store};

pub(super) struct Listing(Vec<ListedFile>);

pub(super) struct ListedFile {
    pub(super) incarnation: u64,
    pub(super) file: CatalogFile,
    pub(super) key: Key,
    pub(super) modified_millis: i64,
}

impl Listing {
    pub(super) async fn read(store: &Store) -> Result<Self, storage::Error> {
        let objects = store.list("catalog").await?.into_iter();
        let files = objects.filter_map(|object| {
            let (incarnation, file) = object.key.parse_catalog()?;
            Some(ListedFile { incarnation, file, key: object.key, modified_millis: object.modified_millis })
        });
        Ok(Self(files.collect()))
    }

    /// All files, sorted by key.
    pub(super) fn files(&self) -> impl Iterator<Item = &ListedFile> {
        self.0.iter()
    }

    pub(super) fn files_of(&self, incarnation: u64) -> impl Iterator<Item = &ListedFile> {
        self.files().filter(move |listed| listed.incarnation == incarnation)
    }

    /// The current incarnation: the newest that is complete. `None` if there is no catalog.
    pub(super) fn newest_ready(&self) -> Option<u64> {
        let ready = self.files().filter(|listed| listed.file == CatalogFile::Ready);
        ready.map(|listed| listed.incarnation).max()
    }
}
