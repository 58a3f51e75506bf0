//! The typed pipeline, and the way back from a component's fault to its place in the file.
use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    Catalog, Delivery, Document, Limits, Role, Scalar, Slot, Spool, TestCase,
    yaml::{Entry, Node, NodeValue},
};
use crate::{
    diagnostic::{Diagnostic, Fault, PathSegment, ScriptPlace, SourceFile, byte_offset},
    spec::{Section, Site},
};

/// A pipeline file, typed.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub name: Arc<str>,
    pub description: String,
    /// At least one.
    pub inputs: Vec<Labelled>,
    pub steps: Vec<StepEntry>,
    /// At least one.
    pub outputs: Vec<OutputEntry>,
    pub dead_letter: Option<Component>,
    pub archive: Option<Component>,
    /// The guarantee asked for.
    pub delivery: Option<Delivery>,
    pub limits: Limits,
    pub spool: Option<Spool>,
    /// Examples, and where each stands in the file.
    pub tests: Vec<(TestCase, Range<usize>)>,
    pub file: Arc<SourceFile>,
}

/// An input and its label.
#[derive(Clone, Debug)]
pub struct Labelled {
    pub label: Arc<str>,
    pub component: Component,
}

/// One step.
#[derive(Clone, Debug)]
pub struct StepEntry {
    /// Its place in the list: `steps[0]`.
    pub label: Arc<str>,
    pub component: Component,
}

/// An output and what goes there.
#[derive(Clone, Debug)]
pub struct OutputEntry {
    pub label: Arc<str>,
    pub component: Component,
    /// Condition in Rhai; without it every message goes there.
    pub when: Option<When>,
}

/// The condition of an output.
#[derive(Clone, Debug)]
pub struct When {
    pub script: String,
    /// The place as a section of its own, for diagnostics.
    section: Component,
}

impl When {
    /// The surroundings of the script.
    pub fn site(&self) -> Site {
        self.section.section.script("")
    }

    /// Puts a fault of the script at its place in the file.
    pub fn diagnose(&self, fault: &Fault) -> Diagnostic {
        self.section.diagnose(fault)
    }
}

/// A component's name and settings, and where they stand.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its key: `mqtt`.
    pub name: String,
    pub section: Section,
    file: Arc<SourceFile>,
    key_span: Range<usize>,
    node: Node,
}

impl Document {
    /// The pipeline, as far as the file is well formed. Lint reports whatever is left out here, so use it only when
    /// lint found no errors. `None` when the file has no input or no output.
    pub fn pipeline(&self, catalog: &dyn Catalog) -> Option<Pipeline> {
        let root = self.root.as_ref()?;
        let value = |key: &str| root.entry(key).map(|entry| entry.value.to_value()).filter(|value| !value.is_null());
        let mut pipeline = Pipeline {
            name: self.name().into(),
            description: value("description").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
            inputs: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            dead_letter: None,
            archive: None,
            delivery: value("delivery").and_then(|value| serde_yaml::from_value(value).ok()),
            limits: value("limits").and_then(|value| serde_yaml::from_value(value).ok()).unwrap_or_default(),
            spool: value("spool").and_then(|value| serde_yaml::from_value(value).ok()),
            tests: self.tests(),
            file: Arc::clone(&self.file),
        };
        for slot in self.slots() {
            let Some(component) = self.component(&slot, catalog) else { continue };
            let label = Arc::clone(&slot.label);
            match slot.role {
                Role::Input => pipeline.inputs.push(Labelled { label, component }),
                Role::Step => pipeline.steps.push(StepEntry { label, component }),
                Role::Output => {
                    pipeline.outputs.push(OutputEntry { label, component, when: self.condition(&slot, catalog) })
                }
                Role::DeadLetter => pipeline.dead_letter = Some(component),
                Role::Archive => pipeline.archive = Some(component),
            }
        }
        (!pipeline.inputs.is_empty() && !pipeline.outputs.is_empty()).then_some(pipeline)
    }

    /// The examples, as far as they are well formed.
    fn tests(&self) -> Vec<(TestCase, Range<usize>)> {
        let items =
            self.root.as_ref().and_then(|root| root.entry("tests")).map_or(&[][..], |tests| tests.value.items());
        let read = |node: &Node| Some((serde_yaml::from_value(node.to_value()).ok()?, node.span.clone()));
        items.iter().filter_map(read).collect()
    }

