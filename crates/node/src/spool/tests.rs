use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _};

use postern_proto::{
    id::{AccountId, DeviceId, ResourceId},
    record::{EndReason, Preparation, Record, SessionEnd, StreamRefused},
};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::task::JoinSet;
use ulid::Ulid;

use super::*;

const AT: UnixMillis = UnixMillis(1);

fn ulid(n: u64) -> Ulid {
    Ulid::from_parts(1, n.into())
}

fn node() -> NodeId {
    NodeId::from_ulid(ulid(1))
}

fn stream(n: u64) -> StreamId {
    StreamId::from_ulid(ulid(n))
}

fn start(n: u64) -> SessionStart {
    SessionStart {
        stream: stream(n),
        account: AccountId::from_ulid(ulid(1)),
        device: DeviceId::from_ulid(ulid(1)),
        resource: ResourceId::from_ulid(ulid(1)),
        resource_name: "db".into(),
        resource_tags: BTreeMap::from([("env".into(), "prod".into())]),
        grant: "rol_1".into(),
        client: "127.0.0.1:1".parse().unwrap(),
        target: "10.0.0.1:5432".into(),
        prepared: None,
    }
}

fn end(n: u64) -> Event {
    Event::End(SessionEnd {
        stream: stream(n),
        dialled: None,
        bytes_up: n,
        bytes_down: 0,
        reason: EndReason::Closed,
        detail: None,
    })
}

fn refused() -> Event {
    Event::Refused(StreamRefused {
        stream: None,
        account: None,
        device: None,
        resource: None,
        client: "127.0.0.1:1".parse().unwrap(),
        code: "denied".into(),
        wanted: None,
    })
}

struct Bench {
    folder: TempDir,
    segment_bytes: u64,
}

impl Bench {
    fn new(segment_bytes: u64) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), segment_bytes }
    }

    fn config(&self) -> SpoolConfig {
        let config = SpoolConfig::new(self.folder.path().join("records"));
        SpoolConfig { segment_bytes: self.segment_bytes, ..config }
    }

    fn open(&self) -> (Spool, Vec<StreamId>) {
        Spool::open(self.config(), node(), Tip::default()).unwrap()
    }

    /// As after a crash: the writer is not asked to finish anything.
    fn reopen(&self, spool: Spool) -> (Spool, Vec<StreamId>) {
        finish(&spool);
        self.open()
    }

    fn files(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.config().folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "records")).collect();
        files.sort();
        files
    }
}

fn finish(spool: &Spool) {
    spool.close(Instant::now() + Duration::from_secs(20));
}

fn read_all(spool: &Spool, from: u64) -> Vec<Record> {
    let mut reader = spool.reader(from);
    let mut all = Vec::new();
    loop {
        let records = reader.read(7).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records);
    }
}

fn assert_chain(records: &[Record], mut seq: u64, mut hash: String) {
    for record in records {
        record.follows(seq, &hash).unwrap();
        (seq, hash) = (record.seq, record.hash.clone());
    }
}

async fn until_durable(spool: &Spool, seq: u64) {
    spool.durable().wait_for(|tip| tip.seq >= seq).await.unwrap();
}

#[tokio::test]
async fn a_start_record_is_on_disk_when_it_is_said_to_be() {
    let bench = Bench::new(64 << 10);
    let (spool, lost) = bench.open();
    assert!(lost.is_empty());
    spool.start(AT, start(1)).await.unwrap();
    let bytes = fs::read(&bench.files()[0]).unwrap();
    let (record, _) = segment::decode(&bytes[256..]).unwrap();
    assert_eq!(record.event, Event::Start(start(1)));
    finish(&spool);
}

/// A spool that is prepared for `start(0)`'s device and resource.
async fn prepared(bench: &Bench) -> Spool {
    let (spool, _) = bench.open();
    spool.start(AT, start(0)).await.unwrap();
    spool.expect(AT, &start(0));
    until_durable(&spool, 2).await;
    spool
}

