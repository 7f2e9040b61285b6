//! How a control plane bears what no test sets up by hand: a million resources, a hundred thousand accounts and devices.
//!
//! A [`world`] is grown from a small real organisation by way of a backup. On it a real `postern-control` is asked, and
//! followed by real sync connections ([`crowd`]); what a hundred thousand devices cost is then measured on the exchange
//! itself, in this process, without TLS and sockets ([`fleet`]). The figures say which of both they are.

pub mod crowd;
pub mod fleet;
pub mod questions;
pub mod world;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use crate::stack::Stack;

/// How much of everything.
#[derive(Clone, Copy, Debug, Serialize, clap::Args)]
pub struct Size {
    /// Resources of the organisation
    #[arg(long, default_value_t = 1_000_000)]
    pub resources: u64,
    /// Accounts, each with a role
    #[arg(long, default_value_t = 100_000)]
    pub accounts: u64,
    /// Roles, each with a rule that asks for a tag
    #[arg(long, default_value_t = 10_000)]
    pub roles: u64,
    /// Devices of which only the state of their sync connection is there
    #[arg(long, default_value_t = 100_000)]
    pub devices: u64,
    /// Devices with a real sync connection over mutual TLS
    #[arg(long, default_value_t = 2_000)]
    pub connections: u64,
    /// Accounts that the edit of one tag touches
    #[arg(long, default_value_t = 10_000)]
    pub touched: u64,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
}

/// The figures, printed as they come.
#[derive(Default)]
pub struct Figures {
    json: bool,
    all: Vec<Figure>,
}

impl Figures {
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json, all: Vec::new() }
    }

    pub fn say(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        let figure = Figure { what: what.into(), value, unit };
        if self.json {
            println!("{}", serde_json::to_string(&figure).unwrap_or_default());
        } else {
            println!("{:<74} {:>12.2} {}", figure.what, figure.value, figure.unit);
        }
        self.all.push(figure);
    }

    /// Says how long something took.
    pub fn took(&mut self, what: impl Into<String>, since: Instant) {
        self.say(what, milliseconds(since.elapsed()), "ms");
    }

    #[must_use]
    pub fn all(&self) -> &[Figure] {
        &self.all
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

pub(crate) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Seconds of CPU, its own and the kernel's for it.
    pub cpu: f64,
    /// Resident bytes.
    pub memory: u64,
}

/// Of any process of this machine.
pub fn usage(process: u32) -> anyhow::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let behind_name = stat.rsplit_once(')').context("a line of /proc is not as expected")?.1;
    let field = |n: usize| behind_name.split_ascii_whitespace().nth(n).and_then(|text| text.parse::<u64>().ok());
    let ticks = field(11).zip(field(12)).map(|(user, system)| user + system).context("no times in /proc")?;
    let pages = field(21).context("no memory in /proc")?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Usage { cpu: number(ticks) / number(per_second), memory: pages * rustix::param::page_size() as u64 })
}

/// Measures everything.
pub async fn measure(size: Size, figures: &mut Figures) -> anyhow::Result<()> {
    let mut stack = Stack::builder().gateways(0).without_user().log("warn").start().await?;
    let world = world::grow(&mut stack, size, figures).await?;
    questions::ask(&stack, &world, figures).await?;
    crowd::measure(&mut stack, &world, figures).await?;
    stack.control.stop().await?;
    fleet::measure(&stack, &world, figures).await?;
    stack.stop().await
}
