//! A table of metric families that all have a sample per row, with the same labels: rows are topics or partitions,
//! columns are families.
//!
//! Written a piece at a time, because the text of a hundred thousand rows takes several times the memory of the rows.
//! May not know: what rows and values mean.

use std::fmt::Write;

use super::families::head;

/// Rows whose samples make one piece.
const PIECE_ROWS: usize = 2_000;

/// A gauge, and its value for a row: `None` where it is unknown.
pub(super) struct Column<R: 'static> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&R) -> Option<i64>,
}

/// Rows, each with its labels as [`super::families::label`] makes them.
pub(super) struct Table<R: 'static> {
    columns: &'static [Column<R>],
    rows: Vec<(String, R)>,
}

impl<R> Table<R> {
    /// A table without rows.
    pub(super) fn new(columns: &'static [Column<R>]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, labels: String, row: R) {
        self.rows.push((labels, row));
    }

    /// Appends all families to the page.
    pub(super) fn finish(self, page: &mut String) {
        self.into_pieces().for_each(|piece| page.push_str(&piece));
    }

    /// The text of all families, family by family.
    pub(super) fn into_pieces(self) -> impl Iterator<Item = String> {
        let pieces = self.rows.len().div_ceil(PIECE_ROWS).max(1);
        let places = (0..self.columns.len()).flat_map(move |column| (0..pieces).map(move |piece| (column, piece)));
        places.filter_map(move |(column, piece)| Some(self.piece(self.columns.get(column)?, piece)))
    }

    fn piece(&self, column: &Column<R>, piece: usize) -> String {
        let mut text = if piece == 0 { head("gauge", column.name, column.help) } else { String::new() };
        for (labels, row) in self.rows.chunks(PIECE_ROWS).nth(piece).unwrap_or_default() {
            if let Some(value) = (column.value)(row) {
                // Writing to a String does not fail.
                let _ = writeln!(text, "{}{{{labels}}} {value}", column.name);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<i64>] = &[
        Column { name: "a", help: "A", value: |row| Some(*row) },
        Column { name: "b", help: "B", value: |row| (row % 2 == 0).then_some(-row) },
    ];

    #[test]
    fn samples_stand_under_one_head_for_each_family() {
        let mut table = Table::new(COLUMNS);
        for row in [3, 4] {
            table.add(format!("row=\"{row}\""), row);
        }
        let mut page = String::new();
        table.finish(&mut page);
        let expected = "# HELP a A\n# TYPE a gauge\na{row=\"3\"} 3\na{row=\"4\"} 4\n\
                        # HELP b B\n# TYPE b gauge\nb{row=\"4\"} -4\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn pieces_are_small_and_together_they_are_the_page() {
        let mut table = Table::new(COLUMNS);
        for row in 0..5_000 {
            table.add(format!("row=\"{row}\""), row);
        }
        let pieces: Vec<String> = table.into_pieces().collect();
        assert_eq!(pieces.len(), 6);
        let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(pieces.iter().all(|piece| lines(piece) <= PIECE_ROWS));
        assert_eq!(lines(&pieces.concat()), 7_500);
        assert_eq!(pieces.concat().matches("# TYPE").count(), 2);
    }

    #[test]
    fn a_table_without_rows_still_tells_its_families() {
        let mut page = String::new();
        Table::new(COLUMNS).finish(&mut page);
        assert_eq!(page.matches("# TYPE").count(), 2);
    }
}
