//! What may be reached, and what of it is to be connected.

use std::collections::BTreeSet;

use postern_proto::{id::ResourceId, resource::ClientResource};

use super::{Command, Engine, Entry, listener::Listener};

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
                Some(entry) if entry.resource == resource => continue,
                Some(entry) => {
                    let revised = entry.resource.revision != resource.revision;
                    entry.resource = resource;
                    if revised {
                        self.leases.expire(id);
                        self.set_denied(id, false);
                    }
                }
                None => {
                    self.leases.expire(id);
                    self.entries.insert(id, Entry { resource, listener: Listener::default() });
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
        self.commands.push_back(Command::Cut { resource: id });
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
                self.commands.push_back(Command::Cut { resource: *id });
            }
            self.changed.insert(*id);
        }
        if differs {
            self.commands.push_back(Command::SaveChoices(self.choices.clone()));
        }
    }
}
