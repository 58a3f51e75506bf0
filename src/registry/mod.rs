//! Every component there is, as one look-up by kind and name. Lint, `streamer list`, the JSON Schema and the reader of
//! pipeline files ask here; none of them knows a component by name.
mod fields;
mod schema;

pub use fields::{Field, enumerated, fields, shape};
pub use schema::pipeline_schema;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    client::{Contact, Probe},
    config::{Catalog, Component, Facts, Kind, Role},
    diagnostic::Fault,
    input::{INPUTS, Input, Replay},
    output::{Column, OUTPUTS, Once, Output, build_archive, can_archive},
    plugin::{PluginStep, Plugins},
    shape::{Place, Shape},
    spec::{Modules, Section, Spec, Texts},
    step::{STEPS, Step},
};

/// The tables of components, and what plugins add to them. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inputs: &'static [&'static Spec<dyn Input>],
    steps: &'static [&'static Spec<dyn Step>],
    outputs: &'static [&'static Spec<dyn Output>],
    plugins: Arc<Plugins>,
    texts: Arc<Texts>,
}

/// One component, of any kind.
#[derive(Clone)]
pub enum Found {
    Input(&'static Spec<dyn Input>),
    Step(&'static Spec<dyn Step>),
    Output(&'static Spec<dyn Output>),
    /// A step that a plugin declares.
    Plugin(Arc<PluginStep>),
}

/// What a correct section makes, as far as lint needs to know.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// For an input: what becomes of messages that are not acknowledged.
    pub replay: Option<Replay>,
    /// For an input: a spool is of use to it.
    pub can_spool: bool,
    /// For an output: it recognises what comes again.
    pub recognises: bool,
    /// For a step: what the writer of its scripts should know.
    pub notes: Vec<Fault>,
    /// For an input or output: where it meets the outside world.
    pub contact: Option<Contact>,
}

impl Registry {
    /// The components that streamer is built with.
    pub fn built_in() -> Self {
        Self { inputs: INPUTS, steps: STEPS, outputs: OUTPUTS, plugins: Arc::default(), texts: Arc::default() }
    }

    /// The same, with texts that count in place of what stands in their files.
    pub fn with_texts(self, texts: Texts) -> Self {
        Self { texts: Arc::new(texts), ..self }
    }

    /// The same, with the plugins of some folders.
    ///
    /// # Errors
    /// A folder or file cannot be read.
    pub fn with_plugins(self, folders: &[PathBuf]) -> std::io::Result<Self> {
        let names: Vec<&str> = self.steps.iter().map(|spec| spec.name).collect();
        Ok(Self { plugins: Arc::new(Plugins::load(folders, &names, &self.texts)?), ..self })
    }

    /// What plugins add.
    pub fn plugins(&self) -> &Plugins {
        &self.plugins
    }

    /// These components only; each table sorted by name.
    pub fn of(
        inputs: &'static [&'static Spec<dyn Input>],
        steps: &'static [&'static Spec<dyn Step>],
        outputs: &'static [&'static Spec<dyn Output>],
    ) -> Self {
        Self { inputs, steps, outputs, plugins: Arc::default(), texts: Arc::default() }
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&'static Spec<dyn Input>> {
        self.inputs.iter().find(|spec| spec.name == name).copied()
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&'static Spec<dyn Step>> {
        self.steps.iter().find(|spec| spec.name == name).copied()
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<&'static Spec<dyn Output>> {
        self.outputs.iter().find(|spec| spec.name == name).copied()
    }

    /// What payloads look like behind these steps, in their order, and which of them makes them. Behind one that is not
    /// known nothing is.
    pub fn made_by<'c>(&self, steps: impl Iterator<Item = Option<&'c Component>>) -> (Shape, Option<usize>) {
        let mut made = (Shape::Any, None);
        for (number, step) in steps.enumerate() {
            let shape = step.and_then(|step| self.find(Kind::Step, &step.name)?.shape(&step.section, &made.0));
            made = match shape {
                Some((shape, true)) => (shape, made.1),
                Some((shape, false)) => (shape, Some(number)),
                None => (Shape::Any, None),
            };
        }
        made
    }

    /// The component of that kind and name.
    pub fn find(&self, kind: Kind, name: &str) -> Option<Found> {
        match kind {
            Kind::Input => self.input(name).map(Found::Input),
            Kind::Step => {
                let plugin = || self.plugins.steps.iter().find(|step| step.name == name).cloned();
                self.step(name).map(Found::Step).or_else(|| plugin().map(Found::Plugin))
            }
            Kind::Output => self.output(name).map(Found::Output),
        }
    }

    /// Every component of that kind, sorted by name.
    pub fn all(&self, kind: Kind) -> Vec<Found> {
        match kind {
            Kind::Input => self.inputs.iter().map(|spec| Found::Input(spec)).collect(),
            Kind::Step => {
                let built_in = self.steps.iter().map(|spec| Found::Step(spec));
                let mut all: Vec<_> = built_in.chain(self.plugins.steps.iter().cloned().map(Found::Plugin)).collect();
                all.sort_by(|a, b| a.name().cmp(b.name()));
                all
            }
            Kind::Output => self.outputs.iter().map(|spec| Found::Output(spec)).collect(),
        }
    }

    /// The names of that kind, sorted.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.all(kind).iter().map(|found| found.name().to_owned()).collect()
    }

    /// Makes the step of that name.
    ///
    /// # Errors
    /// What it finds wrong in its settings.
    ///
    /// # Panics
    /// When there is no such step: lint knows every component of a checked file.
    pub fn build_step(&self, name: &str, section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
        match self.find(Kind::Step, name) {
            Some(Found::Step(spec)) => (spec.build)(section),
            Some(Found::Plugin(step)) => step.build(section),
            _ => panic!("lint knows every component of a checked file"),
        }
    }
}

