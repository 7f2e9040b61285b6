//! What replicas share.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use postern_control::{
    catalogue::{Account, AccountKind, Catalogue, Grant, Member, Node, NodeKind, Resource, Role, Rule, RuleTarget},
    clock::Clock,
    config::Serve,
    duty::Duty,
    password::{Password, Passwords, Verdict},
    run::Running,
    sql::query,
    store::{Absent, Actor, Change, Store},
};
use postern_proto::{
    id::{AccountId, GrantId, NodeId, ResourceId, RoleId, RuleId},
    lease::RevokedSubject,
    resource::{BindAddress, Kind, Tags},
};
use tokio_util::sync::CancellationToken;

use crate::choice;

pub(crate) const WITHIN: Duration = Duration::from_secs(20);

pub(crate) async fn open(folder: &Path) -> Store {
    let place = choice::place(folder).await;
    Store::open_at(&place, Absent::Create { org: "Example" }, Clock::system()).await.unwrap()
}

pub(crate) async fn change(store: &Store) -> Change {
    store.change(Actor::system()).await.unwrap()
}

async fn put_account(change: &mut Change, email: &str) -> AccountId {
    let account = Account {
        id: AccountId::from_ulid(change.ulid()),
        email: email.parse().unwrap(),
        name: "Ada".to_owned(),
        kind: AccountKind::User,
        admin: false,
        suspended: false,
        tags: Tags::from([("team".to_owned(), "a \"b\" ü".to_owned())]),
        created_at: change.now(),
        revision: 0,
    };
    change.put(account).await.unwrap().id
}

pub(crate) async fn put_resource(change: &mut Change, number: u16, env: &str) -> ResourceId {
    let resource = Resource {
        id: ResourceId::from_ulid(change.ulid()),
        name: format!("db {number}"),
        kind: Kind::Tcp,
        host: "db.example".to_owned(),
        port: 5432,
        ports: "5433,6000-6010".parse().unwrap(),
        hosts: Vec::new(),
        tags: Tags::from([("env".to_owned(), env.to_owned())]),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), 2000 + number),
        allow_local: false,
        strict: number.is_multiple_of(2),
        egress: (number == 3).then(|| "tags:zone=a".to_owned()),
        cluster: None,
        created_at: change.now(),
        revision: 0,
    };
    change.put(resource).await.unwrap().id
}

pub(crate) async fn put_role(change: &mut Change, name: &str) -> RoleId {
    let role = Role { id: RoleId::from_ulid(change.ulid()), name: name.to_owned(), tags: Tags::new(), revision: 0 };
    change.put(role).await.unwrap().id
}

