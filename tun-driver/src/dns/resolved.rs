//! systemd-resolved over D-Bus: the zones of a link as routing-only domains, its servers for nothing else.

use std::{net::IpAddr, time::Duration};

use zbus::{Connection, fdo, names::BusName};

use super::LinkNames;

pub(crate) const SERVICE: &str = "org.freedesktop.resolve1";
/// resolved answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(5);
const NEW_LINK_ATTEMPTS: u32 = 10;
const NEW_LINK_PAUSE: Duration = Duration::from_millis(100);
const INET: i32 = 2;
const INET6: i32 = 10;
/// Where resolved listens: programs whose resolv.conf names one of these ask it.
pub(crate) const STUBS: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 54))];

#[zbus::proxy(
    interface = "org.freedesktop.resolve1.Manager",
    default_service = "org.freedesktop.resolve1",
    default_path = "/org/freedesktop/resolve1"
)]
trait Manager {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, index: i32, servers: &[(i32, Vec<u8>)]) -> zbus::Result<()>;
    fn set_link_domains(&self, index: i32, domains: &[(&str, bool)]) -> zbus::Result<()>;
    fn set_link_default_route(&self, index: i32, enable: bool) -> zbus::Result<()>;
    #[zbus(name = "SetLinkLLMNR")]
    fn set_link_llmnr(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkMulticastDNS")]
    fn set_link_multicast_dns(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSOverTLS")]
    fn set_link_dns_over_tls(&self, index: i32, mode: &str) -> zbus::Result<()>;
    #[zbus(name = "SetLinkDNSSEC")]
    fn set_link_dnssec(&self, index: i32, mode: &str) -> zbus::Result<()>;
    fn revert_link(&self, index: i32) -> zbus::Result<()>;
    fn flush_caches(&self) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "false"), name = "DNS")]
    fn dns(&self) -> zbus::Result<Vec<(i32, i32, Vec<u8>)>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn domains(&self) -> zbus::Result<Vec<(i32, String, bool)>>;
}

/// A connection to the system's bus.
pub(crate) async fn connect() -> zbus::Result<Connection> {
    let connect = async { zbus::connection::Builder::system().method_timeout(PATIENCE).build().await };
    tokio::time::timeout(PATIENCE, connect)
        .await
        .unwrap_or_else(|_| Err(zbus::Error::Failure("the system bus does not answer".to_owned())))
}

/// Whether resolved runs. Does not start it.
pub(crate) async fn runs(bus: &Connection) -> zbus::Result<bool> {
    let name = BusName::try_from(SERVICE)?;
    Ok(fdo::DBusProxy::new(bus).await?.name_has_owner(name).await?)
}

/// Makes resolved ask the link's servers for its zones and for nothing else. Idempotent.
pub(crate) async fn set_link(bus: &Connection, names: &LinkNames) -> zbus::Result<()> {
    let manager = ManagerProxy::new(bus).await?;
    let index = number(names.index)?;
    // The link never becomes a default one in between: the zones come last. An old resolved may not know the rest.
    let mut first = manager.set_link_default_route(index, false).await;
    for _ in 0..NEW_LINK_ATTEMPTS {
        if !first.as_ref().is_err_and(is_no_such_link) {
            break;
        }
        // The device is so new that resolved has not heard of it.
        tokio::time::sleep(NEW_LINK_PAUSE).await;
        first = manager.set_link_default_route(index, false).await;
    }
    optional(first)?;
    optional(manager.set_link_llmnr(index, "no").await)?;
    optional(manager.set_link_multicast_dns(index, "no").await)?;
    optional(manager.set_link_dns_over_tls(index, "no").await)?;
    optional(manager.set_link_dnssec(index, "no").await)?;
    let domains: Vec<(&str, bool)> = names.zones.iter().map(|zone| (zone.as_str(), true)).collect();
    manager.set_link_domains(index, &domains).await?;
    let servers: Vec<(i32, Vec<u8>)> = names.resolvers.iter().map(|server| family_and_bytes(*server)).collect();
    manager.set_link_dns(index, &servers).await?;
    // "No such name" of a minute ago is no longer true.
    optional(manager.flush_caches().await)
}

/// Takes everything back; a link that is gone has nothing any more.
pub(crate) async fn revert_link(bus: &Connection, index: u32) -> zbus::Result<()> {
    let manager = ManagerProxy::new(bus).await?;
    match manager.revert_link(number(index)?).await {
        Err(error) if is_no_such_link(&error) => Ok(()),
        result => result,
    }?;
    optional(manager.flush_caches().await)
}

/// What resolved has for a link: its servers, its domains (`~` marks those that route only).
pub(crate) async fn read_link(bus: &Connection, index: u32) -> zbus::Result<(Vec<IpAddr>, Vec<String>)> {
    let manager = ManagerProxy::new(bus).await?;
    let index = number(index)?;
    let servers = manager.dns().await?.into_iter().filter(|(link, ..)| *link == index);
    let servers = servers.filter_map(|(_, _, bytes)| address(&bytes)).collect();
    let domains = manager.domains().await?.into_iter().filter(|(link, ..)| *link == index);
    let domains = domains.map(|(_, name, routes)| if routes { format!("~{name}") } else { name }).collect();
    Ok((servers, domains))
}

fn is_no_such_link(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str().ends_with(".NoSuchLink"))
}

fn number(index: u32) -> zbus::Result<i32> {
    i32::try_from(index).map_err(|_| zbus::Error::Failure(format!("no interface has number {index}")))
}

fn optional(result: zbus::Result<()>) -> zbus::Result<()> {
    match result {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str() == "org.freedesktop.DBus.Error.UnknownMethod" => {
            Ok(())
        }
        result => result,
    }
}

fn family_and_bytes(address: IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (INET, address.octets().to_vec()),
        IpAddr::V6(address) => (INET6, address.octets().to_vec()),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
