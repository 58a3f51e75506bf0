//! What a component declares about itself: the one source of lint, docs, the JSON Schema and `streamer list`.
use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use crate::diagnostic::{Fault, PathSegment, ScriptPlace};

/// A component of one kind: `T` is `dyn Input`, `dyn Step` or `dyn Output`.
pub struct Spec<T: ?Sized + 'static> {
    /// The key in YAML. Inputs and outputs are nouns, steps are verbs.
    pub name: &'static str,
    /// One sentence, third person.
    pub summary: &'static str,
    /// YAML of a working section, as it stands under the component's key. Tests lint it.
    pub example: &'static str,
    /// Fields that hold Rhai scripts: `""` for the whole section, else the field's name, with `.*` at its end for every
    /// key below it. `${…}` is Rhai's own there, so
    /// no environment variables are put in.
    pub scripts: &'static [&'static str],
    /// Fields, types, ranges, docs and defaults, from the config type.
    pub schema: fn() -> schemars::Schema,
    /// Checks the section and makes the component. No network, no files written.
    pub build: fn(&Section) -> Result<Box<T>, Vec<Fault>>,
}

/// A component's section of a pipeline file, environment variables already put in.
#[derive(Clone, Debug)]
pub struct Section {
    /// Name of the pipeline.
    pub pipeline: Arc<str>,
    /// The user's label; for a step its place in the list: `steps[0]`.
    pub label: Arc<str>,
    /// The folder of the pipeline file: relative paths of settings start here.
    pub folder: std::path::PathBuf,
    /// What stands under the component's key.
    pub value: serde_yaml::Value,
    /// Where the scripts of this section stand, by field path joined with dots.
    pub scripts: HashMap<String, ScriptPlace>,
    /// What scripts may call by `module::function()`.
    pub modules: Arc<Modules>,
    /// How files of scripts are read.
    pub texts: Arc<Texts>,
}

/// Texts that count in place of what stands in their files: corrections that are not written yet.
#[derive(Debug, Default)]
pub struct Texts(pub BTreeMap<PathBuf, String>);

impl Texts {
    /// The text of a file, without a byte-order mark.
    ///
    /// # Errors
    /// The file cannot be read, or is not UTF-8.
    pub fn read(&self, path: &Path) -> io::Result<String> {
        if let Some(text) = self.0.get(path) {
            return Ok(text.clone());
        }
        let text = std::fs::read_to_string(path)?;
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

/// Modules of functions for scripts, sorted by name.
#[derive(Debug, Default)]
pub struct Modules(pub Vec<Module>);

/// One module: a file of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// Its path, as diagnostics show it.
    pub file: String,
    pub text: String,
}

/// A script's surroundings: where it stands, and what it finds besides the message.
#[derive(Clone, Debug)]
pub struct Site {
    pub place: ScriptPlace,
    pub modules: Arc<Modules>,
    /// What the script knows as `params`: the settings of a step that a plugin declares.
    pub params: Option<Arc<serde_json::Value>>,
}

impl From<ScriptPlace> for Site {
    fn from(place: ScriptPlace) -> Self {
        Self { place, modules: Arc::default(), params: None }
    }
}

impl Section {
    /// A section outside any file, for tests and tools.
    ///
    /// # Panics
    /// When `yaml` is not YAML.
    pub fn from_yaml(yaml: &str) -> Self {
        Self {
            pipeline: "test".into(),
            label: "test".into(),
            folder: ".".into(),
            value: serde_yaml::from_str(yaml).expect("valid YAML"),
            scripts: HashMap::new(),
            modules: Arc::default(),
            texts: Arc::default(),
        }
    }

    /// The surroundings of the script in `field`; for a section outside any file, it stands at its own line 1.
    pub fn script(&self, field: &str) -> Site {
        let place = self.scripts.get(field).cloned().unwrap_or_else(|| ScriptPlace {
            file: format!("{}/{}", self.pipeline, self.label).into(),
            line: 1,
            column: 1,
            exact: true,
        });
        Site { modules: self.modules.clone(), ..place.into() }
    }
}

/// Reads a section into a component's config type.
///
/// # Errors
/// The first field that does not fit. Lint reports these faults with the schema's help first; this is the last check.
pub fn decode<C: DeserializeOwned>(section: &Section) -> Result<C, Vec<Fault>> {
    serde_path_to_error::deserialize(section.value.clone()).map_err(|error| {
        let path = error.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(PathSegment::Index(*index)),
            serde_path_to_error::Segment::Map { key } => Some(PathSegment::Key(key.clone())),
            serde_path_to_error::Segment::Enum { variant } => Some(PathSegment::Key(variant.clone())),
            serde_path_to_error::Segment::Unknown => None,
        });
        let mut fault = Fault::new("invalid-value", "", error.inner().to_string());
        fault.path = path.collect();
        vec![fault]
    })
}

/// The JSON Schema of a config type.
pub fn schema_of<C: schemars::JsonSchema>() -> schemars::Schema {
    schemars::schema_for!(C)
}
