use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket, UnixListener},
    time::{Instant, sleep, timeout},
};

use super::{
    control::{Control, LinkRoute, Order, Routes},
    exchange::{read_framed, write_framed},
    message::{self, NAME_ERROR, SERVER_FAILURE, is_truncated},
    run,
    sample::{answer, query},
};
use crate::interface::Zone;

/// A DNS server: answers as it is told, and counts.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Server {
    /// `reply` gives the answer to a query, or none.
    async fn start(reply: impl Fn(&[u8]) -> Option<Vec<u8>> + Clone + Send + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, reply_udp) = (Arc::clone(&asked), reply.clone());
        let over_udp = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = reply_udp(&buffer[..length]) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        let counter = Arc::clone(&asked);
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let query = read_framed(&mut stream).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = reply(&query) {
                    let _ = write_framed(&mut stream, &answer).await;
                }
            }
        });
        Self { address, asked, tasks: vec![over_udp.abort_handle(), over_tcp.abort_handle()] }
    }

    async fn saying(mark: &'static [u8]) -> Self {
        Self::start(move |query| Some(answer(query, 0, mark))).await
    }

    async fn failing(code: u8) -> Self {
        Self::start(move |query| Some(answer(query, code, b""))).await
    }

    async fn silent() -> Self {
        Self::start(|_| None).await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Bed {
    listen: SocketAddr,
    /// `None`: netd is gone.
    control: Option<Control>,
    folder: tempfile::TempDir,
    stub: tokio::task::AbortHandle,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stub.abort();
    }
}

impl Bed {
    async fn start(links: Vec<LinkRoute>, upstreams: &[&Server]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let stub = tokio::spawn(run(UnixListener::bind(&socket).unwrap())).abort_handle();
        let mut control = Control::connect(&socket).await.unwrap();
        let listen = free_port();
        let upstreams = upstreams.iter().map(|server| server.address).collect();
        control.order(&serve(listen, folder.path(), Routes { links, upstreams })).await.unwrap();
        Self { listen, control: Some(control), folder, stub }
    }

    async fn order(&mut self, order: &Order) -> std::io::Result<()> {
        if self.control.is_none() {
            self.control = Some(Control::connect(&self.folder.path().join("control.sock")).await.unwrap());
        }
        self.control.as_mut().unwrap().order(order).await
    }

    async fn ask(&self, query: &[u8]) -> Vec<u8> {
        ask(self.listen, query).await.expect("the stub answers")
    }
}

fn serve(listen: SocketAddr, folder: &Path, routes: Routes) -> Order {
    Order::Serve { listen, resolv_conf: folder.join("resolv.conf"), routes }
}

fn free_port() -> SocketAddr {
    loop {
        let address = std::net::UdpSocket::bind("127.0.72.53:0").unwrap().local_addr().unwrap();
        // The same port may be taken for TCP.
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

async fn ask(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(Duration::from_secs(8), socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(buffer[..length].to_vec())
}

fn link(zones: &[&str], server: &Server) -> LinkRoute {
    LinkRoute { zones: zones.iter().map(|zone| Zone::new(zone).unwrap()).collect(), servers: vec![server.address] }
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

#[tokio::test]
async fn our_zones_go_to_the_virtual_resolver_and_everything_else_goes_where_it_went() {
    let (ours, theirs) = (Server::saying(b"ours").await, Server::saying(b"theirs").await);
    // A resolver of ours that found its way among the upstreams is not asked for other names.
    let bed = Bed::start(vec![link(&["my-org", "db.real.example"], &ours)], &[&ours, &theirs]).await;
    for (name, expected) in [
        ("db.My-ORG", b"ours".as_slice()),
        ("my-org", b"ours"),
        ("db.real.example", b"ours"),
        ("a.db.real.example", b"ours"),
        ("real.example", b"theirs"),
        ("my-org.example", b"theirs"),
        ("notmy-org", b"theirs"),
    ] {
        let sent = query(0x1234, name, 28);
        let answer = bed.ask(&sent).await;
        assert!(answer.ends_with(expected), "{name}");
        assert_eq!(
            (&answer[..2], &answer[12..sent.len()]),
            (&sent[..2], &sent[12..]),
            "{name}: id and spelling as sent"
        );
    }
    assert_eq!((ours.asked(), theirs.asked()), (4, 3));
}

#[tokio::test]
async fn the_first_server_that_knows_answers_in_order() {
    let (first, second) = (Server::saying(b"first").await, Server::saying(b"second").await);
    let bed = Bed::start(vec![], &[&first, &second]).await;
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"first"));
    assert_eq!(second.asked(), 0, "a server that may deny the name is not asked");

    let (failing, absent) = (Server::failing(5).await, Server::failing(NAME_ERROR).await);
    let bed = Bed::start(vec![], &[&failing, &absent, &second]).await;
    assert_eq!(code(&bed.ask(&query(1, "a.example", 1)).await), NAME_ERROR, "there is no such name: a good answer");
    assert_eq!(second.asked(), 0);
    let silent = Server::silent().await;
    let bed = Bed::start(vec![], &[&silent, &second]).await;
    let start = Instant::now();
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"second"));
    assert!(start.elapsed() < Duration::from_secs(4), "a silent server gets company");
}

