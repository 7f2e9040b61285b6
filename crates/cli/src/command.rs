//! One module for each command.

use crate::{admin, args::Command, context::Context, failure::Failure};

mod command_line;
mod connect;
mod dns;
mod doctor;
mod key_storage;
mod lock;
mod login;
mod logs;
mod manual;
mod network;
mod password;
mod port_override;
mod ready;
mod resources;
mod service;
mod sessions;
mod status;
mod version;
mod watch;

pub(crate) async fn run(command: Command, context: &mut Context) -> Result<(), Failure> {
    match command {
        Command::Login(args) => login::login(args, context).await,
        Command::Logout => login::logout(context).await,
        Command::Lock => lock::lock(context).await,
        Command::Unlock(args) => lock::unlock(&args, context).await,
        Command::Password(args) => password::change(&args, context).await,
        Command::Status(args) if args.watch => watch::watch(args.json, context).await,
        Command::Status(args) => status::show(args.json, context).await,
        Command::Ready(args) => ready::ready(&args, context).await,
        Command::Resources(args) => resources::list(&args, context).await,
        Command::Connect(args) => connect::connect(args, context).await,
        Command::Disconnect(args) => connect::disconnect(args, context).await,
        Command::Use(args) => command_line::print(&args.resource, context).await,
        Command::Override(args) => port_override::choose(&args, context).await,
        Command::KeyStorage(args) => key_storage::choose(args.place, context).await,
        Command::Logs(args) => logs::export(&args, context).await,
        Command::Dns(command) => dns::run(command, context).await,
        Command::Network(command) => network::run(&command, context).await,
        Command::Sessions(args) => sessions::list(args.json, context).await,
        Command::Doctor(args) => doctor::check(args.json, context).await,
        Command::Service(command) => service::run(command, context).await,
        Command::Admin(command) => admin::run(command, context).await,
        Command::Completions(args) => manual::completions(args.shell, context),
        Command::Man(args) => manual::man(args.out.as_deref(), context),
        Command::Version(args) => version::show(args.json, context).await,
    }
}
