//! Plugins: files in a folder `plugins` that add to what pipelines know, without compiling anything.
//!
//! `NAME.rhai` is a module: its functions are called `NAME::function(…)` in any script. `NAME.yaml` declares a step with
//! parameters. Both are checked when they are loaded; what has faults is reported and left out.
mod step;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use step::{PluginFile, PluginStep};

use crate::{
    diagnostic::{Diagnostic, Fault, SourceFile, byte_offset},
    script::{ModuleFunction, check_module_file},
    spec::{Module, Modules, Texts},
};

/// Everything that is loaded.
#[derive(Debug, Default)]
pub struct Plugins {
    pub modules: Arc<Modules>,
    /// What the modules offer, sorted.
    pub functions: Vec<ModuleFunction>,
    /// Sorted by name.
    pub steps: Vec<Arc<PluginStep>>,
    /// What is wrong, or most likely wrong, with some of the files.
    pub faults: Vec<Diagnostic>,
    /// The folders that were searched and the files that were found, to be watched.
    pub files: Vec<PathBuf>,
}

/// The folders of plugins that belong to pipeline files: `plugins` beside a file, or beside the file's folder; and in the
/// working directory. Only those that exist, each once.
pub fn folders(pipelines: &[PathBuf]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut seen = Vec::new();
    let beside = pipelines.iter().filter_map(|file| file.parent()).flat_map(|folder| {
        let above = if folder.as_os_str().is_empty() { PathBuf::from("..") } else { folder.join("..") };
        // Paths without `..` read better.
        let above = folder.parent().filter(|_| folder.file_name().is_some()).map_or(above, Path::to_owned);
        [folder.join("plugins"), above.join("plugins")]
    });
    for folder in beside.chain([PathBuf::from("plugins")]) {
        let Ok(real) = folder.canonicalize() else { continue };
        if real.is_dir() && !seen.contains(&real) {
            seen.push(real);
            found.push(folder);
        }
    }
    found
}

impl Plugins {
    /// Loads every plugin of some folders, read through `texts`. `built_in` are the names that steps have already.
    ///
    /// # Errors
    /// A folder or file cannot be read.
    pub fn load(folders: &[PathBuf], built_in: &[&str], texts: &Texts) -> std::io::Result<Self> {
        let mut plugins = Self { files: folders.to_vec(), ..Self::default() };
        let (mut modules, mut steps) = (Vec::new(), Vec::new());
        for folder in folders {
            let mut paths: Vec<PathBuf> =
                std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
            paths.sort();
            for path in paths {
                let kind = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                if !matches!(kind, "rhai" | "yaml" | "yml") || !path.is_file() {
                    continue;
                }
                let text = texts.read(&path)?;
                let file = Arc::new(SourceFile { path: path.display().to_string(), text });
                match kind {
                    "rhai" => modules.push((file, path.clone())),
                    _ => steps.push(file),
                }
                plugins.files.push(path);
            }
        }
        plugins.add_modules(modules);
        for file in steps {
            match PluginStep::read(&file, &plugins.modules) {
                Ok((step, notes)) => {
                    plugins.add_step(step, &file, built_in);
                    plugins.faults.extend(notes);
                }
                Err(faults) => plugins.faults.extend(faults),
            }
        }
        plugins.steps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(plugins)
    }

    /// The texts of the plugins that a pipeline uses: of the steps it names, and of the modules that its scripts, or those
    /// of these plugins, call.
    pub fn used_by(&self, scripts: &[String], steps: &BTreeSet<&str>) -> Vec<String> {
        let declared =
            self.steps.iter().filter(|step| steps.contains(step.name.as_str())).map(|step| step.text.clone());
        let mut texts: Vec<String> = declared.collect();
        let mut rest: Vec<String> = scripts.iter().chain(&texts).cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(text) = rest.pop() {
            for module in &self.modules.0 {
                if text.contains(&format!("{}::", module.name)) && seen.insert(&module.name) {
                    texts.push(module.text.clone());
                    rest.push(module.text.clone());
                }
            }
        }
        texts.sort();
        texts
    }

    fn add_modules(&mut self, files: Vec<(Arc<SourceFile>, PathBuf)>) {
        let mut modules: Vec<(Module, Arc<SourceFile>)> = Vec::new();
        for (file, path) in files {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_lowercase());
            let fault = |code, title: String, help: &str| {
                Diagnostic::error(code, &file, 0..0, title).with_label("this file").with_help(help)
            };
            if !is_name {
                let title = format!("`{name}` cannot be the name of a module");
                self.faults.push(fault(
                    "bad-name",
                    title,
                    "scripts call it by its name: use small letters, digits and `_`",
                ));
            } else if let Some((other, _)) = modules.iter().find(|(module, _)| module.name == name) {
                let title = format!("module `{name}` is there twice: also in `{}`", other.file);
                self.faults.push(fault("same-name", title, "rename one of the files"));
            } else {
                modules.push((Module { name, file: file.path.clone(), text: file.text.clone() }, file));
            }
        }
        modules.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let all = Modules(modules.iter().map(|(module, _)| module.clone()).collect());
        for (module, file) in &modules {
            let (functions, faults) = check_module_file(module, &all);
            self.functions.extend(functions);
            self.faults.extend(faults.iter().map(|fault| diagnose(fault, file)));
        }
        self.functions.sort_by(|a, b| a.signature.cmp(&b.signature));
        self.modules = Arc::new(all);
    }

    fn add_step(&mut self, step: PluginStep, file: &Arc<SourceFile>, built_in: &[&str]) {
        let taken = built_in.contains(&step.name.as_str());
        let other = self.steps.iter().find(|other| other.name == step.name);
        if !taken && other.is_none() {
            self.steps.push(Arc::new(step));
            return;
        }
        let title = match other {
            Some(other) => format!("step `{}` is there twice: also in `{}`", step.name, other.file),
            None => format!("step `{}` is built in", step.name),
        };
        let fault = Diagnostic::error("same-name", file, step.name_span, title).with_label("taken");
        self.faults.push(fault.with_help("choose another name"));
    }
}

/// A fault of a script that is a file of its own.
fn diagnose(fault: &Fault, file: &Arc<SourceFile>) -> Diagnostic {
    let (line, column) = fault.at.unwrap_or((1, 1));
    let start = byte_offset(&file.text, line, column);
    let rest = &file.text[start..];
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let one = rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    let mut diagnostic = Diagnostic::error(fault.code, file, start..start + word.max(one), fault.title.clone());
    diagnostic.help.clone_from(&fault.help);
    diagnostic.severity = fault.severity;
    let diagnostic = diagnostic.with_label(fault.label.clone());
    match &fault.replace {
        Some((word, by)) => diagnostic.with_word_fix(word, by),
        None => diagnostic,
    }
}
