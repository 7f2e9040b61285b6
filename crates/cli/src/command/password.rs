//! `password`: changing one's own.

use postern_local_api::{
    client::LocalClient,
    message::{ControlCall, SignIn},
};
use serde_json::json;

use crate::{
    args::PasswordArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    prompt,
    screen::{GOOD, Line},
    waiting,
};

const LATER: &str = "your password was for one use; choose a new one soon: `postern password`";

pub(crate) async fn change(args: &PasswordArgs, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    if let SignIn::SignedIn { account, .. } | SignIn::Locked { account, .. } = &status.sign_in
        && account.service
    {
        return Err(Failure::new(Exit::Usage, "a service account has no password")
            .next("give it another token: `postern admin tokens create`"));
    }
    let (current, new) = if args.stdin {
        (prompt::secret_line_from_stdin()?, prompt::secret_line_from_stdin()?)
    } else {
        (prompt::secret("Current password:").await?, prompt::new_secret("New password:").await?)
    };
    submit(&service, current, new).await?;
    Ok(context.screen.line(&Line::new().styled(GOOD, "Your password is changed."))?)
}

/// After a login with a one-time password. It works until it is changed, so who does not want to now may do it later.
pub(crate) async fn choose_first(service: &LocalClient, current: String, context: &mut Context) -> Result<(), Failure> {
    if !prompt::possible() {
        context.warn(LATER);
        return Ok(());
    }
    context.screen.line(&Line::of("Your password was for one use. Choose a new one, of 12 characters or more."))?;
    context.screen.flush()?;
    loop {
        let new = match prompt::new_secret("New password:").await {
            Ok(new) => new,
            Err(failure) if failure.exit == Exit::Interrupted => {
                context.warn(LATER);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        match submit(service, current.clone(), new).await {
            Ok(()) => break,
            Err(failure) if failure.exit == Exit::Invalid => crate::screen::note(context.colours, &failure.lines()),
            Err(failure) => return Err(failure),
        }
    }
    Ok(context.screen.line(&Line::new().styled(GOOD, "Your password is changed."))?)
}

async fn submit(service: &LocalClient, current: String, new: String) -> Result<(), Failure> {
    let call = ControlCall {
        method: "POST".to_owned(),
        path: "/api/v1/password".to_owned(),
        body: Some(json!({ "current": current, "new": new })),
    };
    waiting::during("changing the password", service.control(&call))
        .await
        .map_err(|error| Failure::from(error).without_next().while_("cannot change the password"))?;
    Ok(())
}
