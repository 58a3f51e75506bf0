//! *What it checks*: the pipeline says where messages go that cannot be worked with. Code `missing-dead-letter`, a
//! warning.
//! *Why it matters*: without it the first such message stops the pipeline, since nothing is thrown away silently.
//! *Example*: no `dead_letter:`. *Write instead*: `dead_letter: { kafka: { … } }`, or a `file`.
use super::File;
use crate::diagnostic::Diagnostic;

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let given = file.root.entry("dead_letter").is_some_and(|entry| !entry.value.is_null());
    if let (false, Some(outputs)) = (given, file.root.entry("outputs")) {
        let title = format!("pipeline `{}` has no `dead_letter`", file.document.name());
        found.push(
            Diagnostic::error("missing-dead-letter", &file.document.file, outputs.key_span.clone(), title)
                .with_label("a message that cannot be delivered here stops the pipeline")
                .with_help("add `dead_letter:` with the output that such messages go to")
                .into_warning(),
        );
    }
}
