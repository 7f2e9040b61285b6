//! What is the same for all things: listing, showing, deleting, and finding one by what a person calls it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    api::{Api, percent},
    noun::Noun,
    show,
};
use crate::{
    account,
    args::admin::{DeleteArgs, ListArgs, Sure},
    context::Context,
    exit::Exit,
    failure::Failure,
    name, prompt,
    screen::{BOLD, DIM, GOOD, Line},
    text,
};

/// Above this many distinct ids, reading the whole list is cheaper than one call for each.
const FEW: usize = 20;

pub(super) async fn list(noun: &Noun, args: &ListArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    list_at(noun, noun.collection, args, api, context).await
}

/// Lists a collection that hangs on another thing.
pub(super) async fn list_at(
    noun: &Noun,
    collection: &str,
    args: &ListArgs,
    api: &Api,
    context: &mut Context,
) -> Result<(), Failure> {
    let filter = args.filter.as_deref();
    let found = api.list(collection, filter, args.limit).await?;
    if args.json {
        return Ok(context.screen.json(&json!({ "items": found.items, "next_cursor": found.next }))?);
    }
    if found.items.is_empty() {
        let which = if filter.is_some() { "matching " } else { "" };
        return Ok(context.screen.line(&Line::of(format!("There are no {which}{}.", noun.plural)))?);
    }
    let items = with_names(noun, found.items, api).await;
    context.screen.grid(&show::grid(noun, &items))?;
    if found.next.is_some() {
        let more = format!("There are more {}; --limit 0 lists all, --filter narrows the list.", noun.plural);
        context.note(Line::new().styled(DIM, more));
    }
    Ok(())
}

pub(super) async fn show(
    noun: &Noun,
    reference: &str,
    as_json: bool,
    api: &Api,
    context: &mut Context,
) -> Result<(), Failure> {
    let found = find(noun, reference, api).await?;
    // A list may say less than the thing itself.
    let item = if noun.names.is_empty() { found.item } else { api.get(&path(noun, &found)).await? };
    show_item(noun, item, as_json, api, context).await
}

/// Shows a thing that was read already.
pub(super) async fn show_item(
    noun: &Noun,
    item: Value,
    as_json: bool,
    api: &Api,
    context: &mut Context,
) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(&item)?);
    }
    let named = with_names(noun, vec![item], api).await;
    named.iter().try_for_each(|item| show::thing(item, context))
}

pub(super) async fn delete(noun: &Noun, args: &DeleteArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let mut doomed = Vec::new();
    for reference in &args.references {
        doomed.push(find(noun, reference, api).await?);
    }
    let named: Vec<_> = doomed.iter().map(|found| (path(noun, found), found.name.clone())).collect();
    delete_all(noun, named, &args.sure, api, context).await
}

/// Deletes what the paths lead to, after asking.
pub(super) async fn delete_all(
    noun: &Noun,
    doomed: Vec<(String, String)>,
    sure: &Sure,
    api: &Api,
    context: &mut Context,
) -> Result<(), Failure> {
    if !sure.yes {
        let names: Vec<_> = doomed.iter().map(|(_, name)| name.clone()).collect();
        let what = if names.len() == 1 { noun.singular } else { noun.plural };
        if !prompt::possible() {
            return Err(Failure::new(Exit::Usage, "there is no terminal to ask on whether you are sure")
                .next("say it with --yes"));
        }
        if !prompt::confirm(format!("Delete {what} {}?", names.join(", "))).await? {
            return Ok(context.screen.line(&Line::of("Nothing was deleted."))?);
        }
    }
    for (path, name) in doomed {
        api.delete(&path)
            .await
            .map_err(|failure| failure.while_(&format!("cannot delete {} {name}", noun.singular)))?;
        done("Deleted", noun, &name, None, context)?;
    }
    Ok(())
}

/// `Created role ops (rol_…)`.
pub(super) fn done(
    verb: &str,
    noun: &Noun,
    name: &str,
    id: Option<&str>,
    context: &mut Context,
) -> Result<(), Failure> {
    let line = Line::new().styled(GOOD, verb).plain(format!(" {} ", noun.singular)).styled(BOLD, name);
    let line = match id {
        Some(id) if id != name => line.styled(DIM, format!(" ({id})")),
        _ => line,
    };
    Ok(context.screen.line(&line)?)
}

/// Says that something was made or changed, or prints the answer as it is.
pub(super) fn report(
    verb: &str,
    noun: &Noun,
    item: &Value,
    as_json: bool,
    context: &mut Context,
) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(item)?);
    }
    let found = Found::of(noun, item);
    done(verb, noun, &found.name, Some(&found.id), context)
}

/// A thing that was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: String,
    /// What to call it.
    pub(super) name: String,
    pub(super) item: Value,
}

