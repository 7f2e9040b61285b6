//! The load generator: blocking threads that talk to [`super::target`] through whatever listens at an address.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};

use super::target::{CHUNK, DOWNLOAD, ECHO, ONCE, UPLOAD, UPLOAD_FRAMED};

/// A gateway lets one address begin about a thousand handshakes at once.
const FROM_ONE_ADDRESS: usize = 250;
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Where streams are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: SocketAddr,
    /// Whether it carries the end of a direction. Where it does not, the end is told within the stream, and clients close
    /// first.
    pub(crate) carries_ends: bool,
    /// How long a read or a write may take before a stream counts as dead.
    pub(crate) patience: Duration,
}

/// Bytes that arrived, and the time it took until the last of them did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Transfer {
    pub(crate) fn gbits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.time.as_secs_f64()
    }

    pub(crate) fn gibibytes(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 30)
    }
}

/// Times in microseconds, sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn new(mut micros: Vec<f64>) -> Self {
        micros.sort_by(f64::total_cmp);
        Self(micros)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that a share of `quantile` does not exceed.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let rank = (self.0.len() as f64 * quantile).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

/// How streams opened and closed one after the other by several clients at once went.
#[derive(Clone, Debug)]
pub(crate) struct Openings {
    /// From the call of connect to the echo of the first byte.
    pub(crate) times: Times,
    pub(crate) per_second: f64,
    pub(crate) failed: usize,
}

/// Sends for `time` on each of `streams` streams. Only bytes that the target counted count.
pub(crate) fn upload(entry: Entry, streams: usize, time: Duration) -> anyhow::Result<Transfer> {
    transfer(entry, streams, move |stream| {
        let framed = !entry.carries_ends;
        stream.write_all(&[if framed { UPLOAD_FRAMED } else { UPLOAD }])?;
        let header = if framed { (CHUNK as u32).to_le_bytes().to_vec() } else { Vec::new() };
        let buffer = [header, vec![0; CHUNK]].concat();
        let end = Instant::now() + time;
        let mut sent = 0_u64;
        while Instant::now() < end {
            stream.write_all(&buffer)?;
            sent += CHUNK as u64;
        }
        if framed {
            stream.write_all(&0_u32.to_le_bytes())?;
        } else {
            stream.shutdown(Shutdown::Write)?;
        }
        let mut counted = [0; 8];
        stream.read_exact(&mut counted)?;
        same(sent, u64::from_le_bytes(counted))
    })
}

/// Lets the target send for `time` on each of `streams` streams. A stream whose last byte is missing fails.
pub(crate) fn download(entry: Entry, streams: usize, time: Duration) -> anyhow::Result<Transfer> {
    transfer(entry, streams, move |stream| {
        stream.write_all(&[DOWNLOAD])?;
        stream.write_all(&u64::try_from(time.as_micros()).unwrap_or(u64::MAX).to_le_bytes())?;
        let mut buffer = vec![0; CHUNK];
        // The last eight bytes are the number of all before them, which are zeros.
        let mut tail = [0; 8];
        let mut received = 0_u64;
        let all = |tail: [u8; 8]| u64::from_le_bytes(tail) + tail.len() as u64;
        loop {
            let bytes = stream.read(&mut buffer)?;
            if bytes == 0 {
                break;
            }
            received += bytes as u64;
            keep_tail(&mut tail, buffer.get(..bytes).unwrap_or_default());
            if !entry.carries_ends && tail != [0; 8] && all(tail) == received {
                break;
            }
        }
        same(all(tail), received)
    })
}

fn same(expected: u64, seen: u64) -> io::Result<u64> {
    if expected == seen {
        Ok(seen)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{seen} of {expected} bytes arrived")))
    }
}

fn keep_tail(tail: &mut [u8; 8], read: &[u8]) {
    if let Some(last) = read.last_chunk() {
        *tail = *last;
    } else {
        tail.rotate_left(read.len());
        let (_, free) = tail.split_at_mut(8 - read.len());
        free.copy_from_slice(read);
    }
}

/// All streams are connected before the clock starts.
fn transfer(
    entry: Entry,
    streams: usize,
    work: impl Fn(&mut TcpStream) -> io::Result<u64> + Send + Sync,
) -> anyhow::Result<Transfer> {
    let connected: io::Result<Vec<TcpStream>> = (0..streams).map(|_| connect(entry)).collect();
    let connected = connected.with_context(|| format!("cannot connect to {}", entry.address))?;
    let start = Instant::now();
    let totals: Vec<io::Result<u64>> = thread::scope(|scope| {
        let running: Vec<_> = connected
            .into_iter()
            .map(|mut stream| {
                let work = &work;
                scope.spawn(move || work(&mut stream).inspect_err(|_| abandon(&stream)))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))).collect()
    });
    let time = start.elapsed();
    let broken = totals.iter().filter(|total| total.is_err()).count();
    let bytes = totals.into_iter().sum::<io::Result<u64>>().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            anyhow!("{broken} of {streams} streams stalled: nothing moved for {:?}", entry.patience)
        }
        _ => anyhow!("{broken} of {streams} streams broke: {error}"),
    })?;
    Ok(Transfer { bytes, time })
}

