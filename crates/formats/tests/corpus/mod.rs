//! Real profiles, where the machine has them: `$PYROGRAPH_SHARED/corpus`, else `../shared/corpus` beside the repository.

use std::path::{Path, PathBuf};

/// Files of the corpus folders whose names begin with one of `prefixes`. Without a corpus, prints so and returns none.
pub(crate) fn files(prefixes: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let shared = std::env::var_os("PYROGRAPH_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = shared.unwrap_or(beside).join("corpus");
    let mut files = Vec::new();
    let folders = std::fs::read_dir(&root).into_iter().flatten().flatten();
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            gather(&folder.path(), &mut files);
        }
    }
    if files.is_empty() {
        eprintln!("skipped: no corpus in {}", root.display());
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
