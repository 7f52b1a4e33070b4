//! Writing YAML: the keys as nested lines, with or without the comments of `configs/defaults.yaml`.

use crate::{Value, blocks::DEFAULTS};
use indexmap::IndexMap;

/// Widest line, with its comment, before the comment moves to a line of its own.
const WIDTH: usize = 100;
/// Column in which comments begin.
const COLUMN: usize = 32;

/// The comment of every key and section of `configs/defaults.yaml`, by dotted name.
pub(crate) fn comments() -> IndexMap<String, String> {
    let mut path: Vec<&str> = vec![];
    let mut comments = IndexMap::new();
    for line in DEFAULTS.lines() {
        let Some((name, rest)) = line.trim_start().split_once(':') else { continue };
        if name.starts_with('#') {
            continue;
        }
        path.truncate((line.len() - line.trim_start().len()) / 2);
        path.push(name);
        if let Some((_, comment)) = rest.split_once(" # ") {
            comments.insert(path.join("."), comment.to_string());
        }
    }
    comments
}

/// The flat keys as nested YAML, one key a line, with a comment beside or above each that has one.
pub(crate) fn render(flat: &IndexMap<String, Value>, comments: &IndexMap<String, String>) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = vec![];
    for (key, value) in flat {
        let mut parts: Vec<&str> = key.split('.').collect();
        let name = parts.pop().unwrap_or(key);
        let shared = open.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        for depth in shared..parts.len() {
            if depth == 0 && !comments.is_empty() {
                out.push('\n');
            }
            let line = format!("{}{}:", "  ".repeat(depth), name_of(parts[depth]));
            push(&mut out, &line, comments.get(&parts[..=depth].join(".")));
        }
        let line = format!("{}{}: {}", "  ".repeat(parts.len()), name_of(name), value.to_yaml());
        push(&mut out, &line, comments.get(key));
        open = parts;
    }
    out
}

/// A part of a key, in quotes where a reader would take it for something else, as `0` among the user's own.
fn name_of(part: &str) -> String {
    Value::Str(part.into()).to_yaml()
}

/// Appends a line, its comment beside it where that fits.
fn push(out: &mut String, line: &str, comment: Option<&String>) {
    let Some(comment) = comment else {
        out.push_str(&format!("{line}\n"));
        return;
    };
    let column = COLUMN.max(line.chars().count() + 2);
    if column + 2 + comment.chars().count() <= WIDTH {
        out.push_str(&format!("{line:column$}# {comment}\n"));
    } else {
        let indent = line.len() - line.trim_start().len();
        out.push_str(&format!("{:indent$}# {comment}\n{line}\n", ""));
    }
}
