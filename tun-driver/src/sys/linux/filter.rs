//! The second lock: packet filter rules (nf_tables) that let only the owner send into his device.
//!
//! Rules by uid do not stop a program that names the device itself (`SO_BINDTODEVICE`, `IP_PKTINFO`); whoever reads the
//! device has to look up the sender of each packet. Where the kernel has nf_tables, these rules refuse such packets
//! before. Nothing depends on them. Written by hand, for the crates at hand bind a C library or are GPL.

use std::{io, net::IpAddr};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10;
const NEW_TABLE: u16 = NF_TABLES << 8;
const NEW_CHAIN: u16 = NF_TABLES << 8 | 3;
const NEW_RULE: u16 = NF_TABLES << 8 | 6;
const FAMILY_INET: u8 = 1;
/// `NFT_TABLE_F_OWNER`: the table belongs to the socket that made it, nobody else changes it, and it goes with it.
const TABLE_OWNED: u32 = 2;
const HOOK_INPUT: u32 = 1;
const HOOK_OUTPUT: u32 = 3;
const LOOPBACK_INDEX: u32 = 1;

/// Expressions: what is loaded, and the name of its field in the `meta` expression.
const META_INPUT: u32 = 4;
const META_OUTPUT: u32 = 5;
const META_SOCKET_UID: u32 = 10;
const META_FAMILY: u32 = 15;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// What the rules are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    /// The device's number.
    pub(crate) index: u32,
    pub(crate) uid: u32,
    pub(crate) devices: Vec<IpAddr>,
    pub(crate) resolvers: Vec<IpAddr>,
}

/// A table of rules. Gone when this value is dropped, and when the program dies in whatever way.
#[derive(Debug)]
pub(crate) struct Filter {
    _socket: Socket,
    pub(crate) lock: Lock,
}

impl Filter {
    /// Adds a table `name`, which must be new. Fails on kernels before 5.12 and without nf_tables.
    pub(crate) fn add(name: &str, lock: Lock) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        socket.set_non_blocking(true)?;
        let batch = batch_of(name, &lock);
        let sent = socket.send(&batch, 0)?;
        if sent != batch.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        confirm(&socket)?;
        Ok(Self { _socket: socket, lock })
    }
}

/// Reads the kernel's answers, which are there when `send` returns. At least one yes, and no no.
fn confirm(socket: &Socket) -> io::Result<()> {
    let mut confirmed = false;
    loop {
        let mut buffer = Vec::with_capacity(8192);
        match socket.recv_from(&mut buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            other => other?,
        };
        let mut rest = buffer.as_slice();
        // nlmsghdr: length, type, flags, sequence, port; then for an error the negative code.
        while let Some((header, _)) = rest.split_first_chunk::<20>() {
            let [l0, l1, l2, l3, t0, t1, .., c0, c1, c2, c3] = *header;
            let code = i32::from_ne_bytes([c0, c1, c2, c3]);
            if u16::from_ne_bytes([t0, t1]) == libc::NLMSG_ERROR as u16 {
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                confirmed = true;
            }
            let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
            rest = rest.get(length.next_multiple_of(4).max(20)..).unwrap_or_default();
        }
    }
    if confirmed { Ok(()) } else { Err(io::Error::other("the packet filter did not answer")) }
}

