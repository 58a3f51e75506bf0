//! Rule `dead-letter-loop`: no input reads the topic that dead letters go to.
use super::File;
use crate::{config::Role, diagnostic::Diagnostic};

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    for (letters, to) in file.contacts(|role| role == Role::DeadLetter) {
        for (input, from) in file.inputs().filter(|(_, from)| from.server == to.server) {
            let pairs = to.topics.iter().flat_map(|to| from.topics.iter().map(move |from| (to, from)));
            for ((field, _), _) in pairs.filter(|((_, written), (_, read))| read.reads(written)) {
                let title = format!("input `{}` reads the dead letters of its own pipeline", input.label);
                found.push(
                    letters
                        .warn("dead-letter-loop", field, title)
                        .with_label("read again, and failing again, for ever")
                        .with_other(input.span.clone(), "read by this input")
                        .with_help("give dead letters a topic that no input of this pipeline reads"),
                );
            }
        }
    }
}
