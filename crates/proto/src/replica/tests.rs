use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::{id::NodeId, time::UnixMillis};

const ORG: OrgId = OrgId::from_ulid(Ulid::from_parts(1, 1));
const SCOPES: [&str; 2] = ["gateways", "org"];

fn node(id: u8, name: &str) -> Item {
    Item::Node { id: NodeId::from_ulid(Ulid::from_parts(2, id.into())), name: name.to_owned(), drain: None }
}

fn welcome(epoch: &str, scopes: &[&str]) -> ServerFrame {
    ServerFrame::Welcome(Welcome {
        version: VERSION,
        org: ORG,
        epoch: epoch.to_owned(),
        now: UnixMillis(1),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    })
}

fn snapshot(scope: &str, rev: u64, (part, of): (u32, u32), items: Vec<Item>) -> ServerFrame {
    ServerFrame::Snapshot { scope: scope.to_owned(), rev, part, of, items }
}

fn delta(scope: &str, (from, to): (u64, u64), put: Vec<Item>, del: Vec<ItemKey>) -> ServerFrame {
    ServerFrame::Delta { scope: scope.to_owned(), from, to, put, del }
}

/// A replica that holds nodes 1 and 2 of scope `org` at revision 5.
fn replica() -> Replica {
    let mut replica = Replica::default();
    replica.hello("test");
    replica.apply(&welcome("e", &SCOPES)).unwrap();
    replica.apply(&snapshot("org", 5, (0, 1), vec![node(1, "a"), node(2, "b")])).unwrap();
    replica
}

#[test]
fn what_a_fresh_snapshot_leaves_out_is_removed() {
    let mut replica = replica();
    let changes = replica.apply(&snapshot("org", 9, (0, 1), vec![node(2, "b"), node(3, "c")])).unwrap();
    let expected =
        Change { scope: "org".into(), snapshot: true, put: vec![node(3, "c")], removed: vec![node(1, "").key()] };
    assert_eq!(changes, [expected]);
    assert_eq!(replica.items().cloned().collect::<Vec<_>>(), [node(2, "b"), node(3, "c")]);
}

#[test]
fn a_snapshot_in_parts_replaces_the_scope_only_when_it_is_complete() {
    let mut replica = replica();
    assert_eq!(replica.apply(&snapshot("org", 9, (0, 2), vec![node(3, "c")])).unwrap(), []);
    assert_eq!(replica.items().count(), 2);
    let changes = replica.apply(&snapshot("org", 9, (1, 2), vec![node(4, "d")])).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(replica.items().cloned().collect::<Vec<_>>(), [node(3, "c"), node(4, "d")]);
}

/// What it says that it holds.
fn held(replica: &mut Replica) -> BTreeMap<Scope, u64> {
    replica.hello("test").have.into_iter().filter(|(_, rev)| *rev > 0).collect()
}

#[test]
fn clusters_are_asked_for_by_who_can_read_them_until_some_revision_of_them_is_held() {
    let mut replica = Replica::default();
    assert_eq!(replica.hello("test").have, BTreeMap::from([(CLUSTERS.to_owned(), 0)]));
    replica.apply(&welcome("e", &[CLUSTERS])).unwrap();
    replica.apply(&snapshot(CLUSTERS, 8, (0, 1), vec![])).unwrap();
    assert_eq!(replica.hello("test").have, BTreeMap::from([(CLUSTERS.to_owned(), 8)]));
}

#[test]
fn a_delta_says_what_it_changed_and_moves_the_revision() {
    let mut replica = replica();
    let del = vec![node(1, "").key(), node(9, "").key()];
    let changes = replica.apply(&delta("org", (5, 6), vec![node(2, "b"), node(3, "c")], del)).unwrap();
    let expected =
        Change { scope: "org".into(), snapshot: false, put: vec![node(3, "c")], removed: vec![node(1, "").key()] };
    assert_eq!(changes, [expected]);
    assert_eq!(held(&mut replica), BTreeMap::from([("org".to_owned(), 6)]));
}

