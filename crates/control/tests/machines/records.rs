use std::collections::BTreeMap;

use axum::http::Method;
use postern_proto::{
    api::{DeviceEvent, DeviceEventKind, DeviceEvents, RecordAck, RecordBatch},
    id::{NodeId, ResourceId, StreamId},
    problem::Problem,
    record::{EndReason, Event, GENESIS, Preparation, Record, SessionEnd, SessionStart, Settlement, StreamRefused},
    time::UnixMillis,
};
use serde_json::Value;

use crate::support::{Device, Machine, World};

const PATH: &str = "/api/v1/nodes/records";

/// A gateway's chain.
struct Chain {
    node: NodeId,
    records: Vec<Record>,
}

impl Chain {
    fn new(node: NodeId) -> Self {
        Self { node, records: Vec::new() }
    }

    fn add(&mut self, event: Event) -> &Record {
        let previous = self.records.last().map_or(GENESIS, |record| &record.hash).to_owned();
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record::link(seq, self.node, UnixMillis(1_790_000_000_000 + seq), event, &previous));
        self.records.last().unwrap()
    }

    fn session(&mut self, device: &Device, resource: ResourceId, stream: StreamId) {
        self.add(start(device, resource, stream));
        self.add(end(stream));
    }
}

fn stream(n: u64) -> StreamId {
    StreamId::from_ulid(ulid::Ulid::from_parts(n, 7))
}

fn start(device: &Device, resource: ResourceId, stream: StreamId) -> Event {
    Event::Start(SessionStart {
        stream,
        account: device.given.account.id,
        device: device.given.device,
        resource,
        resource_name: "db then".to_owned(),
        resource_tags: BTreeMap::from([("env".to_owned(), "then".to_owned())]),
        grant: "rol_x".to_owned(),
        client: "192.0.2.1:4000".parse().unwrap(),
        target: "db.example:5432".to_owned(),
        prepared: None,
    })
}

fn end(stream: StreamId) -> Event {
    Event::End(SessionEnd {
        stream,
        dialled: Some("192.0.2.7:5432".parse().unwrap()),
        bytes_up: 10,
        bytes_down: 20,
        reason: EndReason::Closed,
        detail: None,
    })
}

async fn send(gateway: &Machine, records: &[Record]) -> Result<RecordAck, Problem> {
    gateway.post(PATH, &RecordBatch { records: records.to_vec() }).await
}

