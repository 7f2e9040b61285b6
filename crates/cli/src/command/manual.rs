//! `completions` and `man`: made from the command line itself, so that they cannot be out of date.

use std::{io, path::Path};

use clap_complete::Shell;

use crate::{context::Context, exit::Exit, failure::Failure, screen::Line, text};

pub(crate) fn completions(shell: Shell, context: &mut Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::command_line(), "postern", &mut script);
    Ok(context.screen.own_bytes(&script)?)
}

pub(crate) fn man(folder: Option<&Path>, context: &mut Context) -> Result<(), Failure> {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(crate::command_line()).render(&mut page)?;
        return Ok(context.screen.own_bytes(&page)?);
    };
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("cannot write man pages into {}", folder.display()))
            .because(error.to_string())
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(crate::command_line(), folder).map_err(failed)?;
    let pages = count_pages(&crate::command_line());
    let line = format!(
        "{} in {}; read one with `man -l {}`",
        text::count(pages, "page"),
        folder.display(),
        folder.join("postern.1").display()
    );
    Ok(context.screen.line(&Line::of(line))?)
}

fn count_pages(command: &clap::Command) -> usize {
    1 + command.get_subcommands().map(count_pages).sum::<usize>()
}
