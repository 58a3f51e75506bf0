//! What a pipeline file amounts to: every setting with its value and where that came from, the guarantee and what limits
//! it, what is read and written, and which scripts are compiled. Connects to nothing; secrets are not in it.
mod columns;
mod text;

pub use columns::{Column, Filled};
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    config::{Delivery, Document, Node, NodeValue, Origin, Pipeline, Role, Slot, grammar_schema},
    diagnostic::line_column,
    input::Replay,
    pipeline,
    registry::{Field, Promise, Registry, fields},
    script::Condition,
};

/// A file, explained.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub pipeline: String,
    pub file: String,
    pub delivery: Guarantee,
    /// Topics, paths and tables of inputs.
    pub reads: Vec<Flow>,
    /// Those of outputs, of the dead letters and the archive.
    pub writes: Vec<Flow>,
    /// Columns of tables, where files tell them.
    pub columns: Vec<Column>,
    pub scripts: Vec<Scripts>,
    pub parts: Vec<Part>,
}

/// What is promised for every message.
#[derive(Debug, Serialize)]
pub struct Guarantee {
    pub guarantee: &'static str,
    /// What it rests on, and what keeps it from being more.
    pub because: Vec<String>,
}

/// Something outside that a part reads or writes.
#[derive(Debug, Serialize)]
pub struct Flow {
    /// The label of the part.
    pub part: String,
    pub component: String,
    /// The setting that names it.
    pub setting: String,
    pub value: Json,
}

/// The scripts of one part.
#[derive(Debug, Serialize)]
pub struct Scripts {
    pub part: String,
    pub compiled: bool,
    /// What keeps them from being compiled, each with its `file:line:column`.
    pub because: Vec<Reason>,
}

/// A place, and what is to be said of it.
#[derive(Debug, Serialize)]
pub struct Reason {
    pub place: String,
    pub reason: String,
}

/// One component, or the limits of the pipeline.
#[derive(Debug, Serialize)]
pub struct Part {
    /// `input`, `step`, `output`, `dead_letter`, `archive` or `limits`.
    pub role: &'static str,
    pub label: String,
    /// Empty for the limits.
    pub component: String,
    /// None where the file says nothing of it.
    pub line: Option<usize>,
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Dots separate levels: `tls.ca`, `topics[0]`.
    pub name: String,
    /// `***` stands for a secret.
    pub value: Json,
    /// Line in the file; none for a default.
    pub line: Option<usize>,
    /// Variables and files that parts of it came from.
    pub from: Vec<Origin>,
}

/// Settings that name something outside.
const PLACES: [&str; 7] = ["topic", "topics", "path", "paths", "url", "database", "table"];

/// Explains a file that lint found no errors in; none when it has no input or no output.
pub fn explain(document: &Document, registry: &Registry) -> Option<Explanation> {
    let config = document.pipeline(registry)?;
    let root = document.root.as_ref()?;
    let slots = document.slots();
    let promises: Vec<_> = slots.iter().map(|slot| promise(document, registry, slot)).collect();
    let guarantee = pipeline::Pipeline::build(&config, registry).ok()?.guarantee();
    let because = because(document, &config, guarantee, &slots, &promises);
    let mut all = Explanation {
        pipeline: document.name().to_owned(),
        file: document.file.path.clone(),
        delivery: Guarantee { guarantee, because },
        reads: Vec::new(),
        writes: Vec::new(),
        columns: columns::columns(document, registry, &slots),
        scripts: Vec::new(),
        parts: vec![limits(document, root)],
    };
    for (slot, promise) in slots.iter().zip(&promises) {
        let Some(entry) = slot.components().next() else { continue };
        let Some(component) = registry.find(slot.role.kind(), &entry.key) else { continue };
        let mut settings = settings(document, &entry.value, component.scripts());
        settings.extend(defaults(&entry.value, &fields(&component.schema())));
        if let Some(when) = slot.node.entry("when").filter(|_| slot.role == Role::Output) {
            leaves(document, &when.value, "when", &mut settings);
        }
        let flows = if slot.role == Role::Input { &mut all.reads } else { &mut all.writes };
        let named = settings.iter().filter(|setting| PLACES.contains(&setting.name.split('[').next().unwrap_or("")));
        if slot.role != Role::Step {
            flows.extend(named.map(|setting| Flow {
                part: slot.label.to_string(),
                component: entry.key.clone(),
                setting: setting.name.clone(),
                value: setting.value.clone(),
            }));
        }
        all.scripts.extend(scripts(document, registry, slot, promise));
        all.parts.push(Part {
            role: match slot.role {
                Role::Input => "input",
                Role::Step => "step",
                Role::Output => "output",
                Role::DeadLetter => "dead_letter",
                Role::Archive => "archive",
            },
            label: slot.label.to_string(),
            component: entry.key.clone(),
            line: Some(line_column(&document.file.text, slot.span.start).0),
            settings,
        });
    }
    Some(all)
}

