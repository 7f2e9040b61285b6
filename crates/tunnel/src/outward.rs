//! How connections leave this machine: straight, or through the HTTPS proxy of its network (HTTP `CONNECT`, RFC 9110
//! §9.3.6, with Basic credentials where the proxy wants them).
//!
//! What goes through a proxy is TLS from end to end: the proxy learns the name and port that are dialled and nothing else.
//! The name is resolved by the proxy. Credentials are shown to the proxy alone and never logged.

mod connect;
mod exempt;

use std::{
    fmt, io,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::net::{TcpStream, lookup_host};
use zeroize::Zeroizing;

pub use self::connect::ProxyError;
use self::exempt::Exempt;
use crate::happy_eyeballs;

/// The port of a proxy whose address does not say one.
const DEFAULT_PORT: u16 = 80;

/// The way out. Cheap to clone; the default is straight.
#[derive(Clone, Default)]
pub struct Outward(Option<Arc<Proxied>>);

static INSTALLED: OnceLock<Outward> = OnceLock::new();

struct Proxied {
    proxy: HttpsProxy,
    exempt: Exempt,
    /// The proxy is that of the environment, which is meant for other programs too: a name of this machine is not asked
    /// of it.
    from_environment: bool,
}

/// A proxy.
#[derive(Clone)]
pub(crate) struct HttpsProxy {
    host: String,
    port: u16,
    user: Option<String>,
    /// `user:password`.
    credentials: Option<Zeroizing<String>>,
}

/// What a program was told about proxies.
#[derive(Default)]
pub struct ProxySettings {
    /// The proxy's address, or `off`; wins over the environment.
    pub proxy: Option<String>,
    /// `user:password`, when they do not stand in the address.
    pub credentials: Option<Zeroizing<String>>,
}

/// An address of a proxy that cannot be used. It may hold a password, so it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    #[error("the address of the HTTPS proxy cannot be read; write http://proxy.example:3128, or \"off\"")]
    Address,
    #[error(
        "the HTTPS proxy cannot be spoken to with TLS or SOCKS; write http://, as almost every proxy wants: what goes through it is TLS all the same"
    )]
    Scheme,
    #[error("the credentials for the HTTPS proxy cannot be read; write user:password, without control characters")]
    Credentials,
    #[error("credentials are given, and no HTTPS proxy that they are for")]
    NoProxy,
}

impl Outward {
    /// From what this program was told, else from the environment: `HTTPS_PROXY` and `NO_PROXY`, in either case.
    pub fn new(settings: ProxySettings, environment: impl Fn(&str) -> Option<String>) -> Result<Self, BadProxy> {
        let either = |upper: &str, lower: &str| environment(upper).or_else(|| environment(lower));
        let given = settings.proxy.map(|proxy| proxy.trim().to_owned());
        let from_environment = given.is_none();
        let address = given.or_else(|| either("HTTPS_PROXY", "https_proxy")).unwrap_or_default();
        if address.is_empty() || address.eq_ignore_ascii_case("off") {
            // For a proxy of the environment, which is gone at the moment, they may stand there.
            let missing = !from_environment && !address.eq_ignore_ascii_case("off") && settings.credentials.is_some();
            return if missing { Err(BadProxy::NoProxy) } else { Ok(Self::default()) };
        }
        let mut proxy = HttpsProxy::parse(&address)?;
        if let Some(credentials) = settings.credentials {
            proxy = proxy.with_credentials(&credentials)?;
        }
        let exempt = Exempt::parse(&either("NO_PROXY", "no_proxy").unwrap_or_default());
        Ok(Self(Some(Arc::new(Proxied { proxy, exempt, from_environment }))))
    }

    /// Has every connection of this process to the control plane and to nodes leave so, unless it is told otherwise: one
    /// that nobody thought of would go past the proxy. Called once, early in `main`; calling it again does nothing.
    pub fn install(settings: ProxySettings) -> Result<(), BadProxy> {
        Self::install_from(settings, |name| std::env::var(name).ok())
    }

    /// The same for a service, which does not take a proxy for its own that the environment has for other programs. What
    /// `NO_PROXY` names is dialled past the given one.
    pub fn install_given(settings: ProxySettings) -> Result<(), BadProxy> {
        let exempt = |name: &str| name.eq_ignore_ascii_case("NO_PROXY");
        Self::install_from(settings, |name| std::env::var(name).ok().filter(|_| exempt(name)))
    }

    fn install_from(settings: ProxySettings, environment: impl Fn(&str) -> Option<String>) -> Result<(), BadProxy> {
        let _ = INSTALLED.set(Self::new(settings, environment)?);
        Ok(())
    }

