//! When a notification is due, and what it says. Pure: [`Watch`] is told the news and the time, and gives back what to
//! show; `show` hands that to the system.
//!
//! One notification per cause, replaced in place; the same cause again only after ten minutes; at most six a minute.
//! What goes beyond is not shown later: the window has it.

use std::collections::{BTreeMap, VecDeque};

use postern_local_api::{
    message::{HealthItem, ResourceState, ResourceStatus, Severity},
    proto::id::ResourceId,
};

use crate::{
    view::{NoticeLevel, NotificationKind, Place},
    words::Language,
};

pub mod show;
#[cfg(test)]
mod tests;

/// News is held this long, so that what belongs together is said together, and what is undone at once is not said.
const GATHER: u64 = 600;
/// After a start, a sign-in or a reconnect, differences are no news.
const QUIET: u64 = 5_000;
/// The same cause is not shown again within this time.
const AGAIN: u64 = 600_000;
/// At most this many within [`WINDOW`].
const MOST: usize = 6;
const WINDOW: u64 = 60_000;
/// A countdown is shown at these distances from the end of the sign-in.
const COUNTDOWN: [u64; 3] = [600_000, 120_000, 0];

/// Something that may be worth a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Granted {
        id: ResourceId,
        name: String,
    },
    Lost {
        id: ResourceId,
        name: String,
    },
    /// It is switched on and cannot be used.
    Unreachable {
        id: ResourceId,
        name: String,
        why: String,
    },
    /// It can be used (again).
    Usable {
        id: ResourceId,
    },
    Health(HealthItem),
    Notice {
        level: NoticeLevel,
        text: String,
    },
    SignIn {
        ends_at: Option<u64>,
        signed_in: bool,
    },
}

impl News {
    /// What a new state of a resource that is switched on means.
    pub(crate) fn state(status: &ResourceStatus) -> Self {
        let id = status.resource.id;
        match status.state {
            ResourceState::Unhealthy => Self::Unreachable {
                id,
                name: status.resource.name.clone(),
                why: status.trouble.as_ref().map(|trouble| trouble.what.clone()).unwrap_or_default(),
            },
            _ => Self::Usable { id },
        }
    }
}

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The cause: a later one with the same key takes the place of an earlier one.
    pub key: String,
    pub kind: NotificationKind,
    pub title: String,
    pub body: String,
    pub urgent: bool,
    /// Where a click leads.
    pub place: Place,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    gathered_since: Option<u64>,
    granted: BTreeMap<ResourceId, String>,
    lost: BTreeMap<ResourceId, String>,
    unreachable: BTreeMap<ResourceId, (String, String)>,
    health: Vec<HealthItem>,
    notices: Vec<(NoticeLevel, String)>,
    quiet_until: u64,
    signed_in: bool,
    ends_at: Option<u64>,
    /// The smallest distance that was told for `ends_at`.
    told: Option<u64>,
    /// When each cause was shown last.
    shown: BTreeMap<String, u64>,
    recent: VecDeque<u64>,
}

impl Watch {
    /// For a while, differences are no news.
    pub(crate) fn be_quiet(&mut self, now: u64) {
        self.quiet_until = now + QUIET;
    }

    pub(crate) fn see(&mut self, now: u64, news: News) {
        let quiet = now < self.quiet_until;
        match news {
            News::Granted { id, name } if !quiet => {
                // Gone and there again is a change of the resource, not of access.
                if self.lost.remove(&id).is_none() {
                    self.granted.insert(id, name);
                }
            }
            News::Lost { id, name } if !quiet => {
                self.unreachable.remove(&id);
                if self.granted.remove(&id).is_none() {
                    self.lost.insert(id, name);
                }
            }
            News::Unreachable { id, name, why } if !quiet => {
                self.unreachable.insert(id, (name, why));
            }
            News::Usable { id } => {
                self.unreachable.remove(&id);
                return;
            }
            News::Health(item) if !quiet && item.severity >= Severity::Warn && item.resource.is_none() => {
                self.health.push(item);
            }
            News::Notice { level, text } if level != NoticeLevel::Info => self.notices.push((level, text)),
            News::SignIn { ends_at, signed_in } => {
                self.signed_in = signed_in;
                if self.ends_at != ends_at && ends_at.is_some() {
                    // A sign-in that is short of time from the beginning is not told that at once.
                    self.told = ends_at.map(|at| at.saturating_sub(now)).filter(|_| self.ends_at.is_none());
                    self.ends_at = ends_at;
                }
                if !signed_in {
                    self.ends_at = None;
                }
                return;
            }
            _ => return,
        }
        self.gathered_since.get_or_insert(now);
    }

