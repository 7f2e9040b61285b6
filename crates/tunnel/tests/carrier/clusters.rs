//! Workers of a cluster behind one address.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use postern_proto::{door::EntryCarrier, id::ClusterId, sync::ClusterInfo};
use postern_tunnel::{client::Entry, stream::EndCause};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use ulid::Ulid;

use crate::world::{Gateway, Local, Org, Plan, Route, Target, within};

/// Passes connections on to its targets in turn, and can break off all that it carries.
struct Balancer {
    address: SocketAddr,
    targets: Arc<Mutex<Vec<SocketAddr>>>,
    carried: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Balancer {
    async fn start(targets: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(targets));
        let carried = <Arc<Mutex<Vec<JoinHandle<()>>>>>::default();
        let (chosen, carrying) = (Arc::clone(&targets), Arc::clone(&carried));
        tokio::spawn(async move {
            for turn in 0_usize.. {
                let (mut client, _) = listener.accept().await.unwrap();
                let target = {
                    let targets = chosen.lock().unwrap();
                    targets[turn % targets.len()]
                };
                let passing = tokio::spawn(async move {
                    let Ok(mut worker) = TcpStream::connect(target).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut worker).await;
                });
                carrying.lock().unwrap().push(passing);
            }
        });
        Self { address, targets, carried }
    }

    fn lead_to(&self, targets: &[SocketAddr]) {
        *self.targets.lock().unwrap() = targets.to_vec();
    }

    /// What it carries is closed when this returns: nothing is broken off in the middle of what comes next.
    async fn cut_all(&self) {
        let carried = std::mem::take(&mut *self.carried.lock().unwrap());
        for passing in carried {
            passing.abort();
            let _ = passing.await;
        }
    }

    fn entry(&self, cluster: ClusterId, org: &Org) -> Arc<Entry> {
        let (name, address) = ("eu".to_owned(), self.address.to_string());
        let (carrier, leaving, removed) = (EntryCarrier::Direct, Vec::new(), Vec::new());
        let info = ClusterInfo { id: cluster, name, address, carrier, authority: None, leaving, removed };
        Entry::to_cluster(&info, org.client()).unwrap()
    }
}

fn cluster(n: u128) -> ClusterId {
    ClusterId::from_ulid(Ulid(n))
}

async fn worker(org: &Org, cluster: ClusterId, target: SocketAddr) -> (Gateway, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let worker = Gateway::start_worker(org, cluster, move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Plan::Dial(target)
    });
    (worker.await, asked)
}

async fn echo(entry: &Arc<Entry>, text: &[u8]) -> EndCause {
    let mut local = Local::connect(Route::to(&[entry])).await;
    // Where nobody is found it is reset meanwhile.
    let _ = local.app.write_all(text).await;
    let _ = local.app.shutdown().await;
    let mut back = Vec::new();
    let _ = within(local.app.read_to_end(&mut back)).await;
    let cause = local.end().await.cause;
    assert!(back == text || cause != EndCause::Done, "{back:?}");
    cause
}