impl Catalog for Registry {
    fn facts(&self, kind: Kind, name: &str) -> Option<Facts> {
        self.find(kind, name).map(|found| Facts { scripts: found.scripts().to_vec(), schema: found.schema() })
    }

    fn modules(&self) -> Arc<Modules> {
        self.plugins.modules.clone()
    }

    fn texts(&self) -> Arc<Texts> {
        self.texts.clone()
    }
}

impl Found {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Input(_) => Kind::Input,
            Self::Step(_) | Self::Plugin(_) => Kind::Step,
            Self::Output(_) => Kind::Output,
        }
    }

    /// Its key in YAML.
    pub fn name(&self) -> &str {
        match self {
            Self::Input(spec) => spec.name,
            Self::Step(spec) => spec.name,
            Self::Output(spec) => spec.name,
            Self::Plugin(step) => &step.name,
        }
    }

    /// What it does, in one sentence.
    pub fn summary(&self) -> &str {
        match self {
            Self::Input(spec) => spec.summary,
            Self::Step(spec) => spec.summary,
            Self::Output(spec) => spec.summary,
            Self::Plugin(step) => &step.summary,
        }
    }

    /// YAML of a working section.
    pub fn example(&self) -> &str {
        match self {
            Self::Input(spec) => spec.example,
            Self::Step(spec) => spec.example,
            Self::Output(spec) => spec.example,
            Self::Plugin(step) => &step.example,
        }
    }

    /// Which of its fields hold scripts.
    pub fn scripts(&self) -> &'static [&'static str] {
        match self {
            Self::Input(spec) => spec.scripts,
            Self::Step(spec) => spec.scripts,
            Self::Output(spec) => spec.scripts,
            Self::Plugin(_) => &[],
        }
    }

    /// The JSON Schema of its section.
    pub fn schema(&self) -> serde_json::Value {
        let schema = match self {
            Self::Input(spec) => (spec.schema)(),
            Self::Step(spec) => (spec.schema)(),
            Self::Output(spec) => (spec.schema)(),
            Self::Plugin(step) => return step.schema(),
        };
        schema.to_value()
    }

    /// True for an output that can be a pipeline's archive.
    pub fn can_archive(&self) -> bool {
        matches!(self, Self::Output(spec) if can_archive(spec))
    }

    /// Checks a section the way `build` does, without network. `role` is what the component does in the pipeline.
    ///
    /// # Errors
    /// Every fault the component finds.
    pub fn check(&self, role: Role, section: &Section) -> Result<Promise, Vec<Fault>> {
        match self {
            Self::Input(spec) => {
                let build = (spec.build)(section);
                build.map(|input| Promise {
                    replay: Some(input.replay()),
                    can_spool: input.can_spool(),
                    contact: input.contact(),
                    ..Promise::default()
                })
            }
            Self::Step(spec) => (spec.build)(section).map(|step| Promise { notes: step.notes(), ..Promise::default() }),
            Self::Output(spec) => {
                let build = build_output(spec, role, section);
                build.map(|output| Promise {
                    recognises: output.recognises(),
                    contact: output.contact(),
                    ..Promise::default()
                })
            }
            Self::Plugin(step) => step.build(section).map(|_| Promise::default()),
        }
    }

    /// What payloads look like behind a step with a correct section, when they look like `before` in front of it; and
    /// whether they leave as they came, so that their places are still those of another step.
    pub fn shape(&self, section: &Section, before: &Shape) -> Option<(Shape, bool)> {
        match self {
            Self::Step(spec) => {
                let step = (spec.build)(section).ok()?;
                Some((step.shape(before), step.keeps_payloads()))
            }
            Self::Plugin(step) => {
                let step = step.build(section).ok()?;
                let shape = step.shape(before);
                // Its script stands in the plugin's file.
                let shape = if step.keeps_payloads() { shape } else { shape.at(&|_| Place::default()) };
                Some((shape, step.keeps_payloads()))
            }
            Self::Input(_) | Self::Output(_) => None,
        }
    }

    /// The columns that an output with a correct section writes, where files tell them.
    pub fn columns(&self, section: &Section) -> Vec<Column> {
        match self {
            Self::Output(spec) => (spec.build)(section).map_or(Vec::new(), |output| output.columns()),
            Self::Input(_) | Self::Step(_) | Self::Plugin(_) => Vec::new(),
        }
    }

    /// What of payloads like these an output with a correct section can never write.
    pub fn review(&self, section: &Section, payload: &Shape) -> Vec<Fault> {
        match self {
            Self::Output(spec) => (spec.build)(section).map_or(Vec::new(), |output| output.review(payload)),
            Self::Input(_) | Self::Step(_) | Self::Plugin(_) => Vec::new(),
        }
    }

    /// What a component with a correct section asks its server, in `limit`; `None` when there is nothing to ask.
    pub fn probe(&self, role: Role, section: &Section, once: Once, payload: &Shape, limit: Duration) -> Option<Probe> {
        match self {
            Self::Input(spec) => (spec.build)(section).ok()?.probe(limit),
            Self::Output(spec) => build_output(spec, role, section).ok()?.probe(once, payload, limit),
            Self::Step(_) | Self::Plugin(_) => None,
        }
    }
}

