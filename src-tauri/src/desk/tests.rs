use postern_local_api::{
    client::ClientError,
    message::{CheckGroup, ControlLink, DoctorLine, Event, ResourceState as State, Status},
    proto::time::UnixMillis,
};

use super::*;
use crate::{
    service::mock::scenario::Scenario,
    tray::{icon::Icon, menu::Session},
    view::{DoctorState, Severity, SignIn as Shown, Theme, Tray, Verdict, tests::keep},
};

/// 2025-11-21, 11:31 UTC: the day of the design.
const NOW: u64 = 1_763_724_660_000;

fn desktop() -> Desktop {
    Desktop {
        version: "0.1.0".to_owned(),
        system: "linux".to_owned(),
        languages: vec!["en".to_owned(), "de".to_owned()],
        system_language: "en".to_owned(),
        system_dark: None,
        tray: Tray::Shown,
        notifications: true,
        tools: crate::tool::installed(&|name| Some(name.into())),
        settings_file: "~/.config/postern/desktop.json".to_owned(),
        socket: "/run/user/1000/postern/posternd.sock".to_owned(),
        mock: None,
    }
}

fn empty() -> Desk {
    Desk::new(Stored::default(), desktop())
}

fn event(event: Event) -> Heard {
    Heard::Event(Box::new(event))
}

fn snapshot(status: Status) -> Heard {
    event(Event::Snapshot { status: Box::new(status) })
}

/// A desk that shows a scenario, and has told the window all of it.
fn desk(scenario: &str) -> Desk {
    let mut desk = empty();
    desk.hear(NOW, snapshot(Scenario::of(scenario).unwrap().status(NOW)));
    desk.take_changes(NOW);
    desk
}

fn id_of(desk: &Desk, name: &str) -> ResourceId {
    *desk.held.iter().find(|(_, held)| held.status.resource.name == name).unwrap().0
}

fn changed(desk: &Desk, name: &str, change: impl FnOnce(&mut ResourceStatus)) -> Heard {
    let mut status = desk.status_of(id_of(desk, name)).unwrap().clone();
    change(&mut status);
    event(Event::ResourceChanged { resource: Box::new(status) })
}

