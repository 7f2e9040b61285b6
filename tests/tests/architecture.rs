//! The rules of the workspace that no compiler checks: who may depend on whom, what is never linked, how long a file
//! may be.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what cannot be read here fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Dependencies between our packages run one way: package, and what of ours it may depend on. Development
/// dependencies count too, but for `postern-tests`, which sees everything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("postern-proto", &[]),
    ("tun-driver", &[]),
    ("xtask", &[]),
    ("postern-monitor", &[]),
    ("postern-netstack", &["postern-proto"]),
    ("postern-tunnel", &["postern-proto"]),
    ("postern-local-api", &["postern-proto"]),
    ("postern-daemon", &["postern-local-api", "postern-netstack", "postern-proto", "tun-driver", "postern-tunnel"]),
    ("postern-node", &["postern-monitor", "postern-proto", "postern-tunnel"]),
    ("postern-control", &["postern-monitor", "postern-proto", "postern-tunnel"]),
    ("postern-cli", &["postern-local-api", "postern-proto"]),
    ("postern-desktop", &["postern-local-api"]),
    // Man pages of all programs, made when packages are built.
    ("postern-manuals", &["postern-cli", "postern-control", "postern-daemon", "postern-node", "tun-driver"]),
];

/// Crates that a package must not reach, by whatever way.
const UNREACHABLE: &[(&str, &[&str])] = &[
    // Sans-IO: no runtime, no sockets.
    ("postern-proto", &["tokio", "mio", "socket2"]),
    ("postern-netstack", &["tokio", "mio", "socket2"]),
    // The CLI and the desktop app never link TLS, TUN or the stack.
    ("postern-local-api", &["rustls", "smoltcp", "rtnetlink", "postern-tunnel", "tun-driver"]),
    ("postern-cli", &["rustls", "smoltcp", "rtnetlink", "postern-tunnel", "tun-driver"]),
    ("postern-desktop", &["rustls", "smoltcp", "rtnetlink", "postern-tunnel", "tun-driver"]),
];

/// Crates that nothing of ours links.
const BANNED: &[&str] = &["openssl", "openssl-sys", "native-tls", "ring"];

/// Crates of which there is one version at most.
const SINGLE: &[&str] = &["rustls", "smoltcp", "hickory-proto", "hickory-resolver", "aws-lc-rs"];

const MAX_LINES: usize = 800;

