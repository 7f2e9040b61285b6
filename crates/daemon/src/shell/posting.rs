//! Posting how things stand.

use postern_local_api::{
    command::command,
    message::{Connection, KeyStorage, ResourceState, ResourceStatus, SignIn, Status, StatusApi},
};
use postern_proto::{id::ResourceId, resource::Health, time::UnixMillis};

use super::Shell;
use crate::{clock, engine::Presence, process, store::DeviceKey, streams::Load};

/// A sign-in that ends sooner is told of.
const SIGN_IN_SOON: std::time::Duration = std::time::Duration::from_secs(3600);

impl Shell {
    /// Posts everything that may have changed.
    pub(super) fn post(&mut self) {
        let loads = self.parts.carriage.streams.loads();
        let mut changed = self.engine.take_changed();
        changed.extend(loads.keys());
        changed.extend(self.destinations.values().filter(|it| it.take_touched()).map(|it| it.id));
        for id in changed {
            self.post_resource(id, loads.get(&id).copied().unwrap_or_default());
        }
        self.parts.board.post_service(self.service_status());
    }

    fn post_resource(&self, id: ResourceId, load: Load) {
        let Some((resource, presence)) = self.engine.resource(id, clock::now()) else {
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
            lease_ends: self.engine.lease_ends(id),
            route: self.parts.carriage.gateways().route(&resource.via, clock::now().boot),
            ..ResourceStatus::off(resource.clone())
        };
        if let Some(destination) = self.destinations.get(&id) {
            if load.down > 0 {
                destination.note_success();
            }
            let (up, down) = destination.carried();
            status.bytes_up += up;
            status.bytes_down += down;
            status.last_error = destination.last_error();
        }
        status.command = Some(command(&status));
        status.state = state(&status, clock::wall());
        self.parts.board.post_resource(status);
    }

    fn service_status(&self) -> Status {
        let now = clock::now();
        let key_file = self.parts.store.path::<DeviceKey>().display().to_string();
        Status {
            service: env!("CARGO_PKG_VERSION").to_owned(),
            sign_in: self.sign_in_status(),
            control: self.link.clone(),
            key_storage: KeyStorage::File { path: key_file },
            certificate_ends: self.account.as_ref().map(|account| account.certificate().not_after),
            gateways: self.parts.carriage.gateways().status(now.boot),
            resources: Vec::new(),
            health: Vec::new(),
            network: self.engine.network_status(now),
            allowed_uids: self.parts.allowed_uids.clone(),
            status_api: self.parts.status_api.borrow().clone(),
            warnings: self.warnings(),
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

    fn warnings(&self) -> Vec<String> {
        let now = clock::wall();
        let mut warnings = self.parts.warnings.clone();
        let notes = &self.notes;
        warnings.extend([&notes.sign_in_ended, &notes.skew, &notes.renewal].into_iter().flatten().cloned());
        if let Some(failure) = self.saver.failure() {
            warnings.push(format!("{failure}. What changes now is forgotten when the service stops."));
        }
        if let Some(account) = &self.account {
            if account.certificate().not_after <= now {
                warnings.push(
                    "The device certificate has ended; new connections fail until the control plane renews it."
                        .to_owned(),
                );
            }
            let left = account.record().expires_at.since(now);
            if left < SIGN_IN_SOON {
                warnings.push(format!("The sign-in ends in {} minutes. Sign in again.", left.as_secs() / 60));
            }
        }
        if self.must_change_password {
            warnings.push("Your password was for one use. Choose a new one: postern password".to_owned());
        }
        if let StatusApi::Failed { error } = &*self.parts.status_api.borrow() {
            warnings.push(format!("The status for scripts is not served: {error}"));
        }
        if let Some(files) = process::file_limit().filter(|files| *files < process::COMFORTABLE_FILES) {
            warnings.push(format!(
                "Only {files} files may be open at a time, enough for about {} connections; raise the limit (ulimit -n).",
                files.saturating_sub(64) / 2
            ));
        }
        warnings
    }
}

fn state(status: &ResourceStatus, now: UnixMillis) -> ResourceState {
    let unhealthy = status.last_error.is_some() || matches!(status.resource.health, Health::Unhealthy { .. });
    let ending = status.grant_ends.is_some_and(|end| end.since(now) < ResourceState::EXPIRING_FROM);
    match status.connection {
        Connection::Suspended => ResourceState::Locked,
        Connection::Disconnected if status.wanted => ResourceState::Connecting,
        Connection::Disconnected => ResourceState::Off,
        Connection::PortInUse { .. } | Connection::Failed { .. } => ResourceState::Unhealthy,
        Connection::Listening { .. } if unhealthy => ResourceState::Unhealthy,
        Connection::Listening { .. } if ending => ResourceState::Expiring,
        Connection::Listening { .. } => ResourceState::Connected,
    }
}
