use postern_local_api::{
    client::{ClientError, LocalClient},
    message::{ControlLink, KeyStorage, SignIn, Status, StatusApi, VERSION},
};

use super::*;
use crate::board::Board;

struct Served {
    _folder: tempfile::TempDir,
    client: LocalClient,
    stop: CancellationToken,
    calls: TaskTracker,
}

fn serve_at_temporary_socket() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("posternd.sock");
    let status = Status {
        service: "test".to_owned(),
        sign_in: SignIn::SignedOut,
        control: ControlLink::None,
        key_storage: KeyStorage::File { path: String::new() },
        certificate_ends: None,
        gateways: Vec::new(),
        resources: Vec::new(),
        allowed_uids: Vec::new(),
        status_api: StatusApi::Off,
        warnings: Vec::new(),
    };
    let (stop, calls) = (CancellationToken::new(), TaskTracker::new());
    let handle = Handle { board: Arc::new(Board::new(status)), stop: stop.clone() };
    let listener = listen(&path).unwrap();
    tokio::spawn(serve(listener, router(handle), stop.clone(), calls.clone()));
    Served { client: LocalClient::new(&path), _folder: folder, stop, calls }
}

#[tokio::test]
async fn the_owner_is_greeted_and_gets_the_status() {
    let served = serve_at_temporary_socket();
    assert_eq!(served.client.hello().await.unwrap().version, VERSION);
    assert_eq!(served.client.status().await.unwrap().service, "test");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only_and_replaces_a_leftover() {
    let served = serve_at_temporary_socket();
    let path = served.client.socket().to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    served.stop.cancel();
    listen(&path).unwrap();
}

#[test]
fn only_the_owner_and_root_are_admitted() {
    assert!(is_admitted(1000, 1000));
    assert!(is_admitted(0, 1000));
    assert!(!is_admitted(1001, 1000));
    assert!(!is_admitted(1001, 0));
    assert!(!is_admitted(65534, 1000));
}

#[tokio::test]
async fn a_foreign_user_is_told_why_and_nothing_else() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(admit(&theirs, tun_driver::socket_owner::own_uid()).is_ok());
    let problem = admit(&theirs, 4_000_000_000).err();
    let uid = tun_driver::socket_owner::own_uid();
    match problem {
        Some(problem) => assert_eq!((problem.status, problem.code.as_str()), (403, "not-your-service")),
        None => assert_eq!(uid, 0, "only root may talk to another user's service"),
    }
    drop(ours);
}

#[tokio::test]
async fn an_unknown_call_is_a_problem_in_words() {
    let served = serve_at_temporary_socket();
    let error = served.client.doctor().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(problem) if problem.status == 404), "no problem");
}

#[tokio::test]
async fn shutdown_is_agreed_to_and_ends_the_event_streams() {
    let served = serve_at_temporary_socket();
    let mut events = served.client.events().await.unwrap();
    events.next().await.unwrap();
    served.client.shutdown().await.unwrap();
    assert!(events.next().await.is_err());
    served.calls.close();
    tokio::time::timeout(Duration::from_secs(10), served.calls.wait()).await.unwrap();
}
