//! What is done on the data folder itself, also while the control plane runs: it takes such changes over within a
//! second.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use postern_proto::{
    id::{AccountId, NodeId},
    name::{Email, check_name},
    resource::Tags,
    time::UnixMillis,
};
use serde::Serialize;

use crate::{
    catalogue::{Account, AccountKind, Node, NodeKind},
    clock::Clock,
    config::{self, AdminReset, Data, GatewayToken, NewKey, RelayToken},
    credential,
    gateway::{self, NewNode},
    password::{Password, Passwords},
    run,
    sealed::Keyring,
    state::AppState,
    store::{Absent, Actor, Place, Store},
    transfer::{self, Counts, End, Secrets},
};

/// An account with a password that is shown this once.
#[derive(Clone, Debug, Serialize)]
pub struct Initial {
    pub email: String,
    pub password: String,
}

/// Makes an administrator where there is no account at all.
pub(crate) async fn first_admin(state: &AppState, email: &Email) -> anyhow::Result<Option<Initial>> {
    if !state.store.catalogue().accounts.is_empty() {
        return Ok(None);
    }
    let password = Password::draw()?;
    let hash = state.passwords.hash(password.clone()).await?;
    let mut change = state.store.change(Actor::system()).await?;
    if !change.catalogue().accounts.is_empty() {
        // Another control plane of this database was first.
        return Ok(None);
    }
    let account = change
        .put(Account {
            id: AccountId::from_ulid(state.clock.ulid()),
            email: email.clone(),
            name: email.as_str().split('@').next().unwrap_or_default().to_owned(),
            kind: AccountKind::User,
            admin: true,
            suspended: false,
            tags: Tags::new(),
            created_at: change.now(),
            revision: change.revision(),
        })
        .await?;
    credential::set_password(&mut change, &account, &hash, true).await?;
    change.commit().await?;
    Ok(Some(Initial { email: email.to_string(), password: password.expose().to_owned() }))
}

/// `postern-control gateway-token`: prints one line of JSON.
pub(crate) async fn gateway_token(command: GatewayToken) -> anyhow::Result<()> {
    let advertise = command.advertise.as_deref().map(gateway::check_address).transpose();
    let advertise = advertise.with_context(|| format!("--advertise {:?}", command.advertise))?;
    let new = NewNode {
        name: command.name,
        kind: NodeKind::Gateway,
        group: command.group.unwrap_or_default(),
        tags: Tags::new(),
        advertise,
    };
    node_token(&command.data, new).await
}

/// `postern-control relay-token`: prints one line of JSON.
pub(crate) async fn relay_token(command: RelayToken) -> anyhow::Result<()> {
    let new = NewNode {
        name: command.name,
        kind: NodeKind::Relay,
        group: command.group.unwrap_or_default(),
        tags: command.tags.into_iter().collect(),
        advertise: None,
    };
    node_token(&command.data, new).await
}

/// What is known of a node of that name stays.
async fn node_token(data: &Data, new: NewNode) -> anyhow::Result<()> {
    check_name(&new.name).with_context(|| format!("--name {}", new.name))?;
    let store = open(data).await?;
    let mut change = store.change(Actor::operator()).await?;
    let node = match gateway::by_name(change.catalogue(), &new.name) {
        Some(node) if node.kind != new.kind => bail!("{} is a {}", node.name, node.kind.as_str()),
        Some(node) => {
            let advertise = new.advertise.or_else(|| node.advertise.clone());
            change.put(Node { advertise, ..Node::clone(&node) }).await?
        }
        None => gateway::create(&mut change, new).await?,
    };
    let token = gateway::issue_token(&mut change, &node).await?;
    change.commit().await?;
    store.close().await;
    run::print_line(&EnrolToken {
        id: node.id,
        name: node.name.clone(),
        enrol_token: token.token.expose().to_owned(),
        expires_at: token.expires_at,
    })
}

#[derive(Serialize)]
struct EnrolToken {
    id: NodeId,
    name: String,
    enrol_token: String,
    expires_at: UnixMillis,
}

