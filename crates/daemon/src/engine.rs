//! The decisions of the service: which bind addresses are listened on, what is in the virtual network and where that
//! lies, which leases are asked for and when, what is cut, when the certificate is renewed.
//!
//! Pure: no socket, no clock, no task, no chance of its own. Inputs go in by [`Engine::handle`] together with the time;
//! commands come out of [`Engine::poll_command`] and must be carried out in their order. [`Engine::poll_timeout`] says
//! when to call [`Engine::handle_timeout`] at the latest.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use postern_proto::{
    api::IssuedLease, frame::ResetCode, id::ResourceId, lease::Revocation, resource::ClientResource, time::UnixMillis,
};

use crate::port_choice::PortChoices;

mod access;
mod backoff;
mod certificate;
mod leases;
mod listener;
mod message;
mod network;
mod presence;

pub use backoff::{Jitter, backoff};
use certificate::CertificatePlan;
pub use certificate::CertificateSpan;
use leases::LeaseBook;
use listener::Listener;
pub use listener::{BindFailure, Ticket};
pub use message::{Command, Input, Now, Owner};
use network::Network;
pub use network::{NetworkPlan, NetworkTicket, NetworkWish, Place, Places, Standing};
pub use presence::Presence;

/// See the module.
#[derive(Debug)]
pub struct Engine {
    session: Session,
    entries: BTreeMap<ResourceId, Entry>,
    choices: BTreeMap<ResourceId, bool>,
    ports: PortChoices,
    leases: LeaseBook,
    denied: BTreeSet<ResourceId>,
    certificate: Option<CertificatePlan>,
    network: Network,
    /// Who is where in the virtual network may be different from what was said last.
    moved: bool,
    /// What may be used as of the last look: what is not any more is cut.
    usable: BTreeSet<ResourceId>,
    next_ticket: u64,
    commands: VecDeque<Command>,
    changed: BTreeSet<ResourceId>,
    jitter: Jitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    SignedOut,
    SignedIn { owner: Owner, locked: bool, ends: Duration },
}

#[derive(Debug)]
struct Entry {
    /// As the control plane gave it.
    given: ClientResource,
    /// With the ports that the user chose.
    resource: ClientResource,
    listener: Listener,
}

