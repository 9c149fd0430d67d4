//! Writes the labels about source code into the build ids of a profile's mappings.

use hashbrown::HashMap;
use model::{Labels, Profile, StringId};
use serde::Serialize;

use crate::error::Error;

/// Most bytes of build ids added to one profile: each mapping may have a different one, which repeats all labels.
const BUILD_ID_BYTES_MAX: usize = 16 << 20;

/// The location of a mapping's source code, in the JSON form that readers of profiles expect as a build id.
#[derive(Serialize)]
struct BuildId<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    repository: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    git_ref: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    build_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    root_path: &'a str,
}

/// Writes the labels `service_repository`, `service_git_ref` and `service_root_path` into the build ids of all
/// mappings, if any of them is set. Returns the number of bytes added.
///
/// # Errors
/// If this would add more than [`BUILD_ID_BYTES_MAX`].
pub(crate) fn note_in_build_ids(profile: &mut Profile, labels: &Labels) -> Result<usize, Error> {
    let label = |name| labels.get(name).unwrap_or_default();
    let repository = label("service_repository");
    let git_ref = label("service_git_ref");
    let root_path = label("service_root_path");
    if repository.is_empty() && git_ref.is_empty() && root_path.is_empty() {
        return Ok(0);
    }
    let symbols = &mut profile.symbols;
    let mappings = symbols.mappings.len();
    let mut known: HashMap<StringId, StringId> = HashMap::new();
    let mut bytes = 0;
    for mapping in &mut symbols.mappings {
        if let Some(noted) = known.get(&mapping.build_id) {
            mapping.build_id = *noted;
            continue;
        }
        let build_id = symbols.strings.text(mapping.build_id);
        let noted = BuildId { repository, git_ref, build_id: &build_id, root_path };
        // A fixed struct of strings: serialising it to memory cannot fail.
        let json = serde_json::to_vec(&noted).unwrap_or_default();
        bytes += json.len();
        if bytes > BUILD_ID_BYTES_MAX {
            return Err(Error::BuildIdBytes { mappings, limit: BUILD_ID_BYTES_MAX });
        }
        let noted = symbols.strings.push(&json);
        known.insert(mapping.build_id, noted);
        mapping.build_id = noted;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use model::Mapping;

    use super::*;

    #[track_caller]
    fn check(labels: &[(&str, &str)], expected: &str) {
        let mut profile = Profile::default();
        profile.symbols.strings.push(b"");
        let build_id = profile.symbols.strings.push(b"abc");
        profile.symbols.mappings = vec![Mapping { build_id, ..Mapping::default() }];
        note_in_build_ids(&mut profile, &Labels::from_pairs(labels.iter().copied())).unwrap();
        assert_eq!(profile.symbols.strings.text(profile.symbols.mappings[0].build_id), expected);
    }

    #[test]
    fn labels_about_source_code_go_into_build_ids() {
        check(&[("service_name", "app")], "abc");
        check(&[("service_git_ref", "v1")], r#"{"git_ref":"v1","build_id":"abc"}"#);
        check(
            &[("service_repository", "https://x/y"), ("service_root_path", "src")],
            r#"{"repository":"https://x/y","build_id":"abc","root_path":"src"}"#,
        );
    }

    #[test]
    fn many_mappings_cannot_multiply_long_labels() {
        let noted = |distinct: bool| {
            let mut profile = Profile::default();
            profile.symbols.strings.push(b"");
            let mut build_id = 0;
            for number in 0..100_u8 {
                if distinct || number == 0 {
                    build_id = profile.symbols.strings.push(&[b'a' + number % 26, b'a' + number / 26]);
                }
                profile.symbols.mappings.push(Mapping { build_id, ..Mapping::default() });
            }
            let labels = Labels::from_pairs([("service_git_ref", "v".repeat(BUILD_ID_BYTES_MAX / 64))]);
            note_in_build_ids(&mut profile, &labels).map(|_| profile.symbols.strings.len())
        };
        assert_eq!(noted(false).unwrap(), 3);
        let refused = noted(true).unwrap_err();
        assert!(matches!(refused, Error::BuildIdBytes { mappings: 100, .. }), "{refused}");
    }
}
