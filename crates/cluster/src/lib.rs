//! The members of a cluster, and which of them is called.
//!
//! Owns: the [`Membership`] trait, membership by gossip ([`Gossip`]) and by a fixed list ([`Fixed`]), placement of keys
//! on members ([`place()`]), clients of members ([`Callers`]), which metastore is asked ([`Owner`]), which ingester gets a
//! push ([`Ingesters`]).
//! Does not own: how a role is called, who becomes the owner of the catalog.
//!
//! Membership is only a hint: two processes may see different members at the same time, and correctness must not depend
//! on it.

mod callers;
mod config;
mod fixed;
mod gossip;
mod ingesters;
mod member;
mod metrics;
mod owner;
mod place;

use std::sync::Arc;

use futures::future::BoxFuture;
use model::WriterId;
use tokio::sync::watch;

pub use callers::{Callers, Dial};
pub use config::Config;
pub use fixed::FixedMembers;
pub use gossip::{Gossip, GossipError, ip_address};
pub use ingesters::Ingesters;
pub use member::{Member, Role};
pub use owner::{LastKnown, Owner};
pub use place::place;

/// The live processes of a cluster, as one of them sees them.
pub trait Membership: Send + Sync {
    /// The live members, this process included, in rank order.
    fn members(&self) -> watch::Receiver<Arc<[Member]>>;

    /// Publishes the open logs of this process to the other members.
    fn set_writers(&self, writers: Vec<WriterId>);

    /// Announces that this process stops soon, so that other members stop choosing it. Completes when they have had
    /// time to receive that.
    fn leave(&self) -> BoxFuture<'_, ()>;
}
