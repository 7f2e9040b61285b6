//! The organisation's network settings.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use postern_proto::{
    bind::{Network, check_covers},
    name::{DnsName, HostPattern},
    sync::NetworkSettings,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, Given, Input, Violations, input::Unknown};
use crate::{
    catalogue::{Catalogue, Resource},
    state::AppState,
};

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
    /// The virtual subnet; 100.64.0.0/10, RFC 1918 space, or a part of them. Resources get addresses of its lower half.
    vnm_subnet: String,
    /// The zone of names in the virtual network; a resource without a name of its own gets one here.
    dns_zone: String,
    /// Whether resources have IPv6 addresses too, in a unique local network that follows from the organisation's id.
    vnm_ipv6: bool,
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
    /// Names within the old zone move to the new one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    dns_zone: Given<String>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    vnm_ipv6: Given<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

impl From<&NetworkSettings> for NetworkView {
    fn from(settings: &NetworkSettings) -> Self {
        let NetworkSettings { loopback_range, multi_loopback, vnm_subnet, dns_zone, vnm_ipv6 } = settings.clone();
        Self { loopback_range, multi_loopback, vnm_subnet, dns_zone, vnm_ipv6 }
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
/// Refused while a resource is bound at an address that would no longer be allowed. With the zone all names within it
/// change.
async fn replace(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<NetworkInput>,
) -> Answer<Json<NetworkView>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut settings = NetworkSettings::clone(&change.catalogue().settings);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["loopback_range", "multi_loopback", "vnm_subnet", "dns_zone", "vnm_ipv6"]);
    let text = |text: String| text.trim().to_owned();
    settings.loopback_range =
        broken.change("loopback_range", body.loopback_range).map_or(settings.loopback_range, text);
    settings.multi_loopback = broken.change("multi_loopback", body.multi_loopback).unwrap_or(settings.multi_loopback);
    settings.vnm_subnet = broken.change("vnm_subnet", body.vnm_subnet).map_or(settings.vnm_subnet, text);
    settings.dns_zone =
        broken.change("dns_zone", body.dns_zone).map_or(settings.dns_zone, |zone| text(zone).to_ascii_lowercase());
    settings.vnm_ipv6 = broken.change("vnm_ipv6", body.vnm_ipv6).unwrap_or(settings.vnm_ipv6);
    let mut moved = Vec::new();
    match Network::read(&settings) {
        Ok(network) => {
            settings.dns_zone = network.dns_zone.to_string();
            check_resources(&mut broken, change.catalogue(), &network, &settings);
            moved = move_names(&mut broken, &state, change.catalogue(), &network.dns_zone);
        }
        Err(rules) => rules.into_iter().for_each(|rule| broken.add(rule.field, rule.value, rule.rule)),
    }
    broken.none()?;
    change.put_settings(settings.clone()).await?;
    for resource in moved {
        change.put(resource).await?;
    }
    change.commit().await?;
    Ok(Json(NetworkView::from(&settings)))
}

fn check_resources(broken: &mut Violations, catalogue: &Catalogue, network: &Network, settings: &NetworkSettings) {
    let misfits = catalogue.resources.values().flat_map(|resource| {
        network.misfits(&resource.bind).into_iter().map(move |(field, ip, rule)| (resource, field, ip, rule))
    });
    for (resource, field, ip, rule) in misfits.take(NAMED) {
        let value = if field == "vnm_subnet" { &settings.vnm_subnet } else { &settings.loopback_range };
        let name = &resource.name;
        broken.add(field, value, format_args!("must fit resource {name}, which is bound at {ip}: its address {rule}"));
    }
}

/// The resources whose names lie within the zone of before, with their names in the new one.
fn move_names(broken: &mut Violations, state: &AppState, catalogue: &Catalogue, zone: &DnsName) -> Vec<Resource> {
    let Ok(before) = catalogue.settings.dns_zone.parse::<DnsName>() else { return Vec::new() };
    if before == *zone {
        return Vec::new();
    }
    if let Err(rule) = check_covers(zone, &catalogue.own_names(&state.names)) {
        broken.add("dns_zone", zone, rule);
    }
    let mut moved = Vec::new();
    for resource in catalogue.resources.values() {
        let Some(alias) = &resource.bind.dns_name else { continue };
        let hosts: Option<Vec<HostPattern>> = resource.hosts.iter().map(|host| host.moved(&before, zone)).collect();
        match (alias.moved(&before, zone), hosts) {
            (Some(alias), Some(hosts)) => {
                let mut resource = Resource::clone(resource);
                (resource.bind.dns_name, resource.hosts) = (Some(alias), hosts);
                moved.push(resource);
            }
            (None, _) if alias.name() != &before && !alias.name().is_under(&before) => {}
            _ => broken.add("dns_zone", zone, format_args!("must leave room for {alias}, a name that moves with it")),
        }
    }
    let staying = catalogue.resources.values().filter(|resource| moved.iter().all(|other| other.id != resource.id));
    let names: BTreeMap<_, _> =
        staying.filter_map(|resource| Some((resource.bind.dns_name.clone()?, &resource.name))).collect();
    for alias in moved.iter().filter_map(|resource| resource.bind.dns_name.as_ref()) {
        if let Some(holder) = names.get(alias) {
            broken.add("dns_zone", zone, format_args!("must leave {alias} to resource {holder}"));
        }
    }
    moved
}
