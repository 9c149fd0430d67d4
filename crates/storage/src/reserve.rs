//! Disk space reserved for the catalog, so that data can be deleted on a full disk.
//!
//! Owns: the file that holds the space, when the file is removed and allocated again.
//! Does not own: which creates may use the space (`local`).
//!
//! Deleting expired data needs commits of the catalog, which are small. On a full disk they take the space of this
//! file. Segments and blocks are refused until the file has its full size again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::{info, warn};

/// The file of the space, in the root of the directory.
pub(crate) const RESERVE_FILE: &str = ".reserve";
/// Bounds of the size of the file, which is 1/[`SHARE`] of the file system.
const BYTES_MIN: u64 = 64 << 10;
const BYTES_MAX: u64 = 8 << 20;
const SHARE: u64 = 100;
/// Bytes per write on a file system that cannot allocate space at once.
const CHUNK_BYTES: usize = 64 << 10;

pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Missing,
    /// The file cannot be written, for a reason other than space.
    Unwritable,
}

impl Reserve {
    /// The reserve of the directory `root`; holds nothing before [`Self::hold`].
    pub(crate) fn new(root: &Path) -> io::Result<Self> {
        let system = rustix::fs::statvfs(root)?;
        let bytes = (system.f_blocks.saturating_mul(system.f_frsize) / SHARE).clamp(BYTES_MIN, BYTES_MAX);
        Ok(Self { path: root.join(RESERVE_FILE), bytes, state: Mutex::new(State::Missing) })
    }

    /// Makes sure that the space is held; quick if it is. Succeeds without the file if that cannot be written for a
    /// reason other than space.
    ///
    /// # Errors
    /// The disk has no space for the file.
    pub(crate) fn hold(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if *state == State::Held {
            return Ok(());
        }
        match self.allocate() {
            Ok(()) => {
                info!(bytes = self.bytes, file = %self.path.display(), "holds space for the catalog");
                *state = State::Held;
                Ok(())
            }
            Err(error) if is_out_of_space(&error) => {
                *state = State::Missing;
                let (bytes, file) = (self.bytes, self.path.display());
                let text = format!("{error} ({bytes} bytes in {file} are kept for the catalog)");
                Err(io::Error::new(error.kind(), text))
            }
            Err(error) => {
                if *state != State::Unwritable {
                    warn!(%error, file = %self.path.display(), "cannot hold space for the catalog");
                }
                *state = State::Unwritable;
                Ok(())
            }
        }
    }

    /// Frees the space for the next write; false if none was held.
    pub(crate) fn release(&self) -> bool {
        let mut state = self.state.lock();
        let held = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let is_released = held > 0 && std::fs::remove_file(&self.path).is_ok();
        *state = State::Missing;
        if is_released {
            warn!(
                bytes = held,
                "the disk is full: the catalog uses the space kept for it, pushes are refused"
            );
        }
        is_released
    }

    fn allocate(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        let allocated = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes)
        {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.fill(&mut file),
            allocated => allocated.map_err(io::Error::from),
        };
        if allocated.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        allocated
    }

    fn fill(&self, file: &mut File) -> io::Result<()> {
        let chunk = vec![0; CHUNK_BYTES];
        let mut left = self.bytes;
        while left > 0 {
            let count = left.min(CHUNK_BYTES as u64);
            file.write_all(&chunk[..count as usize])?;
            left -= count;
        }
        file.sync_all()
    }
}

/// Whether a write failed for lack of space.
pub(crate) fn is_out_of_space(error: &io::Error) -> bool {
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_held_once_and_given_up_once() {
        let temp = tempfile::tempdir().expect("temp dir");
        let reserve = Reserve::new(temp.path()).expect("a file system");
        assert!(!reserve.release(), "nothing is held yet");
        reserve.hold().expect("there is space");
        let held = std::fs::metadata(temp.path().join(RESERVE_FILE)).expect("file").len();
        assert!((BYTES_MIN..=BYTES_MAX).contains(&held), "{held}");
        assert!(reserve.release());
        assert!(!temp.path().join(RESERVE_FILE).exists());
        reserve.hold().expect("there is space again");
    }
}