#[test]
fn our_packages_depend_on_each_other_as_the_design_says() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let edges = internal_edges();
    assert!(edges.len() > 5, "cargo metadata named only {} packages", edges.len());
    let mut wrong = Vec::new();
    for (package, dependencies) in edges.iter().filter(|(package, _)| *package != "postern-tests") {
        match allowed.get(package.as_str()) {
            None => wrong.push(format!("{package} is not in the table of the architecture test")),
            Some(allowed) => wrong.extend(
                dependencies
                    .iter()
                    .filter(|dependency| !allowed.contains(&dependency.as_str()))
                    .map(|dependency| format!("{package} must not depend on {dependency}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn packages_reach_nothing_that_is_closed_to_them() {
    let ours = internal_edges();
    let mut wrong = Vec::new();
    for (package, closed) in UNREACHABLE.iter().filter(|(package, _)| ours.contains_key(*package)) {
        let reached = linked(&["--package", package]);
        wrong.extend(
            closed.iter().filter(|name| reached.iter().any(|(reached, _)| reached == *name)).map(|name| {
                format!("{package} must not reach {name}: see `cargo tree -p {package} -e normal -i {name}`")
            }),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_banned_crate_is_linked_and_the_weighty_ones_come_in_one_version() {
    let linked = linked(&["--workspace"]);
    assert!(linked.len() > 50, "cargo tree named only {} crates", linked.len());
    for name in BANNED {
        assert!(!linked.iter().any(|(linked, _)| linked == name), "{name} is linked: see `cargo tree -i {name}`");
    }
    for name in SINGLE {
        let versions: Vec<&str> = linked.iter().filter(|(linked, _)| linked == name).map(|(_, v)| v.as_str()).collect();
        assert!(versions.len() <= 1, "{name} is linked in several versions: {versions:?}");
    }
}

#[test]
fn every_problem_has_a_code_in_snake_case() {
    let (mut codes, mut wrong) = (BTreeSet::new(), Vec::new());
    for file in tracked_files().into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        // Tests of the wire form, and this one, use codes that nothing else would.
        if file.starts_with("crates/proto") || file.ends_with("architecture.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for code in problem_codes(&text) {
            if !code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                wrong.push(format!("{}: {code:?}", file.display()));
            }
            codes.insert(code.to_owned());
        }
    }
    assert!(codes.len() > 60, "found only {codes:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn codes_of_problems_are_found_where_they_are_written() {
    let text = r#"Problem::new(404, "no-such", "No"); Problem::new(
            status.as_u16(),
            "a_b", "T"); (503, "c_d", "Title"); ("e-f", "Title of it"); check("sign-in", "Sign-in"); Problem::new(s, code, t)"#;
    assert_eq!(problem_codes(text), ["no-such", "a_b", "c_d", "e-f"].map(str::to_owned));
}

/// The codes in a source: the second argument of `Problem::new`, and what stands before a title in a table.
fn problem_codes(text: &str) -> Vec<String> {
    let quoted = |text: &str| {
        let (code, _) = text.trim_start().strip_prefix('"')?.split_once('"')?;
        // What has other letters is a sentence or a body.
        let word = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        word.then(|| code.to_owned())
    };
    let mut found: Vec<(usize, String)> = Vec::new();
    for (at, call) in text.match_indices("Problem::new(") {
        let code = text[at + call.len()..].split_once(',').and_then(|(_, rest)| quoted(rest));
        found.extend(code.map(|code| (at, code)));
    }
    for (at, _) in text.match_indices("(5").chain(text.match_indices("(4")) {
        let (Some(status), Some(rest)) = (text.get(at + 1..at + 4), text.get(at + 4..)) else { continue };
        if text[..at].ends_with("Problem::new") {
            continue;
        }
        let code = rest.strip_prefix(',').filter(|_| status.bytes().all(|byte| byte.is_ascii_digit())).and_then(quoted);
        found.extend(code.map(|code| (at, code)));
    }
    // A code and its title without a status: only those that would be wrong.
    for (at, _) in text.match_indices("(\"") {
        let code = quoted(&text[at + 1..]).filter(|code| {
            let title = text[at + 2 + code.len()..].strip_prefix("\", \"").and_then(|title| title.chars().next());
            let before = text[..at].chars().next_back();
            title.is_some_and(char::is_uppercase)
                && before.is_none_or(|c| !c.is_alphanumeric())
                && code.contains('-')
                && !code.bytes().any(|byte| byte.is_ascii_uppercase())
        });
        found.extend(code.map(|code| (at, code)));
    }
    found.sort();
    found.into_iter().map(|(_, code)| code).collect()
}

#[test]
fn no_source_file_is_too_long_to_be_read() {
    // What a program writes from the types of Rust is checked by a test of its own.
    let generated = |file: &Path| file.starts_with("ui/src/lib/generated");
    let too_long: Vec<String> = tracked_files()
        .into_iter()
        .filter(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            !generated(file)
                && matches!(
                    extension,
                    Some("rs" | "ts" | "tsx" | "js" | "svelte" | "vue" | "css" | "sql" | "sh" | "py")
                )
        })
        .filter_map(|file| {
            let lines = std::fs::read_to_string(root().join(&file)).ok()?.lines().count();
            (lines > MAX_LINES).then(|| format!("{} has {lines} lines; {MAX_LINES} are the limit", file.display()))
        })
        .collect();
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

#[test]
fn no_file_holds_a_path_of_somebodys_machine() {
    let mut found = Vec::new();
    for file in tracked_files() {
        let Ok(text) = std::fs::read_to_string(root().join(&file)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if let Some(path) = machine_path(line) {
                found.push(format!("{}:{}: {path}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_path_of_a_machine_is_told_from_a_part_of_another_path() {
    let home = concat!("/ho", "me/anna/src");
    assert_eq!(machine_path(&format!("see {home}")), Some(home));
    assert_eq!(machine_path(concat!("(/wo", "rk/x)")), Some(concat!("/wo", "rk/x)")));
    assert_eq!(machine_path("https://example.org/home/page, $HOME/.cache, /home/<you>, ~/work/x"), None);
}

/// The first absolute path in `line` that lies in a user's folder or a build machine's.
fn machine_path(line: &str) -> Option<&str> {
    const FOLDERS: &[&str] =
        &[concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    FOLDERS.iter().find_map(|folder| {
        line.match_indices(folder).find_map(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + folder.len()..].chars().next();
            // A path that goes on to the left, or a placeholder to the right, names no machine.
            let starts_here = before.is_none_or(|c| !(c.is_alphanumeric() || "._-~}$*/".contains(c)));
            let names_something = after.is_some_and(|c| c.is_alphanumeric() || c == '.');
            let path = line[at..].split_whitespace().next()?;
            (starts_here && names_something).then_some(path)
        })
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files under version control; all files outside the ignored folders where there is no git.
fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output();
    let files: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).unwrap().split_terminator('\0').map(PathBuf::from).collect()
        }
        _ => walk(&root()).iter().map(|file| file.strip_prefix(root()).unwrap().to_owned()).collect(),
    };
    assert!(files.len() > 20, "found only {} files", files.len());
    files
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let name = entry.file_name();
        if kind.is_dir() && !["target", "node_modules", ".git"].iter().any(|ignored| name == *ignored) {
            files.extend(walk(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}

/// Our packages, and those of ours that each depends on.
fn internal_edges() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value =
        serde_json::from_slice(&cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"])).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            // A path is what only dependencies inside the workspace have.
            let ours = dependencies.filter(|dependency| dependency["path"].is_string());
            (text(&package["name"]), ours.map(|dependency| text(&dependency["name"])).collect())
        })
        .collect()
}

/// Name and version of every crate that the selected packages link on this platform.
fn linked(selection: &[&str]) -> BTreeSet<(String, String)> {
    let mut args = vec!["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    args.extend(selection);
    String::from_utf8(cargo(&args))
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .collect()
}

fn cargo(args: &[&str]) -> Vec<u8> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).current_dir(root()).args(args).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
