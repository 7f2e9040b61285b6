//! Proxy clusters and their key pairs.

use std::path::Path;

use serde_json::Value;

use super::{
    api::{Api, percent},
    body::Body,
    entity::{self, Found},
    noun::{CLUSTER, CLUSTER_KEY},
};
use crate::{
    args::admin::{
        ClusterCreate, ClusterKeyRevoke, ClusterKeyRotate, ClusterKeysCommand, ClusterKeysList, ClusterUpdate,
        ClustersCommand, ShowArgs,
    },
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{DIM, Line},
};

pub(super) async fn run(command: ClustersCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        ClustersCommand::List(args) => entity::list(&CLUSTER, &args, api, context).await,
        ClustersCommand::Show(args) => entity::show(&CLUSTER, &args.reference, args.json, api, context).await,
        ClustersCommand::Create(args) => create(args, api, context).await,
        ClustersCommand::Update(args) => update(args, api, context).await,
        ClustersCommand::Delete(args) => entity::delete(&CLUSTER, &args, api, context).await,
    }
}

pub(super) async fn run_keys(command: ClusterKeysCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        ClusterKeysCommand::List(args) => list_keys(args, api, context).await,
        ClusterKeysCommand::Create(args) => create_key(args, api, context).await,
        ClusterKeysCommand::Rotate(args) => rotate_key(args, api, context).await,
        ClusterKeysCommand::Revoke(args) => revoke_key(args, api, context).await,
    }
}

async fn create(args: ClusterCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let body = Body::new()
        .set("name", &args.name)
        .set("advertise", &args.advertise)
        .set_if("carrier", args.carrier)
        .set_if("authority", args.authority.as_deref().map(read).transpose()?)
        .tags(&args.tags.tags);
    let failed = |f: Failure| f.while_(&format!("cannot create cluster {}", args.name));
    let cluster = api.post(CLUSTER.collection, body.finish()).await.map_err(failed)?;
    entity::report("Created", &CLUSTER, &cluster, args.output.json, context)?;
    if !args.output.json {
        let next = format!("next: `postern admin cluster-keys create {}`, and start workers with that", args.name);
        context.note(Line::new().styled(DIM, next));
    }
    Ok(())
}

async fn update(args: ClusterUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = entity::find(&CLUSTER, &args.reference, api).await?;
    let body = Body::new()
        .set_if("name", args.name)
        .set_if("advertise", args.advertise)
        .set_if("carrier", args.carrier)
        .set_if("authority", args.authority.as_deref().map(read).transpose()?)
        .tag_changes(&args.tags, &cluster)
        .not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change cluster {}", cluster.name));
    let cluster = api.patch(&entity::path(&CLUSTER, &cluster), body).await.map_err(failed)?;
    entity::report("Changed", &CLUSTER, &cluster, args.output.json, context)
}

/// The content of a file; none without a name.
fn read(path: &Path) -> Result<String, Failure> {
    if path.as_os_str().is_empty() {
        return Ok(String::new());
    }
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display())))
}

fn keys_of(cluster: &Found) -> String {
    format!("{}/keys", entity::path(&CLUSTER, cluster))
}

async fn list_keys(args: ClusterKeysList, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = entity::find(&CLUSTER, &args.cluster, api).await?;
    entity::list_at(&CLUSTER_KEY, &keys_of(&cluster), &args.list, api, context).await
}

async fn create_key(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = entity::find(&CLUSTER, &args.reference, api).await?;
    let failed = |f: Failure| f.while_(&format!("cannot make a key pair for cluster {}", cluster.name));
    let key = api.post(&keys_of(&cluster), Body::new().finish()).await.map_err(failed)?;
    shown_once(&key, args.json, context)
}

async fn rotate_key(args: ClusterKeyRotate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = entity::find(&CLUSTER, &args.cluster, api).await?;
    let path = format!("{}/{}/rotate", keys_of(&cluster), percent(&args.key));
    let failed = |f: Failure| f.while_(&format!("cannot rotate key pair {}", args.key));
    let key = api.post(&path, Body::new().finish()).await.map_err(failed)?;
    shown_once(&key, args.output.json, context)
}

async fn revoke_key(args: ClusterKeyRevoke, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = entity::find(&CLUSTER, &args.cluster, api).await?;
    let path = format!("{}/{}", keys_of(&cluster), percent(&args.key));
    entity::delete_all(&CLUSTER_KEY, vec![(path, args.key)], &args.sure, api, context).await
}

/// Prints a key pair as the variables that a worker takes.
fn shown_once(key: &Value, as_json: bool, context: &mut Context) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(key)?);
    }
    for (variable, field) in
        [("POSTERN_PROXY_CLUSTER_ACCESS_KEY", "access_key"), ("POSTERN_PROXY_CLUSTER_SECRET_KEY", "secret_key")]
    {
        let value = key.get(field).and_then(Value::as_str);
        let value =
            value.ok_or_else(|| Failure::new(Exit::Failed, format!("the control plane's answer holds no {field}")))?;
        context.screen.line(&Line::of(format!("{variable}={value}")))?;
    }
    context
        .note(Line::new().styled(DIM, "The secret key is not shown again. Workers of the cluster start with these."));
    Ok(())
}
