//! Tables for people: no borders, only as wide as needed and as the terminal is, one line a row whatever the cells hold.
//!
//! What is cut short here is whole with `--json`.

use comfy_table::{Table, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

use crate::printable::printable;

/// Bytes of a text that are shown in a line of its own: a payload may be much longer.
pub const MAX_CELL: usize = 1_024;

/// Columns of a cell where no terminal tells how many there are.
const WIDTH_ELSEWHERE: usize = 80;

/// Columns that each cell of a table keeps, however narrow the terminal is: enough to recognise a name or a time.
const KEPT: usize = 12;

/// Columns between two cells.
const GAP: usize = 2;

/// Stands where a cell is cut short.
const CUT: char = '…';

/// How tables look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether the header is bold.
    pub colour: bool,
    /// Columns of the terminal, if there is one.
    pub width: Option<usize>,
}

/// Stands where there is no value.
pub const NONE: &str = "-";

/// Renders rows below a header, without a newline at the end. Where they are wider than the terminal, the widest columns are
/// cut short.
pub fn table<const N: usize>(look: Look, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(cell)).collect();
    let widths = widths(look.width, header, &rows);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in &rows {
        table.add_row(row.iter().zip(widths).map(|(cell, width)| clipped(cell, width)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.trim_fmt();
    match text.split_once('\n') {
        Some((header, rows)) if look.colour => format!("\u{1b}[1m{header}\u{1b}[0m\n{rows}"),
        None if look.colour => format!("\u{1b}[1m{text}\u{1b}[0m"),
        _ => text,
    }
}

/// The largest width of each column's cells.
fn widths<const N: usize>(terminal: Option<usize>, header: [&str; N], rows: &[[String; N]]) -> [usize; N] {
    let mut natural = header.map(UnicodeWidthStr::width);
    for row in rows {
        natural.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.width().max(*width));
    }
    let kept = header.map(|name| name.width().max(KEPT));
    // One limit for all columns, so that those that fit anyway keep what they need.
    let under = |limit: usize| {
        let mut widths = natural;
        widths.iter_mut().zip(kept).for_each(|(width, kept)| *width = limit.max(kept).min(*width));
        widths
    };
    let Some(terminal) = terminal else { return under(WIDTH_ELSEWHERE) };
    let room = terminal.saturating_sub(GAP * N.saturating_sub(1));
    let mut limit = room;
    while limit > 0 && under(limit).iter().sum::<usize>() > room {
        limit -= 1;
    }
    let mut widths = under(limit);
    // What is left over after the same for all.
    let mut left = room.saturating_sub(widths.iter().sum());
    for (width, natural) in widths.iter_mut().zip(natural) {
        if left > 0 && *width < natural {
            *width += 1;
            left -= 1;
        }
    }
    widths
}

/// The text in at most so many columns.
fn clipped(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 1;
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > width {
            break;
        }
        clipped.push(character);
    }
    clipped.push(CUT);
    clipped
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
        assert_eq!(table(Look::default(), ["NAME", "X"], rows), "NAME  X\na     longest\nbcd");
        assert_eq!(table(Look::default(), ["NAME"], []), "NAME");
    }

    #[test]
    fn a_cell_cannot_break_out_of_its_line() {
        let rows = [["a\nb\u{1b}[2J".to_owned(), "x".repeat(2_000)]];
        let found = table(Look::default(), ["A", "B"], rows);
        assert_eq!(found.lines().count(), 2);
        let cut = format!("a\\nb\\u{{1b}}[2J  {}…", "x".repeat(79));
        assert_eq!(found.lines().nth(1), Some(cut.as_str()));
    }

    /// The lines of a table with long cells among short ones, on a terminal of this width.
    fn narrow(width: Option<usize>) -> Vec<String> {
        let row = |topic: &str, data: &str| ["plant", topic, data, "12:00:00"].map(str::to_owned);
        let rows = [row("a/b", "21.5"), row(&"t/".repeat(1_000), "x"), row("a/c", &"温".repeat(1_000))];
        let look = Look { colour: false, width };
        table(look, ["BROKER", "TOPIC", "DATA", "TIME"], rows).lines().map(str::to_owned).collect()
    }

    #[test]
    fn one_long_cell_does_not_widen_the_other_rows_beyond_the_terminal() {
        for width in [60, 80, 81, 132, 200] {
            let lines = narrow(Some(width));
            assert_eq!(lines.len(), 4);
            for line in &lines[1..] {
                assert!(line.width() <= width && line.ends_with("12:00:00"), "{width}: {line}");
            }
            assert!(lines[2].width() >= width - 1, "it uses the room that there is: {lines:?}");
            assert!(lines[1].contains("a/b ") && lines[1].contains("21.5 "), "short ones are whole: {lines:?}");
            assert!(lines[2].contains("t/t/") && lines[2].contains('…') && lines[3].contains("温…"), "{lines:?}");
        }
        // Even so a name can be recognised.
        assert!(narrow(Some(10)).iter().all(|line| line.width() <= 6 + 2 * 12 + 8 + 3 * GAP));
    }

    #[test]
    fn without_a_terminal_a_cell_is_still_bounded() {
        let lines = narrow(None);
        assert!(lines.iter().all(|line| line.width() <= 6 + 2 * WIDTH_ELSEWHERE + 8 + 3 * GAP), "{lines:?}");
        assert!(lines[2].contains(&format!("{}…", &"t/".repeat(40)[..79])), "{lines:?}");
    }

    #[test]
    fn only_the_header_is_coloured() {
        assert_eq!(table(Look { colour: true, width: None }, ["A"], [["b".to_owned()]]), "\u{1b}[1mA\u{1b}[0m\nb");
        assert_eq!(pairs([("a", "1".to_owned()), ("bc", "2".to_owned())]), "a   1\nbc  2");
    }
}
