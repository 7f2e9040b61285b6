//! The OpenAPI 3.1 document, made from the handlers and served at `/api/v1/openapi.json`.
//!
//! It is committed as `openapi.json`; `postern-control openapi` prints it anew, and a test fails when the two differ.

use std::sync::Arc;

use axum::{Router, http::header, routing::get};
use postern_proto::problem::MEDIA_TYPE;
use utoipa::{
    OpenApi as _, ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::{api, state::AppState};

/// Where the document is served.
pub const PATH: &str = "/api/v1/openapi.json";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Postern control plane",
        description = "Accounts, roles, resources, gateways and the audit of one organisation.\n\n\
            Sign in with `POST /api/v1/login`, or use a service token, and send it as `Authorization: Bearer …`. \
            Every error is `application/problem+json` (RFC 9457); a 422 names each field, value and broken rule. \
            Instants are milliseconds since 1970. Lists take `limit`, `cursor` and `filter`.",
    ),
    components(schemas(Problem, Violation)),
    servers((url = "/")),
)]
struct Base;

/// An error.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the type of postern-proto, which knows nothing of OpenAPI")]
struct Problem {
    status: u16,
    /// Stable, for programs.
    code: String,
    /// What failed.
    title: String,
    /// Why, and what to do.
    detail: Option<String>,
    /// One entry for each rule that the request broke.
    violations: Option<Vec<Violation>>,
}

/// A broken rule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the type of postern-proto, which knows nothing of OpenAPI")]
struct Violation {
    field: String,
    value: String,
    rule: String,
}

/// The document before the routes are added.
pub(crate) fn base() -> OpenApi {
    let mut base = Base::openapi();
    base.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    base.components.get_or_insert_default().security_schemes.insert("bearer".to_owned(), RefOr::T(bearer));
    base.security = Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new())]);
    base
}

/// The whole document.
#[must_use]
pub fn document() -> OpenApi {
    let (_, openapi) = api::routes().split_for_parts();
    finish(openapi)
}

/// The document as it is committed and served.
pub fn text() -> Result<String, serde_json::Error> {
    Ok(document().to_pretty_json()? + "\n")
}

/// Every operation may be refused, always with a problem.
fn finish(mut openapi: OpenApi) -> OpenApi {
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let mut refusal = Response::new("Refused: see `code`, `title`, `detail` and `violations`");
            refusal.content.insert(MEDIA_TYPE.to_owned(), RefOr::T(content));
            operation.responses.responses.insert("default".to_owned(), RefOr::T(refusal));
        }
    }
    openapi
}

/// The route of the document.
pub(crate) fn route(openapi: &OpenApi) -> Router<AppState> {
    let text: Arc<str> = finish(openapi.clone()).to_pretty_json().unwrap_or_default().into();
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], text.to_string()) };
    Router::new().route(PATH, get(answer))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    /// Every object of a document.
    fn objects<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
        match value {
            Value::Object(object) => {
                found.push(object);
                object.values().for_each(|inner| objects(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| objects(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_names_of_their_own() {
        let document: Value = serde_json::from_str(&super::text().unwrap()).unwrap();
        let mut found = Vec::new();
        objects(&document, &mut found);
        for reference in found.iter().filter_map(|object| object.get("$ref")?.as_str()) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        let names: Vec<_> = found.iter().filter_map(|object| object.get("operationId")).collect();
        let distinct: BTreeSet<_> = names.iter().filter_map(|name| name.as_str()).collect();
        assert!(names.len() > 40);
        assert_eq!(names.len(), distinct.len());
    }

    #[test]
    fn the_committed_document_is_that_of_the_code() {
        let committed = include_str!("../openapi.json");
        let made = super::text().unwrap();
        assert!(
            committed == made,
            "crates/control/openapi.json is not up to date; run\n    cargo run -p postern-control -- openapi > \
             crates/control/openapi.json"
        );
        assert!(made.contains("\"openapi\": \"3.1.0\""));
    }
}
