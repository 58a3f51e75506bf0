//! Rule `topic-loop`: no pipeline reads again what it has written, be it by way of other pipelines of the run.
//!
//! Only what is certain: an output with a condition, or steps that may drop messages, can end the loop. An archive gets
//! every message.
use super::{File, Part};
use crate::{config::Role, diagnostic::Diagnostic, registry::Found};

/// One output whose messages an input reads.
struct Edge<'a> {
    from: usize,
    to: usize,
    output: &'a Part,
    field: &'a str,
    input: &'a Part,
}

/// Diagnostics with the index of their file.
pub(super) fn check(files: &[(usize, &File<'_>)]) -> Vec<(usize, Diagnostic)> {
    let mut edges: Vec<Edge<'_>> = Vec::new();
    for (from, (_, writer)) in files.iter().enumerate() {
        let may_drop = may_drop(writer);
        let gets_all = |part: &Part| part.role == Role::Archive || !may_drop && !part.has_condition;
        for (output, written) in writer.outputs().filter(|(output, _)| gets_all(output)) {
            for (to, (_, reader)) in files.iter().enumerate() {
                for (input, read) in reader.inputs().filter(|(_, read)| read.server == written.server) {
                    let fits = |(_, topic): &&(String, crate::client::Topic)| {
                        // Of what another pipeline received nothing is known.
                        let is_known = *topic != crate::client::Topic::Received || from == to;
                        is_known && read.topics.iter().any(|(_, read)| read.reads(topic))
                    };
                    let found = written.topics.iter().find(fits);
                    edges.extend(found.map(|(field, _)| Edge { from, to, output, field, input }));
                }
            }
        }
    }
    let mut found = Vec::new();
    for edge in &edges {
        let Some(way) = back(&edges, edge.to, edge.from) else { continue };
        let (index, file) = &files[edge.from];
        let (_, reader) = files[edge.to];
        let title = format!("{} feeds its own pipeline", edge.output.shown());
        let label = if edge.from == edge.to {
            format!("read again by input `{}`", edge.input.label)
        } else {
            format!("read by input `{}` at {}", edge.input.label, reader.locate(edge.input.span.start))
        };
        let names: Vec<&str> = std::iter::once(edge.from).chain(way).map(|at| files[at].1.document.name()).collect();
        let mut diagnostic = edge.output.warn("topic-loop", edge.field, title).with_label(label).with_help(format!(
            "each message goes round for ever ({}); write to a topic that is not read here",
            names.join(" → ")
        ));
        if edge.from == edge.to {
            diagnostic = diagnostic.with_other(edge.input.span.clone(), "this input");
        }
        debug_assert_eq!(file.document.file.path, diagnostic.file.path);
        found.push((*index, diagnostic));
    }
    found
}

/// The pipelines on the shortest way from one to another, both ends included.
fn back(edges: &[Edge<'_>], start: usize, goal: usize) -> Option<Vec<usize>> {
    let mut ways = vec![vec![start]];
    let mut seen = vec![start];
    while !ways.is_empty() {
        if let Some(way) = ways.iter().find(|way| way.last() == Some(&goal)) {
            return Some(way.clone());
        }
        let mut longer = Vec::new();
        for way in &ways {
            for edge in edges.iter().filter(|edge| way.last() == Some(&edge.from)) {
                if !seen.contains(&edge.to) {
                    seen.push(edge.to);
                    longer.push(way.iter().copied().chain([edge.to]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// True when some messages may not come out of the steps.
fn may_drop(file: &File<'_>) -> bool {
    let Some(steps) = file.root.entry("steps") else { return false };
    let text = &file.document.file.text[steps.value.span.clone()];
    let is_plugin =
        |part: &Part| matches!(file.registry.find(Role::Step.kind(), &part.component.name), Some(Found::Plugin(_)));
    // Also scripts in files of their own, which are not looked into.
    ["filter", "drop(", "throw", "file:"].iter().any(|word| text.contains(word)) || file.parts.iter().any(is_plugin)
}