/// `postern-control admin-reset`: prints one line of JSON.
pub(crate) async fn admin_reset(command: AdminReset) -> anyhow::Result<()> {
    let email: Email = command.email.parse().with_context(|| format!("--email {}", command.email))?;
    let store = open(&command.data).await?;
    let Some(account) = store.catalogue().account_by_email(email.as_str()).cloned() else {
        bail!("there is no account {email}");
    };
    if account.kind == AccountKind::Service {
        bail!("{email} is a service account; it signs in with tokens");
    }
    let password = Password::draw()?;
    let hash = tokio::task::spawn_blocking(Passwords::new).await??.hash(password.clone()).await?;
    let mut change = store.change(Actor::operator()).await?;
    let account = change.put(Account { admin: true, suspended: false, ..Account::clone(&account) }).await?;
    credential::set_password(&mut change, &account, &hash, true).await?;
    credential::end_logins(&mut change, account.id, None, "the password was reset").await?;
    change.commit().await?;
    store.close().await;
    run::print_line(&Initial { email: email.to_string(), password: password.expose().to_owned() })
}

/// `postern-control new-key`.
pub(crate) fn new_key(command: &NewKey) -> anyhow::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let shown = command.file.display();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&command.file);
    let mut file = file.with_context(|| format!("cannot make {shown}"))?;
    file.write_all(Keyring::draw()?.as_bytes()).and_then(|()| file.sync_all()).with_context(|| shown.to_string())?;
    tracing::info!("{shown} holds a new key; without it the database's secrets cannot be read, so keep a copy of it");
    Ok(())
}

/// `postern-control db copy`: prints one line of JSON with the rows of each table.
pub(crate) async fn copy(command: config::Copy) -> anyhow::Result<()> {
    let (from, to) = (command.from.0, command.to.0);
    // What a running control plane writes after its copy would be lost.
    let _locks = [exclusive(&from, false)?, exclusive(&to, true)?];
    let (from, to) = (end(from, command.key_file.as_deref())?, end(to, command.key_file.as_deref())?);
    let counts = transfer::copy(&from, &to, &Clock::system()).await?;
    run::print_line(&Transferred { rows: counts })
}

/// `postern-control backup`: prints one line of JSON with the rows of each table.
pub(crate) async fn backup(command: config::Backup) -> anyhow::Result<()> {
    let place = command.place().context("neither --data nor --database is given")?;
    let from = end(place, command.shared.key_file.as_deref())?;
    let counts = transfer::backup(&from, &command.file, &Clock::system()).await?;
    run::print_line(&Transferred { rows: counts })
}

/// `postern-control restore`: prints one line of JSON with the rows of each table.
pub(crate) async fn restore(command: config::Backup) -> anyhow::Result<()> {
    let place = command.place().context("neither --data nor --database is given")?;
    let _lock = exclusive(&place, true)?;
    let to = end(place, command.shared.key_file.as_deref())?;
    let counts = transfer::restore(&command.file, &to, &Clock::system()).await?;
    run::print_line(&Transferred { rows: counts })
}

#[derive(Serialize)]
struct Transferred {
    rows: Counts,
}

/// A folder that no control plane serves now.
fn exclusive(place: &Place, make: bool) -> anyhow::Result<Option<std::fs::File>> {
    let Place::Folder(folder) = place else { return Ok(None) };
    if make {
        run::make_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    run::lock(folder).map(Some)
}

fn end(place: Place, key_file: Option<&std::path::Path>) -> anyhow::Result<End> {
    let secrets = match &place {
        Place::Folder(folder) => {
            if !folder.is_dir() {
                bail!("there is no folder {}", folder.display());
            }
            Secrets::Folder(folder.clone())
        }
        Place::Postgres(url) => {
            let file = key_file.with_context(|| format!("the keys in {url} are sealed: give --key-file"))?;
            Secrets::Sealed(Arc::new(Keyring::read(file)?))
        }
    };
    Ok(End { place, secrets })
}

async fn open(data: &Data) -> anyhow::Result<Store> {
    Ok(Store::open_at(&data.place(), Absent::Refuse, Clock::system()).await?)
}
