//! The records: sessions and activities, their export, and the check that nobody touched them.

use serde_json::Value;

use super::{
    api::{Api, PAGE},
    body::Body,
    entity,
    noun::Noun,
    show,
};
use crate::{
    args::admin::{AuditCommand, ExportArgs, ListArgs, RecordsCommand, ShowArgs},
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
        RecordsCommand::Show(args) => show_record(&args, noun, api, context).await,
        RecordsCommand::Export(args) => export(&args, noun, api, context).await,
    }
}

/// Records have no place of their own in the API; each is found by its id.
async fn show_record(args: &ShowArgs, noun: &Noun, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let filter = format!("id:{}", entity::quoted(&args.reference));
    let found = api.list(noun.collection, Some(&filter), 1).await?.items;
    let Some(record) = found.first() else {
        return Err(Failure::new(Exit::NotFound, format!("there is no {} {:?}", noun.singular, args.reference))
            .next(format!("name it by its id: `postern admin {} list`", noun.plural)));
    };
    if args.json {
        return Ok(context.screen.json(record)?);
    }
    show::thing(record, context)
}

/// Page by page, so that any number of records takes little memory.
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
    let answer = api.post("audit/verify", Body::new().finish()).await?;
    let sound = answer.get("ok").and_then(Value::as_bool).unwrap_or_default();
    if output.json {
        context.screen.json(&answer)?;
    } else {
        show::thing(&answer, context)?;
        let line = match sound {
            true => Line::new().styled(GOOD, "No record was changed, removed or moved."),
            false => Line::new().styled(BAD, "The records are not as they were written."),
        };
        context.screen.line(&line)?;
    }
    if sound { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}
