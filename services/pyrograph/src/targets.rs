//! The roles that this process runs.

use std::collections::BTreeSet;

pub(crate) use cluster::Role;

/// Names of targets; the last two are Pyroscope's names for roles listed above.
const NAMES: &[(&str, &[Role])] = &[
    ("all", &Role::ALL),
    ("distributor", &[Role::Distributor]),
    ("ingester", &[Role::Ingester]),
    ("metastore", &[Role::Metastore]),
    ("compactor", &[Role::Compactor]),
    ("querier", &[Role::Querier]),
    ("segment-writer", &[Role::Ingester]),
    ("compaction-worker", &[Role::Compactor]),
];

/// A set of roles; a server has at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Targets(BTreeSet<Role>);

impl Targets {
    /// Reads names separated by commas.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut roles = BTreeSet::new();
        for name in text.split(',').map(str::trim) {
            let Some((_, named)) = NAMES.iter().find(|(known, _)| *known == name) else {
                let nearest = crate::config::nearest(name, NAMES.iter().map(|(known, _)| *known));
                let hint = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                return Err(format!("target {name:?} is not known, targets are {}{hint}", known.join(", ")));
            };
            roles.extend(*named);
        }
        Ok(Self(roles))
    }

    /// The targets of a process that serves nothing.
    pub(crate) fn none() -> Self {
        Self(BTreeSet::new())
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether this process runs every role.
    pub(crate) fn are_all(&self) -> bool {
        self.0.len() == Role::ALL.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_list_of_roles() {
        let targets = Targets::parse("distributor, segment-writer").unwrap();
        assert!(targets.has(Role::Distributor) && targets.has(Role::Ingester));
        assert!(!targets.has(Role::Querier) && !targets.are_all());
        assert!(Targets::parse("all").unwrap().are_all());
        assert_eq!(Targets::parse("querier,all"), Targets::parse("all"));
    }

    #[test]
    fn an_unknown_target_is_refused_with_the_nearest_name() {
        let error = Targets::parse("ingestor").unwrap_err();
        assert!(error.contains("\"ingestor\"") && error.ends_with("; did you mean ingester?"), "{error}");
        assert!(Targets::parse("").is_err());
    }
}
