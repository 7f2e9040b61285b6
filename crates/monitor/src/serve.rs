use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{MonitorPlaces, Place};

/// From the accepted connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at the same time; more wait in the kernel.
const MOST: usize = 64;

/// Whom to ask. What it takes to answer must be short: it is asked on the monitor's one thread.
pub trait Subject: Send + Sync + 'static {
    fn liveness(&self) -> Answer;

    /// Everything in the text form of OpenMetrics.
    fn metrics(&self) -> String;
}

/// Whether a program serves, and more as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub standing: Standing,
    pub body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Serving,
    /// It takes nothing new, and carries what it has to its end.
    Leaving,
    Not,
}

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("cannot listen on {at} for {what}: {source}")]
    Listen { what: &'static str, at: SocketAddr, source: io::Error },
    #[error("cannot start the thread for liveness and metrics: {0}")]
    Thread(io::Error),
}

/// What a program says of itself. Dropping it ends the thread.
#[derive(Debug)]
pub struct Monitor {
    places: MonitorPlaces,
    stop: CancellationToken,
}

impl Monitor {
    /// Listens at once, so that an address that cannot be had is told before anything else is done.
    pub fn start(liveness: Place, metrics: Place, subject: Arc<dyn Subject>) -> Result<Self, MonitorError> {
        let stop = CancellationToken::new();
        let bound = [("liveness", liveness), ("metrics", metrics)].map(|(what, place)| listen(what, place));
        let [liveness, metrics] = bound;
        let (liveness, metrics) = (liveness?, metrics?);
        let at = |bound: &Option<(TcpListener, SocketAddr)>| bound.as_ref().map(|(_, at)| *at);
        let places = MonitorPlaces { liveness: at(&liveness), metrics: at(&metrics) };
        let monitor = Self { places, stop };
        if liveness.is_some() || metrics.is_some() {
            let stop = monitor.stop.clone();
            let serve =
                move || serve_all(&subject, [liveness, metrics].map(|bound| bound.map(|(listener, _)| listener)), stop);
            std::thread::Builder::new().name("monitor".into()).spawn(serve).map_err(MonitorError::Thread)?;
        }
        Ok(monitor)
    }

    #[must_use]
    pub const fn places(&self) -> MonitorPlaces {
        self.places
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What is served where.
#[derive(Clone, Copy)]
enum What {
    Liveness,
    Metrics,
}

fn listen(what: &'static str, Place(at): Place) -> Result<Option<(TcpListener, SocketAddr)>, MonitorError> {
    let Some(at) = at else { return Ok(None) };
    let bound = || {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        Ok(Some((listener, at)))
    };
    bound().map_err(|source| MonitorError::Listen { what, at, source })
}

fn serve_all(subject: &Arc<dyn Subject>, [liveness, metrics]: [Option<TcpListener>; 2], stop: CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "liveness and metrics cannot be served"),
    };
    runtime.block_on(async {
        let pages = async {
            tokio::join!(serve(liveness, What::Liveness, subject), serve(metrics, What::Metrics, subject));
        };
        let _ = stop.run_until_cancelled(pages).await;
    });
    runtime.shutdown_background();
}

async fn serve(listener: Option<TcpListener>, what: What, subject: &Arc<dyn Subject>) {
    let Some(listener) = listener else { return };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "liveness or metrics cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for liveness or metrics");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let subject = Arc::clone(subject);
        tokio::spawn(async move {
            let answering = service_fn(|request: Request<Incoming>| {
                let response = answer(what, &*subject, request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE / 2)
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), answering);
            let _ = timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

fn answer(what: What, subject: &dyn Subject, method: &Method, path: &str) -> Response<http_body_util::Full<Bytes>> {
    if *method != Method::GET && *method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "Only GET\n".to_owned());
    }
    match (what, path) {
        (What::Liveness, "/" | "/liveness" | "/readiness") => {
            let Answer { standing, body } = subject.liveness();
            let status = match (standing, path) {
                (Standing::Serving, _) => StatusCode::OK,
                // To haproxy: gets nothing new, and keeps what it has (`http-check disable-on-404`).
                (Standing::Leaving, "/readiness") => StatusCode::NOT_FOUND,
                (Standing::Leaving | Standing::Not, _) => StatusCode::SERVICE_UNAVAILABLE,
            };
            text(status, "application/json", body + "\n")
        }
        (What::Liveness, "/alive") => text(StatusCode::OK, "text/plain", "alive\n".to_owned()),
        (What::Metrics, "/" | "/metrics") => {
            text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", subject.metrics())
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "Not Found\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<http_body_util::Full<Bytes>> {
    let mut response = Response::new(http_body_util::Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Subject for Standing {
        fn liveness(&self) -> Answer {
            Answer { standing: *self, body: "{}".to_owned() }
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    #[test]
    fn what_does_not_serve_lives_all_the_same_and_each_page_has_its_own_address() {
        let status = |what, method, path| answer(what, &Standing::Not, method, path).status().as_u16();
        let liveness = |path| status(What::Liveness, &Method::GET, path);
        assert_eq!(["/liveness", "/readiness", "/alive", "/metrics"].map(liveness), [503, 503, 200, 404]);
        assert_eq!(["/metrics", "/liveness"].map(|path| status(What::Metrics, &Method::GET, path)), [200, 404]);
        assert_eq!(status(What::Metrics, &Method::POST, "/metrics"), 405);
    }

    #[test]
    fn what_leaves_is_told_from_what_is_broken_at_readiness() {
        let status = |standing, path| answer(What::Liveness, &standing, &Method::GET, path).status().as_u16();
        let told = [Standing::Serving, Standing::Leaving, Standing::Not]
            .map(|standing| ["/liveness", "/readiness", "/alive"].map(|path| status(standing, path)));
        assert_eq!(told, [[200, 200, 200], [503, 404, 200], [503, 503, 200]]);
    }
}
