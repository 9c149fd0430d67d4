use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::gossip::seeds;

/// Gossip between processes. Without `join` there is none, and no port is opened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `<host>:<port>` of some other processes, as a list or separated by commas; the port may be omitted if it is
    /// `bind_port`. Names are resolved again periodically, to all their addresses: a headless service of Kubernetes is
    /// enough. The list may contain this process, and processes that have not started yet.
    #[serde(deserialize_with = "joined")]
    pub join_members: String,
    /// Address for gossip; empty means every interface.
    pub bind_addr: String,
    /// UDP port for gossip.
    pub bind_port: u16,
    /// Address at which other processes reach this one, for gossip and for calls between roles, independent of the
    /// address that it listens at. Empty means the address that it listens at, or, if that is every interface, its
    /// address in the network of the default route.
    pub advertise_addr: String,
    /// UDP port at which other processes reach this one; 0 means `bind_port`.
    pub advertise_port: u16,
    /// Label of the cluster. Gossip of processes with another label is ignored.
    pub cluster_label: String,
    /// Name of this process, for people and for placement: the same after a restart, and different for each process.
    /// Empty means the host's name.
    pub node_name: String,
}

impl Config {
    /// The configuration for a second process, perhaps on the same host: the same cluster, but a port and a name of
    /// its own.
    pub fn beside(&self, node_name: &str) -> Self {
        Self {
            join_members: seeds::split(&self.join_members, self.bind_port).join(","),
            bind_port: 0,
            advertise_port: 0,
            node_name: node_name.to_owned(),
            ..self.clone()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            join_members: String::new(),
            bind_addr: String::new(),
            bind_port: 7946,
            advertise_addr: String::new(),
            advertise_port: 0,
            cluster_label: String::new(),
            node_name: String::new(),
        }
    }
}

/// Reads a string, or a list of strings, which are joined by commas.
fn joined<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum StringOrList {
        One(String),
        Many(Vec<String>),
    }
    Ok(match StringOrList::deserialize(deserializer)? {
        StringOrList::One(text) => text,
        StringOrList::Many(texts) => texts.join(","),
    })
}
