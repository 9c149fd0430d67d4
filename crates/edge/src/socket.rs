//! A client's socket, which fails when its peer reads nothing of what waits to be written.
//!
//! Owns: noticing that a write makes no progress, and leaving nothing behind in the kernel when a connection is aborted.
//! Does not own: a stream of HTTP/2 whose client grants no window (`exchange`); the socket itself is not stuck then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connections::Connection;

pub(crate) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    write_timeout: Duration,
    clock: Clock,
    /// Ends when the write that waits has waited too long; absent while nothing waits.
    patience: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Socket {
    /// `write_timeout`: longest time in which not one byte can be written.
    pub(crate) fn new(
        stream: TcpStream,
        connection: Arc<Connection>,
        write_timeout: Duration,
        clock: Clock,
    ) -> Self {
        Self { stream, connection, write_timeout, clock, patience: None }
    }

    fn poll_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), context);
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let (clock, limit) = (&self.clock, self.write_timeout);
        let patience = self.patience.get_or_insert_with(|| {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(limit).await })
        });
        patience.as_mut().poll(context).map(|()| {
            self.connection.abort();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the client read nothing for {limit:?}")))
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.is_aborted() {
            // Otherwise the kernel keeps some megabytes for as long as the client likes.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_progress(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
