//! *What it checks*: no two components of one run go to the same server (`url`) with the same `client_id`. Code
//! `same-client-id`.
//! *Why it matters*: an MQTT broker allows one connection for each client id and cuts the older one (MQTT 5, 3.1.4-3),
//! so the two would throw each other out for ever.
//! *Example*: two files with `client_id: streamer`. *Write instead*: `client_id: streamer-a` and `streamer-b`.
use std::collections::HashMap;

use crate::{
    config::Document,
    diagnostic::{Diagnostic, Fault},
    registry::Registry,
};

/// Diagnostics with the index of their file.
pub(super) fn check(documents: &[Document], registry: &Registry) -> Vec<(usize, Diagnostic)> {
    let mut first: HashMap<(String, String), String> = HashMap::new();
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate().filter(|(_, document)| !document.is_example) {
        for slot in document.slots() {
            let Some(component) = document.component(&slot, registry) else { continue };
            let text = |field: &str| component.section.value.get(field)?.as_str().map(str::to_owned);
            let (Some(url), Some(client_id)) = (text("url"), text("client_id")) else { continue };
            let fault = Fault::new(
                "same-client-id",
                "client_id",
                format!("client id `{client_id}` is used twice on one server"),
            );
            let place = component.diagnose(&fault);
            match first.get(&(url.clone(), client_id.clone())) {
                Some(other) => {
                    let diagnostic = place.with_label(format!("also at {other}"));
                    found.push((
                        index,
                        diagnostic
                            .with_help("the server would cut one connection for the other; give each an id of its own"),
                    ));
                }
                None => {
                    let (line, column) = place.line_column();
                    first.insert((url, client_id), format!("{}:{line}:{column}", document.file.path));
                }
            }
        }
    }
    found
}
