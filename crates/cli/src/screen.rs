//! What goes to stdout and stderr. Every text passes through here and is made harmless ([`crate::text::clean`]); colours
//! are put on afterwards and appear only where they are wanted.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::{table::Grid, text};

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// One line of output, without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Style, String)>);

impl Line {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn of(text: impl AsRef<str>) -> Self {
        Self::new().plain(text)
    }

    pub(crate) fn plain(self, text: impl AsRef<str>) -> Self {
        self.styled(PLAIN, text)
    }

    pub(crate) fn styled(mut self, style: Style, text: impl AsRef<str>) -> Self {
        self.0.push((style, text::clean(text.as_ref()).into_owned()));
        self
    }

    /// Adds spaces up to column `width`.
    pub(crate) fn pad(self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.plain(" ".repeat(missing))
    }

    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Cuts what does not fit into `columns`.
    pub(crate) fn clip(mut self, columns: usize) -> Self {
        if self.width() <= columns {
            return self;
        }
        let mut left = columns.saturating_sub(1);
        for (_, text) in &mut self.0 {
            let fits = text.char_indices().take_while(|(_, c)| {
                let width = c.width().unwrap_or_default();
                let fits = width <= left;
                left = if fits { left - width } else { 0 };
                fits
            });
            let end = fits.last().map_or(0, |(at, c)| at + c.len_utf8());
            text.truncate(end);
        }
        self.0.push((PLAIN, "…".to_owned()));
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (style, text) in &self.0 {
            if text.is_empty() {
                continue;
            }
            write!(f, "{style}{text}{style:#}")?;
        }
        Ok(())
    }
}

/// Standard output. Buffered: [`Self::flush`] before waiting for anything.
pub(crate) struct Screen {
    out: BufWriter<AutoStream<Stdout>>,
    terminal: bool,
}

impl Screen {
    pub(crate) fn new(choice: ColorChoice) -> Self {
        // `auto` looks at the terminal, NO_COLOR, CLICOLOR and TERM.
        Self { out: BufWriter::new(AutoStream::new(io::stdout(), choice)), terminal: io::stdout().is_terminal() }
    }

    pub(crate) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(crate) fn line(&mut self, line: &Line) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    pub(crate) fn lines<'a>(&mut self, lines: impl IntoIterator<Item = &'a Line>) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.line(line))
    }

    /// A table, nothing cut.
    pub(crate) fn grid(&mut self, grid: &Grid) -> io::Result<()> {
        grid.lines(None).iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    /// Indented JSON, for people and programs alike.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string_pretty(value)?;
        writeln!(self.out, "{}", text::clean_json(&json))
    }

    /// One line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let json = serde_json::to_string(value)?;
        writeln!(self.out, "{}", text::clean_json(&json))
    }

    /// A picture with cursor movements; its colours are taken out where they are not wanted.
    pub(crate) fn picture(&mut self, picture: &str) -> io::Result<()> {
        let colours = !matches!(self.out.get_ref().current_choice(), ColorChoice::Never);
        if colours { self.own_bytes(picture.as_bytes()) } else { self.own_bytes(without_colours(picture).as_bytes()) }
    }

    /// Bytes that this program made itself: completions, man pages, cursor movements. They pass even where colours are
    /// taken out.
    pub(crate) fn own_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.flush()?;
        io::stdout().write_all(bytes)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Takes the colour sequences (`ESC [ … m`) out and leaves cursor movements in.
fn without_colours(picture: &str) -> String {
    let mut plain = String::with_capacity(picture.len());
    let mut rest = picture;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |at| at + 1);
        let (sequence, following) = after.split_at(end);
        if !sequence.ends_with('m') {
            plain.push_str("\x1b[");
            plain.push_str(sequence);
        }
        rest = following;
    }
    plain.push_str(rest);
    plain
}

/// Writes to standard error; nobody could be told if that failed.
pub(crate) fn note(choice: ColorChoice, lines: &[Line]) {
    let mut err = AutoStream::new(io::stderr(), choice);
    for line in lines {
        let _ = writeln!(err, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_escape_but_its_own_colours() {
        let line = Line::new().styled(GOOD, "a\x1b[2J").plain("b\r\nc").to_string();
        assert_eq!(line, format!("{GOOD}a\\u{{1b}}[2J{GOOD:#}b\\r\\nc"));
    }

    #[test]
    fn a_picture_without_colours_still_moves_the_cursor() {
        assert_eq!(without_colours("\x1b[3A\r\x1b[1;31mbad\x1b[0m\x1b[K"), "\x1b[3A\rbad\x1b[K");
    }

    #[test]
    fn clipping_counts_columns_and_shows_that_something_is_missing() {
        let line = Line::of("abc").styled(BOLD, "日本").plain("x");
        assert_eq!(line.width(), 8);
        assert_eq!(line.clone().clip(8), line);
        for columns in 1..8 {
            let clipped = line.clone().clip(columns);
            assert!(clipped.width() <= columns, "{columns}: {clipped:?}");
            assert!(clipped.to_string().ends_with('…'));
        }
        assert_eq!(line.clip(5).to_string(), "abc…");
    }
}
