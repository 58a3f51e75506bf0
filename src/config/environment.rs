//! Variables in values: `${VAR}`, `${VAR:-default}`, `${file:/run/secrets/x}`; `$${` is `${` itself.
//!
//! *What it checks* that every variable without a default is set, every file can be read and every bracket is closed.
//! *Why it matters*: an empty broker address fails far from its cause. *Example*: `url: ${MQTT_URL}` while `MQTT_URL` is
//! not set is `unset-variable`. *Write instead* `${MQTT_URL:-mqtt://localhost}`, or set it.
use std::{collections::HashMap, io::Read as _, path::Path};

/// Largest file that `${file:…}` reads.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest default inside a default.
const NESTING_MAX: usize = 8;

/// The variables of a process, or those of a test.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

impl Environment {
    /// The variables of this process. Those that are not UTF-8 count as not set.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: variables.collect() }
    }

    /// These variables only.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// Puts the variables into `text`. Paths of `${file:…}` start in `folder`.
    pub(super) fn expand(&self, text: &str, folder: &Path) -> Expansion {
        let mut expansion = Expansion::default();
        expansion.text = self.expand_into(text, folder, 0, &mut expansion);
        expansion
    }

    fn expand_into(&self, text: &str, folder: &Path, nesting: usize, found: &mut Expansion) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut brackets = 0;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                found.changed = true;
            } else {
                out.push_str(&rest[..at]);
                let inner = &rest[at + 2..];
                let Some(length) = closing(inner) else {
                    found.fault(
                        brackets,
                        &rest[at..],
                        "bad-variable",
                        "`${` without its `}`",
                        "never closed",
                        ESCAPE_HELP,
                    );
                    return out;
                };
                let faults = found.faults.len();
                out.push_str(&self.value(&inner[..length], folder, nesting, found));
                for fault in &mut found.faults[faults..] {
                    (fault.nth, fault.source) = (brackets, rest[at..at + length + 3].to_owned());
                }
                found.changed = true;
                brackets += inner[..length].matches("${").count() + 1;
                rest = &inner[length + 1..];
                continue;
            }
            brackets += 1;
            rest = &rest[at + 2..];
        }
        out.push_str(rest);
        out
    }

    /// The value of what stands between the brackets.
    fn value(&self, inner: &str, folder: &Path, nesting: usize, found: &mut Expansion) -> String {
        if let Some(path) = inner.strip_prefix("file:") {
            return match read(&folder.join(path)) {
                Ok(value) => {
                    found.secrets.push(value.clone());
                    found.origins.push(Origin::File(path.to_owned()));
                    value
                }
                Err(reason) => {
                    let title = format!("cannot read `{path}`: {reason}");
                    found.fault(
                        0,
                        "",
                        "unreadable-file",
                        &title,
                        "its content belongs here",
                        "the file must be there, from the folder of the pipeline file on, and readable by this user",
                    );
                    String::new()
                }
            };
        }
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            let (title, label, help) = match name.split_once([':', '-']) {
                _ if name.is_empty() => ("`${}` names no variable".to_owned(), "no name", ESCAPE_HELP.to_owned()),
                Some((start, rest)) if start.chars().all(|c| letter(c) || c.is_ascii_digit()) => (
                    format!("`{name}` is not a name of a variable"),
                    "a default stands behind `:-`",
                    format!("write `${{{start}:-{}}}`", rest.trim_start_matches(['-', '='])),
                ),
                _ if name.starts_with("meta.") || name.starts_with("payload") => (
                    format!("`{name}` is not a name of a variable"),
                    "a value of the message has no `$`",
                    format!("write `{{{name}}}` where the field takes values of the message"),
                ),
                _ => {
                    let title = format!("`{name}` is not a name of a variable");
                    (title, "letters, digits and `_` only", ESCAPE_HELP.to_owned())
                }
            };
            found.fault(0, "", "bad-variable", &title, label, &help);
            return String::new();
        }
        match (self.variables.get(name), default) {
            // As in a shell, `:-` also replaces an empty value.
            (Some(value), default) if default.is_none() || !value.is_empty() => {
                if is_secret(name) && !value.is_empty() {
                    found.secrets.push(value.clone());
                }
                found.origins.push(Origin::Variable(name.to_owned()));
                value.clone()
            }
            (_, Some(default)) if nesting < NESTING_MAX => {
                found.origins.push(Origin::Unset(name.to_owned()));
                self.expand_into(default, folder, nesting + 1, found)
            }
            (_, Some(default)) => default.to_owned(),
            (_, None) => {
                let title = format!("`{name}` is not set");
                let help = format!("set it, or give it a default: `${{{name}:-default}}`");
                found.fault(0, "", "unset-variable", &title, "not set, and no default here", &help);
                String::new()
            }
        }
    }
}

