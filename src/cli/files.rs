//! Pipeline files as named on the command line: files, folders, and patterns the shell did not open.
use std::{
    collections::{BTreeMap, HashSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    config::{Document, Environment},
    diagnostic::{Diagnostic, SourceFile},
    plugin,
    registry::Registry,
    spec::Texts,
};

/// Where pipelines are when nothing is named.
const DEFAULT: &str = "pipelines";
/// Most that is read of standard input.
const STDIN_BYTES_MAX: u64 = 64 << 20;

/// The pipeline files of a command.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Named {
    /// Files, folders or patterns such as `teams/**/*.yaml`; the folder `pipelines` when none is named
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub plugins: PluginFolder,
}

/// What is named, read.
pub(super) struct Read {
    pub registry: Registry,
    pub documents: Vec<Document>,
    /// Files of plugins that are named.
    pub plugins: Vec<PathBuf>,
}

impl Read {
    /// How many files are named.
    pub fn files(&self) -> usize {
        self.documents.len() + self.plugins.len()
    }

    /// What of `found` belongs to what is named: the pipelines with all their plugins, or some plugins alone.
    pub fn own(&self, mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if self.documents.is_empty() {
            let is_same =
                |path: &PathBuf, other: &str| path.canonicalize().ok() == Path::new(other).canonicalize().ok();
            found.retain(|found| self.plugins.iter().any(|plugin| is_same(plugin, &found.file.path)));
        }
        found
    }
}

/// Where plugins are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PluginFolder {
    /// Folder of plugins; without it, `plugins` beside the pipeline files or their folder, or here
    #[arg(long, env = "STREAMER_PLUGINS", value_name = "FOLDER")]
    pub plugins: Option<PathBuf>,
}

impl Named {
    /// Reads every file that is named, and the plugins that belong to them.
    ///
    /// # Errors
    /// A file or folder is not there or cannot be read, or a pattern or folder holds no pipeline.
    pub fn read(&self) -> anyhow::Result<(Registry, Vec<Document>)> {
        let paths = self.paths()?;
        let registry = self.plugins.registry(&paths)?;
        let environment = Environment::of_process();
        let open = |path: &PathBuf| {
            Document::open(path, &environment, &registry).with_context(|| format!("cannot read `{}`", path.display()))
        };
        let documents = paths.iter().map(open).collect::<anyhow::Result<_>>()?;
        Ok((registry, documents))
    }

    /// The same, also from pages of Markdown, whose blocks of `yaml` are read, and from standard input, which is `-`.
    ///
    /// # Errors
    /// As `read`; also a page without a pipeline, or a plugin.
    pub fn read_all(&self) -> anyhow::Result<(Registry, Vec<Document>)> {
        let Read { registry, documents, plugins } = self.read_changed(&BTreeMap::new())?;
        if let Some(plugin) = plugins.first() {
            anyhow::bail!("`{}` is a plugin, not a pipeline; `streamer lint` checks it", plugin.display());
        }
        Ok((registry, documents))
    }

    /// The same, also plugins, with other texts for some of the files.
    ///
    /// # Errors
    /// As `read`; also a page without a pipeline.
    pub fn read_changed(&self, texts: &BTreeMap<PathBuf, String>) -> anyhow::Result<Read> {
        let folders =
            self.plugins.folders(&self.files).iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        let paths = find(&self.files, &folders)?;
        let registry = self.plugins.load(&paths, Registry::built_in().with_texts(Texts(texts.clone())))?;
        let environment = Environment::of_process();
        let (mut documents, mut plugins) = (Vec::new(), Vec::new());
        for path in &paths {
            let cannot = || format!("cannot read `{}`", path.display());
            if path.canonicalize().is_ok_and(|path| path.parent().is_some_and(|folder| folders.contains(folder))) {
                plugins.push(path.clone());
            } else if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().take(STDIN_BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
                anyhow::ensure!((text.len() as u64) < STDIN_BYTES_MAX, "standard input is longer than 64 MiB");
                let file = SourceFile { path: "<stdin>".to_owned(), text };
                documents.push(Document::read(file, &environment, &registry));
            } else if path.extension().is_some_and(|ending| ending == "md") {
                let text = match texts.get(path) {
                    Some(text) => text.clone(),
                    None => std::fs::read_to_string(path).with_context(cannot)?,
                };
                let file = SourceFile { path: path.display().to_string(), text };
                documents.extend(Document::read_markdown(file, &environment, &registry));
            } else if path.extension().is_some_and(|ending| ending == "rhai") {
                anyhow::bail!(
                    "`{0}` is a script: name the pipeline that has it under `file:`, and both are checked; a module of \
                     functions belongs into a folder `plugins`",
                    path.display()
                );
            } else if let Some(text) = texts.get(path) {
                let file = SourceFile { path: path.display().to_string(), text: text.clone() };
                documents.push(Document::read(file, &environment, &registry));
            } else {
                documents.push(Document::open(path, &environment, &registry).with_context(cannot)?);
            }
        }
        anyhow::ensure!(
            !documents.is_empty() || !plugins.is_empty(),
            "no page has a pipeline: a block of `yaml` with `inputs:` and `outputs:`"
        );
        Ok(Read { registry, documents, plugins })
    }

    /// The files that are named.
    ///
    /// # Errors
    /// As `read`.
    pub fn paths(&self) -> anyhow::Result<Vec<PathBuf>> {
        find(&self.files, &HashSet::new())
    }
}

