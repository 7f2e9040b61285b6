//! Listeners and APIs are for their owner only. Other users are threads that act as another uid: the kernel keeps
//! credentials per thread, so that is what another user's process would be to it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use postern_proto::api::DeviceEventKind;
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::daemon::{PATIENCE, World};

const STRANGER: u32 = 20_001;

/// Runs as another uid; `None`, said aloud, where only root could do that.
fn as_uid<T: Send + 'static>(uid: u32, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: another uid is needed and only root may change to one");
        return None;
    }
    let thread = std::thread::spawn(move || {
        let (group, user) = (Gid::from_raw(uid), Uid::from_raw(uid));
        set_thread_res_gid(group, group, group).unwrap();
        set_thread_res_uid(user, user, user).unwrap();
        work()
    });
    Some(thread.join().unwrap())
}

/// Sends a request and reads until the end.
fn request(port: u16) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"EVIL REQUEST")?;
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_uid_is_reset_and_no_byte_of_it_goes_upstream_and_it_is_audited() {
    let world = World::start().await;
    let port = world.port;
    let Some(answers) = as_uid(STRANGER, move || (0..50).map(|_| request(port)).collect::<Vec<_>>()) else { return };
    for answer in answers {
        let error = answer.expect_err("a stranger was served");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    assert_eq!(world.gateway.opened(), 0);
    assert_eq!(world.echo.received(), 0);
    let count = || {
        let state = world.control.state();
        let counts = state.events.iter().filter_map(|event| match event.what {
            DeviceEventKind::PeerRefused { resource, bind, uid: Some(STRANGER), count } => {
                assert_eq!((resource, bind.port()), (world.id, port));
                Some(count)
            }
            _ => None,
        });
        counts.sum::<u64>()
    };
    while count() < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(), 50);
    assert!(world.control.state().events.len() < 50, "events are aggregated");
    world.open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_close_or_reset_before_they_are_looked_at_send_nothing_upstream() {
    let world = World::start().await;
    let port = world.port;
    let Some(()) = as_uid(STRANGER, move || {
        for n in 0..200 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = stream.write_all(b"EVIL REQUEST");
            if n % 2 == 0 {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    }) else {
        return;
    };
    // Whoever comes after them is served, so all of them were looked at.
    world.open().await;
    assert_eq!(world.gateway.opened(), 1);
    assert_eq!(world.echo.received(), 4);
}

/// The stranger connects, sends and resets; the owner connects from the same port before the service has accepted.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_reuse_attack_sends_nothing_upstream() {
    let world = World::start().await;
    let address = SocketAddr::from(([127, 0, 0, 1], world.port));
    let pid = rustix::process::Pid::from_raw(i32::try_from(world.daemon.pid()).unwrap()).unwrap();
    let mut attacks = 0;
    while attacks < 20 {
        // Held still, so that both connections wait to be accepted.
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        while !is_stopped(world.daemon.pid()) {
            std::thread::yield_now();
        }
        let Some(port) = as_uid(STRANGER, move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"EVIL REQUEST").unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            stream.local_addr().unwrap()
        }) else {
            rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
            return;
        };
        let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        owner.set_reuse_address(true).unwrap();
        // Somebody else on this machine may have drawn the same port meanwhile.
        let reused = owner.bind(&SockAddr::from(port)).and_then(|()| owner.connect(&SockAddr::from(address)));
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        if reused.is_err() {
            continue;
        }
        attacks += 1;
        let mut owner = TcpStream::from(owner);
        owner.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        owner.set_read_timeout(Some(PATIENCE)).unwrap();
        owner.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
    assert_eq!(world.echo.received(), 20 * 4);
    assert_eq!(world.gateway.opened(), 20);
}

/// Whether every thread of the process stands still.
fn is_stopped(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_uid_is_served_and_that_is_audited_too() {
    let world = World::start_with(&["--allow-uid", "20001"]).await;
    let port = world.port;
    let Some(answer) = as_uid(STRANGER, move || request(port)) else { return };
    assert_eq!(answer.unwrap(), b"EVIL REQUEST");
    let Some(other) = as_uid(STRANGER + 1, move || request(port)) else { return };
    assert!(other.is_err());
    assert_eq!(world.daemon.status().await.allowed_uids, [STRANGER]);
    let is_audited = || {
        let state = world.control.state();
        state
            .events
            .iter()
            .any(|event| matches!(&event.what, DeviceEventKind::PeersAllowed { uids } if uids.as_slice() == [STRANGER]))
    };
    while !is_audited() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_the_local_api_is_closed_to_other_uids() {
    let world = World::start().await;
    let socket = world.daemon.client.socket().to_owned();
    // Even if the folder were open.
    for folder in [world.home.path(), socket.parent().unwrap()] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = socket.clone();
    let Some(closed) = as_uid(STRANGER, move || std::os::unix::net::UnixStream::connect(path)) else { return };
    assert_eq!(closed.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    // And even if the socket were.
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let answer = as_uid(STRANGER, move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("not_your_service"), "{answer}");
    assert!(!answer.contains(crate::control::EMAIL));
}
