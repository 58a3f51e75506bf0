//! What the docs say is so: every whole pipeline in them is clean and its tests pass, every link leads somewhere, every
//! page is in the book, and what they quote of the program's messages stands in its source.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, out);
        } else if path.extension().is_some_and(|found| found == ending) {
            out.push(path);
        }
    }
}

/// The pages of the book, by their path below `docs/`.
fn pages() -> Vec<String> {
    let (docs, mut found) = (root().join("docs"), Vec::new());
    files(&docs, "md", &mut found);
    let mut pages: Vec<_> =
        found.iter().map(|path| path.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned()).collect();
    pages.retain(|page| page != "SUMMARY.md");
    pages.sort();
    pages
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// All of the Markdown that readers are sent to.
fn documents() -> Vec<PathBuf> {
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "services/README.md", "docs/SUMMARY.md"];
    let docs = pages().into_iter().map(|page| root().join("docs").join(page));
    others.iter().map(|name| root().join(name)).chain(docs).collect()
}

/// A fenced block of a page.
struct Block {
    language: String,
    /// Its first line in the page, from 1.
    line: usize,
    text: String,
    /// What the line "Save as `…`" before it says.
    save_as: Option<String>,
}

impl Block {
    fn is_pipeline(&self) -> bool {
        self.language == "yaml" && self.text.contains("\ninputs:") && self.text.contains("\noutputs:")
    }

    fn has_tests(&self) -> bool {
        self.text.contains("\ntests:")
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut out, mut open, mut save_as) = (Vec::new(), None::<Block>, None);
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let (language, save_as) = (language.to_owned(), save_as.take());
                open = Some(Block { language, line: index + 2, text: String::new(), save_as });
            }
            (None, None) => {
                let named = line.strip_prefix("Save as `").and_then(|rest| rest.split('`').next());
                save_as = named.map(str::to_owned).or(save_as);
            }
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    out
}

/// A user's folder: the shipped plugins, and the files that a page tells its reader to save.
fn project(blocks: &[Block]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pipelines", "plugins"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for plugin in fs::read_dir(root().join("plugins")).unwrap() {
        let plugin = plugin.unwrap();
        fs::copy(plugin.path(), folder.path().join("plugins").join(plugin.file_name())).unwrap();
    }
    for block in blocks.iter().filter(|block| !block.is_pipeline()) {
        if let Some(name) = &block.save_as {
            fs::write(folder.path().join(name), &block.text).unwrap();
        }
    }
    folder
}

fn streamer(folder: &Path, command: &str, file: &Path) -> Output {
    let mut streamer = Command::new(env!("CARGO_BIN_EXE_streamer"));
    streamer.arg(command).arg(file).current_dir(folder).output().unwrap()
}

#[test]
fn every_pipeline_in_the_docs_is_clean_and_its_tests_pass() {
    let (mut seen, mut tested) = (0, 0);
    for document in documents() {
        let blocks = blocks(&fs::read_to_string(&document).unwrap());
        if !blocks.iter().any(Block::is_pipeline) {
            continue;
        }
        let folder = project(&blocks);
        for block in blocks.iter().filter(|block| block.is_pipeline()) {
            let place = format!("{}:{}", document.display(), block.line);
            let file = folder.path().join("pipelines/pipeline.yaml");
            fs::write(&file, &block.text).unwrap();
            let lint = streamer(folder.path(), "lint", &file);
            let said = String::from_utf8_lossy(&lint.stdout);
            assert!(lint.status.success(), "the pipeline at {place} has faults:\n{said}");
            seen += 1;
            if block.has_tests() {
                let test = streamer(folder.path(), "test", &file);
                let said = String::from_utf8_lossy(&test.stdout);
                assert!(test.status.success(), "the tests at {place} fail:\n{said}");
                tested += 1;
            }
        }
    }
    assert!(seen >= 35 && tested >= 32, "only {seen} pipelines were found, {tested} of them with tests");
}