    /// The component in a slot, when there is exactly one and it exists.
    pub fn component(&self, slot: &Slot<'_>, catalog: &dyn Catalog) -> Option<Component> {
        let mut components = slot.components();
        let (entry, None) = (components.next()?, components.next()) else { return None };
        let facts = catalog.facts(slot.role.kind(), &entry.key)?;
        let scripts = Component::script_places(&self.file, &entry.value, &facts.scripts);
        let value = match entry.value.to_value() {
            // `stdout:` with nothing after it is `stdout: {}`.
            serde_yaml::Value::Null => serde_yaml::Mapping::new().into(),
            value => value,
        };
        let section = Section {
            pipeline: self.name().into(),
            label: Arc::clone(&slot.label),
            folder: self.folder().to_owned(),
            value,
            scripts,
            modules: catalog.modules(),
            texts: catalog.texts(),
        };
        Some(Component {
            name: entry.key.clone(),
            section,
            file: Arc::clone(&self.file),
            key_span: entry.key_span.clone(),
            node: entry.value.clone(),
        })
    }

    /// The condition beside an output, when it is a text.
    pub fn condition(&self, slot: &Slot<'_>, catalog: &dyn Catalog) -> Option<When> {
        let entry = slot.node.entry("when")?;
        let script = entry.value.scalar()?.text.clone();
        let place = place(&self.file.path, &entry.value)?;
        let section = Section {
            pipeline: self.name().into(),
            label: Arc::clone(&slot.label),
            folder: self.folder().to_owned(),
            value: script.clone().into(),
            scripts: HashMap::from([(String::new(), place)]),
            modules: catalog.modules(),
            texts: catalog.texts(),
        };
        let section = Component {
            name: entry.key.clone(),
            section,
            file: Arc::clone(&self.file),
            key_span: entry.key_span.clone(),
            node: entry.value.clone(),
        };
        Some(When { script, section })
    }
}

/// Where the script in a node stands; `None` for what is no script.
fn place(path: &str, node: &Node) -> Option<ScriptPlace> {
    let scalar = node.scalar()?;
    let (line, column) = scalar.origin;
    Some(ScriptPlace { file: path.into(), line, column, exact: scalar.exact })
}

impl Component {
    /// A whole file as one component, for files that are no pipelines.
    pub fn of_file(file: &Arc<SourceFile>, node: &Node, section: Section) -> Self {
        let name = file.path.clone();
        Self { name, section, file: Arc::clone(file), key_span: 0..0, node: node.clone() }
    }

    /// Where the scripts of a section stand, by field; `fields` as in `Spec::scripts`.
    pub fn script_places(file: &SourceFile, node: &Node, fields: &[&str]) -> HashMap<String, ScriptPlace> {
        let mut scripts = HashMap::new();
        for field in fields {
            // `headers.*` stands for every key of `headers`.
            let found = match field.strip_suffix(".*") {
                Some(parent) => node.entry(parent).map_or(&[][..], |parent| parent.value.entries()),
                None if field.is_empty() => {
                    scripts.extend(place(&file.path, node).map(|place| (String::new(), place)));
                    continue;
                }
                None => node.entry(field).map_or(&[][..], std::slice::from_ref),
            };
            for entry in found {
                let key = &entry.key;
                let name = field.strip_suffix('*').map_or_else(|| key.clone(), |parent| format!("{parent}{key}"));
                scripts.extend(place(&file.path, &entry.value).map(|place| (name, place)));
            }
        }
        scripts
    }

    /// Where the component's name stands.
    pub fn key_span(&self) -> Range<usize> {
        self.key_span.clone()
    }

    /// The component's settings as a tree.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Puts a fault of this component at its place in the file. Secrets are taken out of its texts.
    pub fn diagnose(&self, fault: &Fault) -> Diagnostic {
        let (file, span) = self.locate(fault);
        let mut secrets = Vec::new();
        collect_secrets(&self.node, &mut secrets);
        let hide = |text: &str| secrets.iter().fold(text.to_owned(), |text, secret| hide(&text, secret));
        let mut diagnostic =
            Diagnostic::error(fault.code, &file, span, hide(&fault.title)).with_label(hide(&fault.label));
        diagnostic.help = fault.help.as_deref().map(hide);
        diagnostic.severity = fault.severity;
        // Only where the word stands in the file as it is.
        let replace = fault.replace.as_ref().filter(|(word, _)| file.text.get(diagnostic.span.clone()) == Some(word));
        match replace {
            Some((_, by)) => diagnostic.with_fix(by),
            None => diagnostic,
        }
    }

