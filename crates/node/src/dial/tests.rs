use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;

fn target(host: &str, port: u16, allow_local: bool) -> Target {
    Target { host: host.into(), port, allow_local }
}

/// Loopback, unspecified, link-local and metadata addresses as people and attackers write them.
const ENCODINGS: [&str; 64] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.000.000.001",
    "0177.0.0.1",
    "0177.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "0x7f000001",
    "0X7F000001",
    "2130706433",
    "017700000001",
    "127.0.0.2",
    "127.255.255.254",
    "127.127.127.127",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ip6-localhost",
    "0.0.0.0",
    "0",
    "0x0",
    "00",
    "0.0.0.1",
    "::1",
    "0:0:0:0:0:0:0:1",
    "0000:0000:0000:0000:0000:0000:0000:0001",
    "::",
    "::0",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::FFFF:127.0.0.1",
    "0:0:0:0:0:ffff:127.0.0.1",
    "::127.0.0.1",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "::ffff:0.0.0.0",
    "64:ff9b::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::",
    "2002:7f00:0001::1",
    "2001:0:0:0::80ff:fffe",
    "::1%lo",
    "::1%1",
    "fe80::1",
    "fe80::1%lo",
    "fe80::1%1",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::",
    "fd00:ec2::254",
    "100.100.100.200",
    "::ffff:100.100.100.200",
    "224.0.0.1",
    "255.255.255.255",
    "ff02::1",
    "[::1]",
];

#[tokio::test]
async fn no_spelling_of_a_forbidden_address_is_dialled() {
    let v4 = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = v4.local_addr().unwrap().port();
    let v6 = std::net::TcpListener::bind(("::1", port)).ok();
    for host in ENCODINGS {
        let error = Dialer::default().dial(&target(host, port, false)).await.unwrap_err();
        let refused = matches!(error, DialError::Forbidden { .. } | DialError::Unresolvable { .. });
        assert!(refused, "{host}: {error}");
    }
    assert_no_connection(&v4);
    v6.iter().for_each(assert_no_connection);
}

/// Loopback connections are in the queue when `connect` returns, so looking once is enough.
fn assert_no_connection(listener: &std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn the_machines_own_addresses_are_not_dialled() {
    // Whatever address this machine would use to reach another one.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let Ok(()) = probe.connect("192.0.2.1:9") else { return };
    let own = probe.local_addr().unwrap().ip();
    if own.is_loopback() || own.is_unspecified() {
        return;
    }
    let listener = std::net::TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = Dialer::default().dial(&target(&own.to_string(), port, false)).await.unwrap_err();
    assert!(matches!(error, DialError::Forbidden { why: Forbidden::OwnAddress, .. }), "{error}");
    assert_no_connection(&listener);
    Dialer::default().dial(&target(&own.to_string(), port, true)).await.unwrap();
}

#[tokio::test]
async fn a_resource_that_may_be_local_is_dialled_at_loopback() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let (stream, dialled) = Dialer::default().dial(&target(host, address.port(), true)).await.unwrap();
        assert_eq!((stream.peer_addr().unwrap(), dialled), (address, address));
    }
}

#[tokio::test]
async fn addresses_of_no_machine_are_not_dialled_even_when_local_is_allowed() {
    for host in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "::ffff:0.0.0.0"] {
        let error = Dialer::default().dial(&target(host, 80, true)).await.unwrap_err();
        assert!(matches!(error, DialError::Forbidden { why: Forbidden::NotOneMachine, .. }), "{host}: {error}");
    }
}

#[test]
fn the_control_plane_is_not_dialled_in_any_form() {
    let dialer = Dialer::default();
    dialer.set_control(vec!["198.51.100.7:443".parse().unwrap()]);
    let control: SocketAddr = "198.51.100.7:443".parse().unwrap();
    let mapped = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().into(), 443);
    assert_eq!(dialer.forbids(control, false), Some(Forbidden::ControlPlane));
    assert_eq!(dialer.forbids(mapped, false), Some(Forbidden::ControlPlane));
    assert_eq!(dialer.forbids(control, true), None);
    assert_eq!(dialer.forbids("198.51.100.7:5432".parse().unwrap(), false), None);
}

#[test]
fn of_several_addresses_only_the_permitted_ones_are_dialled() {
    let resolved: Vec<SocketAddr> =
        ["127.0.0.1:1", "198.51.100.7:1", "[::1]:1"].iter().map(|text| text.parse().unwrap()).collect();
    let dialer = Dialer::default();
    assert_eq!(dialer.admit(&target("x", 1, false), &resolved).unwrap(), resolved[1..2]);
    let error = dialer.admit(&target("x", 1, false), &resolved[..1]).unwrap_err();
    assert!(matches!(error, DialError::Forbidden { why: Forbidden::Loopback, .. }));
}

#[tokio::test]
async fn failures_have_a_status_and_a_code() {
    // Bound, so that nobody else gets the port, and never listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = silent.local_addr().unwrap();
    let refused = Dialer::default().dial(&target("127.0.0.1", dead.port(), true)).await.unwrap_err().problem();
    assert_eq!((refused.status, refused.code.as_str()), (502, "target_refused"));
    let unknown = Dialer::default().dial(&target("no-such-host.invalid", 1, false)).await.unwrap_err().problem();
    assert_eq!((unknown.status, unknown.code.as_str()), (502, "target_unresolvable"));
    let forbidden = Dialer::default().dial(&target("169.254.169.254", 80, false)).await.unwrap_err().problem();
    assert_eq!((forbidden.status, forbidden.code.as_str()), (403, "target_forbidden"));
    let late = DialError::TimedOut { address: "x:1".into() }.problem();
    assert_eq!((late.status, late.code.as_str()), (504, "target_timed_out"));
}

#[test]
fn only_a_target_that_answered_has_refused() {
    use rustix::io::Errno;
    let told = |errno: Errno| {
        let problem = DialError::of("10.0.0.1:5432".into(), errno.into()).problem();
        (problem.status, problem.code)
    };
    for (errnos, status, code) in [
        (&[Errno::CONNREFUSED, Errno::CONNRESET, Errno::CONNABORTED][..], 502, "target_refused"),
        (&[Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::NETDOWN], 502, "target_unroutable"),
        (&[Errno::PERM, Errno::ACCESS], 502, "target_not_permitted"),
        (&[Errno::TIMEDOUT], 504, "target_timed_out"),
        (&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL], 502, "dial_failed"),
    ] {
        for errno in errnos {
            assert_eq!(told(*errno), (status, code.to_owned()), "{errno}");
        }
    }
}

#[tokio::test]
async fn a_target_without_a_route_is_told_as_that() {
    // Addresses of documentation, one of a family that this machine may have no route for.
    let unroutable = |ip: &&&str| {
        let ip: IpAddr = ip.parse().unwrap();
        let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
        let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9)));
        connected.is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
    };
    for host in ["192.0.2.1", "2001:db8::1"].iter().filter(unroutable) {
        let error = Dialer::default().dial(&target(host, 1, false)).await.unwrap_err();
        assert!(matches!(error, DialError::Unroutable { .. }), "{error}");
    }
}