/// An administrator's device, a gateway and a resource.
async fn world() -> (World, Device, Machine, ResourceId) {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    let resource = world.create_resource("db").await;
    let (device, gateway) = (world.sign_in("ada@example.org").await, world.enrol_gateway("gw").await);
    (world, device, gateway, resource)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_joined_from_its_records_and_sent_twice_it_is_there_once() {
    let (world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    chain.session(&device, resource, stream(1));
    chain.add(start(&device, resource, stream(2)));
    assert_eq!(gateway.get::<RecordAck>(PATH).await.unwrap(), RecordAck { stored: 0, hash: GENESIS.to_owned() });
    let ack = send(&gateway, &chain.records[..1]).await.unwrap();
    assert_eq!((ack.stored, &ack.hash), (1, &chain.records[0].hash));
    for _ in 0..2 {
        let ack = send(&gateway, &chain.records).await.unwrap();
        assert_eq!((ack.stored, &ack.hash), (3, &chain.records[2].hash));
    }
    assert_eq!(gateway.get::<RecordAck>(PATH).await.unwrap().stored, 3);
    world.update_account(device.given.account.id, |account| account.email = "eve@example.org".parse().unwrap()).await;

    let page: Value = device.get("/api/v1/sessions").await.unwrap();
    let [open, ended] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((open["id"].as_str(), &open["ended_at"]), (Some(&*stream(2).to_string()), &Value::Null));
    for (field, value) in [
        ("id", stream(1).to_string()),
        ("account_email", "ada@example.org".to_owned()),
        ("device_name", "laptop".to_owned()),
        ("resource", resource.to_string()),
        ("resource_name", "db then".to_owned()),
        ("node", gateway.given.to_string()),
        ("node_name", "gw".to_owned()),
        ("grant", "rol_x".to_owned()),
        ("target", "db.example:5432".to_owned()),
        ("dialled", "192.0.2.7:5432".to_owned()),
        ("reason", "closed".to_owned()),
    ] {
        assert_eq!(ended[field], value, "{field}");
    }
    assert_eq!((&ended["bytes_up"], &ended["bytes_down"]), (&10.into(), &20.into()));
    assert_eq!(ended["resource_tags"]["env"], "then");
    let found: Value = device.get("/api/v1/sessions?filter=tags:env=then%20state:open%20email:ada*").await.unwrap();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(device.get::<Value>(&format!("/api/v1/sessions/{}", stream(1))).await.unwrap(), *ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_comes_twice_is_two_sessions() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    chain.session(&device, resource, stream(1));
    chain.session(&device, resource, stream(1));
    send(&gateway, &chain.records).await.unwrap();
    let page: Value = device.get("/api/v1/sessions?filter=state:ended").await.unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_end_ends_the_oldest_open_session_of_its_stream_whatever_comes_in_one_batch() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    // An end without a beginning does not end what begins later.
    chain.add(end(stream(9)));
    for n in [1, 2, 1, 1] {
        chain.add(start(&device, resource, stream(n)));
    }
    chain.add(end(stream(1)));
    chain.add(end(stream(2)));
    chain.add(end(stream(1)));
    let first = chain.records.len();
    chain.add(start(&device, resource, stream(9)));
    chain.add(end(stream(1)));
    send(&gateway, &chain.records[..first]).await.unwrap();
    send(&gateway, &chain.records[first..]).await.unwrap();
    let page: Value = device.get("/api/v1/sessions").await.unwrap();
    let sessions = page["items"].as_array().unwrap();
    let mut ends: Vec<_> = sessions.iter().map(|it| (it["started_at"].clone(), it["ended_at"].clone())).collect();
    ends.sort_by_key(|(started, _)| started.to_string());
    let at = |seq: usize| serde_json::to_value(chain.records[seq - 1].at).unwrap();
    let expected = [(2, Some(6)), (3, Some(7)), (4, Some(8)), (5, Some(10)), (9, None)];
    let expected: Vec<_> = expected.map(|(start, end)| (at(start), end.map_or(Value::Null, at))).into();
    assert_eq!(ends, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chain_is_refused_and_nothing_of_its_batch_is_stored() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    for n in 1..=3 {
        chain.session(&device, resource, stream(n));
    }
    let good = chain.records.clone();
    send(&gateway, &good[..2]).await.unwrap();
    let code = |answer: Result<RecordAck, Problem>| answer.unwrap_err().code;
    assert_eq!(code(send(&gateway, &good[3..]).await), "chain_broken");
    let mut moved = good.clone();
    moved.swap(3, 4);
    assert_eq!(code(send(&gateway, &moved).await), "chain_broken");
    let mut changed = good.clone();
    changed[4].at = UnixMillis(1);
    assert_eq!(code(send(&gateway, &changed).await), "chain_broken");
    let mut forked = Chain::new(gateway.given);
    forked.session(&device, resource, stream(9));
    assert_eq!(code(send(&gateway, &forked.records).await), "chain_forked");
    assert_eq!(gateway.get::<RecordAck>(PATH).await.unwrap().stored, 2);
    assert_eq!(send(&gateway, &good).await.unwrap().stored, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_only_its_own_records() {
    let (world, device, gateway, resource) = world().await;
    let other = world.enrol_gateway("other").await;
    let mut chain = Chain::new(gateway.given);
    chain.session(&device, resource, stream(1));
    assert_eq!(send(&other, &chain.records).await.unwrap_err().code, "foreign_record");
    let refused = device.post::<RecordAck>(PATH, &RecordBatch { records: chain.records }).await.unwrap_err();
    assert_eq!(refused.code, "other_certificate");
    assert_eq!(gateway.get::<RecordAck>(PATH).await.unwrap().stored, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_large_records_fit_into_one_batch_and_more_do_not() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    for n in 1..=501 {
        let Event::Start(mut large) = start(&device, resource, stream(n)) else { unreachable!() };
        large.resource_tags = (0..20).map(|n| (format!("key-{n}"), "v".repeat(128))).collect();
        chain.add(Event::Start(large));
        chain.add(end(stream(n)));
    }
    assert!(serde_json::to_vec(&chain.records[..1000]).unwrap().len() > 1 << 20);
    assert_eq!(send(&gateway, &chain.records).await.unwrap_err().code, "too_many_records");
    assert_eq!(send(&gateway, &chain.records[..1000]).await.unwrap().stored, 1000);
    assert_eq!(send(&gateway, &chain.records[900..]).await.unwrap().stored, 1002);

    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let page: Value = device.get(&format!("/api/v1/sessions?limit=100{cursor}")).await.unwrap();
        seen += page["items"].as_array().unwrap().len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, 501);
    let export = device.client.request(Method::GET, "/api/v1/sessions/export", None).await.unwrap();
    let lines: Vec<Value> = export
        .body
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 501);
    assert_eq!(lines[0]["id"], stream(1).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_names_the_first_record_that_was_touched() {
    let (world, device, gateway, resource) = world().await;
    let other = world.enrol_gateway("other").await;
    for machine in [&gateway, &other] {
        let mut chain = Chain::new(machine.given);
        for n in 1..=3 {
            chain.session(&device, resource, stream(n));
        }
        send(machine, &chain.records).await.unwrap();
    }
    let verify = async || device.get::<Value>("/api/v1/audit/verify").await.unwrap();
    let sound = verify().await;
    assert_eq!(sound["ok"], true);
    assert_eq!(sound["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(sound["nodes"][0]["records"], 6);
    assert_eq!(device.post::<Value>("/api/v1/audit/verify", &serde_json::json!({})).await.unwrap(), sound);

    let touch = async |statement: &'static str| {
        let mut append = world.state().store.append().await.unwrap();
        postern_control::sql::query(statement)
            .bind(gateway.given.to_string())
            .execute(append.connection())
            .await
            .unwrap();
        append.commit().await.unwrap();
        let found = verify().await;
        assert_eq!(found["ok"], false, "{statement}");
        let node = found["nodes"].as_array().unwrap().iter().find(|node| node["node"] == gateway.given.to_string());
        assert_eq!(found["nodes"].as_array().unwrap().iter().filter(|node| node["ok"] == true).count(), 1);
        node.unwrap()["broken"]["seq"].as_u64().unwrap()
    };
    let cut = "DELETE FROM session_record WHERE node_id = $1 AND seq = 6";
    assert_eq!(touch(cut).await, 6);
    let swap = "UPDATE session_record SET record = replace(record, '\"bytes_up\":10', '\"bytes_up\":99')
        WHERE node_id = $1 AND seq = 4";
    assert_eq!(touch(swap).await, 4);
    let remove = "DELETE FROM session_record WHERE node_id = $1 AND seq = 2";
    assert_eq!(touch(remove).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_gateways_and_events_of_devices_are_activities() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    chain.add(Event::Refused(StreamRefused {
        stream: None,
        account: Some(device.given.account.id),
        device: Some(device.given.device),
        resource: Some(resource),
        client: "192.0.2.1:4000".parse().unwrap(),
        code: "denied".to_owned(),
        wanted: None,
    }));
    send(&gateway, &chain.records).await.unwrap();
    let bind = "127.0.0.1:2000".parse().unwrap();
    let what = DeviceEventKind::PeerRefused { resource, bind, uid: Some(1001), count: 3 };
    let allowed = DeviceEventKind::PeersAllowed { uids: vec![1002] };
    let events = [what, allowed].map(|what| DeviceEvent { at: UnixMillis(1_790_000_000_000), what });
    device.post::<()>("/api/v1/devices/events", &DeviceEvents { events: events.to_vec() }).await.unwrap();

    let page: Value = device.get("/api/v1/activities?limit=3").await.unwrap();
    let [allowed, refused, stream] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&stream["verb"], &stream["actor"]["name"]), (&"stream.refused".into(), &"gw".into()));
    assert_eq!((&stream["subject"]["name"], &stream["after"]["code"]), (&"db".into(), &"denied".into()));
    assert_eq!((&refused["verb"], &refused["after"]["uid"]), (&"device.peer_refused".into(), &1001.into()));
    assert_eq!(refused["after"]["device"], device.given.device.to_string());
    assert_eq!((&allowed["verb"], &allowed["after"]["uids"][0]), (&"device.peers_allowed".into(), &1002.into()));
    let many = DeviceEvents { events: vec![events[0].clone(); 1001] };
    assert_eq!(device.post::<()>("/api/v1/devices/events", &many).await.unwrap_err().status, 422);
    let flood = DeviceEvents { events: vec![events[0].clone(); 999] };
    assert_eq!(device.post::<()>("/api/v1/devices/events", &flood).await.unwrap_err().code, "too_many_events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preparation_is_no_session_and_what_a_dead_machine_leaves_unknown_is_an_activity() {
    let (_world, device, gateway, resource) = world().await;
    let mut chain = Chain::new(gateway.given);
    let Event::Start(first) = start(&device, resource, stream(1)) else { unreachable!() };
    let SessionStart { account, device: laptop, resource_name, resource_tags, grant, target, .. } = first.clone();
    let preparation = Preparation {
        account,
        device: laptop,
        resource,
        resource_name: resource_name.clone(),
        resource_tags,
        grant,
        target,
        sessions: 8,
        boot: "a".to_owned(),
    };
    chain.add(Event::Prepared(preparation.clone()));
    chain.add(Event::Start(SessionStart { prepared: Some(1), ..first }));
    chain.add(end(stream(1)));
    chain.add(Event::Prepared(preparation));
    for (prepared, unaccounted) in [(1, 0), (4, 7)] {
        let resource_name = resource_name.clone();
        let settlement = Settlement { prepared, account, device: laptop, resource, resource_name, unaccounted };
        chain.add(Event::Settled(settlement));
    }
    for _ in 0..2 {
        assert_eq!(send(&gateway, &chain.records).await.unwrap().stored, 6);
    }
    let sessions: Value = device.get("/api/v1/sessions").await.unwrap();
    let [session] = &sessions["items"].as_array().unwrap()[..] else { panic!("{sessions}") };
    assert_eq!((&session["reason"], &session["resource_name"]), (&"closed".into(), &"db then".into()));
    let page: Value = device.get("/api/v1/activities?filter=verb:sessions.unaccounted").await.unwrap();
    let [activity] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&activity["actor"]["name"], &activity["subject"]["name"]), (&"gw".into(), &"db then".into()));
    assert_eq!((&activity["after"]["unaccounted"], &activity["after"]["prepared"]), (&7.into(), &4.into()));
    assert_eq!(activity["after"]["device"], laptop.to_string());
    let verified: Value = device.get("/api/v1/audit/verify").await.unwrap();
    assert_eq!((&verified["ok"], &verified["nodes"][0]["records"]), (&true.into(), &6.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_on_demand_says_what_each_gateway_saw() {
    let (_world, device, gateway, resource) = world().await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let path = format!("/api/v1/resources/{resource}/check");
    let answering = async {
        let asked = |frame: &postern_proto::sync::ServerFrame| {
            *frame == postern_proto::sync::ServerFrame::CheckHealth { resource }
        };
        node.until(asked).await;
        let health = postern_proto::resource::Health::unhealthy("connection refused");
        let report =
            postern_proto::sync::HealthReport { resource, health, checked_at: UnixMillis(5), connect_micros: None };
        node.send(&postern_proto::sync::ClientFrame::Health { reports: vec![report] }).await;
    };
    let nothing = serde_json::json!({});
    let (checked, ()) = tokio::join!(device.post::<Value>(&path, &nothing), answering);
    let checked = checked.unwrap();
    assert_eq!((&checked["health"]["state"], &checked["gateways"][0]["name"]), (&"unhealthy".into(), &"gw".into()));
    let missing = format!("/api/v1/resources/{}/check", ResourceId::from_ulid(ulid::Ulid::from_parts(1, 1)));
    assert_eq!(device.post::<Value>(&missing, &serde_json::json!({})).await.unwrap_err().status, 404);
}
