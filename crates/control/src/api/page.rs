//! Lists: `?limit&cursor&filter`, an answer of items and the cursor of the next page.

use std::collections::BTreeMap;

use axum::{
    extract::{FromRequestParts, RawQuery},
    http::request::Parts,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use postern_proto::filter::{Filter, Subject};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    input::Violations,
    refusal::{Answer, Refusal},
};
use crate::store::StoreError;

/// Items of a page when the caller does not say.
pub const DEFAULT_LIMIT: usize = 100;
/// Items of a page at most.
pub const MAX_LIMIT: usize = 1000;

/// Rows that one request looks through at most.
pub const MAX_SCAN: usize = 20_000;
/// Rows that are read at a time.
const CHUNK: i64 = 500;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// To be given as `cursor` for the next page; null: this was the last.
    pub next_cursor: Option<String>,
}

/// Which page of a list is asked for.
#[derive(Clone, Debug)]
pub struct List {
    pub limit: usize,
    /// The key after which the page begins.
    pub after: Option<String>,
    /// The filter as it was written.
    pub filter: String,
}

/// The query of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `List` reads")]
pub struct ListParams {
    /// Items of a page, 1 to 1000; 100 when left out.
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Terms `field:value` joined by spaces, `*` as wildcard, for example `name:pay* tags:env=prod kind:tcp`.
    filter: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for List {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let RawQuery(query) =
            RawQuery::from_request_parts(parts, state).await.unwrap_or_else(|infallible| match infallible {});
        Self::read(query.as_deref().unwrap_or_default())
    }
}

impl List {
    fn read(query: &str) -> Answer<Self> {
        let mut broken = Violations::default();
        let mut list = Self { limit: DEFAULT_LIMIT, after: None, filter: String::new() };
        for (key, value) in form_urlencoded(query) {
            match key.as_str() {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => list.limit = limit,
                    _ => broken.add("limit", value, format_args!("must be a number from 1 to {MAX_LIMIT}")),
                },
                "cursor" => match decode(&value) {
                    Some(after) => list.after = Some(after),
                    None => broken.add("cursor", value, "must be the next_cursor of a page before"),
                },
                "filter" => list.filter = value,
                _ => broken.add(&key, value, "is not a parameter here; parameters are limit, cursor, filter"),
            }
        }
        broken.none()?;
        Ok(list)
    }

    /// The filter, whose fields must be among `known`.
    pub fn filter(&self, known: &[&str]) -> Answer<Filter> {
        let mut broken = Violations::default();
        let filter = broken.check("filter", &self.filter, Filter::parse(&self.filter, known));
        broken.take(filter)
    }

    /// The page of what matches, in the order of `key`, which must name each item alone.
    pub fn page<T: Subject>(
        &self,
        items: impl Iterator<Item = T>,
        known: &[&str],
        key: impl Fn(&T) -> String,
    ) -> Answer<Page<T>> {
        let filter = self.filter(known)?;
        let mut first: BTreeMap<String, T> = BTreeMap::new();
        let mut more = false;
        for item in items.filter(|item| filter.matches(item)) {
            let key = key(&item);
            let full = first.len() == self.limit;
            let behind = first.last_key_value().filter(|_| full).is_some_and(|(last, _)| key > *last);
            if self.after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            more |= full;
            if !behind {
                first.insert(key, item);
            }
            if first.len() > self.limit {
                first.pop_last();
            }
        }
        let next_cursor = first.last_key_value().filter(|_| more).map(|(key, _)| encode(key));
        Ok(Page { items: first.into_values().collect(), next_cursor })
    }
}

impl List {
    /// The page of what matches among rows that are too many for memory. `rows` reads some after a key, in their order;
    /// at most [`MAX_SCAN`] are looked at, so a page may be short of items and still not be the last.
    pub async fn scan<T, R>(&self, known: &[&str], mut rows: impl FnMut(Option<i64>, i64) -> R) -> Answer<Page<T>>
    where
        T: Subject,
        R: Future<Output = Result<Vec<(i64, T)>, StoreError>>,
    {
        let filter = self.filter(known)?;
        let mut after = self.after.as_ref().map(|key| key.parse()).transpose().map_err(|_| bad_cursor())?;
        let (mut items, mut seen) = (Vec::new(), 0);
        while seen < MAX_SCAN {
            let chunk = rows(after, CHUNK).await?;
            let last = chunk.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX);
            for (key, item) in chunk {
                if items.len() == self.limit {
                    return Ok(Page { items, next_cursor: after.map(|key| encode(&key.to_string())) });
                }
                seen += 1;
                after = Some(key);
                if filter.matches(&item) {
                    items.push(item);
                }
            }
            if last {
                return Ok(Page { items, next_cursor: None });
            }
        }
        Ok(Page { items, next_cursor: after.map(|key| encode(&key.to_string())) })
    }
}

fn bad_cursor() -> Refusal {
    let mut broken = Violations::default();
    broken.add("cursor", "", "must be the next_cursor of a page before");
    broken.into()
}

impl<T> Page<T> {
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

/// A key as a cursor: nothing that a caller should read or build.
#[must_use]
pub fn encode(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

fn decode(cursor: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// The pairs of a query. What is not UTF-8 is replaced, what is no percent sequence stands for itself.
pub(super) fn form_urlencoded(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (percent(k), percent(v))).collect()
}

fn percent(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            (byte, ..) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use postern_proto::filter::Value;

    use super::*;

    struct Item(String);

    impl Subject for Item {
        fn value(&self, field: &str) -> Value<'_> {
            if field == "name" { self.0.as_str().into() } else { Value::None }
        }
    }

    fn list(query: &str) -> List {
        List::read(query).unwrap()
    }

    fn names(list: &List, count: u32) -> (Vec<String>, Option<String>) {
        let items = (0..count).rev().map(|n| Item(format!("item {n:03}")));
        let page = list.page(items, &["name"], |item| item.0.clone()).unwrap();
        (page.items.into_iter().map(|item| item.0).collect(), page.next_cursor)
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let (items, next) = names(&list(&format!("limit=7{cursor}")), 30);
            seen.extend(items);
            let Some(next) = next else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, (0..30).map(|n| format!("item {n:03}")).collect::<Vec<_>>());
    }

    #[test]
    fn the_filter_is_read_from_the_query() {
        let (items, next) = names(&list("filter=name%3A%22item+00*%22"), 30);
        assert_eq!(items.len(), 10);
        assert_eq!(next, None);
    }

    #[test]
    fn everything_wrong_with_a_query_is_told_at_once() {
        let Refusal(problem) = List::read("limit=0&cursor=%21&filtr=x").unwrap_err();
        let fields: Vec<_> = problem.violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["limit", "cursor", "filtr"]);
        assert!(list("filter=colour:red").filter(&["name"]).is_err());
    }
}
