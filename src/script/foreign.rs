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
    match word {
        Some("null" | "nil" | "undefined" | "None") => return advice("not a value here", "nothing is written `()`"),
        Some("var") => return advice("not a word of this language", "a variable begins with `let`"),
        Some("function" | "def") => return advice("not a word of this language", "a function begins with `fn`"),
        _ => {}
    }
    if starts("and") || starts("or") {
        return advice("not an operator here", "write `&&` for and, `||` for or");
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
