use std::collections::BTreeSet;
use std::fmt;

use model::WriterId;

/// What a process can do.
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

    /// The role that [`Self::name`] calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One process that is alive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Random; another one after every start.
    pub node: String,
    /// For people, and what placement goes by: the same after a restart.
    pub name: String,
    /// Empty: of no zone.
    pub zone: String,
    pub roles: BTreeSet<Role>,
    /// `<host>:<port>` between roles; empty if it cannot be called.
    pub address: String,
    /// When it started, by its own clock, in Unix milliseconds.
    pub started_millis: i64,
    /// Open logs of an ingester.
    pub writers: Vec<WriterId>,
    pub is_leaving: bool,
}

impl Member {
    /// One that has just these roles and nothing else.
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

    /// The order in which members may own what has one owner: the longest running first.
    pub fn rank(&self) -> (i64, &str) {
        (self.started_millis, &self.node)
    }
}
