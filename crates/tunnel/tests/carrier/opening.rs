//! How streams open: at once, after a renewal, elsewhere, or not at all. Every byte reaches the target once.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern_proto::{
    frame::{END, Header, Kind, LAST, MAX_DATA, MAX_TEXT, MAX_UNANSWERED, ResetCode},
    head::{Refused, Reply, Route as WayTo},
    problem::Problem,
};
use postern_tunnel::{
    client::Entry,
    stream::{EndCause, StreamEnd},
    tls::{ClientTls, Identity},
};
use socket2::SockRef;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{
    transfer::noise,
    world::{Gateway, Local, Org, Plan, Relay, Route, Target, device, node, request, tls, within},
};

/// Sends `sent` and its end through `route` to an echo, and takes back what comes.
async fn echo(route: Route, sent: &[u8]) -> (Vec<u8>, StreamEnd) {
    let mut local = Local::connect(route).await;
    let mut received = Vec::new();
    let (mut read, mut write) = local.app.split();
    let writing = async {
        let _ = write.write_all(sent).await;
        let _ = write.shutdown().await;
    };
    let reading = async {
        let _ = read.read_to_end(&mut received).await;
    };
    within(async { tokio::join!(writing, reading) }).await;
    (received, local.end().await)
}

/// A target that counts its connections and sends back what each gets.
async fn counting_echo() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let target = Target::bind().await;
    let (address, seen) = (target.address, Arc::new(Mutex::new(Vec::new())));
    let notes = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, notes) = (target.accept_ever().await, notes.clone());
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                let _ = stream.write_all(&bytes).await;
                notes.lock().unwrap().push(bytes);
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_lease_is_renewed_once_and_the_first_bytes_are_sent_again() {
    let org = Org::new();
    let (address, seen) = counting_echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |wish| match wish.request.lease() {
        "v4.public.0" => Plan::problem(401, "lease_expired"),
        _ => Plan::Dial(address),
    })
    .await;
    let entry = gateway.entry(org.client());
    for length in [0, 1, 1000, 70_000, 1 << 20] {
        let sent = noise(length as u64, length);
        let route = Route::to(&[&entry, &entry]);
        let failures = route.failures.clone();
        let (received, end) = echo(route, &sent).await;
        assert!(received == sent, "{length} bytes came back as {}", received.len());
        assert_eq!((end.cause, end.up, end.down), (EndCause::Done, length as u64, length as u64));
        assert_eq!(*failures.lock().unwrap(), ["lease_expired"]);
        assert!(std::mem::take(&mut *seen.lock().unwrap()) == [sent]);
    }
    assert!(entry.idle() > 0, "a refusal cost the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_refusal_of_the_lease_ends_the_stream() {
    let org = Org::new();
    let gateway = Gateway::start(&org, Duration::ZERO, |_| Plan::problem(401, "lease_expired")).await;
    let entry = gateway.entry(org.client());
    let route = Route::to(&[&entry, &entry, &entry]);
    let failures = route.failures.clone();
    let (received, end) = echo(route, b"x").await;
    assert!(received.is_empty());
    assert!(matches!(end.cause, EndCause::Refused(problem) if problem.status == 401));
    assert_eq!(failures.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_to_the_node_that_the_first_one_names() {
    let org = Org::new();
    let (address, seen) = counting_echo().await;
    let right = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let route = WayTo::new(right.node, right.address.to_string()).unwrap();
    let wrong = Gateway::start(&org, Duration::ZERO, move |_| {
        Plan::Refuse(Refused { problem: Problem::new(421, "wrong_node", "Wrong"), route: Some(route.clone()) })
    })
    .await;
    let tls = org.client();
    let (first, second) = (wrong.entry(tls.clone()), right.entry(tls));
    let (received, end) = echo(Route::to(&[&first, &second]), b"once").await;
    assert_eq!((received.as_slice(), end.cause), (b"once".as_slice(), EndCause::Done));
    assert_eq!(*seen.lock().unwrap(), [b"once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_user_as_it_is_and_the_connection_is_used_again() {
    let org = Org::new();
    let gateway = Gateway::start(&org, Duration::ZERO, |_| {
        Plan::Refuse(Problem::new(403, "denied", "Nobody may").with_detail("Ask your administrator.").into())
    })
    .await;
    let entry = gateway.entry(org.client());
    for _ in 0..20 {
        let (received, end) = echo(Route::to(&[&entry, &entry]), &noise(3, 40_000)).await;
        let expected = Problem::new(403, "denied", "Nobody may").with_detail("Ask your administrator.");
        assert_eq!((received.len(), end.cause), (0, EndCause::Refused(Box::new(expected))));
    }
    assert!((1..=3).contains(&entry.idle()), "{}", entry.idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_turns_out_dead_costs_nothing_but_a_new_one() {
    let org = Org::new();
    let (address, seen) = counting_echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let relay = Relay::to(gateway.address).await;
    let entry = gateway.entry_through(&relay, org.client());
    for length in [0, 5, 60_000, 300_000] {
        let sent = noise(9, length);
        assert_eq!(echo(Route::to(&[&entry]), b"warm").await.1.cause, EndCause::Done);
        assert!(entry.idle() > 0);
        // The connections that stand idle look alive until something is sent on them. New ones are good.
        relay.mine_those_that_are();
        let (received, end) = echo(Route::to(&[&entry]), &sent).await;
        assert!(received == sent && end.cause == EndCause::Done, "{length}: {end:?}");
        assert!(*seen.lock().unwrap() == [b"warm".to_vec(), sent]);
        seen.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_passed_over() {
    let org = Org::new();
    let target = Target::echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(target)).await;
    // Bound, so that nobody else gets the port, and never listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = silent.local_addr().unwrap();
    let tls = org.client();
    let nobody = Entry::new(node(), closed.to_string(), tls.clone()).unwrap();
    let (received, end) = echo(Route::to(&[&nobody, &gateway.entry(tls)]), b"hello").await;
    assert_eq!((received.as_slice(), end.cause), (b"hello".as_slice(), EndCause::Done));
    let (_, end) = echo(Route::to(&[&nobody]), b"hello").await;
    assert!(matches!(end.cause, EndCause::Refused(problem) if problem.code == "gateway_unreachable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_can_be_sent_again_is_taken_before_the_answer() {
    let org = Org::new();
    let target = Target::echo().await;
    let let_go = CancellationToken::new();
    let dial = let_go.clone();
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::DialWhen(dial.clone(), target)).await;
    let entry = gateway.entry(org.client());
    let sent = noise(4, 5 << 20);
    let mut local = Local::connect(Route::to(&[&entry])).await;
    let control = local.control.clone();
    let (mut read, mut write) = local.app.split();
    let mut received = Vec::new();
    let before = async {
        while control.up() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // There is time to take more, and nothing else that keeps it from that.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let taken = control.up();
        let_go.cancel();
        taken
    };
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reading = async { read.read_to_end(&mut received).await.unwrap() };
    let (taken, (), _) = within(async { tokio::join!(before, writing, reading) }).await;
    assert!((1..=MAX_UNANSWERED as u64).contains(&taken), "{taken} bytes were taken");
    assert!(received == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_speaks_first_is_heard() {
    let org = Org::new();
    let target = Target::bind().await;
    let address = target.address;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let entry = gateway.entry(org.client());
    let mut local = Local::connect(Route::to(&[&entry])).await;
    target.accept().await.write_all(b"SSH-2.0-target\r\n").await.unwrap();
    let mut banner = [0; 16];
    within(local.app.read_exact(&mut banner)).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0-target\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_its_target_is_dialled_is_noticed() {
    let org = Org::new();
    let (sender, mut noticed) = mpsc::unbounded_channel();
    let (asking, mut asked) = mpsc::unbounded_channel();
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| {
        let _ = asking.send(());
        Plan::UntilGone(sender.clone())
    });
    let gateway = gateway.await;
    let entry = gateway.entry(org.client());
    let local = Local::connect(Route::to(&[&entry])).await;
    within(asked.recv()).await.unwrap();
    SockRef::from(&local.app).set_linger(Some(Duration::ZERO)).unwrap();
    assert_eq!(local.end().await.cause, EndCause::LocalReset);
    within(noticed.recv()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_be_done_before_the_answer() {
    let org = Org::new();
    let (address, seen) = counting_echo().await;
    let gateway =
        Gateway::start(&org, Duration::ZERO, move |_| Plan::DialAfter(Duration::from_millis(50), address)).await;
    let entry = gateway.entry(org.client());
    let (received, end) = echo(Route::to(&[&entry]), b"all of it").await;
    assert_eq!((received.as_slice(), end.cause), (b"all of it".as_slice(), EndCause::Done));
    assert_eq!(*seen.lock().unwrap(), [b"all of it"]);
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [Header::new(kind, payload.len()).unwrap().write().as_slice(), payload].concat()
}

/// Sends `bytes` over an authenticated connection, and gives back all that comes.
async fn say(org: &Org, gateway: &Gateway, identity: &Identity, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tls(&org.trust(), Some(identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_the_protocol_opens_nothing() {
    let org = Org::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Plan::problem(403, "denied")
    })
    .await;
    let identity = org.identity(device());
    let head = request("v4.public.x").write();
    let text = String::from_utf8(head.clone()).unwrap();
    let reset = ResetCode::Protocol.frame().to_vec();
    let frames = [
        frame(Kind::Data, b"early"),
        frame(Kind::Reply, b"HTTP/1.1 200 OK\r\n\r\n"),
        END.to_vec(),
        ResetCode::ClientReset.frame().to_vec(),
        vec![9, 0, 0, 1, 0],
        vec![Kind::Head as u8, 0xff, 0xff, 0xff],
        vec![Kind::Head as u8, 0, 0, 0],
        [&[Kind::Data as u8], &(MAX_DATA as u32 + 1).to_be_bytes()[1..], b"x"].concat(),
        [&[Kind::Head as u8], &(MAX_TEXT as u32 + 1).to_be_bytes()[1..], b"x"].concat(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ];
    for (index, bytes) in frames.into_iter().enumerate() {
        assert_eq!(say(&org, &gateway, &identity, &bytes).await, reset, "frame {index}");
    }
    let heads = [
        text.replace("CONNECT", "GET"),
        text.replace("Postern-Lease", "Postern-Lost"),
        text.replace("res_", "dev_"),
        text.replace("\r\n", "\n"),
        format!("{text}x"),
        "nonsense".to_owned(),
    ];
    for (index, head) in heads.into_iter().enumerate() {
        let answer = say(&org, &gateway, &identity, &[frame(Kind::Head, head.as_bytes()), END.to_vec()].concat()).await;
        let Ok(Reply::Refused(refused)) = Reply::read(&answer[4..]) else { panic!("head {index}: {answer:?}") };
        assert_eq!((refused.problem.status, refused.problem.code.as_str()), (400, "bad_head"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the handler was asked");
    let flood = [frame(Kind::Head, &head), frame(Kind::Data, &vec![0; MAX_UNANSWERED + 100])].concat();
    let answer = say(&org, &gateway, &identity, &flood).await;
    assert!(answer.ends_with(&reset), "what is sent ahead has no bound");
}

/// What a node says, frame by frame, until the next frame of kind `last` has come.
async fn hear(stream: &mut TlsStream<TcpStream>, last: Kind) -> Vec<(Kind, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut header = [0; 4];
        within(stream.read_exact(&mut header)).await.unwrap();
        let header = Header::read(header).unwrap();
        let mut payload = vec![0; header.len()];
        within(stream.read_exact(&mut payload)).await.unwrap();
        frames.push((header.kind(), payload));
        if header.kind() == last {
            return frames;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_an_earlier_process_may_have_opened_is_refused() {
    let org = Org::new();
    let (address, seen) = counting_echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let identity = org.identity(device());
    let mut stream = tls(&org.trust(), Some(&identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let ask = |age| {
        let head = request("v4.public.x").aged(age).write();
        [frame(Kind::Head, &head), frame(Kind::Data, b"once"), END.to_vec()].concat()
    };
    stream.write_all(&ask(Duration::from_secs(3600))).await.unwrap();
    let (_, text) = hear(&mut stream, Kind::Reply).await.remove(0);
    let Ok(Reply::Refused(refused)) = Reply::read(&text) else { panic!("opened") };
    assert_eq!(refused.problem.code, "stream_repeated");
    assert!(seen.lock().unwrap().is_empty());
    stream.write_all(&ask(Duration::ZERO)).await.unwrap();
    let frames = hear(&mut stream, Kind::Done).await;
    assert_eq!(
        frames.iter().map(|frame| frame.0).collect::<Vec<_>>(),
        [Kind::Reply, Kind::Data, Kind::End, Kind::Done]
    );
    assert_eq!(*seen.lock().unwrap(), [b"once"]);
    // What was tried within the life of this process is not refused for its age.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut stream = tls(&org.trust(), Some(&identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    stream.write_all(&ask(Duration::from_millis(1))).await.unwrap();
    assert_eq!(hear(&mut stream, Kind::Reply).await[0].1, Reply::Opened.write());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_target_ends_first_leaves_its_connection_free_without_a_word() {
    let org = Org::new();
    let target = Target::bind().await;
    let address = target.address;
    let mut gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let identity = org.identity(device());
    let mut stream = tls(&org.trust(), Some(&identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let ask = || {
        let head = request("v4.public.x").aged(Duration::ZERO).write();
        [frame(Kind::Head, &head), frame(Kind::Data, b"hello")].concat()
    };
    let answer = async |socket: &mut TcpStream| {
        within(socket.read_exact(&mut [0; 5])).await.unwrap();
        socket.write_all(b"bye").await.unwrap();
        socket.shutdown().await.unwrap();
    };
    stream.write_all(&ask()).await.unwrap();
    let mut first = target.accept().await;
    answer(&mut first).await;
    let said = [
        (Kind::Reply, Reply::Opened.write()),
        (Kind::Data, b"bye".to_vec()),
        (Kind::Over, 5_u64.to_be_bytes().to_vec()),
    ];
    assert_eq!(hear(&mut stream, Kind::Over).await, said);
    stream.write_all(&[LAST.to_vec(), ask()].concat()).await.unwrap();
    let mut second = target.accept().await;
    assert_eq!(within(first.read(&mut [0])).await.unwrap(), 0, "it was not told the end");
    assert_eq!(gateway.ended().await, StreamEnd { cause: EndCause::Done, up: 5, down: 3 });
    answer(&mut second).await;
    assert_eq!(hear(&mut stream, Kind::Over).await, said);
    // One that breaks off after all takes the connection with it, and says nothing of the head that follows.
    let _ = SockRef::from(&second).set_linger(Some(Duration::ZERO));
    drop(second);
    let mut rest = Vec::new();
    let _ = within(stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, ResetCode::TargetReset.frame());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_says_nothing_does_not_hold_up_the_answer() {
    let org = Org::new();
    let target = Target::bind().await;
    let address = target.address;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(address)).await;
    let identity = org.identity(device());
    let mut stream = tls(&org.trust(), Some(&identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let head = request("v4.public.x").aged(Duration::ZERO).write();
    stream.write_all(&[frame(Kind::Head, &head), frame(Kind::Data, b"hello")].concat()).await.unwrap();
    let _silent = target.accept().await;
    assert_eq!(hear(&mut stream, Kind::Reply).await, [(Kind::Reply, Reply::Opened.write())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_opens_no_further_stream() {
    let org = Org::new();
    let gateway = Gateway::start(&org, Duration::ZERO, |_| Plan::problem(403, "denied")).await;
    let mut leaf = org.leaf(device());
    let ends = OffsetDateTime::now_utc() + Duration::from_secs(5);
    leaf.ends = ends;
    let (certificate, key) = org.sign(leaf);
    let identity = Identity::from_pem(org.id, &certificate, &key).unwrap();
    let mut stream = tls(&org.trust(), Some(&identity), &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let ask = [frame(Kind::Head, &request("v4.public.x").write()), END.to_vec()].concat();
    let mut codes = Vec::new();
    for _ in 0..2 {
        stream.write_all(&ask).await.unwrap();
        let mut header = [0; 4];
        within(stream.read_exact(&mut header)).await.unwrap();
        let mut text = vec![0; Header::read(header).unwrap().len()];
        within(stream.read_exact(&mut text)).await.unwrap();
        let Ok(Reply::Refused(refused)) = Reply::read(&text) else { panic!("opened") };
        codes.push(refused.problem.code);
        let left = ends + Duration::from_secs(1) - OffsetDateTime::now_utc();
        tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
    }
    assert_eq!(codes, ["denied", "certificate_expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_never_uses_a_connection_beyond_its_certificate() {
    let org = Org::new();
    let target = Target::echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(target)).await;
    let mut leaf = org.leaf(device());
    // Less than what a client keeps in hand.
    leaf.ends = OffsetDateTime::now_utc() + Duration::from_secs(20);
    let (certificate, key) = org.sign(leaf);
    let soon_over = Identity::from_pem(org.id, &certificate, &key).unwrap();
    let entry = gateway.entry(ClientTls::new(&org.trust(), &soon_over).unwrap());
    assert_eq!(echo(Route::to(&[&entry]), b"a").await.1.cause, EndCause::Done);
    assert_eq!(entry.idle(), 0);
    entry.set_tls(org.client());
    assert_eq!(echo(Route::to(&[&entry]), b"b").await.1.cause, EndCause::Done);
    assert!(entry.idle() > 0);
    entry.close();
    assert_eq!(entry.idle(), 0);
    assert_eq!(echo(Route::to(&[&entry]), b"c").await.1.cause, EndCause::Done);
    assert_eq!(entry.idle(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_connection_is_made_when_a_stream_is_expected() {
    let org = Org::new();
    let target = Target::echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(target)).await;
    let entry = gateway.entry(org.client());
    entry.warm();
    within(async {
        while entry.idle() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_breaks_off_before_a_gateway_is_found_ends_the_search() {
    let org = Org::new();
    // It accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = Entry::new(node(), silent.local_addr().unwrap().to_string(), org.client()).unwrap();
    let local = Local::connect(Route::to(&[&entry])).await;
    let _held: TcpStream = within(silent.accept()).await.unwrap().0;
    SockRef::from(&local.app).set_linger(Some(Duration::ZERO)).unwrap();
    assert_eq!(local.end().await.cause, EndCause::LocalReset);
    let local = Local::connect(Route::to(&[&entry])).await;
    local.control.cut(ResetCode::Disconnected);
    assert_eq!(local.end().await.cause, EndCause::Cut(ResetCode::Disconnected));
}