    fn locate(&self, fault: &Fault) -> (Arc<SourceFile>, Range<usize>) {
        let mut node = &self.node;
        let mut key = &self.key_span;
        let mut complete = true;
        for segment in &fault.path {
            let next = match (segment, &node.value) {
                (PathSegment::Index(index), NodeValue::Sequence(items)) => items.get(*index),
                (segment, NodeValue::Mapping(_)) => {
                    node.entry(&segment.to_string()).map(|Entry { key_span, value, .. }| {
                        key = key_span;
                        value
                    })
                }
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => {
                    complete = false;
                    break;
                }
            }
        }
        let Some(scalar) = node.scalar().filter(|_| complete) else {
            return (Arc::clone(&self.file), key.clone());
        };
        let whole = if node.span.is_empty() { key.clone() } else { node.span.clone() };
        let Some((line, column)) = fault.at else { return (Arc::clone(&self.file), whole) };
        if matches!(fault.path.last(), Some(PathSegment::Key(key)) if key == "file") {
            // The script is a file of its own: show that one.
            let path = self.section.folder.join(&scalar.text);
            if let Ok(text) = self.section.texts.read(&path) {
                let span = word_at(&text, byte_offset(&text, line, column));
                return (Arc::new(SourceFile { path: path.display().to_string(), text }), span);
            }
        }
        if !scalar.exact {
            return (Arc::clone(&self.file), whole);
        }
        let text = &self.file.text;
        let at = byte_offset(text, scalar.origin.0 + line - 1, scalar.origin.1 + column - 1);
        (Arc::clone(&self.file), word_at(text, at))
    }
}

/// The word that begins at `at`, or the single character there.
fn word_at(text: &str, at: usize) -> Range<usize> {
    let rest = &text[at..];
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let one = rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    at..at + word.max(one)
}

fn collect_secrets(node: &Node, out: &mut Vec<String>) {
    out.extend(node.scalar().into_iter().flat_map(|scalar| scalar.secrets.clone()));
    node.items().iter().for_each(|item| collect_secrets(item, out));
    node.entries().iter().for_each(|entry| collect_secrets(&entry.value, out));
}

impl Scalar {
    /// The text without its secrets.
    pub fn shown(&self) -> String {
        self.secrets.iter().fold(self.text.clone(), |text, secret| hide(&text, secret))
    }
}

