//! `service`: running, installing, stopping and clearing up.

use std::{
    fs::File,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use postern_local_api::paths::Paths;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

/// A machine with its own programs: posternd, systemctl.
struct Machine {
    home: TempDir,
    programs: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let programs = home.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        Self { home, programs }
    }

    fn with(self, name: &str, script: &str) -> Self {
        program(&self.programs, name, script);
        self
    }

    /// Runs a copy of the program that lies where nothing else is.
    fn run(&self, arguments: &[&str]) -> Ran {
        self.invocation(arguments).run("")
    }

    fn invocation(&self, arguments: &[&str]) -> Invocation {
        let alone = self.home.path().join("alone");
        std::fs::create_dir_all(&alone).unwrap();
        let postern = alone.join("postern");
        if !postern.exists() {
            std::fs::copy(POSTERN, &postern).unwrap();
        }
        let mut invocation = Invocation::new(self.home.path(), arguments);
        let mut command = std::process::Command::new(postern);
        command.args(arguments).env_clear().env("HOME", self.home.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.programs.display()));
        invocation.command = command;
        invocation
    }

    fn unit(&self) -> PathBuf {
        self.home.path().join(".config/systemd/user/posternd.service")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

/// A systemctl that notes what it was asked.
const GOOD_SYSTEMCTL: &str = r#"echo "$@" >> "$HOME/log""#;
const NO_BUS: &str = "echo 'Failed to connect to bus: No medium found' >&2; exit 1";

#[test]
fn run_becomes_posternd_from_path_with_its_options() {
    let machine = Machine::new().with("posternd", r#"echo "posternd $@ home=$POSTERN_HOME"; exit 17"#);
    machine
        .run(&["service", "run", "--", "--control", "https://c"])
        .ends(17)
        .says("posternd --control https://c home=");
    machine.run(&["--home", "/h/x", "service", "run"]).ends(17).says("posternd --home /h/x home=");
    let ran = machine.invocation(&["service", "run"]).env("POSTERN_HOME", "/h/y").run("").ends(17);
    assert_eq!(ran.out, "posternd  home=/h/y\n");
}

#[test]
fn an_empty_postern_home_counts_as_not_set() {
    let machine = Machine::new().with("posternd", r#"echo "posternd $@ home=$POSTERN_HOME"; exit 17"#);
    let ran = machine.invocation(&["service", "run"]).env("POSTERN_HOME", "").run("").ends(17);
    assert_eq!(ran.out, "posternd  home=\n");
    machine.invocation(&["status"]).env("POSTERN_HOME", "").run("").warns("posternd is not running");
}

#[test]
fn posternd_beside_the_program_goes_before_the_one_in_path() {
    let machine = Machine::new().with("posternd", "echo from path");
    machine.run(&["service", "run"]).ends(0).says("from path");
    program(&machine.home.path().join("alone"), "posternd", "echo from beside");
    machine.run(&["service", "run"]).ends(0).says("from beside");
}

#[test]
fn a_missing_posternd_is_said_with_what_to_do() {
    let machine = Machine::new();
    machine.run(&["service", "run"]).ends(1).warns("posternd is not installed").warns("next: put posternd");
    machine.run(&["service", "install"]).ends(1).warns("posternd is not installed");
    assert!(!machine.unit().exists());
}

#[test]
fn install_writes_a_unit_and_enables_it() {
    let machine = Machine::new().with("posternd", "true").with("systemctl", GOOD_SYSTEMCTL);
    // The service that systemd starts: a socket that answers where the program looks for it.
    let served = serve_in(&machine);
    let ran = machine.run(&["service", "install", "--", "--control", "https://c.example"]).ends(0);
    ran.says("Wrote ").says("posternd runs now").says("enable-linger");
    let unit = std::fs::read_to_string(machine.unit()).unwrap();
    let program = machine.programs.join("posternd");
    assert!(
        unit.contains(&format!("ExecStart=\"{}\" \"--control\" \"https://c.example\"\n", program.display())),
        "{unit}"
    );
    assert!(unit.contains("WantedBy=default.target"), "{unit}");
    assert_eq!(machine.log(), "--user daemon-reload\n--user enable --now posternd.service\n");
    // Once more with other options: the unit is replaced and the service restarted.
    machine.run(&["service", "install"]).ends(0).says("Updated ");
    assert!(machine.log().ends_with("--user restart posternd.service\n"), "{}", machine.log());
    drop(served);
}

/// A fake service at the place where the program looks without POSTERN_HOME.
fn serve_in(machine: &Machine) -> Fake {
    let fake = Fake::start();
    let runtime = machine.home.path().join(".local/state/postern/run");
    std::fs::create_dir_all(runtime.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&fake.paths.runtime, &runtime).unwrap();
    fake
}

#[test]
fn install_keeps_the_home_in_the_unit() {
    let machine = Machine::new().with("posternd", "true").with("systemctl", NO_BUS);
    machine.invocation(&["service", "install"]).env("POSTERN_HOME", "/srv/a b").run("").ends(0);
    let unit = std::fs::read_to_string(machine.unit()).unwrap();
    assert!(unit.contains("posternd\" \"--home\" \"/srv/a b\"\n"), "{unit}");
}

#[test]
fn where_systemd_cannot_be_reached_the_unit_is_there_and_the_way_on_is_told() {
    let machine = Machine::new().with("posternd", "true").with("systemctl", NO_BUS);
    let ran = machine.run(&["service", "install"]).ends(0);
    let ran = ran.warns("could not be enabled: Failed to connect to bus: No medium found");
    ran.says("systemctl --user enable --now posternd.service").says("`postern service run`");
    assert!(machine.unit().exists());
    let wants = machine.unit().parent().unwrap().join("default.target.wants");
    std::fs::create_dir(&wants).unwrap();
    std::os::unix::fs::symlink(machine.unit(), wants.join("posternd.service")).unwrap();
    machine.run(&["service", "uninstall"]).ends(0).says("Removed ").warns("systemd could not be told");
    assert!(wants.join("posternd.service").symlink_metadata().is_err(), "the link of `systemctl enable` must go too");
    assert!(!machine.unit().exists());
}

#[test]
fn a_unit_of_somebody_else_is_left_alone() {
    let machine = Machine::new().with("posternd", "true").with("systemctl", GOOD_SYSTEMCTL);
    std::fs::create_dir_all(machine.unit().parent().unwrap()).unwrap();
    std::fs::write(machine.unit(), "[Service]\nExecStart=/mine\n").unwrap();
    machine.run(&["service", "install"]).ends(1).warns("was not written by this program");
    machine.run(&["service", "uninstall"]).ends(1).warns("is not ours to remove");
    assert_eq!(std::fs::read_to_string(machine.unit()).unwrap(), "[Service]\nExecStart=/mine\n");
    assert_eq!(machine.log(), "");
}

#[test]
fn uninstall_undoes_install() {
    let machine = Machine::new().with("posternd", "true").with("systemctl", GOOD_SYSTEMCTL);
    let _served = serve_in(&machine);
    machine.run(&["service", "uninstall"]).ends(0).says("It is not installed.");
    machine.run(&["service", "install"]).ends(0);
    machine.run(&["doctor", "--json"]).says("is there, but not enabled");
    let wants = machine.unit().parent().unwrap().join("default.target.wants");
    std::fs::create_dir(&wants).unwrap();
    std::os::unix::fs::symlink(machine.unit(), wants.join("posternd.service")).unwrap();
    machine.run(&["doctor", "--json"]).says("posternd starts with your session");
    machine.run(&["service", "uninstall"]).ends(0).says("Removed ").says("no longer starts by itself");
    assert!(machine.log().contains("--user disable --now posternd.service\n"), "{}", machine.log());
    assert!(!machine.unit().exists());
}

#[test]
fn stop_asks_the_service() {
    let fake = Fake::start();
    fake.answer("POST /v1/shutdown", 202, json!(null));
    fake.run(&["service", "stop"]).ends(0).says("posternd (process 42) is stopping.");
    assert_eq!(fake.calls(), [("POST /v1/shutdown".to_owned(), json!(null))]);
}

/// What a service leaves behind that was killed.
fn leftovers(home: &Path) -> Paths {
    let paths = Paths::under(home).unwrap();
    std::fs::create_dir_all(&paths.runtime).unwrap();
    std::fs::create_dir_all(&paths.state).unwrap();
    drop(UnixListener::bind(paths.socket()).unwrap());
    std::fs::write(paths.lock(), "123\n").unwrap();
    std::fs::write(paths.state.join("posternd.lock"), "123\n").unwrap();
    paths
}

#[test]
fn cleanup_removes_what_a_dead_service_left() {
    let home = tempfile::tempdir().unwrap();
    let paths = leftovers(home.path());
    let cleanup = || Invocation::new(home.path(), &["service", "cleanup"]).run("");
    cleanup().ends(0).says("posternd.sock").says("posternd.lock");
    assert!(!paths.socket().exists() && !paths.lock().exists());
    assert!(paths.state.join("posternd.lock").exists(), "the lock of the state must stay");
    cleanup().ends(0).says("There is nothing to clean up.");
}

#[test]
fn cleanup_touches_nothing_of_a_service_that_lives() {
    let fake = Fake::start();
    fake.run(&["service", "cleanup"]).ends(1).warns("posternd is running; nothing was removed");
    assert!(fake.paths.socket().exists());
    // It may hold a lock and not listen yet, or not any more.
    for lock in ["run/posternd.lock", "state/posternd.lock"] {
        let home = tempfile::tempdir().unwrap();
        let paths = leftovers(home.path());
        let held = File::open(home.path().join(lock)).unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        Invocation::new(home.path(), &["service", "cleanup"]).run("").ends(1).warns("it holds");
        assert!(paths.socket().exists() && paths.lock().exists());
    }
}