const ESCAPE_HELP: &str =
    "variables are `${NAME}`, `${NAME:-default}` and `${file:/path}`; `${` itself is written `$${`";

/// Where a part of a value came from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A variable that is set.
    Variable(String),
    /// One that is not, so that its default counts.
    Unset(String),
    /// A file.
    File(String),
}

/// What became of a text.
#[derive(Default)]
pub(super) struct Expansion {
    pub text: String,
    /// True when anything was put in or unescaped.
    pub changed: bool,
    /// Values that must not be shown.
    pub secrets: Vec<String>,
    pub faults: Vec<VariableFault>,
    pub origins: Vec<Origin>,
}

impl Expansion {
    fn fault(&mut self, nth: usize, source: &str, code: &'static str, title: &str, label: &str, help: &str) {
        let (title, label, help) = (title.to_owned(), label.to_owned(), help.to_owned());
        self.faults.push(VariableFault { nth, source: source.to_owned(), code, title, label, help });
    }
}

/// One variable that cannot be put in.
pub(super) struct VariableFault {
    /// Which `${` of the text it is, from 0.
    pub nth: usize,
    /// `${…}` as it was written.
    pub source: String,
    pub code: &'static str,
    pub title: String,
    pub label: String,
    pub help: String,
}

/// Values of variables with such names are never shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "KEY", "CREDENTIAL"].iter().any(|word| name.contains(word))
}

/// Where the `}` of a `${` stands, defaults with variables of their own included.
fn closing(inner: &str) -> Option<usize> {
    let mut open = 0;
    let mut previous = ' ';
    for (at, c) in inner.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    let content = text.strip_suffix('\n').unwrap_or(&text);
    Ok(content.strip_suffix('\r').unwrap_or(content).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Expansion {
        let environment = Environment::of([("HOST", "h"), ("EMPTY", ""), ("DB_PASSWORD", "hunter2"), ("PORT", "1883")]);
        environment.expand(text, Path::new("."))
    }

    fn check(text: &str, expected: &str) {
        let found = expand(text);
        assert_eq!(found.text, expected, "{text}");
        assert!(found.faults.is_empty(), "{text}");
    }

    #[test]
    fn variables_are_put_in_as_a_shell_does() {
        check("mqtt://${HOST}:${PORT}", "mqtt://h:1883");
        check("${EMPTY}", "");
        check("${EMPTY:-x}", "x");
        check("${NO:-}", "");
        check("${NO:-a:-b}", "a:-b");
        check("${NO:-${HOST}/${NO:-y}}", "h/y");
        check("°${HOST}°", "°h°");
        check("$${HOST} costs $5 and {meta.key}", "${HOST} costs $5 and {meta.key}");
    }

    #[test]
    fn every_fault_is_found_and_counted() {
        let faults = |text: &str| -> Vec<String> {
            let faults = expand(text).faults;
            faults.into_iter().map(|f| format!("{} {} {}: {}", f.nth, f.source, f.code, f.title)).collect()
        };
        assert_eq!(
            faults("$${x} ${A} ${HOST} ${B}"),
            ["1 ${A} unset-variable: `A` is not set", "3 ${B} unset-variable: `B` is not set"]
        );
        assert_eq!(faults("${NO:-${A}}"), ["0 ${NO:-${A}} unset-variable: `A` is not set"]);
        assert_eq!(faults("${HOST"), ["0 ${HOST bad-variable: `${` without its `}`"]);
        assert_eq!(faults("${}"), ["0 ${} bad-variable: `${}` names no variable"]);
        assert_eq!(faults("${a-b}"), ["0 ${a-b} bad-variable: `a-b` is not a name of a variable"]);
        assert!(faults("${file:/no/such}")[0].contains("unreadable-file: cannot read `/no/such`: "));
    }

    #[test]
    fn secrets_are_known_by_name_and_by_file() {
        assert_eq!(expand("u:${DB_PASSWORD}@${HOST}").secrets, ["hunter2"]);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pw"), "s3cret\n").unwrap();
        let found = Environment::default().expand("${file:pw}", folder.path());
        assert_eq!((found.text.as_str(), found.secrets.as_slice()), ("s3cret", &["s3cret".to_owned()][..]));
    }
}
