//! The one task that owns the engine: brings it what happens, carries out what it says, and posts how things stand.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use postern_local_api::{
    cause::Cause,
    message::{ChangeReport, Connection, ControlLink, KeyPlace, NoticeLevel, StatusApi},
};
use postern_proto::{id::ResourceId, problem::Problem, time::UnixMillis};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    account::Account,
    board::Board,
    carriage::{Carriage, Destination},
    clock,
    doctor::Skew,
    engine::{Engine, Input, Ticket},
    listener::Reception,
    request::{Reply, Request},
    saver::Saver,
    store::{Config, Store},
};

mod commands;
mod following;
mod keys;
mod network;
mod outlook;
mod ports;
mod posting;
mod session;
mod work;

use following::Following;
use keys::Keys;
use network::Virtual;
use outlook::Outlook;
use work::Outcome;

/// The longest sleep while somebody is signed in. Spans are measured on a clock that goes on while the machine sleeps,
/// but nobody wakes us when it does: this is how soon we notice.
const TICK: Duration = Duration::from_secs(1);
/// How often the synced state is written to disk while details of it change, such as health, and while resources come
/// and go. It is a cache: a crash costs a little of it.
const SAVE_DETAILS_EVERY: Duration = Duration::from_secs(15);
const SAVE_ACCESS_EVERY: Duration = Duration::from_secs(1);
/// How long a call waits until it is known whether ports could be taken.
const SETTLE: Duration = Duration::from_secs(3);

/// What the shell is made of.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub board: Arc<Board>,
    pub carriage: Arc<Carriage>,
    pub reception: Reception,
    pub inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    pub requests: mpsc::Receiver<Request>,
    pub accounts: watch::Sender<Option<Arc<Account>>>,
    pub configs: watch::Sender<Option<Config>>,
    pub status_api: watch::Receiver<StatusApi>,
    pub skew: Arc<Skew>,
    pub allowed_uids: Vec<u32>,
    pub warnings: Vec<String>,
    /// Where keys are kept until somebody chooses.
    pub key_place: KeyPlace,
}

/// See the module.
#[derive(Debug)]
pub struct Shell {
    parts: Parts,
    engine: Engine,
    saver: Saver,
    account: Option<Arc<Account>>,
    locked: bool,
    must_change_password: bool,
    following: Option<Following>,
    link: ControlLink,
    destinations: HashMap<ResourceId, Arc<Destination>>,
    listeners: BTreeMap<Ticket, JoinHandle<()>>,
    /// Calls of the control plane for this account; they end with it.
    work: JoinSet<Outcome>,
    waiting: Vec<Waiting>,
    network: Virtual,
    upkeep: Upkeep,
    outlook: Outlook,
    keys: Keys,
    /// When resources were last used, as it is on disk.
    last_used: BTreeMap<ResourceId, UnixMillis>,
    /// What is wrong with this sign-in, or why it ended.
    notes: Notes,
}

/// What is looked after now and then (boot clock).
#[derive(Debug, Default)]
struct Upkeep {
    replica_changed: bool,
    /// Something is there that was not, or the other way round.
    access_changed: bool,
    replica_saved_at: Duration,
    used_saved_at: Duration,
    report_at: Duration,
    reporting: bool,
    checking_sign_in: bool,
    check_sign_in_at: Duration,
}

#[derive(Debug, Default)]
struct Notes {
    sign_in_ended: Option<Cause>,
    renewal: Option<Cause>,
    skew: Option<Cause>,
}

/// A call that is answered when its listeners are settled.
#[derive(Debug)]
struct Waiting {
    ids: BTreeSet<ResourceId>,
    before: HashMap<ResourceId, Connection>,
    until: Duration,
    reply: Reply<ChangeReport>,
}

impl Shell {
    /// Within a runtime.
    #[must_use]
    pub fn new(parts: Parts, seed: u64) -> Self {
        let network = Virtual::new(&parts);
        let keys = Keys::new(&parts);
        Self {
            parts,
            engine: Engine::new(seed),
            saver: Saver::start(),
            account: None,
            locked: false,
            must_change_password: false,
            following: None,
            link: ControlLink::None,
            destinations: HashMap::new(),
            listeners: BTreeMap::new(),
            work: JoinSet::new(),
            waiting: Vec::new(),
            network,
            upkeep: Upkeep::default(),
            outlook: Outlook::default(),
            keys,
            last_used: BTreeMap::new(),
            notes: Notes::default(),
        }
    }