#[tokio::test]
async fn when_all_fail_the_client_learns_it() {
    let (refusing, silent) = (Server::failing(5).await, Server::silent().await);
    let bed = Bed::start(vec![], &[&refusing]).await;
    assert_eq!(code(&bed.ask(&query(1, "a.example", 1)).await), 5, "as the server said it");
    let bed = Bed::start(vec![], &[&silent]).await;
    let answer = bed.ask(&query(9, "a.example", 1)).await;
    assert_eq!((code(&answer), &answer[..2]), (SERVER_FAILURE, [0, 9].as_slice()));
    assert!(silent.asked() > 1, "a datagram may be lost");
    let bed = Bed::start(vec![], &[]).await;
    assert_eq!(code(&bed.ask(&query(1, "a.example", 1)).await), SERVER_FAILURE);
}

#[tokio::test]
async fn late_and_forged_answers_are_not_taken() {
    let liar = Server::start(|query| {
        let mut forged = answer(query, 0, b"forged");
        forged[0] ^= 0xff;
        Some(forged)
    })
    .await;
    let honest = Server::saying(b"honest").await;
    let bed = Bed::start(vec![], &[&liar, &honest]).await;
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"honest"));
}

#[tokio::test]
async fn each_query_goes_out_with_an_id_of_its_own() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = Server::start(move |query| {
        log.lock().unwrap().push(u16::from_be_bytes([query[0], query[1]]));
        Some(answer(query, 0, b""))
    })
    .await;
    let bed = Bed::start(vec![], &[&server]).await;
    for number in 0..20 {
        bed.ask(&query(7, &format!("n{number}.example"), 1)).await;
    }
    let seen = seen.lock().unwrap();
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert!(distinct.len() > 15, "{seen:?}");
}

#[tokio::test]
async fn who_asks_us_what_we_ask_waits_for_itself_and_multiplies_nothing() {
    // The upstream asks the stub, and only then answers: a loop.
    let listen = free_port();
    let folder = tempfile::tempdir().unwrap();
    let looping = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = looping.local_addr().unwrap();
    let rounds = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rounds);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, _)) = looping.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::SeqCst);
            looping.send_to(&buffer[..length], listen).await.unwrap();
        }
    });
    let socket = folder.path().join("control.sock");
    let stub = tokio::spawn(run(UnixListener::bind(&socket).unwrap()));
    let mut control = Control::connect(&socket).await.unwrap();
    let routes = Routes { links: vec![], upstreams: vec![address] };
    control.order(&serve(listen, folder.path(), routes)).await.unwrap();
    let reply = ask(listen, &query(1, "a.example", 1)).await.unwrap();
    assert_eq!(code(&reply), SERVER_FAILURE);
    assert!(rounds.load(Ordering::SeqCst) < 20, "{rounds:?}");
    stub.abort();
}

