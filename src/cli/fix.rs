//! `streamer lint --fix`: writes corrections into the files, and shows what it changed.
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use similar::TextDiff;

use super::{colour, eprint, files, print};
use crate::{
    diagnostic::{Diagnostic, SourceFile, fixed},
    lint::lint,
};

/// Corrections bring new ones to light: a component whose name is right now has settings that can be checked.
const ROUNDS_MAX: usize = 10;

/// What became of the files: texts before and after, by path.
struct Changes(BTreeMap<String, (String, String)>);

/// Corrects the files that are named, or only shows what would be changed. Answers what is left, with the number of
/// files.
pub(super) fn run(named: &files::Named, write: bool) -> anyhow::Result<(Vec<Diagnostic>, usize)> {
    anyhow::ensure!(
        !named.files.iter().any(|file| file.as_os_str() == "-"),
        "standard input cannot be corrected; name a file"
    );
    let mut changes = Changes(BTreeMap::new());
    let mut left = (Vec::new(), 0);
    for _ in 0..ROUNDS_MAX {
        let read = named.read_changed(&changes.now())?;
        left = (read.own(lint(&read.documents, &read.registry)), read.files());
        if !changes.add(&left.0) {
            break;
        }
    }
    let count = changes.0.len();
    for (path, (before, after)) in &changes.0 {
        print(&diff(path, before, after))?;
        if write {
            replace(Path::new(path), before, after)?;
        }
    }
    let files = format!("{count} file{}", if count == 1 { "" } else { "s" });
    eprint(&match (count, write) {
        (0, _) => "nothing to correct\n".to_owned(),
        (_, true) => format!("corrected {files}\n"),
        (_, false) => format!("would correct {files}; nothing was written\n"),
    });
    Ok(left)
}

impl Changes {
    fn now(&self) -> BTreeMap<PathBuf, String> {
        self.0.iter().map(|(path, (_, after))| (path.into(), after.clone())).collect()
    }

    /// Takes the corrections of one round; false when there are none.
    fn add(&mut self, found: &[Diagnostic]) -> bool {
        let mut any = false;
        let mut seen: Vec<&Arc<SourceFile>> = Vec::new();
        for file in found.iter().map(|found| &found.file) {
            if seen.iter().any(|other| other.path == file.path) {
                continue;
            }
            seen.push(file);
            if let Some(text) = fixed(file, found) {
                any = true;
                let before = self.0.get(&file.path).map_or_else(|| file.text.clone(), |(before, _)| before.clone());
                self.0.insert(file.path.clone(), (before, text));
            }
        }
        any
    }
}

fn diff(path: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let text = diff.unified_diff().context_radius(3).header(&format!("a/{path}"), &format!("b/{path}")).to_string();
    if !colour::stdout() {
        return text;
    }
    let paint = |line: &str| match line.chars().next() {
        Some('-') => format!("\x1b[31m{line}\x1b[0m\n"),
        Some('+') => format!("\x1b[32m{line}\x1b[0m\n"),
        Some('@') => format!("\x1b[36m{line}\x1b[0m\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(paint).collect()
}

/// Puts the new text in place of the old one: a reader finds one or the other, never a part.
fn replace(path: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    // Behind a link stands the file that is meant.
    let path = path.canonicalize().with_context(cannot)?;
    let now = fs::read_to_string(&path).with_context(cannot)?;
    // A byte-order mark stays.
    let mark = &now[..now.len() - now.strip_prefix('\u{feff}').unwrap_or(&now).len()];
    anyhow::ensure!(
        &now[mark.len()..] == before,
        "`{}` has changed meanwhile; nothing was written to it",
        path.display()
    );
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&draft)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(mark.as_bytes())?;
        file.write_all(after.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&draft))).with_context(cannot)
}