fn promise(document: &Document, registry: &Registry, slot: &Slot<'_>) -> Promise {
    let component = document.component(slot, registry);
    component
        .and_then(|component| {
            registry.find(slot.role.kind(), &component.name)?.check(slot.role, &component.section).ok()
        })
        .unwrap_or_default()
}

/// What a guarantee rests on, and what keeps it from being more.
fn because(
    document: &Document,
    config: &Pipeline,
    guarantee: &str,
    slots: &[Slot<'_>],
    promises: &[Promise],
) -> Vec<String> {
    let of = |role: Role| slots.iter().zip(promises).filter(move |(slot, _)| slot.role == role);
    if guarantee == "exactly_once" {
        let inputs = of(Role::Input).map(|(slot, _)| format!("input `{}` hands out the same ranges again", slot.label));
        let outputs = of(Role::Output).map(|(slot, _)| format!("output `{}` recognises what comes again", slot.label));
        return inputs.chain(outputs).collect();
    }
    let lost = of(Role::Input).filter(|(_, promise)| promise.replay == Some(Replay::Never));
    let lost: Vec<_> = lost.map(|(slot, _)| format!("what input `{}` reads never comes again", slot.label)).collect();
    if !lost.is_empty() {
        return lost;
    }
    if let (Some(Delivery::AtLeastOnce | Delivery::BestEffort), Some(entry)) =
        (config.delivery, document.root.as_ref().and_then(|root| root.entry("delivery")))
    {
        let line = line_column(&document.file.text, entry.key_span.start).0;
        return vec![format!("`delivery` asks for no more, line {line}")];
    }
    let inputs = of(Role::Input).filter(|(_, promise)| promise.replay != Some(Replay::ByOffset));
    let inputs = inputs.map(|(slot, _)| format!("input `{}` cannot hand out the same ranges again", slot.label));
    let outputs = of(Role::Output).filter(|(_, promise)| !promise.recognises);
    let outputs = outputs.map(|(slot, _)| format!("output `{}` cannot tell that a message comes again", slot.label));
    let count = of(Role::Output).count();
    let several = (count > 1).then(|| format!("there are {count} outputs, and exactly once needs one"));
    inputs.chain(outputs).chain(several).collect()
}

fn limits(document: &Document, root: &Node) -> Part {
    let node = root.entry("limits");
    let mut settings = Vec::new();
    if let Some(entry) = node {
        leaves(document, &entry.value, "", &mut settings);
    }
    let all: Vec<Field> = fields(&grammar_schema())
        .into_iter()
        .filter_map(|field| Some(Field { name: field.name.strip_prefix("limits.")?.to_owned(), ..field }))
        .collect();
    let missing = |field: &&Field| node.is_none_or(|entry| entry.value.entry(&field.name).is_none());
    settings.extend(all.iter().filter(missing).filter_map(default_of));
    let line = node.map(|entry| line_column(&document.file.text, entry.key_span.start).0);
    Part { role: "limits", label: String::new(), component: String::new(), line, settings }
}

/// What the file says, one setting for each single value.
fn settings(document: &Document, node: &Node, scripts: &[&str]) -> Vec<Setting> {
    let mut out = Vec::new();
    match &node.value {
        NodeValue::Scalar(scalar) if scripts.contains(&"") || !scalar.text.is_empty() => {
            leaves(document, node, "", &mut out);
        }
        NodeValue::Scalar(_) => {}
        _ => leaves(document, node, "", &mut out),
    }
    out
}

fn leaves(document: &Document, node: &Node, name: &str, out: &mut Vec<Setting>) {
    let line = Some(line_column(&document.file.text, node.span.start).0);
    match &node.value {
        NodeValue::Mapping(entries) if !entries.is_empty() => {
            for entry in entries {
                let name = if name.is_empty() { entry.key.clone() } else { format!("{name}.{}", entry.key) };
                leaves(document, &entry.value, &name, out);
            }
        }
        NodeValue::Sequence(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                leaves(document, item, &format!("{name}[{at}]"), out);
            }
        }
        // A component with nothing to say of it.
        NodeValue::Mapping(_) if name.is_empty() => {}
        NodeValue::Scalar(scalar) => {
            let value = match () {
                () if is_secret(name) && !node.is_null() => "***".into(),
                () if scalar.secrets.is_empty() => json(node),
                () => scalar.shown().into(),
            };
            out.push(Setting {
                name: name.to_owned(),
                value: without_login(value),
                line,
                from: scalar.origins.clone(),
            });
        }
        _ => out.push(Setting { name: name.to_owned(), value: json(node), line, from: Vec::new() }),
    }
}

