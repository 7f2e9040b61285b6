//! Which addresses a node may dial. The rule looks at the resolved address, in whatever form it hides an IPv4 address;
//! what a host name looks like says nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    Loopback,
    LinkLocal,
    /// Where clouds serve credentials to whoever asks.
    Metadata,
    /// An address of this machine.
    OwnAddress,
    ControlPlane,
    /// Never the address of one machine: unspecified, multicast, broadcast, reserved.
    NotOneMachine,
}

impl Forbidden {
    /// Whether `allow_local` lifts it.
    #[must_use]
    pub const fn can_be_allowed(self) -> bool {
        !matches!(self, Self::NotOneMachine)
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a metadata service",
            Self::OwnAddress => "an address of the node itself",
            Self::ControlPlane => "the control plane",
            Self::NotOneMachine => "not the address of one machine",
        })
    }
}

/// Metadata services that are not link-local.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google
];

/// What an address is by itself, on whatever machine. `None`: it may be dialled.
#[must_use]
pub fn judge(ip: IpAddr) -> Option<Forbidden> {
    match ip {
        IpAddr::V4(ip) => judge_v4(ip),
        IpAddr::V6(ip) => judge_v6(ip).or_else(|| embedded(ip).into_iter().flatten().find_map(judge_v4)),
    }
}

fn judge_v4(ip: Ipv4Addr) -> Option<Forbidden> {
    let [first, ..] = ip.octets();
    if METADATA_V4.contains(&ip) || ip == Ipv4Addr::new(169, 254, 169, 254) {
        Some(Forbidden::Metadata)
    } else if ip.is_loopback() {
        Some(Forbidden::Loopback)
    } else if ip.is_link_local() {
        Some(Forbidden::LinkLocal)
    } else if first == 0 || first >= 224 {
        // 0.0.0.0/8 reaches this machine; 224/4 is multicast, 240/4 reserved with the broadcast address.
        Some(Forbidden::NotOneMachine)
    } else {
        None
    }
}

fn judge_v6(ip: Ipv6Addr) -> Option<Forbidden> {
    if METADATA_V6.contains(&ip) {
        Some(Forbidden::Metadata)
    } else if ip.is_loopback() {
        Some(Forbidden::Loopback)
    } else if ip.is_unicast_link_local() || ip.segments()[0] & 0xffc0 == 0xfec0 {
        // fec0::/10 is the site-local range of old.
        Some(Forbidden::LinkLocal)
    } else if ip.is_unspecified() || ip.is_multicast() {
        Some(Forbidden::NotOneMachine)
    } else {
        None
    }
}

/// The IPv4 addresses that an IPv6 address may lead to: mapped, compatible, translated (SIIT), NAT64, 6to4, Teredo,
/// ISATAP.
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let last = v4(g, h);
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff | 0) | (0, 0, 0, 0, 0xffff, 0) => [Some(last), None],
        (0x64, 0xff9b, ..) => [Some(last), None],
        (0x2002, ..) => [Some(v4(b, c)), None],
        (0x2001, 0, ..) => [Some(v4(!g, !h)), Some(v4(c, d))],
        (_, _, _, _, 0 | 0x200, 0x5efe) => [Some(last), None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_addresses_may_be_dialled() {
        for ip in ["10.0.0.1", "192.168.1.1", "172.16.0.9", "100.64.0.1", "8.8.8.8", "fd12::1", "2606:4700::1111"] {
            assert_eq!(judge(ip.parse().unwrap()), None, "{ip}");
        }
        for ip in ["::ffff:10.0.0.1", "64:ff9b::8.8.8.8", "2002:a00:1::1"] {
            assert_eq!(judge(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn forbidden_addresses_are_known_in_every_form() {
        use Forbidden::{LinkLocal, Loopback, Metadata, NotOneMachine};
        let table = [
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("::ffff:0:127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("64:ff9b:1::7f00:1", Loopback),
            ("2002:7f00:1::1", Loopback),
            ("2001:0:1:1::80ff:fffe", Loopback),
            ("fe80::5efe:127.0.0.1", LinkLocal),
            ("2606:4700::5efe:127.0.0.1", Loopback),
            ("169.254.169.254", Metadata),
            ("::ffff:169.254.169.254", Metadata),
            ("64:ff9b::169.254.169.254", Metadata),
            ("2002:a9fe:a9fe::", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("100.100.100.200", Metadata),
            ("::ffff:100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("192.0.0.192", Metadata),
            ("169.254.0.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("fec0::1", LinkLocal),
            ("0.0.0.0", NotOneMachine),
            ("0.1.2.3", NotOneMachine),
            ("::", NotOneMachine),
            ("::ffff:0.0.0.0", NotOneMachine),
            ("224.0.0.1", NotOneMachine),
            ("255.255.255.255", NotOneMachine),
            ("240.0.0.1", NotOneMachine),
            ("ff02::1", NotOneMachine),
        ];
        for (ip, expected) in table {
            assert_eq!(judge(ip.parse().unwrap()), Some(expected), "{ip}");
        }
    }
}