    /// What was installed; straight where nothing was.
    #[must_use]
    pub fn installed() -> Self {
        INSTALLED.get().cloned().unwrap_or_default()
    }

    /// The proxy for a host and port, for people: with the user's name, without the password. `None`: straight.
    #[must_use]
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<String> {
        Some(self.chosen(host, port)?.to_string())
    }

    /// The proxy that there is, for people.
    #[must_use]
    pub fn proxy(&self) -> Option<String> {
        Some(self.0.as_ref()?.proxy.to_string())
    }

    /// Whether the proxy is that of the environment.
    #[must_use]
    pub fn is_from_environment(&self) -> bool {
        self.0.as_ref().is_some_and(|proxied| proxied.from_environment)
    }

    /// [`Outward::proxy_for`] an address with its port.
    #[must_use]
    pub fn proxy_for_address(&self, address: &str) -> Option<String> {
        let (host, port) = split(address)?;
        self.proxy_for(host, port)
    }

    /// Connects to `host`, a name or an address without brackets.
    pub async fn connect(&self, host: &str, port: u16, limit: Duration) -> Result<TcpStream, OutwardError> {
        let Some(proxy) = self.chosen(host, port) else {
            return Ok(straight(host, port, limit).await?);
        };
        let failed = |error| OutwardError::Proxy { proxy: proxy.to_string(), error };
        let mut stream =
            straight(&proxy.host, proxy.port, limit).await.map_err(|error| failed(ProxyError::Unreachable(error)))?;
        connect::ask(&mut stream, host, port, proxy.credentials.as_ref().map(|pair| pair.as_str()))
            .await
            .map_err(failed)?;
        Ok(stream)
    }

    fn chosen(&self, host: &str, port: u16) -> Option<&HttpsProxy> {
        let proxied = self.0.as_deref()?;
        let here = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        let straight = (here && proxied.from_environment) || proxied.exempt.matches(host, port);
        (!straight).then_some(&proxied.proxy)
    }
}

impl fmt::Debug for Outward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outward").field(&self.proxy()).finish()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OutwardError {
    #[error(transparent)]
    Unreachable(#[from] io::Error),
    #[error("the HTTPS proxy {proxy} {error}")]
    Proxy { proxy: String, error: ProxyError },
}

impl From<OutwardError> for io::Error {
    fn from(error: OutwardError) -> Self {
        match error {
            OutwardError::Unreachable(error) => error,
            proxied @ OutwardError::Proxy { .. } => Self::other(proxied),
        }
    }
}

/// Splits `host:port`, with brackets around an IPv6 address.
pub(crate) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

async fn straight(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => lookup_host((host, port)).await?.collect(),
    };
    Ok(happy_eyeballs::connect(&addresses, limit).await?.0)
}

impl HttpsProxy {
    fn parse(address: &str) -> Result<Self, BadProxy> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(BadProxy::Scheme);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match authority.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, authority),
        };
        let (host, port) = if has_port(place) {
            split(place).ok_or(BadProxy::Address)?
        } else {
            (place.trim_start_matches('[').trim_end_matches(']'), DEFAULT_PORT)
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c) || (!c.is_ascii() && !c.is_control());
        if host.is_empty() || !host.chars().all(plain) || port == 0 {
            return Err(BadProxy::Address);
        }
        let proxy = Self { host: host.to_owned(), port, user: None, credentials: None };
        let Some(credentials) = credentials else { return Ok(proxy) };
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let decoded = |part| decode_percent(part).ok_or(BadProxy::Credentials);
        let pair = Zeroizing::new(format!("{}:{}", decoded(user)?.as_str(), decoded(password)?.as_str()));
        proxy.with_credentials(&pair)
    }

    fn with_credentials(mut self, pair: &str) -> Result<Self, BadProxy> {
        let pair = pair.trim_end_matches(['\r', '\n']);
        let (user, _) = pair.split_once(':').ok_or(BadProxy::Credentials)?;
        if user.is_empty() || pair.chars().any(char::is_control) {
            return Err(BadProxy::Credentials);
        }
        self.user = Some(user.to_owned());
        self.credentials = Some(Zeroizing::new(pair.to_owned()));
        Ok(self)
    }
}

/// As people know it: no password.
impl fmt::Display for HttpsProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn has_port(place: &str) -> bool {
    let after = place.rsplit_once(']').map_or(place, |(_, after)| after);
    after.contains(':')
}

fn decode_percent(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(*high)? * 16 + digit(*low)?);
        rest = after;
    }
    Some(Zeroizing::new(String::from_utf8(bytes.to_vec()).ok()?))
}

#[cfg(test)]
mod tests;
