//! A gateway and a worker that are cut off from the control plane, and access to ordinary resources that is taken away
//! meanwhile. They cannot know; but what they were told before has its end.
//!
//! ```text
//! DMZ (0: control plane) ──┬── gateway-1, resource (2) ── client (1)
//!                          └── worker-1, resource (3) ─────┘
//! ```

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{
    id::{NodeId, ResourceId},
    resource::Kind,
};
use postern_tests::{
    api::Identity,
    carrier::{Carrier, RESET, Received, Reply, head, new_stream},
    clock,
    device::Device,
    figure, need_namespace,
    site::{self, DMZ, LocalTarget, Site, address},
    stack::{EMAIL, How, PASSWORD, Stack, Worker},
    target::Behaviour,
};
use serde_json::json;
use tokio::sync::oneshot;

const CLIENT: usize = 1;
const GATEWAY: usize = 2;
const WORKER: usize = 3;
/// How long the grant lasts whose end is waited for.
const GRANT: Duration = Duration::from_secs(25);
/// How long everything may take that is to happen.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a node opens streams on what it was told before the control plane was lost, and a little more.
const FAIL_STATIC: Duration = Duration::from_secs(60 * 60 + 60);
/// The code with which a stream is reset whose grant has ended.
const GRANT_ENDED: [u8; 2] = [0, 5];

/// A node and what is behind it.
struct Node {
    name: &'static str,
    network: usize,
    id: NodeId,
    door: SocketAddr,
    state: PathBuf,
    resource: ResourceId,
    _target: LocalTarget,
}

struct Bed {
    site: Site,
    stack: Stack,
    worker: Worker,
    nodes: [Node; 2],
    /// Somebody who has leases and hears of no revocation.
    device: Device,
}

impl Bed {
    async fn start(site: Site) -> anyhow::Result<Self> {
        site.join(CLIENT, GATEWAY).await?;
        site.join(CLIENT, WORKER).await?;
        let mut stack = Stack::builder().gateways(0).host(DMZ).without_user().start().await?;
        let how =
            |network| How { launcher: site.launcher(network), host: Some(address(network, CLIENT)), ..How::default() };
        let gateway = stack.add_gateway_with("gateway-1", &how(GATEWAY)).await?;
        let cluster = stack.create_cluster("eu", SocketAddr::new(DMZ, 1)).await?;
        let key = stack.create_key(cluster).await?;
        let worker = stack.start_worker_in("worker-1", &key, &how(WORKER), &[]).await?;
        let behind_gateway = site.target(GATEWAY, Behaviour::Echo).await?;
        let behind_worker = site.target(WORKER, Behaviour::Echo).await?;
        let free = stack.create_resource("free", Kind::Tcp, behind_gateway.address()).await?;
        let bound = stack.create_resource("bound", Kind::Tcp, behind_worker.address()).await?;
        stack.api().patch(&format!("/api/v1/resources/{bound}"), json!({"cluster": cluster})).await?;
        let nodes = [
            Node {
                name: "gateway",
                network: GATEWAY,
                id: gateway.id(),
                door: gateway.address(),
                state: gateway.state().to_owned(),
                resource: free,
                _target: behind_gateway,
            },
            Node {
                name: "worker",
                network: WORKER,
                id: worker.id(),
                door: worker.listens(),
                state: stack.folder().join("worker-1.state"),
                resource: bound,
                _target: behind_worker,
            },
        ];
        stack.gateways.push(gateway);
        let device = Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
        Ok(Self { site, stack, worker, nodes, device })
    }

    fn credentials(&self) -> (String, Identity) {
        (self.stack.control.address().ca.clone(), self.device.identity.clone())
    }

    /// Asks for a stream, from the client's network.
    async fn ask(&self, node: &Node, lease: &str) -> anyhow::Result<Reply> {
        let ((ca, identity), lease) = (self.credentials(), lease.to_owned());
        let (door, id, resource) = (node.door, node.id, node.resource);
        let asking = self.site.within(CLIENT, move || async move {
            let mut carrier = Carrier::dial(door, id, &ca, &identity).await?;
            carrier.open(&head(resource, &lease, new_stream())).await?.context("no answer")
        });
        asking.await.with_context(|| format!("at the {}", node.name))
    }

    /// A stream to its end: with which code that came, and when.
    async fn hold(
        &self,
        node: &Node,
        lease: &str,
        opened: oneshot::Sender<()>,
    ) -> anyhow::Result<(Option<Vec<u8>>, Instant)> {
        let ((ca, identity), lease) = (self.credentials(), lease.to_owned());
        let (door, id, resource) = (node.door, node.id, node.resource);
        let holding = self.site.within(CLIENT, move || async move {
            let mut carrier = Carrier::dial(door, id, &ca, &identity).await?;
            let reply = carrier.open(&head(resource, &lease, new_stream())).await?.context("no answer")?;
            anyhow::ensure!(reply.status == 200, "{}", reply.text);
            let _ = opened.send(());
            loop {
                match carrier.receive_patiently(GRANT + LIMIT).await? {
                    Received::Frame(RESET, code) => return Ok((Some(code), Instant::now())),
                    Received::Frame(..) => {}
                    Received::Closed => return Ok((None, Instant::now())),
                }
            }
        });
        holding.await.with_context(|| format!("at the {}", node.name))
    }

