//! Looks at everything that must work, and says what it saw and what to do.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use postern_local_api::message::{
    Check, CheckGroup, Connection, DoctorLine, DoctorReport, NetworkStatus, ResourceStatus, Status, Verdict,
};
use postern_proto::time::UnixMillis;
use tokio::{sync::mpsc, time::Instant};

mod checks;
pub(crate) mod network;
mod zones;

pub use zones::{Direct, ZoneState, classify};

use crate::{
    account::Account,
    carriage::Carriage,
    gate::Gate,
    store::{Config, Store},
};

/// Resources that are looked at one by one; a longer list says little.
const MAX_RESOURCES: usize = 200;
/// Checks that are made at a time.
const AT_ONCE: usize = 16;
/// Lines that wait for a slow reader; the doctor waits when there are more.
const LINES: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Doctor {
    pub store: Store,
    pub gate: Arc<Gate>,
    pub carriage: Arc<Carriage>,
    pub skew: Arc<Skew>,
}

/// Everything that one examination looks at.
#[derive(Clone, Debug)]
pub struct Patient {
    /// Fresh.
    pub status: Status,
    pub account: Option<Arc<Account>>,
    pub config: Option<Config>,
}

/// How far this machine's clock is ahead of the control plane's, as of the last time it was heard from.
#[derive(Debug)]
pub struct Skew(AtomicI64);

impl Skew {
    const UNKNOWN: i64 = i64::MIN;

    pub fn note(&self, theirs: UnixMillis, ours: UnixMillis) {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.0.store(millis(ours.since(theirs)).saturating_sub(millis(theirs.since(ours))), Ordering::Relaxed);
    }

    /// Milliseconds; negative: behind. `None` before the control plane was heard from.
    #[must_use]
    pub fn millis(&self) -> Option<i64> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != Self::UNKNOWN).then_some(millis)
    }
}

impl Default for Skew {
    fn default() -> Self {
        Self(AtomicI64::new(Self::UNKNOWN))
    }
}

/// A check that is to be made.
struct Task<'a> {
    check: Open,
    work: Work<'a>,
}

type Work<'a> = Box<dyn FnOnce(Open) -> Looking<'a> + Send + 'a>;
type Looking<'a> = Pin<Box<dyn Future<Output = Check> + Send + 'a>>;

impl Doctor {
    /// Makes every check and tells of them as they come: first that each begins, then what each saw. Ends early when
    /// nobody listens any more.
    pub async fn run(&self, patient: &Patient, lines: mpsc::Sender<DoctorLine>) {
        let tasks = self.tasks(patient);
        let all: Vec<_> = tasks.iter().map(|task| task.check.clone()).collect();
        for Open { id, title, group } in all {
            if lines.send(DoctorLine::Started { id, title, group }).await.is_err() {
                return;
            }
        }
        let work = futures_util::stream::iter(tasks).for_each_concurrent(AT_ONCE, |Task { check, work }| async {
            let begun = Instant::now();
            let check = work(check).await;
            let took_micros = u64::try_from(begun.elapsed().as_micros()).ok();
            let _ = lines.send(DoctorLine::Finished(Check { took_micros, ..check })).await;
        });
        tokio::select! {
            () = work => {}
            () = lines.closed() => {}
        }
    }

    /// Makes every check.
    pub async fn examine(&self, patient: &Patient) -> DoctorReport {
        let (sender, mut lines) = mpsc::channel(LINES);
        let collect = async {
            let (mut order, mut checks) = (HashMap::new(), Vec::new());
            while let Some(line) = lines.recv().await {
                match line {
                    DoctorLine::Started { id, .. } => {
                        let place = order.len();
                        order.insert(id, place);
                    }
                    DoctorLine::Finished(check) => checks.push(check),
                }
            }
            checks.sort_by_key(|check: &Check| order.get(&check.id).copied());
            checks
        };
        let ((), checks) = tokio::join!(self.run(patient, sender), collect);
        DoctorReport { checks }
    }

    /// The same as lines that can be read while it runs. Dropping the receiver ends it.
    pub fn stream(self: &Arc<Self>, patient: Patient) -> mpsc::Receiver<DoctorLine> {
        let (sender, lines) = mpsc::channel(LINES);
        let doctor = Arc::clone(self);
        tokio::spawn(async move { doctor.run(&patient, sender).await });
        lines
    }

    fn tasks<'a>(&'a self, patient: &'a Patient) -> Vec<Task<'a>> {
        let Patient { status, account, config } = patient;
        let mut tasks = vec![
            at_once("version", "Service", checks::version),
            at_once("proxy", "Way out", checks::way_out),
            Task::new(Open::new("control", "Control plane"), move |check| checks::control(check, config.as_ref())),
            at_once("sign-in", "Sign-in", |check| checks::sign_in(check, status)),
            at_once("sync", "News from the control plane", |check| checks::sync(check, status)),
            at_once("clock", "Clock", |check| checks::clock(check, self.skew.millis())),
            at_once("certificate", "Device certificate", |check| checks::certificate(check, account.as_deref())),
        ];
        tasks.extend(self.gateways());
        tasks.push(Task::new(Open::new("isolation", "Listeners are for you only"), |check| {
            checks::isolation(check, &self.gate)
        }));
        tasks.extend(self.resources(status));
        tasks.push(at_once("network", "Virtual network", |check| network::examine(check, &status.network)));
        tasks.extend(names(status));
        tasks.extend([
            at_once("files", "Open files", checks::files),
            at_once("key", "Device key", |check| checks::key(check, status, &self.store)),
            at_once("status-api", "Status for scripts", |check| checks::status_api(check, status)),
        ]);
        tasks
    }

