//! Interfaces, addresses, routes and name servers by IP Helper, and its notifications of changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::c_void,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
    sync::{Arc, Mutex, PoisonError},
};

use ipnet::IpNet;
use tokio::sync::Notify;
use windows_sys::Win32::{
    Foundation::{ERROR_BUFFER_OVERFLOW, HANDLE, NO_ERROR},
    NetworkManagement::IpHelper::{
        CancelMibChangeNotify2, FreeMibTable, GetAdaptersAddresses, GetIpForwardTable2, IP_ADAPTER_ADDRESSES_LH,
        MIB_IPFORWARD_ROW2, MIB_IPFORWARD_TABLE2, MIB_IPINTERFACE_ROW, MIB_NOTIFICATION_TYPE, MIB_UNICASTIPADDRESS_ROW,
        NotifyIpInterfaceChange, NotifyRouteChange2, NotifyUnicastIpAddressChange,
    },
    Networking::WinSock::{AF_INET, AF_INET6, AF_UNSPEC, SOCKADDR_IN, SOCKADDR_IN6, SOCKADDR_INET, SOCKET_ADDRESS},
};

use crate::network::{Change, HostInterface, HostRoute, Landscape};

/// No list of a living machine is longer.
const MAX_LIST: u32 = 16 << 20;

pub(crate) fn landscape() -> io::Result<Landscape> {
    let mut landscape = adapters()?;
    landscape.routes = routes()?;
    Ok(landscape)
}

fn adapters() -> io::Result<Landscape> {
    let mut length = 32 << 10;
    let mut buffer: Vec<u64>;
    loop {
        buffer = vec![0; (length as usize).div_ceil(8)];
        // SAFETY: the system writes at most `length` bytes into `buffer`, which is that long and aligned for its
        // structures, and the length that it needs into `length`.
        let code = unsafe {
            GetAdaptersAddresses(u32::from(AF_UNSPEC), 0, ptr::null(), buffer.as_mut_ptr().cast(), &raw mut length)
        };
        match code {
            NO_ERROR => break,
            ERROR_BUFFER_OVERFLOW if length <= MAX_LIST => {}
            code => return Err(io::Error::from_raw_os_error(code.cast_signed())),
        }
    }
    let mut interfaces: BTreeMap<u32, HostInterface> = BTreeMap::new();
    let mut resolvers = BTreeSet::new();
    let mut adapter: *const IP_ADAPTER_ADDRESSES_LH = buffer.as_ptr().cast();
    // SAFETY: the list that the system wrote into `buffer`, which lives to the end of this function: each pointer leads
    // to a structure in it or is null. The union's number is always written.
    while let Some(one) = unsafe { adapter.as_ref() } {
        // SAFETY: as above.
        let index = match unsafe { one.Anonymous1.Anonymous.IfIndex } {
            0 => one.Ipv6IfIndex,
            index => index,
        };
        let interface = interfaces.entry(index).or_default();
        interface.index = index;
        interface.name = text(one.FriendlyName);
        let mut unicast = one.FirstUnicastAddress.cast_const();
        // SAFETY: as above.
        while let Some(address) = unsafe { unicast.as_ref() } {
            let network = ip(&address.Address).and_then(|ip| IpNet::new(ip, address.OnLinkPrefixLength).ok());
            interface.addresses.extend(network.filter(|network| !network.addr().is_loopback()));
            unicast = address.Next;
        }
        let mut server = one.FirstDnsServerAddress.cast_const();
        // SAFETY: as above.
        while let Some(address) = unsafe { server.as_ref() } {
            resolvers.extend(ip(&address.Address).filter(|ip| !ip.is_loopback() && !ip.is_unspecified()));
            server = address.Next;
        }
        adapter = one.Next;
    }
    Ok(Landscape {
        interfaces: interfaces.into_values().collect(),
        routes: Vec::new(),
        resolvers: resolvers.into_iter().collect(),
    })
}

pub(super) fn text(wide: *const u16) -> String {
    let mut characters = Vec::new();
    for at in 0..256 {
        // SAFETY: a text of the system ends with zero, and reading stops there; null is not read.
        let character = if wide.is_null() { 0 } else { unsafe { *wide.add(at) } };
        if character == 0 {
            break;
        }
        characters.push(character);
    }
    String::from_utf16_lossy(&characters)
}

fn ip(address: &SOCKET_ADDRESS) -> Option<IpAddr> {
    let sockaddr = address.lpSockaddr;
    if sockaddr.is_null() {
        return None;
    }
    let has = |length: usize| usize::try_from(address.iSockaddrLength).is_ok_and(|given| given >= length);
    // SAFETY: not null; every socket address begins with its family.
    match unsafe { (*sockaddr).sa_family } {
        AF_INET if has(size_of::<SOCKADDR_IN>()) => {
            // SAFETY: family and length say that it is one.
            Some(ipv4(unsafe { &*sockaddr.cast::<SOCKADDR_IN>() }))
        }
        AF_INET6 if has(size_of::<SOCKADDR_IN6>()) => {
            // SAFETY: family and length say that it is one.
            Some(ipv6(unsafe { &*sockaddr.cast::<SOCKADDR_IN6>() }))
        }
        _ => None,
    }
}

fn ip_of(address: &SOCKADDR_INET) -> Option<IpAddr> {
    // SAFETY: the family is the first field of both forms, and says which of them is written.
    unsafe {
        match address.si_family {
            AF_INET => Some(ipv4(&address.Ipv4)),
            AF_INET6 => Some(ipv6(&address.Ipv6)),
            _ => None,
        }
    }
}

