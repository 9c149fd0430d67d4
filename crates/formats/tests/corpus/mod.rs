//! Real profiles, where the machine has them: in `$PYROGRAPH_SHARED`, else in `../shared` beside the repository.

use std::path::{Path, PathBuf};

/// Files of the corpus folders whose names begin with one of `prefixes`. Without a corpus, prints so and returns none.
#[allow(dead_code, reason = "each test uses one of both")]
pub(crate) fn files(prefixes: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    files_in("corpus", prefixes)
}

/// As [`files`], of the folders in another folder of the shared one.
pub(crate) fn files_in(root: &str, prefixes: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let shared = std::env::var_os("PYROGRAPH_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = shared.unwrap_or(beside).join(root);
    let mut files = Vec::new();
    let folders = std::fs::read_dir(&root).into_iter().flatten().flatten();
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            gather(&folder.path(), &mut files);
        }
    }
    if files.is_empty() {
        eprintln!("skipped: no files in {}", root.display());
    }
    files.sort();
    files
}

fn gather(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, files);
        } else if let Ok(bytes) = std::fs::read(&path) {
            files.push((path, bytes));
        }
    }
}
