//! Every refusal is a problem, also those that no handler makes.

use axum::body::Body;
use http::{Request, StatusCode, header};
use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem() {
    let world = World::start().await;
    let (admin, nobody) = (&world.admin, world.nobody());

    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/accounts/acc_x", 404),
        ("GET", "/resources/res_01JABCDEFGHJKMNPQRSTVWXYZ0", 404),
        ("PUT", "/accounts", 405),
        ("DELETE", "/network", 405),
    ] {
        assert_eq!(admin.refused(method, path, None).await.status, status, "{method} {path}");
    }
    for path in ["/accounts", "/resources", "/activities", "/activities/export", "/network"] {
        let problem = nobody.refused("GET", path, None).await;
        assert_eq!((problem.status, problem.code.as_str()), (401, "not_signed_in"), "{path}");
        let answer = nobody.send("GET", path, None).await;
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    let outside = Request::get("/elsewhere").body(Body::empty()).unwrap();
    assert_eq!(nobody.raw(outside).await.problem().status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_are_problems() {
    let world = World::start().await;
    let post = |kind: Option<&str>, body: Body| {
        let mut request = Request::post("/api/v1/resources");
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        world.admin.raw(request.body(body).unwrap())
    };
    let json = Some("application/json");

    let malformed = post(json, Body::from("{\"name\": ")).await.problem();
    assert_eq!((malformed.status, malformed.code.as_str()), (400, "malformed_json"));
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let problem = post(kind, Body::from("{}")).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (415, "unsupported_media_type"));
    }
    for body in ["[]", "\"x\"", "3"] {
        assert_eq!(post(json, Body::from(body)).await.problem().status, 422, "{body}");
    }
    let nothing = post(None, Body::empty()).await.problem();
    let fields: Vec<_> = nothing.violations.iter().map(|broken| broken.field.as_str()).collect();
    assert_eq!(fields, ["name", "host"], "no body gives no field");
    assert_eq!(post(Some("application/json; charset=utf-8"), Body::from("{}")).await.problem().status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_more_than_a_mebibyte_is_refused_before_the_caller_is_looked_at() {
    let world = World::start().await;
    let long = vec![b' '; (1 << 20) + 1];
    let post =
        |body: Body| Request::post("/api/v1/resources").header(header::CONTENT_TYPE, "application/json").body(body);

    let announced = world.nobody().raw(post(Body::from(long.clone())).unwrap()).await.problem();
    assert_eq!((announced.status, announced.code.as_str()), (413, "too_large"));
    let chunks =
        futures_util::stream::iter(long.chunks(8192).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>());
    let streamed = world.admin.raw(post(Body::from_stream(chunks)).unwrap()).await.problem();
    assert_eq!((streamed.status, streamed.code.as_str()), (413, "too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_parameter_or_field_is_told_and_not_ignored() {
    let world = World::start().await;
    let problem = world.admin.refused("GET", "/accounts?filtr=x&limit=5000&cursor=!", None).await;
    let fields: Vec<_> = problem.violations.iter().map(|broken| broken.field.as_str()).collect();
    assert_eq!(fields, ["filtr", "limit", "cursor"]);
    let problem = world.admin.refused("GET", "/resources?filter=colour:red", None).await;
    assert!(problem.violations[0].rule.contains("fields are name, kind"), "{problem:?}");
    let broken = world.admin.broken("POST", "/roles", json!({"name": "x", "nam": "y"})).await;
    assert_eq!(broken[0].0, "nam");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_to_everybody_and_is_openapi_3_1() {
    let world = World::start().await;
    let answer = world.nobody().send("GET", "/openapi.json", None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["openapi"], "3.1.0");
    assert!(answer.json()["paths"]["/api/v1/resources"]["post"].is_object());
}
