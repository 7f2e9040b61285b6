//! What a peer without a client certificate gets: `404 Not Found` to every request, over HTTP/1.1 or HTTP/2.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use crate::{
    link::{Link, LinkError},
    scratch,
    splice::Inbox,
};

/// For the whole connection, busy or not.
const DEADLINE: Duration = Duration::from_secs(10);
/// Strangers at once; others are closed without an answer.
const MOST: usize = 256;

static STRANGERS: AtomicUsize = AtomicUsize::new(0);

pub(super) async fn refuse(link: Box<Link>) {
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
    let _ =
        timeout(DEADLINE, builder.serve_connection(TokioIo::new(LinkIo { link, received: Inbox::default() }), service))
            .await;
}

/// Counts a stranger out.
struct Present;

impl Drop for Present {
    fn drop(&mut self) {
        STRANGERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A link as a plain stream of bytes, for HTTP.
struct LinkIo {
    link: Box<Link>,
    received: Inbox,
}

impl AsyncRead for LinkIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { link, received } = self.get_mut();
        if received.is_empty() {
            ready!(scratch::plain(|plain| link.poll_recv(cx, plain).map_ok(|count| {
                received.push(plain.get(..count).unwrap_or_default());
            })))
            .map_err(into_io)?;
        }
        let count = received.bytes().len().min(buffer.remaining());
        buffer.put_slice(received.bytes().get(..count).unwrap_or_default());
        received.take(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let link = &mut self.get_mut().link;
        ready!(link.poll_flush(cx)).map_err(into_io)?;
        let mut part = bytes.get(..bytes.len().min(16 * 1024)).unwrap_or_default().to_vec();
        link.send(cx, &mut part).map_err(into_io)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().link.poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().link.poll_close(cx).map_err(into_io)
    }
}

fn into_io(error: LinkError) -> io::Error {
    error.into()
}
