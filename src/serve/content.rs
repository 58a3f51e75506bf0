//! What a pipeline is made of, to tell whether it has changed: its resolved settings, the files they name, and the
//! plugins it uses. Times and names of files do not matter: a `touch` changes nothing.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    config::{Document, Node, Role},
    registry::Registry,
};

/// A digest of all that makes a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content(u128);

/// Endings of files that settings name and that are read when a pipeline is built: scripts, statements, certificates,
/// schemas. Files of data are not among them.
pub(super) const ENDINGS: &[&str] = &["avsc", "cer", "crt", "key", "pem", "proto", "rhai", "sql"];

impl Content {
    /// That of a pipeline file, with the plugins of `registry`.
    pub fn of(document: &Document, registry: &Registry) -> Self {
        let mut digest = Xxh3::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        // With the environment put in: a secret in a file that has changed is a change, too.
        let settings = document.root.as_ref().map(|root| serde_yaml::to_string(&root.to_value()).unwrap_or_default());
        add(settings.unwrap_or_default().as_bytes());
        add(document.name().as_bytes());
        let mut texts = vec![document.file.text.clone()];
        for file in files(document) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            add(&bytes);
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        let steps: BTreeSet<&str> = document
            .slots()
            .iter()
            .filter(|slot| slot.role == Role::Step)
            .flat_map(|slot| slot.components())
            .map(|entry| entry.key.as_str())
            .collect();
        for text in registry.plugins().used_by(&texts, &steps) {
            add(text.as_bytes());
        }
        Self(digest.digest128())
    }
}

/// The files that settings of a pipeline name and that are read when it is built.
pub(super) fn files(document: &Document) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(root) = &document.root {
        // Tests name files, too, but they are no part of what runs.
        for entry in root.entries().iter().filter(|entry| entry.key != "tests") {
            collect(&entry.value, document.folder(), &mut found);
        }
    }
    found
}

fn collect(node: &Node, folder: &Path, found: &mut Vec<PathBuf>) {
    let named = node.text().filter(|text| text.len() < 4096 && !text.contains('\n')).map(|text| folder.join(text));
    let is_read = |path: &PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
    };
    found.extend(named.filter(is_read));
    node.items().iter().for_each(|item| collect(item, folder, found));
    node.entries().iter().for_each(|entry| collect(&entry.value, folder, found));
}
