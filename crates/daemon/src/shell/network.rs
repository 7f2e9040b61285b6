//! The virtual network: the switch, what the organisation wishes, and the networks of this machine.

use std::time::Duration;

use postern_local_api::message::NetworkStatus;
use postern_proto::{name::DnsName, sync::NetworkSettings};
use tokio::{sync::mpsc, task::AbortHandle};
use tun_driver::network::{Landscape, Watch};

use super::{Parts, Shell, answer};
use crate::{
    clock,
    engine::{Input, NetworkWish},
    gateways::Listed,
    request::Reply,
    store::NetworkSwitch,
    vnm::Vnm,
};

/// How long a call waits until it is known whether the network could be had: netd has to name every zone to the system's
/// resolver.
const SETTLE: Duration = Duration::from_secs(15);
/// How long to rest when the machine's networks cannot be watched.
const REST: Duration = Duration::from_secs(5);

/// What the shell holds of it.
#[derive(Debug)]
pub(super) struct Virtual {
    pub(super) vnm: Vnm,
    enabled: bool,
    watch: Option<AbortHandle>,
    /// Calls that are answered when it is known how the network stands, and until when (boot clock).
    waiting: Vec<(Reply<NetworkStatus>, Duration)>,
}

impl Virtual {
    pub(super) fn new(parts: &Parts) -> Self {
        let (reception, inputs) = (parts.reception.clone(), parts.inputs.0.clone());
        let vnm = Vnm::new(reception, parts.store.clone(), parts.allowed_uids.clone(), inputs);
        Self { vnm, enabled: false, watch: None, waiting: Vec::new() }
    }

    pub(super) const fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Virtual {
    /// Takes everything down.
    pub(super) async fn stop(self) {
        if let Some(watch) = self.watch {
            watch.abort();
        }
        self.vnm.stop().await;
    }
}

impl Shell {
    /// What the user chose last.
    pub(super) async fn resume_network(&mut self) {
        let switch = self.parts.store.load_or_warn::<NetworkSwitch>(&mut self.parts.warnings).unwrap_or_default();
        self.choose_network(switch.enabled).await;
    }

    pub(super) async fn switch_network(&mut self, enabled: bool, reply: Reply<NetworkStatus>) {
        self.choose_network(enabled).await;
        let store = self.parts.store.clone();
        self.saver.run(move || store.save(&NetworkSwitch { enabled })).await;
        // What was answered is remembered, whatever happens next.
        self.saver.flush().await;
        self.network.waiting.push((reply, clock::now().boot + SETTLE));
    }

    async fn choose_network(&mut self, enabled: bool) {
        self.network.enabled = enabled;
        if enabled && self.network.watch.is_none() {
            if let Some(landscape) = read_landscape().await {
                self.engine.handle(Input::Landscape(landscape), clock::now());
            }
            let inputs = self.parts.inputs.0.clone();
            self.network.watch = Some(tokio::spawn(watch_networks(inputs)).abort_handle());
        }
        if !enabled && let Some(watch) = self.network.watch.take() {
            watch.abort();
        }
        self.tell(Input::NetworkChosen { enabled }).await;
    }

    pub(super) fn answer_network(&mut self, now: Duration) {
        let settled = self.engine.is_network_settled();
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network.waiting).into_iter().partition(|(_, until)| settled || *until <= now);
        self.network.waiting = waiting;
        for (reply, _) in due {
            answer(reply, Ok(self.engine.network_status(clock::now())));
        }
    }

    /// Tells the engine what the organisation wishes.
    pub(super) fn note_network_settings(&mut self, settings: &NetworkSettings, entries: &[Listed]) {
        let Some(account) = &self.account else { return };
        let control: Vec<String> = account.control().urls().iter().map(|url| url.authority()).collect();
        let hosts = entries.iter().map(Listed::address).chain(control.iter().map(String::as_str));
        let mut own_names: Vec<DnsName> = hosts.filter_map(name_in).collect();
        own_names.sort();
        own_names.dedup();
        let wish = NetworkWish::read(settings, account.record().org);
        self.engine.handle(Input::NetworkSettings { wish, own_names }, clock::now());
    }
}

/// The name in `host:port`, where that is a name.
fn name_in(address: &str) -> Option<DnsName> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    host.trim_end_matches(['.', '/']).parse().ok()
}

async fn read_landscape() -> Option<Landscape> {
    match tokio::task::spawn_blocking(Landscape::read).await.ok()? {
        Ok(landscape) => Some(landscape),
        Err(error) => {
            tracing::warn!("the networks of this machine cannot be read: {error}");
            None
        }
    }
}

/// Tells the engine of the machine's networks whenever they change.
async fn watch_networks(inputs: mpsc::Sender<Input>) {
    loop {
        match Watch::open() {
            Ok(mut watch) => {
                // What changed while nobody watched.
                loop {
                    if let Some(landscape) = read_landscape().await
                        && inputs.send(Input::Landscape(landscape)).await.is_err()
                    {
                        return;
                    }
                    if let Err(error) = watch.next().await {
                        tracing::warn!("the networks of this machine are watched anew: {error}");
                        break;
                    }
                }
            }
            Err(error) => tracing::warn!("the networks of this machine cannot be watched: {error}"),
        }
        tokio::time::sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_addresses_and_addresses_are_none() {
        assert_eq!(name_in("gw.example.com:5000"), "gw.example.com".parse().ok());
        assert_eq!(name_in("control.example.com"), "control.example.com".parse().ok());
        assert_eq!(name_in("10.0.0.1:5000"), None);
        assert_eq!(name_in("[::1]:5000"), None);
    }
}
