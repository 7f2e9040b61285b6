//! Posting how things stand.

use postern_local_api::{
    command::command,
    message::{ControlLink, HealthItem, ResourceStatus, SignIn, Status},
};
use postern_proto::id::ResourceId;

use super::Shell;
use crate::{clock, engine::Presence, streams::Load};

impl Shell {
    /// Posts everything that may have changed.
    pub(super) fn post(&mut self) {
        let loads = self.parts.carriage.streams.loads();
        let mut changed = self.engine.take_changed();
        changed.extend(loads.keys());
        changed.extend(self.destinations.values().filter(|it| it.take_touched()).map(|it| it.id));
        changed.extend(self.drifted());
        for id in changed {
            self.post_resource(id, loads.get(&id).copied().unwrap_or_default());
        }
        let status = self.service_status();
        self.parts.board.post_service(status);
    }

    fn post_resource(&mut self, id: ResourceId, load: Load) {
        let Some((resource, presence)) = self.engine.resource(id, clock::now()) else {
            self.forget_trouble(id);
            return self.parts.board.remove_resource(id);
        };
        let Presence { connection, virtual_name, also_at, fallback, wanted } = presence;
        let mut status = ResourceStatus {
            connection,
            wanted,
            virtual_name,
            also_at,
            fallback,
            streams: load.streams,
            bytes_up: load.up,
            bytes_down: load.down,
            grant_ends: self.engine.grant_ends(id),
            lease_ends: self.engine.lease_span(id).map(|(_, end)| end),
            port_override: self.engine.chosen_port(id).map(|(chosen, _)| chosen),
            assigned_port: self.engine.chosen_port(id).and_then(|(_, assigned)| assigned),
            route: self.parts.carriage.gateways().route(&resource.ends(), clock::now().boot),
            ..ResourceStatus::off(resource.clone())
        };
        if let Some(destination) = self.destinations.get(&id) {
            if load.down > 0 {
                destination.note_success();
            }
            let (up, down) = destination.carried();
            status.bytes_up += up;
            status.bytes_down += down;
            status.last_error = destination.failure().map(|failure| failure.text());
            status.last_used = destination.last_used();
        }
        status.command = Some(command(&status));
        self.judge(&mut status);
        self.parts.board.post_resource(status);
    }

    fn service_status(&mut self) -> Status {
        let now = clock::now();
        let network = self.engine.network_status(now);
        let health = self.health(&network);
        Status {
            service: env!("CARGO_PKG_VERSION").to_owned(),
            sign_in: self.sign_in_status(),
            control: self.control_link(),
            key_storage: self.key_storage(),
            certificate_ends: self.account.as_ref().map(|account| account.certificate().not_after),
            gateways: self.parts.carriage.gateways().status(now.boot),
            resources: Vec::new(),
            warnings: health.iter().filter(|item| item.resource.is_none()).map(sentences).collect(),
            health,
            network,
            allowed_uids: self.parts.allowed_uids.clone(),
            status_api: self.parts.status_api.borrow().clone(),
        }
    }

    fn control_link(&self) -> ControlLink {
        match (&self.link, &*self.parts.configs.borrow()) {
            (ControlLink::None, Some(config)) => {
                // Of several, the one that is asked first.
                let url = config.control.split(',').next().unwrap_or_default().trim();
                ControlLink::Known { url: url.to_owned() }
            }
            (link, _) => link.clone(),
        }
    }

    fn sign_in_status(&self) -> SignIn {
        let Some(account) = &self.account else { return SignIn::SignedOut };
        let record = account.record();
        let (account, org) = (record.account.clone(), record.org_name.clone());
        if self.locked {
            return SignIn::Locked { account, org };
        }
        SignIn::SignedIn {
            account,
            org,
            device: record.device,
            expires_at: record.expires_at,
            must_change_password: self.must_change_password,
        }
    }
}

fn sentences(item: &HealthItem) -> String {
    format!("{} {} {}", item.what, item.why, item.remedy)
}