#[tokio::test(flavor = "multi_thread")]
async fn any_worker_of_the_cluster_answers_at_its_address() {
    let org = Org::new();
    let target = Target::echo().await;
    let (one, one_asked) = worker(&org, cluster(1), target).await;
    let (other, other_asked) = worker(&org, cluster(1), target).await;
    let balancer = Balancer::start(vec![one.address, other.address]).await;
    let entry = balancer.entry(cluster(1), &org);
    for _ in 0..4 {
        // Without its idle connections it dials, and the balancer gives turns.
        entry.rest();
        assert_eq!(echo(&entry, b"hello").await, EndCause::Done);
    }
    assert!(one_asked.load(Ordering::SeqCst) > 0 && other_asked.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_another_cluster_or_organisation_and_gateways_are_not_spoken_to() {
    let (org, foreign) = (Org::new(), Org::new());
    let target = Target::echo().await;
    let (other_cluster, asked) = worker(&org, cluster(2), target).await;
    let (other_org, foreign_asked) = worker(&foreign, cluster(1), target).await;
    let gateway = Gateway::start(&org, std::time::Duration::ZERO, move |_| Plan::Dial(target)).await;
    for wrong in [&other_cluster, &other_org, &gateway] {
        let balancer = Balancer::start(vec![wrong.address]).await;
        let cause = echo(&balancer.entry(cluster(1), &org), b"hello").await;
        assert!(matches!(cause, EndCause::Refused(problem) if problem.code == "gateway_unreachable"));
    }
    assert_eq!(asked.load(Ordering::SeqCst) + foreign_asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_worker_that_goes_on_is_not_spoken_to_and_others_are_found() {
    let org = Org::new();
    let target = Target::echo().await;
    let (one, one_asked) = worker(&org, cluster(1), target).await;
    let (other, other_asked) = worker(&org, cluster(1), target).await;
    let balancer = Balancer::start(vec![one.address]).await;
    let entry = balancer.entry(cluster(1), &org);
    assert_eq!(echo(&entry, b"hello").await, EndCause::Done);
    entry.probe().await.unwrap();
    assert!(entry.idle() > 0);
    entry.set_removed([one.node].into());
    assert_eq!(entry.idle(), 0, "a connection to it stands ready");
    balancer.lead_to(&[one.address, other.address, other.address]);
    for _ in 0..4 {
        entry.rest();
        assert_eq!(echo(&entry, b"hello").await, EndCause::Done);
    }
    assert_eq!((one_asked.load(Ordering::SeqCst), other_asked.load(Ordering::SeqCst)), (1, 4));
    // Nobody else is left, and no spare that was being made leads elsewhere.
    balancer.lead_to(&[one.address]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    entry.rest();
    let cause = echo(&entry, b"hello").await;
    let EndCause::Refused(problem) = cause else { panic!("{cause:?}") };
    assert!(problem.detail.as_deref().is_some_and(|detail| detail.contains("removed from its cluster")), "{problem}");
    assert_eq!((one_asked.load(Ordering::SeqCst), entry.idle()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_whose_fate_is_not_known_go_to_no_other_worker() {
    let org = Org::new();
    let target = Target::echo().await;
    let (asked, mut head_came) = watch::channel(());
    let silent = Gateway::start_worker(&org, cluster(1), move |_| {
        asked.send_replace(());
        Plan::DialAfter(std::time::Duration::from_secs(60), target)
    });
    let silent = silent.await;
    let (other, other_asked) = worker(&org, cluster(1), target).await;
    let balancer = Balancer::start(vec![silent.address]).await;
    let entry = balancer.entry(cluster(1), &org);
    let mut local = Local::connect(Route::to(&[&entry])).await;
    local.app.write_all(b"pay 100").await.unwrap();
    within(head_came.changed()).await.unwrap();
    balancer.lead_to(&[other.address]);
    balancer.cut_all().await;
    assert_eq!(local.end().await.cause, EndCause::LinkLost);
    assert_eq!(other_asked.load(Ordering::SeqCst), 0, "it might have been paid twice");
    assert_eq!(echo(&entry, b"hello").await, EndCause::Done, "new streams go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_asked_about_at_the_worker_that_had_it() {
    let org = Org::new();
    let target = Target::echo().await;
    let (one, _) = worker(&org, cluster(1), target).await;
    let (other, _) = worker(&org, cluster(1), target).await;
    let balancer = Balancer::start(vec![one.address, other.address]).await;
    let entry = balancer.entry(cluster(1), &org);
    for turn in 0..6 {
        assert_eq!(echo(&entry, b"hello").await, EndCause::Done, "{turn}");
        // What stands idle is dead now, and nobody has said so.
        balancer.cut_all().await;
    }
}
