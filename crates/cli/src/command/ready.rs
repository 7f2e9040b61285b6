//! `ready`: for scripts, an answer in the exit code.

use std::time::Duration;

use postern_local_api::{
    client::{ClientError, LocalClient, Update},
    message::{Connection, ControlLink, ResourceStatus, SignIn, Status},
    mirror,
};
use tokio::time::timeout;

use crate::{
    args::ReadyArgs,
    context::{self, Context},
    exit::Exit,
    failure::Failure,
    name, resource,
    screen::{GOOD, Line},
    text, waiting,
};

pub(crate) async fn ready(args: &ReadyArgs, context: &mut Context) -> Result<(), Failure> {
    let answer = match args.wait {
        None => match context.service().await {
            Ok(service) => {
                service.status().await.map_err(Failure::from).and_then(|status| judge(&status, &args.resources))
            }
            Err(failure) => Err(failure),
        },
        Some(patience) => {
            let service = LocalClient::new(context.paths()?.socket());
            waiting::during("waiting until ready", wait(&service, &args.resources, patience)).await
        }
    };
    match answer {
        Ok(()) if args.quiet => Ok(()),
        Ok(()) => Ok(context.screen.line(&Line::new().styled(GOOD, "ready"))?),
        Err(failure) if args.quiet => Err(Failure::silent(failure.exit)),
        Err(failure) => Err(failure),
    }
}

/// Looks at each change until all is ready, or time is up; then says what was missing last.
async fn wait(service: &LocalClient, wanted: &[String], patience: Duration) -> Result<(), Failure> {
    let mut missing = Failure::from(ClientError::NotRunning { socket: service.socket().to_owned() });
    let watching = async {
        let mut follow = service.follow();
        let mut copy = None;
        loop {
            match follow.next().await? {
                Update::Lost(error) => missing = error.into(),
                Update::Event(event) => {
                    mirror::apply(&mut copy, *event);
                    match copy.as_ref().map(|status| judge(status, wanted)) {
                        Some(Ok(())) => return Ok(()),
                        Some(Err(failure)) => missing = failure,
                        None => {}
                    }
                }
            }
        }
    };
    match timeout(patience, watching).await {
        Ok(answer) => answer,
        Err(_) => Err(missing.because(format!("waited {}", text::span(patience)))),
    }
}

/// Ready: signed in, not locked, heard of what may be reached, and what is wanted is listened for.
fn judge(status: &Status, wanted: &[String]) -> Result<(), Failure> {
    match &status.sign_in {
        SignIn::SignedOut => return Err(context::signed_out()),
        SignIn::Locked { .. } => {
            return Err(Failure::new(Exit::NotSignedIn, "everything is locked").next("unlock: `postern unlock`"));
        }
        SignIn::SignedIn { .. } => {}
    }
    for wanted in wanted {
        let id = |known: &ResourceStatus| known.resource.id.to_string();
        let found = name::find("resource", wanted, &status.resources, id, |known| &known.resource.name)?;
        if !matches!(found.connection, Connection::Listening { .. }) {
            let failure = Failure::new(Exit::NotReady, format!("{} is not connected", found.resource.name));
            let problem = resource::problem(found);
            return Err(match problem.is_empty() {
                true => failure.next(format!("connect it: `postern connect {}`", found.resource.name)),
                false => failure.because(problem),
            });
        }
    }
    // Away is fine: what is connected goes on with cached leases.
    match &status.control {
        ControlLink::Connecting { url } if status.resources.is_empty() => {
            Err(Failure::new(Exit::NotReady, format!("still connecting to {url}")))
        }
        _ => Ok(()),
    }
}
