//! Every whole pipeline that the docs show is one that `streamer lint` finds no error in, and its tests pass.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn pages(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            out.push(path);
        }
    }
}

/// The yaml blocks of a page that have inputs and outputs, with the line they start at.
fn pipelines(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut block {
            None if line == "```yaml" => block = Some((number + 2, String::new())),
            None => {}
            Some(_) if line == "```" => out.extend(block.take()),
            Some((_, text)) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    out.retain(|(_, text)| text.contains("\ninputs:") && text.contains("\noutputs:"));
    out
}

#[test]
fn every_pipeline_in_the_docs_is_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("services/README.md")];
    pages(&root.join("docs"), &mut files);
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, mut tested) = (0, 0);
    for file in files {
        for (line, text) in pipelines(&fs::read_to_string(&file).unwrap()) {
            let copy = folder.path().join("pipeline.yaml");
            let has_tests = text.contains("\ntests:");
            fs::write(&copy, text).unwrap();
            let lint = Command::new(env!("CARGO_BIN_EXE_streamer")).arg("lint").arg(&copy).output().unwrap();
            let said = String::from_utf8_lossy(&lint.stdout);
            assert!(lint.status.success(), "the pipeline at {}:{line} has faults:\n{said}", file.display());
            seen += 1;
            if has_tests {
                let test = Command::new(env!("CARGO_BIN_EXE_streamer")).arg("test").arg(&copy).output().unwrap();
                let said = String::from_utf8_lossy(&test.stdout);
                assert!(test.status.success(), "the tests at {}:{line} fail:\n{said}", file.display());
                tested += 1;
            }
        }
    }
    assert!(seen >= 4, "README, concepts, mapping and testing show one each, but only {seen} were found");
    assert!(tested >= 2, "mapping and testing show tests, but only {tested} were found");
}
