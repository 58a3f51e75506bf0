//! An explanation for people.
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{Column, Explanation, Filled, Flow, Part, Setting};
use crate::config::Origin;

/// Column that says where a value came from, unless the value is longer.
const SOURCE_COLUMN: usize = 44;
/// Longest value on one line, in characters.
const VALUE_MAX: usize = 60;

impl Explanation {
    /// All of it, in lines.
    pub fn text(&self) -> String {
        let mut out = format!("pipeline `{}`, {}\n", self.pipeline, self.file);
        list(&mut out, "delivery", std::iter::once(self.delivery.guarantee.to_owned()));
        list(&mut out, "", self.delivery.because.iter().map(|reason| format!("- {reason}")));
        list(&mut out, "reads", self.reads.iter().map(flow));
        list(&mut out, "writes", self.writes.iter().map(flow));
        list(&mut out, "columns", self.columns.iter().map(column));
        let scripts = self.scripts.iter().flat_map(|scripts| {
            let how = if scripts.compiled { "compiled" } else { "interpreted" };
            let first = format!("{}: {how}", scripts.part);
            let reasons = scripts.because.iter().map(|because| format!("- {}: {}", because.place, because.reason));
            std::iter::once(first).chain(reasons).collect::<Vec<_>>()
        });
        list(&mut out, "scripts", scripts);
        for part in &self.parts {
            out.push_str(&head(part));
            for setting in &part.settings {
                out.push_str(&line(setting));
            }
        }
        out
    }
}

fn list(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    for (at, line) in lines.enumerate() {
        let title = if at == 0 { title } else { "" };
        let _ = writeln!(out, "  {title:<9} {line}");
    }
}

fn flow(flow: &Flow) -> String {
    format!("{}: {} {} {}", flow.part, flow.component, flow.setting, value(&flow.value))
}

fn column(column: &Column) -> String {
    let Column { part, name, kind, .. } = column;
    let otherwise = match column.default_kind.as_str() {
        "MATERIALIZED" | "ALIAS" => return format!("{part}: {name} {kind}, worked out by the table"),
        "" if kind.starts_with("Nullable(") => "null".to_owned(),
        "" => "empty or 0".to_owned(),
        kind => format!("its {kind}"),
    };
    let filled = match column.filled {
        Filled::Always => "always given".to_owned(),
        Filled::Sometimes => format!("given sometimes, else {otherwise}"),
        Filled::Never => format!("never given: {otherwise}"),
        Filled::Unknown => "not known whether given".to_owned(),
    };
    format!("{part}: {name} {kind}, {filled}")
}

fn head(part: &Part) -> String {
    let line = part.line.map_or(String::new(), |line| format!("line {line}"));
    let name = match part.role {
        "limits" => "limits".to_owned(),
        "input" | "output" => format!("{} `{}`: {}", part.role, part.label, part.component),
        _ => format!("{}: {}", part.label, part.component),
    };
    format!("\n{}\n", aligned(&name, &line))
}

fn line(setting: &Setting) -> String {
    let name = if setting.name.is_empty() { String::new() } else { format!("{}: ", setting.name) };
    let mut source = setting.line.map_or("default".to_owned(), |line| format!("line {line}"));
    for from in &setting.from {
        match from {
            Origin::Variable(name) => source += &format!(", from {name}"),
            Origin::Unset(name) => source += &format!(", {name} is not set"),
            Origin::File(path) => source += &format!(", from the file {path}"),
        }
    }
    aligned(&format!("  {name}{}", value(&setting.value)), &source) + "\n"
}

fn aligned(left: &str, right: &str) -> String {
    let width = SOURCE_COLUMN.saturating_sub(left.chars().count());
    format!("{left}{}  {right}", " ".repeat(width)).trim_end().to_owned()
}

/// A value on one line; of a long text its start.
fn value(value: &Json) -> String {
    let Some(text) = value.as_str() else { return value.to_string() };
    let text = text.trim_end();
    let mut lines = text.lines();
    let first: String = lines.next().unwrap_or_default().chars().take(VALUE_MAX).collect();
    match (lines.count(), first.len() < text.len()) {
        (0, false) if text.is_empty() => "\"\"".to_owned(),
        (0, false) => first,
        (0, true) => format!("{first} …"),
        (more, _) => format!("{first} … ({} lines)", more + 1),
    }
}
