//! The control plane's own description of its API, as it is committed: every call that a test sees must be in it.

use std::sync::LazyLock;

use serde_json::Value;

static OPENAPI: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../control/openapi.json")).unwrap());

/// Whether the call exists, with this query and these fields of the body.
pub(crate) fn check(method: &str, path: &str, body: &Value) -> Result<(), String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let operation = operation(method, path).ok_or_else(|| format!("{method} {path} is not in openapi.json"))?;
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if !parameters.iter().any(|parameter| parameter["in"] == "query" && parameter["name"] == name) {
            return Err(format!("{method} {path} has no parameter {name}"));
        }
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    has_fields(schema, body).map_err(|field| format!("{method} {path} takes no field {field}"))
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = OPENAPI["paths"].as_object()?;
    let found = paths.iter().filter(|(template, _)| fits(template, path));
    found.filter_map(|(_, item)| item.get(method.to_ascii_lowercase())).next()
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}

/// The first field of the body that the schema does not have.
fn has_fields(schema: &Value, body: &Value) -> Result<(), String> {
    let schema = resolve(schema);
    for (field, value) in body.as_object().into_iter().flatten() {
        let Some(property) = schema["properties"].get(field) else { return Err(field.clone()) };
        let inner = property["oneOf"].as_array().and_then(|forms| forms.iter().find(|form| form.get("$ref").is_some()));
        if let Some(inner) = inner.or_else(|| property.get("$ref").map(|_| property)) {
            has_fields(inner, value).map_err(|inner| format!("{field}.{inner}"))?;
        }
    }
    Ok(())
}

fn resolve(schema: &Value) -> &Value {
    let name = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    name.map_or(schema, |name| &OPENAPI["components"]["schemas"][name])
}

#[test]
fn the_contract_tells_good_calls_from_bad_ones() {
    let check = |method, path, body: &str| check(method, path, &serde_json::from_str(body).unwrap());
    assert_eq!(check("GET", "/api/v1/accounts?limit=3&filter=x", "null"), Ok(()));
    assert_eq!(check("POST", "/api/v1/resources", r#"{"name":"x","bind":{"port":1}}"#), Ok(()));
    assert!(check("GET", "/api/v1/acounts", "null").is_err());
    assert!(check("PUT", "/api/v1/accounts", "null").is_err());
    assert!(check("GET", "/api/v1/accounts?limt=3", "null").is_err());
    assert!(check("POST", "/api/v1/resources", r#"{"nme":"x"}"#).is_err());
    assert!(check("POST", "/api/v1/resources", r#"{"bind":{"prt":1}}"#).is_err());
}
