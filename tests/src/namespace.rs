//! A network of the test's own: its interfaces, addresses, routes, rules and packet filter are not the machine's, and
//! neither are its `/run`, `/etc` and `/sys`. Its `/dev/net/tun` may be opened by everybody, as on most machines.
//!
//! ```text
//! need_namespace!();
//! let namespace = Namespace::new().await?;
//! namespace.add_uplink().await?;
//! let before = namespace.snapshot().await?;
//! let mut netd = Process::spawn("netd", namespace.command(&program).arg("--socket").arg("/run/p.sock"), folder)?;
//! let asker = Process::spawn("asker", &mut namespace.command_as(20_001, &asker), folder)?;
//! …
//! namespace.snapshot().await?.must_equal(&before)?;
//! ```
//!
//! Users need no account: a uid is enough. The namespace is gone when its value is dropped, or when the test dies in
//! whatever way.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs,
    os::fd::AsFd as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    command::{self, PATIENCE, find_program},
    holder::Holder,
};

/// Programs without which there is no namespace to be had.
const NEEDED: [&str; 4] = ["ip", "nsenter", "setpriv", "unshare"];
/// The interface that stands for the way out of the machine, see [`Namespace::add_uplink`].
pub const UPLINK: &str = "up0";

/// What the holder does: sets the namespace up, says so, and stays until the test closes its standard input. `/etc` is
/// a copy, so that programs may replace files in it as they do on a real machine.
const HOLDER: &str = r#"set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/postern /run/systemd/resolve /run/dbus
cp -a /etc/. "$1/etc/"
rm -f "$1/etc/resolv.conf"
printf 'nameserver 192.0.2.53\n' > "$1/etc/resolv.conf"
mount --bind "$1/etc" /etc
mount -t sysfs sysfs /sys 2>/dev/null || true
mount -t tmpfs -o mode=755 tmpfs /dev/net
mknod -m 666 /dev/net/tun c 10 200
ip link set lo up
echo ready
exec cat >/dev/null
"#;

/// Leaves the test with an announcement where it cannot have a network namespace and a TUN device.
#[macro_export]
macro_rules! need_namespace {
    () => {
        if let Some(reason) = $crate::namespace::missing() {
            $crate::skip::skip(&$crate::skip::test_name(), &reason);
            return Ok(());
        }
    };
}

/// What this machine lacks for [`Namespace::new`] and a TUN device in it.
#[must_use]
pub fn missing() -> Option<String> {
    if !crate::skip::is_root() {
        return Some("needs root to make a network namespace".to_owned());
    }
    if let Some(program) = NEEDED.into_iter().find(|program| find_program(program).is_none()) {
        return Some(format!("{program} is not installed (tests/debian-packages.txt lists what is needed)"));
    }
    if fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return Some("needs /dev/net/tun".to_owned());
    }
    let made = Command::new("unshare").args(["-n", "-m", "true"]).stderr(Stdio::null()).status();
    match made {
        Ok(status) if status.success() => None,
        _ => Some("may not make a network namespace".to_owned()),
    }
}

/// A network and mount namespace, held by a process of its own.
pub struct Namespace {
    holder: Holder,
    /// Holds `/etc`. After `holder`: gone when that is.
    folder: tempfile::TempDir,
}

