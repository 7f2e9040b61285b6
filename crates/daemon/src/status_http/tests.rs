//! Every combination of headers that a browser, a page behind a bent name, or a script could send.

use axum::body::Body;
use tower::ServiceExt as _;

use super::*;

const TOKEN: &str = "the-token-of-this-run";

/// What a test sends.
#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    path: &'static str,
    hosts: Vec<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
}

/// The checks with nothing behind them but a word.
fn guarded() -> Router {
    let address = SocketAddr::from(([127, 0, 0, 1], 65220));
    let guard = Guard { address, token: TOKEN.into() };
    Router::new()
        .route("/v1/hello", get(|| std::future::ready("inside")))
        .route("/v1/status", get(|| std::future::ready("inside")))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_call)
        .layer(middleware::from_fn_with_state(guard, check))
}

async fn send(sent: &Sent) -> Response {
    let mut request = Request::builder().method(sent.method).uri(sent.path);
    for host in &sent.hosts {
        request = request.header("Host", *host);
    }
    for (name, value) in &sent.headers {
        request = request.header(*name, *value);
    }
    guarded().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn out_of_the_whole_header_matrix_only_the_plain_request_of_a_script_is_accepted() {
    let hosts = [
        vec!["127.0.0.1:65220"],
        vec!["localhost:65220"],
        vec![],
        vec!["127.0.0.1"],
        vec!["localhost"],
        vec!["127.0.0.1:65221"],
        vec!["0.0.0.0:65220"],
        vec!["[::1]:65220"],
        vec!["evil.example:65220"],
        vec!["localhost.evil.example:65220"],
        vec!["LOCALHOST:65220"],
        vec![""],
        vec!["127.0.0.1:65220", "127.0.0.1:65220"],
        vec!["127.0.0.1:65220", "evil.example"],
    ];
    let origins = [None, Some("https://evil.example"), Some("http://127.0.0.1:65220"), Some("null"), Some("")];
    let referers = [None, Some("https://evil.example/"), Some("http://localhost:65220/"), Some("")];
    let sites =
        [None, Some("none"), Some("cross-site"), Some("same-site"), Some("same-origin"), Some("None"), Some("")];
    let tokens =
        [Some("Bearer the-token-of-this-run"), None, Some("Bearer wrong"), Some("the-token-of-this-run"), Some("")];
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let (mut accepted, mut all) = (0, 0);
    for host in &hosts {
        for origin in origins {
            for referer in referers {
                for site in sites {
                    for token in tokens {
                        for method in methods {
                            let mut headers = Vec::new();
                            headers.extend(origin.map(|value| ("Origin", value)));
                            headers.extend(referer.map(|value| ("Referer", value)));
                            headers.extend(site.map(|value| ("Sec-Fetch-Site", value)));
                            headers.extend(token.map(|value| ("Authorization", value)));
                            let sent = Sent { method, path: "/v1/status", hosts: host.clone(), headers };
                            let response = send(&sent).await;
                            let is_plain = host.len() == 1
                                && ["127.0.0.1:65220", "localhost:65220"].contains(&host[0])
                                && origin.is_none()
                                && referer.is_none()
                                && matches!(site, None | Some("none"))
                                && token == Some("Bearer the-token-of-this-run")
                                && method == "GET";
                            assert_eq!(response.status().is_success(), is_plain, "{sent:?}");
                            accepted += u32::from(response.status().is_success());
                            all += 1;
                            check_headers(&response);
                        }
                    }
                }
            }
        }
    }
    println!("{accepted} of {all} accepted");
    assert_eq!(accepted, 2 * 2);
}

/// On every answer, also of refusals: no word that lets a page read it.
fn check_headers(response: &Response) {
    let headers = response.headers();
    assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    assert_eq!(headers["x-frame-options"], "DENY");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
}

#[tokio::test]
async fn every_route_needs_the_token_and_other_paths_tell_nothing() {
    for path in ["/v1/hello", "/v1/status"] {
        let sent = Sent { method: "GET", path, hosts: vec!["127.0.0.1:65220"], headers: Vec::new() };
        assert_eq!(send(&sent).await.status(), 401, "{path}");
        let right = vec![("Authorization", "Bearer the-token-of-this-run")];
        assert_eq!(send(&Sent { headers: right, ..sent }).await.status(), 200, "{path}");
    }
    for path in ["/", "/v1/login", "/v1/connect", "/v1/../v1/status"] {
        let sent = Sent { method: "GET", path, hosts: vec!["127.0.0.1:65220"], headers: Vec::new() };
        assert_eq!(send(&sent).await.status(), 401, "{path}");
        let right = vec![("Authorization", "Bearer the-token-of-this-run")];
        assert_eq!(send(&Sent { headers: right, ..sent }).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn requests_for_a_proxy_and_repeated_tokens_are_refused() {
    let right = ("Authorization", "Bearer the-token-of-this-run");
    let hosts = vec!["127.0.0.1:65220"];
    let proxied =
        Sent { method: "GET", path: "http://127.0.0.1:65220/v1/status", hosts: hosts.clone(), headers: vec![right] };
    assert_eq!(send(&proxied).await.status(), 403);
    let twice = Sent { method: "GET", path: "/v1/status", hosts, headers: vec![right, right] };
    assert_eq!(send(&twice).await.status(), 401);
}
