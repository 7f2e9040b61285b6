//! TCP sockets as the carrier uses them: polled without a borrow, tuned, and reset instead of closed.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::Shutdown,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

/// Whether an accepted socket has the options of its listener, a close that is a reset among them.
pub(crate) const ACCEPTED_INHERITS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// When the kernel asks for a sign of the other side of an idle connection, how often then, and how often in vain.
struct Keepalive {
    after: Duration,
    every: Duration,
    times: u32,
}

/// Between nodes and clients: a path that was cut is found within ten seconds, one that is back after four loses nothing. Far below the shortest idle limit of common balancers (60 s), so that a warm connection stays up.
const OURS: Keepalive = Keepalive { after: Duration::from_secs(4), every: Duration::from_secs(1), times: 5 };
/// Who is not heard for so long on such a connection did not answer.
pub(crate) const UNHEARD: Duration = Duration::from_secs(4 + 5);
/// To the control plane: with a limit on what is not acknowledged, Linux counts time and not questions.
const CONTROL: Keepalive = Keepalive { after: Duration::from_secs(3), every: Duration::from_secs(1), times: 3 };
/// To programs and resources, which may be slow and are not ours.
const THEIRS: Keepalive = Keepalive { after: Duration::from_secs(15), every: Duration::from_secs(5), times: 9 };
/// So long the control plane may leave unacknowledged what it was sent. It takes everything at once, so its window is never
/// closed for long.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(6);

/// Whether a read that does not fill its buffer shows that the socket is empty (edge-triggered readiness).
const SHORT_MEANS_EMPTY: bool =
    cfg!(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"));

/// Reads what is there. Zero is the end.
pub(crate) fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let size = buffer.len();
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match attempt(stream, Interest::READABLE, size, || (&*SockRef::from(stream)).read(buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Writes as much of the slices as the socket takes.
pub(crate) fn poll_write(stream: &TcpStream, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let size = slices.iter().map(|slice| slice.len()).sum();
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match attempt(stream, Interest::WRITABLE, size, || (&*SockRef::from(stream)).write_vectored(slices)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Reads without asking the runtime, which has not heard of a new socket's readiness yet. That it hears of it later costs
/// a call that finds nothing, and loses nothing: events are about what comes after them.
pub(crate) fn read_now(stream: &TcpStream, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    match (&*SockRef::from(stream)).read(buffer) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        result => Some(result),
    }
}

/// Writes without asking the runtime, as [`read_now`] reads.
pub(crate) fn write_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
    match (&*SockRef::from(stream)).write_vectored(slices) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        result => Some(result),
    }
}

/// Runs one system call. After a short one the socket counts as not ready any more, which saves the call that would only
/// say so. That is decided within `try_io`, which forgets it when an event came meanwhile.
fn attempt(
    stream: &TcpStream,
    interest: Interest,
    size: usize,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut short = None;
    let result = stream.try_io(interest, || match call() {
        Ok(count) if SHORT_MEANS_EMPTY && 0 < count && count < size => {
            short = Some(count);
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result,
    });
    short.map_or(result, Ok)
}

/// Says that nothing more will be written. That the other side is gone already is noticed elsewhere.
pub(crate) fn end_writing(stream: &TcpStream) {
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

/// Prepares a socket at an end of a stream: small writes are not delayed, a peer that vanished is noticed, and a close is
/// a reset until [`close`] says otherwise. So whatever ends this process or drops the stream, a transfer that was cut
/// cannot look complete.
pub(crate) fn arm(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    tune_socket(&SockRef::from(stream), is_within_machine(stream), &THEIRS)
}

/// Prepares a listener so that what it accepts is armed already, where [`ACCEPTED_INHERITS`].
pub(crate) fn arm_listener(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_linger(Some(Duration::ZERO))?;
    tune_socket(&socket, listener.local_addr().is_ok_and(|address| address.ip().is_loopback()), &THEIRS)
}

/// Closes a socket in an orderly way after both directions have ended.
pub(crate) fn close(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(None);
    drop(stream);
}

/// Prepares a connection between two of ours. There is no limit on unacknowledged bytes (`TCP_USER_TIMEOUT`): Linux also
/// applies it to a peer that answers every probe but whose window is closed, and would cut a program that does not read
/// for a while, such as a pager. See `vigil` for what is done instead.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream), is_within_machine(stream), &OURS)
}

/// Prepares a connection to the control plane.
pub(crate) fn tune_control(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream), is_within_machine(stream), &CONTROL)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

fn is_within_machine(stream: &TcpStream) -> bool {
    stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback())
}

fn tune_socket(socket: &SockRef<'_>, within_machine: bool, keepalive: &Keepalive) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if within_machine {
        // A program of this machine does not vanish without a sign, and nothing needs pacing: where BBR is the default,
        // its timers cost a fifth of the CPU time per byte. That a system does not allow another choice is no error.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket.set_tcp_congestion(b"reno");
        return Ok(());
    }
    let Keepalive { after, every, times } = *keepalive;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every).with_retries(times))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::SocketAddr};

    use super::*;

    #[tokio::test]
    async fn a_connection_of_an_armed_listener_is_reset_when_it_is_dropped_and_ends_in_order_when_it_is_closed() {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        arm_listener(&listener).unwrap();
        for orderly in [false, true] {
            let mut program = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            if !ACCEPTED_INHERITS {
                arm(&stream).unwrap();
            }
            assert!(stream.nodelay().unwrap());
            if orderly {
                close(stream);
                assert_eq!(program.read(&mut [0]).unwrap(), 0);
            } else {
                drop(stream);
                assert_eq!(program.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_before_the_runtime_heard_of_a_socket_arrives_and_what_comes_after_it_too() {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let mut program = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert_eq!(write_now(&stream, &[IoSlice::new(b"ear"), IoSlice::new(b"ly")]).unwrap().unwrap(), 5);
        assert_eq!(poll_fn(|cx| poll_write(&stream, cx, &[IoSlice::new(b" late")])).await.unwrap(), 5);
        let mut received = [0; 10];
        program.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"early late");
        // A full socket is waited for.
        let block = vec![0; 1 << 20];
        while write_now(&stream, &[IoSlice::new(&block)]).is_some() {}
        let reader = std::thread::spawn(move || io::copy(&mut program, &mut io::sink()));
        assert!(poll_fn(|cx| poll_write(&stream, cx, &[IoSlice::new(b"more")])).await.is_ok());
        drop(stream);
        reader.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_came_before_the_runtime_heard_of_a_socket_is_read_and_what_comes_after_it_too() {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let mut program = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        program.write_all(b"early").unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(read_now(&stream, &mut buffer).unwrap().unwrap(), 5);
        assert!(read_now(&stream, &mut buffer).is_none(), "nothing more is there");
        program.write_all(b"late").unwrap();
        assert_eq!(poll_fn(|cx| poll_read(&stream, cx, &mut buffer)).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"late");
        drop(program);
        assert_eq!(poll_fn(|cx| poll_read(&stream, cx, &mut buffer)).await.unwrap(), 0);
    }
}
