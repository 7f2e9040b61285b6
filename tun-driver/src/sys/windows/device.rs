//! wintun: an adapter that belongs to netd's process, its addresses and routes by IP Helper, and its packets through a pipe
//! to the user whose network it is (see `docs/decisions/0017`).

use std::{io, net::IpAddr, path::Path, sync::Arc, thread, time::Duration};

use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::windows::named_pipe::{NamedPipeServer, ServerOptions},
    sync::mpsc,
    task::AbortHandle,
};
use windows_sys::{
    Win32::{
        Foundation::{ERROR_NOT_FOUND, ERROR_OBJECT_ALREADY_EXISTS, NO_ERROR},
        NetworkManagement::{
            IpHelper::{
                ConvertInterfaceLuidToIndex, CreateIpForwardEntry2, CreateUnicastIpAddressEntry, DeleteIpForwardEntry2,
                DeleteUnicastIpAddressEntry, GetIpInterfaceEntry, InitializeIpForwardEntry, InitializeIpInterfaceEntry,
                InitializeUnicastIpAddressEntry, MIB_IPFORWARD_ROW2, MIB_IPINTERFACE_ROW, MIB_UNICASTIPADDRESS_ROW,
                SetIpInterfaceEntry,
            },
            Ndis::NET_LUID_LH,
        },
        Networking::WinSock::{AF_INET, AF_INET6, IpDadStatePreferred, SOCKADDR_INET},
        System::Threading::{CreateEventW, SetEvent},
    },
    core::GUID,
};

use super::{
    Handle, Handover,
    channel::make_pipe,
    networks::landscape,
    security::{Rights, User},
    wintun::Session,
};
use crate::netd::{Settings, TunDevice};

/// Packets on their way from the adapter into the pipe. When they wait, the adapter's ring fills up, and the senders wait.
const WAITING: usize = 64;
/// Before another attempt to give a packet to an adapter whose ring is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// An adapter with its pump. Dropping it takes the adapter away, with its addresses and routes.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    index: u32,
    luid: u64,
    /// What was set up.
    had: Settings,
    pump: AbortHandle,
    stop: Arc<Event>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.pump.abort();
        self.stop.signal();
    }
}

impl TunDevice for Device {
    fn create(_: u32, user: &User) -> io::Result<(Self, Vec<Handover>)> {
        let number = number_of(user);
        let name = format!("Postern {number:08x}");
        let session = Session::open(&name, GUID { data1: number, data2: 0x706f, data3: 0x7374, data4: *b"ern-netd" })?;
        let luid = session.luid();
        let mut index = 0;
        // SAFETY: reads the number in `luid`, writes one into `index`.
        check(unsafe { ConvertInterfaceLuidToIndex(&raw const luid, &raw mut index) })?;
        // Nobody can guess it, and nobody else may open it.
        let pipe_name = format!(r"\\.\pipe\postern-netd-{:032x}", rand::random::<u128>());
        let rights = Rights::for_user(user)?;
        let mut options = ServerOptions::new();
        let pipe = make_pipe(options.first_pipe_instance(true).max_instances(1), Path::new(&pipe_name), &rights)?;
        let stop = Arc::new(Event::new()?);
        let pump = start_pump(session, pipe, Arc::clone(&stop))?;
        // SAFETY: a number, whichever form it was written in.
        let luid = unsafe { luid.Value };
        Ok((Self { name, index, luid, had: Settings::default(), pump, stop }, vec![Handover(pipe_name)]))
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn name(&self) -> &str {
        &self.name
    }

    /// Without its pump an adapter is none.
    fn is_there(&self) -> bool {
        !self.pump.is_finished()
    }

    fn has_ipv6(&self) -> bool {
        self.interface_row(AF_INET6).is_ok()
    }

    fn settle(&mut self, wanted: &Settings) -> io::Result<usize> {
        let there = landscape()?;
        let own = there.interfaces.iter().find(|interface| interface.index == self.index);
        let has = |address: &IpAddr| own.is_some_and(|own| own.addresses.iter().any(|net| net.addr() == *address));
        let leads = |network: &IpNet| {
            there.routes.iter().any(|route| route.interface == Some(self.index) && route.destination == *network)
        };
        let mut changed = 0;
        if self.had.mtu != wanted.mtu {
            self.set_mtu(wanted.mtu)?;
        }
        for address in wanted.addresses.iter().filter(|address| !has(address)) {
            let row = self.address_row(*address);
            // SAFETY: a whole row that outlives the call.
            allow(ERROR_OBJECT_ALREADY_EXISTS, unsafe { CreateUnicastIpAddressEntry(&raw const row) })?;
            changed += 1;
        }
        for network in wanted.routes.iter().filter(|network| !leads(network)) {
            let row = self.route_row(*network);
            // SAFETY: a whole row that outlives the call.
            allow(ERROR_OBJECT_ALREADY_EXISTS, unsafe { CreateIpForwardEntry2(&raw const row) })?;
            changed += 1;
        }
        for network in self.had.routes.difference(&wanted.routes) {
            let row = self.route_row(*network);
            // SAFETY: a whole row that outlives the call.
            allow(ERROR_NOT_FOUND, unsafe { DeleteIpForwardEntry2(&raw const row) })?;
        }
        for address in self.had.addresses.difference(&wanted.addresses) {
            let row = self.address_row(*address);
            // SAFETY: a whole row that outlives the call.
            allow(ERROR_NOT_FOUND, unsafe { DeleteUnicastIpAddressEntry(&raw const row) })?;
        }
        self.had = wanted.clone();
        Ok(changed)
    }
}

impl Device {
    fn luid(&self) -> NET_LUID_LH {
        NET_LUID_LH { Value: self.luid }
    }

