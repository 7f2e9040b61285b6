//! Postern itself, as the demo runs it.

use anyhow::Context;

use super::{Ground, Started};
use crate::stack::{Programs, Service, Stack};

const NAME: &str = "bench-target";

pub(super) fn start(ground: &Ground<'_>) -> anyhow::Result<Started> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let programs = Programs::in_folder(own.parent().context("this program lies in no folder")?)?;
    let stack = Stack::start(&programs, ground.folder, ground.interrupt)?;
    stack.publish(&[Service {
        name: NAME.to_owned(),
        kind: "tcp",
        host: ground.target.ip().to_string(),
        port: ground.target.port(),
        allow_local: true,
    }])?;
    let entry = *stack.connect(&[NAME])?.first().context("the target was not connected")?;
    Ok((entry, stack.into_processes()))
}
