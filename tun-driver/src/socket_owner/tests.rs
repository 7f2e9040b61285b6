use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::*;

const STRANGER: u32 = 20_001;
const VICTIM: u32 = 20_002;

fn owners() -> SocketOwners {
    SocketOwners::open().unwrap()
}

/// Runs `work` on a thread of its own that acts as `uid`: the kernel keeps credentials per thread, so this is just what
/// another user's process would do. `None` (said aloud) where we may not change uid.
fn as_uid<T: Send + 'static>(uid: u32, work: impl FnOnce() -> T + Send + 'static) -> Option<thread::JoinHandle<T>> {
    if own_uid() != 0 {
        eprintln!("SKIPPED: another uid is needed and only root may change to one");
        return None;
    }
    Some(thread::spawn(move || {
        let (group, user) = (Gid::from_raw(uid), Uid::from_raw(uid));
        set_thread_res_gid(group, group, group).unwrap();
        set_thread_res_uid(user, user, user).unwrap();
        work()
    }))
}

fn state_of(stream: &TcpStream) -> TcpState {
    tcp_state(&SockRef::from(stream)).unwrap()
}

fn connect_and_look_up(bind: &str) {
    let owners = owners();
    let listener = TcpListener::bind(bind).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    let Peer::Known(owner) = owners.peer(peer, accepted.local_addr().unwrap()) else { panic!("not found") };
    assert_eq!(owner.uid, own_uid());
    assert_ne!(owner.inode, 0);
    assert_eq!(owner.state, TcpState::Established);
    assert_eq!(state_of(&accepted), TcpState::Established);
}

#[test]
fn our_own_connection_is_named_ours_over_ipv4() {
    connect_and_look_up("127.0.0.1:0");
}

#[test]
fn our_own_connection_is_named_ours_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: no IPv6 loopback here");
        return;
    }
    connect_and_look_up("[::1]:0");
}

#[test]
fn a_connection_that_does_not_exist_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = owners().peer("127.0.0.1:1".parse().unwrap(), listener.local_addr().unwrap());
    assert_eq!(peer, Peer::Unknown);
}

#[test]
fn a_listener_on_the_port_of_a_vanished_client_is_not_taken_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let innocent = TcpListener::bind("127.0.0.1:0").unwrap();
    let owners = owners();
    assert_eq!(owners.peer(innocent.local_addr().unwrap(), listener.local_addr().unwrap()), Peer::Unknown);
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    let claimed = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(owners.peer(claimed, listener.local_addr().unwrap()), Peer::Unknown);
}

#[test]
fn a_socket_that_is_still_connecting_is_not_the_one_that_was_accepted() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let owners = owners();
    // The backlog is full after a few; whoever comes then waits for an answer.
    let mut clients = Vec::new();
    while clients.len() < 16 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        clients.push(client);
    }
    let state = |client: &Socket| tcp_state(&SockRef::from(client)).unwrap();
    let waiting = clients.iter().find(|client| state(client) == TcpState::SynSent).expect("none waits");
    let from = waiting.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(owners.peer(from, address.as_socket().unwrap()), Peer::Unknown);
    assert_eq!(state(waiting), TcpState::SynSent);
}

#[test]
fn a_client_that_reset_before_the_look_up_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let (accepted, peer) = listener.accept().unwrap();
    assert_eq!(owners().peer(peer, accepted.local_addr().unwrap()), Peer::Unknown);
    assert_eq!(state_of(&accepted), TcpState::Close);
}

#[test]
fn a_client_that_closed_long_before_the_look_up_is_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    drop(client);
    let owners = owners();
    let deadline = Instant::now() + Duration::from_secs(10);
    while owners.peer(peer, accepted.local_addr().unwrap()) != Peer::Unknown {
        assert!(Instant::now() < deadline, "the orphan kept an owner");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn another_uid_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let Some(stranger) = as_uid(STRANGER, move || TcpStream::connect(address).unwrap()) else { return };
    let (accepted, peer) = listener.accept().unwrap();
    let _client = stranger.join().unwrap();
    let Peer::Known(owner) = owners().peer(peer, accepted.local_addr().unwrap()) else { panic!("not found") };
    assert_eq!(owner.uid, STRANGER);
}

#[test]
fn a_look_up_by_an_ordinary_user_names_other_users() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let (_accepted, peer) = listener.accept().unwrap();
    let Some(answer) = as_uid(STRANGER, move || owners().peer(peer, address)) else { return };
    let Peer::Known(owner) = answer.join().unwrap() else { panic!("not found") };
    assert_eq!(owner.uid, own_uid());
}