    fn interface_row(&self, family: u16) -> io::Result<MIB_IPINTERFACE_ROW> {
        let mut row = MIB_IPINTERFACE_ROW::default();
        // SAFETY: fills in a whole row.
        unsafe { InitializeIpInterfaceEntry(&raw mut row) };
        (row.Family, row.InterfaceLuid) = (family, self.luid());
        // SAFETY: reads family and interface from the row, and fills in the rest of it.
        check(unsafe { GetIpInterfaceEntry(&raw mut row) })?;
        Ok(row)
    }

    fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            // A family that the machine has off has no row.
            let Ok(mut row) = self.interface_row(family) else { continue };
            row.NlMtu = mtu;
            // The system demands it of IPv4.
            row.SitePrefixLength = 0;
            // SAFETY: a whole row, as it was read.
            check(unsafe { SetIpInterfaceEntry(&raw mut row) })?;
        }
        Ok(())
    }

    fn address_row(&self, address: IpAddr) -> MIB_UNICASTIPADDRESS_ROW {
        let mut row = MIB_UNICASTIPADDRESS_ROW::default();
        // SAFETY: fills in a whole row.
        unsafe { InitializeUnicastIpAddressEntry(&raw mut row) };
        row.InterfaceLuid = self.luid();
        row.Address = socket_address(address);
        row.OnLinkPrefixLength = if address.is_ipv4() { 32 } else { 128 };
        // Nobody else is on this link: the address may be used at once.
        row.DadState = IpDadStatePreferred;
        row
    }

    fn route_row(&self, network: IpNet) -> MIB_IPFORWARD_ROW2 {
        let mut row = MIB_IPFORWARD_ROW2::default();
        // SAFETY: fills in a whole row.
        unsafe { InitializeIpForwardEntry(&raw mut row) };
        row.InterfaceLuid = self.luid();
        row.DestinationPrefix.Prefix = socket_address(network.network());
        row.DestinationPrefix.PrefixLength = network.prefix_len();
        let unspecified: IpAddr = if network.addr().is_ipv4() { [0; 4].into() } else { [0_u8; 16].into() };
        row.NextHop = socket_address(unspecified);
        row.Metric = 0;
        row
    }
}

fn socket_address(address: IpAddr) -> SOCKADDR_INET {
    let mut socket_address = SOCKADDR_INET::default();
    match address {
        IpAddr::V4(address) => {
            socket_address.Ipv4.sin_family = AF_INET;
            socket_address.Ipv4.sin_addr.S_un.S_addr = u32::from_ne_bytes(address.octets());
        }
        IpAddr::V6(address) => {
            socket_address.Ipv6.sin6_family = AF_INET6;
            socket_address.Ipv6.sin6_addr.u.Byte = address.octets();
        }
    }
    socket_address
}

/// The same for the same user, so that Windows does not remember a new network each time.
fn number_of(user: &User) -> u32 {
    // FNV-1a: stable over versions of this program.
    user.to_string().bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// An event that stays signalled.
#[derive(Debug)]
struct Event(Handle);

impl Event {
    fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers that are not null.
        let event = unsafe { CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) };
        if event.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(Handle(event))) }
    }

    fn signal(&self) {
        // SAFETY: the event is open.
        unsafe { SetEvent(self.0.0) };
    }
}

/// Carries packets between adapter and pipe, until either ends.
fn start_pump(session: Arc<Session>, pipe: NamedPipeServer, stop: Arc<Event>) -> io::Result<AbortHandle> {
    let (packets, from_adapter) = mpsc::channel(WAITING);
    let (received, waits) = (Arc::clone(&session), Arc::clone(&stop));
    thread::Builder::new().name("wintun".to_owned()).spawn(move || {
        loop {
            match received.receive(waits.0.0) {
                Ok(Some(packet)) => {
                    if packets.blocking_send(packet).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => break tracing::warn!("the adapter gives no more packets: {error}"),
            }
        }
    })?;
    let pump = tokio::spawn(async move {
        if let Err(error) = pump(&session, pipe, from_adapter).await {
            tracing::info!("the pump of an adapter ended: {error}");
        }
        stop.signal();
    });
    Ok(pump.abort_handle())
}

async fn pump(session: &Session, pipe: NamedPipeServer, mut packets: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    pipe.connect().await?;
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let out = async {
        while let Some(packet) = packets.recv().await {
            let Ok(length) = u16::try_from(packet.len()) else { continue };
            let whole = [&length.to_le_bytes()[..], &packet].concat();
            writer.write_all(&whole).await?;
        }
        Ok(())
    };
    let into = async {
        loop {
            let mut packet = vec![0; usize::from(reader.read_u16_le().await?)];
            reader.read_exact(&mut packet).await?;
            // What is no IP packet would end the session.
            if !matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6)) {
                continue;
            }
            while !session.try_send(&packet)? {
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    };
    tokio::select! {
        ended = out => ended,
        ended = into => ended,
    }
}

fn check(code: u32) -> io::Result<()> {
    if code == NO_ERROR { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}

/// What is so already is no error.
fn allow(so_already: u32, code: u32) -> io::Result<()> {
    if code == so_already { Ok(()) } else { check(code) }
}