#[tokio::test]
async fn large_answers_go_over_tcp() {
    let server = Server::start(|query| {
        let mut answer = answer(query, 0, &[b'x'; 1500]);
        if query.len() < 100 {
            return Some(answer);
        }
        answer.truncate(query.len());
        answer[2] |= 2;
        Some(answer)
    })
    .await;
    let bed = Bed::start(vec![], &[&server]).await;
    let long = query(1, &format!("{}.{}.example", "a".repeat(60), "b".repeat(60)), 1);
    assert!(is_truncated(&bed.ask(&long).await), "truncation reaches the client");
    let mut stream = TcpStream::connect(bed.listen).await.unwrap();
    for number in 0..3 {
        write_framed(&mut stream, &query(number, "a.example", 1)).await.unwrap();
        let answer = read_framed(&mut stream).await.unwrap();
        assert_eq!((answer.len(), &answer[..2]), (27 + 1500, number.to_be_bytes().as_slice()));
    }
}

#[tokio::test]
async fn what_is_no_query_harms_nobody() {
    let server = Server::saying(b"fine").await;
    let bed = Bed::start(vec![], &[&server]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut update = query(3, "a.example", 1);
    update[2] = 0x28;
    for junk in [&b""[..], b"x", &[0xff; 600], &answer(&query(1, "a.example", 1), 0, b"")] {
        socket.send_to(junk, bed.listen).await.unwrap();
    }
    assert_eq!(code(&bed.ask(&update).await), message::NOT_IMPLEMENTED);
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"fine"));
    let mut stream = TcpStream::connect(bed.listen).await.unwrap();
    write_framed(&mut stream, b"nonsense").await.unwrap();
    assert!(read_framed(&mut stream).await.is_err(), "the connection ends");
}

#[tokio::test]
async fn without_netd_it_goes_on_for_as_long_as_resolv_conf_asks_it() {
    let server = Server::saying(b"fine").await;
    let mut bed = Bed::start(vec![], &[&server]).await;
    let file = bed.folder.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {}\n", bed.listen.ip())).unwrap();
    bed.control = None;
    sleep(Duration::from_millis(1500)).await;
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"fine"));
    // A later netd takes over.
    let other = Server::saying(b"new").await;
    let routes = Routes { links: vec![], upstreams: vec![other.address] };
    bed.order(&serve(bed.listen, bed.folder.path(), routes)).await.unwrap();
    assert!(bed.ask(&query(1, "a.example", 1)).await.ends_with(b"new"));
}

#[tokio::test]
async fn it_rests_when_it_is_told_and_when_nothing_asks_it() {
    let server = Server::saying(b"fine").await;
    let mut bed = Bed::start(vec![], &[&server]).await;
    bed.order(&Order::Stop).await.unwrap();
    assert!(ask(bed.listen, &query(1, "a.example", 1)).await.is_none());
    let again = serve(bed.listen, bed.folder.path(), Routes::default());
    bed.order(&again).await.unwrap();
    assert_eq!(code(&bed.ask(&query(1, "a.example", 1)).await), SERVER_FAILURE);
    // netd is gone, and resolv.conf never asked here.
    let listen = bed.listen;
    bed.control = None;
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::UdpSocket::bind(listen).is_err() && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    std::net::UdpSocket::bind(listen).expect("the port is free again");
}

#[tokio::test]
async fn an_order_that_cannot_be_followed_is_explained() {
    let server = Server::silent().await;
    let mut bed = Bed::start(vec![], &[&server]).await;
    let taken = std::net::UdpSocket::bind("127.0.72.53:0").unwrap();
    let order = serve(taken.local_addr().unwrap(), bed.folder.path(), Routes::default());
    let error = bed.order(&order).await.unwrap_err().to_string();
    assert!(error.contains("cannot listen on 127.0.72.53:"), "{error}");
}
