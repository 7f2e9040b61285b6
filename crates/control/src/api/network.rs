//! The organisation's network settings.

use axum::{Json, extract::State};
use postern_proto::{bind::Network, resource::BindMode, sync::NetworkSettings};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, Given, Input, Violations, input::Unknown};
use crate::{catalogue::Catalogue, state::AppState};

/// Resources that a refusal names at most.
const NAMED: usize = 50;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, replace))
}

/// Network settings.
#[derive(Serialize, ToSchema)]
struct NetworkView {
    /// Where loopback mode binds; within 127.0.0.0/8.
    loopback_range: String,
    /// Whether addresses other than the first of the range are used.
    multi_loopback: bool,
    /// The virtual subnet; 100.64.0.0/10, RFC 1918 space, or a part of them.
    vnm_subnet: String,
}

/// New network settings; what is left out stays.
#[derive(Deserialize, ToSchema)]
struct NetworkInput {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    loopback_range: Given<String>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    multi_loopback: Given<bool>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    vnm_subnet: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

impl From<&NetworkSettings> for NetworkView {
    fn from(settings: &NetworkSettings) -> Self {
        let NetworkSettings { loopback_range, multi_loopback, vnm_subnet } = settings.clone();
        Self { loopback_range, multi_loopback, vnm_subnet }
    }
}

#[utoipa::path(get, path = "/api/v1/network", operation_id = "show_network", tag = "network",
    responses((status = 200, body = NetworkView)))]
/// Show the network settings
async fn show(State(state): State<AppState>, _: Admin) -> Json<NetworkView> {
    Json(NetworkView::from(&*state.store.catalogue().settings))
}

#[utoipa::path(put, path = "/api/v1/network", operation_id = "update_network", tag = "network",
    request_body = NetworkInput, responses((status = 200, body = NetworkView)))]
/// Change the network settings
///
/// Refused while a resource is bound at an address that would no longer be allowed.
async fn replace(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<NetworkInput>,
) -> Answer<Json<NetworkView>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut settings = NetworkSettings::clone(&change.catalogue().settings);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["loopback_range", "multi_loopback", "vnm_subnet"]);
    let text = |text: String| text.trim().to_owned();
    settings.loopback_range =
        broken.change("loopback_range", body.loopback_range).map_or(settings.loopback_range, text);
    settings.multi_loopback = broken.change("multi_loopback", body.multi_loopback).unwrap_or(settings.multi_loopback);
    settings.vnm_subnet = broken.change("vnm_subnet", body.vnm_subnet).map_or(settings.vnm_subnet, text);
    match Network::read(&settings) {
        Ok(network) => check_resources(&mut broken, change.catalogue(), &network, &settings),
        Err(rules) => rules.into_iter().for_each(|rule| broken.add(rule.field, rule.value, rule.rule)),
    }
    broken.none()?;
    change.put_settings(settings.clone()).await?;
    change.commit().await?;
    Ok(Json(NetworkView::from(&settings)))
}

fn check_resources(broken: &mut Violations, catalogue: &Catalogue, network: &Network, settings: &NetworkSettings) {
    let misfits =
        catalogue.resources.values().filter_map(|resource| Some((resource, network.check(&resource.bind).err()?)));
    for (resource, rule) in misfits.take(NAMED) {
        let (field, value) = match resource.bind.mode {
            BindMode::Vnm => ("vnm_subnet", &settings.vnm_subnet),
            BindMode::Loopback => ("loopback_range", &settings.loopback_range),
        };
        let (name, ip) = (&resource.name, resource.bind.ip);
        broken.add(field, value, format_args!("must fit resource {name}, which is bound at {ip}: its address {rule}"));
    }
}
