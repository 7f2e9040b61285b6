//! Calls of the control plane's REST API.

use std::fmt::Write as _;

use postern_local_api::{
    client::LocalClient,
    message::{ControlCall, ControlLink},
};
use serde_json::Value;

use crate::{exit::Exit, failure::Failure, waiting};

/// The most items that the API puts on a page.
pub(super) const PAGE: usize = 1000;

pub(super) struct Api {
    service: LocalClient,
    control: Option<String>,
}

/// Items of a list, and the cursor of what comes after them.
pub(super) struct Items {
    pub(super) items: Vec<Value>,
    pub(super) next: Option<String>,
}

impl Api {
    pub(super) fn new(service: LocalClient, link: &ControlLink) -> Self {
        Self { service, control: link.url().map(str::to_owned) }
    }

    /// Where the control plane is.
    pub(super) fn control_url(&self) -> Option<&str> {
        self.control.as_deref()
    }

    /// `path` is what comes after `/api/v1/`.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.call("POST", path, Some(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.call("PATCH", path, Some(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.call("PUT", path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.call("DELETE", path, None).await.map(drop)
    }

    /// One page of a collection.
    pub(super) async fn page(
        &self,
        collection: &str,
        filter: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Items, Failure> {
        let mut path = format!("{collection}?limit={limit}");
        for (name, value) in [("filter", filter), ("cursor", cursor)] {
            if let Some(value) = value {
                let _ = write!(path, "&{name}={}", percent(value));
            }
        }
        let mut answer = self.get(&path).await?;
        let next = answer.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(Items { items, next }),
            _ => Err(Failure::new(Exit::Failed, format!("the control plane's list of {collection} makes no sense"))),
        }
    }

    /// The first `limit` items of a collection, over as many pages as it takes; 0 stands for all.
    pub(super) async fn list(&self, collection: &str, filter: Option<&str>, limit: usize) -> Result<Items, Failure> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut all = Items { items: Vec::new(), next: None };
        loop {
            let wanted = PAGE.min(limit - all.items.len());
            let page = self.page(collection, filter, wanted, all.next.as_deref()).await?;
            // A page may be empty and yet have a next one: a filter looks through a part at a time. A cursor that stays
            // the same leads nowhere.
            let over = page.next.is_none() || page.next == all.next;
            all.items.extend(page.items);
            all.next = page.next;
            if over || all.items.len() >= limit {
                all.items.truncate(limit);
                return Ok(all);
            }
        }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        let call = ControlCall { method: method.to_owned(), path: format!("/api/v1/{path}"), body };
        let answer = waiting::during("asking the control plane", self.service.control(&call)).await;
        Ok(answer?.body)
    }
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub(super) fn percent(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_a_person_types_stays_one_value_of_the_query() {
        assert_eq!(super::percent("name:pay* a&b=ü/"), "name%3Apay%2A%20a%26b%3D%C3%BC%2F");
    }
}