impl PluginFolder {
    /// Every component, those of the plugins included that belong to `pipelines`.
    ///
    /// # Errors
    /// A folder or file of plugins cannot be read.
    pub fn registry(&self, pipelines: &[PathBuf]) -> anyhow::Result<Registry> {
        self.load(pipelines, Registry::built_in())
    }

    fn folders(&self, pipelines: &[PathBuf]) -> Vec<PathBuf> {
        match &self.plugins {
            Some(folder) => vec![folder.clone()],
            None => plugin::folders(pipelines),
        }
    }

    fn load(&self, pipelines: &[PathBuf], registry: Registry) -> anyhow::Result<Registry> {
        let folders = self.folders(pipelines);
        let shown = || folders.iter().map(|folder| format!("`{}`", folder.display())).collect::<Vec<_>>().join(", ");
        registry.with_plugins(&folders).with_context(|| format!("cannot read the plugins in {}", shown()))
    }
}

/// The files that are named, in folders of `plugins` also modules.
fn find(named: &[PathBuf], plugins: &HashSet<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    if named.is_empty() {
        let folder = Path::new(DEFAULT);
        anyhow::ensure!(
            folder.is_dir(),
            "no files named, and there is no folder `{DEFAULT}` here; name the files to read, or let `streamer new \
             mqtt/map/kafka` write one to start from"
        );
        return in_folder(folder, PIPELINES);
    }
    let mut out: Vec<PathBuf> = Vec::new();
    for name in named {
        let found = if name.is_dir() {
            let is_of_plugins = name.canonicalize().is_ok_and(|folder| plugins.contains(&folder));
            in_folder(name, if is_of_plugins { PLUGINS } else { PIPELINES })?
        } else if name.exists() || !name.to_string_lossy().contains(['*', '?']) {
            vec![name.clone()]
        } else {
            let found = matching(name);
            anyhow::ensure!(!found.is_empty(), "no file matches `{}`", name.display());
            found
        };
        for path in found {
            if !out.contains(&path) {
                out.push(path);
            }
        }
    }
    Ok(out)
}

/// Endings of files.
const PIPELINES: &[&str] = &["yaml", "yml"];
const PLUGINS: &[&str] = &["yaml", "yml", "rhai"];

fn in_folder(folder: &Path, endings: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
    let fits = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        path.is_file() && endings.contains(&ending)
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(fits).collect();
    anyhow::ensure!(!paths.is_empty(), "no `.yaml` files in the folder `{}`", folder.display());
    paths.sort();
    Ok(paths)
}

/// Deepest folder that `**` looks into.
const DEPTH_MAX: usize = 32;

/// Files whose path matches a pattern with `*` and `?` in any part; a part `**` stands for any number of folders.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        if text == "**" {
            found = found.into_iter().flat_map(|folder| below(folder, DEPTH_MAX)).collect();
            continue;
        }
        let mut next = Vec::new();
        for folder in &found {
            let start = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            for entry in std::fs::read_dir(start).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if (text.starts_with('.') || !name.starts_with('.')) && like(&text, &name) {
                    next.push(folder.join(&*name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    found.sort();
    found
}

/// The folder and all below it, but for hidden ones and links.
fn below(folder: PathBuf, depth: usize) -> Vec<PathBuf> {
    let start = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
    let entries = std::fs::read_dir(start).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let visible = folders.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let inner: Vec<PathBuf> = visible.map(|entry| folder.join(entry.file_name())).collect();
    let deeper = inner.into_iter().filter(|_| depth > 0).flat_map(|inner| below(inner, depth - 1));
    let deeper: Vec<PathBuf> = deeper.collect();
    std::iter::once(folder).chain(deeper).collect()
}

/// `*` stands for any characters, `?` for one.
fn like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            // Let the last star take one character more.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("a?.yaml", "a1.yaml", true),
            ("a?.yaml", "a.yaml", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("*a*b", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(like(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_folders_and_patterns_are_opened_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b.yaml", "a.yml", "note.txt", ".hidden.yaml"] {
            std::fs::write(path(name), "").unwrap();
        }
        assert_eq!(
            find(&[folder.path().into()], &HashSet::new()).unwrap(),
            [path(".hidden.yaml"), path("a.yml"), path("b.yaml")]
        );
        assert_eq!(find(&[path("*.yaml"), path("b.yaml")], &HashSet::new()).unwrap(), [path("b.yaml")]);
        assert!(find(&[path("*.json")], &HashSet::new()).is_err());
        assert_eq!(
            find(&[path("absent.yaml")], &HashSet::new()).unwrap(),
            [path("absent.yaml")],
            "reading it says that it is absent"
        );
        std::fs::create_dir_all(path("x/y")).unwrap();
        std::fs::create_dir_all(path(".git")).unwrap();
        for name in ["x/y/c.yaml", "x/d.yaml", ".git/e.yaml"] {
            std::fs::write(path(name), "").unwrap();
        }
        let all = [path("b.yaml"), path("x/d.yaml"), path("x/y/c.yaml")];
        assert_eq!(
            find(&[path("**/*.yaml")], &HashSet::new()).unwrap(),
            all,
            "`**` is also no folder, and never a hidden one"
        );
        assert_eq!(find(&[path("x/**/c.*")], &HashSet::new()).unwrap(), [path("x/y/c.yaml")]);
    }
}
