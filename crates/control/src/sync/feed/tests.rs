use postern_proto::{
    id::NodeId,
    sync::{GatewayInfo, NetworkSettings},
};
use ulid::Ulid;

use super::*;

fn gateway(n: u64, address: &str) -> Item {
    let id = NodeId::from_ulid(Ulid::from_parts(n, 1));
    Item::Gateway(GatewayInfo {
        id,
        name: format!("g{n}"),
        address: address.to_owned(),
        draining: false,
        drain_ends: None,
    })
}

fn feed(items: impl IntoIterator<Item = Item>) -> Feed {
    Feed::new("org".to_owned(), 100, view(items))
}

fn delta(step: Step) -> (u64, ServerFrame) {
    let Step::Delta { frame, to } = step else { panic!("no delta") };
    (to, serde_json::from_str(&frame).unwrap())
}

#[test]
fn a_change_is_encoded_once_and_shared() {
    let mut feed = feed([gateway(1, "a:1")]);
    assert!(feed.replace(view([gateway(1, "a:2"), gateway(2, "b:1")]), 101));
    let (Step::Delta { frame: one, .. }, Step::Delta { frame: two, .. }) = (feed.next(Some(100)), feed.next(Some(100)))
    else {
        panic!("no delta")
    };
    assert_eq!(one.as_str().as_ptr(), two.as_str().as_ptr());
    let (to, frame) = delta(feed.next(Some(100)));
    assert_eq!(to, 101);
    let put = vec![gateway(1, "a:2"), gateway(2, "b:1")];
    assert_eq!(frame, ServerFrame::Delta { scope: "org".to_owned(), from: 100, to: 101, put, del: vec![] });
}

#[test]
fn what_changes_nothing_is_not_sent() {
    let mut feed = feed([gateway(1, "a:1")]);
    assert!(!feed.replace(view([gateway(1, "a:1")]), 101));
    assert!(!feed.patch(vec![gateway(1, "a:1").into()], vec![ItemKey::Settings], 102));
    assert_eq!(feed.rev(), 100);
    assert!(matches!(feed.next(Some(100)), Step::UpToDate));
}

#[test]
fn who_fell_behind_the_log_or_holds_an_unknown_revision_gets_a_snapshot() {
    let mut feed = feed([]);
    for n in 0..1000 {
        assert!(feed.patch(vec![gateway(1, &format!("a:{n}")).into()], vec![], 101 + n));
    }
    assert!(feed.log.len() <= MAX_DELTAS && feed.log_bytes <= MAX_LOG);
    for have in [None, Some(100), Some(7), Some(5000)] {
        assert!(matches!(feed.next(have), Step::Snapshot { rev: 1100, .. }), "{have:?}");
    }
    assert_eq!(delta(feed.next(Some(1099))).0, 1100);
}

#[test]
fn a_large_scope_comes_in_parts_that_fit() {
    let mut feed = feed((0..9000).map(|n| gateway(n, &"x".repeat(300))));
    let Step::Snapshot { parts, .. } = feed.next(None) else { panic!("no snapshot") };
    assert!(parts.len() > 2);
    let mut items = Vec::new();
    for (n, frame) in parts.iter().enumerate() {
        assert!(frame.len() <= MAX_FRAME);
        let ServerFrame::Snapshot { part, of, items: more, .. } = serde_json::from_str(frame).unwrap() else {
            panic!("no part")
        };
        assert_eq!((part as usize, of as usize), (n, parts.len()));
        items.extend(more);
    }
    assert_eq!(view(items), *feed.items());
}

#[test]
fn a_change_too_large_for_a_frame_becomes_a_snapshot() {
    let mut feed = feed([]);
    feed.replace(view((0..9000).map(|n| gateway(n, &"x".repeat(300)))), 101);
    assert!(matches!(feed.next(Some(100)), Step::Snapshot { rev: 101, .. }));
}

#[test]
fn an_item_too_large_for_any_frame_takes_nothing_else_with_it() {
    let huge = gateway(1, &"x".repeat(MAX_FRAME));
    let mut feed = feed([huge, Item::Settings(NetworkSettings::default())]);
    let Step::Snapshot { parts, .. } = feed.next(None) else { panic!("no snapshot") };
    assert_eq!(parts.len(), 1);
    assert!(parts[0].contains("loopback_range") && parts[0].len() < MAX_FRAME);
}

#[test]
fn an_empty_scope_is_one_part_without_items() {
    let Step::Snapshot { parts, .. } = feed([]).next(None) else { panic!("no snapshot") };
    let frame: ServerFrame = serde_json::from_str(&parts[0]).unwrap();
    assert_eq!(frame, ServerFrame::Snapshot { scope: "org".to_owned(), rev: 100, part: 0, of: 1, items: vec![] });
}
