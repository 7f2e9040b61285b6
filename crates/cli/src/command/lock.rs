//! `lock` and `unlock`.

use postern_local_api::message::{SignIn, Unlock};

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
    if !matches!(status.sign_in, SignIn::Locked { .. }) {
        return Ok(context.screen.line(&Line::of("Nothing is locked."))?);
    }
    let password = if args.password_stdin { prompt::secret_from_stdin()? } else { prompt::secret("Password:").await? };
    waiting::during("unlocking", service.unlock(&Unlock { password }))
        .await
        .map_err(|error| Failure::from(error).without_next().while_("cannot unlock"))?;
    Ok(context.screen.line(&Line::new().styled(GOOD, "Unlocked."))?)
}
