//! Words of the tray and of notifications. The window has its own; sentences about faults come from the service.

/// A language that this app speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    English,
    German,
}

/// Fixed words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    SignedOut,
    Locked,
    Starting,
    ServiceAway,
    SignIn,
    RenewSignIn,
    Unlock,
    Open,
    Settings,
    Lock,
    Quit,
    QuitAsk,
    FavouritesAndRecents,
    CopyAddress,
    ConnectFavourites,
    DisconnectAll,
    Connecting,
    NeedsApproval,
    Unhealthy,
    Show,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::German];

    /// As a BCP 47 tag.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    /// The language of a tag or of a locale such as `de_AT.UTF-8`; English for what is not known.
    #[must_use]
    pub fn of(tag: &str) -> Self {
        let first = tag.split(['-', '_', '.', '@']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(first)).unwrap_or_default()
    }

    /// What the environment asks for.
    #[must_use]
    pub fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_MESSAGES")).or_else(|| set("LANG")).unwrap_or_default();
        // LANGUAGE counts only where there is a locale at all (gettext).
        let list = set("LANGUAGE").filter(|_| !matches!(locale.as_str(), "" | "C" | "POSIX"));
        Self::of(list.as_deref().and_then(|list| list.split(':').next()).unwrap_or(&locale))
    }

    #[must_use]
    pub const fn word(self, word: Word) -> &'static str {
        let (english, german) = match word {
            Word::SignedOut => ("Signed out", "Abgemeldet"),
            Word::Locked => ("Locked", "Gesperrt"),
            Word::Starting => ("Starting…", "Startet…"),
            Word::ServiceAway => ("Service is away", "Dienst ist nicht da"),
            Word::SignIn => ("Sign in…", "Anmelden…"),
            Word::RenewSignIn => ("Renew sign-in…", "Anmeldung erneuern…"),
            Word::Unlock => ("Unlock…", "Entsperren…"),
            Word::Open => ("Open Postern", "Postern öffnen"),
            Word::Settings => ("Settings…", "Einstellungen…"),
            Word::Lock => ("Lock", "Sperren"),
            Word::Quit => ("Quit", "Beenden"),
            Word::QuitAsk => ("Quit…", "Beenden…"),
            Word::FavouritesAndRecents => ("Favourites and recents", "Favoriten und zuletzt benutzt"),
            Word::CopyAddress => ("Copy address", "Adresse kopieren"),
            Word::ConnectFavourites => ("Connect favourites", "Favoriten verbinden"),
            Word::DisconnectAll => ("Disconnect all", "Alle trennen"),
            Word::Connecting => ("connecting…", "verbindet…"),
            Word::NeedsApproval => ("needs approval", "braucht Freigabe"),
            Word::Unhealthy => ("unhealthy", "gestört"),
            Word::Show => ("Show", "Anzeigen"),
        };
        match self {
            Self::English => english,
            Self::German => german,
        }
    }

    /// "5 of 14 connected"
    #[must_use]
    pub fn connected(self, connected: usize, all: usize) -> String {
        match self {
            Self::English => format!("{connected} of {all} connected"),
            Self::German => format!("{connected} von {all} verbunden"),
        }
    }

    /// "Sign-in ends in 9 min"
    #[must_use]
    pub fn sign_in_ends_in(self, minutes: u64) -> String {
        match self {
            Self::English => format!("Sign-in ends in {minutes} min"),
            Self::German => format!("Anmeldung endet in {minutes} min"),
        }
    }

    /// "ends in 24 min"
    #[must_use]
    pub fn ends_in(self, minutes: u64) -> String {
        match self {
            Self::English => format!("ends in {minutes} min"),
            Self::German => format!("endet in {minutes} min"),
        }
    }

    /// Title and body: the sign-in ends in so many minutes, or now.
    #[must_use]
    pub fn sign_in_ends(self, minutes: u64) -> (String, String) {
        let (title, body) = match (self, minutes) {
            (Self::English, 0) => ("Sign-in has ended".to_owned(), "Sign in to open new connections."),
            (Self::German, 0) => ("Anmeldung ist abgelaufen".to_owned(), "Für neue Verbindungen neu anmelden."),
            (Self::English, _) => (self.sign_in_ends_in(minutes), "Renew now and open connections stay open."),
            (Self::German, _) => {
                (self.sign_in_ends_in(minutes), "Jetzt erneuern, und offene Verbindungen bleiben offen.")
            }
        };
        (title, body.to_owned())
    }

    #[must_use]
    pub fn granted(self, names: &[String]) -> (String, String) {
        match (self, names) {
            (Self::English, [name]) => (format!("You can reach {name}"), "Access was granted.".to_owned()),
            (Self::German, [name]) => (format!("{name} ist erreichbar"), "Der Zugang wurde erteilt.".to_owned()),
            (Self::English, many) => (format!("You can reach {} more resources", many.len()), listed(many)),
            (Self::German, many) => (format!("{} weitere Ressourcen sind erreichbar", many.len()), listed(many)),
        }
    }

    #[must_use]
    pub fn lost(self, names: &[String]) -> (String, String) {
        match (self, names) {
            (Self::English, [name]) => {
                (format!("Access to {name} ended"), "It left your list; its connections were closed.".to_owned())
            }
            (Self::German, [name]) => (
                format!("Zugang zu {name} ist beendet"),
                "Sie steht nicht mehr in der Liste, ihre Verbindungen wurden geschlossen.".to_owned(),
            ),
            (Self::English, many) => (format!("Access to {} resources ended", many.len()), listed(many)),
            (Self::German, many) => (format!("Zugang zu {} Ressourcen ist beendet", many.len()), listed(many)),
        }
    }

    #[must_use]
    pub fn unreachable(self, name: &str, why: &str) -> (String, String) {
        let title = match self {
            Self::English => format!("{name} cannot be reached"),
            Self::German => format!("{name} ist nicht erreichbar"),
        };
        (title, why.to_owned())
    }

    #[must_use]
    pub fn many_unreachable(self, names: &[String]) -> (String, String) {
        let title = match self {
            Self::English => format!("{} resources cannot be reached", names.len()),
            Self::German => format!("{} Ressourcen sind nicht erreichbar", names.len()),
        };
        (title, listed(names))
    }
}

/// At most five names, so that the bubble stays readable.
fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_which_language() {
        let language = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            Language::of_environment(&find)
        };
        assert_eq!(language(&[("LANG", "de_AT.UTF-8")]), Language::German);
        assert_eq!(language(&[("LANG", "de_DE"), ("LC_ALL", "en_GB")]), Language::English);
        assert_eq!(language(&[("LANG", "fr_FR"), ("LANGUAGE", "de:en")]), Language::German);
        assert_eq!(language(&[("LANG", "C"), ("LANGUAGE", "de")]), Language::English);
        assert_eq!(language(&[]), Language::English);
    }
}
