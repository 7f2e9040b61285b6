//! Native programs that open a resource: a terminal with ssh or a database client, the browser.
//!
//! Programs are started with separate, typed arguments: host and port of the resource, which the service checked. No
//! text ever passes through a shell. Only what is installed is offered.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::view::{Kind, Tool};

/// What a tool runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    /// A program that needs a terminal.
    InTerminal(&'static str),
    /// The browser, by the system's opener.
    Browser,
}

/// A tool that this app knows.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: &'static str,
    name: &'static str,
    kinds: &'static [Kind],
    runs: Runs,
}

/// In the order in which they are offered; the first that fits is the one of the key O.
const KNOWN: &[Known] = &[
    Known { id: "terminal_ssh", name: "ssh", kinds: &[Kind::Ssh], runs: Runs::InTerminal("ssh") },
    Known { id: "terminal_psql", name: "psql", kinds: &[Kind::Postgres], runs: Runs::InTerminal("psql") },
    Known { id: "terminal_mysql", name: "mysql", kinds: &[Kind::Mysql], runs: Runs::InTerminal("mysql") },
    Known { id: "terminal_redis", name: "redis-cli", kinds: &[Kind::Redis], runs: Runs::InTerminal("redis-cli") },
    Known { id: "browser", name: "Browser", kinds: &[Kind::Http], runs: Runs::Browser },
];

/// Terminals, with what stands between them and the program they run. The first that is installed is taken.
const TERMINALS: &[(&str, &[&str])] = &[
    ("xdg-terminal-exec", &[]),
    ("x-terminal-emulator", &["-e"]),
    ("gnome-terminal", &["--"]),
    ("kgx", &["--"]),
    ("konsole", &["-e"]),
    ("xfce4-terminal", &["-x"]),
    ("mate-terminal", &["-x"]),
    ("kitty", &[]),
    ("alacritty", &["-e"]),
    ("foot", &[]),
    ("xterm", &["-e"]),
];

const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// Finds programs. Tests give their own.
pub type Find<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

/// The tools that are installed.
#[must_use]
pub fn installed(find: Find<'_>) -> Vec<Tool> {
    let terminal = terminal(find).is_some();
    KNOWN
        .iter()
        .filter(|known| match known.runs {
            Runs::InTerminal(program) => terminal && find(program).is_some(),
            Runs::Browser => find(OPENER).is_some(),
        })
        .map(|known| Tool { id: known.id.to_owned(), name: known.name.to_owned(), kinds: known.kinds.to_vec() })
        .collect()
}

/// What to run to open `host` and `port` with the tool of this id. `None`: it is not installed, or does not fit.
#[must_use]
pub fn call(find: Find<'_>, id: &str, kind: Kind, host: &str, port: u16) -> Option<Call> {
    let known = KNOWN.iter().find(|known| known.id == id && known.kinds.contains(&kind))?;
    // A host that begins with a dash would be an option to the program.
    if host.starts_with('-') || host.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    match known.runs {
        Runs::Browser => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let url = match port {
                80 => format!("http://{host}/"),
                443 => format!("https://{host}/"),
                port => format!("http://{host}:{port}/"),
            };
            Some(Call { program: find(OPENER)?, arguments: vec![url] })
        }
        Runs::InTerminal(program) => {
            let (terminal, between) = terminal(find)?;
            let mut arguments: Vec<String> = between.iter().map(|&word| word.to_owned()).collect();
            arguments.push(find(program)?.to_string_lossy().into_owned());
            arguments.extend(client_arguments(known.kinds, host, port));
            Some(Call { program: terminal, arguments })
        }
    }
}

fn client_arguments(kinds: &[Kind], host: &str, port: u16) -> Vec<String> {
    let port = port.to_string();
    let words: &[&str] = match kinds.first() {
        Some(Kind::Ssh) => &["-p", &port, host],
        Some(Kind::Mysql) => &["-h", host, "-P", &port, "--protocol=tcp"],
        Some(Kind::Tcp | Kind::Http | Kind::Postgres | Kind::Redis) | None => &["-h", host, "-p", &port],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

fn terminal(find: Find<'_>) -> Option<(PathBuf, &'static [&'static str])> {
    TERMINALS.iter().find_map(|(name, between)| Some((find(name)?, *between)))
}

/// Starts a program that lives on by itself.
pub fn run(call: &Call) -> std::io::Result<()> {
    let mut child = Command::new(&call.program)
        .args(&call.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // Somebody has to take note of its end, or it stays as a zombie.
    std::thread::spawn(move || child.wait());
    Ok(())
}

/// The system's opener with a folder of ours.
#[must_use]
pub fn folder(find: Find<'_>, folder: &Path) -> Option<Call> {
    Some(Call { program: find(OPENER)?, arguments: vec![folder.to_string_lossy().into_owned()] })
}

/// Looks through the absolute folders of PATH.
#[must_use]
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.find_map(|folder| Some(folder.join(name)).filter(|program| is_program(program)))
}

/// Whether it is a file that may be run.
#[must_use]
pub fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(name: &str) -> Option<PathBuf> {
        Some(PathBuf::from("/bin").join(name))
    }

    #[test]
    fn only_what_is_installed_is_offered() {
        let some = |name: &str| ["xterm", "ssh"].contains(&name).then(|| PathBuf::from(name));
        let ids: Vec<String> = installed(&some).into_iter().map(|tool| tool.id).collect();
        assert_eq!(ids, ["terminal_ssh"]);
        assert_eq!(installed(&|_| None), []);
        let no_terminal = |name: &str| ["ssh", "xdg-open"].contains(&name).then(|| PathBuf::from(name));
        let ids: Vec<String> = installed(&no_terminal).into_iter().map(|tool| tool.id).collect();
        assert_eq!(ids, ["browser"]);
    }

    #[test]
    fn host_and_port_are_arguments_of_their_own() {
        let ssh = call(&all, "terminal_ssh", Kind::Ssh, "127.0.0.1", 10022).unwrap();
        assert_eq!(ssh.program, Path::new("/bin/xdg-terminal-exec"));
        assert_eq!(ssh.arguments, ["/bin/ssh", "-p", "10022", "127.0.0.1"]);
        let xterm = |name: &str| ["xterm", "mysql"].contains(&name).then(|| PathBuf::from("/b").join(name));
        let mysql = call(&xterm, "terminal_mysql", Kind::Mysql, "db.corp", 3306).unwrap();
        assert_eq!(mysql.arguments, ["-e", "/b/mysql", "-h", "db.corp", "-P", "3306", "--protocol=tcp"]);
    }

    #[test]
    fn a_browser_gets_an_address_it_can_open() {
        let url = |host, port| call(&all, "browser", Kind::Http, host, port).unwrap().arguments;
        assert_eq!(url("127.0.0.1", 18300), ["http://127.0.0.1:18300/"]);
        assert_eq!(url("grafana.corp", 443), ["https://grafana.corp/"]);
        assert_eq!(url("fd00::1", 80), ["http://[fd00::1]/"]);
    }

    #[test]
    fn nothing_that_a_program_would_take_for_an_option_is_passed_on() {
        assert_eq!(call(&all, "terminal_ssh", Kind::Ssh, "-oProxyCommand=x", 22), None);
        assert_eq!(call(&all, "terminal_ssh", Kind::Ssh, "a b", 22), None);
        assert_eq!(call(&all, "terminal_ssh", Kind::Http, "127.0.0.1", 22), None, "a tool of another kind");
        assert_eq!(call(&all, "calculator", Kind::Http, "127.0.0.1", 80), None);
    }
}
