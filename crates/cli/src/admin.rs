//! `admin`: everything that the control plane's API lets administrators do, called through posternd with the login that
//! it holds.

use crate::{args::admin::AdminCommand, context::Context, failure::Failure};

mod accounts;
mod api;
mod body;
mod clusters;
mod devices;
mod entity;
mod gateways;
mod grants;
mod maintenance;
mod network;
mod nodes;
mod noun;
mod records;
mod resources;
mod roles;
mod show;

pub(crate) async fn run(command: AdminCommand, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let api = api::Api::new(service, &status.control);
    match command {
        AdminCommand::Accounts(command) => accounts::run(command, &api, context).await,
        AdminCommand::Tokens(command) => accounts::tokens(command, &api, context).await,
        AdminCommand::Roles(command) => roles::run(command, &api, context).await,
        AdminCommand::Rules(command) => roles::rules(command, &api, context).await,
        AdminCommand::Members(command) => roles::members(command, &api, context).await,
        AdminCommand::Grants(command) => grants::run(command, &api, context).await,
        AdminCommand::Resources(command) => resources::run(command, &api, context).await,
        AdminCommand::Clusters(command) => clusters::run(command, &api, context).await,
        AdminCommand::ClusterKeys(command) => clusters::run_keys(command, &api, context).await,
        AdminCommand::Gateways(command) => gateways::run(command, &api, context).await,
        AdminCommand::Nodes(command) => nodes::run(command, &api, context).await,
        AdminCommand::Maintenance(command) => maintenance::run(command, &api, context).await,
        AdminCommand::Network(command) => network::run(command, &api, context).await,
        AdminCommand::Devices(command) => devices::run(command, &api, context).await,
        AdminCommand::Sessions(command) => records::run(command, &noun::SESSION, &api, context).await,
        AdminCommand::Activities(command) => records::run(command, &noun::ACTIVITY, &api, context).await,
        AdminCommand::Audit(command) => records::audit(command, &api, context).await,
    }
}
