//! Keeps the memory charge of an answer until it is sent, or the client is gone.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use memory::Lease;

/// The response, whose body holds its bytes of `memory` until it is dropped.
pub(crate) fn until_sent(response: Response, memory: Lease) -> Response {
    memory.shrink_to(response.body().size_hint().lower());
    match memory.is_counted() {
        true => response.map(|body| Body::new(ChargedBody { body, _memory: memory })),
        false => response,
    }
}

struct ChargedBody {
    body: Body,
    _memory: Lease,
}

impl http_body::Body for ChargedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
