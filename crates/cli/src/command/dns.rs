//! `dns query`: how a name is answered, by the resolver of the virtual network and by the system.

use std::net::IpAddr;

use postern_local_api::names::{Asked, NameQuestion, NameReport, ResolverAnswer, SystemAnswer};

use crate::{
    args::{DnsCommand, QueryArgs},
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BAD, DIM, GOOD, Line, WARN},
    waiting,
};

pub(crate) async fn run(command: DnsCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        DnsCommand::Query(args) => query(args, context).await,
    }
}

async fn query(args: QueryArgs, context: &mut Context) -> Result<(), Failure> {
    let service = context.service().await?;
    let question = NameQuestion { name: args.name, kind: args.kind };
    let report = waiting::during("asking", service.names(&question)).await?;
    if args.json {
        context.screen.json(&report)?;
    } else {
        let lines = lines(&report);
        context.screen.lines(&lines)?;
    }
    match exit(&report) {
        Exit::Ok => Ok(()),
        other => Err(Failure::silent(other)),
    }
}

/// Where the second column begins.
const COLUMN: usize = 12;

fn lines(report: &NameReport) -> Vec<Line> {
    let mut lines = vec![Line::of(format!("{} {}", report.name, report.kind))];
    match &report.resolver {
        None => lines.push(row("  resolver").styled(DIM, "there is no virtual network: see postern network status")),
        Some(answer) => lines.extend(resolver_lines(answer)),
    }
    let system = row("  system");
    match &report.system {
        SystemAnswer::Found { addresses } => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            lines.push(system.plain(addresses.join(", ")));
        }
        SystemAnswer::NotFound => lines.push(system.styled(WARN, "not found")),
        SystemAnswer::TimedOut => lines.push(system.styled(BAD, "no answer in time")),
        SystemAnswer::Failed { error } => lines.push(system.styled(BAD, error)),
        SystemAnswer::NotAsked => lines.push(system.styled(DIM, "not asked: programs look up addresses only")),
    }
    if disagree(report) {
        lines.push(row("").styled(WARN, "do: ").plain("the system does not ask the resolver; see postern doctor"));
    }
    lines
}

fn resolver_lines(answer: &ResolverAnswer) -> Vec<Line> {
    let first = row("  resolver").plain(answer.server.ip().to_string()).plain("  ");
    match &answer.outcome {
        Asked::TimedOut => vec![first.styled(BAD, "no answer in time")],
        Asked::Failed { error } => vec![first.styled(BAD, error)],
        Asked::Answered { code, records, explanation } => {
            let style = if code == "NOERROR" { GOOD } else { WARN };
            let took = format!(" in {:.1} ms", answer.micros as f64 / 1000.0);
            let mut lines = vec![first.styled(style, code).styled(DIM, took)];
            for record in records {
                let ttl = format!("  {} s", record.ttl);
                lines.push(row("").plain(format!("{} {}", record.kind, record.data)).styled(DIM, ttl));
            }
            if let Some(explanation) = explanation {
                lines.push(row("").styled(WARN, "note: ").plain(explanation));
            }
            lines
        }
    }
}

fn row(head: &str) -> Line {
    Line::of(head).pad(COLUMN)
}

/// Whether the resolver has addresses of the name, and the system others or none.
fn disagree(report: &NameReport) -> bool {
    let Some(ResolverAnswer { outcome: Asked::Answered { records, .. }, .. }) = &report.resolver else { return false };
    let mut ours: Vec<_> = records.iter().filter_map(|record| record.data.parse::<IpAddr>().ok()).collect();
    ours.sort_unstable();
    match &report.system {
        SystemAnswer::NotAsked => false,
        SystemAnswer::Found { addresses } => !ours.is_empty() && *addresses != ours,
        SystemAnswer::NotFound | SystemAnswer::TimedOut | SystemAnswer::Failed { .. } => !ours.is_empty(),
    }
}

fn exit(report: &NameReport) -> Exit {
    match (&report.resolver, &report.system) {
        _ if disagree(report) => Exit::Failed,
        (Some(ResolverAnswer { outcome: Asked::Answered { records, .. }, .. }), _) if !records.is_empty() => Exit::Ok,
        (_, SystemAnswer::Found { .. }) => Exit::Ok,
        (Some(ResolverAnswer { outcome: Asked::TimedOut | Asked::Failed { .. }, .. }), _)
        | (_, SystemAnswer::TimedOut | SystemAnswer::Failed { .. }) => Exit::NotReady,
        _ => Exit::NotFound,
    }
}
