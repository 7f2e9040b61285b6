//! `lock` and `unlock`.

use postern_local_api::message::{SignIn, Unlock};

use super::login;
use crate::{
    args::UnlockArgs,
    context::Context,
    failure::Failure,
    prompt,
    screen::{GOOD, Line},
    waiting,
};

pub(crate) async fn lock(context: &mut Context) -> Result<(), Failure> {
    let (service, _) = context.signed_in().await?;
    service.lock().await?;
    Ok(context.screen.line(&Line::of("Locked: nothing can be used until `postern unlock`."))?)
}

pub(crate) async fn unlock(args: &UnlockArgs, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let SignIn::Locked { account, .. } = &status.sign_in else {
        return Ok(context.screen.line(&Line::of("Nothing is locked."))?);
    };
    // A service account has no password: its token opens again what it opened before.
    let from_environment = if account.service { login::token_from_environment()? } else { None };
    let password = match from_environment {
        _ if args.password_stdin => prompt::secret_from_stdin()?,
        Some(token) => token,
        None if account.service => prompt::secret("Service token:").await?,
        None => prompt::secret("Password:").await?,
    };
    waiting::during("unlocking", service.unlock(&Unlock { password }))
        .await
        .map_err(|error| Failure::from(error).without_next().while_("cannot unlock"))?;
    Ok(context.screen.line(&Line::new().styled(GOOD, "Unlocked."))?)
}
