//! What a peer without a client certificate gets: `404 Not Found` to every request, over HTTP/1.1 or HTTP/2.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::server::TlsStream;

/// For the whole connection, busy or not.
const DEADLINE: Duration = Duration::from_secs(10);
/// Strangers at once; others are closed without an answer.
const MOST: usize = 256;

static STRANGERS: AtomicUsize = AtomicUsize::new(0);

pub(super) async fn refuse(stream: TlsStream<TcpStream>) {
    let _present = Present;
    if STRANGERS.fetch_add(1, Ordering::Relaxed) >= MOST {
        return;
    }
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(DEADLINE).max_buf_size(16 * 1024);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16).max_header_list_size(16 * 1024);
    let service = service_fn(|_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"Not Found\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    // What goes wrong here concerns nobody but the stranger.
    let _ = timeout(DEADLINE, builder.serve_connection(TokioIo::new(stream), service)).await;
}

/// Counts a stranger out.
struct Present;

impl Drop for Present {
    fn drop(&mut self) {
        STRANGERS.fetch_sub(1, Ordering::Relaxed);
    }
}
