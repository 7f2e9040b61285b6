//! How connections to a node that listens arrive: options of gateways and workers.

use clap::Args;
use ipnet::IpNet;
use postern_tunnel::node::Balancers;

/// What stands before a node.
#[derive(Args, Clone, Debug, Default)]
pub struct ArrivalOptions {
    /// Balancers before this node, as networks (10.0.0.0/24) or addresses: connections from there must begin with a PROXY
    /// protocol header (version 2) that says whose they are, and nobody else's may. May be given several times
    #[arg(long = "proxy-protocol-from", env = "POSTERN_PROXY_PROTOCOL_FROM", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    proxy_protocol_from: Vec<IpNet>,
}

impl ArrivalOptions {
    #[must_use]
    pub fn balancers(&self) -> Balancers {
        Balancers::new(self.proxy_protocol_from.clone())
    }
}

/// A network, or an address as a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)));
    network.ok_or_else(|| "give a network, such as 10.0.0.0/24, or an address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_read() {
        assert_eq!(network("10.0.0.0/24").unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(network(" 10.0.0.7 ").unwrap().to_string(), "10.0.0.7/32");
        assert_eq!(network("2001:db8::7").unwrap().to_string(), "2001:db8::7/128");
        for bad in ["", "10.0.0.0/33", "balancer.example", "10.0.0"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
