//! Resources of several ports and hosts: what is asked for is dialled within the resource, everything else is refused.

use postern_proto::{head::Wanted, id::StreamId, record::Event, resource::NodeResource};
use postern_tunnel::stream::EndCause;
use ulid::Ulid;

use crate::bench::{Bench, Control, Device, Running, Stream, echo, until};

fn wanted(port: u16, host: Option<&str>) -> Wanted {
    Wanted { port, host: host.map(|host| host.parse().unwrap()) }
}

/// A resource of two echoing ports and of the hosts `localhost` and all under `nowhere.invalid`.
async fn cluster(n: u128) -> (NodeResource, u16) {
    let (first, second) = (echo(n).await, echo(n).await.port);
    let ports = second.to_string().parse().unwrap();
    let hosts = ["localhost", "*.nowhere.invalid"].map(|host| host.parse().unwrap()).into();
    (NodeResource { ports, hosts, ..first }, second)
}

struct Scene {
    bench: Bench,
    own: u16,
    second: u16,
}

impl Scene {
    /// Resource 1 may lead to this machine, resource 2 is the same and may not.
    async fn start() -> Self {
        let (resource, second) = cluster(1).await;
        let own = resource.port;
        let careful = NodeResource { id: crate::bench::resource_id(2), allow_local: false, ..resource.clone() };
        let control = Control::start(vec![resource, careful]).await;
        let state = tempfile::tempdir().unwrap();
        let gateway = Running::start(&control, &state).await;
        let device = Device::new(&control.ca, 1);
        let entry = device.entry(gateway.ready.listen);
        Self { bench: Bench { control, state, gateway, device, entry }, own, second }
    }

    async fn open(&self, resource: u128, wanted: Wanted) -> Stream {
        let id = StreamId::from_ulid(Ulid::from_parts(crate::bench::now().0, rand::random()));
        Stream::open_wanting(wanted, id, &self.bench.entry, resource, &self.bench.device.lease(resource)).await
    }
}

#[tokio::test]
async fn each_port_and_host_is_dialled_as_asked_and_recorded_so() {
    let scene = Scene::start().await;
    let (own, second) = (scene.own, scene.second);
    for (port, host, target) in [
        (0, None, format!("127.0.0.1:{own}")),
        (own, None, format!("127.0.0.1:{own}")),
        (second, None, format!("127.0.0.1:{second}")),
        (0, Some("localhost"), format!("localhost:{own}")),
        (second, Some("localhost"), format!("localhost:{second}")),
    ] {
        let mut stream = scene.open(1, wanted(port, host)).await;
        stream.ping(target.as_bytes()).await.unwrap();
        let id = stream.id;
        assert_eq!(stream.close().await, EndCause::Done);
        let end = scene.bench.control.end_of(id).await;
        assert_eq!(end.dialled.map(|dialled| dialled.port()), target.rsplit_once(':').unwrap().1.parse().ok());
        let start = scene.bench.control.starts().into_iter().find(|start| start.stream == id).unwrap();
        assert_eq!(start.target, target);
    }
    scene.bench.gateway.finish().await;
}

#[tokio::test]
async fn what_is_outside_of_the_resource_is_refused_and_told_to_the_administrator() {
    let scene = Scene::start().await;
    let (own, second) = (scene.own, scene.second);
    let other = [own, second].into_iter().map(|port| port ^ 1).find(|port| ![own, second].contains(port)).unwrap();
    for (port, host, code) in [
        (other, None, "port_not_allowed"),
        (22, Some("localhost"), "port_not_allowed"),
        (second, Some("nowhere.invalid"), "host_not_allowed"),
        (0, Some("db.nowhere.invalid.example"), "host_not_allowed"),
    ] {
        let problem = scene.open(1, wanted(port, host)).await.refusal().await;
        assert_eq!((problem.status, problem.code.as_str()), (403, code), "{problem}");
        let asked = wanted(port, host).to_string();
        let told = |event: &Event| {
            matches!(event, Event::Refused(refused)
            if refused.code == code && refused.wanted.as_deref() == Some(&asked))
        };
        until(|| scene.bench.control.records().iter().any(|record| told(&record.event))).await;
    }
    scene.bench.gateway.finish().await;
}

#[tokio::test]
async fn hosts_that_are_asked_for_are_judged_as_any_other() {
    let scene = Scene::start().await;
    for (resource, host, status, code) in
        [(1, "b1.nowhere.invalid", 502, "target_unresolvable"), (2, "localhost", 403, "target_forbidden")]
    {
        let problem = scene.open(resource, wanted(0, Some(host))).await.refusal().await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{problem}");
    }
    scene.bench.gateway.finish().await;
}