fn json(node: &Node) -> Json {
    serde_json::to_value(node.to_value()).unwrap_or_default()
}

/// Settings of such names are never shown, even where they stand in the file itself.
fn is_secret(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    ["password", "secret", "token"].iter().any(|word| last.contains(word))
}

/// `mqtt://user:password@host` without the password.
fn without_login(value: Json) -> Json {
    let hidden = |text: &str| {
        let (scheme, rest) = text.split_once("://")?;
        let (login, host) = rest.split_once('@').filter(|(login, _)| !login.contains('/'))?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    };
    match value.as_str().and_then(hidden) {
        Some(text) => text.into(),
        None => value,
    }
}

/// The settings that the file leaves to their defaults.
fn defaults(node: &Node, all: &[Field]) -> Vec<Setting> {
    if node.scalar().is_some_and(|scalar| !scalar.text.is_empty()) {
        return Vec::new();
    }
    let missing = |field: &&Field| {
        let mut node = node;
        let (parents, last) = field.name.rsplit_once('.').map_or(("", field.name.as_str()), |(a, b)| (a, b));
        for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
            match node.entry(parent) {
                Some(entry) => node = &entry.value,
                None => return false,
            }
        }
        node.entry(last).is_none() && !field.name.contains(['*', '['])
    };
    all.iter().filter(missing).filter_map(default_of).collect()
}

fn default_of(field: &Field) -> Option<Setting> {
    let value = serde_json::from_str(field.default.as_ref()?).ok()?;
    Some(Setting { name: field.name.clone(), value, line: None, from: Vec::new() })
}

/// The scripts of a part, if it has any.
fn scripts(document: &Document, registry: &Registry, slot: &Slot<'_>, promise: &Promise) -> Option<Scripts> {
    let place = |diagnostic: crate::diagnostic::Diagnostic| {
        let (line, column) = diagnostic.line_column();
        Reason { place: format!("{}:{line}:{column}", diagnostic.file.path), reason: diagnostic.title }
    };
    let interpreted = |note: &&crate::diagnostic::Fault| note.code == "interpreted";
    let part = slot.label.to_string();
    match slot.role {
        Role::Step => {
            let component = document.component(slot, registry)?;
            let has_scripts = !registry.find(slot.role.kind(), &component.name)?.scripts().is_empty();
            let because: Vec<_> =
                promise.notes.iter().filter(interpreted).map(|note| place(component.diagnose(note))).collect();
            (has_scripts || !because.is_empty()).then_some(Scripts { part, compiled: because.is_empty(), because })
        }
        Role::Output => {
            let when = document.condition(slot, registry)?;
            let condition = Condition::compile(&when.script, when.site()).ok()?;
            let because: Vec<_> =
                condition.notes().iter().filter(interpreted).map(|note| place(when.diagnose(note))).collect();
            Some(Scripts { part, compiled: because.is_empty(), because })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        for (value, shown) in [
            ("mqtt://user:pass@host:1883", "mqtt://user:***@host:1883"),
            ("http://host/a:b@c", "http://host/a:b@c"),
            ("user:pass", "user:pass"),
        ] {
            assert_eq!(without_login(value.into()), Json::from(shown));
        }
    }
}
