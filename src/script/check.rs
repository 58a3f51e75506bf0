//! Faults of a script that can be told without running it.
//!
//! Rhai itself finds syntax errors and unknown variables. Unknown functions and wrong numbers of arguments it finds only
//! when a message comes along, so the syntax tree is searched for them here.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use rhai::{AST, ParseError, ParseErrorType, Position};

use super::{
    engine::{self, LoadedModule},
    foreign, functions, review,
    syntax::{Tree, Untangled, each_call, other_than_definitions},
};
use crate::{
    diagnostic::Fault,
    spec::{Module, Modules},
};

/// Functions that are part of the language and appear in no list.
const BUILT_IN: [(&str, &[usize]); 9] = [
    ("type_of", &[1]),
    ("is_def_var", &[1]),
    ("is_def_fn", &[2]),
    ("is_shared", &[1]),
    ("print", &[1]),
    ("debug", &[1, 2]),
    ("curry", &[]),
    ("call", &[]),
    ("Fn", &[1]),
];

/// Variables a script finds.
const VARIABLES: [&str; 4] = ["is_json", "meta", "payload", "text"];

static KNOWN: LazyLock<BTreeMap<String, BTreeSet<usize>>> = LazyLock::new(|| engine::arities(&engine::new()));

/// Turns what Rhai's parser says into a fault of the script.
pub(super) fn syntax(source: &str, error: &ParseError, has_params: bool) -> Fault {
    let place = place(error.position(), source);
    let fault = match error.err_type() {
        ParseErrorType::VariableUndefined(name) => {
            let known = VARIABLES.into_iter().chain(has_params.then_some("params"));
            let close = closest(name, known);
            let fault = Fault::new("unknown-variable", "", format!("the script knows no variable `{name}`"));
            match foreign::variable(name, rest_of(source, place)) {
                Some((label, help)) if close.is_none() => fault.label(label).help(help),
                _ => {
                    let label = close.map_or("not defined here".to_owned(), |v| format!("did you mean `{v}`?"));
                    let fault =
                        close.into_iter().fold(fault.label(label), |fault, close| fault.replace(name.as_str(), close));
                    fault
                        .help("messages are `payload`, `is_json`, `text` and `meta`; anything else needs a `let` first")
                }
            }
        }
        kind => {
            let text = kind.to_string();
            let fault = Fault::new("script-syntax", "", format!("the script cannot be read: {}", lower_first(&text)));
            let (word, is_member) = (reserved_word(&text), source_after_dot(source, place));
            let advice = foreign::syntax(word, rest_of(source, place)).filter(|_| !is_member);
            if let Some((label, help)) = advice {
                return fault.label(label).help(help).at(place.0, place.1);
            }
            match (word, is_member) {
                (Some(word), true) => fault
                    .label(format!("`{word}` is a word of the language"))
                    .help(format!("write `[\"{word}\"]` instead of `.{word}`")),
                (Some(word), false) if ["eval", "import", "export"].contains(&word) => fault
                    .label(format!("scripts cannot `{word}`"))
                    .help("write it as a function of the script: `fn name(x) { … }`"),
                (Some(word), false) => fault
                    .label(format!("`{word}` is a word of the language"))
                    .help(format!("in a map write it in quotes: `\"{word}\": …`; a variable needs another name")),
                _ => fault.label("here"),
            }
        }
    };
    fault.at(place.0, place.1)
}