/// The events that lie in a file.
fn events(path: &Path) -> Vec<Event> {
    let bytes = fs::read(path).unwrap();
    let mut at = 256;
    let mut events = Vec::new();
    while let Some((record, length)) = segment::decode(&bytes[at..]) {
        events.push(record.event);
        at += length;
    }
    events
}

/// What the machine leaves when it dies: of the last file what was durable, and of that `lost` records fewer.
fn lose_power(bench: &Bench, keep: u64) {
    let path = bench.files().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let mut at = 256;
    while let Some((record, length)) = segment::decode(&bytes[at..]).filter(|(record, _)| record.seq <= keep) {
        assert!(record.seq <= keep);
        at += length;
    }
    bytes[at..].fill(0);
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_prepared_session_is_in_the_file_at_once_and_its_preparation_is_durable_before_it() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    let durable = spool.durable().borrow().seq;
    // Polled once: nobody is waited for.
    let mut begun = Box::pin(spool.start(AT, start(1)));
    let polled = Future::poll(begun.as_mut(), &mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(polled, std::task::Poll::Ready(Ok(()))));
    let events = events(&bench.files()[0]);
    let Event::Prepared(preparation) = &events[1] else { panic!("{events:?}") };
    assert_eq!((preparation.sessions, &*preparation.target), (1, "10.0.0.1:5432"));
    assert!(durable >= 2);
    assert_eq!(events[2], Event::Start(SessionStart { prepared: Some(2), ..start(1) }));
    until_durable(&spool, 3).await;
    drop(begun);
    finish(&spool);
    assert_chain(&read_all(&spool, 1), 0, GENESIS.into());
}

#[tokio::test]
async fn what_is_not_prepared_for_or_used_up_waits_for_the_disk() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    let elsewhere = SessionStart { target: "10.0.0.9:1".into(), ..start(1) };
    spool.start(AT, elsewhere.clone()).await.unwrap();
    assert!(spool.durable().borrow().seq >= 3);
    spool.start(AT, start(2)).await.unwrap();
    spool.start(AT, start(3)).await.unwrap();
    assert!(spool.durable().borrow().seq >= 5, "the one that was prepared for is used up");
    let starts: Vec<_> = read_all(&spool, 3).into_iter().map(|record| record.event).collect();
    assert_eq!(starts[0], Event::Start(elsewhere));
    assert_eq!(starts[1], Event::Start(SessionStart { prepared: Some(2), ..start(2) }));
    assert_eq!(starts[2], Event::Start(start(3)));
    finish(&spool);
}

#[tokio::test]
async fn a_session_that_must_be_durable_itself_leans_on_no_preparation() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    spool.start_durable(AT, start(1)).await.unwrap();
    assert!(spool.durable().borrow().seq >= 3);
    let events: Vec<_> = read_all(&spool, 3).into_iter().map(|record| record.event).collect();
    assert_eq!(events[0], Event::Start(start(1)));
    finish(&spool);
}

#[tokio::test]
async fn a_spool_that_closes_settles_what_it_prepared() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    let (spool, lost) = bench.reopen(spool);
    assert_eq!(lost, [stream(0)]);
    let records = read_all(&spool, 3);
    assert!(
        matches!(&records[..], [Record { event: Event::Settled(settlement), .. }]
        if settlement.prepared == 2 && settlement.unaccounted == 0),
        "{records:?}"
    );
    finish(&spool);
}

#[tokio::test]
async fn when_only_the_process_dies_every_session_is_known() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    spool.start(AT, start(1)).await.unwrap();
    // In the file at once, whether or not the disk has it; what is prepared next goes there in the background.
    let lies = events(&bench.files()[0]);
    assert!(lies.iter().any(|event| matches!(event, Event::Start(known) if known.stream == stream(1))));
    spool.expect(AT, &start(1));
    until_durable(&spool, 4).await;
    // Nothing is closed: another opens what lies in the file.
    let copy = Bench::new(64 << 10);
    fs::create_dir(copy.config().folder).unwrap();
    fs::copy(&bench.files()[0], copy.config().folder.join(bench.files()[0].file_name().unwrap())).unwrap();
    let (after, lost) = copy.open();
    assert_eq!(lost, [stream(0), stream(1)]);
    until_durable(&after, 5).await;
    let last = read_all(&after, 5).pop().unwrap();
    assert!(
        matches!(&last.event, Event::Settled(settlement) if settlement.prepared == 4 && settlement.unaccounted == 0)
    );
    finish(&after);
    finish(&spool);
}

