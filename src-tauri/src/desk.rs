//! The state of the app: a copy of the service's status, the user's settings, and what the window has not been told yet.
//!
//! Sans-IO: the time is passed in, nothing is sent or read here. Whoever holds it feeds what is heard, asks for the
//! changes when it is time to paint, and sleeps until [`Desk::next_wake`] says so.

use std::collections::{BTreeMap, BTreeSet};

use postern_local_api::{
    client::ClientError,
    message::{self, Event, ResourceStatus, SignIn, Status},
    proto::id::ResourceId,
};

use crate::{
    notify::{News, Watch},
    service::Heard,
    settings::Stored,
    view::{Change, Desktop, Link, Notice, NoticeLevel, Place, Problem, Question, Row, Settings, View, Which},
};

mod check;
mod convert;
mod diagnosis;
mod panel;
#[cfg(test)]
mod tests;
mod traffic;
mod tray;

pub(crate) use convert::{not_started, problem, problem_of};
use traffic::History;

/// When more rows than this have changed at once, the whole view is sent instead.
const MANY_ROWS: usize = 4096;

/// A resource, and what this app saw of it.
#[derive(Debug)]
struct Held {
    status: ResourceStatus,
    traffic: History,
}

/// What the window has not been told yet.
#[derive(Debug, Default)]
struct Untold {
    view: bool,
    rows: BTreeSet<ResourceId>,
    removed: BTreeSet<ResourceId>,
    service: bool,
    settings: bool,
    desktop: bool,
    question: bool,
    doctor: bool,
    notices: Vec<Notice>,
    place: Option<Place>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    link: Link,
    /// Without its resources.
    status: Option<Status>,
    held: BTreeMap<ResourceId, Held>,
    memory: convert::Memory,
    stored: Stored,
    desktop: Desktop,
    question: Option<Question>,
    /// A link that came before the service did.
    waiting_link: Option<String>,
    doctor: diagnosis::Diagnosis,
    open: Option<ResourceId>,
    /// Since when something has been connecting.
    connecting_since: Option<u64>,
    watch: Watch,
    untold: Untold,
    stored_changed: bool,
}

impl Desk {
    pub(crate) fn new(stored: Stored, desktop: Desktop) -> Self {
        Self {
            link: Link::Starting,
            status: None,
            held: BTreeMap::new(),
            memory: convert::Memory::default(),
            stored,
            desktop,
            question: None,
            waiting_link: None,
            doctor: diagnosis::Diagnosis::default(),
            open: None,
            connecting_since: None,
            watch: Watch::default(),
            untold: Untold::default(),
            stored_changed: false,
        }
    }

    /// Takes what came from the service.
    pub(crate) fn hear(&mut self, now: u64, heard: Heard) {
        match heard {
            Heard::Event(event) => {
                self.hear_event(now, *event);
                self.ask_waiting_link();
            }
            Heard::Lost(error) => {
                // Before it was ever there it is being started, which is no loss.
                if self.status.is_some() {
                    self.link = Link::Gone { since: now, problem: convert::lost(&error) };
                    self.untold.service = true;
                }
            }
            Heard::Refused(error) => self.refuse(&error),
        }
        self.note_connecting(now);
    }

    /// posternd could not be started.
    pub(crate) fn start_failed(&mut self, now: u64, problem: Problem) {
        if !matches!(self.link, Link::Connected { .. }) {
            self.link = Link::Gone { since: now, problem };
            self.untold.service = true;
        }
    }

    fn refuse(&mut self, error: &ClientError) {
        let link = Link::Refused { problem: problem(error) };
        self.untold.service |= self.link != link;
        self.link = link;
    }

    fn hear_event(&mut self, now: u64, event: Event) {
        match event {
            Event::Snapshot { status } => self.take_snapshot(now, *status),
            Event::Service { status } => self.take_service(now, *status),
            Event::ResourceChanged { resource } => self.take_resource(now, *resource),
            Event::ResourceRemoved { id } => self.remove(now, id),
            Event::Notice { level, text } => {
                let level = match level {
                    message::NoticeLevel::Info => NoticeLevel::Info,
                    message::NoticeLevel::Warning => NoticeLevel::Warning,
                    message::NoticeLevel::Error => NoticeLevel::Error,
                };
                self.watch.see(now, News::Notice { level, text: text.clone() });
                self.tell(Notice { level, text, resource: None });
            }
        }
    }

