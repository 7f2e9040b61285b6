//! What every command needs: the service, the screen, the folders.

use std::path::PathBuf;

use anstream::ColorChoice;
use postern_local_api::{
    client::LocalClient,
    message::{SignIn, Status},
    paths::Paths,
};

use crate::{
    exit::Exit,
    failure::Failure,
    screen::{self, Line, Screen, WARN},
};

pub(crate) struct Context {
    /// `--home`.
    pub(crate) home: Option<PathBuf>,
    pub(crate) screen: Screen,
    pub(crate) colours: ColorChoice,
}

impl Context {
    pub(crate) fn paths(&self) -> Result<Paths, Failure> {
        Ok(Paths::find(self.home.as_deref())?)
    }

    /// A client of the running service, which speaks our version.
    pub(crate) async fn service(&self) -> Result<LocalClient, Failure> {
        let client = LocalClient::new(self.paths()?.socket());
        client.hello().await?;
        Ok(client)
    }

    /// A client of the running service with its status, when somebody is signed in.
    pub(crate) async fn signed_in(&self) -> Result<(LocalClient, Status), Failure> {
        let client = self.service().await?;
        let status = client.status().await?;
        match status.sign_in {
            SignIn::SignedOut => Err(signed_out()),
            SignIn::SignedIn { .. } | SignIn::Locked { .. } => Ok((client, status)),
        }
    }

    /// Says something beside the result, on stderr; what was said before stands before it.
    pub(crate) fn note(&mut self, line: Line) {
        // Whoever writes next meets the error, if there is one.
        let _ = self.screen.flush();
        screen::note(self.colours, &[line]);
    }

    pub(crate) fn warn(&mut self, text: impl AsRef<str>) {
        self.note(Line::new().styled(WARN, "warning: ").plain(text));
    }
}

pub(crate) fn signed_out() -> Failure {
    Failure::new(Exit::NotSignedIn, "you are not signed in").next("sign in: `postern login`")
}
