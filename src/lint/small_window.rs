//! Rule `small-window`: an output does not wait for more messages than the input may have on their way.
use super::File;
use crate::diagnostic::Diagnostic;

/// Below this many messages a second the bound is worth a word.
const RATE_MIN: u128 = 1000;

pub(super) fn check(file: &File<'_>, found: &mut Vec<Diagnostic>) {
    let slowest = file.outputs().max_by_key(|(_, contact)| contact.linger);
    let Some((output, to)) = slowest.filter(|(_, to)| !to.linger.is_zero()) else { return };
    let linger_ms = to.linger.as_millis();
    for (input, from) in file.inputs() {
        let Some((window, setting)) = from.window else { continue };
        let rate = u128::from(window) * 1000 / linger_ms;
        if rate >= RATE_MIN {
            continue;
        }
        let title = format!("at most {rate} messages a second get through input `{}`", input.label);
        let label = format!("{window} may be on their way, and {} gathers for {linger_ms} ms", output.shown());
        found.push(
            input
                .warn("small-window", setting, title)
                .with_label(label)
                .with_other(output.span.clone(), "waits for more")
                .with_help(if setting == "protocol" {
                    "leave `protocol` out for MQTT 5, or set a smaller `linger_ms` for the output"
                } else {
                    "raise `receive_maximum`, or set a smaller `linger_ms` for the output"
                }),
        );
    }
}
