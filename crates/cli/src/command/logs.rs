//! `logs`: what the service wrote down, fit to be handed on.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use postern_local_api::message::{LogExport, LogRequest, Redaction};

use crate::{
    args::{LogsArgs, RedactionLevel},
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::Line,
    text,
};

pub(crate) async fn export(args: &LogsArgs, context: &mut Context) -> Result<(), Failure> {
    let redaction = match args.redact {
        RedactionLevel::Names => Redaction::Names,
        RedactionLevel::Pseudonyms => Redaction::Pseudonyms,
        RedactionLevel::Strict => Redaction::Strict,
    };
    let export = context.service().await?.logs(&LogRequest { redaction }).await?;
    if let Some(path) = &args.output {
        write(path, &export).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}", path.display())).because(error.to_string())
        })?;
        let (lines, words) = (text::count(export.lines.len(), "line"), export.replaced);
        return Ok(context
            .screen
            .line(&Line::of(format!("{} holds {lines}; {words} words replaced or left out.", path.display())))?);
    }
    if args.json {
        return Ok(context.screen.json(&export)?);
    }
    if export.forgotten > 0 {
        context.warn(format!("{} older lines are not kept any more", export.forgotten));
    }
    let lines: Vec<_> = export.lines.iter().map(Line::of).collect();
    Ok(context.screen.lines(&lines)?)
}

/// For the owner's eyes until he hands it on. A file that is there is not overwritten.
fn write(path: &Path, export: &LogExport) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for line in &export.lines {
        writeln!(file, "{}", text::clean(line))?;
    }
    file.sync_all()
}