impl Found {
    pub(super) fn of(noun: &Noun, item: &Value) -> Self {
        let text = |field: &str| item.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let id = text("id").unwrap_or_default().to_owned();
        let names = || noun.names.iter().filter_map(|field| text(field));
        let name = names().find(|name| !account::is_made_up(name)).or_else(|| names().next()).unwrap_or(&id).to_owned();
        Self { id, name, item: item.clone() }
    }
}

pub(super) fn path(noun: &Noun, found: &Found) -> String {
    format!("{}/{}", noun.collection, percent(&found.id))
}

/// Finds a thing by its id or its name. What is not there is answered with what may have been meant.
pub(super) async fn find(noun: &Noun, reference: &str, api: &Api) -> Result<Found, Failure> {
    find_at(noun, noun.collection, reference, api).await
}

pub(super) async fn find_at(noun: &Noun, collection: &str, reference: &str, api: &Api) -> Result<Found, Failure> {
    if reference.starts_with(noun.prefix) && reference.len() > noun.prefix.len() + 20 || noun.names.is_empty() {
        let item = api.get(&format!("{collection}/{}", percent(reference))).await?;
        return Ok(Found::of(noun, &item));
    }
    for field in noun.names {
        let exact = format!("{field}:{}", quoted(reference));
        let mut found = api.page(collection, Some(&exact), 2, None).await?.items;
        // Whatever the filter let through: nothing is changed or deleted that was not named.
        found.retain(|item| is_named(item, field, reference));
        match found.as_slice() {
            [one] => return Ok(Found::of(noun, one)),
            [] => {}
            _ => {
                return Err(Failure::new(Exit::Failed, format!("there are several {} {reference:?}", noun.plural))
                    .next(format!("name it by its id: `postern admin {} list -f '{exact}'`", noun.plural)));
            }
        }
    }
    let known = api.list(collection, None, super::api::PAGE).await?.items;
    let names: Vec<_> = known.iter().map(|item| Found::of(noun, item).name).collect();
    Err(name::not_found(noun.singular, reference, names.iter().map(String::as_str)))
}

fn is_named(item: &Value, field: &str, name: &str) -> bool {
    item.get(field).and_then(Value::as_str).is_some_and(|found| found.to_lowercase() == name.to_lowercase())
}

/// A value of a filter that matches just this text (case aside).
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '*') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Puts names in the place of the ids of accounts and resources, where they can be found out.
async fn with_names(noun: &Noun, mut items: Vec<Value>, api: &Api) -> Vec<Value> {
    let fields: &[(&str, &Noun)] = match noun.singular {
        "grant" => &[("account", &super::noun::ACCOUNT), ("resource", &super::noun::RESOURCE)],
        "rule" => &[("resources", &super::noun::RESOURCE), ("role", &super::noun::ROLE)],
        _ => &[],
    };
    for (field, of) in fields {
        let ids: BTreeSet<String> = items.iter().filter_map(|item| item.get(*field)).flat_map(ids).collect();
        let names = names(of, &ids, api).await;
        for item in &mut items {
            match item.get_mut(*field) {
                Some(Value::Array(several)) => several.iter_mut().for_each(|one| rename(one, &names)),
                Some(one) => rename(one, &names),
                None => {}
            }
        }
    }
    items
}

fn ids(value: &Value) -> Vec<String> {
    match value {
        Value::String(id) => vec![id.clone()],
        Value::Array(several) => several.iter().flat_map(ids).collect(),
        _ => Vec::new(),
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    if let Some(name) = value.as_str().and_then(|id| names.get(id)) {
        *value = Value::String(name.clone());
    }
}

/// Names by id. Whatever cannot be read stays an id: a table is of use without it.
async fn names(noun: &Noun, ids: &BTreeSet<String>, api: &Api) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let items = if ids.len() <= FEW {
        let mut items = Vec::new();
        for id in ids {
            items.extend(api.get(&format!("{}/{}", noun.collection, percent(id))).await.ok());
        }
        items
    } else {
        api.list(noun.collection, None, 0).await.map(|found| found.items).unwrap_or_default()
    };
    for item in &items {
        let found = Found::of(noun, item);
        names.insert(found.id, found.name);
    }
    names
}

/// Prints a secret that is shown once: alone on stdout, so that `$(…)` takes it.
pub(super) fn secret(item: &Value, field: &str, context: &mut Context) -> Result<(), Failure> {
    let Some(secret) = item.get(field).and_then(Value::as_str) else {
        return Err(Failure::new(Exit::Failed, format!("the control plane's answer holds no {}", text::clean(field))));
    };
    Ok(context.screen.line(&Line::of(secret))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_filter_matches_nothing_but_itself() {
        assert_eq!(quoted(r#"a "b" \ c*"#), r#""a \"b\" \\ c\*""#);
        let filter: postern_proto::filter::Filter = format!("name:{}", quoted("pay*: \"x\"")).parse().unwrap();
        assert_eq!(filter.fields().collect::<Vec<_>>(), ["name"]);
    }
}
