//! Checks the direction of the dependencies between crates, and which crates may use which library.

#[cfg(test)]
mod tidy;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cargo_metadata::{DependencyKind, MetadataCommand};

    /// Each crate with the workspace crates that it depends on. Any other dependency is forbidden.
    const ARROWS: &[(&str, &[&str])] = &[
        ("model", &[]),
        ("clock", &[]),
        ("memory", &[]),
        ("wire", &[]),
        ("formats", &["model"]),
        ("limits", &["model"]),
        ("storage", &["model", "clock"]),
        ("block", &["model", "memory", "clock", "storage"]),
        ("catalog", &["model", "clock", "storage"]),
        ("query", &["model", "memory", "block"]),
        ("rpc", &["model", "memory", "clock", "wire", "storage", "block", "query"]),
        ("cluster", &["model", "clock", "rpc"]),
        ("edge", &["model", "memory", "clock", "wire", "formats"]),
        ("distributor", &["model", "memory", "clock", "wire", "formats", "limits", "rpc", "edge"]),
        ("ingester", &["model", "memory", "clock", "limits", "storage", "block", "rpc"]),
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
            let found = all[*name].iter().map(String::as_str).filter(|dependency| ours.contains(dependency));
            let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
            assert_eq!(found.collect::<BTreeSet<&str>>(), allowed, "dependencies of crate {name}");
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
