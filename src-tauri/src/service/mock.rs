//! A made-up service, so that the window can be worked on and tested alone: `--mock SCENARIO`.
//!
//! It answers like posternd: what is switched on connects after a moment, a wrong password is refused, the doctor takes
//! its time. It opens no port and asks nobody. In earnest it is never used: only `--mock` makes one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use postern_local_api::{
    client::ClientError,
    message::{
        ChangeReport, Connection, ControlAnswer, ControlCall, DoctorLine, Event, KeyPlace, KeyStorage,
        KeyStorageChoice, LiveSession, LogExport, LogRequest, Login, NetworkChoice, NetworkStatus, PortOverride,
        ResourceState, ResourceStatus, Selection, SignIn, Status, Trust, Unlock,
    },
    names::{NameQuestion, NameReport, SystemAnswer},
    proto::{api::Credential, id::ResourceId, problem::Problem, time::UnixMillis},
};
use tokio::{sync::mpsc, time::sleep};

use super::{Answer, Heard, Service, StartError, WAITING};

pub mod scenario;
mod script;

use scenario::Scenario;

/// How long a resource is connecting.
const CONNECTING: Duration = Duration::from_millis(300);
/// A password that is never right, and a name that never answers.
const WRONG: &str = "wrong";

/// See the module.
#[derive(Clone)]
pub struct Mock {
    scenario: Scenario,
    state: Arc<Mutex<State>>,
}

struct State {
    status: Status,
    /// Who hears what happens.
    listener: Option<mpsc::Sender<Heard>>,
}

