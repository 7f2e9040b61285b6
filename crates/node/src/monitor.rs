//! Where a node says whether it lives and what it does: `/liveness` for orchestrators and balancers, `/metrics` for
//! Prometheus. Each has an address of its own, and both are off until they are given one.
//!
//! They are served by a thread with a runtime of its own, so that a node whose threads are all busy still answers.
//! There is no TLS and no authentication: nothing here names a person or a resource, but the addresses are for the network of
//! those who run the node.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    metrics::{Metrics, Parts},
};

/// From the accepted connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at the same time; more wait in the kernel.
const MOST: usize = 64;

/// An address to listen on, or `off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Option<SocketAddr>);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "off" => Ok(Self(None)),
            // As with other programs: every address of the machine.
            port if port.starts_with(':') => format!("0.0.0.0{port}").parse().map(|at| Self(Some(at))),
            address => address.parse().map(|at| Self(Some(at))),
        }
        .map_err(|_| "use IP:PORT, :PORT or off".to_owned())
    }
}

/// Why there is no monitor.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("cannot listen on {at} for {what}: {source}")]
    Listen { what: &'static str, at: SocketAddr, source: io::Error },
    #[error("cannot start the thread for liveness and metrics: {0}")]
    Thread(io::Error),
}

/// What the node says of itself. Dropping it ends the thread.
pub struct Monitor {
    shared: Arc<Shared>,
    places: MonitorPlaces,
    stop: CancellationToken,
}

struct Shared {
    metrics: Arc<Metrics>,
    /// `None`: the node does not run yet.
    parts: Mutex<Option<Parts>>,
}

/// Where liveness and metrics are served, when they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MonitorPlaces {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

/// The body of an answer about liveness.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Liveness {
    serving: bool,
    /// Why it is not serving: `starting`, `draining`, `certificate_ended`.
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<usize>,
    /// While it drains: when what still runs is cut, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_ends_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<&'static str>,
}

impl Monitor {
    /// Listens at once, so that an address that cannot be had is told before anything else is done.
    pub fn start(liveness: Place, metrics: Place) -> Result<Self, MonitorError> {
        let shared = Arc::new(Shared { metrics: Arc::new(Metrics::default()), parts: Mutex::default() });
        let stop = CancellationToken::new();
        let bound = [("liveness", liveness), ("metrics", metrics)].map(|(what, place)| listen(what, place));
        let [liveness, metrics] = bound;
        let (liveness, metrics) = (liveness?, metrics?);
        let at = |bound: &Option<(TcpListener, SocketAddr)>| bound.as_ref().map(|(_, at)| *at);
        let places = MonitorPlaces { liveness: at(&liveness), metrics: at(&metrics) };
        let monitor = Self { shared: Arc::clone(&shared), places, stop };
        if liveness.is_some() || metrics.is_some() {
            let stop = monitor.stop.clone();
            let serve =
                move || serve_all(&shared, [liveness, metrics].map(|bound| bound.map(|(listener, _)| listener)), stop);
            std::thread::Builder::new().name("monitor".into()).spawn(serve).map_err(MonitorError::Thread)?;
        }
        Ok(monitor)
    }

    #[must_use]
    pub const fn places(&self) -> MonitorPlaces {
        self.places
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// The node runs; from now on these are asked.
    pub fn attach(&self, parts: Parts) {
        self.shared.metrics.attach(parts.clone());
        *self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn liveness(&self) -> Liveness {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parts) = &*parts else {
            let reasons = vec!["starting"];
            return Liveness { serving: false, reasons, streams: None, drain_ends_at: None, control_plane: None };
        };
        let (leave, now) = (parts.drain.now(), clock::now());
        let mut reasons = Vec::new();
        if leave.is_on() {
            reasons.push("draining");
        }
        if parts.validity.ends() <= now {
            reasons.push("certificate_ended");
        }
        Liveness {
            serving: reasons.is_empty(),
            reasons,
            streams: Some(parts.live.len()),
            drain_ends_at: leave.ends().map(|ends| ends.0),
            // Streams go on without it, so that is no reason.
            control_plane: Some(if parts.contact.is_up() { "connected" } else { "away" }),
        }
    }
}

/// What is served where.
#[derive(Clone, Copy)]
enum Page {
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

fn serve_all(shared: &Arc<Shared>, [liveness, metrics]: [Option<TcpListener>; 2], stop: CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "liveness and metrics cannot be served"),
    };
    runtime.block_on(async {
        let pages = async {
            tokio::join!(serve(liveness, Page::Liveness, shared), serve(metrics, Page::Metrics, shared));
        };
        let _ = stop.run_until_cancelled(pages).await;
    });
    runtime.shutdown_background();
}

async fn serve(listener: Option<TcpListener>, page: Page, shared: &Arc<Shared>) {
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
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let answering = service_fn(|request: Request<Incoming>| {
                let response = answer(page, &shared, request.method(), request.uri().path());
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

fn answer(page: Page, shared: &Shared, method: &Method, path: &str) -> Response<http_body_util::Full<Bytes>> {
    if *method != Method::GET && *method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "Only GET\n".to_owned());
    }
    match (page, path) {
        (Page::Liveness, "/" | "/liveness" | "/readiness") => {
            let liveness = shared.liveness();
            let status = match (liveness.reasons.as_slice(), path) {
                ([], _) => StatusCode::OK,
                // To haproxy: gets nothing new, and keeps what it has (`http-check disable-on-404`).
                (["draining"], "/readiness") => StatusCode::NOT_FOUND,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            text(status, "application/json", serde_json::to_string(&liveness).unwrap_or_default() + "\n")
        }
        (Page::Liveness, "/alive") => text(StatusCode::OK, "text/plain", "alive\n".to_owned()),
        (Page::Metrics, "/" | "/metrics") => {
            text(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", shared.metrics.text())
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

    #[test]
    fn an_address_is_given_as_one_as_a_port_or_not_at_all() {
        let at = |text: &str| text.parse::<Place>().map(|place| place.0);
        assert_eq!(at("off"), Ok(None));
        assert_eq!(at(":9090"), Ok(Some(([0, 0, 0, 0], 9090).into())));
        assert_eq!(at("127.0.0.1:0"), Ok(Some(([127, 0, 0, 1], 0).into())));
        assert!(at("9090").is_err() && at("localhost:9090").is_err());
    }

    #[test]
    fn a_node_that_does_not_run_yet_is_not_serving_and_alive() {
        let shared = Shared { metrics: Arc::default(), parts: Mutex::default() };
        assert_eq!(shared.liveness().reasons, ["starting"]);
        let status = |path| answer(Page::Liveness, &shared, &Method::GET, path).status().as_u16();
        assert_eq!(["/liveness", "/alive", "/metrics"].map(status), [503, 200, 404]);
        assert_eq!(answer(Page::Metrics, &shared, &Method::POST, "/metrics").status().as_u16(), 405);
    }
}