fn ipv4(address: &SOCKADDR_IN) -> IpAddr {
    // SAFETY: the union has the same four bytes in each of its forms.
    let bits = unsafe { address.sin_addr.S_un.S_addr };
    Ipv4Addr::from(bits.to_ne_bytes()).into()
}

fn ipv6(address: &SOCKADDR_IN6) -> IpAddr {
    // SAFETY: the union has the same sixteen bytes in each of its forms.
    let bytes = unsafe { address.sin6_addr.u.Byte };
    Ipv6Addr::from(bytes).into()
}

fn routes() -> io::Result<Vec<HostRoute>> {
    let mut table: *mut MIB_IPFORWARD_TABLE2 = ptr::null_mut();
    // SAFETY: writes the address of a table of its own into `table`, freed below.
    let code = unsafe { GetIpForwardTable2(AF_UNSPEC, &raw mut table) };
    if code != NO_ERROR || table.is_null() {
        return Err(io::Error::from_raw_os_error(code.cast_signed()));
    }
    // SAFETY: the table has as many rows as it says, one behind the other.
    let rows = unsafe {
        let first: *const MIB_IPFORWARD_ROW2 = (&raw const (*table).Table).cast();
        std::slice::from_raw_parts(first, (*table).NumEntries as usize)
    };
    let routes = rows.iter().filter_map(route).collect();
    // SAFETY: the table came from the system, and its rows are no longer used.
    unsafe { FreeMibTable(table.cast()) };
    Ok(routes)
}

fn route(row: &MIB_IPFORWARD_ROW2) -> Option<HostRoute> {
    let prefix = ip_of(&row.DestinationPrefix.Prefix)?;
    let destination = IpNet::new(prefix, row.DestinationPrefix.PrefixLength).ok()?;
    let broadcast = destination.addr() == IpAddr::V4(Ipv4Addr::BROADCAST);
    if row.Loopback || prefix.is_loopback() || prefix.is_multicast() || broadcast {
        return None;
    }
    let gateway = ip_of(&row.NextHop).filter(|gateway| !gateway.is_unspecified());
    Some(HostRoute { destination, gateway, interface: Some(row.InterfaceIndex) })
}

/// Changes as they come, unsettled. Name servers change with addresses: the system tells no more.
#[derive(Debug)]
pub(crate) struct NetworkEvents {
    shared: Arc<Shared>,
    handles: Vec<Registration>,
}

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<BTreeSet<Change>>,
    told: Notify,
}

impl Shared {
    fn tell(&self, changes: &[Change]) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
        self.told.notify_one();
    }
}

/// One registered callback.
#[derive(Debug)]
struct Registration(HANDLE);

// SAFETY: the handle is a number for the system, which may be cancelled from any thread.
unsafe impl Send for Registration {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for Registration {}

impl Drop for NetworkEvents {
    fn drop(&mut self) {
        for handle in self.handles.drain(..) {
            // SAFETY: registered and not yet cancelled. When this returns, no callback runs any more, so what they were
            // given (a pointer into `shared`, which lives longer) is used no more.
            unsafe { CancelMibChangeNotify2(handle.0) };
        }
    }
}

impl NetworkEvents {
    pub(crate) fn open() -> io::Result<Self> {
        let mut events = Self { shared: Arc::default(), handles: Vec::new() };
        let context: *const c_void = Arc::as_ptr(&events.shared).cast();
        let mut handle: HANDLE = ptr::null_mut();
        // SAFETY: `context` lives until the callback is cancelled (`Drop`); a handle is written into `handle`.
        let code =
            unsafe { NotifyIpInterfaceChange(AF_UNSPEC, Some(interface_changed), context, false, &raw mut handle) };
        events.keep(code, handle)?;
        // SAFETY: as above.
        let code =
            unsafe { NotifyUnicastIpAddressChange(AF_UNSPEC, Some(address_changed), context, false, &raw mut handle) };
        events.keep(code, handle)?;
        // SAFETY: as above.
        let code = unsafe { NotifyRouteChange2(AF_UNSPEC, Some(route_changed), context, false, &raw mut handle) };
        events.keep(code, handle)?;
        Ok(events)
    }

    fn keep(&mut self, code: u32, handle: HANDLE) -> io::Result<()> {
        if code != NO_ERROR {
            return Err(io::Error::from_raw_os_error(code.cast_signed()));
        }
        self.handles.push(Registration(handle));
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> io::Result<BTreeSet<Change>> {
        self.shared.told.notified().await;
        Ok(std::mem::take(&mut *self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// # Safety
/// `context` points to a living [`Shared`].
unsafe fn tell(context: *const c_void, changes: &[Change]) {
    // SAFETY: by the contract of this function.
    if let Some(shared) = unsafe { context.cast::<Shared>().as_ref() } {
        shared.tell(changes);
    }
}

unsafe extern "system" fn interface_changed(
    context: *const c_void,
    _: *const MIB_IPINTERFACE_ROW,
    _: MIB_NOTIFICATION_TYPE,
) {
    // SAFETY: the context that was registered, see `NetworkEvents::open`.
    unsafe { tell(context, &[Change::Link, Change::Resolver]) }
}

unsafe extern "system" fn address_changed(
    context: *const c_void,
    _: *const MIB_UNICASTIPADDRESS_ROW,
    _: MIB_NOTIFICATION_TYPE,
) {
    // SAFETY: the context that was registered, see `NetworkEvents::open`.
    unsafe { tell(context, &[Change::Address, Change::Resolver]) }
}

unsafe extern "system" fn route_changed(
    context: *const c_void,
    _: *const MIB_IPFORWARD_ROW2,
    _: MIB_NOTIFICATION_TYPE,
) {
    // SAFETY: the context that was registered, see `NetworkEvents::open`.
    unsafe { tell(context, &[Change::Route]) }
}
