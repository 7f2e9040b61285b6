//! macOS: `LOCAL_PEERCRED` says who asks; root, the administrator's file, and whoever sits at the machine (the owner of
//! its console) may.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use super::super::{
    message::{Code, Problem},
    policy::{DEFAULT_CONFIG, Policy},
};
use crate::sys::{Channel, User, peer_credentials};

/// Belongs to the user of the session on the screen, and to root while nobody is there.
const CONSOLE: &str = "/dev/console";

/// The process at the other end, as the kernel saw it when it connected.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) user: User,
    pub(crate) pid: u32,
    groups: Vec<u32>,
}

impl Asker {
    #[expect(clippy::unused_async, reason = "other platforms wait for a first byte")]
    pub(crate) async fn of(channel: &Channel) -> io::Result<Self> {
        let (user, groups) = peer_credentials(channel)?;
        let pid = channel.stream().peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        Ok(Self { user, pid, groups })
    }

    /// Root, whom the administrator's file names, and who sits at the machine.
    ///
    /// # Errors
    /// The refusal to send.
    #[expect(clippy::unused_async, reason = "other platforms ask another program")]
    pub(crate) async fn authorize(&self, policy: &Policy, _: &Channel) -> Result<(), Problem> {
        let User(uid) = self.user;
        let sits_here = || fs::metadata(CONSOLE).is_ok_and(|console| console.uid() == uid);
        if policy.names(uid, &self.groups) || sits_here() {
            return Ok(());
        }
        let title =
            format!("User {uid} may not set up a virtual network: it is not the user at this machine's screen.");
        let remedy = format!("Ask an administrator to add allow_uids = [{uid}] to {DEFAULT_CONFIG}.");
        Err(Problem::new(Code::NotAllowed, title, remedy))
    }
}
