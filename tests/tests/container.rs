//! The container file: what must hold of it as it is read, and the images that come of it, built and run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use parse_dockerfile::{Instruction, Source, parse};
use postern_tests::{
    binaries::binaries,
    command::{self, PATIENCE},
    container::{self, Builder, CONTAINERFILE, Image, process_within},
    need_python,
    ports::free_port,
    process::{Process, STOP_DEADLINE},
    servers::folder,
};
use rustix::process::{Signal, kill_process};

/// The images, and the program of each.
const TARGETS: [(&str, &str); 2] =
    [("postern-control", "/usr/bin/postern-control"), ("postern-node", "/usr/bin/postern-node")];
/// What distroless/cc has of the C library and the compiler's; a program that links more does not start in it.
const LIBRARIES: [&str; 8] = [
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn containerfile() -> anyhow::Result<String> {
    fs::read_to_string(repository().join(CONTAINERFILE)).context("cannot read the container file")
}

/// A stage with what it inherits from the stages of the same file.
#[derive(Clone, Default)]
struct Stage {
    user: Option<String>,
    entrypoint: Option<Vec<String>>,
    /// Where a file comes from, by where it goes.
    copied: BTreeMap<String, (Option<String>, String)>,
    variables: Vec<String>,
    wrong: Vec<String>,
    commands: Vec<String>,
}

/// Everything that is wrong with a container file.
fn faults(text: &str, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let file = parse(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut defaults = BTreeMap::new();
    let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
    let mut current: Option<(String, Stage)> = None;
    for instruction in &file.instructions {
        read(instruction, &mut defaults, &mut stages, &mut current)?;
    }
    stages.extend(current);
    let mut wrong = Vec::new();
    for (target, program) in TARGETS {
        match stages.get(target) {
            None => wrong.push(format!("there is no stage {target}")),
            Some(stage) => {
                wrong.extend(faults_of_target(stage, program).into_iter().map(|fault| format!("{target}: {fault}")));
                let unknown = stage.variables.iter().filter(|name| !workspace.variables.contains(name));
                wrong.extend(unknown.map(|name| format!("{target}: no program reads {name}")));
            }
        }
    }
    wrong.extend(faults_of_build(stages.get("build").context("there is no stage build")?, workspace));
    wrong.extend(faults_of_bases(&defaults, workspace));
    Ok(wrong)
}

fn read(
    instruction: &Instruction<'_>,
    defaults: &mut BTreeMap<String, String>,
    stages: &mut BTreeMap<String, Stage>,
    current: &mut Option<(String, Stage)>,
) -> anyhow::Result<()> {
    if let Instruction::From(from) = instruction {
        stages.extend(current.take());
        let name = from.as_.as_ref().map(|(_, name)| name.value.to_string()).context("a stage has no name")?;
        *current = Some((name, stages.get(&*from.image.value).cloned().unwrap_or_default()));
        return Ok(());
    }
    let Some((_, stage)) = current else {
        if let Instruction::Arg(arg) = instruction {
            let (name, value) = arg.arguments.value.split_once('=').context("an argument has no default")?;
            defaults.insert(name.to_owned(), value.to_owned());
        }
        return Ok(());
    };
    match instruction {
        Instruction::User(user) => stage.user = Some(user.arguments.value.to_string()),
        Instruction::Entrypoint(entrypoint) => {
            stage.entrypoint = words(&entrypoint.arguments);
            if stage.entrypoint.is_none() {
                stage.wrong.push("its entry point needs a shell".to_owned());
            }
        }
        Instruction::Cmd(cmd) if words(&cmd.arguments).is_none() => {
            stage.wrong.push("its arguments need a shell".to_owned());
        }
        Instruction::Run(run) => {
            let parse_dockerfile::Command::Shell(text) = &run.arguments else { anyhow::bail!("RUN in exec form") };
            stage.commands.push(text.value.to_owned());
        }
        Instruction::Add(_) => stage.wrong.push("ADD may fetch".to_owned()),
        Instruction::Copy(copy) => {
            let from = copy.options.iter().find(|option| option.name.value == "from");
            let from = from.and_then(|option| Some(option.value.as_ref()?.value.to_string()));
            for source in &copy.src {
                let what = match source {
                    Source::Path(path) => path.value.to_string(),
                    _ => "a text within the file".to_owned(),
                };
                stage.copied.insert(copy.dest.value.to_string(), (from.clone(), what));
            }
        }
        Instruction::Env(env) => {
            let words = env.arguments.value.split_whitespace().filter_map(|word| word.split_once('='));
            stage.variables.extend(words.map(|(name, _)| name.to_owned()));
        }
        _ => {}
    }
    Ok(())
}

/// In exec form; in the other it needs a shell.
fn words(command: &parse_dockerfile::Command<'_>) -> Option<Vec<String>> {
    match command {
        parse_dockerfile::Command::Exec(words) => Some(words.value.iter().map(|word| word.value.to_string()).collect()),
        _ => None,
    }
}

fn faults_of_target(stage: &Stage, program: &str) -> Vec<String> {
    let mut wrong = stage.wrong.clone();
    let numbers = |user: &str| -> Option<(u32, u32)> {
        let (user, group) = user.split_once(':')?;
        Some((user.parse().ok()?, group.parse().ok()?))
    };
    match stage.user.as_deref().and_then(numbers) {
        Some((user, group)) if user > 0 && group > 0 => {}
        _ => wrong.push(format!("its user is {:?}, not the number of an ordinary user and group", stage.user)),
    }
    if !stage.commands.is_empty() {
        wrong.push("it runs something, where there is no shell".to_owned());
    }
    if stage.entrypoint.as_deref() != Some(&[program.to_owned()]) {
        wrong.push(format!("its entry point is {:?}", stage.entrypoint));
    }
    let name = program.rsplit('/').next().unwrap_or(program);
    if stage.copied.get(program) != Some(&(Some("build".to_owned()), format!("/out/{name}"))) {
        wrong.push(format!("{program} is not copied from the build"));
    }
    for (to, (from, what)) in &stage.copied {
        let here = what.strip_prefix("/src/").filter(|path| repository().join(path).exists());
        if from.as_deref() != Some("build") || !(what.starts_with("/out/") || here.is_some()) {
            wrong.push(format!("{to} comes from {what}"));
        }
    }
    wrong
}

/// What the build stage makes and where it lays it.
fn faults_of_build(stage: &Stage, workspace: &Workspace) -> Vec<String> {
    let words: Vec<&str> = stage.commands.iter().flat_map(|command| command.split_whitespace()).collect();
    let mut wrong = Vec::new();
    for word in ["--locked", "--release"] {
        if !words.contains(&word) {
            wrong.push(format!("cargo is not told {word}"));
        }
    }
    for (name, _) in TARGETS {
        let asked = words.windows(2).any(|pair| pair == ["--package", name]);
        if !asked || !workspace.programs.iter().any(|(package, program)| package == name && program == name) {
            wrong.push(format!("{name} is not built, or not a program of the workspace"));
        }
        if !words.contains(&format!("target/release/{name}").as_str()) {
            wrong.push(format!("{name} is not laid aside"));
        }
    }
    wrong
}

/// Both bases are pinned, of the same Debian, and the compiler is one that the workspace takes.
fn faults_of_bases(defaults: &BTreeMap<String, String>, workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    let rust = defaults.get("RUST_IMAGE").map(String::as_str).unwrap_or_default();
    let version = rust.rsplit_once("/rust:").map(|(_, tag)| tag.split('-').next().unwrap_or(tag)).unwrap_or_default();
    let number = |text: &str| text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    match (number(version), number(&workspace.rust_version)) {
        (Some(has), Some(needs)) if has.len() == 3 && has >= needs => {}
        (has, needs) => wrong.push(format!("the compiler is {has:?}, and the workspace needs {needs:?}")),
    }
    let base = defaults.get("BASE_IMAGE").map(String::as_str).unwrap_or_default();
    if !(rust.ends_with("-bookworm") && base.contains("distroless/cc-debian12")) {
        wrong.push(format!("{rust} and {base} are not of the same Debian"));
    }
    wrong
}

/// What is known of the workspace.
struct Workspace {
    rust_version: String,
    /// Package and program.
    programs: Vec<(String, String)>,
    /// What our programs read of the environment.
    variables: Vec<String>,
}

impl Workspace {
    fn read() -> anyhow::Result<Self> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(repository())
            .output()?;
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
        let text = |value: &serde_json::Value, field: &str| {
            value.get(field).and_then(|value| value.as_str()).map(str::to_owned).unwrap_or_default()
        };
        let packages = metadata.get("packages").and_then(|packages| packages.as_array()).context("no packages")?;
        let mut programs = Vec::new();
        let mut rust_version = String::new();
        for package in packages {
            rust_version = text(package, "rust_version");
            let targets = package.get("targets").and_then(|targets| targets.as_array()).context("no targets")?;
            let bins = targets.iter().filter(|target| target.get("kind").is_some_and(|kind| kind[0] == "bin"));
            programs.extend(bins.map(|target| (text(package, "name"), text(target, "name"))));
        }
        let mut variables = Vec::new();
        let binaries = binaries()?;
        for (program, word) in [
            (binaries.control(), "serve"),
            (binaries.node(), "gateway"),
            (binaries.node(), "worker"),
            (binaries.node(), "relay"),
        ] {
            variables.extend(command::variables(&program, word)?);
        }
        Ok(Self { rust_version, programs, variables })
    }
}

#[test]
fn the_container_file_runs_what_is_built_here_as_nobody_in_particular_and_without_a_shell() -> anyhow::Result<()> {
    let workspace = Workspace::read()?;
    let text = containerfile()?;
    assert_eq!(faults(&text, &workspace)?, Vec::<String>::new());

    // Each of these would be noticed.
    for (from, to, told) in [
        ("USER 65532:65532\n", "", "its user is None"),
        ("USER 65532:65532\n", "USER nonroot\n", "its user is"),
        ("USER 65532:65532\n", "USER 0:0\n", "its user is"),
        ("CMD [\"serve\"]\n", "CMD [\"serve\"]\nUSER 0:0\n", "postern-control: its user is"),
        ("CMD [\"serve\"]\n", "CMD serve\n", "its arguments need a shell"),
        ("ENTRYPOINT [\"/usr/bin/postern-node\"]", "ENTRYPOINT /usr/bin/postern-node", "its entry point needs a shell"),
        ("ENTRYPOINT [\"/usr/bin/postern-node\"]", "ENTRYPOINT [\"/usr/bin/posternd\"]", "its entry point is"),
        ("/usr/bin/postern-node\nENV", "/usr/local/bin/postern-node\nENV", "is not copied from the build"),
        ("/src/LICENSE", "/src/LICENCE", "comes from /src/LICENCE"),
        ("VOLUME [", "RUN chmod 0700 /var/lib/postern\nVOLUME [", "where there is no shell"),
        ("--package postern-node", "--package postern-nodes", "postern-node is not built"),
        (" target/release/postern-node", "", "postern-node is not laid aside"),
        ("--locked ", "", "cargo is not told --locked"),
        ("rust:1.95.0-", "rust:1-", "the compiler is"),
        ("rust:1.95.0-", "rust:1.90.0-", "the compiler is"),
        ("cc-debian12", "cc-debian13", "not of the same Debian"),
        ("POSTERN_LIVENESS=", "POSTERN_LIVELINESS=", "no program reads POSTERN_LIVELINESS"),
    ] {
        ensure!(text.contains(from), "the file has no {from:?}");
        let faults = faults(&text.replacen(from, to, 1), &workspace)?;
        ensure!(faults.iter().any(|fault| fault.contains(told)), "{from:?} → {to:?}: {faults:?}");
    }
    Ok(())
}

#[test]
fn the_version_of_the_images_is_that_of_the_workspace() -> anyhow::Result<()> {
    assert!(containerfile()?.contains(concat!("ARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")));
    Ok(())
}

/// Patterns as in our file: everything is left out, but for names at the top, and folders of these names anywhere.
#[test]
fn the_context_of_a_build_has_every_package_and_nothing_that_was_built() -> anyhow::Result<()> {
    let text = fs::read_to_string(repository().join(".dockerignore"))?;
    let patterns: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(patterns.first(), Some(&"*"), "whatever is not named is left out");
    let kept: Vec<&str> = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).collect();
    let manifest = fs::read_to_string(repository().join("Cargo.toml"))?;
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).context("no members")?;
    for member in members.split('"').skip(1).step_by(2) {
        let top = member.split('/').next().unwrap_or(member);
        ensure!(kept.contains(&top), "{member} is a package, and the build does not see it");
    }
    for file in ["Cargo.toml", "Cargo.lock", "LICENSE"] {
        ensure!(kept.contains(&file), "the build does not see {file}");
    }
    for name in &kept {
        ensure!(repository().join(name).exists(), "there is no {name}");
    }
    for built in ["**/target", "**/node_modules"] {
        ensure!(patterns.contains(&built), "{built} would be sent along");
    }
    Ok(())
}

