//! The socket of a client, with a timeout for writes.
//!
//! Owns: noticing a write without progress; discarding the kernel's buffer when a connection is aborted.
//! Does not own: an HTTP/2 stream whose client grants no window (`exchange`); the socket itself makes progress then.

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
    /// Timeout of the pending write; `None` while no write is pending.
    write_deadline: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Socket {
    /// `write_timeout`: maximum time without a written byte.
    pub(crate) fn new(
        stream: TcpStream,
        connection: Arc<Connection>,
        write_timeout: Duration,
        clock: Clock,
    ) -> Self {
        Self { stream, connection, write_timeout, clock, write_deadline: None }
    }

    fn poll_progress<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), context);
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let (clock, limit) = (&self.clock, self.write_timeout);
        let write_deadline = self.write_deadline.get_or_insert_with(|| {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(limit).await })
        });
        write_deadline.as_mut().poll(context).map(|()| {
            self.connection.abort();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("the client read nothing for {limit:?}")))
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.is_aborted() {
            // Otherwise the kernel keeps some megabytes until the client reads them or goes away.
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
