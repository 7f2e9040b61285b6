use std::{net::SocketAddr, str::FromStr};

use serde::Serialize;

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

/// Where liveness and metrics are served, when they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MonitorPlaces {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
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
}
