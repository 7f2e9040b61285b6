//! `sock_diag` over netlink with `TCP_INFO` in its answer, by the addresses of a connection: about 4 µs. It needs no
//! capability for what is asked here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use super::Seen;

pub(super) const IS_WATCHED: bool = true;

/// "Any cookie": the look-up goes by addresses alone.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// An answer about one socket is about 400 bytes.
const RECEIVE_BYTES: usize = 4 * 1024;
/// The answer is there when the question was sent; this bounds what never comes.
const PATIENCE: Duration = Duration::from_secs(1);
/// Places in the kernel's `struct tcp_info` (`linux/tcp.h`), which only ever grows at its end: segments on their way, and
/// milliseconds since data and an acknowledgement came.
const UNACKED: usize = 24;
const LAST_DATA_RECEIVED: usize = 52;
const LAST_ACK_RECEIVED: usize = 56;
/// "No such file or directory": there is no such socket.
const NOT_THERE: i32 = rustix::io::Errno::NOENT.raw_os_error();

/// The kept netlink socket. After any fault a new one takes its place, so that a late answer can never be taken for that of
/// another question.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    channel: Option<Channel>,
}

#[derive(Debug)]
struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    /// What is known of the connection between these addresses; `None` when there is none.
    pub(super) fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Seen>> {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => Channel::open()?,
        };
        let seen = channel.ask(local, peer)?;
        self.channel = Some(channel);
        Ok(seen)
    }
}

impl Channel {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Seen>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let request = InetRequest {
            family: if matches!(local.ip(), IpAddr::V4(_)) { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: peer.port(),
                source_address: local.ip(),
                destination_address: peer.ip(),
                interface_id: 0,
                cookie: NO_COOKIE,
            },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.buffer.clear();
        let (_, from) = self.socket.recv_from(&mut self.buffer, 0)?;
        let garbled = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if from.port_number() != 0 {
            return Err(garbled("an answer that is not the kernel's"));
        }
        let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&self.buffer)
            .map_err(|error| garbled(&error.to_string()))?;
        if answer.header.sequence_number != self.sequence {
            return Err(garbled("an answer to another question"));
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => Ok(seen(&response)),
            NetlinkPayload::Error(error) if error.raw_code() == -NOT_THERE => Ok(None),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(garbled("an answer that is none")),
        }
    }
}

fn seen(response: &InetResponse) -> Option<Seen> {
    let info = response.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(info) => Some(info),
        _ => None,
    })?;
    let number = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let heard = number(LAST_DATA_RECEIVED)?.min(number(LAST_ACK_RECEIVED)?);
    Some(Seen {
        outstanding: response.header.send_queue > 0,
        in_flight: number(UNACKED)? > 0,
        heard: Duration::from_millis(heard.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn the_kernel_tells_what_is_outstanding_on_a_connection_and_that_there_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        let (local, peer) = (one.local_addr().unwrap(), one.peer_addr().unwrap());
        let mut kernel = Kernel::default();
        let seen = kernel.ask(local, peer).unwrap().unwrap();
        assert!(!seen.outstanding && !seen.in_flight && seen.heard < Duration::from_secs(60), "{seen:?}");
        // The other side takes nothing until its window is closed.
        one.set_nonblocking(true).unwrap();
        let block = vec![0; 1 << 20];
        while one.write(&block).is_ok() {}
        let seen = kernel.ask(local, peer).unwrap().unwrap();
        assert!(seen.outstanding, "{seen:?}");
        drop(other);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(kernel.ask(nowhere, nowhere).unwrap(), None);
    }
}