    /// When to ask next, whatever happens.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        let gathered = self.gathered_since.map(|since| since + GATHER);
        let countdown = self.next_countdown().map(|(at, _)| at);
        gathered.into_iter().chain(countdown).min()
    }

    fn next_countdown(&self) -> Option<(u64, u64)> {
        let ends_at = self.ends_at.filter(|_| self.signed_in)?;
        let distance = COUNTDOWN.into_iter().find(|distance| self.told.is_none_or(|told| told > *distance))?;
        Some((ends_at.saturating_sub(distance), distance))
    }

    /// What is due now.
    pub(crate) fn due(&mut self, now: u64, muted: &[NotificationKind], language: Language) -> Vec<Notification> {
        let mut due = Vec::new();
        self.count_down(now, language, &mut due);
        if self.gathered_since.is_some_and(|since| now >= since + GATHER) {
            self.gathered_since = None;
            self.gather(language, &mut due);
        }
        due.retain(|notification| !muted.contains(&notification.kind) && self.may_show(now, notification));
        due
    }

    fn count_down(&mut self, now: u64, language: Language, due: &mut Vec<Notification>) {
        let mut latest = None;
        while let Some((at, distance)) = self.next_countdown().filter(|(at, _)| *at <= now) {
            self.told = Some(distance);
            latest = Some((at, distance));
        }
        if let Some((_, distance)) = latest {
            let (title, body) = language.sign_in_ends(distance / 60_000);
            due.push(Notification {
                // Each step of the countdown is a cause of its own, but all take the same place.
                key: "sign_in".to_owned(),
                kind: NotificationKind::SignInEnds,
                title,
                body,
                urgent: distance == 0,
                place: Place::SignIn,
            });
        }
    }

    fn gather(&mut self, language: Language, due: &mut Vec<Notification>) {
        let granted = std::mem::take(&mut self.granted);
        let mut lost = std::mem::take(&mut self.lost);
        if !self.signed_in {
            // Signing out takes everything away; that is no news to who did it.
            lost.clear();
        }
        let key = |what: &str, ids: &BTreeMap<ResourceId, String>| match ids.keys().next() {
            Some(id) if ids.len() == 1 => format!("{what}:{id}"),
            _ => format!("{what}:many"),
        };
        let names = |of: &BTreeMap<ResourceId, String>| of.values().cloned().collect::<Vec<_>>();
        if !granted.is_empty() {
            let (title, body) = language.granted(&names(&granted));
            let place = granted.keys().next().filter(|_| granted.len() == 1);
            let place = place.map_or(Place::Home, |id| Place::Resource { id: id.to_string() });
            let kind = NotificationKind::AccessGranted;
            due.push(Notification { key: key("access", &granted), kind, title, body, urgent: false, place });
        }
        if !lost.is_empty() {
            let (title, body) = language.lost(&names(&lost));
            let kind = NotificationKind::AccessLost;
            due.push(Notification { key: key("access", &lost), kind, title, body, urgent: false, place: Place::Home });
        }
        self.gather_faults(language, due);
    }

    fn gather_faults(&mut self, language: Language, due: &mut Vec<Notification>) {
        let unreachable = std::mem::take(&mut self.unreachable);
        if let Some((id, (name, why))) = unreachable.iter().next() {
            let one = unreachable.len() == 1;
            let names: Vec<String> = unreachable.values().map(|(name, _)| name.clone()).collect();
            let (title, body) = if one { language.unreachable(name, why) } else { language.many_unreachable(&names) };
            due.push(Notification {
                key: if one { format!("unreachable:{id}") } else { "unreachable:many".to_owned() },
                kind: NotificationKind::Unreachable,
                title,
                body,
                urgent: false,
                place: if one { Place::Resource { id: id.to_string() } } else { Place::Home },
            });
        }
        for item in std::mem::take(&mut self.health) {
            let update = item.code.starts_with("update");
            due.push(Notification {
                key: item.code,
                kind: if update { NotificationKind::Update } else { NotificationKind::Service },
                title: item.what,
                body: [item.why, item.remedy].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" "),
                urgent: item.severity == Severity::Error,
                place: if update { Place::About } else { Place::Home },
            });
        }
        for (level, text) in std::mem::take(&mut self.notices) {
            due.push(Notification {
                key: format!("notice:{text}"),
                kind: NotificationKind::Service,
                title: "Postern".to_owned(),
                body: text,
                urgent: level == NoticeLevel::Error,
                place: Place::Home,
            });
        }
    }

    fn may_show(&mut self, now: u64, notification: &Notification) -> bool {
        // Steps of the countdown are rare by themselves, and each must be seen; so must each turn of access.
        let counted = matches!(notification.kind, NotificationKind::Unreachable | NotificationKind::Service);
        self.shown.retain(|_, at| now < *at + AGAIN);
        if counted && self.shown.contains_key(&notification.key) {
            return false;
        }
        while self.recent.front().is_some_and(|at| now >= at + WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() >= MOST && notification.kind != NotificationKind::SignInEnds {
            return false;
        }
        self.recent.push_back(now);
        self.shown.insert(notification.key.clone(), now);
        true
    }
}
