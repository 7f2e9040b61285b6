use postern_local_api::{
    message::Numbered,
    mirror::{Sequence, apply},
};
use postern_proto::resource::{BindAddress, ClientResource, Health, Kind, Tags};

use super::*;

fn service(version: &str) -> Status {
    Status::signed_out(version)
}

fn resource(n: u128, streams: u32) -> ResourceStatus {
    let bind = BindAddress::loopback([127, 0, 0, 1].into(), 1024);
    let resource = ClientResource {
        id: ResourceId::from_ulid(n.into()),
        name: format!("r{n:05}"),
        kind: Kind::Tcp,
        tags: Tags::new(),
        bind,
        ports: postern_proto::port::PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Unknown,
    };
    ResourceStatus { streams, ..ResourceStatus::off(resource) }
}

/// What a client does with the lines.
struct Copy {
    reader: Reader,
    sequence: Sequence,
    status: Option<Status>,
    lines: usize,
}

impl Copy {
    fn new(board: &Arc<Board>) -> Self {
        Self { reader: board.follow(), sequence: Sequence::default(), status: None, lines: 0 }
    }

    async fn read_until(&mut self, wanted: &Status) {
        while self.status.as_ref() != Some(wanted) {
            let line = self.reader.next_line().await.unwrap();
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
            let numbered: Numbered = serde_json::from_str(&line).unwrap();
            self.sequence.check(&numbered).unwrap();
            apply(&mut self.status, numbered.event);
            self.lines += 1;
        }
    }
}

#[tokio::test]
async fn a_reader_gets_a_snapshot_and_then_every_change_in_order() {
    let board = Arc::new(Board::new(service("1")));
    board.post_resource(resource(1, 0));
    let mut copy = Copy::new(&board);
    copy.read_until(&board.status()).await;
    board.post_resource(resource(2, 5));
    board.post_resource(resource(1, 7));
    board.remove_resource(resource(2, 0).resource.id);
    board.post_service(service("2"));
    copy.read_until(&board.status()).await;
    assert_eq!(copy.lines, 5);
}

#[tokio::test]
async fn what_does_not_change_anything_is_not_told() {
    let board = Arc::new(Board::new(service("1")));
    let mut copy = Copy::new(&board);
    copy.read_until(&board.status()).await;
    board.post_service(service("1"));
    board.post_resource(resource(1, 0));
    board.post_resource(resource(1, 0));
    board.remove_resource(resource(9, 0).resource.id);
    copy.read_until(&board.status()).await;
    assert_eq!(copy.lines, 2);
}

#[tokio::test]
async fn a_slow_reader_gets_a_fresh_snapshot_and_misses_nothing_in_the_end() {
    let board = Arc::new(Board::new(service("1")));
    let mut copy = Copy::new(&board);
    copy.read_until(&board.status()).await;
    for n in 0..3 * BEHIND as u128 {
        board.post_resource(resource(n % 100, u32::try_from(n).unwrap()));
    }
    copy.read_until(&board.status()).await;
    assert!(copy.lines <= BEHIND + 2, "{} lines", copy.lines);
    board.post_resource(resource(1, 0));
    copy.read_until(&board.status()).await;
}
