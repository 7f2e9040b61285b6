//! A load of DNS queries over UDP, for any server at any address: as much as it answers, or a given number a second.
//!
//! Each client is a thread with a socket of its own. What is counted is answers: with the id of a query that waits, the
//! code NOERROR and at least one record. Anything else fails the measurement, and so do losses above one in a thousand.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::Times;

/// A query without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(500);
/// What a server may lose of everything: 1 / this.
const LOSSES: usize = 1000;

/// What is asked, and by how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries<'a> {
    pub(crate) server: SocketAddr,
    /// Names whose A records are asked for, one after the other.
    pub(crate) names: &'a [String],
    pub(crate) clients: usize,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) per_second: f64,
    /// From when a query was due to its answer.
    pub(crate) times: Times,
}

impl Queries<'_> {
    /// Asks for `time` as fast as answers come, with `outstanding` queries of each client on their way.
    pub(crate) fn saturate(&self, outstanding: u16, time: Duration) -> anyhow::Result<Answers> {
        self.run(time, |client, end| client.saturate(outstanding, end))
    }

    /// Asks for `time` at `rate` queries a second, whether answers come or not.
    pub(crate) fn pace(&self, rate: f64, time: Duration) -> anyhow::Result<Answers> {
        let interval = Duration::from_secs_f64(self.clients as f64 / rate);
        self.run(time, |client, end| client.pace(interval, end))
    }

    fn run(
        &self,
        time: Duration,
        work: impl Fn(&mut Client, Instant) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<Answers> {
        let messages: Vec<Vec<u8>> = self.names.iter().map(|name| message(name)).collect::<anyhow::Result<_>>()?;
        ensure!(!messages.is_empty(), "no names to ask for");
        let begin = Instant::now();
        let clients: Vec<Client> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients)
                .map(|client| {
                    let (messages, work) = (messages.clone(), &work);
                    scope.spawn(move || {
                        let first = client * messages.len() / self.clients;
                        let mut client = Client::new(self.server, messages, first)?;
                        work(&mut client, Instant::now() + time)?;
                        Ok(client)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect::<anyhow::Result<_>>()
        })?;
        let took = begin.elapsed();
        let micros: Vec<f64> = clients.iter().flat_map(|client| client.micros.iter().copied()).collect();
        let lost: usize = clients.iter().map(|client| client.lost).sum();
        ensure!(!micros.is_empty(), "no answer from {}", self.server);
        ensure!(lost <= micros.len() / LOSSES, "{lost} queries were lost, {} answered", micros.len());
        Ok(Answers { per_second: micros.len() as f64 / took.as_secs_f64(), times: Times::new(micros) })
    }
}

/// A query for the A record of `name`, with the id 0 and EDNS, as systems send it.
fn message(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).ok().filter(|length| *length < 64).context("a label is too long")?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    Ok(message)
}

struct Client {
    socket: UdpSocket,
    messages: Vec<Vec<u8>>,
    next: usize,
    id: u16,
    /// By id: when the query was due, while it waits.
    waiting: Vec<Option<Instant>>,
    in_flight: usize,
    micros: Vec<f64>,
    lost: usize,
    buffer: Vec<u8>,
}

impl Client {
    fn new(server: SocketAddr, messages: Vec<Vec<u8>>, first: usize) -> anyhow::Result<Self> {
        let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        let waiting = vec![None; usize::from(u16::MAX) + 1];
        let buffer = vec![0; 2048];
        Ok(Self { socket, messages, next: first, id: 0, waiting, in_flight: 0, micros: vec![], lost: 0, buffer })
    }