impl Mock {
    /// `now`: milliseconds since 1970.
    #[must_use]
    pub fn new(scenario: Scenario, now: u64) -> Self {
        let status = scenario.status(now);
        Self { scenario, state: Arc::new(Mutex::new(State { status, listener: None })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes everything but the resources, and says so.
    fn service_changes(&self, change: impl FnOnce(&mut Status)) {
        let event = {
            let mut state = self.state();
            change(&mut state.status);
            Event::Service { status: Box::new(Status { resources: Vec::new(), ..state.status.clone() }) }
        };
        self.say(vec![event]);
    }

    /// Changes resources, and says so of each.
    fn resources_change(&self, ids: &[ResourceId], change: impl Fn(&mut ResourceStatus)) -> Vec<ResourceStatus> {
        let mut changed = Vec::new();
        {
            let mut state = self.state();
            for resource in state.status.resources.iter_mut().filter(|one| ids.contains(&one.resource.id)) {
                change(resource);
                changed.push(resource.clone());
            }
        }
        self.say(changed.iter().cloned().map(|one| Event::ResourceChanged { resource: Box::new(one) }).collect());
        changed
    }

    fn say(&self, events: Vec<Event>) {
        let Some(listener) = self.state().listener.clone() else { return };
        tokio::spawn(async move {
            for event in events {
                if listener.send(Heard::Event(Box::new(event))).await.is_err() {
                    return;
                }
            }
        });
    }

    fn selected(&self, selection: &Selection) -> Vec<ResourceId> {
        let state = self.state();
        let all = state.status.resources.iter().map(|one| &one.resource);
        match selection {
            Selection::All => all.map(|one| one.id).collect(),
            Selection::Ids { ids } => ids.clone(),
            Selection::Name { name } => all.filter(|one| one.name == *name).map(|one| one.id).collect(),
            Selection::Filter { .. } => Vec::new(),
        }
    }

    async fn switch_on(&self, selection: Selection) -> Result<ChangeReport, ClientError> {
        self.must_be_open()?;
        let ids = self.selected(&selection);
        let off: Vec<ResourceId> = {
            let state = self.state();
            let off = |one: &&ResourceStatus| !one.wanted && one.state != ResourceState::NeedsApproval;
            let chosen = state.status.resources.iter().filter(|one| ids.contains(&one.resource.id));
            chosen.filter(off).map(|one| one.resource.id).collect()
        };
        self.resources_change(&off, |one| {
            one.wanted = true;
            one.state = ResourceState::Connecting;
        });
        sleep(CONNECTING).await;
        let resources = self.resources_change(&off, |one| {
            let address =
                std::net::SocketAddr::new(one.resource.bind.ip, one.port_override.unwrap_or(one.resource.bind.port));
            one.connection = Connection::Listening { address };
            one.last_used = Some(UnixMillis(now()));
            one.since = one.last_used;
            scenario::settle(one, now());
        });
        Ok(ChangeReport { changed: u32::try_from(resources.len()).unwrap_or(u32::MAX), resources })
    }

    fn switch_off(&self, selection: &Selection) -> ChangeReport {
        let ids = self.selected(selection);
        let on: Vec<ResourceId> = {
            let state = self.state();
            let chosen = state.status.resources.iter().filter(|one| ids.contains(&one.resource.id) && one.wanted);
            chosen.map(|one| one.resource.id).collect()
        };
        let resources = self.resources_change(&on, |one| {
            one.wanted = false;
            one.state = ResourceState::Off;
            one.connection = Connection::Disconnected;
            one.streams = 0;
            one.trouble = None;
            one.since = Some(UnixMillis(now()));
        });
        ChangeReport { changed: u32::try_from(resources.len()).unwrap_or(u32::MAX), resources }
    }

    fn must_be_open(&self) -> Result<(), ClientError> {
        match self.state().status.sign_in {
            SignIn::SignedIn { .. } => Ok(()),
            SignIn::SignedOut => Err(refusal(409, "signed_out", "Nobody is signed in", "Sign in first.")),
            SignIn::Locked { .. } => Err(refusal(423, "locked", "Postern is locked", "Unlock it first.")),
        }
    }

    async fn sign_in(&self, login: Login) -> Result<(), ClientError> {
        sleep(Duration::from_millis(400)).await;
        let control = login.control.unwrap_or_default();
        if control.contains("unreachable") {
            return Err(refusal(
                502,
                "control_unreachable",
                "The control plane cannot be reached",
                "No answer in 10 s.",
            ));
        }
        if control.contains("untrusted") && login.trust == Trust::Known {
            let why = "Its certificate was issued by nobody whom this computer trusts.";
            return Err(refusal(502, "control_untrusted", "The server is not the trusted control plane", why));
        }
        let wrong = match &login.credential {
            Credential::Password { password, .. } => password == WRONG,
            Credential::ServiceToken { token } => token == WRONG,
        };
        if wrong {
            let why = "4 tries are left before a pause of 5 minutes.";
            return Err(refusal(401, "login_failed", "E-mail address or password is not right", why));
        }
        let fresh = Scenario::of("40").unwrap_or_default().status(now());
        let resources = {
            let mut state = self.state();
            let had = std::mem::take(&mut state.status.resources);
            if had.is_empty() { fresh.resources.clone() } else { had }
        };
        self.service_changes(|status| {
            status.sign_in = fresh.sign_in;
            status.control = fresh.control;
            status.gateways = fresh.gateways;
            status.certificate_ends = fresh.certificate_ends;
            status.health.clear();
        });
        self.state().status.resources.clone_from(&resources);
        self.say(resources.into_iter().map(|one| Event::ResourceChanged { resource: Box::new(one) }).collect());
        Ok(())
    }

    fn sign_out(&self) {
        let resources = std::mem::take(&mut self.state().status.resources);
        self.service_changes(|status| {
            status.sign_in = SignIn::SignedOut;
            status.health.clear();
            status.certificate_ends = None;
        });
        self.say(resources.into_iter().map(|one| Event::ResourceRemoved { id: one.resource.id }).collect());
    }

    fn lock_now(&self) {
        self.service_changes(|status| {
            if let SignIn::SignedIn { account, org, .. } = &status.sign_in {
                status.sign_in = SignIn::Locked { account: account.clone(), org: org.clone() };
            }
        });
        let all = self.selected(&Selection::All);
        self.resources_change(&all, |one| {
            one.streams = 0;
            if one.wanted {
                one.state = ResourceState::Locked;
                one.connection = Connection::Suspended;
            }
        });
    }

    fn unlock_now(&self) {
        let fresh = Scenario::of("40").unwrap_or_default().status(now());
        self.service_changes(|status| status.sign_in = fresh.sign_in);
        let all = self.selected(&Selection::All);
        self.resources_change(&all, |one| {
            if one.state == ResourceState::Locked {
                scenario::settle(one, now());
            }
        });
    }

    /// What the scenario lets happen by itself.
    async fn live(self) {
        match self.scenario {
            Scenario::ServiceGone => {
                sleep(Duration::from_millis(300)).await;
                let listener = self.state().listener.clone();
                if let Some(listener) = listener {
                    let socket = "/run/user/1000/postern/posternd.sock".into();
                    let _ = listener.send(Heard::Lost(ClientError::NotRunning { socket })).await;
                }
            }
            Scenario::Busy => loop {
                sleep(Duration::from_secs(1)).await;
                let connected: Vec<ResourceId> = {
                    let state = self.state();
                    let open = state.status.resources.iter().filter(|one| one.streams > 0);
                    open.map(|one| one.resource.id).collect()
                };
                self.resources_change(&connected, |one| {
                    one.bytes_up += 310_000;
                    one.bytes_down += 2_600_000;
                });
                if self.state().listener.is_none() {
                    return;
                }
            },
            _ => {}
        }
    }
}

impl Service for Mock {
    fn follow(&self) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let first = match self.scenario.refusal() {
            Some(error) => Heard::Refused(error),
            None => Heard::Event(Box::new(Event::Snapshot { status: Box::new(self.state().status.clone()) })),
        };
        self.state().listener = Some(sender.clone());
        let mock = self.clone();
        tokio::spawn(async move {
            let _ = sender.send(first).await;
            mock.live().await;
        });
        receiver
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StartError>> {
        let status = self.state().status.clone();
        self.say(vec![Event::Snapshot { status: Box::new(status) }]);
        Box::pin(async { Ok(()) })
    }

    fn broke_down(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn login(&self, login: Login) -> Answer<'_, ()> {
        Box::pin(self.sign_in(login))
    }

    fn logout(&self) -> Answer<'_, ()> {
        self.sign_out();
        Box::pin(async { Ok(()) })
    }

    fn lock(&self) -> Answer<'_, ()> {
        self.lock_now();
        Box::pin(async { Ok(()) })
    }

    fn unlock(&self, unlock: Unlock) -> Answer<'_, ()> {
        Box::pin(async move {
            sleep(Duration::from_millis(200)).await;
            if unlock.password == WRONG {
                return Err(refusal(403, "wrong_password", "The password is not right", "4 tries are left."));
            }
            self.unlock_now();
            Ok(())
        })
    }