    fn take_snapshot(&mut self, now: u64, mut status: Status) {
        // What differs after the service was away happened unseen: no news of it.
        self.watch.be_quiet(now);
        self.untold.view |= self.status.is_none();
        let resources = std::mem::take(&mut status.resources);
        let link = Link::Connected { version: status.service.clone() };
        self.untold.service |= self.link != link;
        self.link = link;
        self.take_service(now, status);
        let gone: Vec<ResourceId> = {
            let fresh: BTreeSet<ResourceId> = resources.iter().map(|status| status.resource.id).collect();
            self.held.keys().filter(|id| !fresh.contains(id)).copied().collect()
        };
        for id in gone {
            self.remove(now, id);
        }
        for resource in resources {
            self.take_resource(now, resource);
        }
    }

    fn take_service(&mut self, now: u64, status: Status) {
        let was_signed_in = self.is_signed_in();
        let was_locked = self.is_locked();
        let was_heard = self.status.is_some();
        let status = Status { resources: Vec::new(), ..status };
        for item in &status.health {
            let known = self.status.iter().flat_map(|status| &status.health).any(|known| known.code == item.code);
            if !known {
                self.watch.see(now, News::Health(item.clone()));
            }
        }
        self.untold.service |= self.status.as_ref() != Some(&status);
        self.status = Some(status);
        if !was_signed_in && self.is_signed_in() {
            // Everything that arrives now is what the account has, not what it was just given.
            self.watch.be_quiet(now);
        }
        match (was_locked, self.is_locked()) {
            // What was locked before this app began was locked nobody here knows when.
            (false, true) if was_heard => {
                let streams = self.held.values().map(|held| held.status.streams).sum();
                self.memory = convert::Memory { locked_since: Some(now), closed: Some(streams) };
            }
            (true, false) => self.memory = convert::Memory::default(),
            _ => {}
        }
        self.watch.see(now, News::SignIn { ends_at: self.sign_in_ends(), signed_in: self.is_signed_in() });
        self.remember_sign_in();
    }

    /// Address and e-mail, to fill in the next time.
    fn remember_sign_in(&mut self) {
        let Some(status) = &self.status else { return };
        let (SignIn::SignedIn { account, .. } | SignIn::Locked { account, .. }) = &status.sign_in else { return };
        let address = status.control.url().map(str::to_owned).or_else(|| self.stored.address.clone());
        let email = (!account.service).then(|| account.email.clone());
        if self.stored.address != address || self.stored.email != email {
            self.stored.address = address;
            self.stored.email = email;
            self.stored_changed = true;
        }
    }

    fn take_resource(&mut self, now: u64, status: ResourceStatus) {
        let id = status.resource.id;
        let name = status.resource.name.clone();
        self.untold.removed.remove(&id);
        let used = used(&status);
        match self.held.get_mut(&id) {
            Some(held) if held.status == status => return,
            Some(held) => {
                held.traffic.count(now, &held.status, &status);
                if status.wanted && held.status.state != status.state && self.link_is_up() {
                    self.watch.see(now, News::state(&status));
                }
                let (before, was_wanted) =
                    self.held.get(&id).map_or((None, false), |held| (self::used(&held.status), held.status.wanted));
                // Switching on counts, in whichever client.
                let switched_on = (status.wanted && !was_wanted).then_some(now);
                self.used_at(id, switched_on.or_else(|| used.filter(|used| before < Some(*used))));
                if let Some(held) = self.held.get_mut(&id) {
                    held.status = status;
                }
            }
            None => {
                self.watch.see(now, News::Granted { id, name });
                self.used_at(id, used);
                self.held.insert(id, Held { status, traffic: History::default() });
            }
        }
        self.untold.rows.insert(id);
    }

    /// Whether the service answers.
    pub(crate) const fn link_is_up(&self) -> bool {
        matches!(self.link, Link::Connected { .. })
    }

