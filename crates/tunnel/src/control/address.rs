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

/// Where the replicas of a control plane are: one address or several, of which any will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlUrls {
    first: ControlUrl,
    more: Vec<ControlUrl>,
}

impl ControlUrls {
    /// More are refused: each is tried before an attempt fails.
    pub const MOST: usize = 16;

    pub fn iter(&self) -> impl Iterator<Item = &ControlUrl> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// How many there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.more.len() + 1
    }

    /// The one with this number, counted round and round.
    pub(super) fn at(&self, number: usize) -> &ControlUrl {
        self.iter().nth(number % self.count()).unwrap_or(&self.first)
    }

    /// Whether one of them is among the others: replicas of one control plane.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.iter().any(|url| other.iter().any(|other| other == url))
    }

    /// `None` of no address. Those that are there twice count once.
    pub fn from_list(urls: impl IntoIterator<Item = ControlUrl>) -> Result<Option<Self>, BadUrl> {
        let mut distinct: Vec<ControlUrl> = Vec::new();
        for url in urls {
            if !distinct.contains(&url) {
                distinct.push(url);
            }
        }
        if distinct.len() > Self::MOST {
            return Err(BadUrl { url: join(&distinct), reason: "there are more than 16 addresses" });
        }
        let mut distinct = distinct.into_iter();
        Ok(distinct.next().map(|first| Self { first, more: distinct.collect() }))
    }
}

impl From<ControlUrl> for ControlUrls {
    fn from(first: ControlUrl) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl fmt::Display for ControlUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(self.iter()))
    }
}

impl FromStr for ControlUrls {
    type Err = BadUrl;

    /// Addresses with commas between.
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let urls: Vec<ControlUrl> = text.split(',').map(|url| url.trim().parse()).collect::<Result<_, _>>()?;
        Self::from_list(urls)?.ok_or(BadUrl { url: String::new(), reason: "it is not a URL" })
    }
}

fn join<'a>(urls: impl IntoIterator<Item = &'a ControlUrl>) -> String {
    urls.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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

    #[test]
    fn several_addresses_have_commas_between_and_count_once() {
        let urls: ControlUrls = "https://a.example, https://b.example:8443,https://A.example/".parse().unwrap();
        assert_eq!(urls.to_string(), "https://a.example,https://b.example:8443");
        assert_eq!(
            (urls.count(), urls.at(0).host(), urls.at(1).host(), urls.at(2).host()),
            (2, "a.example", "b.example", "a.example")
        );
        assert_eq!(urls.to_string().parse::<ControlUrls>().unwrap(), urls);
        let one = ControlUrls::from("https://b.example:8443".parse::<ControlUrl>().unwrap());
        assert!(one.meets(&urls) && urls.meets(&one));
        assert!(!one.meets(&"https://b.example".parse().unwrap()), "another port is another server");
        for text in ["", ",", "https://a,", "https://a,b", "https://a https://b"] {
            assert!(text.parse::<ControlUrls>().is_err(), "{text}");
        }
        let many: Vec<String> = (0..17).map(|n| format!("https://c{n}.example")).collect();
        assert!(many.join(",").parse::<ControlUrls>().is_err());
    }
}
