//! Rule `shared-subscription`: `$share` is used knowing what it costs.
use super::File;
use crate::{client::Topic, diagnostic::Diagnostic};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    for (part, contact) in file.inputs() {
        for (field, topic) in &contact.topics {
            if matches!(topic, Topic::Filter(filter) if filter.is_shared()) {
                let title = format!("`{}` is a shared subscription", topic.text());
                found.push(
                    part.warn("shared-subscription", field, title)
                        .with_label("order is lost, and with Mosquitto messages for members that are away")
                        .with_help("give each instance topics of its own, such as `site-1/#` and `site-2/#`"),
                );
            }
        }
    }
}
