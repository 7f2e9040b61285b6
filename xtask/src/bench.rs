//! `cargo xtask bench loopback`: Postern beside what else carries TCP from a loopback port, in the same minutes on the
//! same machine. `cargo xtask bench vnm`: the same for virtual networks, beside other TCP stacks behind a TUN device, in
//! a network of its own.
//!
//! All subjects are up all the time. Each round runs every case over all of them, back to back, beginning with another
//! one each time, so that a busy moment of the machine hits all alike; ratios are taken within a round. The load and
//! the far end are the same for all: see [`load`] and [`target`].

use std::{
    collections::BTreeSet,
    fmt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Subcommand, ValueEnum as _};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    consent::Consent,
    interrupt::{Interrupt, Interrupted},
    packages::{self, Installed},
    release,
    stack::Programs,
    workspace::Workspace,
};

mod case;
pub(crate) mod copy;
mod dns;
pub(crate) mod echo;
mod load;
mod network;
mod peers;
mod queries;
mod report;
mod results;
pub(crate) mod socks;
mod subject;
mod suite;
pub(crate) mod target;
mod usage;
mod verdict;

use case::{Case, Figure, Measure};
use peers::Peer;
use queries::Queries;
use report::Machine;
use results::Results;
use subject::{Ground, Kind, Subject};
use suite::Suite;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Loopback mode beside a plain proxy, stunnel4, haproxy and ssh -L
    Loopback(Options),
    /// Virtual networks beside a plain proxy, loopback mode, netstack-smoltcp, gVisor, tun2proxy and dnsmasq (as root)
    Vnm(Options),
    /// 10,000 idle streams and 5,000 stalled handshakes, through a gateway and through a gateway and a relay
    Load(Options),
    /// The resolver beside dnsmasq
    Dns(dns::Args),
    /// The desktop app: start to usable, search over 10,000 resources, memory, idle CPU
    Desktop(crate::desktop::BenchArgs),
    /// The control plane with a million resources and a hundred thousand accounts and devices
    Scale(crate::scale::Args),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Print JSON lines instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds; medians are taken over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of one measurement in seconds [default: 1, of vnm 0.7]
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// Measure these subjects only (comma-separated)
    #[arg(long, value_enum, value_delimiter = ',')]
    subject: Vec<Kind>,
    /// Measure these cases only (comma-separated): up/N, down/N, streams/N, pingpong, dns, dns-half, idle/N, stalled/N
    #[arg(long, value_delimiter = ',')]
    case: Vec<Case>,
    /// Where the subjects keep their files; a folder in memory (/dev/shm) takes the disk out of the figures
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// Set on the release build that does the measuring
    #[arg(long, hide = true)]
    measure: bool,
    /// A peer that cannot be had, and why
    #[arg(long, hide = true)]
    without: Vec<Absent>,
}

/// A subject that cannot be measured here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Absent {
    kind: Kind,
    reason: String,
}

impl FromStr for Absent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, reason) = text.split_once(": ").ok_or("no reason")?;
        Ok(Self { kind: Kind::from_str(kind, false)?, reason: reason.to_owned() })
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("must be between 0.05 and 600".to_owned()) }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (suite, options) = match &args.what {
        What::Loopback(options) => (Suite::Loopback, options),
        What::Load(options) => (Suite::Load, options),
        What::Vnm(options) => (Suite::Vnm, options),
        What::Dns(args) => return dns::run(args),
        What::Desktop(args) => return crate::desktop::bench(args),
        What::Scale(args) => return crate::scale::bench(args),
    };
    if options.measure { measure(suite, options) } else { prepare(suite, options) }
}

