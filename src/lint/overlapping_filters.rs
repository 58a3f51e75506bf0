//! Rule `overlapping-filters`: no message comes through two topic filters of one pipeline.
use super::File;
use crate::{client::Topic, diagnostic::Diagnostic};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let inputs = file.inputs().filter(|(_, contact)| contact.group.is_none());
    let all: Vec<_> = inputs
        .flat_map(|(part, contact)| contact.topics.iter().map(move |(field, topic)| (part, contact, field, topic)))
        .collect();
    for (at, (part, contact, field, topic)) in all.iter().enumerate() {
        let is_same = |(_, other, _, earlier): &&(_, &crate::client::Contact, _, &Topic)| {
            other.server == contact.server && topic.overlaps(earlier)
        };
        let Some((other, _, _, earlier)) = all[..at].iter().find(is_same) else { continue };
        let title = format!("`{}` and `{}` overlap", earlier.text(), topic.text());
        let (label, help) = if std::ptr::eq(*other, *part) {
            ("a broker may send what fits both twice", "leave out the narrower one, or make them apart")
        } else {
            ("what fits both comes in twice", "read each topic with one input")
        };
        found.push(part.warn("overlapping-filters", field, title).with_label(label).with_help(help));
    }
}