/// Everything of a catalogue, the index that follows from it too.
fn whole(catalogue: &Catalogue) -> String {
    format!("{catalogue:#?}")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn of_changes_at_three_replicas_each_has_a_revision_of_its_own_and_all_learn_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let stores = [open(folder.path()).await, open(folder.path()).await, open(folder.path()).await];
    let mut told = stores[0].follow();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60_usize {
        let store = stores[number % 3].clone();
        tasks.spawn(async move {
            let mut change = change(&store).await;
            put_role(&mut change, &format!("role {number}")).await;
            change.commit().await.unwrap().revision
        });
    }
    let revisions: BTreeSet<u64> = tasks.join_all().await.into_iter().collect();
    assert_eq!(revisions, (1..=60).collect());
    for store in &stores {
        store.catch_up().await.unwrap();
        assert_eq!((store.catalogue().revision, store.catalogue().roles.len()), (60, 60));
    }
    // Roles touch no scope, so only their order can be told: nothing is told twice or backwards.
    let told: Vec<u64> = std::iter::from_fn(|| told.try_recv().ok()).map(|changes| changes.revision).collect();
    assert!(told.is_sorted(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_replica_that_reads_everything_at_its_start_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let running = open(folder.path()).await;
    // The second one stands still in the midst of its reading.
    let mut still = running.reader().begin_writing().await.unwrap();
    query("LOCK TABLE resource IN ACCESS EXCLUSIVE MODE").execute(&mut still).await.unwrap();
    let path = folder.path().to_owned();
    let starting = tokio::spawn(async move { open(&path).await });
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = CAST('resource' AS regclass)
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let end = tokio::time::Instant::now() + WITHIN;
    while query(waits).scalar::<i64>(running.reader()).await.unwrap() == 0 {
        assert!(tokio::time::Instant::now() < end, "nobody reads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(running.hold().await.unwrap());
    let mut meanwhile = change(&running).await;
    put_role(&mut meanwhile, "meanwhile").await;
    meanwhile.commit().await.unwrap();
    assert!(!starting.is_finished());
    drop(still);
    let started = starting.await.unwrap();
    started.catch_up().await.unwrap();
    assert_eq!(whole(&started.catalogue()), whole(&running.catalogue()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_catalogue_that_was_brought_forward_is_the_one_that_a_restart_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, follower) = (open(folder.path()).await, open(folder.path()).await);
    let mut ids = Vec::new();
    let mut change = change(&writer).await;
    let (ada, bob) =
        (put_account(&mut change, "ada@example.org").await, put_account(&mut change, "b@example.org").await);
    let team = put_role(&mut change, "team").await;
    change.put(Member { role: team, account: ada, revision: 0 }).await.unwrap();
    change.commit().await.unwrap();
    follower.catch_up().await.unwrap();
    assert_eq!(whole(&follower.catalogue()), whole(&open(folder.path()).await.catalogue()));

    for number in 0..20 {
        let mut change = self::change(&writer).await;
        ids.push(put_resource(&mut change, number, if number % 2 == 0 { "prod" } else { "test" }).await);
        if number == 7 {
            let what = RuleTarget::Query("tags:env=prod".to_owned());
            let rule = Rule { id: RuleId::from_ulid(change.ulid()), role: team, what, revision: 0 };
            change.put(rule).await.unwrap();
        }
        change.commit().await.unwrap();
    }
    let mut change = self::change(&writer).await;
    let what = RuleTarget::Resources(ids.iter().copied().take(5).collect());
    let rule = Rule { id: RuleId::from_ulid(change.ulid()), role: team, what, revision: 0 };
    change.put(rule).await.unwrap();
    let grant = Grant {
        id: GrantId::from_ulid(change.ulid()),
        account: bob,
        resource: ids[3],
        ends_at: None,
        reason: String::new(),
        created_at: change.now(),
        revision: 0,
    };
    change.put(grant).await.unwrap();
    let node = Node {
        id: NodeId::from_ulid(change.ulid()),
        name: "gw".to_owned(),
        kind: NodeKind::Gateway,
        group: "east".to_owned(),
        tags: Tags::from([("zone".to_owned(), "a".to_owned())]),
        advertise: Some("gw.example:5000".to_owned()),
        spki_sha256: None,
        enrolled_at: None,
        drain_ends_at: None,
        planned_drain: None,
        cluster: None,
        access_key: None,
        created_at: change.now(),
        revision: 0,
    };
    change.put(node).await.unwrap();
    change.remove_resource(ids[4]).await.unwrap();
    let moved = Resource { tags: Tags::from([("env".to_owned(), "prod".to_owned())]), ..resource(&change, ids[5]) };
    change.put(moved).await.unwrap();
    let settings = postern_proto::sync::NetworkSettings { multi_loopback: true, ..Default::default() };
    change.put_settings(settings).await.unwrap();
    change.commit().await.unwrap();
    let mut change = self::change(&writer).await;
    change.remove_account(bob).await.unwrap();
    change.commit().await.unwrap();

    follower.catch_up().await.unwrap();
    assert_eq!(whole(&follower.catalogue()), whole(&writer.catalogue()));
    assert_eq!(whole(&follower.catalogue()), whole(&open(folder.path()).await.catalogue()));
}

fn resource(change: &Change, id: ResourceId) -> Resource {
    Resource::clone(&change.catalogue().resources[&id])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn what_one_replica_revokes_another_is_told_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let mut change = change(&one).await;
    let ada = put_account(&mut change, "ada@example.org").await;
    change.commit().await.unwrap();
    other.catch_up().await.unwrap();
    let mut told = other.follow();
    let mut change = self::change(&one).await;
    let account = Account { suspended: true, ..Account::clone(&change.catalogue().accounts[&ada]) };
    change.put(account).await.unwrap();
    change.commit().await.unwrap();
    other.catch_up().await.unwrap();
    let changes = told.try_recv().unwrap();
    let subjects: Vec<_> = changes.revocations.iter().map(|revocation| revocation.subject.clone()).collect();
    assert_eq!(subjects, [RevokedSubject::Account { account: ada }]);
    assert_eq!(changes.revocations[0].reason, "the account was suspended");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn what_is_judged_at_one_replica_is_dated_before_a_change_that_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    for number in 0..20 {
        let mut change = change(&one).await;
        let ada = put_account(&mut change, &format!("a{number}@example.org")).await;
        change.commit().await.unwrap();
        let mut change = self::change(&one).await;
        let account = Account { suspended: true, ..Account::clone(&change.catalogue().accounts[&ada]) };
        change.put(account).await.unwrap();
        let asking = tokio::spawn({
            let other = other.clone();
            async move {
                let held = other.hold().await.unwrap();
                (held.at(), other.catalogue().accounts[&ada].suspended)
            }
        });
        tokio::time::sleep(Duration::from_millis(number % 4)).await;
        change.commit().await.unwrap();
        let (at, knew) = asking.await.unwrap();
        let revoked = one.revocations_since(postern_proto::time::UnixMillis(0)).await.unwrap();
        let revoked = revoked.iter().find(|r| r.subject == RevokedSubject::Account { account: ada }).unwrap().at;
        assert!(knew || at <= revoked, "judged by what was before, and dated {at:?} after {revoked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn failed_sign_ins_are_counted_at_all_replicas_together() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let new = |store: &Store| Passwords::new().unwrap().sharing(store);
    let replicas = [new(&one), new(&other)];
    let password = |text: &str| Password::from(text.to_owned());
    let hash = replicas[0].hash(password("correct horse battery")).await.unwrap();
    let verify = async |at: usize, text: &str| {
        replicas[at].verify("ada@example.org", Some(hash.clone()), password(text)).await.unwrap()
    };
    for n in 0..4 {
        assert_eq!(verify(n % 2, "wrong").await, Verdict::Wrong);
    }
    assert_eq!(verify(0, "correct horse battery").await, Verdict::Right);
    for n in 0..5 {
        assert_eq!(verify(n % 2, "wrong").await, Verdict::Wrong, "{n}: a right password clears what came before");
    }
    assert!(matches!(verify(0, "correct horse battery").await, Verdict::Locked { .. }));
    assert!(matches!(verify(1, "correct horse battery").await, Verdict::Locked { .. }));
    replicas[1].forgive("ada@example.org").await.unwrap();
    assert_eq!(verify(0, "correct horse battery").await, Verdict::Right);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_duty_is_one_replicas_until_its_term_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let duty = |store: &Store, term| Duty::new(store.clone(), "test", term);
    let term = Duration::from_secs(300);
    assert!(duty(&one, term).take().await.unwrap());
    assert!(!duty(&other, term).take().await.unwrap());
    assert!(duty(&one, Duration::ZERO).take().await.unwrap(), "who has it may take it again");
    assert!(duty(&other, term).take().await.unwrap());
    assert!(!duty(&one, term).take().await.unwrap());
}

pub(crate) async fn start(folder: &Path, name: &str) -> (Running, CancellationToken) {
    let mut data = choice::data(folder).await;
    data.data = folder.join(name);
    let serve = Serve {
        data,
        listen: "127.0.0.1:0".parse().unwrap(),
        names: vec![],
        tls_cert: None,
        tls_key: None,
        admin_email: "admin@example.org".to_owned(),
        org: "Example".to_owned(),
        absence: Default::default(),
        monitor: Default::default(),
    };
    let stop = CancellationToken::new();
    (Running::start(serve, Clock::system(), stop.clone()).await.unwrap(), stop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn replicas_that_start_at_once_make_one_organisation_one_authority_and_one_administrator() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    choice::url(folder.path()).await;
    let path: Arc<Path> = folder.path().into();
    let starting: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let path = Arc::clone(&path);
            tokio::spawn(async move { start(&path, name).await })
        })
        .into();
    let mut replicas = Vec::new();
    for starting in starting {
        replicas.push(starting.await.unwrap());
    }
    let one = |of: fn(&Running) -> String| replicas.iter().map(|(r, _)| of(r)).collect::<BTreeSet<_>>().len();
    assert_eq!(one(|running| running.ready.ca_fingerprint.clone()), 1);
    assert_eq!(one(|running| running.state.store.org().id.to_string()), 1);
    let keys = |running: &Running| {
        let keys = running.state.lease_keys.read().unwrap();
        format!("{:?}", keys.announced().collect::<Vec<_>>())
    };
    assert_eq!(one(keys), 1);
    assert_eq!(replicas.iter().filter(|(running, _)| running.ready.admin.is_some()).count(), 1);

    // What is done at one, the others know within moments.
    let mut change = change(&replicas[0].0.state.store).await;
    put_role(&mut change, "seen by all").await;
    let revision = change.commit().await.unwrap().revision;
    for (running, _) in &replicas {
        let known = async {
            while running.state.store.catalogue().revision < revision {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WITHIN, known).await.unwrap();
        assert_eq!(running.state.store.catalogue().roles.len(), 1);
    }
    // No secret lies in the data folders.
    for name in ["a", "b", "c"] {
        for entry in std::fs::read_dir(folder.path().join(name)).unwrap() {
            let content = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!String::from_utf8_lossy(&content).contains("PRIVATE KEY"));
        }
    }
    for (running, stop) in replicas {
        stop.cancel();
        running.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn another_key_than_the_one_that_sealed_the_secrets_is_told() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (running, stop) = start(folder.path(), "a").await;
    stop.cancel();
    running.finish().await;
    std::fs::write(choice::key_file(folder.path()), postern_control::sealed::Keyring::draw().unwrap().as_bytes())
        .unwrap();
    let mut data = choice::data(folder.path()).await;
    data.data = folder.path().join("b");
    let serve = Serve {
        data,
        listen: "127.0.0.1:0".parse().unwrap(),
        names: vec![],
        tls_cert: None,
        tls_key: None,
        admin_email: "admin@example.org".to_owned(),
        org: "Example".to_owned(),
        absence: Default::default(),
        monitor: Default::default(),
    };
    let refused = Running::start(serve, Clock::system(), CancellationToken::new()).await.err().unwrap();
    assert!(format!("{refused:#}").contains("is sealed under the key"), "{refused:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_database_that_lost_what_was_committed_begins_one_other_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    for number in 0..3 {
        let mut change = change(&one).await;
        put_role(&mut change, &format!("role {number}")).await;
        change.commit().await.unwrap();
    }
    other.catch_up().await.unwrap();
    let epoch = one.org().epoch.clone();
    // As if a server had taken over that had not got the last two.
    for statement in
        ["UPDATE org SET rev = 1", "DELETE FROM entity_log WHERE rev > 1", "DELETE FROM role WHERE rev > 1"]
    {
        query(statement).execute(one.reader()).await.unwrap();
    }
    one.catch_up().await.unwrap();
    other.catch_up().await.unwrap();
    assert_ne!(one.org().epoch, epoch);
    assert_eq!(one.org().epoch, other.org().epoch);
    for store in [&one, &other] {
        assert_eq!((store.catalogue().revision, store.catalogue().roles.len()), (1, 1));
    }
    let mut change = change(&other).await;
    put_role(&mut change, "after").await;
    assert_eq!(change.commit().await.unwrap().revision, 2);
}
