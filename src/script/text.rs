//! A script in the settings of a component: in place, or in a file of its own.
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    diagnostic::{Fault, ScriptPlace},
    spec::{Section, Site},
};

/// A Rhai script.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ScriptText {
    /// The script itself.
    Inline(String),
    /// A file that holds the script.
    File(ScriptFile),
}

/// A file that holds a Rhai script.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptFile {
    /// Path of the script. A relative one starts at the folder of the pipeline file.
    pub file: PathBuf,
}

impl ScriptText {
    /// The setting that names the script's file, when it has one.
    pub fn field(&self) -> Option<&'static str> {
        matches!(self, Self::File(_)).then_some("file")
    }

    /// Compiles it with `compile`, which is `Mapping::compile` or `Condition::compile`.
    ///
    /// # Errors
    /// The file cannot be read, or the faults of the script, with line and column: for one in a file, in the setting that
    /// names it.
    pub fn compile<T>(
        &self,
        section: &Section,
        compile: impl Fn(&str, Site) -> Result<T, Vec<Fault>>,
    ) -> Result<T, Vec<Fault>> {
        let file = match self {
            Self::Inline(source) => return compile(source, section.script("")),
            Self::File(script) => section.folder.join(&script.file),
        };
        let source = section.texts.read(&file).map_err(|error| {
            let title = format!("cannot read the script `{}`: {error}", file.display());
            let fault = Fault::new("unreadable-script", "file", title).label("this file");
            vec![fault.help("relative paths start at the folder of the pipeline file")]
        })?;
        let place = ScriptPlace { file: file.display().to_string().into(), line: 1, column: 1, exact: true };
        let site = Site { place, ..section.script("") };
        compile(&source, site).map_err(|faults| faults.into_iter().map(|fault| fault.within("file")).collect())
    }
}
