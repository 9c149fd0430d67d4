//! A socket that fails when its peer reads nothing of what waits to be written.
//!
//! Owns: noticing that a write makes no progress. Without it, a client that asks and never reads holds its
//! answer, its task and its place among the connections for ever.
//! Does not own: a stream of HTTP/2 whose client grants no window; the socket itself is not stuck then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(crate) struct FailsWhenStalled<S> {
    socket: S,
    limit: Duration,
    clock: Clock,
    /// Ends when the write that waits has waited too long; absent while nothing waits.
    patience: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S: AsyncWrite + Unpin> FailsWhenStalled<S> {
    /// `limit`: longest time in which not one byte can be written.
    pub(crate) fn new(socket: S, limit: Duration, clock: Clock) -> Self {
        Self { socket, limit, clock, patience: None }
    }

    fn poll_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.socket), context);
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let (clock, limit) = (&self.clock, self.limit);
        let patience = self.patience.get_or_insert_with(|| {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(limit).await })
        });
        patience.as_mut().poll(context).map(|()| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the client read nothing for {limit:?}")))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FailsWhenStalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |socket, context| socket.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |socket, context| socket.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FailsWhenStalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}
