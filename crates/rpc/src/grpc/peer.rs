//! The connection to one other process: deadlines, limits, conversion of messages.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::{INLINE_BYTES_MAX, MESSAGE_BYTES_MAX, status};
use crate::{Error, ErrorKind};

/// A peer that answers no ping within the timeout is gone: its calls fail, and the next call connects again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Flow control: an answer of ordinary size arrives without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Settings of calls to a peer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Maximum time of a call; it then fails at the caller and at the peer.
    pub timeout: Duration,
    /// Maximum time to connect; the peer is then unavailable.
    pub connect_timeout: Duration,
    /// Maximum size of a message; sender and receiver refuse larger ones.
    pub message_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(2),
            message_bytes_max: MESSAGE_BYTES_MAX,
        }
    }
}

/// One other process; cheap to clone. The first call connects, and so does the first call after a connection ended.
#[derive(Clone)]
pub struct Peer {
    channel: Channel,
    /// Its address, for errors.
    name: Arc<str>,
    config: Arc<Config>,
    clock: Clock,
    pool: Pool,
}

impl Peer {
    /// `address` is `<host>:<port>`. Must be called within a runtime.
    ///
    /// # Errors
    /// `InvalidArgument` if `address` has another form.
    pub fn new(address: &str, config: Config, clock: Clock, pool: Pool) -> Result<Self, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let text = format!("address {address:?} is not <host>:<port>");
            Error::with_source(ErrorKind::InvalidArgument, text, error)
        })?;
        let channel = endpoint
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_lazy();
        Ok(Self { channel, name: address.into(), config: Arc::new(config), clock, pool })
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The address of the peer.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        self.config.message_bytes_max
    }

    /// Time limit of a call whose caller has `time_left`.
    pub(super) fn limit(&self, time_left: Option<Duration>) -> Duration {
        time_left.map_or(self.config.timeout, |left| left.min(self.config.timeout))
    }

    /// `message` with the deadline of a call.
    ///
    /// # Errors
    /// `InvalidArgument` if the message is too large: the transport would only report a call that was cut off.
    pub(super) fn request<T: Message>(&self, message: T) -> Result<Request<T>, Error> {
        self.request_within(message, self.config.timeout)
    }

    /// As [`Peer::request`], with a deadline of its own.
    pub(super) fn request_within<T: Message>(&self, message: T, time: Duration) -> Result<Request<T>, Error> {
        let (bytes, limit) = (message.encoded_len(), self.config.message_bytes_max);
        if bytes > limit {
            let text = format!("{}: request has {bytes} bytes, limit is {limit}", self.name);
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        let mut request = Request::new(message);
        request.set_timeout(time);
        Ok(request)
    }

    /// Waits for the answer of a call, until its deadline.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.answer_within(self.config.timeout, call).await
    }

    /// As [`Peer::answer`], with a deadline of its own.
    pub(super) async fn answer_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match self.clock.timeout(limit, call).await {
            Some(Ok(response)) => Ok(response.into_inner()),
            Some(Err(status)) => Err(status::error_of(&status, &self.name)),
            None => {
                let text = format!("{}: no answer within {limit:?}", self.name);
                Err(Error::new(ErrorKind::DeadlineExceeded, text))
            }
        }
    }

    /// Converts a message of `bytes` bytes.
    pub(super) async fn convert<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        convert(&self.pool, bytes, work).await
    }
}

/// Converts a message of `bytes` bytes: inline if it is small, otherwise on the pool.
pub(super) async fn convert<T: Send + 'static>(
    pool: &Pool,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES_MAX { work() } else { pool.run(work).await }
}
