//! Liveness and metrics, as orchestrators and Prometheus read them.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    openmetrics,
    support::{ADMIN, World},
};

async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: monitor\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_says_whether_it_serves_and_what_it_did_without_a_name() {
    let world = World::start().await;
    let places = world.running().ready.monitor;
    let (liveness, metrics) = (places.liveness.unwrap(), places.metrics.unwrap());
    let (status, body) = get(liveness, "/liveness").await;
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, said), (200, json!({ "serving": true, "reasons": [], "database": "here" })));
    assert_eq!(get(liveness, "/alive").await.0, 200);
    assert_eq!(get(liveness, "/metrics").await.0, 404, "each page has its own address");

    world.sign_in(ADMIN, "not the password").await.err().unwrap();
    let resource = world.create_resource("payroll-db", json!({})).await;
    world.admin.refused("GET", "/resources/res_01JABCDEFGHJKMNPQRSTVWXYZ0", None).await;
    let (mut status, mut text) = get(metrics, "/metrics").await;
    // The database is asked for its revision twice a second.
    while openmetrics::sample(&text, "postern_database_seconds_count{operation=\"read\"}").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        (status, text) = get(metrics, "/metrics").await;
    }
    assert_eq!(status, 200);
    for (sample, least) in [
        ("postern_sign_ins_total{outcome=\"accepted\"}", 1.0),
        ("postern_sign_ins_total{outcome=\"login_failed\"}", 1.0),
        ("postern_requests_total{class=\"change\",status=\"2xx\"}", 2.0),
        ("postern_requests_refused_total{class=\"read\",code=\"not_found\"}", 1.0),
        ("postern_request_seconds_count{class=\"sign_in\"}", 2.0),
        ("postern_certificates_total{kind=\"device\"}", 1.0),
        ("postern_database_seconds_count{operation=\"commit\"}", 2.0),
        ("postern_database_seconds_count{operation=\"read\"}", 1.0),
        ("postern_sync_connections{kind=\"device\"}", 0.0),
        ("postern_sync_connections{kind=\"worker\"}", 0.0),
        ("postern_revision", 2.0),
        ("postern_revision_unseen_seconds", 0.0),
        ("postern_duty_held{duty=\"maintenance\"}", 0.0),
        ("postern_process_open_fds", 3.0),
    ] {
        let found = openmetrics::sample(&text, sample);
        assert!(found.is_some_and(|found| found >= least), "{sample}: {found:?}\n{text}");
    }
    for name in [ADMIN, "payroll", &resource, "tests"] {
        assert!(!text.contains(name), "{name} is in\n{text}");
    }
}