#[test]
fn a_window_gets_everything_first_and_then_only_what_changed() {
    let mut desk = empty();
    desk.hear(NOW, snapshot(Scenario::of("40").unwrap().status(NOW)));
    let changes = desk.take_changes(NOW);
    let [Change::View { view }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(view.rows.len(), 40);
    assert!(view.rows.is_sorted_by(|a, b| a.name <= b.name));
    assert!(!desk.has_changes());
    let heard = changed(&desk, "grafana", |status| status.streams = 9);
    desk.hear(NOW, heard);
    let changes = desk.take_changes(NOW);
    let [Change::RowsChanged { rows }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((rows.len(), rows[0].name.as_str(), rows[0].streams), (1, "grafana", 9));
}

#[test]
fn many_changes_of_one_resource_are_told_once() {
    let mut desk = desk("40");
    for streams in 3..100 {
        let heard = changed(&desk, "grafana", |status| status.streams = streams);
        desk.hear(NOW, heard);
    }
    let changes = desk.take_changes(NOW);
    let [Change::RowsChanged { rows }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((rows.len(), rows[0].streams), (1, 99));
}

#[test]
fn what_is_said_again_is_no_change() {
    let mut desk = desk("40");
    let heard = changed(&desk, "grafana", |_| {});
    desk.hear(NOW, heard);
    assert!(!desk.has_changes());
}

#[test]
fn after_a_restart_of_the_service_only_differences_are_told() {
    let mut desk = desk("40");
    let lost = ClientError::NotRunning { socket: "/s".into() };
    desk.hear(NOW, Heard::Lost(lost));
    let changes = desk.take_changes(NOW);
    let [Change::Service { service }] = &changes[..] else { panic!("{changes:?}") };
    assert!(matches!(service.link, Link::Gone { .. }));
    let mut status = Scenario::of("40").unwrap().status(NOW);
    let gone = status.resources.remove(0).resource.id;
    desk.hear(NOW + 900, snapshot(status));
    let changes = desk.take_changes(NOW + 900);
    let [Change::Service { service }, Change::RowsRemoved { ids }] = &changes[..] else { panic!("{changes:?}") };
    assert!(matches!(service.link, Link::Connected { .. }));
    assert_eq!(*ids, [gone.to_string()]);
}

#[test]
fn a_service_that_is_being_started_is_not_gone() {
    let mut desk = empty();
    desk.hear(NOW, Heard::Lost(ClientError::NotRunning { socket: "/s".into() }));
    assert_eq!(desk.view(NOW).service.link, Link::Starting);
}

#[test]
fn a_refusal_reads_as_sentences_and_names_the_field_to_blame() {
    let refusal =
        postern_local_api::proto::problem::Problem::new(401, "login_failed", "E-mail address or password is not right")
            .with_detail("4 tries are left");
    let problem = problem(&ClientError::Refused(refusal));
    assert_eq!(problem.what, "E-mail address or password is not right.");
    assert_eq!(problem.why, "4 tries are left.");
    assert_eq!(problem.field.as_deref(), Some("password"));
}

#[test]
fn a_service_of_another_version_is_told_as_such() {
    let mut desk = empty();
    desk.hear(NOW, Heard::Refused(ClientError::VersionMismatch { ours: 1, theirs: 0, service: Some("0.0.9".into()) }));
    let Link::Refused { problem } = desk.view(NOW).service.link else { panic!("it is refused") };
    assert_eq!(problem.code, "versions_differ");
    assert_eq!(problem.what, "The service is older than this window.");
}

#[test]
fn a_reload_gets_everything_again() {
    let mut desk = desk("40");
    let heard = changed(&desk, "grafana", |status| status.streams = 9);
    desk.hear(NOW, heard);
    desk.go(Place::Settings);
    desk.tell_all();
    let changes = desk.take_changes(NOW);
    assert!(matches!(&changes[..], [Change::View { .. }, Change::Go { place: Place::Settings }]), "{changes:?}");
}

#[test]
fn ten_thousand_resources_are_told_at_once_and_then_one_by_one() {
    let mut desk = desk("10000");
    assert_eq!(desk.view(NOW).rows.len(), 10_000);
    let heard = changed(&desk, "grafana", |status| status.streams = 9);
    desk.hear(NOW, heard);
    let changes = desk.take_changes(NOW);
    assert!(matches!(&changes[..], [Change::RowsChanged { rows }] if rows.len() == 1));
    let all = desk.ids(&Which::All);
    for id in all {
        let mut status = desk.status_of(id).unwrap().clone();
        status.streams += 1;
        desk.hear(NOW, event(Event::ResourceChanged { resource: Box::new(status) }));
    }
    assert!(matches!(&desk.take_changes(NOW)[..], [Change::View { .. }]), "many rows at once are a view");
}

#[test]
fn favourites_and_recents_have_places() {
    let mut desk = desk("40");
    let [grafana, wiki] = ["grafana", "wiki"].map(|name| id_of(&desk, name));
    desk.set_favourite(wiki, true);
    desk.set_favourite(grafana, true);
    desk.order_favourites(&[grafana.to_string()]);
    desk.touch(NOW + 1, wiki);
    let rows = desk.view(NOW).rows;
    let row = |id: ResourceId| rows.iter().find(|row| row.id == id.to_string()).unwrap();
    assert_eq!((row(grafana).favourite, row(wiki).favourite), (Some(0), Some(1)));
    assert_eq!(row(wiki).recent, Some(0));
    assert!(desk.take_stored().is_some(), "it is kept");
    assert!(desk.take_stored().is_none(), "once");
}

#[test]
fn use_by_way_of_the_service_makes_a_recent_too() {
    let mut desk = desk("40");
    let heard = changed(&desk, "wiki", |status| status.last_used = Some(UnixMillis(NOW + 5)));
    desk.hear(NOW + 5, heard);
    let rows = desk.view(NOW).rows;
    assert_eq!(rows.iter().find(|row| row.name == "wiki").unwrap().recent, Some(0));
}

#[test]
fn what_another_client_switches_on_is_a_recent_and_in_the_tray() {
    let mut desk = desk("40");
    let heard = changed(&desk, "wiki", |status| {
        status.wanted = true;
        status.state = State::Connected;
    });
    desk.hear(NOW + 5, heard);
    let first = desk.tray(NOW + 5).resources.into_iter().next().unwrap();
    assert_eq!((first.name.as_str(), first.wanted), ("wiki", true));
    let heard = changed(&desk, "wiki", |status| status.wanted = false);
    desk.hear(NOW + 6, heard);
    assert_eq!(desk.tray(NOW + 6).resources.first().map(|entry| entry.name.clone()), Some("wiki".to_owned()));
}

#[test]
fn a_link_only_ever_asks() {
    let mut desk = desk("40");
    desk.link_asks("wiki".to_owned());
    let Some(Question::Link { id, state, .. }) = desk.question() else { panic!("it asks") };
    assert_eq!(*id, Some(id_of(&desk, "wiki").to_string()));
    assert_eq!(*state, Some(crate::view::ResourceState::Off));
    assert!(!desk.status_of(id_of(&desk, "wiki")).unwrap().wanted, "nothing is done");
    desk.link_asks("nobody".to_owned());
    assert!(matches!(desk.question(), Some(Question::Link { id: None, .. })));
}

#[test]
fn a_link_that_comes_before_the_service_waits_for_it() {
    let mut desk = empty();
    desk.link_asks("wiki".to_owned());
    assert_eq!(desk.question(), None);
    desk.hear(NOW, snapshot(Scenario::of("40").unwrap().status(NOW)));
    assert!(matches!(desk.question(), Some(Question::Link { id: Some(_), .. })));
}

#[test]
fn a_link_waits_for_the_sign_in() {
    let mut desk = desk("signed-out");
    desk.link_asks("wiki".to_owned());
    assert_eq!(desk.question(), None);
    assert!(matches!(&desk.take_changes(NOW)[..], [Change::Notice { .. }]), "it is said");
    let status = Scenario::of("40").unwrap().status(NOW);
    desk.hear(NOW, event(Event::Service { status: Box::new(status.clone()) }));
    assert_eq!(desk.question(), None, "its resource is not there yet");
    for resource in status.resources {
        desk.hear(NOW, event(Event::ResourceChanged { resource: Box::new(resource) }));
    }
    assert!(matches!(desk.question(), Some(Question::Link { id: Some(_), .. })));
}

#[test]
fn locking_remembers_when_and_what_it_closed() {
    let mut desk = desk("40");
    desk.hear(NOW + 7, event(Event::Service { status: Box::new(Scenario::Locked.status(NOW)) }));
    let Shown::Locked { since, closed, .. } = desk.view(NOW).service.sign_in else { panic!("it is locked") };
    assert_eq!(since, Some(NOW + 7));
    assert!(closed.unwrap() > 0);
}

#[test]
fn when_it_was_locked_before_the_app_began_is_not_known() {
    let mut desk = empty();
    desk.hear(NOW, event(Event::Service { status: Box::new(Scenario::Locked.status(NOW)) }));
    let Shown::Locked { since, closed, .. } = desk.view(NOW).service.sign_in else { panic!("it is locked") };
    assert_eq!((since, closed), (None, None));
}

#[test]
fn address_and_email_are_remembered_for_the_next_sign_in() {
    let mut desk = desk("40");
    desk.hear(NOW, event(Event::Service { status: Box::new(Scenario::SignedOut.status(NOW)) }));
    let Shown::SignedOut { address, email } = desk.view(NOW).service.sign_in else { panic!("it is signed out") };
    assert_eq!(address.as_deref(), Some("https://northwind.postern.example"));
    assert_eq!(email.as_deref(), Some("mara@northwind.example"));
}

#[test]
fn who_never_signed_in_is_shown_the_address_that_the_service_was_started_with() {
    let mut desk = desk("40");
    let url = "https://other.example:8443".to_owned();
    let status = Status { control: ControlLink::Known { url: url.clone() }, ..Scenario::SignedOut.status(NOW) };
    desk.hear(NOW, event(Event::Service { status: Box::new(status) }));
    let Shown::SignedOut { address, .. } = desk.view(NOW).service.sign_in else { panic!("it is signed out") };
    assert_eq!(address.as_ref(), Some(&url));
    assert!(desk.check_address(&url).known, "the service has its certificate");
    assert!(!desk.check_address("https://third.example").known);
}

#[test]
fn the_names_under_a_wildcard_are_told_beside_the_address_that_stands_for_them() {
    let mut desk = desk("network");
    let id = id_of(&desk, "grafana");
    let heard = changed(&desk, "grafana", |status| status.virtual_name = Some("*.kafka.northwind".to_owned()));
    desk.hear(NOW, heard);
    let port = desk.status_of(id).unwrap().resource.bind.port;
    let addresses = desk.details(NOW, id, &[]).unwrap().addresses;
    assert!(addresses[0].starts_with("100."), "one that can be used: {addresses:?}");
    assert!(addresses.contains(&format!("*.kafka.northwind:{port}")), "{addresses:?}");
}

#[test]
fn the_traffic_of_ten_minutes_is_kept() {
    let mut desk = desk("40");
    let id = id_of(&desk, "grafana");
    for step in 1..=100_u64 {
        let heard = changed(&desk, "grafana", |status| status.bytes_up += 10);
        desk.hear(NOW + step * 10_000, heard);
    }
    let traffic = desk.details(NOW + 1_000_000, id, &[]).unwrap().traffic;
    assert_eq!((traffic.up.len(), traffic.up.iter().sum::<u64>()), (60, 600));
    let later = desk.details(NOW + 100_000_000, id, &[]).unwrap().traffic;
    assert!(later.up.is_empty(), "nothing of late");
}

#[test]
fn a_port_is_looked_at_before_it_is_asked_for() {
    let desk = desk("40");
    let id = id_of(&desk, "wiki");
    let verdict = |port: u16, free: bool| desk.check_port(id, port, &|_, _| free).unwrap();
    let code = |verdict: &crate::view::PortVerdict| verdict.problem.as_ref().map(|problem| problem.code.clone());
    assert_eq!(code(&verdict(18_500, true)), None);
    assert_eq!(code(&verdict(18_500, false)).as_deref(), Some("port_taken"));
    assert_eq!(code(&verdict(80, true)).as_deref(), Some("port_range"));
    assert_eq!(code(&verdict(65_001, true)).as_deref(), Some("port_range"));
    let grafana = verdict(18_300, true);
    assert_eq!(grafana.problem.unwrap().why, "grafana has it.");
    assert_eq!(grafana.free, [18_301, 18_302, 18_080]);
    assert_eq!(code(&verdict(18_080, false)), None, "its own port is taken by itself");
}

#[test]
fn the_doctor_is_told_check_by_check() {
    let mut desk = desk("40");
    assert!(desk.doctor_begins(NOW));
    assert!(!desk.doctor_begins(NOW), "one run at a time");
    let started = |id: &str| DoctorLine::Started { id: id.into(), title: id.into(), group: CheckGroup::Gateways };
    desk.doctor_says(started("a"));
    desk.doctor_says(started("b"));
    desk.doctor_ends(NOW + 5, Err(None));
    let doctor = desk.view(NOW).doctor.unwrap();
    assert_eq!(doctor.state, DoctorState::Stopped);
    assert_eq!(doctor.groups[0].title, "Gateways");
    assert!(doctor.groups[0].checks.iter().all(|check| check.verdict == Verdict::Waiting));
    desk.doctor_says(started("c"));
    assert_eq!(desk.view(NOW).doctor.unwrap().groups[0].checks.len(), 2, "late lines are not taken");
    assert!(desk.doctor_begins(NOW + 9));
}

#[test]
fn the_tray_follows_the_state() {
    let session = |scenario: &str| desk(scenario).tray(NOW).session;
    assert_eq!(empty().tray(NOW).session, Session::Starting);
    assert_eq!(session("signed-out"), Session::SignedOut);
    assert_eq!(session("locked"), Session::Locked);
    assert_eq!(session("0"), Session::SignedIn { minutes_left: None });
    assert_eq!(session("expiring"), Session::SignedIn { minutes_left: Some(10) });
    let mut gone = desk("40");
    gone.hear(NOW, Heard::Lost(ClientError::NotRunning { socket: "/s".into() }));
    assert_eq!((gone.tray(NOW).session, gone.tray(NOW).icon), (Session::Away, Icon::Error));
}

#[test]
fn the_icon_is_that_of_the_worst_state() {
    let icon = |scenario: &str| desk(scenario).tray(NOW).icon;
    assert_eq!(icon("0"), Icon::Connected);
    assert_eq!(icon("signed-out"), Icon::SignedOut);
    assert_eq!(icon("locked"), Icon::SignedOut);
    assert_eq!(icon("errors"), Icon::Error);
    assert_eq!(icon("40"), Icon::Expiring, "bastion-fra ends");
    let mut desk = desk("40");
    let heard = changed(&desk, "bastion-fra", |status| status.state = State::Connected);
    desk.hear(NOW, heard);
    assert_eq!(desk.tray(NOW).icon, Icon::Degraded);
}

#[test]
fn connecting_is_shown_only_when_it_lasts() {
    let mut desk = empty();
    let mut status = Scenario::of("40").unwrap().status(NOW);
    status.resources.retain(|one| one.resource.name == "sessions-cache");
    desk.hear(NOW, snapshot(status));
    assert_eq!(desk.tray(NOW + 399).icon, Icon::Connected);
    assert_eq!(desk.next_wake(NOW), Some(NOW + 400));
    assert_eq!(desk.tray(NOW + 400).icon, Icon::Connecting);
}

#[test]
fn when_nothing_happens_nothing_is_due() {
    let mut desk = empty();
    let mut status = Scenario::of("40").unwrap().status(NOW);
    status.resources.retain(|one| one.state == State::Connected);
    desk.hear(NOW, snapshot(status));
    desk.watch().due(NOW + 60_000, &[], crate::words::Language::English);
    let next = desk.next_wake(NOW + 60_000).unwrap();
    assert!(next > NOW + 3_600_000, "the next thing is the end of the sign-in: {} ms", next - NOW);
}

#[test]
fn settings_are_told_and_kept_when_they_change() {
    let mut desk = desk("40");
    let settings = Settings { theme: Theme::Dark, ..desk.settings().clone() };
    desk.set_settings(settings.clone());
    assert!(matches!(&desk.take_changes(NOW)[..], [Change::Settings { settings: told }] if **told == settings));
    assert!(desk.take_stored().is_some());
    desk.set_settings(settings);
    assert!(!desk.has_changes());
}

#[test]
fn a_command_reaches_only_resources_that_are_there() {
    let desk = desk("40");
    let wiki = id_of(&desk, "wiki").to_string();
    let ids = vec![wiki.clone(), "res_01JABCDEFGHJKMNPQRSTVWXY00".to_owned(), "nonsense".to_owned()];
    let chosen: Vec<String> = desk.ids(&Which::Ids { ids }).iter().map(ToString::to_string).collect();
    assert_eq!(chosen, [wiki]);
}

#[test]
fn a_report_holds_what_an_admin_needs() {
    let desk = desk("40");
    let report = desk.report(id_of(&desk, "billing-replica")).unwrap();
    for word in ["billing-replica (mysql)", "unhealthy", "target_refused", "127.0.0.1:13306", "2025-11-21T11:29:00Z"] {
        assert!(report.contains(word), "{word}: {report}");
    }
}

#[test]
fn every_fault_that_is_shown_says_what_and_what_to_do() {
    for (word, scenario) in Scenario::all() {
        let view = desk_of(scenario).view(NOW);
        for item in view.service.health {
            assert!(!item.problem.what.is_empty() && !item.problem.remedy.is_empty(), "{word}: {item:?}");
            assert!(item.severity >= Severity::Info);
        }
        for row in view.rows.iter().filter(|row| row.state == crate::view::ResourceState::Unhealthy) {
            assert!(row.trouble.is_some(), "{word}: {row:?}");
        }
    }
}

fn desk_of(scenario: Scenario) -> Desk {
    let mut stored = Stored::default();
    crate::service::mock::scenario::favour(&mut stored);
    let mut desk = Desk::new(stored, desktop());
    match scenario.refusal() {
        Some(error) => desk.hear(NOW, Heard::Refused(error)),
        None => desk.hear(NOW, snapshot(scenario.status(NOW))),
    }
    if scenario == Scenario::ServiceGone {
        let socket = "/run/user/1000/postern/posternd.sock".into();
        desk.hear(NOW + 300, Heard::Lost(ClientError::NotRunning { socket }));
    }
    desk
}

#[test]
fn the_fixtures_of_the_front_end_are_what_the_app_would_send() {
    for (word, scenario) in Scenario::all() {
        let text = serde_json::to_string(&desk_of(scenario).view(NOW)).unwrap();
        // A row on a line, so that a change of one is seen as such.
        let text = text.replace("{\"id\":", "\n{\"id\":");
        keep(&format!("fixtures/{word}.json"), &format!("{text}\n"));
    }
}
