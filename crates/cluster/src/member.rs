//! A process of the cluster, and its roles.

use std::collections::BTreeSet;
use std::fmt;

use model::WriterId;

/// A part of the server that a process may run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    Distributor,
    Ingester,
    Metastore,
    Compactor,
    Querier,
}

impl Role {
    pub const ALL: [Self; 5] =
        [Self::Distributor, Self::Ingester, Self::Metastore, Self::Compactor, Self::Querier];

    pub fn name(self) -> &'static str {
        match self {
            Self::Distributor => "distributor",
            Self::Ingester => "ingester",
            Self::Metastore => "metastore",
            Self::Compactor => "compactor",
            Self::Querier => "querier",
        }
    }

    /// The role whose [`Self::name`] is `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A live process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Random id; new at every start.
    pub node: String,
    /// Name for people and for placement; the same after a restart.
    pub name: String,
    /// Empty: no zone.
    pub zone: String,
    pub roles: BTreeSet<Role>,
    /// `<host>:<port>` of its listener between roles; empty if it cannot be called.
    pub address: String,
    /// Start time in Unix milliseconds, read from the clock of the member.
    pub started_millis: i64,
    /// Open logs of an ingester.
    pub writers: Vec<WriterId>,
    pub is_leaving: bool,
}

impl Member {
    /// A member with these roles, and defaults in all other fields.
    pub fn new(node: impl Into<String>, roles: impl IntoIterator<Item = Role>) -> Self {
        let node = node.into();
        Self {
            name: node.clone(),
            node,
            zone: String::new(),
            roles: roles.into_iter().collect(),
            address: String::new(),
            started_millis: 0,
            writers: Vec::new(),
            is_leaving: false,
        }
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Order in which members become the owner of the catalog: the longest running first.
    pub fn rank(&self) -> (i64, &str) {
        (self.started_millis, &self.node)
    }
}
