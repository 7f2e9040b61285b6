//! Local clients under chosen users, as the ones that connect to a loopback listener.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketType, bind, connect, ipproto, socket, sockopt},
    process::{Gid, Uid},
};

/// A client connection, made with the choices that attacks need.
pub struct Connect {
    to: SocketAddr,
    from: Option<SocketAddr>,
}

impl Connect {
    #[must_use]
    pub const fn to(to: SocketAddr) -> Self {
        Self { to, from: None }
    }

    /// Connects from this address and port, even if the port has been used lately.
    #[must_use]
    pub const fn from(mut self, from: SocketAddr) -> Self {
        self.from = Some(from);
        self
    }

    pub fn open(&self) -> io::Result<TcpStream> {
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let client = socket(family, SocketType::STREAM, Some(ipproto::TCP))?;
        if let Some(from) = self.from {
            sockopt::set_socket_reuseaddr(&client, true)?;
            bind(&client, &from)?;
        }
        connect(&client, &self.to)?;
        let stream = TcpStream::from(client);
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Sends `bytes` and breaks the connection off with a RST.
pub fn send_and_reset(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    reset(&stream)
}

/// Makes the end of this connection a RST. It happens when the stream is dropped.
pub fn reset(stream: &TcpStream) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// Runs `action` as another user. Sockets that it makes belong to that user, as the kernel sees it. Needs root; the
/// user is that of one thread that ends with the action, never of the whole test.
pub fn as_user<T: Send + 'static>(uid: u32, action: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        action()
    });
    thread.join().map_err(|_| io::Error::other("the thread of another user panicked"))?
}