fn build_output(spec: &Spec<dyn Output>, role: Role, section: &Section) -> Result<Box<dyn Output>, Vec<Fault>> {
    if role == Role::Archive { build_archive(spec, section) } else { (spec.build)(section) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        for kind in Kind::ALL {
            let names = Registry::built_in().names(kind);
            assert!(names.is_sorted_by(|a, b| a < b), "{}: sort them, once each: {names:?}", kind.key());
        }
    }

    #[test]
    fn every_field_has_a_doc_comment() {
        let registry = Registry::built_in();
        for found in Kind::ALL.into_iter().flat_map(|kind| registry.all(kind)) {
            assert!(!found.summary().is_empty(), "{} has no summary", found.name());
            for field in fields(&found.schema()) {
                assert!(
                    !field.description.is_empty(),
                    "{} `{}`: `{}` has no doc comment",
                    found.kind().word(),
                    found.name(),
                    field.name
                );
            }
        }
    }

    /// A component file that nobody lists is a file that nobody compiles. Files that are no component (helpers shared
    /// by several) are declared in `mod.rs` and name no `SPEC`.
    #[test]
    fn every_component_file_is_listed() {
        let registry = Registry::built_in();
        for kind in Kind::ALL {
            let folder = format!("{}/src/{}", env!("CARGO_MANIFEST_DIR"), kind.word());
            let table = std::fs::read_to_string(format!("{folder}/mod.rs")).unwrap();
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let source = if path.is_dir() { path.join("mod.rs") } else { path };
                if stem == "mod" {
                    continue;
                }
                assert!(
                    table.contains(&format!("mod {stem};")),
                    "src/{}/{stem} is not declared in mod.rs",
                    kind.word()
                );
                if std::fs::read_to_string(&source).unwrap().contains("SPEC: Spec<") {
                    assert!(
                        table.contains(&format!("&{stem}::SPEC")),
                        "src/{}/{stem} is not in the table",
                        kind.word()
                    );
                }
            }
            assert_eq!(
                table.matches("::SPEC,").count().max(table.matches("::SPEC").count()),
                registry.names(kind).len()
            );
        }
    }
}