#[tokio::test]
async fn when_the_machine_dies_what_may_have_begun_is_said() {
    let bench = Bench::new(64 << 10);
    let spool = prepared(&bench).await;
    spool.start(AT, start(1)).await.unwrap();
    finish(&spool);
    // The session's own record was not with the disk yet; the preparation was. Another start of the machine reads it.
    lose_power(&bench, 2);
    let path = bench.files().pop().unwrap();
    let bytes = fs::read(&path).unwrap();
    let [Event::Start(first), Event::Prepared(preparation)] = &events(&path)[..] else { panic!() };
    let folder = bench.config().folder;
    fs::remove_file(&path).unwrap();
    let head = Record::link(1, node(), AT, Event::Start(first.clone()), GENESIS);
    let earlier = Preparation { boot: "another".into(), sessions: 5, ..preparation.clone() };
    let prepared = Record::link(2, node(), AT, Event::Prepared(earlier), &head.hash);
    let of_it = Event::Start(SessionStart { prepared: Some(2), ..start(7) });
    let known = Record::link(3, node(), AT, of_it, &prepared.hash);
    let mut file = bytes[..256].to_vec();
    [head, prepared, known].iter().for_each(|record| file.extend(segment::frame(&serde_json::to_vec(record).unwrap())));
    file.resize(64 << 10, 0);
    fs::write(folder.join(path.file_name().unwrap()), file).unwrap();
    let (spool, lost) = bench.open();
    assert_eq!(lost, [stream(0), stream(7)]);
    until_durable(&spool, 4).await;
    let said = read_all(&spool, 4).pop().unwrap();
    let Event::Settled(settlement) = &said.event else { panic!("{said:?}") };
    assert_eq!((settlement.prepared, settlement.unaccounted), (2, 4));
    let (spool, _) = bench.reopen(spool);
    assert_eq!(read_all(&spool, 5).len(), 0, "it is said once");
    finish(&spool);
}

#[tokio::test]
async fn preparations_do_not_outlive_their_file_and_sessions_go_on_in_the_next() {
    let bench = Bench::new(8 << 10);
    let (spool, _) = bench.open();
    for n in 0..200 {
        spool.start(AT, start(n)).await.unwrap();
        spool.expect(AT, &start(n));
        spool.note(AT, end(n));
    }
    finish(&spool);
    assert!(bench.files().len() > 5);
    for path in bench.files() {
        let events = events(&path);
        let first: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        for event in &events {
            let Event::Start(SessionStart { prepared: Some(seq), .. }) = event else { continue };
            assert!(*seq >= first, "prepared in an earlier file");
            assert!(matches!(&events[(seq - first) as usize], Event::Prepared(_)));
        }
    }
    assert_chain(&read_all(&spool, 1), 0, GENESIS.into());
    let (spool, lost) = bench.reopen(spool);
    assert!(lost.is_empty());
    finish(&spool);
}

#[tokio::test]
async fn many_at_once_form_one_chain_over_several_files() {
    let bench = Bench::new(16 << 10);
    let (spool, _) = bench.open();
    let mut tasks = JoinSet::new();
    for n in 0..500 {
        let spool = spool.clone();
        tasks.spawn(async move {
            spool.start(AT, start(n)).await.unwrap();
            spool.note(AT, end(n));
        });
    }
    tasks.join_all().await;
    until_durable(&spool, 1000).await;
    assert!(bench.files().len() > 5);
    let records = read_all(&spool, 1);
    assert_eq!(records.len(), 1000);
    assert_chain(&records, 0, GENESIS.into());
    let (spool, lost) = bench.reopen(spool);
    assert!(lost.is_empty());
    assert_eq!(read_all(&spool, 1), records);
    assert_eq!(read_all(&spool, 990), records[989..]);
    finish(&spool);
}