    fn remove(&mut self, now: u64, id: ResourceId) {
        if let Some(held) = self.held.remove(&id) {
            self.watch.see(now, News::Lost { id, name: held.status.resource.name });
            self.untold.rows.remove(&id);
            self.untold.removed.insert(id);
        }
    }

    /// Somebody used a resource, in this app or by way of the service.
    fn used_at(&mut self, id: ResourceId, at: Option<u64>) {
        let Some(at) = at else { return };
        let before: Vec<String> = self.stored.recents.iter().map(|used| used.id.clone()).collect();
        if self.stored.touch(&id.to_string(), at) {
            self.stored_changed = true;
            let after = self.stored.recents.iter().map(|used| used.id.clone());
            let moved: Vec<ResourceId> = before.into_iter().chain(after).filter_map(|id| id.parse().ok()).collect();
            self.untold.rows.extend(moved.into_iter().filter(|id| self.held.contains_key(id)));
        }
    }

    /// Takes note that the user did something with a resource here.
    pub(crate) fn touch(&mut self, now: u64, id: ResourceId) {
        self.used_at(id, Some(now));
    }

    fn note_connecting(&mut self, now: u64) {
        let connecting = self.held.values().any(|held| held.status.state == message::ResourceState::Connecting)
            || matches!(self.link, Link::Starting);
        self.connecting_since = connecting.then(|| self.connecting_since.unwrap_or(now));
    }

    /// Everything, for a window that has nothing yet.
    pub(crate) fn view(&self, now: u64) -> View {
        let mut rows: Vec<Row> = self.held.values().map(|held| self.row(held)).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
        View {
            service: convert::service(&self.link, self.status.as_ref(), &self.stored, &self.memory),
            rows,
            settings: self.stored.settings.clone(),
            desktop: self.desktop.clone(),
            question: self.question.clone(),
            doctor: self.doctor.shown(),
            now,
        }
    }

