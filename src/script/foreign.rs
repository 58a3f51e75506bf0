//! Words and signs of other languages, and what to write here instead.

/// A label, and help.
type Advice = (String, String);

fn advice(label: &str, help: impl Into<String>) -> Option<Advice> {
    Some((label.to_owned(), help.into()))
}

/// For what the reader of scripts stops at; `word` when it is a reserved one.
pub(super) fn syntax(word: Option<&str>, rest: &str) -> Option<Advice> {
    let starts = |word: &str| {
        rest.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let is_key = word.and_then(|word| rest.strip_prefix(word)).is_some_and(|rest| rest.trim_start().starts_with(':'));
    match word {
        // The name of a member, which only needs quotes.
        _ if is_key => return None,
        Some("null" | "nil" | "undefined" | "None") => return advice("not a value here", "nothing is written `()`"),
        Some("var") => return advice("not a word of this language", "a variable begins with `let`"),
        Some("function" | "def") => return advice("not a word of this language", "a function begins with `fn`"),
        _ => {}
    }
    if starts("and") || starts("or") {
        return advice("not an operator here", "write `&&` for and, `||` for or");
    }
    if rest.starts_with(['“', '”', '„', '‘', '’', '«']) {
        return advice("not a quote here", "a text stands between straight quotes: `\"…\"`");
    }
    match rest.as_bytes() {
        [b'=', b'=', b'=', ..] => advice("not an operator here", "write `==`"),
        [b'!', b'=', b'=', ..] => advice("not an operator here", "write `!=`"),
        [b'=', b'>', ..] => advice("not an operator here", "a closure is written `|x| x * 2`"),
        [b'?', b' ', ..] => advice("not an operator here", "write `if condition { a } else { b }`"),
        [b'\'', ..] => advice("not a text here", "a text stands between double quotes: `\"…\"`"),
        _ => None,
    }
}

/// For a variable that a script does not know. `rest` begins with it.
pub(super) fn variable(name: &str, rest: &str) -> Option<Advice> {
    let behind = rest.strip_prefix(name).unwrap_or_default().trim_start();
    if behind.starts_with("=>") {
        return advice("not defined here", format!("a closure is written `|{name}| …`"));
    }
    if behind.starts_with('=') && !behind.starts_with("==") {
        return advice("not defined here", format!("a new variable begins with `let`: `let {name} = …`"));
    }
    match name {
        "not" => advice("not an operator here", "write `!` for not: `!payload.a`"),
        "None" | "nil" | "undefined" | "NULL" => advice("not a value here", "nothing is written `()`"),
        "True" | "TRUE" => advice("not a value here", "write `true`"),
        "False" | "FALSE" => advice("not a value here", "write `false`"),
        "Math" => advice("not known here", "functions stand alone: `round(x)`, `abs(x)`; `streamer list` shows all"),
        "JSON" | "json" => advice(
            "not known here",
            "a payload that is JSON is `payload` already, and what a script gives becomes JSON",
        ),
        "topic" | "key" | "headers" | "qos" | "retain" | "partition" | "offset" | "levels" | "received_at" => {
            advice(&format!("did you mean `meta.{name}`?"), "what a message brings besides its payload is in `meta`")
        }
        "timestamp" => {
            advice("did you mean `meta.timestamp_ms`?", "what a message brings besides its payload is in `meta`")
        }
        "msg" | "message" | "event" | "record" | "root" | "value" | "data" | "doc" => {
            advice("did you mean `payload`?", "the message is `payload`, with `meta` for its topic, key and headers")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::script::Mapping;

    #[test]
    fn what_other_languages_write_is_told_what_to_write_here() {
        let place = || crate::diagnostic::ScriptPlace { file: "x".into(), line: 1, column: 1, exact: true };
        for (script, help) in [
            ("payload.a === 1", "write `==`"),
            ("payload.a !== 1", "write `!=`"),
            ("payload.a && true and false", "write `&&` for and, `||` for or"),
            ("payload.a ? 1 : 2", "write `if condition { a } else { b }`"),
            ("payload.a == 'car'", "a text stands between double quotes: `\"…\"`"),
            ("payload.a == “car”", "a text stands between straight quotes: `\"…\"`"),
            ("null", "nothing is written `()`"),
            ("var x = 1; x", "a variable begins with `let`"),
            ("let x = None; x", "nothing is written `()`"),
            ("total = 5; total", "a new variable begins with `let`: `let total = …`"),
            ("payload.l.map(x => x)", "a closure is written `|x| …`"),
            ("#{ null: 1 }", "in a map write it in quotes: `\"null\": …`; a variable needs another name"),
            ("total == 5", "messages are `payload`, `is_json`, `text` and `meta`; anything else needs a `let` first"),
        ] {
            let faults = Mapping::compile(script, place()).err().unwrap_or_else(|| panic!("accepted: {script}"));
            assert_eq!(faults[0].help.as_deref(), Some(help), "{script}: {}", faults[0].title);
        }
    }
}