fn batch_of(name: &str, lock: &Lock) -> Vec<u8> {
    let mut batch = Message::new(BATCH_BEGIN, 0, NF_TABLES).finish();
    let table = Message::new(NEW_TABLE, FAMILY_INET, 0).text(1, name).number(2, TABLE_OWNED);
    batch.extend(table.finish());
    for (chain, hook) in [("out", HOOK_OUTPUT), ("in", HOOK_INPUT)] {
        let hook = Attributes::default().number(1, hook).number(2, 0);
        let chain = Message::new(NEW_CHAIN, FAMILY_INET, 0).text(1, name).text(3, chain).nested(4, hook);
        batch.extend(chain.text(7, "filter").finish());
    }
    let mut rule = |chain: &str, expressions: Attributes| {
        let rule = Message::new(NEW_RULE, FAMILY_INET, 0).text(1, name).text(2, chain);
        batch.extend(rule.nested(4, expressions).finish());
    };
    // Into the device: the owner, root, and everybody to the resolver's address. A packet of the kernel itself has no
    // socket, so no uid, and the rule does not match it.
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let into_device = Attributes::default().meta(META_OUTPUT).compare(EQUAL, &lock.index.to_ne_bytes());
        let of_family = into_device.meta(META_FAMILY).compare(EQUAL, &[family]);
        let resolvers = lock.resolvers.iter().filter(|resolver| family_of(**resolver) == family);
        let elsewhere = resolvers.fold(of_family, |expressions, resolver| expressions.destination(*resolver, UNEQUAL));
        let stranger = [0, lock.uid]
            .iter()
            .fold(elsewhere, |expressions, uid| expressions.meta(META_SOCKET_UID).compare(UNEQUAL, &uid.to_ne_bytes()));
        rule("out", stranger.reject());
    }
    // To the device's address from outside: other machines must not even learn that it exists.
    for device in &lock.devices {
        let outside = [lock.index, LOOPBACK_INDEX].iter().fold(Attributes::default(), |expressions, index| {
            expressions.meta(META_INPUT).compare(UNEQUAL, &index.to_ne_bytes())
        });
        let outside = outside.meta(META_FAMILY).compare(EQUAL, &[family_of(*device)]);
        rule("in", outside.destination(*device, EQUAL).drop_packet());
    }
    batch.extend(Message::new(BATCH_END, 0, NF_TABLES).finish());
    batch
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// A netlink message that asks for an answer (but for the marks of the batch).
struct Message {
    kind: u16,
    head: [u8; 4],
    attributes: Attributes,
}

impl Message {
    fn new(kind: u16, family: u8, resource: u16) -> Self {
        let [high, low] = resource.to_be_bytes();
        Self { kind, head: [family, 0, high, low], attributes: Attributes::default() }
    }

    fn text(mut self, kind: u16, text: &str) -> Self {
        self.attributes = self.attributes.text(kind, text);
        self
    }

    fn number(mut self, kind: u16, number: u32) -> Self {
        self.attributes = self.attributes.number(kind, number);
        self
    }

    fn nested(mut self, kind: u16, inner: Attributes) -> Self {
        self.attributes = self.attributes.nested(kind, inner);
        self
    }

    fn finish(self) -> Vec<u8> {
        let mark = matches!(self.kind, BATCH_BEGIN | BATCH_END);
        let create = if matches!(self.kind, NEW_RULE) { 0x400 | 0x800 } else { 0x400 | 0x200 };
        let flags: u16 = if mark { 1 } else { 1 | 4 | create };
        let length = 16 + self.head.len() + self.attributes.0.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.head);
        bytes.extend(self.attributes.0);
        bytes
    }
}

/// Netlink attributes one after the other, and above them the expressions of a rule.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    fn number(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    fn nested(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | 0x8000, &inner.0)
    }

    fn expression(self, name: &str, data: Self) -> Self {
        let expression = Self::default().text(1, name).nested(2, data);
        self.nested(1, expression)
    }

    /// Loads what the kernel knows about the packet.
    fn meta(self, key: u32) -> Self {
        self.expression("meta", Self::default().number(2, key).number(1, 1))
    }

    /// Goes on only when what was loaded is (not) this.
    fn compare(self, operation: u32, value: &[u8]) -> Self {
        let data = Self::default().bytes(1, value);
        self.expression("cmp", Self::default().number(1, 1).number(2, operation).nested(3, data))
    }

    /// Goes on only when a packet of the address' family is (not) for this address.
    fn destination(self, address: IpAddr, operation: u32) -> Self {
        let (offset, bytes) = match address {
            IpAddr::V4(address) => (16, address.octets().to_vec()),
            IpAddr::V6(address) => (24, address.octets().to_vec()),
        };
        let payload = Self::default().number(1, 1).number(2, 1).number(3, offset).number(4, bytes.len() as u32);
        self.expression("payload", payload).compare(operation, &bytes)
    }

    /// "Administratively prohibited": the sender learns at once.
    fn reject(self) -> Self {
        self.expression("reject", Self::default().number(1, 2).bytes(2, &[3]))
    }

    fn drop_packet(self) -> Self {
        let verdict = Self::default().number(1, 0);
        let data = Self::default().nested(2, verdict);
        self.expression("immediate", Self::default().number(1, 0).nested(2, data))
    }
}
