//! Standard output: tables and JSON. Strings from brokers and clients are shown without control characters, which could
//! steer the terminal.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// Shown for a missing value.
pub(super) const NOTHING: &str = "-";
/// Blanks between two columns.
const GAP: u16 = 2;

/// The heading and alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Words, to the left.
    Words(&'static str),
    /// Numbers, to the right.
    Numbers(&'static str),
}

/// Writes lines and flushes.
pub(super) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print`], for bytes that need not be text.
pub(super) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line on standard error; a closed standard error is ignored.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "ottla: {line}");
}

/// Writes a value as indented JSON.
pub(super) fn print_json(value: &Value) -> io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// A table as text, one line per row; without rules between rows, so that other tools can parse it.
pub(super) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let name = |column: &Column| match column {
        Column::Words(name) | Column::Numbers(name) => (*name).to_owned(),
    };
    table.set_header(columns.iter().map(name).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    for (column, shape) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, GAP));
        let is_number = matches!(shape, Column::Numbers(_));
        column.set_cell_alignment(if is_number { CellAlignment::Right } else { CellAlignment::Left });
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

/// The text without control characters; [`NOTHING`] for an empty text.
pub(super) fn plain(text: &str) -> String {
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A value, or [`NOTHING`].
pub(super) fn or_nothing<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string())
}

/// A JSON value as a cell of a table.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// The items of a JSON array; none of any other value.
pub(super) fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Numbers separated by commas.
pub(super) fn list(numbers: &[i32]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_without_lines() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long\u{1b}[2J".to_owned(), "1000".to_owned()]];
        let text = table(&[Column::Words("NAME"), Column::Numbers("LAG")], rows);
        assert_eq!(text, "NAME       LAG\na            1\nlong\u{fffd}[2J  1000\n");
    }

    #[test]
    fn nothing_is_shown_as_such() {
        let text =
            table(&[Column::Words("NAME"), Column::Words("RACK")], [vec![String::new(), or_nothing(None::<i32>)]]);
        assert_eq!(text, "NAME  RACK\n-     -\n");
        assert_eq!(list(&[3, 1]), "3,1");
    }
}
