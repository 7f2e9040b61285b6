//! The menu as plain data. Equal states give equal menus; the shell changes only what differs.
//!
//! The rules are those of the design: the state in words first, the worst cause second, at most six resources, what
//! state or policy rules out is left out and not greyed.

use serde::{Deserialize, Serialize};

use super::icon::Icon;
use crate::words::{Language, Word};

/// More resources than this are in the window only.
const MOST: usize = 6;
/// Labels are cut here, so that one name does not make the menu as wide as the screen.
const WIDEST: usize = 48;

/// Everything that the tray depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub language: Language,
    pub icon: Icon,
    pub session: Session,
    /// Resources that can be used now, and all of them.
    pub connected: usize,
    pub all: usize,
    /// Resources that are switched on.
    pub wanted: usize,
    /// What is wrong, in one sentence, and the resource that it is about.
    pub worst: Option<(String, Option<String>)>,
    /// Favourites, then recents, in the window's order.
    pub resources: Vec<Entry>,
    /// Whether "connect favourites" would change something.
    pub favourites_off: bool,
}

/// Whether the rest of the menu means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Starting,
    /// The service does not answer.
    Away,
    SignedOut,
    Locked,
    SignedIn {
        /// Set when the sign-in ends within a quarter of an hour.
        minutes_left: Option<u64>,
    },
}

/// A resource in the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub name: String,
    /// Whether it is switched on.
    pub wanted: bool,
    pub may_switch: bool,
    pub note: Note,
    /// The address that "copy address" copies.
    pub address: String,
}

/// What stands after the name: the port, or what differs. Never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    None,
    Port(u16),
    Connecting,
    EndsIn(u64),
    Unhealthy,
    NeedsApproval,
}

/// What a click does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Open,
    Show(String),
    SignIn,
    Unlock,
    Settings,
    Lock,
    Quit,
    Toggle { id: String, on: bool },
    Copy(String),
    ConnectFavourites,
    DisconnectAll,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A line that only says something.
    Text(String),
    Separator,
    Button {
        label: String,
        action: Action,
    },
    Check {
        label: String,
        checked: bool,
        action: Action,
    },
    Submenu {
        label: String,
        items: Vec<Self>,
    },
}

/// What the tray shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    pub icon: Icon,
    /// The first line of the menu.
    pub tooltip: String,
    pub items: Vec<Item>,
}

impl Menu {
    /// What a click leaves of it: toolkits turn the tick of an entry by themselves, whatever comes of the action.
    pub fn click(&mut self, clicked: &Action) {
        for item in &mut self.items {
            if let Item::Check { checked, action, .. } = item
                && action == clicked
            {
                *checked = !*checked;
            }
        }
    }
}

/// The menu of a state.
#[must_use]
pub fn menu(facts: &Facts) -> Menu {
    let say = |word| facts.language.word(word);
    let button = |word, action| Item::Button { label: say(word).to_owned(), action };
    let tooltip = first_line(facts);
    let mut items = vec![Item::Text(tooltip.clone())];
    match facts.session {
        Session::Starting | Session::Away => items.push(Item::Separator),
        Session::SignedOut => items.extend([Item::Separator, button(Word::SignIn, Action::SignIn)]),
        Session::Locked => items.extend([Item::Separator, button(Word::Unlock, Action::Unlock)]),
        Session::SignedIn { minutes_left } => {
            if minutes_left.is_some() {
                items.push(button(Word::RenewSignIn, Action::SignIn));
            }
            items.extend(worst(facts));
            items.push(Item::Separator);
            items.extend(resources(facts));
            items.extend(many(facts));
        }
    }
    items.push(button(Word::Open, Action::Open));
    if matches!(facts.session, Session::SignedIn { .. }) {
        items.push(button(Word::Lock, Action::Lock));
    }
    let quit = if facts.wanted > 0 { Word::QuitAsk } else { Word::Quit };
    items.extend([button(Word::Settings, Action::Settings), Item::Separator, button(quit, Action::Quit)]);
    Menu { icon: facts.icon, tooltip, items }
}

fn first_line(facts: &Facts) -> String {
    let say = |word| facts.language.word(word).to_owned();
    match facts.session {
        Session::Starting => say(Word::Starting),
        Session::Away => say(Word::ServiceAway),
        Session::SignedOut => say(Word::SignedOut),
        Session::Locked => say(Word::Locked),
        Session::SignedIn { minutes_left: Some(minutes) } => facts.language.sign_in_ends_in(minutes),
        Session::SignedIn { minutes_left: None } => facts.language.connected(facts.connected, facts.all),
    }
}

fn worst(facts: &Facts) -> Option<Item> {
    let (text, resource) = facts.worst.as_ref()?;
    let action = resource.clone().map_or(Action::Open, Action::Show);
    Some(Item::Button { label: cut(text), action })
}

fn resources(facts: &Facts) -> Vec<Item> {
    let mut items = Vec::new();
    if facts.resources.is_empty() {
        return items;
    }
    items.push(Item::Text(facts.language.word(Word::FavouritesAndRecents).to_owned()));
    let shown = || facts.resources.iter().take(MOST);
    for entry in shown() {
        let label = label(facts.language, entry);
        items.push(if entry.may_switch {
            let action = Action::Toggle { id: entry.id.clone(), on: !entry.wanted };
            Item::Check { label, checked: entry.wanted, action }
        } else {
            Item::Button { label, action: Action::Show(entry.id.clone()) }
        });
    }
    let copy = shown().map(|entry| Item::Button { label: cut(&entry.name), action: Action::Copy(entry.id.clone()) });
    items.push(Item::Submenu { label: facts.language.word(Word::CopyAddress).to_owned(), items: copy.collect() });
    items.push(Item::Separator);
    items
}

fn many(facts: &Facts) -> Vec<Item> {
    let button = |word, action| Item::Button { label: facts.language.word(word).to_owned(), action };
    let mut items = Vec::new();
    if facts.favourites_off {
        items.push(button(Word::ConnectFavourites, Action::ConnectFavourites));
    }
    if facts.wanted > 0 {
        items.push(button(Word::DisconnectAll, Action::DisconnectAll));
    }
    if !items.is_empty() {
        items.push(Item::Separator);
    }
    items
}

fn label(language: Language, entry: &Entry) -> String {
    let note = match entry.note {
        Note::None => return cut(&entry.name),
        Note::Port(port) => port.to_string(),
        Note::Connecting => language.word(Word::Connecting).to_owned(),
        Note::EndsIn(minutes) => language.ends_in(minutes),
        Note::Unhealthy => language.word(Word::Unhealthy).to_owned(),
        Note::NeedsApproval => language.word(Word::NeedsApproval).to_owned(),
    };
    format!("{} · {note}", cut(&entry.name))
}

fn cut(text: &str) -> String {
    // Control characters would break the line, and a menu knows no such thing.
    let mut clean = text.chars().filter(|c| !c.is_control());
    let mut short: String = clean.by_ref().take(WIDEST).collect();
    if clean.next().is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
