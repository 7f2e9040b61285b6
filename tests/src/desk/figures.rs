//! What the window costs: how long until it can be used, how fast it searches, what it holds and does when nobody looks.

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Desk, Window};
use crate::{binaries::desktop, process::Process};

/// `bench desktop`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Starts of the app; medians are taken over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long the idle app is watched, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle: u64,
}

/// Figures of the design: see the table of figures to hold in the architecture.
const USABLE_MILLIS: f64 = 1_500.0;
const IDLE_PERCENT: f64 = 0.5;
/// One frame of a screen with 60 Hz.
const FRAME_MILLIS: f64 = 1_000.0 / 60.0;
const RESOURCES: &str = "10000";

/// A measured thing: what, in which unit, its values, and the bar that it is to stay under.
struct Figure {
    case: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    bar: Option<f64>,
}

pub async fn measure(options: &Options) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    let (mut usable, mut usable_many) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        usable.push(start("40").await?.0);
        usable_many.push(start(RESOURCES).await?.0);
    }
    figures.push(Figure { case: "start/40", unit: "ms", values: usable, bar: Some(USABLE_MILLIS) });
    figures.push(Figure { case: "start/10000", unit: "ms", values: usable_many, bar: Some(USABLE_MILLIS) });
    figures.extend(idle(Duration::from_secs(options.idle)).await?);
    figures.extend(search().await?);
    let mut out = std::io::stdout().lock();
    let machine = machine();
    if options.json {
        writeln!(out, "{}", json!({ "machine": machine }))?;
    } else {
        writeln!(out, "{machine}\n\n{:<26}{:>8}{:>12}{:>12}{:>12}{:>6}", "", "unit", "median", "min", "max", "n")?;
    }
    for figure in &figures {
        writeln!(out, "{}", if options.json { figure.json().to_string() } else { figure.line() })?;
    }
    for figure in figures.iter().filter(|figure| figure.bar.is_some()) {
        writeln!(out, "{}", figure.verdict(options.json))?;
    }
    Ok(())
}

/// Starts the app as a person does, until it says that it is painted and can be used.
async fn start(scenario: &str) -> anyhow::Result<(f64, Desk, Process)> {
    let desk = Desk::start().await?;
    let mut command = desk.command(&desktop()?);
    command.args(["--mock", scenario]);
    let begin = Instant::now();
    let mut app = Process::spawn("postern-desktop", &mut command, desk.folder())?;
    app.ready().await.context("the app does not become usable")?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    app.settle();
    Ok((took, desk, app))
}

/// Memory and CPU of all its processes while nothing happens: proportional set size, so that shared pages count once.
/// With 40 resources one row is connecting all the time, and what moves is drawn: that has a figure of its own.
async fn idle(watched: Duration) -> anyhow::Result<Vec<Figure>> {
    let mut figures = rest("40", "connecting/cpu", None, watched).await?;
    figures.extend(rest("0", "idle/cpu", Some(IDLE_PERCENT), watched).await?.into_iter().take(1));
    Ok(figures)
}

async fn rest(scenario: &str, case: &'static str, bar: Option<f64>, watched: Duration) -> anyhow::Result<Vec<Figure>> {
    let (_, _desk, app) = start(scenario).await?;
    // WebKit compiles and throws away for some seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let family = family_of(app.id());
    anyhow::ensure!(!family.is_empty(), "the app has ended");
    let before: f64 = family.values().sum();
    let begin = Instant::now();
    tokio::time::sleep(watched).await;
    let after: f64 = family_of(app.id()).values().sum();
    let percent = (after - before) / begin.elapsed().as_secs_f64() * 100.0;
    let pids: Vec<u32> = family.keys().copied().collect();
    let (mut resident, mut shared) = (0.0, 0.0);
    for pid in pids {
        resident += kib_of(pid, "status", "VmRSS:").unwrap_or_default() / 1024.0;
        shared += kib_of(pid, "smaps_rollup", "Pss:").unwrap_or_default() / 1024.0;
    }
    let own = kib_of(app.id(), "status", "VmRSS:").unwrap_or_default() / 1024.0;
    Ok(vec![
        Figure { case, unit: "%", values: vec![percent], bar },
        Figure { case: "memory/app", unit: "MiB", values: vec![own], bar: None },
        Figure { case: "memory/all-processes", unit: "MiB", values: vec![resident], bar: None },
        Figure { case: "memory/proportional", unit: "MiB", values: vec![shared], bar: None },
    ])
}

/// Types words letter by letter into the search over 10,000 resources: how long each letter keeps the page busy, and
/// until the frame after it is due.
async fn search() -> anyhow::Result<Vec<Figure>> {
    let desk = Desk::start().await?;
    let window = desk.open(&["--mock", RESOURCES], &[]).await?;
    window.find("grid", "Resources").await?;
    let (mut busy, mut painted) = (Vec::new(), Vec::new());
    for word in ["orders", "postgres eu", "10.20", "prod redis", "zzz"] {
        for length in 1..=word.len() {
            let typed = word.get(..length).unwrap_or(word);
            let times = type_into(&window, typed).await?;
            busy.push(times.0);
            painted.push(times.1);
        }
        type_into(&window, "").await?;
    }
    window.close().await?;
    Ok(vec![
        Figure { case: "search/10000/busy", unit: "ms", values: busy, bar: Some(FRAME_MILLIS) },
        Figure { case: "search/10000/next-frame", unit: "ms", values: painted, bar: None },
    ])
}