/// Opens streams for `time` from `clients` threads: connect, one byte there and back, close at both ends.
pub(crate) fn open_and_close(entry: Entry, clients: usize, time: Duration) -> anyhow::Result<Openings> {
    let start = Instant::now();
    let end = start + time;
    let client = || {
        let (mut micros, mut failed, mut last) = (Vec::new(), 0, start);
        while Instant::now() < end {
            let begin = Instant::now();
            match open(entry, ONCE) {
                Ok(mut stream) => {
                    micros.push(micros_since(begin));
                    last = Instant::now();
                    // The far end closes first: see `target`.
                    if entry.carries_ends && !matches!(stream.read(&mut [0]), Ok(0)) {
                        // It has cost more time than the measurement was to take: enough was seen.
                        failed += 1;
                        break;
                    }
                }
                Err(_) => {
                    failed += 1;
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        (micros, failed, last)
    };
    let done: Vec<(Vec<f64>, usize, Instant)> = thread::scope(|scope| {
        let running: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    // Waiting for streams that fail does not make the others slower.
    let time = done.iter().map(|(.., last)| *last).max().unwrap_or(start).saturating_duration_since(start).max(time);
    let failed = done.iter().map(|(_, failed, _)| failed).sum();
    let times = Times::new(done.into_iter().flat_map(|(micros, ..)| micros).collect());
    if times.len() == 0 {
        bail!("no stream could be opened; {failed} tries failed");
    }
    Ok(Openings { per_second: times.len() as f64 / time.as_secs_f64(), times, failed })
}

/// One byte there and back, again and again on one stream for `time`.
pub(crate) fn ping_pong(entry: Entry, time: Duration) -> anyhow::Result<Times> {
    let mut stream = open(entry, ECHO).with_context(|| format!("cannot open a stream to {}", entry.address))?;
    let end = Instant::now() + time;
    let mut micros = Vec::new();
    while Instant::now() < end {
        let begin = Instant::now();
        ping(&mut stream).context("the stream broke")?;
        micros.push(micros_since(begin));
    }
    Ok(Times::new(micros))
}

/// Opens `count` streams and gives them back, open and idle.
pub(crate) fn hold(entry: Entry, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    const CLIENTS: usize = 8;
    let opened: Vec<io::Result<Vec<TcpStream>>> = thread::scope(|scope| {
        let running: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let share = count / CLIENTS + usize::from(client < count % CLIENTS);
                scope.spawn(move || (0..share).map(|_| open(entry, ECHO)).collect())
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))).collect()
    });
    let streams: io::Result<Vec<Vec<TcpStream>>> = opened.into_iter().collect();
    let streams: Vec<TcpStream> =
        streams.context("not all idle streams could be opened")?.into_iter().flatten().collect();
    ensure!(streams.len() == count, "{} of {count} idle streams were opened", streams.len());
    Ok(streams)
}

/// Opens so many streams one after the other, keeps them open, and says how long each took.
pub(crate) fn open_each(entry: Entry, count: usize) -> anyhow::Result<(Vec<TcpStream>, Times)> {
    let (mut held, mut micros) = (Vec::new(), Vec::new());
    for number in 0..count {
        let begin = Instant::now();
        held.push(open(entry, ECHO).with_context(|| format!("stream {number} cannot be opened"))?);
        micros.push(micros_since(begin));
    }
    Ok((held, Times::new(micros)))
}

/// Begins so many handshakes at a TLS port of loopback, from many addresses, and ends none: each sends the first half of a
/// first message.
pub(crate) fn stall(door: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    use socket2::{Domain, Socket, Type};
    // A record of 512 bytes that begins a ClientHello.
    let begun = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 100]].concat();
    let mut stalled = Vec::new();
    for number in 0..count {
        let host = u8::try_from(number / FROM_ONE_ADDRESS + 2).context("too many")?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 99, host], 0)).into())?;
        socket.connect(&door.into()).with_context(|| format!("connection {number}"))?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(&begun)?;
        stream.set_nonblocking(true)?;
        stalled.push(stream);
    }
    Ok(stalled)
}

/// Whether the other side has not closed it.
pub(crate) fn is_open(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether a held stream still carries.
pub(crate) fn ping(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.write_all(b".")?;
    stream.read_exact(&mut byte)
}

fn open(entry: Entry, what: u8) -> io::Result<TcpStream> {
    let mut stream = connect(entry)?;
    stream.write_all(&[what, b'.'])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn connect(entry: Entry) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&entry.address, CONNECT_DEADLINE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(entry.patience))?;
    stream.set_write_timeout(Some(entry.patience))?;
    Ok(stream)
}

/// What a dead stream has queued is thrown away at once. Otherwise it stays in the kernel for minutes, and some hundred MiB
/// of it put the whole machine under TCP memory pressure: every other subject would look slow.
fn abandon(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn micros_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_time_that_this_share_does_not_exceed() {
        let times = Times::new((1..=100).rev().map(f64::from).collect());
        assert_eq!(times.quantile(0.5), Some(50.0));
        assert_eq!(times.quantile(0.99), Some(99.0));
        assert_eq!(Times::new(vec![7.0]).quantile(0.99), Some(7.0));
        assert_eq!(Times::default().quantile(0.5), None);
    }

    #[test]
    fn the_tail_is_the_same_however_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..40).collect();
        for size in [1, 3, 7, 8, 9, 40] {
            let mut tail = [0; 8];
            for read in bytes.chunks(size) {
                keep_tail(&mut tail, read);
            }
            assert_eq!(tail, [32, 33, 34, 35, 36, 37, 38, 39], "in chunks of {size}");
        }
    }
}
