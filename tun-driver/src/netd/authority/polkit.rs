//! Linux: `SO_PEERCRED` and `SO_PEERGROUPS` say who asks; the administrator's file and polkit say whether he may.

use std::{collections::HashMap, fs, io, os::fd::AsFd, time::Duration};

use zbus::{Connection, Variant};

use super::super::{
    message::{Code, Problem},
    policy::{DEFAULT_CONFIG, Policy},
};
use crate::sys::{self, Channel, User};

/// polkit's name for what netd does; `packaging/polkit` says who may.
const ACTION: &str = "org.postern.netd.configure";
/// polkit may have to start first. It never waits for a person: netd forbids it to ask one.
const POLKIT_DEADLINE: Duration = Duration::from_secs(10);

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
        let socket = channel.as_fd();
        let credentials = rustix::net::sockopt::socket_peercred(socket)?;
        let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or_default();
        let mut groups = sys::peer_groups(socket)?;
        groups.push(credentials.gid.as_raw());
        Ok(Self { user: User(credentials.uid.as_raw()), pid, groups })
    }

    /// Root, whom the administrator's file names, and whom polkit allows: whoever sits at the machine.
    ///
    /// # Errors
    /// The refusal to send.
    pub(crate) async fn authorize(&self, policy: &Policy, channel: &Channel) -> Result<(), Problem> {
        if policy.names(self.user.0, &self.groups) {
            return Ok(());
        }
        let reason = if policy.polkit {
            let asked = tokio::time::timeout(POLKIT_DEADLINE, self.ask_polkit(channel)).await;
            match asked {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => "polkit allows only users of an active session".to_owned(),
                Ok(Err(error)) => format!("polkit could not be asked ({error})"),
                Err(_) => "polkit does not answer".to_owned(),
            }
        } else {
            "polkit is turned off".to_owned()
        };
        let User(uid) = self.user;
        let title = format!("User {uid} may not set up a virtual network: {reason}.");
        let remedy = format!("Ask an administrator to add allow_uids = [{uid}] to {DEFAULT_CONFIG}.");
        Err(Problem::new(Code::NotAllowed, title, remedy))
    }

    /// Names the process by number, start time and user, so that another one with the same number is not meant.
    async fn ask_polkit(&self, channel: &Channel) -> Result<bool, String> {
        let start_time = start_time_of(self.pid).ok_or("the asking process is gone")?;
        // The process could have ended, and another one got its number, before its start time was read.
        if !sys::peer_is_alive(channel.as_fd()) {
            return Err("the asking process is gone".to_owned());
        }
        let uid = i32::try_from(self.user.0).map_err(|error| error.to_string())?;
        let subject = HashMap::from([
            ("pid", Variant::U32(self.pid)),
            ("start-time", Variant::U64(start_time)),
            ("uid", Variant::I32(uid)),
        ]);
        let bus = Connection::system().await.map_err(|error| error.to_string())?;
        let no_details: HashMap<&str, &str> = HashMap::new();
        let answer = bus
            .call_method(
                Some("org.freedesktop.PolicyKit1"),
                "/org/freedesktop/PolicyKit1/Authority",
                Some("org.freedesktop.PolicyKit1.Authority"),
                "CheckAuthorization",
                &(("unix-process", subject), ACTION, no_details, 0_u32, ""),
            )
            .await
            .map_err(|error| error.to_string())?;
        let answer: (bool, bool, HashMap<String, String>) =
            answer.body().deserialize().map_err(|error| error.to_string())?;
        Ok(answer.0)
    }
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The program's name before it may hold anything.
fn start_time_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
