//! Nodes that stop, and what they say to those who ask for something at that very moment.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern_proto::id::ClusterId;
use postern_tunnel::{client::Entry, node::Arrival, stream::EndCause};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use ulid::Ulid;

use crate::world::{Gateway, Local, Org, Plan, Route, Target, tls_over, within};

/// Passes connections on to one address. While it holds, nothing that is said there comes back.
struct SlowPath {
    address: SocketAddr,
    held: watch::Sender<bool>,
}

impl SlowPath {
    async fn to(there: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, holds) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, there, holds.clone()));
            }
        });
        Self { address, held }
    }
}

async fn carry(mut client: TcpStream, there: SocketAddr, mut held: watch::Receiver<bool>) {
    let Ok(mut node) = TcpStream::connect(there).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_node, mut to_node) = node.split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_node).await;
    };
    let down = async {
        let mut bytes = vec![0; 65_536];
        while let Ok(count @ 1..) = from_node.read(&mut bytes).await {
            let _ = held.wait_for(|held| !held).await;
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        let _ = held.wait_for(|held| !held).await;
    };
    // What was said before it closed is passed on, whatever the client says meanwhile.
    tokio::select! {
        () = async { tokio::join!(up, std::future::pending::<()>()); } => {}
        () = down => {}
    }
}

async fn counting(org: &Org, drain: Duration, target: SocketAddr) -> (Gateway, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let gateway = Gateway::start(org, drain, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Plan::Dial(target)
    });
    (gateway.await, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_crosses_a_stopping_nodes_goodbye_is_carried_out_by_another_node() {
    let org = Org::new();
    let target = Target::echo().await;
    let (leaving, leaving_asked) = counting(&org, Duration::ZERO, target).await;
    let (other, other_asked) = counting(&org, Duration::ZERO, target).await;
    let path = SlowPath::to(leaving.address).await;
    let first = Entry::new(leaving.node, path.address.to_string(), org.client()).unwrap();
    let second = other.entry(org.client());
    assert_eq!(Local::connect(Route::to(&[&first])).await.echo(b"before").await, b"before");
    assert!(first.idle() > 0);

    path.held.send_replace(true);
    let Gateway { stop, task, .. } = &leaving;
    stop.cancel();
    // To its very end: nobody is there to be asked again.
    within(async {
        while !task.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut local = Local::connect(Route::to(&[&first, &second])).await;
    local.app.write_all(b"pay 100").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    path.held.send_replace(false);
    let mut back = [0; 7];
    within(local.app.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"pay 100");
    local.app.shutdown().await.unwrap();
    assert_eq!(local.end().await.cause, EndCause::Done);
    assert_eq!((leaving_asked.load(Ordering::SeqCst), other_asked.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_last_is_told_that_the_node_leaves() {
    let org = Org::new();
    let target = Target::echo().await;
    // What runs when it is stopped has time to end.
    let (leaving, _) = counting(&org, Duration::from_secs(10), target).await;
    let (other, _) = counting(&org, Duration::ZERO, target).await;
    let (first, second) = (leaving.entry(org.client()), other.entry(org.client()));
    // New connections all the time, to the very end and beyond it.
    let stop = leaving.stop.clone();
    let stopping = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.cancel();
    });
    let mut carried = 0;
    while !leaving.task.is_finished() {
        first.rest();
        let back = Local::connect(Route::to(&[&first, &second, &second])).await.echo(b"hello").await;
        assert_eq!(back, b"hello", "after {carried}");
        carried += 1;
    }
    stopping.await.unwrap();
    assert!(carried > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_shut_serves_who_had_come_and_lets_clients_in_again_when_it_is_opened() {
    let org = Org::new();
    let target = Target::echo().await;
    let (shut, is_shut) = watch::channel(false);
    let arrival = Arrival { shut: Some(is_shut), ..Arrival::default() };
    let cluster = ClusterId::from_ulid(Ulid(9));
    let worker = Gateway::start_worker_at(&org, cluster, arrival, move |_| Plan::Dial(target)).await;
    let entry = Entry::new(cluster, worker.address.to_string(), org.client()).unwrap();
    let mut old = Local::connect(Route::to(&[&entry])).await;
    old.app.write_all(b"a").await.unwrap();
    assert_eq!(within(old.app.read_u8()).await.unwrap(), b'a');
    // It has connected and said nothing yet.
    let early = TcpStream::connect(worker.address).await.unwrap();

    shut.send_replace(true);
    within(async {
        while TcpStream::connect(worker.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    old.app.write_all(b"b").await.unwrap();
    assert_eq!(within(old.app.read_u8()).await.unwrap(), b'b', "a stream ended with the port");
    let heard = tls_over(early, &org.trust(), None, &[b"http/1.1"], worker.node).await;
    assert!(heard.is_ok(), "who had come was hung up on: {heard:?}");

    shut.send_replace(false);
    within(async {
        while entry.probe().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    entry.rest();
    assert_eq!(Local::connect(Route::to(&[&entry])).await.echo(b"again").await, b"again");
}