    /// Runs until `stop`; then closes everything and keeps what is to be remembered.
    pub async fn run(mut self, config: Option<Config>, stop: CancellationToken) {
        self.resume(config).await;
        while !stop.is_cancelled() {
            let pause = self.pause();
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(pause) => {
                    self.engine.handle_timeout(clock::now());
                    self.carry_out().await;
                }
                event = following::next(&mut self.following) => self.follow(event).await,
                Some(input) = self.parts.inputs.1.recv() => self.tell(input).await,
                Some(request) = self.parts.requests.recv() => self.serve(request).await,
                Some(Ok(outcome)) = self.work.join_next() => self.finish(outcome).await,
            }
            self.look_after().await;
            self.post();
        }
        self.close().await;
    }

    /// Hands an input to the engine and carries out what it says.
    async fn tell(&mut self, input: Input) {
        self.engine.handle(input, clock::now());
        self.carry_out().await;
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Adopt { signed_in, unlock, reply } => answer(reply, self.adopt(*signed_in, unlock).await),
            Request::SignOut { reply } => {
                self.sign_out_by_wish().await;
                answer(reply, Ok(()));
            }
            Request::Lock { reply } => {
                let locked = self.lock().await;
                answer(reply, locked);
            }
            Request::Choose { selection, connected, reply } => match self.selected(&selection, connected) {
                Ok(ids) => self.choose(ids, connected, reply).await,
                Err(problem) => answer(reply, Err(problem)),
            },
            Request::ChoosePort { wish, reply } => self.choose_port(wish, reply).await,
            Request::KeepKeys { place, reply } => {
                let kept = self.keep_keys(place).await;
                answer(reply, kept);
            }
            Request::SetNetwork { enabled, reply } => self.switch_network(enabled, reply).await,
            Request::RetryControl { reply } => {
                self.retry_control();
                answer(reply, Ok(()));
            }
            Request::Refresh { reply } => {
                self.post();
                answer(reply, Ok(()));
            }
            Request::PasswordChanged { reply } => {
                self.password_changed().await;
                answer(reply, Ok(()));
            }
        }
    }

    fn selected(
        &self,
        selection: &postern_local_api::message::Selection,
        connected: bool,
    ) -> Result<BTreeSet<ResourceId>, Problem> {
        if self.account.is_none() {
            return Err(Problem::new(409, "signed_out", "Nobody is signed in").with_detail("Sign in: postern login"));
        }
        if self.locked && connected {
            return Err(Problem::new(423, "locked", "Postern is locked").with_detail("Unlock it: postern unlock"));
        }
        crate::request::select(selection, self.engine.resources())
    }

    async fn choose(&mut self, ids: BTreeSet<ResourceId>, connected: bool, reply: Reply<ChangeReport>) {
        let now = clock::now();
        let state = |id: &ResourceId| Some((*id, self.engine.resource(*id, now)?.1.connection));
        let before = ids.iter().filter_map(state).collect();
        let list = ids.iter().copied().collect();
        self.waiting.push(Waiting { ids, before, until: now.boot + SETTLE, reply });
        self.tell(if connected { Input::Connect(list) } else { Input::Disconnect(list) }).await;
        // What was answered is remembered, whatever happens next.
        self.saver.flush().await;
    }

    /// How long there is nothing to do, as far as we know.
    fn pause(&self) -> Duration {
        let now = clock::now().boot;
        let due = self.engine.poll_timeout().into_iter().chain(self.keys.due()).min();
        let due = due.map(|due| due.saturating_sub(now));
        let waiting = !self.waiting.is_empty() || self.network.is_waited_for();
        let tick = (self.account.is_some() || waiting).then_some(TICK);
        due.into_iter().chain(tick).min().unwrap_or(Duration::from_secs(3600))
    }

    /// What is done now and then.
    async fn look_after(&mut self) {
        let now = clock::now().boot;
        self.find_lost_listeners().await;
        self.answer_settled(now);
        self.answer_network(now);
        let every = if self.upkeep.access_changed { SAVE_ACCESS_EVERY } else { SAVE_DETAILS_EVERY };
        if self.upkeep.replica_changed && self.upkeep.replica_saved_at + every <= now {
            self.save_replica().await;
            self.upkeep.replica_saved_at = now;
        }
        if self.upkeep.used_saved_at + SAVE_DETAILS_EVERY <= now {
            self.save_last_used().await;
            self.upkeep.used_saved_at = now;
        }
        if self.upkeep.report_at <= now {
            self.report_refusals();
            self.upkeep.report_at = now + Duration::from_secs(2);
        }
        self.probe_gateways(now);
        self.watch_keyring(now);
    }

    fn answer_settled(&mut self, now: Duration) {
        let (settled, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.until <= now || self.engine.is_settled(&waiting.ids));
        self.waiting = waiting;
        if settled.is_empty() {
            return;
        }
        self.post();
        for Waiting { ids, before, reply, .. } in settled {
            let mut resources: Vec<_> = ids.iter().filter_map(|id| self.parts.board.resource(*id)).collect();
            resources.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
            let changed = resources.iter().filter(|now| before.get(&now.resource.id) != Some(&now.connection)).count();
            let changed = u32::try_from(changed).unwrap_or(u32::MAX);
            answer(reply, Ok(ChangeReport { resources, changed }));
        }
    }

    fn notify(&self, level: NoticeLevel, text: String) {
        self.parts.board.notify(level, text);
    }

    /// Closes listeners, cuts streams, and keeps what is to be remembered.
    async fn close(mut self) {
        for (_, listener) in std::mem::take(&mut self.listeners) {
            listener.abort();
            let _ = listener.await;
        }
        for stream in self.parts.carriage.streams.all() {
            stream.control.cut(postern_proto::frame::ResetCode::Disconnected);
        }
        self.work.shutdown().await;
        if self.upkeep.replica_changed {
            self.save_replica().await;
        }
        self.save_last_used().await;
        if let Some(following) = self.following.take() {
            following.stop();
        }
        self.network.stop().await;
        self.saver.stop().await;
    }
}

/// Whoever asked may be gone; then nobody needs the answer.
fn answer<T>(reply: oneshot::Sender<Result<T, Problem>>, result: Result<T, Problem>) {
    let _ = reply.send(result);
}
