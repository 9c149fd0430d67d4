//! Checks the direction of the dependencies between crates, and which crates may use which library.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cargo_metadata::{DependencyKind, MetadataCommand};

    /// Each crate with the workspace crates that it may depend on. Any other dependency is forbidden.
    const ARROWS: &[(&str, &[&str])] = &[
        ("model", &[]),
        ("clock", &[]),
        ("memory", &[]),
        ("wire", &[]),
        ("formats", &["model"]),
        ("limits", &["model", "clock"]),
        ("storage", &["model", "clock"]),
        ("block", &["model", "memory", "clock", "storage"]),
        ("catalog", &["model", "clock", "storage", "block"]),
        ("query", &["model", "memory", "wire", "formats", "block"]),
        ("rpc", &["model", "memory", "clock", "wire", "storage", "block", "query"]),
        ("cluster", &["model", "clock", "storage", "rpc"]),
        ("edge", &["model", "memory", "clock", "wire", "formats"]),
        ("distributor", &["model", "memory", "clock", "wire", "formats", "limits", "rpc", "cluster", "edge"]),
        ("ingester", &["model", "clock", "limits", "storage", "block", "rpc", "cluster"]),
        (
            "metastore",
            &["model", "clock", "limits", "storage", "block", "query", "catalog", "rpc", "cluster"],
        ),
        ("compactor", &["model", "memory", "clock", "limits", "storage", "block", "query", "rpc"]),
        (
            "querier",
            &[
                "model", "memory", "clock", "wire", "formats", "limits", "storage", "block", "query", "rpc",
                "edge",
            ],
        ),
    ];

    /// Libraries that only these crates may use; all others use our own types.
    const CONFINED: &[(&str, &[&str])] = &[
        ("parquet", &["block"]),
        ("arrow-array", &["block"]),
        ("arrow-schema", &["block"]),
        ("object_store", &["storage"]),
        ("tonic", &["wire", "rpc", "edge", "distributor", "querier", "pyrograph"]),
        ("libdeflater", &["formats"]),
        ("rand", &["clock"]),
        ("chitchat", &["cluster"]),
        ("clap", &["pyrograph"]),
        ("serde_yaml", &["pyrograph", "limits"]),
    ];

    fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
        let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
        let dependencies = |package: &cargo_metadata::Package| {
            let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            normal.map(|d| d.rename.clone().unwrap_or_else(|| d.name.clone())).collect()
        };
        metadata.packages.iter().map(|p| (p.name.to_string(), dependencies(p))).collect()
    }

    #[test]
    fn arrows_point_one_way() {
        let all = normal_dependencies();
        let ours: BTreeSet<&str> = all.keys().map(String::as_str).collect();
        for (name, allowed) in ARROWS {
            let found = &all[*name];
            for dependency in found.iter().filter(|d| ours.contains(d.as_str())) {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "crate {name} must not depend on {dependency}"
                );
            }
        }
        let listed: BTreeSet<&str> = ARROWS
            .iter()
            .map(|(name, _)| *name)
            .chain(["pyrograph", "architecture-test", "bench", "simulation"])
            .collect();
        for name in ours {
            assert!(listed.contains(name), "crate {name} has no line in ARROWS");
        }
    }

    #[test]
    fn libraries_stay_where_they_are_hidden() {
        let all = normal_dependencies();
        for (library, allowed) in CONFINED {
            for (name, found) in &all {
                if !["bench", "simulation"].contains(&name.as_str()) && found.contains(*library) {
                    assert!(allowed.contains(&name.as_str()), "crate {name} must not depend on {library}");
                }
            }
        }
    }
}
