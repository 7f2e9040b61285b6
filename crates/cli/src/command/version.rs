//! `version`.

use postern_local_api::client::ClientError;
use serde_json::json;

use crate::{context::Context, failure::Failure, screen::Line};

/// Says both versions. A service that does not run is no failure here.
pub(crate) async fn show(as_json: bool, context: &mut Context) -> Result<(), Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    let local_api = postern_local_api::message::VERSION;
    let paths = context.paths()?;
    let hello = postern_local_api::client::LocalClient::new(paths.socket()).hello().await;
    if as_json {
        let service = hello.as_ref().ok().map(|hello| &hello.service);
        return Ok(context.screen.json(&json!({ "postern": ours, "posternd": service, "local_api": local_api }))?);
    }
    context.screen.line(&Line::of(format!("postern   {ours}")))?;
    let service = match hello {
        Ok(hello) => format!("posternd  {} (process {})", hello.service, hello.pid),
        Err(ClientError::NotRunning { .. }) => "posternd  is not running".to_owned(),
        Err(error) => format!("posternd  {error}"),
    };
    Ok(context.screen.line(&Line::of(service))?)
}