/// Takes a secret out of a text. Very short ones only where they stand alone: `a` is in every sentence.
fn hide(text: &str, secret: &str) -> String {
    match secret.len() {
        0 => text.to_owned(),
        1..4 => {
            let mut out = String::with_capacity(text.len());
            let mut done = 0;
            for (at, _) in text.match_indices(secret) {
                let end = at + secret.len();
                let alone =
                    !text[..at].ends_with(char::is_alphanumeric) && !text[end..].starts_with(char::is_alphanumeric);
                if alone && at >= done {
                    out.push_str(&text[done..at]);
                    out.push_str("***");
                    done = end;
                }
            }
            out.push_str(&text[done..]);
            out
        }
        _ => text.replace(secret, "***"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{Environment, Facts, Kind},
        *,
    };

    /// An input `demo` with any fields, a step `map` that is a script, an output `demo` with a script in `key`.
    struct Demo;

    impl Catalog for Demo {
        fn facts(&self, kind: Kind, name: &str) -> Option<Facts> {
            let schema = serde_json::json!({"properties": {"password": {"type": ["string", "null"]}, "port": {"type": "integer"}}});
            let scripts: &[&'static str] = match (kind, name) {
                (Kind::Step, "map") => &[""],
                (Kind::Output, "demo") => &["key"],
                (Kind::Input, "demo") => &[],
                _ => return None,
            };
            Some(Facts { scripts: scripts.to_vec(), schema })
        }
    }

    const FILE: &str = "# °C\n\
        inputs:\n  a:\n    demo:\n      url: 'x ${HOST}'\n      port: '${PORT}'\n      password: ${PASSWORD}\n      list: [1, 2]\n      other: ${PORT}\n\
        steps:\n  - map: |\n      let °x = `${y}`;\n      z\n  - map: a + b\n  - map: >\n      a\n      b\n\
        outputs:\n  o:\n    when: payload.x > 1\n    demo: { key: \"${k}\", other: '$${x}' }\n\
        limits: { shutdown_timeout_ms: 5 }\ntests: [ { name: '${NO}' } ]\n";

    fn read() -> Pipeline {
        let environment = Environment::of([("HOST", "h"), ("PORT", "1883"), ("PASSWORD", "123456")]);
        let file = SourceFile { path: "some/folder/p.yaml".into(), text: FILE.into() };
        let document = Document::read(file, &environment, &Demo);
        assert!(document.faults.is_empty(), "{:?}", document.faults[0].title);
        document.pipeline(&Demo).unwrap()
    }

    #[test]
    fn a_file_becomes_a_typed_pipeline() {
        let pipeline = read();
        assert_eq!(&*pipeline.name, "p");
        assert_eq!(pipeline.inputs[0].component.section.folder, Path::new("some/folder"));
        let value = &pipeline.inputs[0].component.section.value;
        assert_eq!(value["url"], "x h");
        assert_eq!(value["port"], 1883, "the field wants a number");
        assert_eq!(value["other"], 1883, "typed again, as it is unquoted");
        assert_eq!(value["password"], "123456", "the field wants text");
        assert_eq!(pipeline.outputs[0].component.section.value["key"], "${k}", "a script keeps its own brackets");
        assert_eq!(pipeline.outputs[0].component.section.value["other"], "${x}");
        assert_eq!(pipeline.limits, Limits { shutdown_timeout_ms: 5, ..Limits::default() });
        assert_eq!(pipeline.tests[0].0.name, "${NO}");
        assert_eq!(pipeline.steps[2].component.section.value, "a b\n");
    }

    #[test]
    fn scripts_know_their_place() {
        let pipeline = read();
        let script = |step: usize| pipeline.steps[step].component.section.script("");
        assert_eq!(script(0).place.locate(2, 1), "some/folder/p.yaml:13:7");
        assert_eq!(script(1).place.locate(1, 5), "some/folder/p.yaml:14:14");
        assert_eq!(script(2).place.locate(2, 1), "some/folder/p.yaml:16:7", "folded: the start is all that is known");
        let when = pipeline.outputs[0].when.clone().unwrap();
        let (place, when) = (when.site().place, when.script);
        assert_eq!((when.as_str(), place.locate(1, 9)), ("payload.x > 1", "some/folder/p.yaml:20:19".into()));
    }

    #[test]
    fn a_fault_is_put_at_its_bytes() {
        fn check(component: &Component, fault: Fault, expected: &str) {
            assert_eq!(&FILE[component.diagnose(&fault).span], expected);
        }
        let pipeline = read();
        let input = &pipeline.inputs[0].component;
        check(input, Fault::new("x", "", "t"), "demo");
        check(input, Fault::new("x", "port", "t"), "'${PORT}'");
        check(input, Fault::new("x", "list.1", "t"), "2");
        check(input, Fault::new("x", "list.7", "t"), "list");
        check(input, Fault::new("x", "nothing.here", "t"), "demo");
        let step = |index: usize| &pipeline.steps[index].component;
        check(step(0), Fault::new("x", "", "t").at(1, 5), "°");
        check(step(0), Fault::new("x", "", "t").at(1, 6), "x");
        check(step(0), Fault::new("x", "", "t").at(2, 1), "z");
        check(step(1), Fault::new("x", "", "t").at(1, 5), "b");
        check(step(2), Fault::new("x", "", "t").at(1, 3), "a\n      b");
    }

    #[test]
    fn secrets_are_never_shown() {
        let pipeline = read();
        let fault = Fault::new("x", "password", "`123456` is bad").label("123456").help("not 123456");
        let diagnostic = pipeline.inputs[0].component.diagnose(&fault);
        let texts = [&diagnostic.title, &diagnostic.label, diagnostic.help.as_ref().unwrap()];
        assert_eq!(texts, ["`***` is bad", "***", "not ***"]);
        assert_eq!(hide("a cat is `a`", "a"), "*** cat is `***`");
    }
}
