//! What an administrator and a device ask of a real `postern-control`, one after the other.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_proto::api::Credential;
use serde_json::{Value, json};

use super::{
    Figures, milliseconds,
    world::{SHARED, SINGLE, World},
};
use crate::{device::Device, stack::Stack};

/// How often each is asked.
const TIMES: u32 = 7;

/// Asks everything, and says the median of each.
pub async fn ask(stack: &Stack, world: &World, figures: &mut Figures) -> anyhow::Result<()> {
    let api = stack.api();
    let last = world.size.resources - 1;
    let lists = [
        ("first page of 100 resources", String::new()),
        ("search by name, one found", format!("&filter=name:service-{last}")),
        ("search by the end of a name", format!("&filter=name:*-{last}")),
        ("tag query", "&filter=tags:team=t1".to_owned()),
        ("query of tag and name, none found", "&filter=tags:team=t17%20name:nothing*".to_owned()),
    ];
    for (what, filter) in lists {
        let path = format!("/api/v1/resources?limit=100{filter}");
        let (median, found) = median(|| async { api.get(&path).await.map(count) }).await?;
        figures.say(format!("{what} ({found} on the page)"), milliseconds(median), "ms");
    }
    let device = Device::login(stack.control.address(), Credential::ServiceToken { token: World::token(0) }).await?;
    let (reached, denied) = (World::resource(0), World::resource(1));
    let (lease, granted) = median(|| async {
        let answer = device.leases(&[reached, denied]).await?;
        anyhow::ensure!(answer.leases.len() == 1 && answer.denied.len() == 1, "a lease too many or too few");
        Ok(answer.leases.len())
    })
    .await?;
    figures.say(format!("lease for one resource, another denied ({granted} given)"), milliseconds(lease), "ms");
    for (tag, touched) in [(SINGLE, 1), (SHARED, world.size.touched)] {
        let span = edit(stack, world, tag).await?;
        figures.say(
            format!("one tag edit that touches {touched} accounts, nobody connected"),
            milliseconds(span),
            "ms",
        );
    }
    Ok(())
}

/// Gives a tag and takes it away again, some times; how long the request that gives it takes.
pub(super) async fn edit(stack: &Stack, world: &World, tag: &str) -> anyhow::Result<Duration> {
    let (path, plain, with) = tags(stack, world, tag).await?;
    let mut spans = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        stack.api().patch(&path, json!({"tags": with})).await?;
        spans.push(begun.elapsed());
        stack.api().patch(&path, json!({"tags": plain})).await?;
    }
    spans.sort_unstable();
    Ok(spans.get(spans.len() / 2).copied().unwrap_or_default())
}

/// Where the edited resource is, its tags, and the same with one more.
pub(super) async fn tags(stack: &Stack, world: &World, tag: &str) -> anyhow::Result<(String, Value, Value)> {
    let path = format!("/api/v1/resources/{}", world.edited);
    let plain = stack.api().get(&path).await?.get("tags").cloned().unwrap_or_default();
    let mut with = plain.clone();
    with.as_object_mut().context("tags are an object")?.insert(tag.to_owned(), "yes".into());
    Ok((path, plain, with))
}

fn count(page: Value) -> usize {
    page.get("items").and_then(Value::as_array).map_or(0, Vec::len)
}

/// The median time of some calls, and what the last of them gave.
async fn median<T, F: Future<Output = anyhow::Result<T>>>(call: impl Fn() -> F) -> anyhow::Result<(Duration, T)> {
    let mut spans = Vec::new();
    let mut last = None;
    for _ in 0..TIMES {
        let begun = Instant::now();
        last = Some(call().await?);
        spans.push(begun.elapsed());
    }
    spans.sort_unstable();
    let median = spans.get(spans.len() / 2).copied().unwrap_or_default();
    last.map(|last| (median, last)).context("nothing was asked")
}
