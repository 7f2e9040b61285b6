//! The records: sessions and activities, their export, and the check that nobody touched them.

use serde_json::Value;

use super::{
    api::{Api, PAGE},
    entity,
    noun::{CHAIN, Noun},
    show,
};
use crate::{
    args::admin::{AuditCommand, ExportArgs, ListArgs, RecordsCommand},
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BAD, GOOD, Line},
};

pub(super) async fn run(command: RecordsCommand, noun: &Noun, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        RecordsCommand::List(args) => {
            let args = ListArgs { filter: args.filter, limit: args.limit, json: args.json };
            entity::list(noun, &args, api, context).await
        }
        RecordsCommand::Show(args) => entity::show(noun, &args.reference, args.json, api, context).await,
        RecordsCommand::Export(args) => export(&args, noun, api, context).await,
    }
}

/// Page by page, newest first, so that any number of records takes little memory.
async fn export(args: &ExportArgs, noun: &Noun, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let mut cursor: Option<String> = None;
    loop {
        let page = api.page(noun.collection, args.filter.as_deref(), PAGE, cursor.as_deref()).await?;
        for item in &page.items {
            context.screen.json_line(item)?;
        }
        context.screen.flush()?;
        if page.next.is_none() || page.next == cursor {
            return Ok(());
        }
        cursor = page.next;
    }
}

pub(super) async fn audit(command: AuditCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let AuditCommand::Verify(output) = command;
    let answer = api.get("audit/verify").await?;
    let sound = answer.get("ok").and_then(Value::as_bool).unwrap_or_default();
    if output.json {
        context.screen.json(&answer)?;
    } else {
        let chains = answer.get("nodes").and_then(Value::as_array).cloned().unwrap_or_default();
        if !chains.is_empty() {
            context.screen.grid(&show::grid(&CHAIN, &chains))?;
            context.screen.line(&Line::new())?;
        }
        let line = match sound {
            true => Line::new().styled(GOOD, "No record was changed, removed or moved."),
            false => Line::new().styled(BAD, "The records are not as the gateways wrote them."),
        };
        context.screen.line(&line)?;
    }
    if sound { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}
