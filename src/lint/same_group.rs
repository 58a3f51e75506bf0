//! Rule `same-group`: two pipelines of one run that read a topic are in different consumer groups.
use super::{File, Part};
use crate::{client::Contact, diagnostic::Diagnostic};

/// Diagnostics with the index of their file.
pub(super) fn check(files: &[(usize, &File<'_>)]) -> Vec<(usize, Diagnostic)> {
    let mut seen: Vec<(&File<'_>, &Part, &Contact)> = Vec::new();
    let mut found = Vec::new();
    for (index, file) in files {
        for (part, contact) in file.inputs() {
            let Some(group) = &contact.group else { continue };
            let shares = |(_, _, other): &&(&File<'_>, &Part, &Contact)| {
                let mut pairs = contact.topics.iter().flat_map(|(_, a)| other.topics.iter().map(move |(_, b)| (a, b)));
                other.server == contact.server && other.group == contact.group && pairs.any(|(a, b)| a.overlaps(b))
            };
            if let Some((other, there, _)) = seen.iter().find(shares) {
                let title = format!("two inputs read the same topic in the group `{group}`");
                let diagnostic = part
                    .warn("same-group", "group", title)
                    .with_label(format!("also input `{}` at {}", there.label, other.locate(there.span.start)))
                    .with_help("each message comes to one of the two only; give each pipeline a group of its own");
                found.push((*index, diagnostic));
            }
            seen.push((file, part, contact));
        }
    }
    found
}
