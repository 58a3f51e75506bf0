//! Rule `same-client-id`: no two components of one run go to the same server with the same client id (MQTT 5, 3.1.4-3).
use std::collections::HashMap;

use super::File;
use crate::diagnostic::{Diagnostic, Fault};

/// Diagnostics with the index of their file.
pub(super) fn check(files: &[(usize, &File<'_>)]) -> Vec<(usize, Diagnostic)> {
    let mut first: HashMap<(&str, &str), String> = HashMap::new();
    let mut found = Vec::new();
    for (index, file) in files {
        for (part, contact) in file.contacts(|_| true) {
            let Some(id) = &contact.client_id else { continue };
            let title = format!("client id `{id}` is used twice on one server");
            let place = part.component.diagnose(&Fault::new("same-client-id", "client_id", title));
            match first.get(&(contact.server.as_str(), id.as_str())) {
                Some(other) => {
                    let help = "the server would cut one connection for the other; give each an id of its own";
                    found.push((*index, place.with_label(format!("also at {other}")).with_help(help)));
                }
                None => {
                    first.insert((&contact.server, id), file.locate(place.span.start));
                }
            }
        }
    }
    found
}
