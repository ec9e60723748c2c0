//! Answers as people read them.

use serde_json::Value;

/// A table with a line for each row. A column that no row has is left out.
pub(super) fn table(rows: &[Value], columns: &[(&str, &str)]) -> String {
    let there = columns.iter().filter(|(_, at)| rows.iter().any(|row| row.pointer(at).is_some()));
    let columns: Vec<Vec<String>> = there
        .map(|(heading, at)| {
            let cells = rows.iter().map(|row| row.pointer(at).map_or_else(String::new, cell));
            std::iter::once((*heading).to_owned()).chain(cells).collect()
        })
        .collect();
    if columns.is_empty() {
        return "none\n".to_owned();
    }
    let widths: Vec<usize> =
        columns.iter().map(|c| c.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in 0..=rows.len() {
        let cells = columns.iter().zip(&widths).map(|(column, width)| format!("{:<width$}", column[line]));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A line `name : value` for each field.
pub(super) fn lines(fields: &Value) -> String {
    let fields: Vec<_> = fields.as_object().into_iter().flatten().collect();
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:<width$} : {}\n", cell(value))).collect()
}

/// A value without quotes; what would move a terminal's cursor is shown as an escape.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let rows = [json!({"a": "long one", "b": {"c": 7}}), json!({"a": "x\u{1b}[2J"})];
        let text = table(&rows, &[("NAME", "/a"), ("COUNT", "/b/c"), ("NOTHING", "/z")]);
        assert_eq!(text, "NAME        COUNT\nlong one    7\nx\\u{1b}[2J\n");
        assert_eq!(table(&[], &[("NAME", "/a")]), "none\n");
    }

    #[test]
    fn fields_stand_below_each_other() {
        assert_eq!(lines(&json!({"bb": 1, "a": null})), "a  : \nbb : 1\n");
    }
}
