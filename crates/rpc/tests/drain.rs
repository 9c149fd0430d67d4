//! Foreign clients on the listener between roles do not delay a shutdown.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop where it is")]

use std::time::Duration;

use clock::{Clock, Pool};
use rpc::grpc::{Services, serve};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_shutdown_does_not_wait_for_connections_without_a_call() {
    let clock = Clock::system();
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for sent in [&b""[..], b"PRI", b"GET / HTTP/1.1\r\n", hello] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let services = Services::new(Pool::new(1));
        let drain = Duration::from_secs(60);
        let serving = clock.spawn(serve(listener, services, clock.clone(), drain, shutdown));
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(sent).await.unwrap();
        clock.sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        let ended = clock.timeout(Duration::from_secs(10), serving).await;
        assert!(ended.is_some_and(|done| done.unwrap().is_ok()), "{sent:?}");
    }
}
