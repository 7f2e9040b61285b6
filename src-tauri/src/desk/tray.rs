//! What the tray has to know, and when it has to look again.

use postern_local_api::message::{self, Severity};

use super::{Desk, Held, convert};
use crate::{
    tray::{
        icon::Icon,
        menu::{Entry, Facts, Note, Session},
    },
    view::{Link, NoticeLevel, ResourceState},
    words::Language,
};

/// "Connecting" is shown only after this long, so that it does not flicker.
const FLICKER: u64 = 400;
/// The countdown of the sign-in begins here.
const COUNTDOWN: u64 = 15 * 60_000;
const MINUTE: u64 = 60_000;

impl Desk {
    pub(crate) fn language(&self) -> Language {
        Language::of(self.stored.settings.language.as_deref().unwrap_or(&self.desktop.system_language))
    }

    pub(crate) fn tray(&self, now: u64) -> Facts {
        let states = || self.held.values().map(|held| held.status.state);
        let resources = self.tray_rows().map(|held| entry(now, held)).collect();
        Facts {
            language: self.language(),
            icon: self.icon(now),
            session: self.tray_session(now),
            connected: states().filter(|state| state.passes()).count(),
            all: self.held.len(),
            wanted: self.held.values().filter(|held| held.status.wanted).count(),
            worst: self.worst(),
            resources,
            favourites_off: !self.favourites_off().is_empty(),
        }
    }

    /// Favourites, then recents.
    fn tray_rows(&self) -> impl Iterator<Item = &Held> {
        let recents = self.stored.recents.iter().map(|used| &used.id);
        let recents = recents.filter(|id| !self.stored.favourites.contains(id));
        let ids = self.stored.favourites.iter().chain(recents);
        ids.filter_map(|id| self.held.get(&id.parse().ok()?))
    }

    fn tray_session(&self, now: u64) -> Session {
        match self.link {
            Link::Starting => return Session::Starting,
            Link::Gone { .. } | Link::Refused { .. } => return Session::Away,
            Link::Connected { .. } => {}
        }
        if self.is_locked() {
            return Session::Locked;
        }
        match self.sign_in_ends() {
            None => Session::SignedOut,
            Some(at) => {
                let left = at.saturating_sub(now);
                Session::SignedIn { minutes_left: (left <= COUNTDOWN).then_some(left.div_ceil(MINUTE)) }
            }
        }
    }

    fn worst(&self) -> Option<(String, Option<String>)> {
        let health = self.status.iter().flat_map(|status| &status.health);
        if let Some(item) = health.clone().find(|item| item.severity > Severity::Info) {
            return Some((item.what.clone(), item.resource.map(|id| id.to_string())));
        }
        let unhealthy = self.held.values().find(|held| held.status.state == message::ResourceState::Unhealthy)?;
        let status = &unhealthy.status;
        let what = status.trouble.as_ref().map_or_else(
            || status.resource.name.clone(),
            |trouble| format!("{}: {}", status.resource.name, trouble.what),
        );
        Some((what, Some(status.resource.id.to_string())))
    }

    fn icon(&self, now: u64) -> Icon {
        let mut applying = Vec::new();
        match self.tray_session(now) {
            Session::Away => applying.push(Icon::Error),
            Session::SignedOut | Session::Locked => applying.push(Icon::SignedOut),
            Session::SignedIn { minutes_left: Some(_) } => applying.push(Icon::Expiring),
            Session::Starting | Session::SignedIn { minutes_left: None } => {}
        }
        let health = self.status.iter().flat_map(|status| &status.health);
        for item in health {
            match item.severity {
                _ if item.code.starts_with("update") => applying.push(Icon::Update),
                Severity::Error => applying.push(Icon::Error),
                Severity::Warn => applying.push(Icon::Degraded),
                Severity::Info => {}
            }
        }
        for held in self.held.values() {
            match held.status.state {
                message::ResourceState::Expiring => applying.push(Icon::Expiring),
                message::ResourceState::Degraded | message::ResourceState::Unhealthy => applying.push(Icon::Degraded),
                _ => {}
            }
        }
        if self.connecting_since.is_some_and(|since| now >= since + FLICKER) {
            applying.push(Icon::Connecting);
        }
        Icon::strongest(applying)
    }

    /// When the tray, or a notification, is due without anything being heard.
    pub(crate) fn next_wake(&self, now: u64) -> Option<u64> {
        let flicker = self.connecting_since.map(|since| since + FLICKER).filter(|at| *at > now);
        // Minutes that are counted down in the tray.
        let ends = self.sign_in_ends().map(|at| (at, COUNTDOWN));
        let grants = self.tray_rows().filter_map(|held| held.status.grant_ends).map(|at| (at.0, 2 * COUNTDOWN));
        let minutes = ends.into_iter().chain(grants).filter_map(|(at, from)| next_minute(now, at, from));
        flicker.into_iter().chain(self.watch.next_wake()).chain(minutes).min()
    }

    /// Notices in the window for what a person should not miss there.
    pub(crate) fn warn(&mut self, text: String) {
        self.tell(crate::view::Notice { level: NoticeLevel::Warning, text, resource: None });
    }
}

/// When the number of minutes that are left changes next.
fn next_minute(now: u64, at: u64, from: u64) -> Option<u64> {
    let left = at.checked_sub(now)?;
    if left > from {
        return Some(at - from);
    }
    let minutes = left.div_ceil(MINUTE);
    minutes.checked_sub(1).map(|fewer| at - fewer * MINUTE).filter(|wake| *wake > now)
}

fn entry(now: u64, held: &Held) -> Entry {
    let row = convert::row(&held.status);
    let left = row.ends_at.map(|at| at.saturating_sub(now).div_ceil(MINUTE));
    let note = match row.state {
        ResourceState::Connecting => Note::Connecting,
        ResourceState::Expiring => left.map_or(Note::Port(row.port), Note::EndsIn),
        ResourceState::Unhealthy => Note::Unhealthy,
        ResourceState::NeedsApproval => Note::NeedsApproval,
        ResourceState::Connected | ResourceState::Degraded => Note::Port(row.port),
        ResourceState::Off | ResourceState::Locked => Note::None,
    };
    Entry {
        id: row.id,
        address: row.dns_name.unwrap_or(row.address),
        name: row.name,
        wanted: row.wanted,
        may_switch: row.may_switch,
        note,
    }
}
