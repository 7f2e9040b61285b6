//! Carrying out what the engine says.

use std::{io, net::SocketAddr, sync::Arc};

use postern_local_api::message::PortHolder;
use postern_proto::{api::IssuedLease, id::ResourceId};
use tun_driver::socket_owner::Holder;

use super::Shell;
use crate::{
    carriage::Lease,
    clock,
    engine::{BindFailure, Command, Input, Ticket},
    listener,
    store::{CachedLeases, Choices, ChosenPorts},
};

impl Shell {
    /// Carries out every command, in order.
    pub(super) async fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Bind { ticket, resource, address } => {
                    if let Some(input) = self.bind(ticket, resource, address) {
                        self.engine.handle(input, clock::now());
                    }
                }
                Command::Unbind { ticket } => self.unbind(ticket).await,
                Command::Cut { resource, code } => {
                    let cut = self.parts.carriage.streams.cut(resource, code);
                    tracing::debug!(%resource, cut, ?code, "cut");
                }
                Command::CutRevoked(revocations) => {
                    if let Some(account) = &self.account {
                        let cut = self.parts.carriage.streams.cut_revoked(&revocations, account.owner());
                        tracing::info!(cut, "cut revoked streams");
                    }
                }
                Command::RequestLeases(ids) => self.request_leases(ids),
                Command::PutLease { lease, grant, until } => self.put_lease(lease, grant, until),
                Command::DropLease(resource) => self.parts.carriage.drop_lease(resource),
                Command::SetDenied { resource, denied } => self.parts.carriage.set_denied(resource, denied),
                Command::SaveChoices(connected) => {
                    if let Some(account) = &self.account {
                        let choices = Choices { account: account.owner().account, connected };
                        let store = self.parts.store.clone();
                        self.saver.run(move || store.save(&choices)).await;
                    }
                }
                Command::SavePorts(ports) => {
                    if let Some(account) = &self.account {
                        let ports = ChosenPorts { account: account.owner().account, ports };
                        let store = self.parts.store.clone();
                        self.saver.run(move || store.save(&ports)).await;
                    }
                }
                Command::SaveLeases(leases) => {
                    let store = self.parts.store.clone();
                    self.saver.run(move || store.save(&CachedLeases { leases })).await;
                }
                Command::RenewCertificate => self.renew_certificate(),
                Command::ConfigureNetwork { ticket, plan } => self.network.vnm.configure(ticket, plan).await,
                Command::ReleaseNetwork => self.network.vnm.release().await,
                Command::SetPlaces(places) => {
                    if let Some(account) = &self.account {
                        let org = account.record().org;
                        self.network.vnm.set_places(org, places, &self.destinations, &mut self.parts.warnings);
                    }
                }
                Command::EndSignIn => {
                    self.end_sign_in("The sign-in has ended".to_owned()).await;
                }
            }
        }
    }

    /// Opens a listener and says what came of it; a port that somebody has is reported later, with the holder's name.
    fn bind(&mut self, ticket: Ticket, resource: ResourceId, address: SocketAddr) -> Option<Input> {
        let Some(destination) = self.destinations.get(&resource).map(Arc::clone) else {
            let error = "the resource is gone".to_owned();
            return Some(Input::BindFailed { ticket, failure: BindFailure::Other { error } });
        };
        match listener::bind(address) {
            Ok(socket) => {
                tracing::info!(%address, %resource, "listening");
                let reception = self.parts.reception.clone();
                self.listeners.insert(ticket, reception.receive_in_lane(socket, address, destination));
                Some(Input::Bound { ticket })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                self.name_holder(ticket, address);
                None
            }
            Err(error) => {
                tracing::warn!(%address, %resource, "cannot listen: {error}");
                Some(Input::BindFailed { ticket, failure: BindFailure::Other { error: error.to_string() } })
            }
        }
    }

    /// Finds out, away from here, who has an address.
    fn name_holder(&self, ticket: Ticket, address: SocketAddr) {
        let (gate, inputs) = (Arc::clone(&self.parts.reception.gate), self.parts.inputs.0.clone());
        tokio::spawn(async move {
            let find = move || gate.owners().listener_holder(address).map(port_holder);
            let holder = tokio::task::spawn_blocking(find).await.ok().flatten();
            tracing::warn!(%address, ?holder, "the port is in use");
            let _ = inputs.send(Input::BindFailed { ticket, failure: BindFailure::InUse { holder } }).await;
        });
    }

    /// The port is free when this returns.
    async fn unbind(&mut self, ticket: Ticket) {
        if let Some(listener) = self.listeners.remove(&ticket) {
            listener.abort();
            let _ = listener.await;
        }
    }

    /// Tells the engine of listeners that ended on their own.
    pub(super) async fn find_lost_listeners(&mut self) {
        let lost: Vec<_> =
            self.listeners.iter().filter(|(_, task)| task.is_finished()).map(|(ticket, _)| *ticket).collect();
        for ticket in lost {
            self.listeners.remove(&ticket);
            tracing::error!("a listener ended on its own");
            self.tell(Input::ListenerLost { ticket, error: "the listener ended".to_owned() }).await;
        }
    }

    fn put_lease(&self, lease: IssuedLease, grant: Option<String>, until: std::time::Duration) {
        let IssuedLease { resource, token, .. } = lease;
        self.parts.carriage.put_lease(resource, Lease { token: token.clone(), grant, until });
        // Who has a lease will use it: a connection to the gateway may as well be ready.
        let via = self.destinations.get(&resource).map(|destination| destination.via()).unwrap_or_default();
        let entry = self.parts.carriage.gateways().choose(&via, &[], clock::now().boot);
        if let Some(entry) = &entry {
            entry.set_lease(&token);
        }
        if let Some(entry) = entry
            && entry.idle() == 0
        {
            entry.warm();
        }
    }
}

/// The process that has a port, in the words of the local API.
pub(super) fn port_holder(holder: Holder) -> PortHolder {
    let (pid, program) = holder.process.map(|process| (process.pid, process.program)).unzip();
    PortHolder { uid: holder.uid, pid, program }
}
