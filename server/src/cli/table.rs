//! Tables for people: plain columns that read without colour and survive a pipe.

use comfy_table::{Table, presets::NOTHING};
use lockgate_shared::time::Moment;

/// Columns and rows as text; a sentence when there are no rows.
pub fn of(header: &[&str], rows: Vec<Vec<String>>, none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row);
    }
    table
        .trim_fmt()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n")
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// The first digits of an identifier: enough to tell a fleet's devices apart, and accepted wherever
/// an identifier is.
pub fn short(id: impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

/// How long ago.
pub fn ago(now: Moment, then: Option<Moment>) -> String {
    then.map_or_else(|| "never".to_owned(), |then| format!("{} ago", now.since(then)))
}

/// A value in kebab-case, as its JSON has it.
pub fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// A value or a dash.
pub fn dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_rows_is_a_sentence() {
        assert_eq!(of(&["name"], vec![], "no tokens"), "no tokens");
        let table = of(&["name", "role"], vec![vec!["eva".into(), "auditor".into()]], "");
        assert_eq!(table.lines().count(), 2);
        assert!(table.starts_with("NAME"), "{table:?}");
    }
}
