//! Who is alive, and who of them gets what.
//!
//! Owns: the [`Membership`] trait, membership by gossip ([`Gossip`]) and set by hand ([`Fixed`]), the order in which
//! members are chosen ([`place()`]), the ways to them ([`Callers`]), which metastore is asked ([`Owner`]), which ingester gets a push
//! ([`Ingesters`]).
//! Does not own: how a role is called, who becomes the owner of the catalog. Membership is a hint everywhere:
//! two processes may see different members at one time, and nothing may be wrong by it.

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
pub use fixed::Fixed;
pub use gossip::{Gossip, GossipError};
pub use ingesters::Ingesters;
pub use member::{Member, Role};
pub use owner::{LastKnown, Owner};
pub use place::place;

/// The processes of one cluster, as one of them sees them.
pub trait Membership: Send + Sync {
    /// Those that are alive, this one included, in rank order.
    fn members(&self) -> watch::Receiver<Arc<[Member]>>;

    /// Tells the others which logs of this process are open.
    fn set_writers(&self, writers: Vec<WriterId>);

    /// Tells the others that this process stops soon: nobody should choose it any more. Ready when they had
    /// time to hear of it.
    fn leave(&self) -> BoxFuture<'_, ()>;
}
