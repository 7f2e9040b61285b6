//! Gateways join with a one-time token, and renew their certificates.

use axum::{Json, extract::State, http::request::Parts};
use postern_proto::{
    api::{CertificateRequest, CertificateResponse, EnrolRequest, EnrolResponse, KeyPair},
    id::NodeId,
    problem::Problem,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, Input, Refusal, Violations,
    caller::origin,
    machine::{CallingNode, same_key},
};
use crate::{
    authority::RequestedKey,
    catalogue::Node,
    cluster,
    gateway::check_address,
    secret::TokenHash,
    sql::{self, Connection, Row},
    state::AppState,
    store::{Activity, Subject, Who, read},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(enrol)).routes(routes!(certificate))
}

#[utoipa::path(post, path = "/api/v1/nodes/enrol", operation_id = "enrol_node", tag = "machines", security(()), request_body = Object,
    responses((status = 200, body = Object)))]
/// Enrol a gateway with its one-time token
async fn enrol(
    State(state): State<AppState>,
    parts: Parts,
    Input(request): Input<EnrolRequest>,
) -> Answer<Json<EnrolResponse>> {
    let key = RequestedKey::from_pem(&request.csr)?;
    if let Some(pair) = &request.key_pair {
        return enrol_worker(&state, &parts, &key, pair).await;
    }
    let mut broken = Violations::default();
    let advertise = request.advertise.and_then(|given| broken.check("advertise", &given, check_address(&given)));
    broken.none()?;
    let hash = TokenHash::of(&request.token);
    // The token may come from `postern-control gateway-token` a moment ago.
    state.store.catch_up().await?;
    // Who is asking, for the activity. Whether the token counts is decided in the write transaction below.
    let mut connection = state.store.reader().acquire().await?;
    let token =
        find(&mut connection, &hash).await?.ok_or_else(|| refused("It was never given, or a newer one was."))?;
    drop(connection);
    let id: NodeId = read::value(&token, "node_id")?;
    let known = state.store.catalogue().nodes.get(&id).cloned().ok_or_else(|| refused("Its gateway was deleted."))?;
    if known.kind.as_str() != request.kind.as_str() {
        let (kind, asked) = (known.kind.as_str(), request.kind.as_str());
        return Err(refused(&format!("It is for a {kind}, and this is a {asked}.")));
    }
    let who = Who::Node { id, name: known.name.clone() };
    let mut change = state.store.change(origin(who, &parts)).await?;
    let now = change.now();
    consume(change.connection(), &hash, now).await?;
    let node = change.catalogue().nodes.get(&id).cloned().ok_or_else(|| refused("Its gateway was deleted."))?;
    let node = change
        .put(Node {
            advertise: advertise.or_else(|| node.advertise.clone()),
            spki_sha256: Some(key.spki_sha256().to_owned()),
            enrolled_at: Some(now),
            ..Node::clone(&node)
        })
        .await?;
    let subject = Subject { kind: node.kind.as_str(), id: id.to_string(), name: node.name.clone() };
    change.note(&Activity::new(format!("{}.enrolled", node.kind.as_str()), subject)).await?;
    let certificate = state.authority.sign_node(&key, id, None, now)?;
    change.commit().await?;
    // A connection with the key before this one counts no more.
    state.exchange.close_node(id, "node_unknown", "The gateway was enrolled anew");
    let ca = state.authority.info(&state.store.org().name);
    Ok(Json(EnrolResponse { node: id, name: node.name.clone(), cluster: None, certificate, ca }))
}

#[utoipa::path(post, path = "/api/v1/nodes/certificate", operation_id = "renew_node_certificate", tag = "machines", request_body = Object,
    responses((status = 200, body = Object)))]
/// Renew a gateway's certificate, with its certificate
async fn certificate(
    State(state): State<AppState>,
    caller: CallingNode,
    Input(request): Input<CertificateRequest>,
) -> Answer<Json<CertificateResponse>> {
    let key = same_key(&request.csr, caller.node.spki_sha256.as_deref().unwrap_or_default())?;
    let (id, cluster, now) = (caller.node.id, caller.node.cluster, state.clock.now());
    if let Some(access_key) = caller.node.access_key {
        let mut append = state.store.append().await?;
        cluster::note_use(append.connection(), access_key, read::signed(now.0)).await?;
        append.commit().await?;
    }
    Ok(Json(state.authority.sign_node(&key, id, cluster, now)?))
}

/// A worker joins its cluster. It is a node of its own from then on; who revokes the key pair revokes it too.
async fn enrol_worker(
    state: &AppState,
    parts: &Parts,
    key: &RequestedKey,
    pair: &KeyPair,
) -> Answer<Json<EnrolResponse>> {
    let refused = || {
        let problem = Problem::new(401, "key_pair_refused", "The key pair of the cluster is not good");
        Refusal::from(problem.with_detail("It was revoked, its secret key is another one, or it was never given."))
    };
    let secret = TokenHash::of(&pair.secret_key);
    // Only who has the secret key may make others wait for the write transaction.
    state.store.catch_up().await?;
    let mut connection = state.store.reader().acquire().await?;
    let id = cluster::of_key(&mut connection, pair.access_key, &secret).await?.ok_or_else(refused)?;
    drop(connection);
    let name = state.store.catalogue().clusters.get(&id).ok_or_else(refused)?.name.clone();
    let who = Who::AccessKey { id: pair.access_key, cluster: name };
    let mut change = state.store.change(origin(who, parts)).await?;
    let id = cluster::use_key(&mut change, pair.access_key, &secret).await?.ok_or_else(refused)?;
    let cluster = change.catalogue().clusters.get(&id).cloned().ok_or_else(refused)?;
    let wish = (pair.access_key, pair.worker.as_str());
    let node = cluster::add_worker(&mut change, &cluster, wish, key.spki_sha256()).await?;
    let certificate = state.authority.sign_node(key, node.id, Some(id), change.now())?;
    change.commit().await?;
    let ca = state.authority.info(&state.store.org().name);
    Ok(Json(EnrolResponse { node: node.id, name: node.name.clone(), cluster: Some(id), certificate, ca }))
}

async fn find(connection: &mut Connection, hash: &TokenHash) -> Answer<Option<Row>> {
    let statement = "SELECT hash, node_id, expires_at, used_at FROM enrol_token WHERE hash = $1";
    let row = sql::query(statement).bind(hash.to_text()).fetch_optional(connection).await?;
    // Found by its hash; compared once more in constant time.
    let fits = |row: &Row| row.try_get("hash").is_ok_and(|text| TokenHash::from_text(text) == Some(*hash));
    Ok(row.filter(fits))
}

/// Checks and uses a token in one statement of the only write transaction: of any number of tries one succeeds.
async fn consume(connection: &mut Connection, hash: &TokenHash, now: postern_proto::time::UnixMillis) -> Answer<()> {
    let statement = "UPDATE enrol_token SET used_at = $1 WHERE hash = $2 AND used_at IS NULL AND expires_at > $1";
    let used = sql::query(statement).bind(read::signed(now.0)).bind(hash.to_text()).execute(&mut *connection).await?;
    if used == 1 {
        return Ok(());
    }
    match find(connection, hash).await? {
        Some(row) if read::optional_instant(&row, "used_at")?.is_some() => Err(refused("It was used already.")),
        Some(_) => Err(refused("Its time is over.")),
        None => Err(refused("It was never given, or a newer one was.")),
    }
}

fn refused(why: &str) -> Refusal {
    let problem = Problem::new(401, "enrol_token_refused", "The enrolment token is not good");
    problem.with_detail(format!("{why} Ask an administrator for a new one.")).into()
}
