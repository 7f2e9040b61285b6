//! Something to reach: a page over HTTP and a TCP echo, on loopback ports that the kernel chose.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};

use crate::stack::{Bind, Service};

pub(super) const PAGE: &str = "demo-page";
const ECHO: &str = "demo-echo";

/// More connections at once are closed unserved: this is a sample.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(600);
/// The longest request head.
const MAX_HEAD: u64 = 16 * 1024;
/// How long a check waits for an answer.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

const HTML: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Postern demo</title>
<body style=\"font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem\">
<h1>You came through the postern.</h1>
<p>Your browser asked a port on 127.0.0.1. posternd carried the request over mutual TLS to a gateway, which checked your
lease, wrote down who you are, dialled this page and copied the bytes.</p>
<p><code>postern admin sessions list</code> shows the record of this visit.</p>
</body>
</html>
";

/// The running samples; they live as long as this process.
pub(super) struct Samples {
    page: SocketAddr,
    echo: SocketAddr,
}

type Check = fn(SocketAddr) -> anyhow::Result<()>;

impl Samples {
    pub(super) fn start() -> anyhow::Result<Self> {
        Ok(Self {
            page: serve(answer_http).context("cannot serve the sample page")?,
            echo: serve(echo).context("cannot serve the sample echo")?,
        })
    }

    pub(super) fn services(&self) -> Vec<Service> {
        let service = |name: &str, kind, address: SocketAddr| Service {
            name: name.to_owned(),
            kind,
            host: address.ip().to_string(),
            port: address.port(),
            allow_local: true,
            bind: Bind::Both,
        };
        vec![service(PAGE, "http", self.page), service(ECHO, "tcp", self.echo)]
    }

    /// What proves that the sample of this name answers at an address.
    pub(super) fn check(name: &str) -> Option<Check> {
        match name {
            PAGE => Some(check_page),
            ECHO => Some(check_echo),
            _ => None,
        }
    }
}

fn serve(answer: fn(TcpStream) -> io::Result<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        loop {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let place = Arc::clone(&open);
            thread::spawn(move || {
                // A client that goes away in the middle knows that itself.
                let _ = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| answer(stream));
                place.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(address)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let bytes = stream.read(&mut buffer)?;
        match buffer.get(..bytes) {
            None | Some([]) => return Ok(()),
            Some(read) => stream.write_all(read)?,
        }
    }
}

/// One request for each connection is enough for a page.
fn answer_http(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut reader = (&stream).take(MAX_HEAD);
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/")) => ("200 OK", HTML),
        (Some("GET" | "HEAD"), _) => ("404 Not Found", "There is only one page here: /\n"),
        _ => ("405 Method Not Allowed", "Only GET and HEAD work here.\n"),
    };
    let kind = if status == "200 OK" { "text/html" } else { "text/plain" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len(),
    )?;
    if !head.starts_with("HEAD ") {
        stream.write_all(body.as_bytes())?;
    }
    Ok(())
}

fn dial(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CHECK_PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(CHECK_PATIENCE))?;
    Ok(stream)
}

fn check_page(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = dial(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no whole answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(HTML), "another answer: {answer}");
    Ok(())
}

fn check_echo(address: SocketAddr) -> anyhow::Result<()> {
    const LINE: &[u8] = b"is anybody there?\n";
    let mut stream = dial(address)?;
    stream.write_all(LINE)?;
    let mut answer = [0; LINE.len()];
    stream.read_exact(&mut answer).context("no whole answer")?;
    ensure!(answer == LINE, "another answer: {answer:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_pass_their_own_checks() {
        let samples = Samples::start().unwrap();
        for (name, address) in [(PAGE, samples.page), (ECHO, samples.echo)] {
            Samples::check(name).unwrap()(address).unwrap();
        }
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let samples = Samples::start().unwrap();
        for (request, status) in [("GET /x", "404"), ("POST /", "405")] {
            let mut stream = dial(samples.page).unwrap();
            write!(stream, "{request} HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
    }
}