/// Functions that do not exist, and calls with a number of arguments that no function of that name takes.
pub(super) fn calls(source: &str, ast: &AST, modules: &[LoadedModule]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let own: Vec<(String, usize)> = ast.iter_functions().map(|f| (f.name.to_owned(), f.params.len())).collect();
    each_call(ast, &mut |call| {
        let fault = match call.modules.as_slice() {
            [] => check_call(call.name, call.arguments, usize::from(call.is_method), &own),
            [module] => check_module(module, call.name, call.arguments, modules),
            _ => Some(Fault::new("unknown-module", "", "modules stand in no modules").label("one `::` only")),
        };
        // A module that is not there is named at its own place, anything else at the function's.
        let at = match call.modules.as_slice() {
            [_] if fault.as_ref().is_some_and(|fault| fault.code == "unknown-module") => call.module_at,
            _ => call.at,
        };
        let (line, column) = place(at, source);
        faults.extend(fault.map(|f| f.at(line, column)).filter(|f| !faults.iter().any(|o: &Fault| o.at == f.at)));
    });
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// `object` is 1 for a method call, whose object is the function's first argument.
fn check_call(name: &str, arguments: usize, object: usize, own: &[(String, usize)]) -> Option<Fault> {
    // A closure is called by a name of the engine's.
    if name.starts_with("anon$") {
        return None;
    }
    let mut takes: BTreeSet<usize> = KNOWN.get(name).cloned().unwrap_or_default();
    if let Some((_, counts)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
        if counts.is_empty() {
            return None;
        }
        takes.extend(*counts);
    }
    let mut takes: BTreeSet<usize> = takes.iter().filter_map(|n| n.checked_sub(object)).collect();
    // The object of a method call of a script's own function is `this`, not an argument.
    takes.extend(own.iter().filter(|(n, _)| n == name).map(|(_, n)| *n));
    let what = if object == 1 { "method" } else { "function" };
    if takes.is_empty() {
        let names = KNOWN.keys().map(String::as_str).chain(own.iter().map(|(n, _)| n.as_str()));
        let near = closest(name, names);
        let label = match functions::known_elsewhere(name).or(near) {
            None => format!("no such {what}"),
            Some(other) => format!("did you mean `{other}`?"),
        };
        let fault = Fault::new("unknown-function", "", format!("the script knows no {what} `{name}`")).label(label);
        // What other languages call it may take other arguments.
        let near = near.filter(|_| functions::known_elsewhere(name).is_none());
        return Some(near.into_iter().fold(fault, |fault, near| fault.replace(name, near)));
    }
    if takes.contains(&arguments) {
        return None;
    }
    let counts: Vec<_> = takes.iter().map(ToString::to_string).collect();
    Some(
        Fault::new("wrong-arguments", "", format!("{what} `{name}` does not take {}", plural(arguments)))
            .label(format!("takes {}", counts.join(" or "))),
    )
}

/// A call `module::name(…)`.
fn check_module(module: &str, name: &str, arguments: usize, modules: &[LoadedModule]) -> Option<Fault> {
    let Some(found) = modules.iter().find(|known| known.name == module) else {
        return Some(
            Fault::new("unknown-module", "", format!("there is no module `{module}`"))
                .label("not found in the folder `plugins`, or it has faults")
                .help(format!(
                    "put its functions into `plugins/{module}.rhai`; `streamer list` shows the modules there are"
                )),
        );
    };
    let open = || found.ast.iter_functions().filter(|f| f.access.is_public() && !f.name.starts_with("anon$"));
    let counts: BTreeSet<usize> = open().filter(|f| f.name == name).map(|f| f.params.len()).collect();
    if counts.is_empty() {
        let label = match closest(name, open().map(|f| f.name)) {
            Some(close) => format!("did you mean `{close}`?"),
            None => {
                let names: BTreeSet<_> = open().map(|f| format!("`{}`", f.name)).collect();
                format!("it has {}", names.into_iter().collect::<Vec<_>>().join(", "))
            }
        };
        return Some(
            Fault::new("unknown-function", "", format!("module `{module}` has no function `{name}`")).label(label),
        );
    }
    if counts.contains(&arguments) {
        return None;
    }
    let takes: Vec<_> = counts.iter().map(ToString::to_string).collect();
    Some(
        Fault::new("wrong-arguments", "", format!("function `{module}::{name}` does not take {}", plural(arguments)))
            .label(format!("takes {}", takes.join(" or "))),
    )
}

/// A function that a module offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFunction {
    /// As it is called: `geo::in_circle(lat, lon, zone)`.
    pub signature: String,
    /// Its `///` comment.
    pub summary: String,
}

/// Checks a module by itself. Answers what it offers, nothing when it cannot be used, and its faults with line and column.
pub fn check_module_file(module: &Module, all: &Modules) -> (Vec<ModuleFunction>, Vec<Fault>) {
    let ast = match engine::compile_module(module) {
        Ok(ast) => ast,
        Err(error) => return (Vec::new(), vec![syntax(&module.text, &error, false)]),
    };
    let (engine, others) = engine::with_modules(&module.text, all);
    let mut faults = calls(&module.text, &ast, &others);
    faults.extend(Untangled::of(&module.text, &ast).err().into_iter().flatten());
    for position in other_than_definitions(&ast) {
        let (line, column) = place(position, &module.text);
        faults.push(
            Fault::new("not-a-definition", "", "a module holds functions and constants only")
                .label("neither `fn` nor `const`")
                .help("put it into a function: `fn name(x) { … }`")
                .at(line, column),
        );
    }
    if !faults.is_empty() {
        faults.sort_by_key(|fault| fault.at);
        return (Vec::new(), faults);
    }
    let warnings = review::functions(&module.text, &Tree::of(&engine, "", &ast, []));
    let mut functions: Vec<ModuleFunction> = ast
        .iter_functions()
        .filter(|f| f.access.is_public() && !f.name.starts_with("anon$"))
        .map(|f| ModuleFunction {
            signature: format!("{}::{}({})", module.name, f.name, f.params.join(", ")),
            summary: f
                .comments
                .iter()
                .flat_map(|comment| comment.lines())
                .map(|line| line.trim_start_matches('/').trim())
                .collect::<Vec<_>>()
                .join(" "),
        })
        .collect();
    functions.sort_by(|a, b| a.signature.cmp(&b.signature));
    (functions, warnings)
}

fn plural(arguments: usize) -> String {
    match arguments {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        n => format!("{n} arguments"),
    }
}

/// Line and column from 1; Rhai answers none for the end of the script.
fn place(position: Position, source: &str) -> (usize, usize) {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => (line, column),
        (Some(line), None) => (line, 1),
        _ => crate::diagnostic::line_column(source, source.trim_end().len()),
    }
}

/// True when a dot stands before the word at `place`.
fn source_after_dot(source: &str, (line, column): (usize, usize)) -> bool {
    let before: String = source.lines().nth(line - 1).unwrap_or("").chars().take(column - 1).collect();
    before.trim_end().ends_with('.')
}

/// What stands at a place, to the end of its line.
fn rest_of(source: &str, (line, column): (usize, usize)) -> &str {
    let line = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    line.char_indices().nth(column.saturating_sub(1)).map_or("", |(at, _)| &line[at..])
}

/// The word in Rhai's texts about reserved words.
fn reserved_word(text: &str) -> Option<&str> {
    if !text.contains("reserved") && !text.contains("keyword") && !text.contains("disabled") {
        return None;
    }
    text.split(['\'', '`']).nth(1)
}

fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |n: &str| n.chars().all(|c| c.is_alphanumeric() || c == '_');
    known
        .into_iter()
        .filter(|n| plain(n))
        .map(|n| (strsim::damerau_levenshtein(name, n), n))
        .filter(|(distance, _)| *distance <= name.len() / 3)
        .min()
        .map(|(_, n)| n)
}

pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        // Not a name in capitals.
        Some(first) if !chars.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
