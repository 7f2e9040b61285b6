//! Bodies of requests: only what was given goes in.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::entity::Found;
use crate::{args::admin::TagChanges, exit::Exit, failure::Failure};

#[derive(Default)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn set(mut self, field: &str, value: impl Serialize) -> Self {
        self.0.insert(field.to_owned(), json!(value));
        self
    }

    pub(super) fn set_if(self, field: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.set(field, value),
            None => self,
        }
    }

    /// A flag that is false unless it is given.
    pub(super) fn flag(self, field: &str, given: bool) -> Self {
        if given { self.set(field, true) } else { self }
    }

    pub(super) fn tags(self, tags: &[(String, String)]) -> Self {
        if tags.is_empty() {
            return self;
        }
        let tags: Map<_, _> = tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        self.set("tags", tags)
    }

    /// The tags after the changes; the API takes all of them at once.
    pub(super) fn tag_changes(self, changes: &TagChanges, current: &Found) -> Self {
        if changes.is_empty() {
            return self;
        }
        let mut tags = current.item.get("tags").and_then(Value::as_object).cloned().unwrap_or_default();
        for key in &changes.remove {
            tags.remove(key);
        }
        tags.extend(changes.set.iter().map(|(key, value)| (key.clone(), json!(value))));
        self.set("tags", tags)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.0)
    }

    /// For changes: something must be there to change.
    pub(super) fn not_empty(self) -> Result<Value, Failure> {
        if self.is_empty() {
            return Err(Failure::new(Exit::Usage, "there is nothing to change").next("see what can be: add --help"));
        }
        Ok(self.finish())
    }
}
