use std::time::Duration;

use postern_local_api::message::{Hop, Route};
use postern_proto::{
    id::ResourceId,
    port::PortSet,
    resource::{BindAddress, ClientResource, Kind, Tags},
};

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn listening() -> ResourceStatus {
    let bind = BindAddress::loopback([127, 0, 0, 1].into(), 15432);
    let mut status = ResourceStatus::off(ClientResource {
        id: ResourceId::from_ulid(1.into()),
        name: "orders".to_owned(),
        kind: Kind::Postgres,
        tags: Tags::new(),
        bind,
        ports: PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Healthy,
    });
    status.wanted = true;
    status.connection = Connection::Listening { address: "127.0.0.1:15432".parse().unwrap() };
    status
}

fn look(status: &ResourceStatus) -> Look<'_> {
    Look {
        status,
        failure: None,
        gateway: Some("gw-1".to_owned()),
        denied: false,
        reach: Reach::Up,
        control_away: false,
        lease_issued: None,
        known: None,
        now: NOW,
    }
}

fn refused(code: &str, times: u32) -> Failure {
    let end = FailedEnd::Refused(Problem::new(502, code, "It was refused"));
    Failure { end, gateway: None, at: UnixMillis(NOW.0 - 1000), times }
}

#[track_caller]
fn stands(look: &Look<'_>, state: ResourceState, code: Option<&str>) -> Standing {
    let standing = judge(look);
    assert_eq!(standing.state, state);
    assert_eq!(standing.trouble.as_ref().map(|found| found.cause.code().to_owned()), code.map(str::to_owned));
    standing
}

#[test]
fn what_is_not_wished_is_off_and_what_is_on_its_way_connects() {
    let mut status = listening();
    stands(&look(&status), ResourceState::Connected, None);
    status.connection = Connection::Disconnected;
    stands(&look(&status), ResourceState::Connecting, None);
    status.connection = Connection::Suspended;
    stands(&look(&status), ResourceState::Locked, None);
    (status.wanted, status.connection) = (false, Connection::Disconnected);
    let failure = refused("target_refused", 3);
    stands(&Look { failure: Some(&failure), ..look(&status) }, ResourceState::Off, None);
}

#[test]
fn a_port_that_somebody_holds_is_told_with_the_next_try() {
    let mut status = listening();
    let (address, retry_at) = ("127.0.0.1:15432".parse().unwrap(), NOW.plus(Duration::from_secs(14)));
    status.connection = Connection::PortInUse { address, holder: None, retry_at };
    let standing = stands(&look(&status), ResourceState::Unhealthy, Some("port_taken"));
    assert_eq!(standing.trouble.unwrap().retry_at, Some(retry_at));
    // What is never tried again has no next try, and what lasts keeps its beginning.
    let never = NOW.plus(Duration::from_secs(300 * 86_400));
    status.connection = Connection::Failed { address, error: "no".to_owned(), retry_at: never };
    let known = Look { known: Some(("address_failed", UnixMillis(7))), ..look(&status) };
    let found = stands(&known, ResourceState::Unhealthy, Some("address_failed")).trouble.unwrap();
    assert_eq!((found.retry_at, found.at), (None, UnixMillis(7)));
}

#[test]
fn one_answer_of_the_target_counts_and_an_accident_counts_from_the_second() {
    let status = listening();
    let with = |failure: &Failure, state, code| {
        stands(&Look { failure: Some(failure), ..look(&status) }, state, Some(code));
    };
    with(&refused("target_refused", 1), ResourceState::Unhealthy, "target_refused");
    with(&refused("target_timed_out", 1), ResourceState::Unhealthy, "target_timeout");
    with(&refused("step_up", 1), ResourceState::NeedsApproval, "step_up");
    let broken = |times| Failure { end: FailedEnd::Broken("it broke".to_owned()), ..refused("", times) };
    with(&broken(1), ResourceState::Connected, "connection_lost");
    with(&broken(2), ResourceState::Unhealthy, "connection_lost");
}

#[test]
fn what_is_known_to_be_mended_is_not_told_any_more() {
    let status = listening();
    let away = refused("gateway_unreachable", 4);
    stands(&Look { failure: Some(&away), ..look(&status) }, ResourceState::Connected, None);
    let denied = Failure { end: FailedEnd::Refused(Problem::new(403, "no_lease", "No")), ..refused("", 1) };
    let old = Look { failure: Some(&denied), denied: true, lease_issued: Some(UnixMillis(5)), ..look(&status) };
    stands(&old, ResourceState::Unhealthy, Some("denied"));
    stands(&Look { lease_issued: Some(NOW), denied: false, ..old }, ResourceState::Connected, None);
}

#[test]
fn gateways_that_do_not_answer_are_named() {
    let status = listening();
    let reach = Reach::Away { gateways: vec!["gw-iad-1".to_owned()], error: "timed out".to_owned(), retry_at: NOW };
    let found = stands(&Look { reach, ..look(&status) }, ResourceState::Unhealthy, Some("gateway_away"));
    let why = found.trouble.unwrap().cause.explain().why;
    assert_eq!(why, "gw-iad-1 does not answer and no other gateway leads there.");
    stands(&Look { reach: Reach::NoGateway, ..look(&status) }, ResourceState::Unhealthy, Some("no_gateway"));
}

#[test]
fn an_access_that_ends_soon_is_expiring_and_a_slow_way_is_degraded() {
    let mut status = listening();
    status.grant_ends = Some(NOW.plus(Duration::from_secs(31 * 60)));
    stands(&look(&status), ResourceState::Connected, None);
    status.grant_ends = Some(NOW.plus(Duration::from_secs(29 * 60)));
    stands(&look(&status), ResourceState::Expiring, None);
    status.grant_ends = None;
    let hop = Hop { name: "gw-1".to_owned(), latency_micros: Some(412_000), up: true };
    status.route = Some(Route { hops: vec![hop] });
    let found = stands(&look(&status), ResourceState::Degraded, Some("slow"));
    assert!(found.trouble.unwrap().cause.explain().why.contains("412"));
    let code = Some("target_unroutable".to_owned());
    status.resource.health = Health::Unhealthy { error: "no way leads there".to_owned(), code };
    stands(&look(&status), ResourceState::Unhealthy, Some("target_unroutable"));
    status.resource.health = Health::unhealthy("connection refused");
    stands(&look(&status), ResourceState::Unhealthy, Some("target_unhealthy"));
}
