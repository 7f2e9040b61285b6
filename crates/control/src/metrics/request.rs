//! Counts requests.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};
use tokio::time::Instant;

use super::{Answered, Class, Metrics, Outcome, Refused};

/// The code of a refusal, put beside an answer so that it need not be read again.
#[derive(Clone, Debug)]
pub struct RefusalCode(pub String);

/// What a request is for: a few words, whatever its path.
const CLASSES: &[(&str, &str)] = &[
    ("/api/v1/login", "sign_in"),
    ("/api/v1/logout", "sign_in"),
    ("/api/v1/password", "sign_in"),
    ("/api/v1/leases", "leases"),
    ("/api/v1/sync", "sync"),
    ("/api/v1/nodes/enrol", "certificates"),
    ("/api/v1/nodes/certificate", "certificates"),
    ("/api/v1/devices/certificate", "certificates"),
    ("/api/v1/nodes/records", "records"),
];

fn class(method: &Method, path: &str) -> &'static str {
    let known = CLASSES.iter().find(|(known, _)| path == *known).map(|(_, class)| *class);
    known.unwrap_or_else(|| match path.starts_with("/api/v1/") {
        true if *method == Method::GET || *method == Method::HEAD => "read",
        true => "change",
        false => "other",
    })
}

/// Counts a request and its answer.
pub async fn measure(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let class = class(request.method(), request.uri().path());
    let signs_in = request.uri().path() == "/api/v1/login" && *request.method() == Method::POST;
    let begun = Instant::now();
    let response = next.run(request).await;
    let code = response.extensions().get::<RefusalCode>().map(|code| code.0.as_str());
    metrics.note_request((class, signs_in), response.status().as_u16(), code, begun.elapsed());
    response
}

impl Metrics {
    /// `class`, and whether somebody signs in.
    pub(super) fn note_request(
        &self,
        (class, signs_in): (&'static str, bool),
        status: u16,
        code: Option<&str>,
        took: Duration,
    ) {
        let status = match status {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.get_or_create(&Answered { class, status }).inc();
        self.request_seconds.get_or_create(&Class { class }).observe(took.as_secs_f64());
        let outcome = || Outcome { outcome: code.unwrap_or("accepted").to_owned() };
        if signs_in {
            self.sign_ins.get_or_create(&outcome()).inc();
        }
        let Some(code) = code else { return };
        self.refused.get_or_create(&Refused { class, code: code.to_owned() }).inc();
        if class == "leases" {
            self.leases.get_or_create(&outcome()).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_makes_a_class_of_its_own() {
        for (method, path, expected) in [
            (Method::POST, "/api/v1/login", "sign_in"),
            (Method::POST, "/api/v1/leases", "leases"),
            (Method::GET, "/api/v1/resources/res_01JABCDEFGHJKMNPQRSTVWXYZ0", "read"),
            (Method::DELETE, "/api/v1/resources/res_01JABCDEFGHJKMNPQRSTVWXYZ0", "change"),
            (Method::GET, "/wp-login.php", "other"),
        ] {
            assert_eq!(class(&method, path), expected, "{path}");
        }
    }
}