    fn saturate(&mut self, outstanding: u16, end: Instant) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            while self.in_flight < usize::from(outstanding) && self.ask(Instant::now())? {}
            if !self.take_answers()? && !self.wait(LOST)? {
                self.lost += self.in_flight;
                self.in_flight = 0;
                self.waiting.fill(None);
            }
        }
    }

    fn pace(&mut self, interval: Duration, end: Instant) -> anyhow::Result<()> {
        let mut due = Instant::now();
        while due < end {
            while due < end && due <= Instant::now() && self.ask(due)? {
                due += interval;
            }
            if !self.take_answers()? {
                self.wait(due.saturating_duration_since(Instant::now()))?;
            }
        }
        // The last ones may come.
        while self.in_flight > 0 && self.wait(LOST)? {
            self.take_answers()?;
        }
        self.lost += self.in_flight;
        Ok(())
    }

    /// Sends a query; not when the socket takes none now.
    fn ask(&mut self, due: Instant) -> anyhow::Result<bool> {
        let count = self.messages.len();
        let (Some(message), Some(waiting)) =
            (self.messages.get_mut(self.next % count), self.waiting.get_mut(usize::from(self.id)))
        else {
            bail!("no query to send")
        };
        if let Some(id) = message.first_chunk_mut::<2>() {
            *id = self.id.to_be_bytes();
        }
        match self.socket.send(message) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            sent => sent.context("cannot ask")?,
        };
        if waiting.replace(due).is_some() {
            // 65,536 queries later nobody waits any more.
            self.lost += 1;
        } else {
            self.in_flight += 1;
        }
        self.next += 1;
        self.id = self.id.wrapping_add(1);
        Ok(true)
    }

    /// Takes what is there; whether there was something.
    fn take_answers(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        loop {
            let length = match self.socket.recv(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                received => received.context("the server is not there")?,
            };
            any = true;
            let Some((&[id_high, id_low, _, flags, _, _, _, answers], _)) =
                self.buffer.get(..length).and_then(|answer| answer.split_first_chunk::<8>())
            else {
                bail!("an answer of {length} bytes")
            };
            let id = u16::from_be_bytes([id_high, id_low]);
            // One that was given up may still come.
            let Some(due) = self.waiting.get_mut(usize::from(id)).and_then(Option::take) else { continue };
            ensure!(flags & 0x0f == 0 && answers > 0, "an answer without an address, its code is {}", flags & 0x0f);
            self.in_flight -= 1;
            self.micros.push(due.elapsed().as_secs_f64() * 1e6);
        }
    }

    /// Waits for an answer; whether one is there.
    fn wait(&self, time: Duration) -> anyhow::Result<bool> {
        let time = Timespec::try_from(time).context("too long to wait")?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&time)) {
            Err(rustix::io::Errno::INTR) => Ok(true),
            ready => Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Answers every query with one record, but those that `lose` chooses.
    fn server(lose: fn(usize) -> bool, code: u8) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            for count in 0.. {
                let Ok((length, asker)) = socket.recv_from(&mut buffer) else { return };
                buffer[2] |= 0x80;
                buffer[3] = code;
                buffer[7] = 1;
                if !lose(count) {
                    socket.send_to(&buffer[..length], asker).unwrap();
                }
            }
        });
        address
    }

    const TIME: Duration = Duration::from_millis(100);

    #[test]
    fn answers_are_counted_and_their_times_are_taken() {
        let names = ["a.bench".to_owned(), "b.bench".to_owned()];
        let queries = Queries { server: server(|_| false, 0), names: &names, clients: 2 };
        let answers = queries.saturate(8, TIME).unwrap();
        assert!(answers.per_second > 0.0 && answers.times.len() > 0);
        let answers = queries.pace(500.0, TIME).unwrap();
        assert!((48..=52).contains(&answers.times.len()), "{}", answers.times.len());
    }

    #[test]
    fn losses_and_refusals_fail_the_measurement() {
        let names = ["a.bench".to_owned()];
        let ask = |server| Queries { server, names: &names, clients: 1 }.pace(500.0, TIME).map(|_| ()).unwrap_err();
        assert!(ask(server(|count| count % 2 == 0, 0)).to_string().contains("lost"));
        assert!(ask(server(|_| false, 5)).to_string().contains("code is 5"));
        assert!(ask(server(|_| true, 0)).to_string().contains("no answer"));
    }
}