    fn row(&self, held: &Held) -> Row {
        let mut row = convert::row(&held.status);
        let place = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok());
        row.favourite = place(self.stored.favourites.iter().position(|id| *id == row.id));
        row.recent = place(self.stored.recents.iter().position(|used| used.id == row.id));
        row
    }

    /// Whether there is something to tell the window.
    pub(crate) fn has_changes(&self) -> bool {
        let Untold { view, rows, removed, service, settings, desktop, question, doctor, notices, place } = &self.untold;
        *view
            || *service
            || *settings
            || *desktop
            || *question
            || *doctor
            || place.is_some()
            || !(rows.is_empty() && removed.is_empty() && notices.is_empty())
    }

    /// What the window has not been told. It counts as told from now on.
    pub(crate) fn take_changes(&mut self, now: u64) -> Vec<Change> {
        let told = std::mem::take(&mut self.untold);
        let mut changes = Vec::new();
        if told.view || told.rows.len() > MANY_ROWS {
            changes.push(Change::View { view: Box::new(self.view(now)) });
        } else {
            self.take_parts(&told, &mut changes);
        }
        changes.extend(told.notices.into_iter().map(|notice| Change::Notice { notice }));
        changes.extend(told.place.map(|place| Change::Go { place }));
        changes
    }

    fn take_parts(&self, told: &Untold, changes: &mut Vec<Change>) {
        if told.service {
            let service = convert::service(&self.link, self.status.as_ref(), &self.stored, &self.memory);
            changes.push(Change::Service { service: Box::new(service) });
        }
        if !told.removed.is_empty() {
            changes.push(Change::RowsRemoved { ids: told.removed.iter().map(ToString::to_string).collect() });
        }
        if !told.rows.is_empty() {
            let rows = told.rows.iter().filter_map(|id| self.held.get(id)).map(|held| self.row(held)).collect();
            changes.push(Change::RowsChanged { rows });
        }
        if told.settings {
            changes.push(Change::Settings { settings: Box::new(self.stored.settings.clone()) });
        }
        if told.desktop {
            changes.push(Change::Desktop { desktop: Box::new(self.desktop.clone()) });
        }
        if told.question {
            changes.push(Change::Question { question: self.question.clone() });
        }
        if told.doctor {
            changes.push(Change::Doctor { doctor: self.doctor.shown() });
        }
    }

    /// A window begins to listen: it gets everything.
    pub(crate) fn tell_all(&mut self) {
        let (place, notices) = (self.untold.place.take(), std::mem::take(&mut self.untold.notices));
        self.untold = Untold { view: true, place, notices, ..Untold::default() };
    }

    /// Shows something once.
    pub(crate) fn tell(&mut self, notice: Notice) {
        self.untold.notices.push(notice);
    }

    /// Sends the window to a place.
    pub(crate) fn go(&mut self, place: Place) {
        self.untold.place = Some(place);
    }

    /// The settings when they have to be written.
    pub(crate) fn take_stored(&mut self) -> Option<Stored> {
        std::mem::take(&mut self.stored_changed).then(|| self.stored.clone())
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.stored.settings
    }

    pub(crate) fn set_settings(&mut self, settings: Settings) {
        if self.stored.settings != settings {
            self.stored.settings = settings;
            self.stored_changed = true;
            self.untold.settings = true;
        }
    }

    pub(crate) fn desktop(&self) -> &Desktop {
        &self.desktop
    }

    pub(crate) fn set_desktop(&mut self, desktop: Desktop) {
        self.untold.desktop |= self.desktop != desktop;
        self.desktop = desktop;
    }

    pub(crate) fn set_favourite(&mut self, id: ResourceId, on: bool) {
        if self.stored.set_favourite(&id.to_string(), on) {
            self.favourites_changed(&[id]);
        }
    }

    pub(crate) fn order_favourites(&mut self, ids: &[String]) {
        self.stored.order_favourites(ids);
        self.favourites_changed(&[]);
    }

    fn favourites_changed(&mut self, also: &[ResourceId]) {
        let favourites = self.stored.favourites.iter().filter_map(|id| id.parse().ok());
        let moved: Vec<ResourceId> = favourites.chain(also.iter().copied()).collect();
        self.untold.rows.extend(moved.into_iter().filter(|id| self.held.contains_key(id)));
        self.stored_changed = true;
    }

    pub(crate) const fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }

    pub(crate) fn ask(&mut self, question: Option<Question>) {
        self.untold.question |= self.question != question;
        self.question = question;
    }

    /// Resources that are switched on, and the streams they carry.
    pub(crate) fn connected(&self) -> (u32, u32) {
        let wanted = self.held.values().filter(|held| held.status.wanted);
        wanted.fold((0, 0), |(count, streams), held| (count + 1, streams + held.status.streams))
    }

    /// The ids that a command means. An id that is none, or that is not there any more, is left out.
    pub(crate) fn ids(&self, which: &Which) -> Vec<ResourceId> {
        let named = |ids: &[String]| ids.iter().filter_map(|id| id.parse().ok()).collect::<Vec<ResourceId>>();
        let mut ids = match which {
            Which::All => self.held.keys().copied().collect(),
            Which::Favourites => named(&self.stored.favourites),
            Which::Ids { ids } => named(ids),
        };
        ids.retain(|id| self.held.contains_key(id));
        ids
    }

    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    pub(crate) fn is_signed_in(&self) -> bool {
        matches!(self.status.as_ref().map(|status| &status.sign_in), Some(SignIn::SignedIn { .. }))
    }

    pub(crate) fn is_locked(&self) -> bool {
        matches!(self.status.as_ref().map(|status| &status.sign_in), Some(SignIn::Locked { .. }))
    }

    fn sign_in_ends(&self) -> Option<u64> {
        match &self.status.as_ref()?.sign_in {
            SignIn::SignedIn { expires_at, .. } => Some(expires_at.0),
            SignIn::SignedOut | SignIn::Locked { .. } => None,
        }
    }

    pub(crate) const fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// When a resource was last used. One that is switched on and was not used yet comes after all that were.
fn used(status: &ResourceStatus) -> Option<u64> {
    status.last_used.map(|at| at.0).or_else(|| status.wanted.then_some(0))
}