/// Installs and builds the peers, builds in release mode, and becomes the release build of this program.
fn prepare(suite: Suite, options: &Options) -> anyhow::Result<ExitCode> {
    if let (Suite::Vnm, Some(missing)) = (suite, network::missing()) {
        bail!("virtual networks cannot be measured here: {missing}");
    }
    let workspace = Workspace::find()?;
    let subjects = options.subjects(suite);
    install(&subjects, Consent::from_environment(options.yes))?;
    let absent = build_peers(&workspace, &subjects)?;
    let mut wanted = vec!["xtask"];
    if subjects.iter().any(|kind| kind.is_ours()) {
        wanted.extend(Programs::PACKAGES);
    }
    if subjects.iter().any(|kind| kind.is_virtual()) {
        wanted.push(NETD_PACKAGE);
    }
    let stack: &[&str] = if subjects.iter().any(|kind| kind.is_stack()) { &["stack_alone"] } else { &[] };
    let program = release::build(&workspace, &wanted, stack)?.join("xtask");
    let mut command = match suite {
        Suite::Loopback | Suite::Load => Command::new(&program),
        Suite::Vnm => network::in_new_network(&program),
    };
    become_measuring(&mut command, &absent)
}

/// Builds the programs of `packages` in release mode, and becomes that build of this program, with the same arguments.
fn become_release(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<ExitCode> {
    let program = release::build(workspace, packages, &[])?.join("xtask");
    become_measuring(&mut Command::new(program), &[])
}

fn become_measuring(command: &mut Command, absent: &[Absent]) -> anyhow::Result<ExitCode> {
    command.args(std::env::args_os().skip(1)).arg("--measure");
    command.args(absent.iter().map(|absent| format!("--without={absent}")));
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Packages that the subjects come from. Those that peers are built with may be missing: that is seen when they are built.
fn install(subjects: &[Kind], consent: Consent) -> anyhow::Result<()> {
    let (peers, others): (Vec<Kind>, Vec<Kind>) = subjects.iter().partition(|kind| kind.peer().is_some());
    let packages = |kinds: &[Kind]| {
        let mut names: Vec<String> =
            kinds.iter().flat_map(|kind| kind.packages()).map(|&name| name.to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    if let Installed::Declined { line } = packages::install(&packages(&others), consent)? {
        bail!("some subjects are not installed; run this, or choose others with --subject:\n{line}");
    }
    match packages::install(&packages(&peers), consent) {
        Ok(Installed::Declined { line }) => anstream::eprintln!("some peers cannot be built without this:\n{line}"),
        Ok(Installed::AlreadyThere | Installed::Now(_)) => {}
        Err(error) => anstream::eprintln!("some peers cannot be built: {error:#}"),
    }
    Ok(())
}

/// Those that cannot be had.
fn build_peers(workspace: &Workspace, subjects: &[Kind]) -> anyhow::Result<Vec<Absent>> {
    let target = workspace.target_folder()?;
    let mut absent = Vec::new();
    for peer in Peer::of(subjects) {
        if let Err(error) = peer.build(workspace, &target) {
            let reason = format!("{error:#}");
            let kinds = subjects.iter().filter(|kind| kind.peer() == Some(peer));
            absent.extend(kinds.map(|&kind| Absent { kind, reason: reason.clone() }));
        }
    }
    Ok(absent)
}

impl Options {
    fn subjects(&self, suite: Suite) -> Vec<Kind> {
        let mut chosen = if self.subject.is_empty() { suite.subjects().to_vec() } else { self.subject.clone() };
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    fn cases(&self, suite: Suite) -> Vec<Case> {
        if self.case.is_empty() { suite.cases().to_vec() } else { self.case.clone() }
    }
}

fn measure(suite: Suite, options: &Options) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::on_signals()?;
    let open_files = raise_file_limit()?;
    if suite == Suite::Vnm {
        network::raise_loopback()?;
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let target_folder = own.ancestors().nth(2).context("this program lies in no target folder")?;
    let parent = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder =
        tempfile::Builder::new().prefix("postern-bench-").tempdir_in(parent).context("cannot make a folder")?;
    let (target, target_process) = subject::start_own("bench-target", &[], folder.path(), &interrupt)?;
    let mut subjects = options.subjects(suite);
    subjects.retain(|kind| !options.without.iter().any(|absent| absent.kind == *kind));
    let machine = Machine::look(folder.path(), &subjects)?;
    let bench = Bench {
        folder: folder.path(),
        target,
        target_folder,
        interrupt: &interrupt,
        open_files,
        time: Duration::from_secs_f64(options.seconds.unwrap_or_else(|| suite.seconds())),
        subjects: subjects.clone(),
    };
    let (steady, idle): (Vec<Case>, Vec<Case>) =
        options.cases(suite).into_iter().partition(|case| !matches!(case, Case::Idle(_) | Case::Stalled(_)));
    let mut results = Results::default();
    for absent in &options.without {
        results.record_absence(absent.kind, absent.reason.clone());
    }
    bench.measure_rounds(options.runs as usize, &steady, &mut results)?;
    for case in idle {
        match case {
            Case::Stalled(handshakes) => bench.measure_stalled(handshakes, &mut results)?,
            _ => bench.measure_idle(case, &mut results)?,
        }
    }
    target_process.stop();
    let verdicts = suite.verdicts(&results, &subjects);
    if options.json {
        anstream::println!("{}", serde_json::to_string(&machine)?);
        anstream::print!("{}", report::json(&results, &subjects, &verdicts)?);
    } else {
        anstream::print!("{machine}");
        anstream::print!("{}", report::table(&results, &subjects, &verdicts)?);
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    folder: &'a Path,
    target: std::net::SocketAddr,
    target_folder: &'a Path,
    interrupt: &'a Interrupt,
    open_files: u64,
    /// Length of one measurement.
    time: Duration,
    subjects: Vec<Kind>,
}

impl Bench<'_> {
    fn measure_rounds(&self, rounds: usize, cases: &[Case], results: &mut Results) -> anyhow::Result<()> {
        if cases.is_empty() {
            return Ok(());
        }
        let mut subjects = Vec::new();
        for &kind in &self.subjects {
            match self.start_warm(kind) {
                Ok(subject) => subjects.push(subject),
                // Somebody else's program that does not work here is no reason to learn nothing of the others.
                Err(error) if kind.peer().is_some() && !error.is::<Interrupted>() => {
                    results.record_absence(kind, format!("{error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        let progress = progress_bar(rounds * cases.len() * subjects.len());
        let (mut given_up, mut restarts, count) = (BTreeSet::new(), 0, subjects.len());
        for round in 0..rounds {
            for &case in cases {
                for turn in 0..count {
                    progress.inc(1);
                    let Some(subject) = subjects.get_mut((turn + round) % count) else { continue };
                    let kind = subject.kind;
                    if !case.suits(kind) || given_up.contains(&(kind, case)) {
                        continue;
                    }
                    progress.set_message(format!("round {} · {case} · {kind}", round + 1));
                    self.interrupt.check()?;
                    let dnsmasq = results.value(round, &Figure::new(Case::Names, Measure::Rate), Kind::Dnsmasq);
                    let failure = match subject.within(|| self.measure(subject, case, dnsmasq)) {
                        Ok(Measured { values, lacking }) => {
                            results.record(round, kind, case, values);
                            lacking
                        }
                        Err(error) if kind.peer().is_some() => {
                            // It is not to take time again.
                            given_up.insert((kind, case));
                            Some(format!("{error:#}; not tried again"))
                        }
                        Err(error) => Some(format!("{error:#}")),
                    };
                    if let Some(reason) = failure {
                        results.record_failure(round, kind, case, reason);
                        if kind.peer().is_some() {
                            // Whatever is wrong with it now is not to fail its other cases.
                            restarts += 1;
                            self.start_anew(subject, restarts);
                        }
                    }
                    self.interrupt.sleep(SETTLE)?;
                }
            }
        }
        progress.finish_and_clear();
        subjects.into_iter().for_each(Subject::stop);
        Ok(())
    }

    /// Replaces a peer that broke. If it does not start, the next measurement says so.
    fn start_anew(&self, subject: &mut Subject, number: usize) {
        let fresh = self.start(subject.kind, &format!("again-{number}"));
        if let Ok(fresh) = fresh.and_then(|fresh| fresh.within(|| self.warm_up(&fresh)).map(|()| fresh)) {
            std::mem::replace(subject, fresh).stop();
        }
    }

    fn start(&self, kind: Kind, purpose: &str) -> anyhow::Result<Subject> {
        let folder = self.folder.join(format!("{kind}-{purpose}"));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ground = Ground {
            folder: &folder,
            target: self.target,
            target_folder: self.target_folder,
            interrupt: self.interrupt,
            open_files: self.open_files,
        };
        Subject::start(kind, &ground)
    }

    fn start_warm(&self, kind: Kind) -> anyhow::Result<Subject> {
        let subject = self.start(kind, "rounds")?;
        if !kind.answers_only_names() {
            subject.within(|| self.warm_up(&subject))?;
        }
        Ok(subject)
    }

    /// First connections, thread pools, spare connections: nothing of this is what we want to see.
    fn warm_up(&self, subject: &Subject) -> anyhow::Result<()> {
        let time = Duration::from_millis(200);
        let warm = load::download(subject.entry, 1, time).and_then(|_| load::open_and_close(subject.entry, 8, time));
        warm.with_context(|| format!("{} does not carry", subject.kind))?;
        self.interrupt.sleep(SETTLE)?;
        Ok(())
    }

    /// `dnsmasq`: what it answers a second, where that is known.
    fn measure(&self, subject: &Subject, case: Case, dnsmasq: Option<f64>) -> anyhow::Result<Measured> {
        let (entry, mut lacking) = (subject.entry, None);
        let values = match case {
            Case::Up(streams) => bulk(subject, || load::upload(entry, streams, self.time)),
            Case::Down(streams) => bulk(subject, || load::download(entry, streams, self.time)),
            Case::Streams(clients) => {
                let before = cpu_times(subject);
                let openings = load::open_and_close(entry, clients, self.time)?;
                if openings.failed > 0 {
                    let text =
                        format!("{} of {} streams failed", openings.failed, openings.failed + openings.times.len());
                    // Of somebody else's stack it is told; the figures are those of the others.
                    ensure!(subject.kind.peer().is_some(), text);
                    lacking = Some(text);
                }
                Ok(opened(subject, &openings, &before))
            }
            Case::PingPong => {
                Ok(quantiles(&load::ping_pong(entry, self.time)?).into_iter().filter_map(present).collect())
            }
            Case::Names => self.saturate_with_questions(subject),
            Case::NamesAtHalf => {
                let dnsmasq = dnsmasq.context("it is not known how much dnsmasq answers")?;
                let answers = questions(subject)?.pace(dnsmasq * dns::WANTED_RATIO / 2.0, self.time)?;
                Ok(quantiles(&answers.times).into_iter().filter_map(present).collect())
            }
            Case::Idle(_) | Case::Stalled(_) => bail!("{case} is not measured in rounds"),
        }?;
        Ok(Measured { values, lacking })
    }

    fn saturate_with_questions(&self, subject: &Subject) -> anyhow::Result<Vec<(Measure, f64)>> {
        let (questions, pids) = (questions(subject)?, subject.pids());
        questions.saturate(dns::OUTSTANDING, self.time / 10)?;
        let before = usage::cpu_time(&pids);
        let answers = questions.saturate(dns::OUTSTANDING, self.time)?;
        let cpu = usage::cpu_time(&pids).saturating_sub(before).as_secs_f64();
        let each = cpu * 1e6 / answers.times.len() as f64;
        Ok(vec![(Measure::Rate, answers.per_second), (Measure::Cpu, each)])
    }

    /// Subjects of their own, one at a time and never used before: memory that once was used stays resident.
    fn measure_idle(&self, case: Case, results: &mut Results) -> anyhow::Result<()> {
        let Case::Idle(wanted) = case else { return Ok(()) };
        // A proxy has two files open for each stream.
        let possible = usize::try_from(self.open_files.saturating_sub(RESERVED_FILES) / 2)?;
        let streams = wanted.min(possible);
        if streams < wanted {
            anstream::eprintln!(
                "{streams} idle streams instead of {wanted}: no process may open more than {} files here",
                self.open_files
            );
        }
        for &kind in self.subjects.iter().filter(|&&kind| kind != Kind::Raw) {
            let progress = progress_bar(0);
            progress.set_message(format!("{streams} idle streams · {kind}"));
            progress.enable_steady_tick(Duration::from_millis(200));
            let subject = self.start(kind, &format!("idle-{streams}"))?;
            let measured = subject.within(|| self.hold_idle(&subject, streams));
            progress.finish_and_clear();
            self.interrupt.check()?;
            match measured {
                Ok(measured) => results.record(0, kind, Case::Idle(streams), measured),
                Err(error) => results.record_failure(0, kind, Case::Idle(streams), format!("{error:#}")),
            }
            subject.stop();
        }
        Ok(())
    }

    /// A good client opens streams and keeps them, so that each needs a handshake of its own, while so many others stall.
    fn measure_stalled(&self, handshakes: usize, results: &mut Results) -> anyhow::Result<()> {
        let case = Case::Stalled(handshakes);
        for &kind in self.subjects.iter().filter(|&&kind| case.suits(kind)) {
            let progress = progress_bar(0);
            progress.set_message(format!("{handshakes} stalled handshakes · {kind}"));
            progress.enable_steady_tick(Duration::from_millis(200));
            let subject = self.start(kind, &format!("stalled-{handshakes}"))?;
            let measured = self.open_beside_stalled(&subject, handshakes);
            progress.finish_and_clear();
            self.interrupt.check()?;
            match measured {
                Ok(measured) => results.record(0, kind, case, measured),
                Err(error) => results.record_failure(0, kind, case, format!("{error:#}")),
            }
            subject.stop();
        }
        Ok(())
    }

    fn open_beside_stalled(&self, subject: &Subject, handshakes: usize) -> anyhow::Result<Vec<(Measure, f64)>> {
        let door = subject.door.context("it has no port of its own")?;
        let stalled = load::stall(door, handshakes)?;
        let (held, times) = load::open_each(subject.entry, HELD_BESIDE_STALLED)?;
        let still = stalled.iter().filter(|stream| load::is_open(stream)).count();
        ensure!(still * 10 >= handshakes * 9, "only {still} of {handshakes} handshakes stall still: it took too long");
        let mut measured: Vec<_> = quantiles(&times).into_iter().filter_map(present).collect();
        for process in &subject.processes {
            let resident = usage::resident(process.pid()) as f64 / f64::from(1 << 20);
            measured.push((Measure::ResidentOf(process.name().to_owned()), resident));
        }
        drop((held, stalled));
        Ok(measured)
    }

    fn hold_idle(&self, subject: &Subject, streams: usize) -> anyhow::Result<Vec<(Measure, f64)>> {
        let resident = || -> Vec<u64> { subject.pids().into_iter().map(usage::resident).collect() };
        let before = resident();
        let mut held = load::hold(subject.entry, streams)?;
        self.interrupt.sleep(IDLE)?;
        let with = resident();
        for stream in held.iter_mut().step_by(97) {
            load::ping(stream).context("an idle stream is dead")?;
        }
        drop(held);
        let per_stream = |before: u64, with: u64| with.saturating_sub(before) as f64 / 1024.0 / streams as f64;
        let mut measured = vec![(Measure::PerStream, per_stream(before.iter().sum(), with.iter().sum()))];
        for ((process, before), with) in subject.processes.iter().zip(before).zip(with) {
            let name = process.name().to_owned();
            measured.push((Measure::PerStreamOf(name.clone()), per_stream(before, with)));
            measured.push((Measure::ResidentOf(name), with as f64 / f64::from(1 << 20)));
        }
        Ok(measured)
    }
}

/// What a measurement gave.
struct Measured {
    values: Vec<(Measure, f64)>,
    /// What of it failed.
    lacking: Option<String>,
}

/// The package of postern-netd.
const NETD_PACKAGE: &str = "tun-driver";
/// Between two measurements: what the last one left in queues is done then.
const SETTLE: Duration = Duration::from_millis(100);
/// Streams that a good client opens while handshakes stall, which are closed after ten seconds.
const HELD_BESIDE_STALLED: usize = 300;
/// How long streams are idle before memory is read.
const IDLE: Duration = Duration::from_secs(2);
/// Files that a process needs beside its streams.
const RESERVED_FILES: u64 = 500;

fn bulk(
    subject: &Subject,
    transfer: impl FnOnce() -> anyhow::Result<load::Transfer>,
) -> anyhow::Result<Vec<(Measure, f64)>> {
    let pids = subject.pids();
    let before = usage::cpu_time(&pids);
    let transfer = transfer()?;
    let cpu = usage::cpu_time(&pids).saturating_sub(before);
    let mut measured = vec![(Measure::Throughput, transfer.gbits_per_second())];
    if !pids.is_empty() && transfer.bytes > 0 {
        measured.push((Measure::Cpu, cpu.as_secs_f64() / transfer.gibibytes()));
    }
    Ok(measured)
}

/// The load of names for a subject.
fn questions(subject: &Subject) -> anyhow::Result<Queries<'_>> {
    let server = subject.name_server.as_ref().context("it answers no names")?;
    Ok(Queries { server: server.address, names: &server.names, clients: dns::CLIENTS })
}

/// CPU time of each process.
fn cpu_times(subject: &Subject) -> Vec<Duration> {
    subject.pids().into_iter().map(|pid| usage::cpu_time(&[pid])).collect()
}

/// `before`: CPU times before the streams were opened.
fn opened(subject: &Subject, openings: &load::Openings, before: &[Duration]) -> Vec<(Measure, f64)> {
    let used = cpu_times(subject).into_iter().zip(before).map(|(after, before)| after.saturating_sub(*before));
    let each: Vec<f64> = used.map(|time| time.as_secs_f64() * 1e6 / openings.times.len() as f64).collect();
    let mut measured = vec![(Measure::Rate, openings.per_second)];
    measured.extend(quantiles(&openings.times).into_iter().filter_map(present));
    if !each.is_empty() {
        measured.push((Measure::CpuPerOpening, each.iter().sum()));
    }
    let names = subject.processes.iter().map(|process| process.name().to_owned());
    measured.extend(names.zip(each).map(|(name, cpu)| (Measure::CpuPerOpeningOf(name), cpu)));
    measured
}

fn quantiles(times: &load::Times) -> [(Measure, Option<f64>); 2] {
    [(Measure::P50, times.quantile(0.5)), (Measure::P99, times.quantile(0.99))]
}

fn present((measure, value): (Measure, Option<f64>)) -> Option<(Measure, f64)> {
    Some((measure, value?))
}

/// Raises the limit of open files as far as this user may; children inherit it.
fn raise_file_limit() -> anyhow::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")?;
    Ok(limit.maximum.unwrap_or(1 << 20))
}

/// Shown only on a terminal.
fn progress_bar(steps: usize) -> ProgressBar {
    let bar = if steps == 0 { ProgressBar::new_spinner() } else { ProgressBar::new(steps as u64) };
    let template = if steps == 0 { "{spinner} {msg}" } else { "[{bar:30}] {pos}/{len} {msg}" };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