impl Namespace {
    /// Makes one with only `lo`, which is up. No default route: see [`Namespace::add_uplink`].
    pub async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(folder.path().join("etc"))?;
        let holder = Holder::start(HOLDER, folder.path()).await?;
        Ok(Self { holder, folder })
    }

    /// A program in this namespace, as root. The process that is started *is* the program: its id can be signalled.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.holder.command(&["-n", "-m"], program)
    }

    /// The same as the user `uid`, with the group of that number, no other groups and no capabilities.
    #[must_use]
    pub fn command_as(&self, uid: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]).args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Runs a program as root to its end, which must be a good one; its standard output.
    pub async fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        command::run(&mut command.into(), PATIENCE).await?.success()
    }

    /// `ip` with the words of `arguments`: `ip("link set tun0 up")`.
    pub async fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        self.run("ip", &arguments.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Writes a kernel setting of this network: `set("net/ipv4/conf/all/rp_filter", "1")`.
    pub async fn set(&self, setting: &str, value: &str) -> anyhow::Result<()> {
        let path = Path::new("/proc/sys").join(setting);
        let value = value.to_owned();
        self.inside(move || fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))).await?
    }

    /// Runs `work` on a thread of its own that is in the network of this namespace (its sockets, its `/proc/sys/net`),
    /// but not in its file system: see [`Namespace::path`].
    pub async fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        let thread = std::thread::Builder::new().name(crate::skip::test_name()).spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            anyhow::Ok(work())
        })?;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|panic| anyhow::anyhow!("the thread inside the namespace failed: {}", text_of(&*panic)))?
    }

    /// The network, for threads to enter.
    pub fn network(&self) -> anyhow::Result<fs::File> {
        Ok(fs::File::open(format!("/proc/{}/ns/net", self.holder.id()))?)
    }

    /// The process that holds it: what `ip link set … netns` wants.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Where this process finds a file of the namespace: `path("/run/postern/netd.sock")`.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.id()))
    }

    /// A folder that everybody can read and root can write, the same path inside and outside.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A way out of the machine: [`UPLINK`] with 10.9.0.2/24 and fd99::2/64, and default routes over it to somebody who
    /// never answers. What leaks goes there: see [`Namespace::leaked`].
    pub async fn add_uplink(&self) -> anyhow::Result<()> {
        // IPv6 repeats its multicast reports after up to a second, which would look like a leak: at once instead.
        let _ = self.set("net/ipv6/conf/default/mldv2_unsolicited_report_interval", "1").await;
        self.ip("link add up0 type veth peer name up1").await?;
        for link in ["up0", "up1"] {
            // Where there is no IPv6 there is no link-local address to be kept away either.
            let _ = self.ip(&format!("link set {link} addrgenmode none")).await;
        }
        self.ip("addr add 10.9.0.2/24 dev up0").await?;
        self.ip("link set up1 up").await?;
        self.ip("link set up0 up").await?;
        self.ip("route add default via 10.9.0.1").await?;
        self.ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev up0 nud permanent").await?;
        if self.ip("-6 addr add fd99::2/64 dev up0 nodad").await.is_ok() {
            self.ip("-6 route add default via fd99::1").await?;
            self.ip("-6 neigh add fd99::1 lladdr 02:00:00:00:00:01 dev up0 nud permanent").await?;
        }
        Ok(())
    }

    /// How many packets left by the uplink so far. IPv6 sends some of its own accord when a link comes up.
    pub async fn leaked(&self) -> anyhow::Result<u64> {
        let links: serde_json::Value = serde_json::from_str(&self.ip("-j -s link show dev up0").await?)?;
        links.pointer("/0/stats64/tx/packets").and_then(serde_json::Value::as_u64).context("no packet count")
    }

    /// All that Postern could have changed and must have put back.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut parts = Vec::new();
        for arguments in SNAPSHOT {
            // Fails for IPv6 where that is not to be had, the same way each time.
            let mut command = self.command("ip");
            command.args(arguments.split_whitespace());
            let output = command::run(&mut command.into(), PATIENCE).await?;
            parts.push((format!("ip {arguments}"), output.stdout.replace("},{", "},\n{")));
        }
        parts.push(("/etc/resolv.conf".to_owned(), resolver_state(&self.path("/etc/resolv.conf"))?));
        Ok(Snapshot { parts })
    }
}

const SNAPSHOT: [&str; 6] =
    ["-j rule", "-6 -j rule", "-j route show table all", "-6 -j route show table all", "-j link", "-j address"];

/// Rules, routes, links, addresses and the resolver's configuration at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    parts: Vec<(String, String)>,
}

impl Snapshot {
    /// An error that shows what differs, unless nothing does.
    pub fn must_equal(&self, expected: &Self) -> anyhow::Result<()> {
        let mut wrong = String::new();
        for ((name, now), (_, then)) in self.parts.iter().zip(&expected.parts) {
            if now != then {
                write!(wrong, "{name} was\n{then}\nand is\n{now}\n")?;
            }
        }
        anyhow::ensure!(wrong.is_empty(), "the system is not as it was\n{wrong}");
        Ok(())
    }
}

/// Content, kind, target, permissions and owner: everything but times.
fn resolver_state(path: &Path) -> anyhow::Result<String> {
    let data = fs::symlink_metadata(path)?;
    let target = fs::read_link(path).ok();
    let content = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(format!("{:o} {}:{} {target:?}\n{content:?}", data.mode(), data.uid(), data.gid()))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_namespace_has_a_network_and_folders_of_its_own() -> anyhow::Result<()> {
        need_namespace!();
        let namespace = Namespace::new().await?;
        let before = namespace.snapshot().await?;
        namespace.add_uplink().await?;
        assert!(namespace.snapshot().await?.must_equal(&before).is_err());
        namespace.ip("link del up0").await?;
        namespace.snapshot().await?.must_equal(&before)?;

        fs::write(namespace.path("/etc/resolv.conf"), "changed")?;
        assert!(namespace.snapshot().await?.must_equal(&before).is_err());
        assert_ne!(fs::read_to_string("/etc/resolv.conf").ok().as_deref(), Some("changed"));
        assert_eq!(namespace.run("cat", &["/etc/resolv.conf"]).await?, "changed");
        Ok(())
    }

    #[tokio::test]
    async fn a_program_runs_as_the_user_it_is_told() -> anyhow::Result<()> {
        need_namespace!();
        let namespace = Namespace::new().await?;
        let mut command = namespace.command_as(20_001, "sh");
        command.args(["-c", "id -u; grep CapEff /proc/self/status; echo $$"]);
        let mut process = crate::process::Process::spawn("user", &mut command, namespace.folder())?;
        process.wait(PATIENCE).await?;
        process.settle();
        assert_eq!(process.output(), format!("20001\nCapEff:\t0000000000000000\n{}\n", process.id()));
        Ok(())
    }

    #[tokio::test]
    async fn a_thread_inside_sees_the_network_of_the_namespace() -> anyhow::Result<()> {
        need_namespace!();
        let namespace = Namespace::new().await?;
        namespace.set("net/ipv4/conf/all/rp_filter", "2").await?;
        let read = namespace.inside(|| fs::read_to_string("/proc/thread-self/net/dev")).await??;
        assert_eq!(read.matches(':').count(), 1, "{read}");
        let set = namespace.run("cat", &["/proc/sys/net/ipv4/conf/all/rp_filter"]).await?;
        assert_eq!(set.trim(), "2");
        Ok(())
    }
}
