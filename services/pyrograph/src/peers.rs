//! Roles that other processes run, where this one is told to find them.
//!
//! Owns: which addresses are used for what. Does not own: how a role is called (`rpc::grpc`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clock::{Clock, Pool};
use model::PushItem;
use querier::NamedLeaf;
use rpc::grpc::{IngesterClient, LeafClient, MetastoreClient, Peer};
use rpc::{Error, ErrorKind, Ingester, Metastore};

use crate::config::Peers;

/// Connects to what is not in this process.
pub(crate) struct Elsewhere<'a> {
    pub(crate) peers: &'a Peers,
    pub(crate) clock: &'a Clock,
    pub(crate) pool: &'a Pool,
}

impl Elsewhere<'_> {
    pub(crate) fn metastore(&self) -> Result<Arc<dyn Metastore>, String> {
        let address = self.peers.metastore_address.trim();
        if address.is_empty() {
            return Err(lacks("metastore", "metastore.address"));
        }
        let peer = self.peer(address, "metastore.address", None)?;
        Ok(Arc::new(MetastoreClient::new(peer)))
    }

    /// A push may take as long as `timeout`.
    pub(crate) fn ingester(&self, timeout: Duration) -> Result<Arc<dyn Ingester>, String> {
        let flag = "distributor.ingester-addresses";
        let peers = self.all(&self.peers.ingester_addresses, flag, timeout)?;
        if peers.is_empty() {
            return Err(lacks("ingester", flag));
        }
        let ingesters = peers.into_iter().map(|peer| Arc::new(IngesterClient::new(peer)) as _).collect();
        Ok(Arc::new(Turns { ingesters, next: AtomicUsize::new(0) }))
    }

    /// None, if there are no addresses. A scan may take as long as `timeout`.
    pub(crate) fn leaves(&self, timeout: Duration) -> Result<Vec<NamedLeaf>, String> {
        let peers = self.all(&self.peers.leaf_addresses, "querier.leaf-addresses", timeout)?;
        Ok(peers
            .into_iter()
            .map(|peer| (peer.name().to_owned(), Arc::new(LeafClient::new(peer)) as _))
            .collect())
    }

    fn all(&self, addresses: &str, flag: &str, timeout: Duration) -> Result<Vec<Peer>, String> {
        let addresses = addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
        addresses.map(|address| self.peer(address, flag, Some(timeout))).collect()
    }

    fn peer(&self, address: &str, flag: &str, timeout: Option<Duration>) -> Result<Peer, String> {
        let mut config = rpc::grpc::Config::default();
        // A timeout of zero is none.
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) {
            config.timeout = timeout;
        }
        let peer = Peer::new(address, config, self.clock.clone(), self.pool.clone());
        peer.map_err(|error| format!("-{flag}: {error}"))
    }
}

fn lacks(role: &str, flag: &str) -> String {
    format!("this process runs no {role}: add it to -target, or say with -{flag} where one is")
}

/// Several ingesters, each of which takes any push.
struct Turns {
    ingesters: Vec<Arc<dyn Ingester>>,
    next: AtomicUsize,
}

#[tonic::async_trait]
impl Ingester for Turns {
    /// One that is unavailable is passed over. It may have made the items durable all the same, which does no
    /// harm: their keys are counted once, wherever they come from.
    async fn push(&self, items: Vec<PushItem>) -> Result<(), Error> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut unavailable = Error::new(ErrorKind::Unavailable, "there is no ingester");
        for turn in 0..self.ingesters.len() {
            let ingester = &self.ingesters[first.wrapping_add(turn) % self.ingesters.len()];
            match ingester.push(items.clone()).await {
                Err(error) if error.kind == ErrorKind::Unavailable => unavailable = error,
                answer => return answer,
            }
        }
        Err(unavailable)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct One(Mutex<u32>, Option<ErrorKind>);

    #[tonic::async_trait]
    impl Ingester for One {
        async fn push(&self, _: Vec<PushItem>) -> Result<(), Error> {
            *self.0.lock().unwrap() += 1;
            self.1.map_or(Ok(()), |kind| Err(Error::new(kind, "no")))
        }
    }

    async fn pushes(kinds: [Option<ErrorKind>; 2]) -> (Vec<u32>, usize) {
        let all = kinds.map(|kind| Arc::new(One(Mutex::new(0), kind)));
        let ingesters = all.iter().map(|one| one.clone() as _).collect();
        let turns = Turns { ingesters, next: AtomicUsize::new(0) };
        let mut failed = 0;
        for _ in 0..4 {
            failed += usize::from(turns.push(Vec::new()).await.is_err());
        }
        (all.iter().map(|one| *one.0.lock().unwrap()).collect(), failed)
    }

    #[tokio::test]
    async fn ingesters_take_turns_and_one_that_is_away_is_passed_over() {
        assert_eq!(pushes([None, None]).await, (vec![2, 2], 0));
        assert_eq!(pushes([Some(ErrorKind::Unavailable), None]).await, (vec![2, 4], 0));
        assert_eq!(pushes([Some(ErrorKind::InvalidArgument), None]).await, (vec![2, 2], 2));
        assert_eq!(pushes([Some(ErrorKind::Unavailable); 2]).await, (vec![4, 4], 4));
    }
}
