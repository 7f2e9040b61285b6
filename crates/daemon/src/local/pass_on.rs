//! Calls of the control plane's REST API that are made with the login of this service.

use bytes::Bytes;
use http::Method;
use postern_local_api::message::{ControlAnswer, ControlCall};
use postern_proto::problem::Problem;
use postern_tunnel::control::ControlClient;

use crate::sign_in::control_problem;

const PREFIX: &str = "/api/v1/";
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
/// Paths of machines (`postern_proto::api`): what they hand out or take in belongs to the service or the node alone.
const OWN: [&str; 9] = [
    "login",
    "logout",
    "leases",
    "sync",
    "nodes/enrol",
    "nodes/certificate",
    "nodes/records",
    "devices/certificate",
    "devices/events",
];

/// Makes the call and hands back the answer as it is.
///
/// # Errors
/// A call that is not allowed, or a control plane that cannot be reached.
pub(super) async fn pass_on(client: &ControlClient, call: ControlCall) -> Result<ControlAnswer, Problem> {
    let method = check(&call)?;
    let body = call.body.as_ref().map(|body| Bytes::from(body.to_string()));
    let answer = client.request(method, &call.path, body).await.map_err(control_problem)?;
    let body = if answer.body.is_empty() {
        serde_json::Value::Null
    } else if answer.media_type.ends_with("json")
        && let Ok(json) = serde_json::from_slice(&answer.body)
    {
        json
    } else {
        String::from_utf8_lossy(&answer.body).into_owned().into()
    };
    Ok(ControlAnswer { status: answer.status.as_u16(), body })
}

/// Whether a successful answer means that the account has chosen a new password.
pub(super) fn changes_password(call: &ControlCall) -> bool {
    call.method == "POST" && call.path == "/api/v1/password"
}

fn check(call: &ControlCall) -> Result<Method, Problem> {
    let refuse = |why: &str| Problem::new(400, "call_not_allowed", "This call is not passed on").with_detail(why);
    let method = METHODS
        .into_iter()
        .find(|method| method.as_str() == call.method)
        .ok_or_else(|| refuse("the method is none of GET, POST, PATCH, PUT and DELETE"))?;
    let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
    let rest = path.strip_prefix(PREFIX).ok_or_else(|| refuse("the path does not begin with /api/v1/"))?;
    // A plain path has one reading: whoever stands in between cannot see another one in it.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte);
    if !rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)) {
        return Err(refuse("the path holds more than names, numbers and single slashes"));
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(refuse("the query holds characters that must be encoded"));
    }
    let is_own = |own: &str| rest.strip_prefix(own).is_some_and(|more| more.is_empty() || more.starts_with('/'));
    if OWN.into_iter().any(is_own) {
        return Err(refuse("this call is the service's own"));
    }
    Ok(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(method: &str, path: &str) -> bool {
        check(&ControlCall { method: method.to_owned(), path: path.to_owned(), body: None }).is_ok()
    }

    #[test]
    fn the_administration_api_is_passed_on() {
        for path in [
            "/api/v1/accounts",
            "/api/v1/roles/rol_1/members?limit=5&filter=a%20b",
            "/api/v1/audit/verify",
            "/api/v1/nodes",
            "/api/v1/nodes/nod_1/drain",
        ] {
            assert!(is_allowed("GET", path), "{path}");
        }
        for method in ["POST", "PATCH", "PUT", "DELETE"] {
            assert!(is_allowed(method, "/api/v1/accounts"), "{method}");
        }
    }

    #[test]
    fn other_methods_and_paths_that_have_two_readings_are_refused() {
        for method in ["get", "HEAD", "CONNECT", "TRACE", "OPTIONS", "GET /x HTTP/1.1\r\n", ""] {
            assert!(!is_allowed(method, "/api/v1/accounts"), "{method}");
        }
        for path in [
            "",
            "/",
            "/api/v1",
            "/api/v2/accounts",
            "/api/v1/../v2/x",
            "/api/v1/./accounts",
            "/api/v1//accounts",
            "/api/v1/accounts/",
            "/api/v1/%2e%2e/x",
            "/api/v1/a%2fb",
            "/api/v1/a\\b",
            "/api/v1/a b",
            "/api/v1/a\r\nX: y",
            "/api/v1/accounts?a=\r\nX: y",
            "/api/v1/accounts?a#b",
            "/api/v1/accounts#b",
            "//evil.example/api/v1/accounts",
            "https://evil.example/api/v1/accounts",
            "/api/v1/@evil/..",
        ] {
            assert!(!is_allowed("GET", path), "{path}");
        }
    }

    #[test]
    fn tokens_certificates_and_leases_stay_with_the_service() {
        for path in OWN {
            assert!(!is_allowed("POST", &format!("/api/v1/{path}")), "{path}");
            assert!(!is_allowed("GET", &format!("/api/v1/{path}/more")), "{path}");
        }
        assert!(is_allowed("GET", "/api/v1/devices"));
        assert!(is_allowed("GET", "/api/v1/leases-report"));
    }
}