#[test]
fn frames_out_of_step_change_nothing_and_ask_for_fresh_snapshots() {
    let twice = vec![node(1, "x"), node(1, "y")];
    let bad = [
        delta("org", (4, 6), vec![], vec![]),
        delta("org", (5, 4), vec![], vec![]),
        delta("org", (5, 5), vec![node(7, "x")], vec![]),
        delta("gateways", (0, 1), vec![], vec![]),
        delta("account:x", (0, 1), vec![], vec![]),
        snapshot("account:x", 1, (0, 1), vec![]),
        snapshot("org", 6, (1, 2), vec![]),
        snapshot("org", 6, (0, 0), vec![]),
        snapshot("org", 6, (0, MAX_PARTS + 1), vec![]),
        snapshot("org", 6, (0, 1), twice),
    ];
    for frame in bad {
        let mut replica = replica();
        let items: Vec<_> = replica.items().cloned().collect();
        assert!(replica.apply(&frame).is_err(), "{frame:?}");
        assert_eq!(replica.items().cloned().collect::<Vec<_>>(), items, "{frame:?}");
        assert!(held(&mut replica).is_empty(), "{frame:?}");
    }
}

#[test]
fn parts_of_two_snapshots_do_not_mix() {
    for second in [snapshot("org", 10, (1, 2), vec![]), snapshot("org", 9, (1, 3), vec![])] {
        let mut replica = replica();
        replica.apply(&snapshot("org", 9, (0, 2), vec![])).unwrap();
        assert!(replica.apply(&second).is_err());
    }
    let mut replica = replica();
    replica.apply(&snapshot("org", 9, (0, 2), vec![])).unwrap();
    assert!(replica.apply(&delta("org", (5, 6), vec![], vec![])).is_err());
}

#[test]
fn a_new_connection_forgets_half_a_snapshot_and_needs_a_welcome() {
    let mut replica = replica();
    replica.apply(&snapshot("org", 9, (0, 2), vec![node(3, "c")])).unwrap();
    assert_eq!(held(&mut replica), BTreeMap::from([("org".to_owned(), 5)]));
    let rest = snapshot("org", 9, (1, 2), vec![]);
    assert_eq!(replica.apply(&rest), Err(OutOfStep::BeforeWelcome { scope: "org".into() }));
}

#[test]
fn another_epoch_voids_revisions_but_keeps_items_until_the_snapshot() {
    let mut replica = replica();
    replica.hello("test");
    assert_eq!(replica.apply(&welcome("f", &SCOPES)).unwrap(), []);
    assert_eq!(replica.items().count(), 2);
    assert!(replica.apply(&delta("org", (5, 6), vec![], vec![])).is_err());
}

#[test]
fn a_scope_that_is_no_longer_subscribed_is_removed() {
    let mut replica = replica();
    replica.hello("test");
    let changes = replica.apply(&welcome("e", &["gateways"])).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].removed, [node(1, "").key(), node(2, "").key()]);
    assert_eq!(replica.items().count(), 0);
}

#[test]
fn another_organisation_or_version_is_refused() {
    let mut replica = replica();
    replica.hello("test");
    let ServerFrame::Welcome(good) = welcome("e", &SCOPES) else { unreachable!() };
    let theirs = OrgId::from_ulid(Ulid::from_parts(9, 9));
    let other = ServerFrame::Welcome(Welcome { org: theirs, ..good.clone() });
    assert_eq!(replica.apply(&other), Err(OutOfStep::OtherOrg { ours: ORG, theirs }));
    let newer = ServerFrame::Welcome(Welcome { version: VERSION + 1, ..good });
    assert_eq!(replica.apply(&newer), Err(OutOfStep::OtherVersion { theirs: VERSION + 1 }));
    assert_eq!(replica.items().count(), 2);
}

#[test]
fn a_replica_survives_being_written_and_read() {
    let mut replica = replica();
    let text = serde_json::to_string(&replica).unwrap();
    let mut read: Replica = serde_json::from_str(&text).unwrap();
    assert_eq!(read.hello("test"), replica.hello("test"));
    assert_eq!(read, replica);
}