    fn gateways(&self) -> Vec<Task<'_>> {
        let entries = self.carriage.gateways().entries();
        if entries.is_empty() {
            return vec![at_once("gateway", "Gateways", |check| {
                check.skipped("None is known: nobody is signed in, or there is none.")
            })];
        }
        let task = |(name, entry)| {
            let check = Open::new(format!("gateway:{name}"), format!("Gateway {name}"));
            Task::new(check, move |check| checks::gateway(check, entry))
        };
        entries.into_iter().map(task).collect()
    }

    fn resources<'a>(&'a self, status: &'a Status) -> Vec<Task<'a>> {
        let connected = status.resources.iter().filter(|resource| resource.connection != Connection::Disconnected);
        let task = |resource: &'a ResourceStatus| {
            let name = &resource.resource.name;
            let check = Open::new(format!("resource:{name}"), format!("Resource {name}"));
            Task::new(check, move |check| checks::resource(check, Arc::clone(&self.gate), resource.clone()))
        };
        let tasks: Vec<_> = connected.take(MAX_RESOURCES).map(task).collect();
        if tasks.is_empty() {
            return vec![at_once("resource", "Connected resources", |check| check.skipped("None is connected."))];
        }
        tasks
    }
}

/// The zones of the virtual network, one by one.
fn names(status: &Status) -> Vec<Task<'_>> {
    match &status.network {
        NetworkStatus::Up(up) if up.zones.is_empty() => {
            vec![at_once("zone", "Zones", |check| check.skipped("The virtual network has none."))]
        }
        NetworkStatus::Up(up) => {
            let task = |zone: &'_ String| {
                let check = Open::new(format!("zone:{zone}"), format!("Zone {zone}"));
                let (zone, resolver) = (zone.clone(), up.resolver);
                Task::new(check, move |check| async move { zones::probe(check, resolver, &zone).await })
            };
            let mut tasks: Vec<_> = up.zones.iter().take(zones::MAX_ZONES).map(task).collect();
            let more = up.zones.len().saturating_sub(zones::MAX_ZONES);
            if more > 0 {
                tasks.push(at_once("zone", "Further zones", move |check| {
                    check.skipped(format!("{more} more are not probed; postern dns query asks for a name in one."))
                }));
            }
            tasks
        }
        _ => vec![at_once("zone", "Zones", |check| check.skipped("There is no virtual network."))],
    }
}

/// A check that waits for nothing.
fn at_once<'a>(id: &str, title: &str, look: impl FnOnce(Open) -> Check + Send + 'a) -> Task<'a> {
    Task::new(Open::new(id, title), move |check| async move { look(check) })
}

impl<'a> Task<'a> {
    fn new<F: Future<Output = Check> + Send + 'a>(check: Open, work: impl FnOnce(Open) -> F + Send + 'a) -> Self {
        Self { check, work: Box::new(move |check| Box::pin(work(check))) }
    }
}

/// Where a check belongs, by its id.
fn group(id: &str) -> CheckGroup {
    match id.split_once(':').map_or(id, |(kind, _)| kind) {
        "sign-in" | "certificate" | "control" | "sync" => CheckGroup::Identity,
        "gateway" => CheckGroup::Gateways,
        "resource" => CheckGroup::Resources,
        "network" | "zone" => CheckGroup::NamesAndRoutes,
        _ => CheckGroup::ThisComputer,
    }
}

/// A check that has no verdict yet.
#[derive(Clone, Debug)]
struct Open {
    id: String,
    title: String,
    group: CheckGroup,
}

impl Open {
    fn new(id: impl Into<String>, title: impl Into<String>) -> Self {
        let id = id.into();
        Self { group: group(&id), id, title: title.into() }
    }

    fn ok(self, detail: impl Into<String>) -> Check {
        self.with(Verdict::Ok, detail.into(), None)
    }

    fn skipped(self, detail: impl Into<String>) -> Check {
        self.with(Verdict::Skipped, detail.into(), None)
    }

    fn warning(self, detail: impl Into<String>, advice: &str) -> Check {
        self.with(Verdict::Warning, detail.into(), Some(advice.to_owned()))
    }

    fn failed(self, detail: impl Into<String>, advice: &str) -> Check {
        self.with(Verdict::Failed, detail.into(), Some(advice.to_owned()))
    }

    fn with(self, verdict: Verdict, detail: String, advice: Option<String>) -> Check {
        let (id, title, commands) = (self.id, self.title, Vec::new());
        Check { id, title, verdict, detail, advice, commands, group: self.group, took_micros: None }
    }
}
