//! The control plane away, and a control plane that talks nonsense.

use postern_node::catalogue::Catalogue;
use postern_proto::{
    id::OrgId,
    lease::{Revocation, RevokedSubject},
    record::EndReason,
    replica::Replica,
    sync::{Item, ServerFrame, VERSION, Welcome},
    time::UnixMillis,
};
use postern_tunnel::stream::EndCause;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::bench::{Bench, Running, Stream, now, resource, until};

#[tokio::test]
async fn while_the_control_plane_is_away_streams_go_on_and_records_wait() {
    let mut bench = Bench::start().await;
    let mut before = bench.carrying().await;
    bench.control.stop().await;
    before.ping(b"goes on").await.unwrap();
    let mut ids = vec![before.id];
    for _ in 0..30 {
        let stream = bench.carrying().await;
        ids.push(stream.id);
        assert_eq!(stream.close().await, EndCause::Done);
    }
    assert_eq!(before.close().await, EndCause::Done);
    assert!(bench.control.ends().is_empty());
    bench.control.resume().await;
    until(|| bench.control.ends().len() == ids.len()).await;
    assert_eq!(bench.control.starts().len(), ids.len());
    bench.gateway.finish().await;
}

#[tokio::test]
async fn records_are_sent_again_until_they_are_taken_and_stored_once() {
    let bench = Bench::start().await;
    *bench.control.shared.deaf.lock().unwrap() = true;
    let mut ids = Vec::new();
    for _ in 0..10 {
        let stream = bench.carrying().await;
        ids.push(stream.id);
        assert_eq!(stream.close().await, EndCause::Done);
    }
    *bench.control.shared.deaf.lock().unwrap() = false;
    until(|| bench.control.ends().len() == ids.len()).await;
    let starts: Vec<_> = bench.control.starts().iter().map(|start| start.stream).collect();
    assert_eq!(starts, ids);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn an_outage_does_not_bring_revoked_leases_back() {
    let mut bench = Bench::start().await;
    let lease = bench.device.lease(1);
    let mut stream = Stream::open(&bench.entry, 1, &lease).await;
    stream.ping(b"x").await.unwrap();
    let subject = RevokedSubject::Device { device: bench.device.device };
    let revocations = vec![Revocation { subject, at: now(), reason: "lost".into() }];
    bench.control.send(&ServerFrame::Revoke { revocations });
    stream.ended().await;
    bench.gateway.finish().await;
    bench.control.stop().await;
    let gateway = Running::try_start(&bench.control, &bench.state, &[]).await.unwrap();
    let entry = bench.device.entry(gateway.ready.listen);
    assert_eq!(Stream::open(&entry, 1, &lease).await.refusal().await.code, "lease_revoked");
    gateway.finish().await;
}

#[tokio::test]
async fn frames_that_make_no_sense_stop_nothing_and_take_nothing_away() {
    let bench = Bench::start().await;
    let mut stream = bench.carrying().await;
    let too_long = "x".repeat(2 << 20);
    let gap = r#"{"t":"delta","scope":"gateways","from":900,"to":901,"put":[],"del":[]}"#;
    let unknown = r#"{"t":"snapshot","scope":"everything","rev":9,"part":0,"of":1,"items":[]}"#;
    let other_part = r#"{"t":"snapshot","scope":"gateways","rev":9,"part":3,"of":7,"items":[]}"#;
    for bad in ["{", "[]", gap, unknown, other_part, &too_long] {
        let connected = *bench.control.shared.connected.lock().unwrap();
        bench.control.send_text(bad.to_owned());
        until(|| *bench.control.shared.connected.lock().unwrap() > connected).await;
        stream.ping(b"still carried").await.unwrap();
        assert_eq!(bench.carrying().await.close().await, EndCause::Done);
    }
    let id = stream.id;
    assert_eq!(stream.close().await, EndCause::Done);
    assert_eq!(bench.control.end_of(id).await.reason, EndReason::Closed);
    bench.gateway.finish().await;
}

#[test]
fn of_ten_thousand_mutated_snapshots_none_breaks_what_is_held() {
    let items = vec![Item::Resource(resource(1, 5432)), Item::LeaseKey { id: "k".into(), public: "00".repeat(32) }];
    let welcome = Welcome {
        version: VERSION,
        org: OrgId::from_ulid(ulid::Ulid::from_parts(1, 1)),
        epoch: "e".into(),
        now: UnixMillis(1),
        scopes: vec!["gateways".into()],
    };
    let good = ServerFrame::Snapshot { scope: "gateways".into(), rev: 5, part: 0, of: 1, items };
    let mut replica = Replica::default();
    replica.hello("test");
    replica.apply(&ServerFrame::Welcome(welcome.clone())).unwrap();
    replica.apply(&good).unwrap();
    let text = serde_json::to_string(&good).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let (mut unreadable, mut refused, mut taken) = (0, 0, 0);
    for _ in 0..10_000 {
        let mut copy = replica.clone();
        let mut catalogue = Catalogue::new(replica.items());
        let Ok(frame) = serde_json::from_str::<ServerFrame>(&mutate(&text, &mut random)) else {
            unreadable += 1;
            continue;
        };
        match copy.apply(&frame) {
            Ok(changes) => {
                changes.iter().for_each(|change| drop(catalogue.apply(change)));
                taken += 1;
            }
            Err(_) => {
                assert!(copy.items().eq(replica.items()));
                refused += 1;
            }
        }
        // Whatever it was, the next good word is understood.
        copy.hello("test");
        copy.apply(&ServerFrame::Welcome(welcome.clone())).unwrap();
        copy.apply(&good).unwrap();
        assert!(copy.items().eq(replica.items()));
    }
    assert!(unreadable > 1000 && refused > 10 && taken > 100, "{unreadable} {refused} {taken}");
}

fn mutate(text: &str, random: &mut StdRng) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.random_range(1..3) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..4) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, random.random_range(b' '..b'~')),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.random_range(b'0'..b'z')),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