    /// Until a node answers so: what it was told travels.
    async fn until_answered(&self, node: &Node, lease: &str, status: u16) -> anyhow::Result<Reply> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let reply = self.ask(node, lease).await?;
            if reply.status == status {
                return Ok(reply);
            }
            anyhow::ensure!(Instant::now() < deadline, "the {} stays at {}", node.name, reply.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn cut(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            self.site.cut(0, node.network).await?;
        }
        Ok(())
    }

    async fn mend(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            self.site.mend(0, node.network).await?;
        }
        Ok(())
    }

    /// A grant that has an end is taken away while nobody can tell the nodes.
    async fn ordinary_access_ends_with_its_grant(&self) -> anyhow::Result<()> {
        let ends = clock::now().plus(GRANT);
        let (mut grants, mut leases) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            grants.push(self.stack.grant(self.stack.account, node.resource, Some(GRANT)).await?);
            leases.push(self.device.lease(node.resource).await?.token);
        }
        let [gateway, worker] = &self.nodes;
        let [of_gateway, of_worker] = leases.as_slice() else { anyhow::bail!("two leases") };
        self.until_answered(gateway, of_gateway, 200).await?;
        self.until_answered(worker, of_worker, 200).await?;
        let ((one, first), (other, second)) = (oneshot::channel(), oneshot::channel());
        let meanwhile = async {
            first.await.context("the gateway opens nothing")?;
            second.await.context("the worker opens nothing")?;
            self.cut().await?;
            for grant in &grants {
                self.stack.api().delete(&format!("/api/v1/grants/{grant}")).await?;
            }
            for (node, lease) in self.nodes.iter().zip(&leases) {
                let reply = self.ask(node, lease).await?;
                anyhow::ensure!(reply.status == 200, "the {} cannot know: {}", node.name, reply.text);
            }
            anyhow::ensure!(clock::now() < ends, "this machine is too slow for this test");
            Ok(Instant::now() + ends.since(clock::now()))
        };
        let (at_gateway, at_worker, ends) =
            tokio::try_join!(self.hold(gateway, of_gateway, one), self.hold(worker, of_worker, other), meanwhile)?;
        for ((node, lease), (code, at)) in self.nodes.iter().zip(&leases).zip([at_gateway, at_worker]) {
            assert_eq!(code, Some(GRANT_ENDED.to_vec()), "at the {}", node.name);
            // The end was read a moment before the control plane had written it.
            let late = at.saturating_duration_since(ends);
            assert!(at + Duration::from_secs(1) > ends, "the {} cut what it could not know to be over", node.name);
            let reply = self.ask(node, lease).await?;
            assert_ne!(reply.status, 200, "the {} opens what has ended", node.name);
            figure::say(&format!(
                "{} cut off from the control plane: revoked access to an ordinary resource ended {late:.1?} after the end of its \
                 grant, then {} {}",
                node.name, reply.status, reply.code
            ));
        }
        self.mend().await?;
        self.stack.nodes_are_connected().await
    }

    /// A grant that has no end is taken away; the nodes go on for an hour, and no longer.
    async fn ordinary_access_ends_within_an_hour(&mut self) -> anyhow::Result<()> {
        self.stack.add_rule(self.stack.role, &self.nodes.each_ref().map(|node| node.resource)).await?;
        let mut leases = Vec::new();
        for node in &self.nodes {
            let lease = self.device.lease(node.resource).await?.token;
            self.until_answered(node, &lease, 200).await?;
            leases.push(lease);
        }
        self.cut().await?;
        self.stack.revoke_all().await?;
        for (node, lease) in self.nodes.iter().zip(&leases) {
            assert_eq!(self.ask(node, lease).await?.status, 200, "the {} cannot know", node.name);
        }
        // As if they had been alone for more than an hour.
        self.stack.gateways.first_mut().context("no gateway")?.kill().await?;
        self.worker.kill().await?;
        let then = clock::now().0 - u64::try_from(FAIL_STATIC.as_millis())?;
        for node in &self.nodes {
            // Where it notes when it last heard from the control plane.
            let mut file = std::fs::OpenOptions::new();
            let mut file =
                file.create(true).truncate(true).write(true).mode(0o600).open(node.state.join("heard.json"))?;
            file.write_all(then.to_string().as_bytes())?;
        }
        self.stack.gateways.first_mut().context("no gateway")?.restart().await?;
        self.worker.restart().await?;
        for (node, lease) in self.nodes.iter().zip(&leases) {
            let reply = self.ask(node, lease).await?;
            assert_ne!(reply.status, 200, "the {} opens streams without end", node.name);
            figure::say(&format!(
                "{} cut off from the control plane for an hour: {} {}",
                node.name, reply.status, reply.code
            ));
        }
        self.mend().await?;
        let mended = Instant::now();
        self.stack.nodes_are_connected().await?;
        for (node, lease) in self.nodes.iter().zip(&leases) {
            let reply = self.until_answered(node, lease, 401).await?;
            assert_eq!(reply.code, "lease_revoked", "{}", reply.text);
            let took = mended.elapsed();
            figure::say(&format!("{} is back: it knew of the revocation within {took:.1?}", node.name));
        }
        Ok(())
    }
}

#[test]
fn nodes_that_lost_the_control_plane_end_ordinary_access_with_its_grant_and_all_access_within_an_hour()
-> anyhow::Result<()> {
    need_namespace!();
    site::run(3, async |site| {
        let mut bed = Bed::start(site).await?;
        bed.ordinary_access_ends_with_its_grant().await?;
        bed.ordinary_access_ends_within_an_hour().await?;
        bed.worker.stop().await?;
        bed.stack.stop().await
    })
}
