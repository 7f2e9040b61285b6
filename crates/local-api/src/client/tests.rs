use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

use super::*;
use crate::message::Event;

const HELLO: &str = r#"{"version":1,"service":"0.1.0","pid":1,"uid":0}"#;

/// Answers connections one after the other: the n-th with the n-th text, the last text for all further ones.
struct Script {
    folder: TempDir,
    received: Arc<AtomicUsize>,
}

impl Script {
    fn serve(answers: Vec<String>) -> (Self, LocalClient) {
        let folder = TempDir::new().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 65536];
                count.fetch_add(stream.read(&mut request).await.unwrap_or_default(), Ordering::SeqCst);
                let answer = answers.get(n.min(answers.len() - 1)).unwrap();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let client = LocalClient::new(folder.path().join("s"));
        (Self { folder, received }, client)
    }
}

fn json(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A stream without an announced length, which ends with its connection.
fn lines(lines: &[String]) -> String {
    format!("HTTP/1.1 200 OK\r\n\r\n{}", lines.concat())
}

fn status() -> Status {
    Status::signed_out("0.1.0")
}

fn snapshot(seq: u64) -> String {
    let event = Event::Snapshot { status: Box::new(status()) };
    format!("{}\n", serde_json::to_string(&crate::message::Numbered { seq, event }).unwrap())
}

fn notice(seq: u64) -> String {
    format!("{{\"seq\":{seq},\"event\":\"notice\",\"level\":\"info\",\"text\":\"n{seq}\"}}\n")
}

#[tokio::test]
async fn a_missing_socket_means_that_the_service_is_not_running() {
    let folder = TempDir::new().unwrap();
    let error = LocalClient::new(folder.path().join("s")).hello().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_means_that_the_service_is_not_running() {
    let folder = TempDir::new().unwrap();
    drop(UnixListener::bind(folder.path().join("s")).unwrap());
    let error = LocalClient::new(folder.path().join("s")).status().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_process_of_another_user() {
    let (script, mut client) = Script::serve(vec![json(200, HELLO)]);
    client.owner = client.owner.wrapping_add(1);
    let login = Unlock { password: "secret".to_owned() };
    let error = client.unlock(&login).await.unwrap_err();
    assert!(matches!(&error, ClientError::NotOurs { reason, .. } if reason.contains("nothing was sent")), "{error:?}");
    // The listener is served in order: once a good client has been answered, the bad one's connection was read to its end.
    LocalClient::new(client.socket()).hello().await.unwrap();
    let hello_alone = script.received.load(Ordering::SeqCst);
    LocalClient::new(client.socket()).hello().await.unwrap();
    assert_eq!(script.received.load(Ordering::SeqCst), 2 * hello_alone);
    assert!(script.folder.path().exists());
}

#[tokio::test]
async fn a_service_of_another_version_is_named_even_when_its_hello_looks_different() {
    let (_script, client) = Script::serve(vec![json(200, r#"{"version":7,"service":"9.0","process":{"id":3}}"#)]);
    let error = client.hello().await.unwrap_err();
    assert!(matches!(&error, ClientError::VersionMismatch { ours: VERSION, theirs: 7, .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "this program speaks version 1 of the local API, but the running posternd 9.0 speaks version 7"
    );
}

#[tokio::test]
async fn a_refusal_arrives_with_its_problem() {
    let body = r#"{"status":409,"code":"locked","title":"you are locked","detail":"unlock first"}"#;
    let (_script, client) = Script::serve(vec![json(409, body)]);
    let error = client.connect(&Selection::All).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.code == "locked"), "{error:?}");
}

#[tokio::test]
async fn an_error_without_a_problem_is_garbled_and_names_the_call() {
    let (_script, client) = Script::serve(vec![json(500, "<html>")]);
    let error = client.sessions().await.unwrap_err();
    assert!(matches!(&error, ClientError::Garbled { call, .. } if call == "GET /v1/sessions"), "{error:?}");
}

#[tokio::test]
async fn an_answer_of_another_shape_is_garbled() {
    let (_script, client) = Script::serve(vec![json(200, r#"{"checks":3}"#)]);
    assert!(matches!(client.doctor().await.unwrap_err(), ClientError::Garbled { .. }));
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_broke_off() {
    let (_script, client) = Script::serve(vec!["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned()]);
    assert!(matches!(client.status().await.unwrap_err(), ClientError::BrokenOff { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_nothing_is_given_up_after_the_deadline() {
    let folder = TempDir::new().unwrap();
    let _listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let error = LocalClient::new(folder.path().join("s")).status().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { after: LOCAL_DEADLINE, .. }), "{error:?}");
}

#[tokio::test]
async fn an_error_of_the_control_plane_is_a_refusal() {
    let problem = r#"{"status":404,"code":"not_found","title":"no such role"}"#;
    let answers = [format!(r#"{{"status":404,"body":{problem}}}"#), r#"{"status":502,"body":"oops"}"#.to_owned()];
    let (_script, client) = Script::serve(answers.iter().map(|body| json(200, body)).collect());
    let call = ControlCall { method: "GET".to_owned(), path: "/api/v1/roles/x".to_owned(), body: None };
    let error = client.control(&call).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.title == "no such role"), "{error:?}");
    let error = client.control(&call).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(problem) if problem.status == 502), "{error:?}");
}

#[tokio::test]
async fn events_are_read_in_order_until_the_service_closes() {
    let stream = lines(&[snapshot(41), "\n".to_owned(), notice(42), notice(43)]);
    let (_script, client) = Script::serve(vec![json(200, HELLO), stream]);
    let mut events = client.events().await.unwrap();
    assert!(matches!(events.next().await.unwrap().event, Event::Snapshot { .. }));
    assert_eq!(events.next().await.unwrap().seq, 42);
    assert_eq!(events.next().await.unwrap().seq, 43);
    assert!(matches!(events.next().await.unwrap_err(), ClientError::BrokenOff { .. }));
}

#[tokio::test]
async fn a_gap_in_the_numbers_ends_the_stream() {
    let (_script, client) = Script::serve(vec![json(200, HELLO), lines(&[snapshot(1), notice(3)])]);
    let mut events = client.events().await.unwrap();
    events.next().await.unwrap();
    let error = events.next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Garbled { reason, .. } if reason.contains("event 3")), "{error:?}");
}

#[tokio::test]
async fn following_goes_on_with_a_snapshot_after_each_loss() {
    let first = lines(&[snapshot(1), notice(2)]);
    let broken = lines(&[notice(9)]);
    let second = lines(&[snapshot(1), notice(2)]);
    let hello = json(200, HELLO);
    let (_script, client) = Script::serve(vec![hello.clone(), first, hello.clone(), broken, hello, second]);
    let mut follow = client.follow();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(match follow.next().await.unwrap() {
            Update::Event(event) => match *event {
                Event::Snapshot { .. } => "snapshot",
                _ => "event",
            },
            Update::Lost(_) => "lost",
        });
    }
    assert_eq!(seen, ["snapshot", "event", "lost", "snapshot", "event"]);
}

#[tokio::test]
async fn following_stops_where_no_retry_can_help() {
    let (_script, client) = Script::serve(vec![json(200, r#"{"version":2}"#)]);
    assert!(matches!(client.follow().next().await.unwrap_err(), ClientError::VersionMismatch { .. }));
}
