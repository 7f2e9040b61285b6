//! Asking a proxy for a connection.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use zeroize::Zeroizing;

/// The longest head of an answer. Proxies explain themselves in bodies, which are not read.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// What a proxy did instead of connecting; a sentence that begins with the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error(
        "wants a user name and password, and none are given ({0}). Give them to posternd with --https-proxy-credentials-file, or in the proxy's address"
    )]
    CredentialsMissing(u16),
    #[error("does not accept the user name and password that it was given ({0}). Ask for the right ones")]
    CredentialsRefused(u16),
    #[error(
        "wants a sign-in of a kind that Postern does not speak ({0}; 407). Ask its administrator to allow Basic, or this address without sign-in"
    )]
    OtherCredentials(String),
    #[error(
        "does not allow connections to {target} ({status}). Many proxies allow port 443 only: ask its administrator to allow this address, or yours of Postern for an address with that port"
    )]
    Forbidden { target: String, status: u16 },
    #[error("cannot connect to {target} itself ({status}). The name may not exist, or nothing answers there")]
    NoWay { target: String, status: u16 },
    #[error("answers {status} when it is asked for a connection to {target}. Is it a proxy for HTTPS?")]
    Other { target: String, status: u16 },
    #[error("does not answer as an HTTP proxy does. Is the address right?")]
    NoProxy,
    #[error("closed the connection without an answer: {0}")]
    Closed(io::Error),
}

/// Has the proxy at the other end of `stream` connect it to `host` and `port`. Nothing of what follows its answer is read.
pub(super) async fn ask(
    stream: &mut TcpStream,
    host: &str,
    port: u16,
    credentials: Option<&str>,
) -> Result<(), ProxyError> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    request.push_str(concat!("User-Agent: postern/", env!("CARGO_PKG_VERSION"), "\r\n"));
    if let Some(credentials) = credentials {
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&Zeroizing::new(STANDARD.encode(credentials)));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(ProxyError::Closed)?;
    let head = read_head(stream).await?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(_)) = answer.parse(&head) else { return Err(ProxyError::NoProxy) };
    let status = answer.code.unwrap_or_default();
    match status {
        200..=299 => Ok(()),
        // tinyproxy says 401 of a wrong password.
        401 | 407 => Err(unauthorised(answer.headers, credentials.is_some(), status)),
        403 | 405 => Err(ProxyError::Forbidden { target, status }),
        404 | 500 | 502..=504 => Err(ProxyError::NoWay { target, status }),
        _ => Err(ProxyError::Other { target, status }),
    }
}

fn unauthorised(headers: &[httparse::Header<'_>], given: bool, status: u16) -> ProxyError {
    let offers = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
    let schemes: Vec<String> = offers
        .filter_map(|header| {
            let scheme = std::str::from_utf8(header.value).ok()?.split_whitespace().next()?;
            Some(scheme.chars().filter(char::is_ascii_alphanumeric).take(32).collect())
        })
        .collect();
    let basic = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    match (basic, given) {
        (false, _) => ProxyError::OtherCredentials(schemes.join(", ")),
        (true, true) => ProxyError::CredentialsRefused(status),
        (true, false) => ProxyError::CredentialsMissing(status),
    }
}

/// Reads up to the empty line, and nothing behind it: a server may speak first.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::new();
    let mut peeked = vec![0; 2048];
    loop {
        let count = stream.peek(&mut peeked).await.map_err(ProxyError::Closed)?;
        if count == 0 {
            return Err(ProxyError::Closed(io::ErrorKind::UnexpectedEof.into()));
        }
        let before = head.len();
        head.extend_from_slice(peeked.get(..count).unwrap_or_default());
        let end = head.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        let taken = end.map_or(count, |end| end - before);
        head.truncate(before + taken);
        let taken = peeked.get_mut(..taken).unwrap_or_default();
        stream.read_exact(taken).await.map_err(ProxyError::Closed)?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_HEAD {
            return Err(ProxyError::NoProxy);
        }
    }
}
