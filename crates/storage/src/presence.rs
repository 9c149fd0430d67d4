//! Whether a data directory is still the one that was opened.
//!
//! Owns: files that stay open as witnesses, the comparison with the files at their paths, one log line per change.
//! Does not own: which requests are refused while the directory is gone (`local`).
//!
//! An open file keeps its inode from being used again, so a file with the same device and inode at the same path is the
//! same file.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{error, info};

/// The directory at the configured path is not the one that was opened, because a witness is missing.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "directory {} is not the one that this process opened, it was removed, replaced or unmounted: {} {reason}",
    root.display(),
    witness.display()
)]
pub(crate) struct DirectoryGone {
    root: PathBuf,
    witness: PathBuf,
    reason: String,
}

pub(crate) struct Presence {
    root: PathBuf,
    witnesses: Mutex<Vec<Witness>>,
    is_gone: AtomicBool,
}

struct Witness {
    path: PathBuf,
    file: File,
}

impl Presence {
    /// `lock` is the open lock file of the directory `root`.
    pub(crate) fn new(root: &Path, lock_path: PathBuf, lock: File) -> Self {
        let lock = Witness { path: lock_path, file: lock };
        Self { root: root.to_owned(), witnesses: Mutex::new(vec![lock]), is_gone: AtomicBool::new(false) }
    }

    /// From now on the directory also counts as gone if this file is missing.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn add_witness(&self, path: PathBuf) -> io::Result<()> {
        let file = File::open(&path)?;
        self.witnesses.lock().push(Witness { path, file });
        Ok(())
    }

    /// Compares each witness once; blocks for as long as the file system takes.
    ///
    /// # Errors
    /// Names the first witness that is missing, is another file, or cannot be read.
    pub(crate) fn check(&self) -> Result<(), DirectoryGone> {
        let missing = self.witnesses.lock().iter().find_map(|witness| {
            let reason = witness.missing()?;
            Some(DirectoryGone { root: self.root.clone(), witness: witness.path.clone(), reason })
        });
        let was_gone = self.is_gone.swap(missing.is_some(), Ordering::SeqCst);
        match missing {
            Some(gone) => {
                if !was_gone {
                    error!(reason = %gone, "nothing is written until it is back; put it back, or restart");
                }
                Err(gone)
            }
            None => {
                if was_gone {
                    info!(dir = %self.root.display(), "the directory that this process opened is back");
                }
                Ok(())
            }
        }
    }
}

impl Witness {
    /// Why the file at the path is not the one that is open; `None` if it is.
    fn missing(&self) -> Option<String> {
        let identity = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (std::fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(found), Ok(own)) if identity(&found) == identity(&own) => None,
            (Ok(_), Ok(_)) => Some("is another file than at the start".to_owned()),
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Some("does not exist".to_owned()),
            (Err(error), _) | (_, Err(error)) => Some(format!("cannot be read: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(root: &Path) -> Presence {
        std::fs::create_dir_all(root).expect("folder");
        std::fs::write(root.join(".lock"), "1").expect("file");
        std::fs::write(root.join("cluster"), "{}").expect("file");
        let lock = File::open(root.join(".lock")).expect("opens");
        let presence = Presence::new(root, root.join(".lock"), lock);
        presence.add_witness(root.join("cluster")).expect("opens");
        presence
    }

    #[test]
    fn a_directory_that_is_moved_away_is_gone_until_it_is_back() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (root, away) = (temp.path().join("data"), temp.path().join("away"));
        let presence = presence(&root);
        assert!(presence.check().is_ok());
        std::fs::rename(&root, &away).expect("rename");
        let gone = presence.check().expect_err("gone").to_string();
        assert!(gone.contains("data/.lock does not exist") && gone.contains("removed, replaced"), "{gone}");
        std::fs::rename(&away, &root).expect("rename");
        assert!(presence.check().is_ok());
    }

    #[test]
    fn another_file_under_the_name_of_a_witness_is_no_witness() {
        let temp = tempfile::tempdir().expect("temp dir");
        let presence = presence(temp.path());
        std::fs::remove_file(temp.path().join("cluster")).expect("remove");
        std::fs::write(temp.path().join("cluster"), "{}").expect("file");
        let gone = presence.check().expect_err("gone").to_string();
        assert!(gone.contains("cluster is another file than at the start"), "{gone}");
    }
}