async fn type_into(window: &Window, text: &str) -> anyhow::Result<(f64, f64)> {
    window.run(TYPE, vec![text.into()]).await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let times = window.run("return window.posternTimes;", vec![]).await?;
        let time = |index: usize| times.get(index).and_then(Value::as_f64);
        if let (Some(busy), Some(painted)) = (time(0), time(1)) {
            return Ok((busy, painted));
        }
        anyhow::ensure!(Instant::now() < deadline, "nothing is painted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a keystroke does, and how long until the page is free again and the next frame begins.
const TYPE: &str = "
    const field = document.getElementById('search') || document.querySelector('input[type=search]');
    window.posternTimes = [];
    requestAnimationFrame(() => {
        const begin = performance.now();
        field.value = arguments[0];
        field.dispatchEvent(new InputEvent('input', { bubbles: true }));
        const channel = new MessageChannel();
        let busy = null;
        channel.port1.onmessage = () => { busy = performance.now() - begin; };
        queueMicrotask(() => channel.port2.postMessage(0));
        requestAnimationFrame(() => {
            const painted = performance.now() - begin;
            setTimeout(() => { window.posternTimes = [busy ?? painted, painted]; }, 0);
        });
    });";

/// CPU seconds so far of a process and all below it, by process id.
fn family_of(root: u32) -> BTreeMap<u32, f64> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let field = |index: usize| rest.split_whitespace().nth(index).and_then(|field| field.parse::<u64>().ok());
        // State, parent … user time, system time: fields 3, 4, 14 and 15 of proc(5).
        let (Some(parent), Some(user), Some(system)) = (field(1), field(11), field(12)) else { continue };
        all.insert(pid, (parent, (user + system) as f64 / TICKS));
    }
    let mut family = BTreeMap::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let Some((_, seconds)) = all.get(&pid) else { continue };
        family.insert(pid, *seconds);
        let below = all.iter().filter(|(_, (parent, _))| *parent == u64::from(pid)).map(|(pid, _)| *pid);
        open.extend(below.filter(|pid| !family.contains_key(pid)));
    }
    family
}

/// `USER_HZ`, which Linux has fixed for programs.
const TICKS: f64 = 100.0;

fn kib_of(pid: u32, file: &str, field: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, m)| m);
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let load = read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    format!("{count} × {model}, Linux {}, load {load}, Xvfb, software GL", read("/proc/sys/kernel/osrelease"))
}

impl Figure {
    fn quantile(&self, at: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let index = ((sorted.len().saturating_sub(1)) as f64 * at).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The line of the other benchmarks.
    fn json(&self) -> Value {
        json!({
            "case": self.case, "subject": "postern-desktop", "unit": self.unit, "median": round(self.quantile(0.5)),
            "min": round(self.quantile(0.0)), "max": round(self.quantile(1.0)), "runs": self.values.len(),
            "p95": round(self.quantile(0.95)),
        })
    }

    fn line(&self) -> String {
        let number = |at| format!("{:.2}", self.quantile(at));
        let (median, min, max) = (number(0.5), number(0.0), number(1.0));
        format!("{:<26}{:>8}{median:>12}{min:>12}{max:>12}{:>6}", self.case, self.unit, self.values.len())
    }

    /// The median of starts and rests, the 95th of a hundred letters.
    fn verdict(&self, as_json: bool) -> String {
        let bar = self.bar.unwrap_or(f64::INFINITY);
        let seen = if self.values.len() > 20 { self.quantile(0.95) } else { self.quantile(0.5) };
        let standing = if seen <= bar { "pass" } else { "short" };
        if as_json {
            let (seen, bar) = (round(seen), round(bar));
            return json!({"verdict": self.case, "standing": standing, "seen": seen, "wanted": "<=", "bar": bar})
                .to_string();
        }
        format!("  {standing:<8}{:<30}{seen:>10.2}  (wanted <= {bar:.2} {})", self.case, self.unit)
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_fields_of_the_other_benchmarks() {
        let figure = Figure { case: "start/40", unit: "ms", values: vec![900.0, 700.0, 800.0], bar: Some(1_500.0) };
        let line = figure.json();
        assert_eq!((line["median"].as_f64(), line["min"].as_f64()), (Some(800.0), Some(700.0)));
        assert!(figure.verdict(true).contains("\"standing\":\"pass\""));
        let slow = Figure { values: vec![1_600.0], ..figure };
        assert!(slow.verdict(false).contains("short"));
    }

    #[test]
    fn the_family_of_a_process_is_itself_and_what_it_started() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        let family = family_of(std::process::id());
        assert!(family.contains_key(&std::process::id()) && family.contains_key(&child.id()), "{family:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
