//! Tables without frames: a header, aligned columns, one line for each row.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};

use crate::text;

/// How a cell is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Dim,
    Good,
    Warn,
    Bad,
}

/// A cell: harmless text with a tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field(String, Tone);

impl Field {
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        match text.as_ref() {
            "" => Self("-".to_owned(), Tone::Dim),
            text => Self(text::clean(text).into_owned(), tone),
        }
    }
}

impl<T: AsRef<str>> From<T> for Field {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A column's title; a leading `>` aligns the column to the right.
pub(crate) struct Grid {
    titles: Vec<&'static str>,
    rows: Vec<Vec<Field>>,
}

impl Grid {
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        Self { titles: titles.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, fields: Vec<Field>) {
        self.rows.push(fields);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table. With a width, each row is cut to one line that fits; without, nothing is lost.
    pub(crate) fn lines(&self, width: Option<u16>) -> Vec<String> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).enforce_styling();
        table.style_text_only();
        table.set_content_arrangement(ContentArrangement::Disabled);
        if let Some(width) = width {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width).set_truncation_indicator("…");
        }
        let title = |title: &&str| Cell::new(title.trim_start_matches('>')).add_attribute(Attribute::Dim);
        table.set_header(single_line(self.titles.iter().map(title)));
        table.add_rows(self.rows.iter().map(|fields| single_line(fields.iter().map(cell))));
        for (column, title) in table.column_iter_mut().zip(&self.titles) {
            column.set_padding((0, 2));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

fn single_line(cells: impl Iterator<Item = Cell>) -> Row {
    let mut row = Row::from(cells.collect::<Vec<_>>());
    row.max_height(1);
    row
}

fn cell(Field(text, tone): &Field) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Warn => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&["NAME", ">BYTES"]);
        grid.row(vec!["a\x1b[2J\nb".into(), "7".into()]);
        grid.row(vec!["long-long-name".into(), Field::new("1234", Tone::Plain)]);
        grid.row(vec!["".into(), "x".into()]);
        grid
    }

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string().trim_end().to_owned()).collect()
    }

    #[test]
    fn columns_are_aligned_and_control_characters_shown() {
        assert_eq!(
            plain(&grid().lines(None)),
            ["NAME            BYTES", "a\\u{1b}[2J\\nb       7", "long-long-name   1234", "-                   x"]
        );
    }

    #[test]
    fn a_given_width_is_kept_with_one_line_for_each_row() {
        let lines = plain(&grid().lines(Some(16)));
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 16), "{lines:?}");
    }
}
