//! Ports that the user chooses, and when resources were last used.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

use postern_local_api::{
    cause::Cause,
    message::{ChangeReport, PortOverride, ResourceStatus},
};
use postern_proto::{id::ResourceId, problem::Problem};
use tokio::sync::oneshot;

use super::{SETTLE, Shell, Waiting, answer, commands::port_holder};
use crate::{
    clock,
    engine::Input,
    listener,
    port_choice::{self, Plane},
    request::{Reply, stopping},
    store::LastUsed,
};

impl Shell {
    /// Answers when it is known whether the port could be taken.
    pub(super) async fn choose_port(&mut self, wish: PortOverride, reply: Reply<ResourceStatus>) {
        let PortOverride { resource, port } = wish;
        let plane = match self.check_port(resource, port).await {
            Ok(plane) => plane,
            Err(problem) => return answer(reply, Err(problem)),
        };
        let (done, report) = oneshot::channel();
        let until = clock::now().boot + SETTLE;
        let ids = BTreeSet::from([resource]);
        self.waiting.push(Waiting { ids, before: Default::default(), until, reply: done });
        self.tell(Input::PortChosen { resource, plane, port }).await;
        // What was answered is remembered, whatever happens next.
        self.saver.flush().await;
        tokio::spawn(async move {
            let settled = report.await.unwrap_or_else(|_| Err(stopping()));
            answer(reply, settled.and_then(only));
        });
    }

    async fn check_port(&self, id: ResourceId, port: Option<u16>) -> Result<Plane, Problem> {
        if self.account.is_none() {
            return Err(Problem::new(409, "signed_out", "Nobody is signed in").with_detail("Sign in: postern login"));
        }
        let unknown = || Problem::new(404, "no_such_resource", "There is no such resource");
        let plane = self.engine.plane(id).ok_or_else(unknown)?;
        let resource = self.engine.resources().find(|resource| resource.id == id).ok_or_else(unknown)?;
        let Some(port) = port else { return Ok(plane) };
        port_choice::check(port, plane, resource, self.engine.resources())?;
        let Some(now) = plane.address(resource).filter(|_| plane == Plane::Loopback) else { return Ok(plane) };
        let address = SocketAddr::new(now.ip(), port);
        if address != now
            && let Err(error) = listener::bind(address)
            && error.kind() == io::ErrorKind::AddrInUse
        {
            let gate = Arc::clone(&self.parts.reception.gate);
            let find = move || gate.owners().listener_holder(address).map(port_holder);
            let holder = tokio::task::spawn_blocking(find).await.ok().flatten();
            let cause = Cause::PortTaken { resource: resource.name.clone(), address, holder };
            return Err(port_choice::taken(&cause, port));
        }
        Ok(plane)
    }

    /// Writes down when resources were last used, where that is different from what is on disk.
    pub(super) async fn save_last_used(&mut self) {
        let Some(account) = &self.account else { return };
        let used =
            self.destinations.values().filter_map(|destination| Some((destination.id, destination.last_used()?)));
        let mut at = self.last_used.clone();
        at.extend(used);
        if at != self.last_used {
            self.last_used = at.clone();
            let kept = LastUsed { account: account.owner().account, at };
            let store = self.parts.store.clone();
            self.saver.run(move || store.save(&kept)).await;
        }
    }
}

fn only(report: ChangeReport) -> Result<ResourceStatus, Problem> {
    let gone = || Problem::new(404, "no_such_resource", "The resource is gone");
    report.resources.into_iter().next().ok_or_else(gone)
}