impl Engine {
    /// `seed` spreads retries.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            session: Session::SignedOut,
            entries: BTreeMap::new(),
            choices: BTreeMap::new(),
            ports: PortChoices::new(),
            leases: LeaseBook::default(),
            denied: BTreeSet::new(),
            certificate: None,
            network: Network::default(),
            moved: false,
            usable: BTreeSet::new(),
            next_ticket: 1,
            commands: VecDeque::new(),
            changed: BTreeSet::new(),
            jitter: Jitter::new(seed),
        }
    }

    pub fn handle(&mut self, input: Input, now: Now) {
        match input {
            Input::SignedIn { owner, certificate, sign_in_ends, choices } => {
                self.sign_in(owner, choices);
                let ends = now.boot.saturating_add(sign_in_ends.since(now.wall));
                self.session = Session::SignedIn { owner, locked: false, ends };
                self.certificate = Some(CertificatePlan::kept(certificate, now, &mut self.jitter));
            }
            Input::SignedOut => self.sign_out(),
            Input::Locked => self.set_locked(true),
            Input::Unlocked => self.set_locked(false),
            Input::Access(resources) => self.set_access(resources),
            Input::AccessChanged { put, removed } => self.change_access(put, &removed),
            Input::Connect(ids) => self.choose(&ids, true),
            Input::Disconnect(ids) => self.choose(&ids, false),
            Input::PortsKept(ports) => self.keep_ports(ports),
            Input::PortChosen { resource, plane, port } => self.choose_port(resource, plane, port),
            Input::Bound { ticket } => self.bound(ticket),
            Input::BindFailed { ticket, failure } => self.bind_failed(ticket, failure, now),
            Input::ListenerLost { ticket, error } => {
                self.bind_failed(ticket, BindFailure::Other { error }, now);
            }
            Input::LeaseNeeded(id) => self.leases.need(id, now),
            Input::LeasesKept(leases) => self.take_leases(leases, false, now),
            Input::LeasesIssued { leases, denied } => self.leases_issued(leases, &denied, now),
            Input::LeasesFailed => self.leases.failed(now, &mut self.jitter),
            Input::Revoked(revocations) => self.revoke(revocations),
            Input::CertificateRenewed(span) => {
                self.certificate = Some(CertificatePlan::fresh(span, now, &mut self.jitter));
            }
            Input::CertificateFailed => {
                if let Some(plan) = &mut self.certificate {
                    plan.failed(now, &mut self.jitter);
                }
            }
            Input::ControlReached => {
                self.leases.retry_now();
                if let Some(plan) = &mut self.certificate {
                    plan.retry_now(now);
                }
            }
            Input::NetworkChosen { enabled } => self.choose_network(enabled),
            Input::NetworkSettings { wish, own_names } => self.set_network(wish, own_names),
            Input::Landscape(landscape) => self.network.set_landscape(landscape),
            Input::NetworkConfigured { ticket, interface } => {
                self.network.configured(ticket, interface, now);
            }
            Input::NetworkFailed { ticket, fault, reason } => {
                self.network.failed(ticket, fault, reason, now, &mut self.jitter);
            }
            Input::NetworkNames { dns } => self.network.names_stand(dns),
            Input::NetworkLost { reason } => self.network.lost(reason, now, &mut self.jitter),
        }
        self.reconcile(now);
    }

    /// To be called when [`Engine::poll_timeout`] has come; calling it earlier or later harms nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Session::SignedIn { ends, .. } = self.session
            && ends <= now.boot
        {
            self.sign_out();
            self.commands.push_back(Command::EndSignIn);
        }
        self.reconcile(now);
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Engine::handle_timeout`] is due (boot clock). To be asked again after every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let Session::SignedIn { ends, .. } = self.session else { return None };
        let retries = self.entries.values().filter_map(|entry| entry.listener.retry_at());
        let certificate = self.certificate.as_ref().and_then(CertificatePlan::due);
        retries.chain([ends]).chain(certificate).chain(self.leases.due()).chain(self.network.retry_at()).min()
    }

    /// Resources whose state may have changed since the last call, lost ones included.
    pub fn take_changed(&mut self) -> BTreeSet<ResourceId> {
        std::mem::take(&mut self.changed)
    }

    /// Everything that the account may reach.
    pub fn resources(&self) -> impl Iterator<Item = &ClientResource> {
        self.entries.values().map(|entry| &entry.resource)
    }

    /// When the grant behind the held lease ends.
    #[must_use]
    pub fn grant_ends(&self, id: ResourceId) -> Option<UnixMillis> {
        self.leases.grant_ends(id)
    }

    /// When the held lease was given and when it ends.
    #[must_use]
    pub fn lease_span(&self, id: ResourceId) -> Option<(UnixMillis, UnixMillis)> {
        self.leases.span(id)
    }

    /// Resources whose access ends before then.
    #[must_use]
    pub fn ending_before(&self, then: UnixMillis) -> BTreeSet<ResourceId> {
        self.leases.ending_before(then)
    }

    /// Whether the control plane gives no lease for it.
    #[must_use]
    pub fn is_denied(&self, id: ResourceId) -> bool {
        self.denied.contains(&id)
    }

    /// Whether the last try to renew the certificate failed.
    #[must_use]
    pub fn is_renewal_failing(&self) -> bool {
        self.certificate.as_ref().is_some_and(CertificatePlan::is_failing)
    }

    fn sign_in(&mut self, owner: Owner, choices: BTreeMap<ResourceId, bool>) {
        let same = matches!(self.session, Session::SignedIn { owner: before, .. } if before.account == owner.account);
        if !same {
            self.sign_out();
            self.choices = choices;
        }
        self.leases.void_request();
        self.moved = true;
        self.changed.extend(self.entries.keys());
    }

    fn sign_out(&mut self) {
        self.session = Session::SignedOut;
        self.certificate = None;
        self.set_access(Vec::new());
        self.close_unwanted();
        for id in self.leases.clear() {
            self.commands.push_back(Command::DropLease(id));
        }
        self.choices.clear();
        self.ports.clear();
    }

    fn set_locked(&mut self, to: bool) {
        if let Session::SignedIn { locked, .. } = &mut self.session {
            *locked = to;
            self.moved = true;
            self.changed.extend(self.entries.keys());
        }
    }

    fn bound(&mut self, ticket: Ticket) {
        match self.entries.iter_mut().find(|(_, entry)| entry.listener.ticket() == Some(ticket)) {
            Some((id, entry)) => {
                entry.listener.opened();
                self.changed.insert(*id);
            }
            // Not wanted any more when it came up.
            None => self.commands.push_back(Command::Unbind { ticket }),
        }
    }

    fn bind_failed(&mut self, ticket: Ticket, failure: BindFailure, now: Now) {
        let found = self.entries.iter_mut().find(|(_, entry)| entry.listener.ticket() == Some(ticket));
        if let Some((id, entry)) = found {
            entry.listener.failed(failure, now, &mut self.jitter);
            self.changed.insert(*id);
        }
    }

    fn leases_issued(&mut self, leases: Vec<(IssuedLease, Option<String>)>, denied: &[ResourceId], now: Now) {
        self.take_leases(leases, true, now);
        for id in denied {
            if self.leases.denied(*id, now) {
                self.commands.push_back(Command::DropLease(*id));
            }
            self.set_denied(*id, self.entries.contains_key(id) && !self.leases.is_overtaken(*id));
            self.changed.insert(*id);
        }
        self.leases.answered(now);
        self.commands.push_back(Command::SaveLeases(self.leases.all()));
    }

    /// `fresh`: signed just now.
    fn take_leases(&mut self, leases: Vec<(IssuedLease, Option<String>)>, fresh: bool, now: Now) {
        for (lease, grant) in leases {
            let id = lease.resource;
            if !self.entries.contains_key(&id) || (!fresh && self.leases.holds(id)) {
                continue;
            }
            self.set_denied(id, false);
            let age = if fresh { Duration::ZERO } else { now.wall.since(lease.issued_at) };
            let until = self.leases.issued(lease.clone(), grant.clone(), age, now, &mut self.jitter);
            self.commands.push_back(Command::PutLease { lease, grant, until });
            self.changed.insert(id);
        }
    }

    fn set_denied(&mut self, resource: ResourceId, denied: bool) {
        let differs = if denied { self.denied.insert(resource) } else { self.denied.remove(&resource) };
        if differs {
            self.commands.push_back(Command::SetDenied { resource, denied });
        }
    }

    fn revoke(&mut self, revocations: Vec<Revocation>) {
        if let Session::SignedIn { owner, .. } = self.session {
            for id in self.leases.revoked(&revocations, owner) {
                self.commands.push_back(Command::DropLease(id));
            }
        }
        self.commands.push_back(Command::CutRevoked(revocations));
    }

    /// Brings network, listeners, leases and certificate to where they should be. Everything that closes comes before
    /// anything that opens, so that two resources may swap their addresses.
    fn reconcile(&mut self, now: Now) {
        self.step_network(now);
        self.close_unwanted();
        self.open_wanted(now);
        let wanted = self.entries.values().filter(|entry| self.may_be_used(&entry.resource));
        let wanted: BTreeSet<_> = wanted.map(|entry| entry.resource.id).collect();
        let before = std::mem::replace(&mut self.usable, wanted.clone());
        for id in before.difference(&wanted).copied() {
            self.commands.push_back(Command::Cut { resource: id, code: ResetCode::Disconnected });
            self.changed.insert(id);
        }
        let (expired, request) = self.leases.next(&wanted, now);
        self.commands.extend(expired.into_iter().map(Command::DropLease));
        self.commands.extend(request.map(Command::RequestLeases));
        if let Some(plan) = &mut self.certificate
            && plan.take_due(now)
        {
            self.commands.push_back(Command::RenewCertificate);
        }
    }

    fn close_unwanted(&mut self) {
        let moved = |entry: &Entry| entry.listener.address() != self.listens_at(&entry.resource);
        let unwanted = self.entries.values().filter(|entry| entry.listener.address().is_some() && moved(entry));
        let unwanted: Vec<_> = unwanted.map(|entry| entry.resource.id).collect();
        for id in unwanted {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if let Some(ticket) = entry.listener.close() {
                self.commands.push_back(Command::Unbind { ticket });
            }
            self.changed.insert(id);
        }
    }

    fn open_wanted(&mut self, now: Now) {
        let wanted: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.listener.may_open(now))
            .filter_map(|entry| Some((entry.resource.id, self.listens_at(&entry.resource)?)))
            .collect();
        for (id, address) in wanted {
            let refusal = self.refusal(id, address);
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.changed.insert(id);
            entry.listener.open(ticket, address);
            match refusal {
                Some(error) => entry.listener.failed(BindFailure::Impossible { error }, now, &mut self.jitter),
                None => self.commands.push_back(Command::Bind { ticket, resource: id, address }),
            }
        }
    }

    /// Why an address is never bound, whatever the control plane says: a listener that other machines reach would be
    /// open to them.
    fn refusal(&self, id: ResourceId, address: SocketAddr) -> Option<String> {
        if !address.ip().is_loopback() {
            let is_virtual = self.entries.get(&id).is_some_and(|entry| entry.resource.bind.mode.is_virtual());
            return Some(match self.network.absence().filter(|_| is_virtual) {
                Some(absence) => format!("it has an address in the virtual network only, and {absence}"),
                None => format!("{} is not a loopback address; other machines could reach it", address.ip()),
            });
        }
        (address.port() == 0).then(|| "it has no port".to_owned())
    }
}

#[cfg(test)]
mod tests;
