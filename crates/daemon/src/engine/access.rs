//! What may be reached, and what of it is to be connected.

use std::collections::BTreeSet;

use postern_proto::{frame::ResetCode, id::ResourceId, resource::ClientResource};

use super::{Command, Engine, Entry, listener::Listener};
use crate::port_choice::{Plane, PortChoices};

impl Engine {
    pub(super) fn set_access(&mut self, resources: Vec<ClientResource>) {
        let there: BTreeSet<_> = resources.iter().map(|resource| resource.id).collect();
        let lost: Vec<_> = self.entries.keys().filter(|id| !there.contains(*id)).copied().collect();
        self.change_access(resources, &lost);
    }

    pub(super) fn change_access(&mut self, put: Vec<ClientResource>, removed: &[ResourceId]) {
        self.moved = true;
        for id in removed {
            if let Some(entry) = self.entries.remove(id) {
                self.lose(*id, entry);
            }
        }
        for resource in put {
            let id = resource.id;
            match self.entries.get_mut(&id) {
                Some(entry) if entry.given == resource => continue,
                Some(entry) => {
                    let revised = entry.given.revision != resource.revision;
                    entry.resource = self.ports.get(&id).copied().unwrap_or_default().apply(&resource);
                    entry.given = resource;
                    if revised {
                        self.leases.expire(id);
                        self.set_denied(id, false);
                    }
                }
                None => {
                    self.leases.expire(id);
                    let chosen = self.ports.get(&id).copied().unwrap_or_default().apply(&resource);
                    self.entries.insert(id, Entry { given: resource, resource: chosen, listener: Listener::default() });
                }
            }
            self.changed.insert(id);
        }
    }

    fn lose(&mut self, id: ResourceId, mut entry: Entry) {
        self.changed.insert(id);
        if let Some(ticket) = entry.listener.close() {
            self.commands.push_back(Command::Unbind { ticket });
        }
        if self.leases.remove(id) {
            self.commands.push_back(Command::DropLease(id));
        }
        self.set_denied(id, false);
        self.commands.push_back(Command::Cut { resource: id, code: ResetCode::Revoked });
    }

    /// What the user chose in an earlier run.
    pub(super) fn keep_ports(&mut self, ports: PortChoices) {
        self.ports = ports;
        let all: Vec<_> = self.entries.keys().copied().collect();
        all.into_iter().for_each(|id| self.apply_ports(id));
    }

    pub(super) fn choose_port(&mut self, id: ResourceId, plane: Plane, port: Option<u16>) {
        let choice = self.ports.entry(id).or_default();
        choice.set(plane, port);
        if choice.is_empty() {
            self.ports.remove(&id);
        }
        self.apply_ports(id);
        self.commands.push_back(Command::SavePorts(self.ports.clone()));
    }

    fn apply_ports(&mut self, id: ResourceId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let chosen = self.ports.get(&id).copied().unwrap_or_default().apply(&entry.given);
        if entry.resource != chosen {
            entry.resource = chosen;
            entry.listener.retry_now();
            self.changed.insert(id);
            self.moved = true;
        }
    }

    /// The address of a resource that a port would be chosen for now.
    #[must_use]
    pub fn plane(&self, id: ResourceId) -> Option<Plane> {
        let bind = &self.entries.get(&id)?.given.bind;
        Some(if bind.mode.is_virtual() && self.network.up().is_some() { Plane::Network } else { Plane::Loopback })
    }

    /// The port that the user chose for the address that a resource has now, and the assigned one.
    #[must_use]
    pub fn chosen_port(&self, id: ResourceId) -> Option<(u16, Option<u16>)> {
        let plane = self.plane(id)?;
        let chosen = self.ports.get(&id)?.of(plane)?;
        let assigned = plane.address(&self.entries.get(&id)?.given).map(|address| address.port());
        Some((chosen, assigned))
    }

    pub(super) fn choose(&mut self, ids: &[ResourceId], connected: bool) {
        let mut differs = false;
        self.moved = true;
        for id in ids {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            differs |= self.choices.insert(*id, connected) != Some(connected);
            if connected {
                entry.listener.retry_now();
            } else {
                self.commands.push_back(Command::Cut { resource: *id, code: ResetCode::Disconnected });
            }
            self.changed.insert(*id);
        }
        if differs {
            self.commands.push_back(Command::SaveChoices(self.choices.clone()));
        }
    }
}
