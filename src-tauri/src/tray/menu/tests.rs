use super::*;

fn entry(name: &str, wanted: bool, note: Note) -> Entry {
    Entry {
        id: format!("id-{name}"),
        name: name.to_owned(),
        wanted,
        may_switch: note != Note::NeedsApproval,
        note,
        address: "127.0.0.1:15432".to_owned(),
    }
}

fn facts(session: Session) -> Facts {
    Facts {
        language: Language::English,
        icon: Icon::Connected,
        session,
        connected: 0,
        all: 0,
        wanted: 0,
        worst: None,
        resources: Vec::new(),
        favourites_off: false,
    }
}

/// One line for each item: `✓`/`·` for a tick, `>` for a submenu, `[…]` for text.
fn written(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|item| match item {
            Item::Text(text) => format!("[{text}]"),
            Item::Separator => "---".to_owned(),
            Item::Button { label, .. } => label.clone(),
            Item::Check { label, checked, .. } => format!("{} {label}", if *checked { "✓" } else { "·" }),
            Item::Submenu { label, items } => format!("{label} > {}", written(items).join(", ")),
        })
        .collect()
}

#[test]
fn signed_in_the_menu_is_that_of_the_design() {
    let mut facts = facts(Session::SignedIn { minutes_left: None });
    (facts.connected, facts.all, facts.wanted) = (5, 14, 6);
    facts.worst = Some(("billing-replica refuses connections.".to_owned(), Some("id-billing".to_owned())));
    facts.favourites_off = true;
    facts.resources = vec![
        entry("orders-primary", true, Note::Port(15432)),
        entry("bastion-fra", true, Note::EndsIn(24)),
        entry("sessions-cache", true, Note::Connecting),
        entry("orders-staging", false, Note::None),
        entry("warehouse", false, Note::NeedsApproval),
        entry("billing", true, Note::Unhealthy),
        entry("one-too-many", true, Note::Port(1)),
    ];
    let menu = menu(&facts);
    assert_eq!(menu.tooltip, "5 of 14 connected");
    assert_eq!(
        written(&menu.items),
        [
            "[5 of 14 connected]",
            "billing-replica refuses connections.",
            "---",
            "[Favourites and recents]",
            "✓ orders-primary · 15432",
            "✓ bastion-fra · ends in 24 min",
            "✓ sessions-cache · connecting…",
            "· orders-staging",
            "warehouse · needs approval",
            "✓ billing · unhealthy",
            "Copy address > orders-primary, bastion-fra, sessions-cache, orders-staging, warehouse, billing",
            "---",
            "Connect favourites",
            "Disconnect all",
            "---",
            "Open Postern",
            "Lock",
            "Settings…",
            "---",
            "Quit…",
        ]
    );
}

#[test]
fn each_session_has_its_first_line_and_nothing_that_cannot_be_done() {
    let lines = |session| written(&menu(&facts(session)).items);
    assert_eq!(lines(Session::Starting), ["[Starting…]", "---", "Open Postern", "Settings…", "---", "Quit"]);
    assert_eq!(lines(Session::Away), ["[Service is away]", "---", "Open Postern", "Settings…", "---", "Quit"]);
    assert_eq!(
        lines(Session::SignedOut),
        ["[Signed out]", "---", "Sign in…", "Open Postern", "Settings…", "---", "Quit"]
    );
    assert_eq!(lines(Session::Locked), ["[Locked]", "---", "Unlock…", "Open Postern", "Settings…", "---", "Quit"]);
    assert_eq!(
        lines(Session::SignedIn { minutes_left: Some(9) }),
        ["[Sign-in ends in 9 min]", "Renew sign-in…", "---", "Open Postern", "Lock", "Settings…", "---", "Quit"]
    );
    assert_eq!(
        lines(Session::SignedIn { minutes_left: None }),
        ["[0 of 0 connected]", "---", "Open Postern", "Lock", "Settings…", "---", "Quit"]
    );
}

#[test]
fn a_tick_means_wanted_and_a_click_turns_it() {
    let mut facts = facts(Session::SignedIn { minutes_left: None });
    facts.resources = vec![entry("a", true, Note::Port(1)), entry("b", false, Note::None)];
    let actions: Vec<Action> = menu(&facts)
        .items
        .into_iter()
        .filter_map(|item| match item {
            Item::Check { action, .. } => Some(action),
            _ => None,
        })
        .collect();
    assert_eq!(
        actions,
        [Action::Toggle { id: "id-a".to_owned(), on: false }, Action::Toggle { id: "id-b".to_owned(), on: true }]
    );
}

#[test]
fn equal_states_give_equal_menus() {
    let one = facts(Session::SignedIn { minutes_left: None });
    assert_eq!(menu(&one), menu(&one.clone()));
}

#[test]
fn names_are_cut_and_cannot_break_a_line() {
    let mut facts = facts(Session::SignedIn { minutes_left: None });
    facts.resources = vec![entry(&"n".repeat(300), false, Note::None), entry("a\nb\u{7}", false, Note::None)];
    for line in written(&menu(&facts).items) {
        assert!(line.chars().count() < 120, "{line}");
        assert!(!line.contains(char::is_control), "{line}");
    }
}

#[test]
fn the_strongest_icon_wins() {
    assert_eq!(Icon::strongest([]), Icon::Connected);
    for (weaker, stronger) in Icon::ALL.iter().zip(&Icon::ALL[1..]) {
        assert_eq!(Icon::strongest([*stronger, *weaker]), *weaker);
    }
    assert_eq!(Icon::strongest([Icon::Update, Icon::Connecting]), Icon::Connecting);
}

#[test]
fn a_click_that_changes_nothing_leaves_a_tick_to_be_set_again() {
    let mut facts = facts(Session::SignedIn { minutes_left: None });
    facts.resources = vec![entry("orders", true, Note::Port(15432)), entry("wiki", false, Note::None)];
    let known = menu(&facts);
    let mut drawn = known.clone();
    drawn.click(&Action::Toggle { id: "id-wiki".to_owned(), on: true });
    assert!(written(&drawn.items).contains(&"✓ wiki".to_owned()), "{:?}", written(&drawn.items));
    assert_ne!(drawn, known, "it is drawn again from the state that is known");
    // What has no tick stays as it is drawn, and so do entries of a menu that is gone.
    let mut drawn = known.clone();
    drawn.click(&Action::Lock);
    drawn.click(&Action::Toggle { id: "id-wiki".to_owned(), on: false });
    assert_eq!(drawn, known);
}