/// The attack: a stranger connects, sends, resets; the owner of the listener connects from the same port. The look-up
/// names the owner for the stranger's connection, whose bytes are still readable. The state tells them apart.
#[test]
fn the_port_reuse_attack_is_seen_in_the_state_of_the_connection() {
    if own_uid() != 0 {
        eprintln!("SKIPPED: another uid is needed and only root may change to one");
        return;
    }
    // Somebody else on this machine may draw the port that has just become free.
    let (listener, _victim, port) = std::iter::repeat_with(attack).flatten().next().unwrap();
    let address = listener.local_addr().unwrap();
    let owners = owners();
    let (mut evil, peer) = listener.accept().unwrap();
    assert_eq!(peer, port);
    let Peer::Known(named) = owners.peer(peer, address) else { panic!("the attack did not happen") };
    assert_eq!(named.uid, VICTIM, "the look-up alone is fooled");
    assert_eq!(state_of(&evil), TcpState::Close, "the state is not");
    let mut bytes = [0; 32];
    assert!(evil.read(&mut bytes).is_ok(), "the stranger's bytes were there to be carried");
    let (good, peer) = listener.accept().unwrap();
    assert_eq!(peer, port);
    assert_eq!(state_of(&good), TcpState::Established);
}

/// A listener with the stranger's and the victim's connection waiting, in this order and from the same port. `None`
/// when the port could not be had again.
fn attack() -> Option<(TcpListener, Socket, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stranger = as_uid(STRANGER, move || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"EVIL REQUEST").unwrap();
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        client.local_addr().unwrap()
    });
    let port = stranger?.join().unwrap();
    let victim = as_uid(VICTIM, move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SockAddr::from(port)).and_then(|()| socket.connect(&SockAddr::from(address))).ok()?;
        Some(socket)
    });
    Some((listener, victim?.join().unwrap()?, port))
}

#[test]
fn the_holder_of_a_port_is_named_with_its_program() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let holder = owners().listener_holder(listener.local_addr().unwrap()).unwrap();
    assert_eq!(holder.uid, own_uid());
    let process = holder.process.unwrap();
    assert_eq!(process.pid, std::process::id());
    assert!(!process.program.is_empty());
}

#[test]
fn a_listener_on_every_address_holds_the_loopback_port_too() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(owners().listener_holder(SocketAddr::from(([127, 0, 0, 1], port))).is_some());
}

#[test]
fn a_connection_that_uses_the_port_as_its_own_is_named_as_holder() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let holder = owners().listener_holder(client.local_addr().unwrap()).unwrap();
    assert_eq!(holder.process.unwrap().pid, std::process::id());
}

#[test]
fn nobody_holds_a_free_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(owners().listener_holder(address), None);
}

#[test]
fn many_threads_get_right_answers_over_one_kept_socket() {
    let owners = owners();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                for _ in 0..50 {
                    let client = TcpStream::connect(address).unwrap();
                    let (_accepted, peer) = listener.accept().unwrap();
                    assert_eq!(peer, client.local_addr().unwrap());
                    assert!(matches!(owners.peer(peer, address), Peer::Known(owner) if owner.uid == own_uid()));
                    assert_eq!(owners.peer(SocketAddr::from(([127, 0, 0, 1], 1)), address), Peer::Unknown);
                }
            });
        }
    });
}

#[test]
fn who_still_connects_and_who_sends_datagrams_is_named() {
    let owners = owners();
    // A backlog that is full leaves the next one connecting.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(0).unwrap();
    let there = listener.local_addr().unwrap().as_socket().unwrap();
    let connecting: Vec<Socket> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&SockAddr::from(there));
            socket
        })
        .collect();
    let named = connecting.iter().filter_map(|socket| {
        let here = socket.local_addr().unwrap().as_socket().unwrap();
        match owners.sender(Transport::Tcp, here, there, 0) {
            Peer::Known(owner) => Some(owner),
            Peer::Unknown => None,
        }
    });
    let named: Vec<Owner> = named.collect();
    assert_eq!(named.len(), 4);
    assert!(named.iter().all(|owner| owner.uid == own_uid()));
    assert!(named.iter().any(|owner| owner.state == TcpState::SynSent), "{named:?}");

    let (free, bound) =
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    bound.connect(free.local_addr().unwrap()).unwrap();
    let address = |socket: &std::net::UdpSocket| socket.local_addr().unwrap();
    let known =
        |from, to| matches!(owners.sender(Transport::Udp, from, to, 0), Peer::Known(owner) if owner.uid == own_uid());
    assert!(known(address(&free), there), "without a peer, to anywhere");
    assert!(known(address(&bound), address(&free)), "with a peer, to there");
    assert!(!known(address(&bound), there), "with a peer, to nowhere else");
}
