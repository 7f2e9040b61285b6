//! Calls of the control plane's REST API.

use serde::{Deserialize, Serialize};

/// A call of the control plane's REST API, made with the login that the service holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlCall {
    /// `GET`, `POST`, `PATCH`, `PUT` or `DELETE`.
    pub method: String,
    /// Begins with `/api/v1/`; may hold a query.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub status: u16,
    /// JSON where the answer was JSON, a string where it was text, null where it was empty.
    pub body: serde_json::Value,
}