#[test]
fn every_recipe_is_tested() {
    let recipes = pages().into_iter().filter(|page| page.starts_with("cookbook/") && page != "cookbook/README.md");
    let recipes: Vec<String> = recipes.collect();
    assert!(recipes.len() >= 20, "{recipes:?}");
    for recipe in &recipes {
        let pipelines: Vec<Block> = blocks(&page(recipe)).into_iter().filter(Block::is_pipeline).collect();
        assert!(!pipelines.is_empty(), "{recipe} shows no pipeline");
        for block in pipelines {
            assert!(block.has_tests(), "docs/{recipe}:{} has no `tests:`", block.line);
        }
        let name = recipe.strip_prefix("cookbook/").unwrap();
        assert!(page("cookbook/README.md").contains(&format!("]({name})")), "{recipe} is not in cookbook/README.md");
    }
}

/// Lines of a page outside of its blocks, without what stands in backticks.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Spans of two backticks may hold one.
            for (index, part) in line.replace("``", "`").split('`').enumerate() {
                out.push_str(if index % 2 == 0 { part } else { "code" });
            }
        }
        out.push('\n');
    }
    out
}

/// The targets of `[text](target)`, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let prose = prose(text);
    for (at, _) in prose.match_indices("](") {
        let target = prose[at + 2..].split(')').next().unwrap_or_default();
        out.push((prose[..at].matches('\n').count() + 1, target.to_owned()));
    }
    out
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        out.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    out
}

#[test]
fn anchors_are_those_of_the_web() {
    let page = "# What it costs\n```sh\n# no heading\n```\n## `num(x, default)`\n### A & B\n";
    assert_eq!(anchors(page), ["what-it-costs", "numx-default", "a--b"].map(str::to_owned).into());
    assert_eq!(links("a `[no](link)` [yes](x.md#y)\n```\n[no](z)\n```\n"), [(1, "x.md#y".to_owned())]);
}

