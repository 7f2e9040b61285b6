//! The Debian package on a system of its own: installed, run, upgraded, removed, purged; and what lintian says of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use postern_tests::{
    binaries::{binaries, desktop},
    command::{PATIENCE, run},
    desk, need, need_program,
    overlay::{self, Overlay},
    process::Process,
    servers::{Folder, folder},
};

const PROGRAMS: [&str; 7] =
    ["postern", "posternd", "postern-netd", "postern-dns-stub", "postern-node", "postern-control", "postern-manuals"];
const PACKAGING: Duration = Duration::from_secs(400);

/// Builds the packages of this repository from the programs of this run.
async fn build(folder: &Folder, kind: &str) -> anyhow::Result<PathBuf> {
    let binaries = binaries()?;
    let programs = folder.path().join("programs");
    fs::create_dir(&programs)?;
    for program in PROGRAMS {
        std::os::unix::fs::symlink(binaries.folder().join(program), programs.join(program))?;
    }
    // The window that the other tests open is the one that is packaged.
    std::os::unix::fs::symlink(desktop()?, programs.join("postern-desktop"))?;
    let output = folder.path().join("packages");
    let mut command = tokio::process::Command::new(binaries.xtask());
    command.args(["package", kind, "--programs"]).arg(&programs).arg("--output").arg(&output);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env_remove("CARGO_MANIFEST_DIR");
    // Nobody keeps these packages: small is not worth the time.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    run(&mut command, PACKAGING).await?.success()?;
    Ok(output)
}

fn package(output: &Path, start: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(output)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found =
        entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    found.next().with_context(|| format!("no {start}… in {}", output.display()))
}

/// The next revision of a package, with another text in its configuration file.
async fn next_revision(package: &Path, folder: &Folder) -> anyhow::Result<PathBuf> {
    let (tree, next) = (folder.path().join("next"), folder.path().join("next.deb"));
    run(tokio::process::Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree), PATIENCE).await?.success()?;
    let edit = |file: &str, from: &str, to: &str| {
        let path = tree.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has no {from:?}");
        fs::write(&path, text.replacen(from, to, 1))?;
        Ok(())
    };
    edit("DEBIAN/control", "-1\n", "-2\n")?;
    edit("etc/postern/netd.toml", "# /etc/postern/netd.toml", "# Of the next revision: /etc/postern/netd.toml")?;
    let mut command = tokio::process::Command::new("dpkg-deb");
    command.args(["-Zgzip", "-z1", "--root-owner-group", "-b"]).arg(&tree).arg(&next);
    run(&mut command, PATIENCE).await?.success()?;
    Ok(next)
}

/// Files that Debian's own tools keep, whatever is installed.
fn is_bookkeeping(path: &str) -> bool {
    const FOLDERS: [&str; 4] = ["/var/lib/dpkg/", "/var/cache/", "/var/log/", "/var/lib/systemd/deb-systemd-"];
    const CACHES: [&str; 3] = ["icon-theme.cache", "mimeinfo.cache", "ld.so.cache"];
    FOLDERS.iter().any(|folder| path.starts_with(folder)) || CACHES.iter().any(|cache| path.ends_with(cache))
}

async fn left(system: &Overlay) -> anyhow::Result<Vec<String>> {
    Ok(system.changed().await?.into_iter().filter(|path| !is_bookkeeping(path)).collect())
}

