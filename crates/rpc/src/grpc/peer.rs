//! A connection to one other process.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Pool};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::{INLINE_BYTES_MAX, MESSAGE_BYTES_MAX, status};
use crate::{Error, ErrorKind};

/// A peer that answers no ping for as long is gone: all its calls fail then, and the next one connects anew.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Flow control: an answer of ordinary size arrives without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How a peer is called.
#[derive(Clone, Debug)]
pub struct Config {
    /// A call that takes longer fails, here and there.
    pub timeout: Duration,
    /// A peer that is not connected to within is unavailable.
    pub connect_timeout: Duration,
    /// Larger messages are refused, by whoever would send them and by whoever gets them.
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

/// One other process; cheap to clone. It is connected to when it is first called, and again after a
/// connection ended.
#[derive(Clone)]
pub struct Peer {
    channel: Channel,
    /// What errors call it.
    name: Arc<str>,
    config: Arc<Config>,
    clock: Clock,
    pool: Pool,
}

impl Peer {
    /// `address` is `<host>:<port>`. Must be called within a runtime.
    ///
    /// # Errors
    /// `InvalidArgument` if the address is none.
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

    /// Its address.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn message_bytes_max(&self) -> usize {
        self.config.message_bytes_max
    }

    /// How long a call may take whose caller has `time_left`.
    pub(super) fn limit(&self, time_left: Option<Duration>) -> Duration {
        time_left.map_or(self.config.timeout, |left| left.min(self.config.timeout))
    }

    /// `message` with the deadline of a call.
    ///
    /// # Errors
    /// `InvalidArgument` if it is over the limit: the transport would only say that the call was cut off.
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

    /// Converts a message of so many bytes.
    pub(super) async fn convert<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        convert(&self.pool, bytes, work).await
    }
}

/// Converts a message of so many bytes: here if it is small, on the pool if not.
pub(super) async fn convert<T: Send + 'static>(
    pool: &Pool,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES_MAX { work() } else { pool.run(work).await }
}
