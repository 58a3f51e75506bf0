//! One file, read: its tree with the environment put in, the faults met on the way, and the places of its components.
use std::{ops::Range, path::Path, sync::Arc};

use super::{
    Catalog, Environment, Kind, expand, markdown,
    yaml::{self, Node},
};
use crate::diagnostic::{Diagnostic, SourceFile};

/// A pipeline file as a tree.
pub struct Document {
    pub file: Arc<SourceFile>,
    /// Missing when the text is not YAML.
    pub root: Option<Node>,
    /// Syntax, duplicate keys, variables.
    pub faults: Vec<Diagnostic>,
    /// True for a block of a page of Markdown: an example, which runs beside nothing else.
    pub is_example: bool,
}

/// What a component does in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Input,
    Step,
    Output,
    DeadLetter,
    Archive,
}

impl Role {
    /// Which table its component is in.
    pub fn kind(self) -> Kind {
        match self {
            Self::Input => Kind::Input,
            Self::Step => Kind::Step,
            Self::Output | Self::DeadLetter | Self::Archive => Kind::Output,
        }
    }
}

/// A place that holds one component.
pub struct Slot<'a> {
    pub role: Role,
    /// The user's label; `steps[0]`, `dead_letter` or `archive` for what has none.
    pub label: Arc<str>,
    /// Where the label stands; for a step, the step.
    pub span: Range<usize>,
    /// What should be a mapping with one component.
    pub node: &'a Node,
}

impl<'a> Slot<'a> {
    /// The keys that name components: all but `when`, which stands beside an output.
    pub fn components(&self) -> impl Iterator<Item = &'a super::Entry> {
        let with_condition = self.role == Role::Output;
        self.node.entries().iter().filter(move |entry| !(with_condition && entry.key == "when"))
    }
}

impl Document {
    /// Reads the file at `path`. A leading byte-order mark is dropped.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is not UTF-8.
    pub fn open(path: &Path, environment: &Environment, catalog: &dyn Catalog) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self::read(SourceFile { path: path.display().to_string(), text }, environment, catalog))
    }

    /// Reads a file's text. Never fails: what is wrong is in `faults`.
    pub fn read(file: SourceFile, environment: &Environment, catalog: &dyn Catalog) -> Self {
        let file = Arc::new(file);
        let parsed = yaml::parse(&file, &file.text);
        Self::expand(file, parsed, environment, catalog)
    }

    /// Reads the pipelines in a page of Markdown: its blocks of `yaml` with `inputs` and `outputs`. They stand at the
    /// lines of the page.
    pub fn read_markdown(file: SourceFile, environment: &Environment, catalog: &dyn Catalog) -> Vec<Self> {
        let file = Arc::new(file);
        let read = |block: Range<usize>| {
            let parsed = yaml::parse(&file, &markdown::mask(&file.text, &block));
            Self { is_example: true, ..Self::expand(Arc::clone(&file), parsed, environment, catalog) }
        };
        markdown::pipelines(&file.text).into_iter().map(read).collect()
    }

    fn expand(
        file: Arc<SourceFile>,
        (mut root, mut faults): (Option<Node>, Vec<Diagnostic>),
        environment: &Environment,
        catalog: &dyn Catalog,
    ) -> Self {
        if let Some(root) = &mut root {
            faults.extend(expand::expand(root, &file, environment, catalog));
        }
        Self { file, root, faults, is_example: false }
    }

    /// The folder that relative paths start in.
    pub fn folder(&self) -> &Path {
        match Path::new(&self.file.path).parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// Name of the pipeline: what `name:` says, else the file's name without its ending.
    pub fn name(&self) -> &str {
        let given =
            self.root.as_ref().and_then(|root| root.entry("name")?.value.text()).filter(|name| !name.is_empty());
        let stem = || Path::new(&self.file.path).file_stem().and_then(|stem| stem.to_str());
        given.or_else(stem).unwrap_or("pipeline")
    }

    /// Every place that should hold a component, in file order.
    pub fn slots(&self) -> Vec<Slot<'_>> {
        let mut slots = Vec::new();
        for entry in self.root.iter().flat_map(Node::entries) {
            let node = &entry.value;
            match entry.key.as_str() {
                "inputs" | "outputs" => {
                    let role = if entry.key == "inputs" { Role::Input } else { Role::Output };
                    slots.extend(node.entries().iter().map(|entry| Slot {
                        role,
                        label: entry.key.as_str().into(),
                        span: entry.key_span.clone(),
                        node: &entry.value,
                    }));
                }
                "steps" => slots.extend(node.items().iter().enumerate().map(|(index, node)| Slot {
                    role: Role::Step,
                    label: format!("steps[{index}]").into(),
                    span: node.span.clone(),
                    node,
                })),
                // Without a value nothing is archived, which its key denies; `dead_letter` has a warning of its own.
                key @ ("dead_letter" | "archive") if key == "archive" || !node.is_null() => slots.push(Slot {
                    role: if key == "archive" { Role::Archive } else { Role::DeadLetter },
                    label: key.into(),
                    span: entry.key_span.clone(),
                    node,
                }),
                _ => {}
            }
        }
        slots
    }
}

/// Reads a YAML file that is no pipeline: its tree, nothing put in, and the faults met on the way.
pub fn parse_plain(file: &Arc<SourceFile>) -> (Option<Node>, Vec<Diagnostic>) {
    yaml::parse(file, &file.text)
}
