//! Machines, and the kinds of processes on them.

use std::fmt;

use cluster::Role;

/// A machine; it has a clock and a network, and outlives its processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Machine {
    pub(crate) kind: Kind,
    pub(crate) number: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    Distributor,
    Ingester,
    Metastore,
    Compactor,
    Querier,
}

impl Kind {
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Distributor => Role::Distributor,
            Self::Ingester => Role::Ingester,
            Self::Metastore => Role::Metastore,
            Self::Compactor => Role::Compactor,
            Self::Querier => Role::Querier,
        }
    }
}

impl Machine {
    pub(crate) fn all(kind: Kind, count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(move |number| Self { kind, number })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.role(), self.number)
    }
}