/// What the control plane does between two looks of the replica.
#[derive(Clone, Debug)]
enum Step {
    /// Changes of one scope: (node, `Some` name or `None` to delete).
    Delta(usize, Vec<(u8, Option<String>)>),
    /// A fresh snapshot of one scope, cut into parts of this many items.
    Snapshot(usize, usize),
    /// The connection breaks in the middle of a snapshot and is made again.
    Reconnect(usize),
    /// A delta that does not follow; then a new connection with fresh snapshots.
    Garbled(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let edit = (0..6_u8, proptest::option::of("[a-c]"));
    prop_oneof![
        4 => (0..2_usize, proptest::collection::vec(edit, 0..5)).prop_map(|(scope, edits)| Step::Delta(scope, edits)),
        2 => (0..2_usize, 1..4_usize).prop_map(|(scope, size)| Step::Snapshot(scope, size)),
        1 => (0..2_usize).prop_map(Step::Reconnect),
        1 => (0..2_usize).prop_map(Step::Garbled),
    ]
}

/// The control plane's side: the truth.
#[derive(Default)]
struct Truth {
    rev: u64,
    scopes: [BTreeMap<ItemKey, Item>; 2],
}

impl Truth {
    fn parts(&self, scope: usize, size: usize) -> Vec<ServerFrame> {
        let items: Vec<Item> = self.scopes[scope].values().cloned().collect();
        let mut chunks: Vec<Vec<Item>> = items.chunks(size).map(<[Item]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let of = u32::try_from(chunks.len()).unwrap();
        (0..).zip(chunks).map(|(part, items)| snapshot(SCOPES[scope], self.rev, (part, of), items)).collect()
    }

    /// Answers a hello: a snapshot for each scope that is not at the present revision.
    fn greet(&self, replica: &mut Replica, seen: &mut Follower) {
        let have = replica.hello("test").have;
        seen.apply(replica, &welcome("e", &SCOPES));
        for (index, scope) in SCOPES.iter().enumerate() {
            if have.get(*scope) != Some(&self.rev) {
                self.parts(index, 2).iter().for_each(|frame| seen.apply(replica, frame));
            }
        }
    }

    fn edit(&mut self, scope: usize, edits: &[(u8, Option<String>)]) -> [ServerFrame; 2] {
        let from = self.rev;
        self.rev += 1;
        let (mut put, mut del) = (BTreeMap::new(), Vec::new());
        for (id, name) in edits {
            let key = node(*id, "").key();
            match name {
                Some(name) => {
                    put.insert(key.clone(), node(*id, name));
                    self.scopes[scope].insert(key, node(*id, name));
                }
                None => {
                    put.remove(&key);
                    self.scopes[scope].remove(&key);
                    del.push(key);
                }
            }
        }
        let put = put.into_values().collect();
        let quiet = delta(SCOPES[1 - scope], (from, self.rev), vec![], vec![]);
        [delta(SCOPES[scope], (from, self.rev), put, del), quiet]
    }
}

/// Holds what a consumer of the changes would hold.
#[derive(Default)]
struct Follower {
    items: BTreeMap<(Scope, ItemKey), Item>,
}

impl Follower {
    fn apply(&mut self, replica: &mut Replica, frame: &ServerFrame) {
        for Change { scope, put, removed, .. } in replica.apply(frame).unwrap() {
            for key in removed {
                assert!(self.items.remove(&(scope.clone(), key)).is_some(), "removed what was never put");
            }
            for item in put {
                let before = self.items.insert((scope.clone(), item.key()), item.clone());
                assert_ne!(before, Some(item), "put what was there");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_of_snapshots_and_deltas_equals_the_model(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut truth, mut replica, mut seen) = (Truth::default(), Replica::default(), Follower::default());
        truth.greet(&mut replica, &mut seen);
        for step in steps {
            match step {
                Step::Delta(scope, edits) => {
                    truth.edit(scope, &edits).iter().for_each(|frame| seen.apply(&mut replica, frame));
                }
                Step::Snapshot(scope, size) => {
                    truth.parts(scope, size).iter().for_each(|frame| seen.apply(&mut replica, frame));
                }
                Step::Reconnect(scope) => {
                    let parts = truth.parts(scope, 1);
                    let half = &parts[..parts.len() - 1];
                    half.iter().for_each(|frame| seen.apply(&mut replica, frame));
                    replica = serde_json::from_str(&serde_json::to_string(&replica).unwrap()).unwrap();
                    truth.greet(&mut replica, &mut seen);
                }
                Step::Garbled(scope) => {
                    let wrong = (truth.rev + 1, truth.rev + 2);
                    prop_assert!(replica.apply(&delta(SCOPES[scope], wrong, vec![node(9, "z")], vec![])).is_err());
                    truth.greet(&mut replica, &mut seen);
                }
            }
            for (index, scope) in SCOPES.iter().enumerate() {
                let held: Vec<&Item> = replica.items_of(scope).collect();
                prop_assert_eq!(held, truth.scopes[index].values().collect::<Vec<_>>());
            }
            let followed: Vec<&Item> = seen.items.values().collect();
            prop_assert_eq!(followed, replica.items().collect::<Vec<_>>());
        }
    }
}
