use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::gossip::seeds;

/// How processes find one another. Without `join` they do not, and no port is opened.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `<host>:<port>` of some others, as a list or with commas between them; the port may be left out if it is `bind_port`. A name is asked
    /// for again from time to time, and all addresses that it has are used: a headless service of Kubernetes is enough. This
    /// process may be among them, and none needs to be there already.
    #[serde(deserialize_with = "joined")]
    pub join_members: String,
    /// Address to gossip at; empty means every interface.
    pub bind_addr: String,
    /// UDP port to gossip at.
    pub bind_port: u16,
    /// Address at which others reach this process, for gossip and for calls between roles, wherever it listens; empty means
    /// the one it listens at, or if that is every interface, the one it has in the network of its default route.
    pub advertise_addr: String,
    /// UDP port at which others reach this process; 0 means `bind_port`.
    pub advertise_port: u16,
    /// Processes with another label are strangers: what they say is ignored.
    pub cluster_label: String,
    /// Name of this process for people, and for what is placed by name: should be the same after a restart, and different for
    /// each process. Empty means the host's name.
    pub node_name: String,
}

impl Config {
    /// For a process beside one that has this configuration already, maybe on the same host: finds the same others, at
    /// a port of its own.
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

/// A text, or a list of texts that are joined by commas.
fn joined<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::One(text) => text,
        Given::Many(texts) => texts.join(","),
    })
}