#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (line, target) in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
            let file = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let place = format!("{}:{line}: `{target}`", document.display());
            if !file.exists() {
                wrong.push(format!("{place}: there is no such file"));
            } else if let Some(anchor) = anchor
                && !anchors(&fs::read_to_string(&file).unwrap()).contains(anchor)
            {
                wrong.push(format!("{place}: that page has no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(followed > 100, "only {followed} links were found");
}

/// The chapters that follow from the files there are: the reference, which is made from the code, and the decisions.
fn generated(part: &str, prefix: &str, first: &str) -> String {
    let title = |name: &str| page(name).lines().next().unwrap().trim_start_matches("# ").to_owned();
    let mut out = format!("# {part}\n\n- [{}]({first})\n", title(first));
    for name in pages().iter().filter(|name| name.starts_with(prefix) && *name != first) {
        out.push_str(&format!("  - [{}]({name})\n", title(name)));
    }
    out
}

#[test]
fn every_page_is_in_the_book() {
    let path = root().join("docs/SUMMARY.md");
    let summary = fs::read_to_string(&path).unwrap();
    let hand_written = summary.split("\n# Reference\n").next().unwrap().trim_end();
    let reference = generated("Reference", "reference/", "reference/README.md");
    let design = generated("Design", "adr/", "architecture.md");
    let now = format!("{hand_written}\n\n{reference}\n{design}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap();
    assert!(stored == now, "docs/SUMMARY.md is stale; write it with `make docs`");
    let listed: Vec<String> = links(&stored).into_iter().map(|(_, target)| target).collect();
    for page in pages() {
        let times = listed.iter().filter(|target| **target == page).count();
        assert_eq!(times, 1, "docs/{page} must be in docs/SUMMARY.md once, and is {times} times");
    }
}

#[test]
fn every_key_of_a_pipeline_file_is_explained() {
    let text = fs::read_to_string(root().join("schemas/pipeline.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = |of: &serde_json::Value| of["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (file, testing) = (page("pipeline-file.md"), page("testing.md"));
    for key in keys(&schema) {
        assert!(
            file.contains(&format!("| `{key}` |")) || file.contains(&format!("| `{key}.")),
            "docs/pipeline-file.md does not explain `{key}`"
        );
    }
    for key in keys(&schema["$defs"]["Limits"]) {
        assert!(file.contains(&format!("`limits.{key}`")), "docs/pipeline-file.md does not explain `limits.{key}`");
    }
    for part in ["TestCase", "TestInput", "Expected", "ExpectedLetter"] {
        for key in keys(&schema["$defs"][part]) {
            let named = [format!("`{key}`"), format!("`{key}:"), format!("….{key}`")];
            assert!(named.iter().any(|name| testing.contains(name)), "docs/testing.md does not explain `{key}`");
        }
    }
}

#[test]
fn files_that_contributors_are_sent_to_exist() {
    let mut missing = Vec::new();
    for document in ["CONTRIBUTING.md", "docs/architecture.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let outside: Vec<&str> = text.split("\n```").step_by(2).collect();
        let spans = outside.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
        let is_path = |span: &&str| {
            let starts =
                ["src/", "tests/", "docs/", "pipelines/", "plugins/"].iter().any(|start| span.starts_with(start));
            // The walk-through makes a component called `sample` up.
            starts && !span.contains(['*', ' ', '\n']) && !span.contains("sample")
        };
        let gone = spans.filter(is_path).filter(|path| !root().join(path).exists());
        missing.extend(gone.map(|path| format!("{document}: `{path}`")));
    }
    assert!(missing.is_empty(), "there is no such file: {missing:?}");
}

/// The quotes of a page: blocks of `text`, and the first column of tables headed "It says".
fn quotes(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for block in blocks(text).iter().filter(|block| block.language == "text") {
        out.extend(block.text.lines().map(|line| line.trim().to_owned()));
    }
    let mut quoting = false;
    for line in text.lines() {
        quoting = line.starts_with("| It says ") || quoting && line.starts_with('|');
        let cell = line.split(" | ").next().unwrap_or_default().trim_start_matches("| ");
        if quoting {
            out.extend(cell.split("``").skip(1).step_by(2).map(|quote| quote.trim().to_owned()));
        }
    }
    out
}

#[test]
fn quoted_messages_stand_in_the_source() {
    let mut sources = Vec::new();
    files(&root().join("src"), "rs", &mut sources);
    let mut source = String::new();
    for file in sources {
        let text = fs::read_to_string(file).unwrap();
        // Literals that go on in the next line, and what is escaped in them.
        let mut parts = text.split("\\\n");
        source.push_str(parts.next().unwrap());
        parts.for_each(|part| source.push_str(part.trim_start()));
    }
    let quotes = quotes(&page("troubleshooting.md"));
    assert!(quotes.len() >= 50, "only {} quotes were found", quotes.len());
    let mut unknown = Vec::new();
    for quote in &quotes {
        let mut rest = quote.as_str();
        if let Some((severity, after)) = quote.split_once('[')
            && ["error", "warning", "note"].contains(&severity)
        {
            let (code, after) = after.split_once("]: ").unwrap();
            if !source.contains(&format!("\"{code}\"")) {
                unknown.push(format!("`{code}` of `{quote}`"));
            }
            rest = after;
        }
        // A message is put together from parts: each must be somewhere.
        let parts = rest.split('…').flat_map(|part| part.split("; ")).flat_map(|part| part.split(": "));
        for part in parts.map(|part| part.trim_matches([' ', '`', '(', ')', ',', ':'])).filter(|part| part.len() >= 8) {
            if !source.contains(part) {
                unknown.push(format!("`{part}` of `{quote}`"));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "docs/troubleshooting.md quotes what the program does not say:\n{}",
        unknown.join("\n")
    );
}
