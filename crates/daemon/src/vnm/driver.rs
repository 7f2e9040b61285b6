//! Asks postern-netd for the device and keeps it, one order after another.

use std::sync::{Arc, Mutex};

use ipnet::{Ipv4Net, Ipv6Net};
use postern_local_api::message::NetworkFault;
use postern_proto::bind::IPV6_PREFIX;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tun_driver::{
    dns::DnsState,
    interface::{Configured, InterfaceConfig, Zone},
    netd::{self, Client, ClientError, Code},
};

use super::{
    threads,
    threads::{MTU, Threads, queues},
};
use crate::{
    carriage::error_text,
    engine::{Input, NetworkPlan, NetworkTicket},
};

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Order {
    Configure { ticket: NetworkTicket, plan: NetworkPlan },
    Release,
}

/// See the module.
pub(super) struct Driver {
    inputs: mpsc::Sender<Input>,
    threads: Arc<Mutex<Threads>>,
    /// As long as it lives, what netd set up does.
    client: Option<Client>,
    /// Threads tell here why they ended.
    lost: (mpsc::Sender<String>, mpsc::Receiver<String>),
}

impl Driver {
    pub(super) fn new(inputs: mpsc::Sender<Input>, threads: Arc<Mutex<Threads>>) -> Self {
        Self { inputs, threads, client: None, lost: mpsc::channel(1) }
    }

    /// Runs until `stop`; then takes everything down.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        loop {
            let order = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                order = orders.recv() => order,
                Some(reason) = self.lost.1.recv() => {
                    self.lose(reason).await;
                    continue;
                }
                names = names(&mut self.client) => {
                    match names {
                        Some(dns) => {
                            let _ = self.inputs.send(Input::NetworkNames { dns }).await;
                        }
                        None => {
                            self.client = None;
                            self.lose("postern-netd has ended".to_owned()).await;
                        }
                    }
                    continue;
                }
            };
            let work = async {
                match order {
                    Some(Order::Configure { ticket, plan }) => self.configure(ticket, plan).await,
                    Some(Order::Release) => self.release().await,
                    None => stop.cancelled().await,
                }
            };
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => break,
            }
        }
        self.release().await;
    }

    async fn configure(&mut self, ticket: NetworkTicket, plan: NetworkPlan) {
        let input = match self.ask(&plan).await {
            Ok(Configured { interface, queues }) => {
                tracing::info!(interface = interface.name, subnet = %interface.subnet, "the virtual network is up");
                if !queues.is_empty() {
                    let stopped = threads(&self.threads).stop();
                    stopped.await;
                    // What threads of the old device said is of no interest any more.
                    self.lost = mpsc::channel(1);
                    threads(&self.threads).take(interface.clone(), queues, self.lost.0.clone());
                }
                Input::NetworkConfigured { ticket, interface }
            }
            Err(error) => {
                let (fault, reason) = (fault(&error), error_text(&error));
                tracing::warn!("no virtual network: {reason}");
                if fault == NetworkFault::NoService {
                    self.client = None;
                    let stopped = threads(&self.threads).stop();
                    stopped.await;
                }
                Input::NetworkFailed { ticket, fault, reason }
            }
        };
        let _ = self.inputs.send(input).await;
    }

    async fn ask(&mut self, plan: &NetworkPlan) -> Result<Configured, ClientError> {
        let config = interface_config(plan);
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(Client::connect(&netd::socket_path()).await?),
        };
        let configured = client.configure(&config).await;
        if matches!(configured, Err(ClientError::Closed | ClientError::Timeout(_) | ClientError::Protocol(_))) {
            // The next question goes over a new connection.
            self.client = None;
        }
        configured
    }

    /// Resets what is carried, so that no program waits for ever, and then lets the device go.
    async fn release(&mut self) {
        let stopped = threads(&self.threads).stop();
        stopped.await;
        if let Some(mut client) = self.client.take() {
            // Dropping the connection takes everything back too, a moment later.
            if let Err(error) = client.release().await {
                tracing::debug!("postern-netd is left to take the network back by itself: {error}");
            }
            tracing::info!("the virtual network is down");
        }
    }

    async fn lose(&mut self, reason: String) {
        tracing::warn!("{reason}");
        let stopped = threads(&self.threads).stop();
        stopped.await;
        self.lost = mpsc::channel(1);
        let _ = self.inputs.send(Input::NetworkLost { reason }).await;
    }
}

/// Waits for news of the names, or until netd is gone; for ever when there is none.
async fn names(client: &mut Option<Client>) -> Option<DnsState> {
    match client {
        Some(client) => client.names().await,
        None => std::future::pending().await,
    }
}

fn interface_config(plan: &NetworkPlan) -> InterfaceConfig {
    let zones = |names: &[postern_proto::name::DnsName]| {
        names.iter().filter_map(|name| Zone::new(name.as_str()).ok()).collect()
    };
    InterfaceConfig {
        // Prefixes are in range: they were read from addresses in CIDR form.
        subnet: Ipv4Net::new(plan.subnet.network(), plan.subnet.prefix()).unwrap_or_default(),
        ipv6: plan.ipv6.and_then(|network| Ipv6Net::new(network, IPV6_PREFIX).ok()),
        zones: zones(&plan.zones),
        kept_out: zones(&plan.kept_out),
        queues: queues(),
        mtu: MTU,
    }
}

/// What kind of failure this is, in the words of the local API.
fn fault(error: &ClientError) -> NetworkFault {
    match error {
        ClientError::NoService { .. } | ClientError::Closed => NetworkFault::NoService,
        ClientError::Refused(problem) => match problem.code {
            Code::NotAllowed => NetworkFault::NotPermitted,
            Code::NoTun => NetworkFault::NoDevice,
            _ => NetworkFault::Failed,
        },
        ClientError::Timeout(_) | ClientError::Protocol(_) | ClientError::Io(_) | ClientError::Message(_) => {
            NetworkFault::Failed
        }
    }
}
