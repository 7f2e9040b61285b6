//! Windows: the token of whoever is at the other end of the pipe. Who may ask is said by the rights of the pipe: users
//! who are logged on at the machine, administrators and the system; nobody over the network.

use std::io;

use super::super::{message::Problem, policy::Policy};
use crate::sys::{Channel, User};

/// The process at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) user: User,
    pub(crate) pid: u32,
}

impl Asker {
    pub(crate) async fn of(channel: &Channel) -> io::Result<Self> {
        let (user, pid) = channel.peer().await?;
        Ok(Self { user, pid })
    }

    /// Whoever could open the pipe may.
    ///
    /// # Errors
    /// None here.
    #[expect(clippy::unused_async, reason = "other platforms refuse")]
    pub(crate) async fn authorize(&self, _: &Policy, _: &Channel) -> Result<(), Problem> {
        Ok(())
    }
}
