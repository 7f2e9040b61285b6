//! Images of containers: built by buildah, without a registry and without a daemon, and run on a root that cannot be written.
//!
//! What an image starts from cannot be fetched in a test. It is given stand-ins: the libraries that our programs link, and a
//! `cargo` that takes programs which are built already. Every instruction of the file is carried out, but the compiler.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{
    binaries::Binaries,
    command::{self, PATIENCE, find_program},
    process::Process,
    skip,
};

/// The file, from the root of the repository.
pub const CONTAINERFILE: &str = "packaging/container/Containerfile";
const NEEDED: [&str; 6] = ["buildah", "chroot", "ldd", "mount", "setpriv", "unshare"];

/// What the build stage runs in place of cargo. It takes no other arguments than those that it is told.
const CARGO: &str = r#"#!/bin/sh
set -eu
if [ "$*" != "build --locked --release --package postern-control --package postern-node" ] || ! [ -f Cargo.lock ]; then
    echo "cargo $*: not what the stand-in knows" >&2
    exit 1
fi
mkdir -p target/release
cp /programs/* target/release/
"#;

/// Becomes the program of an image: as process 1, as the image's user, on a root that is read-only but for the volume and `/tmp`,
/// with no way to more rights.
const RUN: &str = r#"set -e
root=$1 volume=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount --bind "$volume" "$root/var/lib/postern"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"#;

/// What this machine lacks for [`Builder::new`].
#[must_use]
pub fn missing() -> Option<String> {
    if !skip::is_root() {
        return Some("needs root to build an image without a daemon".to_owned());
    }
    if let Some(program) = NEEDED.into_iter().find(|program| find_program(program).is_none()) {
        return Some(format!("{program} is not installed (tests/debian-packages.txt lists what is needed)"));
    }
    let tried =
        Command::new("unshare").args(["--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "t", "/mnt"]).output();
    match tried {
        Ok(output) if output.status.success() => None,
        _ => Some("may not mount".to_owned()),
    }
}

/// Builds images into a folder of its own.
pub struct Builder {
    folder: tempfile::TempDir,
}

/// How an image says that its program is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub user: String,
    #[serde(default)]
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
    pub volumes: serde_json::Map<String, serde_json::Value>,
    pub exposed_ports: serde_json::Map<String, serde_json::Value>,
    pub labels: serde_json::Map<String, serde_json::Value>,
    pub stop_signal: String,
    #[serde(skip)]
    pub root: PathBuf,
}

impl Builder {
    /// Makes the stand-ins.
    pub async fn new(binaries: &Binaries) -> anyhow::Result<Self> {
        let builder = Self { folder: tempfile::tempdir()? };
        let programs = [binaries.control(), binaries.node()];
        let (base, toolchain) = (builder.folder.path().join("base"), builder.folder.path().join("toolchain"));
        for folder in ["proc", "dev", "tmp", "etc", "var/lib"] {
            fs::create_dir_all(base.join(folder))?;
            fs::create_dir_all(toolchain.join(folder))?;
        }
        copy_libraries(&programs, &base)?;
        let tools: Vec<PathBuf> = ["sh", "cp", "mkdir"].iter().filter_map(|tool| find_program(tool)).collect();
        copy_libraries(&tools, &toolchain)?;
        let bin = toolchain.join("usr/bin");
        fs::create_dir_all(&bin)?;
        std::os::unix::fs::symlink("usr/bin", toolchain.join("bin"))?;
        for tool in &tools {
            fs::copy(tool, bin.join(tool.file_name().context("a tool without a name")?))?;
        }
        fs::write(bin.join("cargo"), CARGO)?;
        fs::set_permissions(bin.join("cargo"), PermissionsExt::from_mode(0o755))?;
        fs::create_dir(toolchain.join("programs"))?;
        for program in &programs {
            binaries.copy_to(program, &toolchain.join("programs"))?;
        }
        builder.stand_in("base").await?;
        builder.stand_in("toolchain").await?;
        Ok(builder)
    }

    async fn stand_in(&self, name: &str) -> anyhow::Result<()> {
        let file = self.folder.path().join(format!("{name}.containerfile"));
        fs::write(&file, "FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\n")?;
        let context = self.folder.path().join(name);
        self.buildah(&["build", "--file", path(&file)?, "--tag", &format!("localhost/{name}"), path(&context)?])
            .await?;
        Ok(())
    }

    /// Builds one target of our file.
    pub async fn build(&self, target: &str) -> anyhow::Result<Image> {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let (file, tag) = (format!("{repository}/{CONTAINERFILE}"), format!("localhost/{target}"));
        let stand_ins = ["RUST_IMAGE=localhost/toolchain", "BASE_IMAGE=localhost/base"];
        let [rust, base] = stand_ins;
        let arguments = ["build", "--build-arg", rust, "--build-arg", base, "--target", target, "--file", &file];
        self.buildah(&[&arguments[..], &["--tag", &tag, repository]].concat()).await?;
        let about: serde_json::Value =
            serde_json::from_str(&self.buildah(&["inspect", "--type", "image", &tag]).await?)?;
        let config = about.pointer("/OCIv1/config").context("the image has no configuration")?;
        let mut image = Image::deserialize(config).with_context(|| format!("the image is {config}"))?;
        let container = self.buildah(&["from", "--pull-never", &tag]).await?;
        image.root = self.buildah(&["mount", container.trim()]).await?.trim().into();
        Ok(image)
    }

    async fn buildah(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new("buildah");
        command.arg("--root").arg(self.folder.path().join("storage"));
        command.arg("--runroot").arg(self.folder.path().join("run")).args(["--storage-driver", "vfs"]);
        command.env("BUILDAH_ISOLATION", "chroot");
        let (verb, rest) = arguments.split_first().context("no command")?;
        command.arg(verb);
        if *verb == "build" {
            command.args(["--quiet", "--pull-never"]);
        }
        command::run(command.args(rest), PATIENCE).await?.success().with_context(|| format!("buildah {arguments:?}"))
    }
}

impl Image {
    /// Starts its program with these arguments, or else with its own, on a volume whose owner is the image's user.
    pub fn start(
        &self,
        name: &str,
        volume: &Path,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> anyhow::Result<Process> {
        let (uid, gid) = self.owner()?;
        fs::create_dir_all(volume)?;
        chown(volume, Some(uid), Some(gid)).context("cannot give the volume away")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", RUN, "run"]);
        command.arg(&self.root).arg(volume).arg(&self.user).args(&self.entrypoint);
        if arguments.is_empty() {
            command.args(&self.cmd);
        }
        command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .envs(self.env.iter().filter_map(|variable| variable.split_once('=')).filter(|(name, _)| *name != "PATH"));
        command.envs(environment.iter().copied());
        let folder = volume.parent().context("a volume without a folder")?;
        Process::spawn(name, &mut command, folder)
    }

    /// Its user and group, which must be numbers.
    pub fn owner(&self) -> anyhow::Result<(u32, u32)> {
        let (uid, gid) = self.user.split_once(':').context("the image's user has no group")?;
        Ok((uid.parse().context("the user is no number")?, gid.parse().context("the group is no number")?))
    }
}

/// The process within: what was started outside waits for it.
pub fn process_within(outside: &Process) -> anyhow::Result<rustix::process::Pid> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", outside.id()))?;
    let child = children.split_whitespace().next().context("the program has ended")?;
    rustix::process::Pid::from_raw(child.parse()?).context("process 0")
}

/// What programs are linked with, as the loader finds it on this machine.
pub fn libraries(programs: &[PathBuf]) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
        ensure!(output.status.success(), "ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
        let listed = String::from_utf8_lossy(&output.stdout);
        found.extend(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
    }
    Ok(found)
}

fn copy_libraries(programs: &[PathBuf], root: &Path) -> anyhow::Result<()> {
    for library in libraries(programs)? {
        let copy = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(copy.parent().context("a library without a folder")?)?;
        fs::copy(&library, &copy).with_context(|| format!("cannot copy {}", library.display()))?;
    }
    Ok(())
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the temporary folder has a name that is no text")
}
