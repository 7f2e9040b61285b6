//! The status port serves scripts of the user that know the token, and no web page, whatever it sends.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use postern_tests::{figure, stack::Stack};

const WORKERS: usize = 8;

/// One request: each field is a header line without its end, or nothing.
#[derive(Clone, Debug)]
struct Attempt {
    method: &'static str,
    path: String,
    host: Vec<String>,
    origin: Option<String>,
    referer: Option<String>,
    site: Option<&'static str>,
    token: Option<String>,
}

impl Attempt {
    /// What a script of the user sends.
    fn honest(address: SocketAddr, token: &str) -> Self {
        Self {
            method: "GET",
            path: "/v1/status".to_owned(),
            host: vec![address.to_string()],
            origin: None,
            referer: None,
            site: None,
            token: Some(format!("Bearer {token}")),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{} {} HTTP/1.1", self.method, self.path), "Connection: close".to_owned()];
        lines.extend(self.host.iter().map(|host| format!("Host: {host}")));
        lines.extend(self.origin.iter().map(|origin| format!("Origin: {origin}")));
        lines.extend(self.referer.iter().map(|referer| format!("Referer: {referer}")));
        lines.extend(self.site.iter().map(|site| format!("Sec-Fetch-Site: {site}")));
        lines.extend(self.token.iter().map(|token| format!("Authorization: {token}")));
        if self.method != "GET" && self.method != "HEAD" && self.method != "OPTIONS" {
            lines.push("Content-Length: 0".to_owned());
        }
        lines.join("\r\n") + "\r\n\r\n"
    }

    /// The whole answer; empty when the connection was closed without one.
    fn send(&self, to: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(self.text().as_bytes())?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Whether an answer gave anything away or opened a door to a page: any 2xx, any permission for cross-origin use.
fn accepted(answer: &str) -> bool {
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let lower = answer.to_ascii_lowercase();
    status.starts_with('2') || lower.contains("access-control-allow") || lower.contains("\"resources\"")
}

/// Every combination but the honest ones.
fn matrix(address: SocketAddr, token: &str) -> Vec<Attempt> {
    let port = address.port();
    let hosts = [
        vec![address.to_string()],
        vec![format!("0.0.0.0:{port}")],
        vec!["127.0.0.1".to_owned()],
        vec![format!("127.0.0.1:{}", port.wrapping_add(1))],
        vec![format!("evil.example:{port}")],
        vec![format!("127.0.0.1.evil.example:{port}")],
        vec![format!("user@127.0.0.1:{port}")],
        vec![String::new()],
        vec![],
        vec![address.to_string(), format!("evil.example:{port}")],
    ];
    let origins =
        [None, Some("null".to_owned()), Some("https://evil.example".to_owned()), Some(format!("http://{address}"))];
    let referers = [None, Some(format!("http://{address}/")), Some(String::new())];
    let sites = [None, Some("none"), Some("same-origin"), Some("same-site"), Some("cross-site"), Some("")];
    let short = token.get(..token.len() - 1).unwrap_or_default();
    let tokens = [
        Some(format!("Bearer {token}")),
        None,
        Some(format!("Bearer {short}")),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {token}")),
    ];
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
    let mut attempts = Vec::new();
    for host in &hosts {
        for origin in &origins {
            for referer in &referers {
                for site in sites {
                    for token in &tokens {
                        for method in methods {
                            attempts.push(Attempt {
                                method,
                                path: "/v1/status".to_owned(),
                                host: host.clone(),
                                origin: origin.clone(),
                                referer: referer.clone(),
                                site,
                                token: token.clone(),
                            });
                        }
                    }
                }
            }
        }
    }
    let honest = |attempt: &Attempt| {
        ["GET", "HEAD"].contains(&attempt.method)
            && attempt.host == [address.to_string()]
            && attempt.origin.is_none()
            && attempt.referer.is_none()
            && matches!(attempt.site, None | Some("none"))
            && attempt.token.as_deref() == Some(format!("Bearer {token}").as_str())
    };
    attempts.retain(|attempt| !honest(attempt));
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn no_combination_of_headers_but_the_honest_one_is_answered() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).start().await?;
    let (address, token) = stack.user().status_port().await?;
    let attempts = matrix(address, &token);
    let total = attempts.len();
    let honest = Attempt::honest(address, &token);
    let wrong = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<String>> {
        assert!(honest.send(address)?.starts_with("HTTP/1.1 200"), "the honest request must work");
        let workers: Vec<_> = attempts
            .chunks(attempts.len().div_ceil(WORKERS))
            .map(<[Attempt]>::to_vec)
            .map(|chunk| {
                std::thread::spawn(move || -> std::io::Result<Vec<String>> {
                    let mut wrong = Vec::new();
                    for attempt in chunk {
                        let answer = attempt.send(address)?;
                        if accepted(&answer) {
                            wrong.push(format!("{attempt:?}\n{answer}"));
                        }
                    }
                    Ok(wrong)
                })
            })
            .collect();
        let mut wrong = Vec::new();
        for worker in workers {
            wrong.extend(worker.join().map_err(|_| std::io::Error::other("a worker panicked"))??);
        }
        assert!(honest.send(address)?.starts_with("HTTP/1.1 200"), "the honest request must still work");
        Ok(wrong)
    })
    .await??;
    figure::say(&format!("{total} combinations, {} accepted", wrong.len()));
    assert!(wrong.is_empty(), "{} of {total} were accepted, for example {}", wrong.len(), wrong[0]);
    stack.stop().await
}

/// What changes something is on the socket only.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed_through_the_status_port() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).start().await?;
    let (address, token) = stack.user().status_port().await?;
    for path in [
        "/v1/login",
        "/v1/logout",
        "/v1/lock",
        "/v1/unlock",
        "/v1/connect",
        "/v1/disconnect",
        "/v1/control",
        "/v1/shutdown",
    ] {
        for method in ["GET", "POST", "PUT"] {
            let attempt = Attempt { method, path: path.to_owned(), ..Attempt::honest(address, &token) };
            let answer = tokio::task::spawn_blocking(move || attempt.send(address)).await??;
            assert!(!accepted(&answer), "{method} {path}: {answer}");
        }
    }
    stack.user().status().await?;
    stack.stop().await
}

/// The token is for the user alone.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_can_read_the_token() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let stack = Stack::builder().gateways(0).start().await?;
    let status = stack.user().status().await?;
    let postern_local_api::message::StatusApi::Listening { token_file, .. } = status.status_api else {
        anyhow::bail!("the status port is {:?}", status.status_api)
    };
    let mode = std::fs::metadata(&token_file)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{token_file}");
    stack.stop().await
}