    fn connect(&self, selection: Selection) -> Answer<'_, ChangeReport> {
        Box::pin(self.switch_on(selection))
    }

    fn disconnect(&self, selection: Selection) -> Answer<'_, ChangeReport> {
        let report = self.switch_off(&selection);
        Box::pin(async { Ok(report) })
    }

    fn port_override(&self, choice: PortOverride) -> Answer<'_, ResourceStatus> {
        let changed = self.resources_change(&[choice.resource], |one| {
            one.port_override = choice.port;
            if let Connection::Listening { address } = &mut one.connection {
                address.set_port(choice.port.unwrap_or(one.resource.bind.port));
            }
        });
        Box::pin(async move {
            changed.into_iter().next().ok_or_else(|| refusal(404, "no_such_resource", "There is no such resource", ""))
        })
    }

    fn key_storage(&self, choice: KeyStorageChoice) -> Answer<'_, ()> {
        self.service_changes(|status| {
            status.key_storage = match choice.storage {
                KeyPlace::Keyring => KeyStorage::Keystore { name: "GNOME Keyring".to_owned() },
                KeyPlace::Memory => KeyStorage::Memory,
                KeyPlace::File => KeyStorage::File { path: "~/.local/state/postern/device.key".to_owned() },
            };
            status.health.retain(|item| item.code != "keyring_locked");
        });
        Box::pin(async { Ok(()) })
    }

    fn network(&self, choice: NetworkChoice) -> Answer<'_, NetworkStatus> {
        Box::pin(async move {
            if choice.enabled {
                self.service_changes(|status| status.network = NetworkStatus::Starting);
                sleep(Duration::from_millis(800)).await;
            }
            let network = match (choice.enabled, self.scenario) {
                (false, _) => NetworkStatus::Off,
                (true, Scenario::NetworkRefused) => scenario::network_refused(now()),
                (true, _) => scenario::network_up(now()),
            };
            self.service_changes(|status| status.network = network.clone());
            Ok(network)
        })
    }

    fn retry(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn sessions(&self) -> Answer<'_, Vec<LiveSession>> {
        let sessions = scenario::sessions(&self.state().status, now());
        Box::pin(async { Ok(sessions) })
    }

    fn doctor(&self, lines: mpsc::Sender<DoctorLine>) -> Answer<'_, ()> {
        let troubled = matches!(self.scenario, Scenario::Errors);
        Box::pin(async move {
            for line in script::doctor(troubled) {
                sleep(Duration::from_millis(60)).await;
                if lines.send(line).await.is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn logs(&self, request: LogRequest) -> Answer<'_, LogExport> {
        Box::pin(async move { Ok(script::logs(request.redaction)) })
    }

    fn names(&self, question: NameQuestion) -> Answer<'_, NameReport> {
        Box::pin(async move {
            let system = SystemAnswer::Found { addresses: vec![[100, 72, 0, 9].into()] };
            Ok(NameReport { name: question.name, kind: question.kind, resolver: None, system, commands: Vec::new() })
        })
    }

    fn control(&self, _: ControlCall) -> Answer<'_, ControlAnswer> {
        Box::pin(async { Ok(ControlAnswer { status: 204, body: serde_json::Value::Null }) })
    }
}

fn refusal(status: u16, code: &str, title: &str, detail: &str) -> ClientError {
    ClientError::Refused(Problem::new(status, code, title).with_detail(detail))
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
