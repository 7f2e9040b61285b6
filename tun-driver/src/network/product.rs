//! Which product an interface or a network looks like. A guess for people, by the names and ranges that products use.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

/// A program, or a kind of network, that brings interfaces or networks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product(&'static Entry);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    /// Names of its interfaces; with a final `*`: how they begin.
    interfaces: &'static [&'static str],
    /// What it keeps to itself beyond its addresses and routes.
    reserves: &'static [Ipv4Net],
}

/// More particular names come first.
const PRODUCTS: &[Entry] = &[
    // Its packet filter drops what comes from anywhere in this range by another interface.
    Entry { name: "Tailscale", interfaces: &["tailscale*"], reserves: &[net(100, 64, 0, 10)] },
    Entry { name: "Cloudflare WARP", interfaces: &["CloudflareWARP*"], reserves: &[net(100, 96, 0, 12)] },
    Entry { name: "Zscaler", interfaces: &["zcctun*", "zscaler*", "zpa*"], reserves: &[net(100, 64, 0, 16)] },
    plain("NetBird", &["wt0", "netbird*", "nb-*"]),
    plain("Firezone", &["tun-firezone*", "firezone*"]),
    plain("Twingate", &["sdwan*", "twingate*"]),
    plain("Teleport VNet", &["TeleportVNet*"]),
    plain("OpenZiti", &["ziti*"]),
    plain("Pangolin", &["olm*", "newt*", "pangolin*"]),
    plain("Hoop", &["hsh*", "hoop*"]),
    plain("Defguard", &["defguard*"]),
    plain("ZeroTier", &["zt*"]),
    plain("Mullvad", &["wg0-mullvad", "wg-mullvad", "mullvad*"]),
    plain("NordVPN", &["nordlynx*", "nordtun*"]),
    plain("Proton VPN", &["proton*", "pvpn*"]),
    plain("GlobalProtect", &["gpd*"]),
    plain("Cisco AnyConnect", &["cscotun*"]),
    plain("FortiClient", &["fctvpn*"]),
    plain("Docker", &["docker*", "br-????????????"]),
    plain("Podman", &["podman*", "cni-podman*"]),
    plain("Kubernetes", &["cni*", "flannel*", "cali*", "cilium*", "kube-*", "weave*", "nodelocaldns"]),
    plain("libvirt", &["virbr*"]),
    plain("LXD or Incus", &["lxdbr*", "lxcbr*", "incusbr*"]),
    plain("VirtualBox", &["vboxnet*"]),
    plain("VMware", &["vmnet*"]),
    plain("a mobile network", &["wwan*", "rmnet*"]),
    plain("a WireGuard tunnel", &["wg*"]),
    plain("a PPP link", &["ppp*"]),
    plain("a VPN", &["tun*", "tap*", "ipsec*", "vti*", "utun*"]),
];

/// Who is known to live where in 100.64.0.0/10, when no interface tells. Narrower ranges come first.
const RANGES: &[(Ipv4Net, Product)] = &[
    (net4([100, 100, 100, 100], 32), Product(&plain("Tailscale", &[]))),
    (net4([100, 100, 111, 0], 24), Product(&plain("Firezone", &[]))),
    (net4([100, 100, 2, 136], 30), Product(&plain("Alibaba Cloud", &[]))),
    (net4([100, 115, 92, 0], 23), Product(&plain("ChromeOS", &[]))),
    (net4([100, 96, 128, 0], 20), Product(&plain("Pangolin", &[]))),
];

const fn plain(name: &'static str, interfaces: &'static [&'static str]) -> Entry {
    Entry { name, interfaces, reserves: &[] }
}

const fn net(a: u8, b: u8, c: u8, prefix: u8) -> Ipv4Net {
    net4([a, b, c, 0], prefix)
}

const fn net4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

impl Product {
    pub(crate) fn of_interface(name: &str) -> Option<Self> {
        let has = |entry: &&Entry| entry.interfaces.iter().any(|pattern| fits(pattern, name));
        PRODUCTS.iter().find(has).map(Product)
    }

    /// For networks that no telling interface has.
    pub(crate) fn of_network(network: IpNet) -> Option<Self> {
        let IpNet::V4(network) = network else { return None };
        RANGES.iter().find(|(range, _)| range.contains(&network)).map(|(_, product)| *product)
    }

    pub(crate) const fn name(self) -> &'static str {
        self.0.name
    }

    /// Networks that it keeps to itself wherever it runs, whatever its routes say.
    pub(crate) fn reserves(self) -> impl Iterator<Item = IpNet> {
        self.0.reserves.iter().map(|network| IpNet::V4(*network))
    }
}

/// `?` is any one character, a final `*` any rest.
fn fits(pattern: &str, name: &str) -> bool {
    let same = |(pattern, name): (char, char)| pattern == '?' || pattern.eq_ignore_ascii_case(&name);
    match pattern.strip_suffix('*') {
        Some(start) => name.len() >= start.len() && start.chars().zip(name.chars()).all(same),
        None => pattern.len() == name.len() && pattern.chars().zip(name.chars()).all(same),
    }
}
