use model::{Labels, Profile};
use serde::Serialize;

/// Where the source code of a mapping is, as readers of profiles expect it in place of a build id.
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

/// Writes what the labels `service_repository`, `service_git_ref` and `service_root_path` say into the
/// build ids of all mappings; nothing if there is none of them.
pub(crate) fn note_in_build_ids(profile: &mut Profile, labels: &Labels) {
    let label = |name| labels.get(name).unwrap_or_default();
    let repository = label("service_repository");
    let git_ref = label("service_git_ref");
    let root_path = label("service_root_path");
    if repository.is_empty() && git_ref.is_empty() && root_path.is_empty() {
        return;
    }
    let symbols = &mut profile.symbols;
    for mapping in &mut symbols.mappings {
        let build_id = symbols.strings.text(mapping.build_id);
        let noted = BuildId { repository, git_ref, build_id: &build_id, root_path };
        // Strings and a fixed struct: writing them to memory cannot fail.
        let json = serde_json::to_vec(&noted).unwrap_or_default();
        mapping.build_id = symbols.strings.push(&json);
    }
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
        note_in_build_ids(&mut profile, &Labels::from_pairs(labels.iter().copied()));
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
}
