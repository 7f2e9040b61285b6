use std::{fmt, net::IpAddr, str::FromStr};

use rustls::pki_types::ServerName;

/// Where the control plane is: `https://host[:port]`, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlUrl {
    host: String,
    port: u16,
}

/// Why a text is no address of a control plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is no address of a control plane: {reason}; write it as https://control.example.org or https://10.0.0.5:8443"
)]
pub struct BadUrl {
    url: String,
    reason: &'static str,
}

impl ControlUrl {
    /// The host without brackets: a DNS name or an IP address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header: with brackets round IPv6, without the default port.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    /// The name that the certificate must carry exactly: a DNS SAN, or an IP SAN when the host is an IP address.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Some(ServerName::IpAddress(ip.into())),
            Err(_) => ServerName::try_from(self.host.clone()).ok(),
        }
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for ControlUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = |reason| BadUrl { url: text.chars().take(200).collect(), reason };
        let uri: http::Uri = text.parse().map_err(|_| bad("it is not a URL"))?;
        if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(bad("it does not begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it holds more than a host and a port"));
        }
        let authority = uri.authority().ok_or_else(|| bad("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() != authority.host() => {
                return Err(bad("the port is not a number from 1 to 65535"));
            }
            None => 443,
        };
        let url = Self { host: host.to_ascii_lowercase(), port };
        if port == 0 || url.server_name().is_none() {
            return Err(bad("the host is neither a DNS name nor an IP address, or the port is 0"));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_ip_literals_are_read() {
        for (text, authority) in [
            ("https://Control.Example.org", "control.example.org"),
            ("https://control.example.org:443/", "control.example.org"),
            ("https://127.0.0.1:8443", "127.0.0.1:8443"),
            ("https://[::1]:8443", "[::1]:8443"),
            ("https://localhost:1", "localhost:1"),
        ] {
            assert_eq!(text.parse::<ControlUrl>().unwrap().authority(), authority, "{text}");
        }
        let ip: ControlUrl = "https://[::1]:8443".parse().unwrap();
        assert!(matches!(ip.server_name(), Some(ServerName::IpAddress(_))));
    }

    #[test]
    fn anything_but_https_host_and_port_is_refused() {
        for text in [
            "",
            "control",
            "http://control",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://user@a",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://a b",
            "https://-_-!",
        ] {
            assert!(text.parse::<ControlUrl>().is_err(), "{text}");
        }
    }
}