#[tokio::test]
async fn sessions_that_a_crash_left_open_are_handed_back() {
    let bench = Bench::new(64 << 10);
    let (spool, _) = bench.open();
    for n in 1..=3 {
        spool.start(AT, start(n)).await.unwrap();
    }
    spool.note(AT, end(2));
    until_durable(&spool, 4).await;
    let (spool, lost) = bench.reopen(spool);
    assert_eq!(lost, [stream(1), stream(3)]);
    spool.note(AT, end(1));
    spool.note(AT, end(3));
    until_durable(&spool, 6).await;
    let (spool, lost) = bench.reopen(spool);
    assert!(lost.is_empty());
    assert_chain(&read_all(&spool, 1), 0, GENESIS.into());
    finish(&spool);
}

#[tokio::test]
async fn acknowledged_files_go_and_sessions_in_them_are_not_forgotten() {
    let bench = Bench::new(8 << 10);
    let (spool, _) = bench.open();
    for n in 1..=200 {
        spool.start(AT, start(n)).await.unwrap();
        if n != 1 {
            spool.note(AT, end(n));
        }
    }
    until_durable(&spool, 399).await;
    let (before, kept) = (bench.files().len(), read_all(&spool, 350));
    spool.acknowledge(349).unwrap();
    assert!(bench.files().len() < before / 4, "{} of {before}", bench.files().len());
    assert_eq!(read_all(&spool, 350), kept);
    assert!(spool.reader(1).read(1).is_err());
    spool.acknowledge(399).unwrap();
    assert_eq!(bench.files().len(), 1);
    let (spool, lost) = bench.reopen(spool);
    assert_eq!(lost, [stream(1)]);
    spool.start(AT, start(500)).await.unwrap();
    assert_eq!(read_all(&spool, 400).len(), 1);
    finish(&spool);
}

#[tokio::test]
async fn a_chain_goes_on_from_where_the_control_plane_says() {
    let bench = Bench::new(64 << 10);
    let base = Tip { seq: 41, hash: "ab".repeat(32) };
    let (spool, _) = Spool::open(bench.config(), node(), base.clone()).unwrap();
    spool.start(AT, start(1)).await.unwrap();
    let (spool, _) = bench.reopen(spool);
    let records = read_all(&spool, 42);
    assert_eq!(records[0].seq, 42);
    assert_chain(&records, base.seq, base.hash);
    finish(&spool);
}

#[tokio::test]
async fn without_space_streams_are_refused_ends_are_kept_and_it_recovers_by_itself() {
    let bench = Bench::new(4 << 10);
    let (spool, _) = bench.open();
    // The next file cannot be taken into use while a folder has its name.
    let obstacle = bench.config().folder.join("next.taken.prepared");
    fs::create_dir(&obstacle).unwrap();
    let mut begun = 0;
    let refusal = loop {
        match spool.start(AT, start(begun)).await {
            Ok(()) => begun += 1,
            Err(error) => break error,
        }
        assert!(begun < 1000);
    };
    assert!(matches!(refusal, SpoolError::Disk(_)), "{refusal}");
    assert_eq!(refusal.problem().status, 503);
    (0..begun).for_each(|n| spool.note(AT, end(n)));
    fs::remove_dir(&obstacle).unwrap();
    until_durable(&spool, begun * 2).await;
    spool.start(AT, start(1000)).await.unwrap();
    let records = read_all(&spool, 1);
    assert_eq!(records.len() as u64, begun * 2 + 1);
    assert_chain(&records, 0, GENESIS.into());
    finish(&spool);
}

