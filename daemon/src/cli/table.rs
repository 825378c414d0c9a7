//! Tables for people: no borders, only as wide as needed, one line a row whatever the cells hold.

use comfy_table::{Table, presets};

use crate::printable::printable;

/// Bytes of a cell that are shown: a payload may be much longer.
pub const MAX_CELL: usize = 1_024;

/// Stands where there is no value.
pub const NONE: &str = "-";

/// Renders rows below a header, without a newline at the end. With `colour` the header is bold.
pub fn table<const N: usize>(colour: bool, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(cell)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.trim_fmt();
    match text.split_once('\n') {
        Some((header, rows)) if colour => format!("\u{1b}[1m{header}\u{1b}[0m\n{rows}"),
        None if colour => format!("\u{1b}[1m{text}\u{1b}[0m"),
        _ => text,
    }
}

/// Names and values beside each other, a line each.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), cell(value)]));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The text, or what stands where there is none.
pub fn or_none(text: Option<impl Into<String>>) -> String {
    text.map_or_else(|| NONE.to_owned(), Into::into)
}

fn cell(text: String) -> String {
    match text.as_str() {
        "" => text,
        text => printable(text, MAX_CELL).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed() {
        let rows = [["a", "longest"], ["bcd", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(false, ["NAME", "X"], rows), "NAME  X\na     longest\nbcd");
        assert_eq!(table(false, ["NAME"], []), "NAME");
    }

    #[test]
    fn a_cell_cannot_break_out_of_its_line() {
        let rows = [["a\nb\u{1b}[2J".to_owned(), "x".repeat(2_000)]];
        let found = table(false, ["A", "B"], rows);
        assert_eq!(found.lines().count(), 2);
        assert!(found.contains("a\\nb\\u{1b}[2J") && found.ends_with("… (976 bytes more)"), "{found:?}");
    }

    #[test]
    fn only_the_header_is_coloured() {
        assert_eq!(table(true, ["A"], [["b".to_owned()]]), "\u{1b}[1mA\u{1b}[0m\nb");
        assert_eq!(pairs([("a", "1".to_owned()), ("bc", "2".to_owned())]), "a   1\nbc  2");
    }
}