/// Leaves the test with an announcement where the programs cannot be built or packaged.
macro_rules! need_packager {
    ($($program:expr),+) => {
        $(need_program!($program);)+
        if let Some(missing) = desk::front_end_missing() {
            postern_tests::skip::skip(&postern_tests::skip::test_name(), &missing);
            return Ok(());
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debian_package_installs_runs_upgrades_and_purges_without_a_trace() -> anyhow::Result<()> {
    need_packager!("dpkg-deb", "dh", "dpkg-shlibdeps");
    if let Some(missing) = overlay::missing() {
        postern_tests::skip::skip(&postern_tests::skip::test_name(), &missing);
        return Ok(());
    }
    let folder = folder()?;
    let output = build(&folder, "--deb").await?;
    lintian_finds_no_error(&output).await?;
    let first = package(&output, "postern_")?;
    let next = next_revision(&first, &folder).await?;

    let system = Overlay::new().await?;
    let put = |package: &Path, name: &str| {
        fs::copy(package, system.path(name)).with_context(|| format!("cannot copy {}", package.display()))
    };
    put(&first, "/tmp/first.deb")?;
    put(&next, "/tmp/next.deb")?;
    ensure!(left(&system).await?.is_empty(), "the system begins with changes");

    system.run("dpkg", &["-i", "/tmp/first.deb"]).await?;
    programs_work(&system).await?;
    services_are_known(&system).await?;
    desktop_files_are_good(&system).await?;
    the_service_runs(&system, &folder).await?;
    netd_runs(&system, &folder).await?;
    the_window_opens(&system, &folder).await?;

    let config = system.path("/etc/postern/netd.toml");
    fs::write(&config, format!("{}\n#mine\n", fs::read_to_string(&config)?))?;
    fs::create_dir_all(system.path("/var/lib/postern-netd"))?;
    fs::write(system.path("/var/lib/postern-netd/kept"), "kept")?;
    system.run("dpkg", &["--force-confdef", "--force-confold", "-i", "/tmp/next.deb"]).await?;
    let version = system.run("dpkg-query", &["-W", "-f", "${Version} ${Status}", "postern"]).await?;
    ensure!(version.ends_with("-2 install ok installed"), "{version}");
    ensure!(fs::read_to_string(&config)?.ends_with("#mine\n"), "the upgrade overwrote the administrator's file");
    ensure!(system.path("/etc/postern/netd.toml.dpkg-dist").exists(), "the new file is not beside it");
    ensure!(system.path("/var/lib/postern-netd/kept").exists(), "the upgrade lost state");
    programs_work(&system).await?;

    system.run("dpkg", &["-r", "postern"]).await?;
    ensure!(!system.path("/usr/bin/postern").exists() && config.exists());
    system.run("dpkg", &["-P", "postern"]).await?;
    let left = left(&system).await?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

async fn programs_work(system: &Overlay) -> anyhow::Result<()> {
    for program in ["postern", "posternd", "postern-netd", "postern-dns-stub", "postern-desktop"] {
        let said = system.run(program, &["--version"]).await?;
        ensure!(said.starts_with(program), "{program} --version says {said:?}");
    }
    for file in [
        "/usr/share/man/man1/postern.1.gz",
        "/usr/share/man/man1/posternd.1.gz",
        "/usr/share/man/man1/postern-desktop.1.gz",
        "/usr/share/man/man8/postern-netd.8.gz",
        "/usr/share/bash-completion/completions/postern",
        "/usr/share/polkit-1/actions/org.postern.netd.policy",
        "/usr/share/icons/hicolor/scalable/apps/postern.svg",
    ] {
        ensure!(system.path(file).exists(), "{file} is missing");
    }
    Ok(())
}

/// The privileged services start with the machine, the user's own only when the user says so.
async fn services_are_known(system: &Overlay) -> anyhow::Result<()> {
    for unit in ["postern-netd.service", "postern-dns-stub.service"] {
        let state = system.run("systemctl", &["--root=/", "is-enabled", unit]).await?;
        ensure!(state.trim() == "enabled", "{unit} is {state}");
        system.run("systemd-analyze", &["verify", "--man=no", unit]).await?;
    }
    let user = system.run("systemd-analyze", &["--user", "--global", "verify", "--man=no", "posternd.service"]).await;
    if user.is_err() {
        system.run("systemd-analyze", &["verify", "--man=no", "/usr/lib/systemd/user/posternd.service"]).await?;
    }
    ensure!(!system.path("/etc/systemd/user/default.target.wants/posternd.service").exists());
    Ok(())
}

async fn desktop_files_are_good(system: &Overlay) -> anyhow::Result<()> {
    let checks: [(&str, &[&str]); 2] = [
        ("desktop-file-validate", &["/usr/share/applications/postern-desktop.desktop"]),
        ("appstreamcli", &["validate", "--no-net", "/usr/share/metainfo/org.postern.desktop.metainfo.xml"]),
    ];
    for (program, arguments) in checks {
        if postern_tests::command::find_program(program).is_some() {
            system.run(program, arguments).await?;
        }
    }
    Ok(())
}

/// A user's service and command line, as installed, by somebody who is not root.
async fn the_service_runs(system: &Overlay, folder: &Folder) -> anyhow::Result<()> {
    system.run("install", &["-d", "-m", "0700", "-o", "12345", "-g", "12345", "/tmp/home"]).await?;
    let as_user = |program: &str| {
        let mut command = system.command("setpriv");
        command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "--", program]);
        command.env("POSTERN_HOME", "/tmp/home").env("HOME", "/tmp/home");
        command
    };
    let mut command = as_user("posternd");
    let mut service = Process::spawn("posternd", command.args(["--status-listen", "off"]), folder.path())?;
    service.ready().await?;
    let mut command = as_user("postern");
    let status = run(&mut command_of(command.args(["status", "--json"])), PATIENCE).await?.success()?;
    let status: serde_json::Value = serde_json::from_str(&status).with_context(|| format!("no JSON: {status}"))?;
    ensure!(status.get("sign_in").is_some(), "{status}");
    let ended = service.stop().await?;
    ensure!(ended.success(), "posternd ended with {ended}");
    Ok(())
}

async fn netd_runs(system: &Overlay, folder: &Folder) -> anyhow::Result<()> {
    let mut netd = Process::spawn("postern-netd", &mut system.command("postern-netd"), folder.path())?;
    netd.ready().await?;
    ensure!(system.path("/run/postern/netd.sock").exists());
    let ended = netd.stop().await?;
    ensure!(ended.success(), "postern-netd ended with {ended}");
    Ok(())
}

/// The installed app on a screen without a session bus: no tray, no notifications, but a window.
async fn the_window_opens(system: &Overlay, folder: &Folder) -> anyhow::Result<()> {
    if postern_tests::command::find_program("Xvfb").is_none() {
        postern_tests::skip::skip(&postern_tests::skip::test_name(), "Xvfb is not installed, so no window is opened");
        return Ok(());
    }
    let mut command = system.command("Xvfb");
    // A network of its own, so a display of its own.
    let mut screen = Process::spawn("Xvfb", command.args([":7", "-nolisten", "tcp", "-noreset"]), folder.path())?;
    while !system.path("/tmp/.X11-unix/X7").exists() {
        ensure!(screen.is_running(), "Xvfb ended\n{}", screen.log_end());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    system.run("install", &["-d", "-m", "0700", "/tmp/desk"]).await?;
    let mut command = system.command("postern-desktop");
    command.args(["--mock", "40"]).env("DISPLAY", ":7").env("LIBGL_ALWAYS_SOFTWARE", "1").env("GDK_BACKEND", "x11");
    for name in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
        command.env(name, "/tmp/desk");
    }
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent");
    let mut app = Process::spawn("postern-desktop", &mut command, folder.path())?;
    app.ready().await.context("the window is not usable")?;
    let ended = app.stop().await?;
    ensure!(ended.success(), "postern-desktop ended with {ended}");
    screen.stop().await?;
    Ok(())
}

fn command_of(command: &mut Command) -> tokio::process::Command {
    std::mem::replace(command, Command::new("true")).into()
}

/// What Debian's own judge says. Skipped by name where it is not installed.
async fn lintian_finds_no_error(output: &Path) -> anyhow::Result<()> {
    let lintian = need_program!("lintian");
    let mut command = tokio::process::Command::new(lintian);
    command.args(["--fail-on", "error", "--no-tag-display-limit"]);
    if postern_tests::skip::is_root() {
        command.arg("--allow-root");
    }
    for start in ["postern_", "postern-node_", "postern-control_"] {
        command.arg(package(output, start)?);
    }
    let said = run(&mut command, PACKAGING).await?.success()?;
    ensure!(!said.lines().any(|line| line.starts_with("E:")), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rpm_packages_keep_edited_configuration_and_need_no_window() -> anyhow::Result<()> {
    need_packager!("rpmbuild", "rpm");
    let rpm = need_program!("rpm");
    let folder = folder()?;
    let output = build(&folder, "--rpm").await?;
    let ask = async |question: &str, start: &str| {
        let mut command = tokio::process::Command::new(&rpm);
        run(command.args(["-qp", question]).arg(package(&output, start)?), PATIENCE).await?.success()
    };
    let files = ask("--list", "postern-0").await?;
    for file in [
        "/usr/bin/postern-desktop",
        "/usr/bin/postern-netd",
        "/usr/lib/systemd/user/posternd.service",
        "/usr/lib/systemd/system/postern-netd.service",
        "/usr/share/applications/postern-desktop.desktop",
        "/usr/share/man/man1/postern.1",
        "/usr/share/zsh/site-functions/_postern",
    ] {
        // Man pages are compressed where the distribution does so.
        ensure!(files.lines().any(|line| line.trim_end_matches(".gz") == file), "{file} is not among\n{files}");
    }
    ensure!(ask("--configfiles", "postern-0").await?.trim() == "/etc/postern/netd.toml");
    let requires = ask("--requires", "postern-0").await?;
    ensure!(requires.contains("libc.so.6") && !requires.contains("libwebkit"), "{requires}");
    ensure!(ask("--recommends", "postern-0").await?.contains("libwebkit2gtk-4.1"));
    ensure!(ask("--scripts", "postern-0").await?.contains("systemd-update-helper"));
    ensure!(ask("--list", "postern-node-").await?.contains("/usr/bin/postern-node"));
    ensure!(ask("--list", "postern-control-").await?.contains("/usr/bin/postern-control"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rpm_package_installs_is_whole_and_goes_but_for_what_was_edited() -> anyhow::Result<()> {
    need_packager!("rpmbuild", "rpm");
    if let Some(missing) = overlay::missing() {
        postern_tests::skip::skip(&postern_tests::skip::test_name(), &missing);
        return Ok(());
    }
    let folder = folder()?;
    let output = build(&folder, "--rpm").await?;
    let system = Overlay::new().await?;
    system.run("rpm", &["--dbpath", "/tmp/rpm", "--initdb"]).await?;
    // Debian's own rpm wants to be told that it is meant. The libraries are there, but dpkg's, not rpm's.
    let rpm = async |arguments: &[&str]| {
        let all = [&["--force-debian", "--dbpath", "/tmp/rpm"], arguments].concat();
        system.run("rpm", &all).await
    };
    for start in ["postern-0", "postern-node-", "postern-control-"] {
        fs::copy(package(&output, start)?, system.path(&format!("/tmp/{start}.rpm")))?;
        rpm(&["--nodeps", "-i", &format!("/tmp/{start}.rpm")]).await?;
    }
    // Every file has the size, the sum, the mode and the owner of the package.
    let verified = rpm(&["-V", "--nodeps", "postern", "postern-node", "postern-control"]).await?;
    ensure!(verified.trim().is_empty(), "{verified}");
    for program in ["postern", "posternd", "postern-netd", "postern-desktop", "postern-node", "postern-control"] {
        let said = system.run(program, &["--version"]).await?;
        ensure!(said.starts_with(program), "{program} --version says {said:?}");
    }
    the_service_runs(&system, &folder).await?;

    let config = system.path("/etc/postern/netd.toml");
    fs::write(&config, format!("{}\n#mine\n", fs::read_to_string(&config)?))?;
    rpm(&["-e", "postern", "postern-node", "postern-control"]).await?;
    ensure!(!config.exists() && !system.path("/usr/bin/postern").exists());
    let kept = system.path("/etc/postern/netd.toml.rpmsave");
    ensure!(fs::read_to_string(&kept)?.ends_with("#mine\n"), "what was edited is gone");
    fs::remove_file(kept)?;
    // The account of the control plane stays, as those of all packages with sysusers: what it owned must not become another's.
    let accounts = ["passwd", "group", "shadow", "gshadow"].map(|file| format!("/etc/{file}"));
    let mut left = left(&system).await?;
    left.retain(|path| path != "/etc/.pwd.lock" && !accounts.iter().any(|file| path.trim_end_matches('-') == file));
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_of_servers_and_of_the_dns_stub_leave_little_to_attack() -> anyhow::Result<()> {
    let analyze = need_program!("systemd-analyze");
    for (unit, limit) in [("postern-dns-stub", "25"), ("postern-gateway", "25"), ("postern-control", "25")] {
        let file = format!("{}/../packaging/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
        let mut command = tokio::process::Command::new(&analyze);
        command.args(["security", "--offline=true", "--no-pager", "--threshold", limit, &file]);
        let output = run(&mut command, PATIENCE).await?;
        need!(
            output.status.success() || !output.stderr.contains("offline") || !output.stdout.is_empty(),
            "systemd-analyze is too old for --offline"
        );
        ensure!(output.stdout.contains("Overall exposure level"), "{}\n{}", output.stdout, output.stderr);
        ensure!(output.status.success(), "{unit} is above {limit}:\n{}", output.stdout);
    }
    Ok(())
}