#[tokio::test]
async fn at_its_limit_it_takes_ends_and_no_starts_until_files_are_acknowledged() {
    let bench = Bench::new(4 << 10);
    let config = SpoolConfig { limit_bytes: 8 << 10, ..bench.config() };
    let (spool, _) = Spool::open(config, node(), Tip::default()).unwrap();
    let mut begun = 0;
    let refusal = loop {
        match spool.start(AT, start(begun)).await {
            Ok(()) => begun += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, SpoolError::Limit { limit: 8 << 10 });
    (0..begun).for_each(|n| spool.note(AT, end(n)));
    until_durable(&spool, begun * 2).await;
    spool.acknowledge(begun * 2).unwrap();
    spool.start(AT, start(begun)).await.unwrap();
    finish(&spool);
}

#[tokio::test]
async fn a_record_that_fits_no_file_is_refused_alone() {
    let bench = Bench::new(8 << 10);
    let (spool, _) = bench.open();
    let giant = SessionStart { resource_name: "x".repeat(10_000), ..start(1) };
    assert!(matches!(spool.start(AT, giant).await, Err(SpoolError::TooLong { .. })));
    spool.start(AT, start(2)).await.unwrap();
    finish(&spool);
    assert_eq!(spool.start(AT, start(3)).await, Err(SpoolError::Closed));
}

#[tokio::test]
async fn refusals_are_written_too() {
    let bench = Bench::new(64 << 10);
    let (spool, _) = bench.open();
    spool.note(AT, refused());
    until_durable(&spool, 1).await;
    assert_eq!(read_all(&spool, 1)[0].event, refused());
    finish(&spool);
}

#[tokio::test]
async fn damage_that_no_crash_makes_is_said_aloud() {
    let bench = Bench::new(4 << 10);
    let (spool, _) = bench.open();
    for n in 0..40 {
        spool.start(AT, start(n)).await.unwrap();
    }
    finish(&spool);
    let first = fs::OpenOptions::new().write(true).open(&bench.files()[0]).unwrap();
    first.write_all_at(b"!", 300).unwrap();
    let error = Spool::open(bench.config(), node(), Tip::default()).err().unwrap();
    assert!(matches!(error, SpoolOpenError::Damaged { .. }), "{error}");
    fs::remove_file(&bench.files()[1]).unwrap();
    assert!(Spool::open(bench.config(), node(), Tip::default()).is_err());
}

/// Writes `count` records and returns the file's bytes and where the records end.
async fn written(bench: &Bench, count: u64) -> (Vec<u8>, usize) {
    let (spool, _) = bench.open();
    for n in 0..count {
        spool.start(AT, start(n)).await.unwrap();
    }
    finish(&spool);
    let bytes = fs::read(&bench.files()[0]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (bytes, end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_torn_end_is_cut_and_nothing_before_it_is_lost(kept in 0..4_usize, cut in 0.0..1.0_f64, noise in any::<[u8; 64]>()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let bench = Bench::new(16 << 10);
            let (whole, end) = written(&bench, 4).await;
            let mut at = 256;
            for _ in 0..kept {
                at += segment::decode(&whole[at..]).unwrap().1;
            }
            let length = segment::decode(&whole[at..]).unwrap().1;
            // Somewhere within the record after those that are kept, noise instead of the rest.
            let torn = at + 1 + ((length - 2) as f64 * cut) as usize;
            let mut bytes = whole.clone();
            bytes[torn..end].fill(0);
            let tail = noise.len().min(bytes.len() - torn);
            bytes[torn..torn + tail].copy_from_slice(&noise[..tail]);
            if bytes[at..at + length] == whole[at..at + length] {
                return; // the noise repeated the record
            }
            fs::write(&bench.files()[0], &bytes).unwrap();
            let (spool, lost) = bench.open();
            assert_eq!(lost.len(), kept);
            spool.start(AT, start(99)).await.unwrap();
            let records = read_all(&spool, 1);
            assert_eq!(records.len(), kept + 1);
            assert_chain(&records, 0, GENESIS.into());
            let (spool, lost) = bench.reopen(spool);
            assert_eq!(lost.len(), kept + 1);
            finish(&spool);
        });
    }
}
