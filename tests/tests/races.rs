//! What may happen once happens once, however many try at the same time.

use std::sync::Arc;

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    api::Api,
    device::{Device, request},
    stack::{PASSWORD, Stack},
};
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

const ENROLMENTS: usize = 100;
const ADMINISTRATORS: usize = 2;
const ROUNDS: u16 = 20;

/// Lets all calls start at the same moment; their statuses and bodies.
async fn at_once(calls: Vec<(Api, &'static str, String, Value)>) -> anyhow::Result<Vec<(u16, Value)>> {
    let barrier = Arc::new(Barrier::new(calls.len()));
    let mut tasks = JoinSet::new();
    for (api, method, path, body) in calls {
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            barrier.wait().await;
            api.call(method, &path, Some(body)).await.map(|answer| (answer.status, answer.body))
        });
    }
    tasks.join_all().await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_enrols_one_gateway_of_a_hundred() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let created = stack.api().post("/api/v1/gateways", json!({"name": "wanted"})).await?;
    let token = created["enrol_token"].as_str().context("a new gateway has a token")?;
    let anonymous = Api::new(stack.control.address(), None, None)?;
    let mut calls = Vec::new();
    for number in 0..ENROLMENTS {
        let csr = request(&rcgen::KeyPair::generate()?)?;
        let body = json!({"token": token, "csr": csr, "advertise": format!("127.0.0.1:{}", 10_000 + number)});
        calls.push((anonymous.clone(), "POST", "/api/v1/nodes/enrol".to_owned(), body));
    }
    let answers = at_once(calls).await?;
    let won = answers.iter().filter(|(status, _)| (200..300).contains(status)).count();
    let refused = answers.iter().filter(|(status, _)| (400..500).contains(status)).count();
    assert_eq!((won, refused), (1, ENROLMENTS - 1), "{answers:?}");
    let secret = answers.iter().any(|(status, body)| *status >= 400 && body.to_string().contains("BEGIN CERTIFICATE"));
    assert!(!secret, "a refused enrolment was given a certificate");
    let gateways = stack.api().list("/api/v1/gateways").await?;
    assert_eq!(gateways.len(), 1);
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_administrators_who_want_one_address_one_gets_it() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let mut administrators = Vec::new();
    for number in 0..ADMINISTRATORS {
        let email = format!("admin{number}@example.org");
        stack.create_account_that_is(&email, true).await?;
        administrators.push(Device::with_password(stack.control.address(), &email, PASSWORD).await?);
    }
    for round in 0..ROUNDS {
        let bind = json!({"mode": "loopback", "ip": stack.loopback, "port": 20_000 + round});
        let calls = administrators.iter().enumerate().map(|(number, administrator)| {
            let name = format!("round {round} of {number}");
            let body = json!({"name": name, "kind": Kind::Tcp, "host": "db.internal", "port": 1, "bind": bind});
            (administrator.api().clone(), "POST", "/api/v1/resources".to_owned(), body)
        });
        let answers = at_once(calls.collect()).await?;
        let mut statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 422], "{answers:?}");
        let problem = answers.iter().find(|(status, _)| *status == 422).context("one lost")?.1.to_string();
        assert!(problem.contains(&format!("{}", 20_000 + round)), "the refusal does not name the value: {problem}");
    }
    stack.stop().await
}

/// Assigned addresses are unique too, when many ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn assigned_addresses_are_never_given_twice() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let calls = (0..50).map(|number| {
        let body = json!({"name": format!("r{number}"), "kind": "tcp", "host": "db.internal", "port": 1});
        (stack.api().clone(), "POST", "/api/v1/resources".to_owned(), body)
    });
    let answers = at_once(calls.collect()).await?;
    let mut binds: Vec<_> = answers
        .iter()
        .map(|(status, body)| format!("{status} {}:{}", body["bind"]["ip"], body["bind"]["port"]))
        .collect();
    assert!(binds.iter().all(|bind| bind.starts_with("201")), "{answers:?}");
    binds.sort_unstable();
    let before = binds.len();
    binds.dedup();
    assert_eq!(binds.len(), before, "an address was given twice");
    stack.stop().await
}

/// A one-time password of the first start, and any password, is locked after five failures, and the answer is the same
/// whether the account exists.
#[tokio::test(flavor = "multi_thread")]
async fn five_failures_lock_an_account_and_nobody_learns_whether_it_exists() -> anyhow::Result<()> {
    let stack = Stack::builder().gateways(0).without_user().start().await?;
    let anonymous = Api::new(stack.control.address(), None, None)?;
    let csr = request(&rcgen::KeyPair::generate()?)?;
    let attempt = |email: &str, password: &str| {
        let device = json!({"name": "n", "os": "o"});
        json!({"method": "password", "email": email, "password": password, "device": device, "csr": csr})
    };
    let mut seen = Vec::new();
    for email in [postern_tests::stack::EMAIL, "nobody@example.org"] {
        let mut answers = Vec::new();
        for _ in 0..6 {
            let answer =
                anonymous.call("POST", "/api/v1/login", Some(attempt(email, "wrong password of length"))).await?;
            answers.push((answer.status, answer.body["code"].clone(), answer.body["title"].clone()));
        }
        let right = anonymous.call("POST", "/api/v1/login", Some(attempt(email, PASSWORD))).await?;
        assert!(right.status >= 400, "{email} is not locked");
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1], "the answers tell whether the account exists");
    stack.stop().await
}
