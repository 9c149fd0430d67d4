//! The open connections of a listener, and when each is ended.
//!
//! Owns: closing idle connections for new ones, ending unread answers, the steps of a shutdown.
//! Does not own: how a request makes progress (`exchange`), accepting (`serve`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use tokio_util::sync::CancellationToken;

use crate::exchange::Exchange;

/// At a shutdown, maximum time without progress of a request that waits for its client, and maximum time for an HTTP/2
/// connection without a request to close.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// At a shutdown, time that an HTTP/1.1 connection without a request is kept, while the end of an answer is written.
const DRAIN_LINGER: Duration = Duration::from_millis(20);

/// One of this many idle connections is closed when there are too many.
const CONNECTIONS_PER_CLOSED: usize = 64;

#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Table>);

#[derive(Default)]
struct Table {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next_id: AtomicU64,
}

/// Connections and requests that a shutdown waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
}

impl Connections {
    /// Adds a connection that is accepted `now`.
    pub(crate) fn open(&self, now: Duration) -> OpenConnection {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            is_http2: AtomicBool::new(false),
            is_aborted: AtomicBool::new(false),
            requests: Mutex::new(Requests { idle_since: now, next_id: 0, running: HashMap::new() }),
            closing: CancellationToken::new(),
        });
        lock(&self.0.open).insert(id, connection.clone());
        OpenConnection { id, connection, table: self.clone() }
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.0.open).values().cloned().collect()
    }

    /// Closes the connections that were idle for longest: 1/[`CONNECTIONS_PER_CLOSED`] of all idle ones, at least one.
    /// Returns their number.
    pub(crate) fn close_idlest(&self) -> usize {
        let mut idle: Vec<_> = self
            .all()
            .into_iter()
            .filter(|connection| !connection.closing.is_cancelled())
            .filter_map(|connection| Some((connection.idle_since()?, connection)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate((idle.len() / CONNECTIONS_PER_CLOSED).max(1));
        idle.iter().for_each(|(_, connection)| connection.closing.cancel());
        idle.len()
    }

    /// Ends requests whose answers were not read since `before`. Returns the bytes of their answers.
    pub(crate) fn end_unread(&self, before: Duration) -> usize {
        let mut bytes = 0;
        for exchange in self.all().iter().flat_map(|connection| connection.requests()) {
            if exchange.is_unread_since(before) {
                exchange.end();
                bytes += exchange.counted();
            }
        }
        bytes
    }

    /// One step of a shutdown that began at `began`: ends idle connections, and requests that only wait for their
    /// client.
    pub(crate) fn drain(&self, began: Duration, now: Duration) -> Remaining {
        let mut remaining = Remaining { connections: 0, requests: 0 };
        let impatient_since = now.checked_sub(DRAIN_PATIENCE).filter(|since| *since > began);
        for connection in self.all() {
            let requests = connection.requests();
            remaining.connections += 1;
            remaining.requests += requests.len();
            let linger = if connection.is_http2() { DRAIN_PATIENCE } else { DRAIN_LINGER };
            let idle_for = |since: Duration| now.saturating_sub(since.max(began));
            if connection.idle_since().is_some_and(|since| idle_for(since) >= linger) {
                connection.closing.cancel();
            }
            if let Some(before) = impatient_since {
                requests.iter().filter(|request| request.is_stalled_since(before)).for_each(|r| r.end());
            }
        }
        remaining
    }

    pub(crate) fn close_all(&self) {
        self.all().iter().for_each(|connection| connection.closing.cancel());
    }
}

/// The entry of a connection in the table, until dropped.
pub(crate) struct OpenConnection {
    id: u64,
    connection: Arc<Connection>,
    table: Connections,
}

impl std::ops::Deref for OpenConnection {
    type Target = Arc<Connection>;

    fn deref(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        lock(&self.table.0.open).remove(&self.id);
    }
}

pub(crate) struct Connection {
    is_http2: AtomicBool,
    is_aborted: AtomicBool,
    requests: Mutex<Requests>,
    closing: CancellationToken,
}

struct Requests {
    /// End of the last request, or start of the connection.
    idle_since: Duration,
    next_id: u64,
    running: HashMap<u64, Weak<Exchange>>,
}

impl Connection {
    pub(crate) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    /// Cancelled when the connection must end at once.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Ends the connection at once, and discards written bytes that the client has not read.
    pub(crate) fn abort(&self) {
        self.is_aborted.store(true, Ordering::Relaxed);
        self.closing.cancel();
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Ordering::Relaxed)
    }

    /// Adds a request. Returns its number, for [`Self::remove`].
    pub(crate) fn add(&self, request: Weak<Exchange>) -> u64 {
        let mut requests = lock(&self.requests);
        let id = requests.next_id;
        requests.next_id += 1;
        requests.running.insert(id, request);
        id
    }

    /// Removes a request that has ended `now`.
    pub(crate) fn remove(&self, id: u64, now: Duration) {
        let mut requests = lock(&self.requests);
        requests.running.remove(&id);
        requests.idle_since = now;
    }

    /// Start of the idle time; `None` while a request, with complete headers, is running.
    pub(crate) fn idle_since(&self) -> Option<Duration> {
        let requests = lock(&self.requests);
        requests.running.is_empty().then_some(requests.idle_since)
    }

    fn requests(&self) -> Vec<Arc<Exchange>> {
        lock(&self.requests).running.values().filter_map(Weak::upgrade).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