#[tokio::test]
async fn a_linter_finds_nothing_to_say_of_the_container_file() -> anyhow::Result<()> {
    let python = need_python!();
    let output = Command::new(python.program("hadolint")).arg(repository().join(CONTAINERFILE)).output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && told.is_empty(), "hadolint: {told}");
    Ok(())
}

#[test]
fn the_programs_link_only_libraries_that_the_base_has() -> anyhow::Result<()> {
    let binaries = binaries()?;
    for library in container::libraries(&[binaries.control(), binaries.node()])? {
        let name = library.file_name().context("a library without a name")?.to_string_lossy();
        ensure!(LIBRARIES.contains(&&*name), "distroless/cc has no {name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_are_built_and_run_as_an_ordinary_user_on_a_root_that_is_read_only() -> anyhow::Result<()> {
    if let Some(missing) = container::missing() {
        postern_tests::skip::skip(&postern_tests::skip::test_name(), &missing);
        return Ok(());
    }
    let folder = folder()?;
    let builder = Builder::new(&binaries()?).await?;
    let (control, node) = (builder.build("postern-control").await?, builder.build("postern-node").await?);
    for (image, title) in [(&control, "postern-control"), (&node, "postern-node")] {
        ensure!(image.labels.get("org.opencontainers.image.title").is_some_and(|label| label == title), "{image:?}");
        ensure!(image.volumes.contains_key("/var/lib/postern") && image.stop_signal == "SIGTERM", "{image:?}");
        ensure!(image.exposed_ports.contains_key("8443/tcp"), "{image:?}");
        let inside: Vec<_> =
            fs::read_dir(image.root.join("usr/bin"))?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        assert_eq!(inside, [title], "an image holds one program");
    }
    let (data, port) = (folder.path().join("control.volume"), free_port()?);
    let mut serving = serve(&control, &data, port).await?;
    is_confined(&serving, &control)?;
    keeps_its_secrets(&data)?;

    // A one-time command on the same volume, as `docker run --rm … gateway-token` would be.
    let command = ["gateway-token", "--name", "gw"];
    let mut told = control.start("token", &data, &[], &command)?;
    ensure!(told.wait(PATIENCE).await?.success(), "{}", told.log_end());
    told.settle();
    let told: serde_json::Value = serde_json::from_str(&told.output()).context("the token")?;
    let token = told.get("enrol_token").and_then(serde_json::Value::as_str).context("no token")?;

    let (state, liveness) = (folder.path().join("gateway.volume"), format!("127.0.0.1:{}", free_port()?));
    fs::create_dir(&state)?;
    fs::copy(data.join("ca.pem"), state.join("authority.pem"))?;
    let url = format!("https://127.0.0.1:{port}");
    let environment = [
        ("POSTERN_CONTROL", url.as_str()),
        ("POSTERN_CA", "/var/lib/postern/authority.pem"),
        ("POSTERN_ENROL_TOKEN", token),
        ("POSTERN_LISTEN", "127.0.0.1:0"),
        ("POSTERN_LIVENESS", liveness.as_str()),
    ];
    let mut gateway = node.start("gateway", &state, &environment, &["gateway"])?;
    gateway.ready().await?;
    is_confined(&gateway, &node)?;
    keeps_its_secrets(&state)?;
    let answer = get(&liveness, "/readiness").await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    ends_when_told(&mut gateway).await?;
    ends_when_told(&mut serving).await?;

    // Without arguments a node says what it may be given.
    let mut silent = node.start("help", &state, &[], &[])?;
    ensure!(silent.wait(PATIENCE).await?.success(), "{}", silent.log_end());
    silent.settle();
    ensure!(silent.output().contains("gateway") && silent.output().contains("worker"), "{}", silent.output());
    Ok(())
}

async fn serve(image: &Image, data: &Path, port: u16) -> anyhow::Result<Process> {
    let listen = format!("127.0.0.1:{port}");
    let mut process = image.start("control", data, &[("POSTERN_CONTROL_LISTEN", &listen)], &[])?;
    process.ready().await?;
    Ok(process)
}

/// Process 1 of its own, without rights and without a place to write but those it was given.
fn is_confined(process: &Process, image: &Image) -> anyhow::Result<()> {
    let pid = process_within(process)?;
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let status = fs::read_to_string(proc.join("status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>()).with_context(|| format!("no {name}"))
    };
    let (uid, gid) = image.owner()?;
    let (uid, gid) = (uid.to_string(), gid.to_string());
    assert_eq!(field("Uid")?, [uid.as_str(); 4]);
    assert_eq!(field("Gid")?, [gid.as_str(); 4]);
    assert_eq!(field("Groups")?, Vec::<&str>::new());
    assert_eq!(field("CapEff")?, ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs")?, ["1"]);
    assert_eq!(field("NSpid")?.last(), Some(&"1"));
    // Nor could root write there.
    let error = fs::write(proc.join("root/usr/bin/other"), "x").err().context("the root can be written")?;
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    Ok(())
}

/// Whatever holds a key is the program's own to read.
fn keeps_its_secrets(volume: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut open, mut secrets) = (vec![volume.to_owned()], 0);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                open.push(entry.path());
                continue;
            }
            let content = fs::read(entry.path())?;
            if content.windows(11).any(|window| window == b"PRIVATE KEY") || content.starts_with(b"SQLite format 3") {
                secrets += 1;
                assert_eq!(data.permissions().mode() & 0o077, 0, "{}", entry.path().display());
            }
        }
    }
    ensure!(secrets > 0, "nothing secret in {}", volume.display());
    Ok(())
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let end = Instant::now() + PATIENCE;
    let mut stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > end => return Err(error).with_context(|| format!("nobody is at {address}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What `docker stop` sends goes to process 1, which gets only signals that it listens for.
async fn ends_when_told(process: &mut Process) -> anyhow::Result<()> {
    kill_process(process_within(process)?, Signal::TERM)?;
    let status = process.wait(STOP_DEADLINE).await?;
    ensure!(status.success(), "{} ended with {status}\n{}", process.name(), process.log_end());
    process.settle();
    Ok(())
}
