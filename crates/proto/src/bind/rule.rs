//! The rules for settings, bind addresses and aliases.

use std::net::Ipv4Addr;

use super::{
    LOOPBACK_PORTS, MAX_HOSTS, MAX_VNM_PREFIX, VNM_PORTS,
    cidr::{Cidr, CidrError},
};
use crate::name::{DnsNameError, HostPattern, HostPatternError};

/// A rule that network settings or a bind address break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The field as the API names it.
    pub field: &'static str,
    pub value: String,
    pub rule: Rule,
}

/// The rules of this module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error(transparent)]
    Cidr(#[from] CidrError),
    #[error("must lie within 127.0.0.0/8")]
    NotLoopback,
    #[error("must be, or lie within, 100.64.0.0/10, 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")]
    NotVirtual,
    #[error("must not be smaller than /{MAX_VNM_PREFIX}")]
    SubnetTooSmall,
    #[error("must be an address of the loopback range {0}")]
    OutsideRange(Cidr),
    #[error("must be {0} while multi-loopback is off")]
    NotFirst(Ipv4Addr),
    #[error("must be an address of the virtual subnet {0}")]
    OutsideSubnet(Cidr),
    #[error("must not be the address of the network itself or its broadcast address")]
    NotAHost,
    #[error("must not be one of the first {count} addresses of the virtual subnet, which Postern itself uses")]
    Reserved { count: u32 },
    #[error("must lie in the lower half of the virtual subnet: the upper half is for hosts under wildcard aliases")]
    UpperHalf,
    #[error("must be from {} to {} in loopback mode", LOOPBACK_PORTS.start(), LOOPBACK_PORTS.end())]
    LoopbackPort,
    #[error("must be from {} to {}", VNM_PORTS.start(), VNM_PORTS.end())]
    VnmPort,
    #[error("must be free at {ip}: resource {holder} has it")]
    PortTaken { ip: Ipv4Addr, holder: String },
    #[error("must not be one of the resource's further ports: there it would mean two ports")]
    PortMeansTwo,
    #[error("must not have belonged to another resource: virtual addresses are never used again")]
    Retired,
    #[error(
        "must be a port that the resource has at {0} already: another resource was there, too, is gone, and programs may \
         remember its ports; at another bind.ip (null: the next free one) it may have any"
    )]
    PortRetired(Ipv4Addr),
    #[error("must be given or something be freed: no address and port is free")]
    NoneLeft,
    #[error("must be left out in loopback mode: only resources in Virtual Networking Mode have a DNS name")]
    NameInLoopback,
    #[error("must be left out in loopback mode, where bind.ip and bind.port are the loopback address")]
    SecondLoopback,
    #[error(transparent)]
    Name(#[from] DnsNameError),
    #[error(transparent)]
    Pattern(#[from] HostPatternError),
    #[error("must not be localhost or end in .localhost")]
    Localhost,
    #[error("must not be local, or end in arpa: these have a meaning of their own in DNS")]
    SpecialUse,
    #[error("must not be a public suffix, under which everybody may register names, nor cover one")]
    PublicSuffix,
    #[error("must not be longer than {0} characters, so that names fit into it")]
    ZoneTooLong(usize),
    #[error("must not cover {name}, the name of {whose}: nobody could reach it any more")]
    CoversOwn { name: String, whose: String },
    #[error("must be unique: resource {0} has it")]
    NameTaken(String),
    #[error(
        "must be left out unless bind.dns_name is a wildcard such as *.kafka.internal: only then several hosts are asked for"
    )]
    HostsWithoutWildcard,
    #[error("must lie under {0}, the resource's bind.dns_name: other hosts are never asked for")]
    OutsideAlias(HostPattern),
    #[error("must not list more than {MAX_HOSTS} hosts")]
    TooManyHosts,
}
