//! Which room may open which door: checks every `crate::` path against the table below, which is the one in
//! `docs/architecture.md`.
use std::{collections::BTreeSet, fs, path::Path};

/// Rooms in import order: a room imports only rooms above it.
const ROOMS: &[&str] = &[
    "message",
    "ack",
    "diagnostic",
    "metrics",
    "shape",
    "spec",
    "codec",
    "script",
    "archive",
    "client",
    "input",
    "step",
    "output",
    "config",
    "plugin",
    "registry",
    "lint",
    "dead_letter",
    "pipeline",
    "verify",
    "explain",
    "http",
    "serve",
    "cli",
];

/// Rooms on one floor: none of them imports another.
const SIBLINGS: &[&str] = &["input", "step", "output"];

/// Rooms that `room` may import.
fn open_to(room: &str) -> Vec<&'static str> {
    let above = ROOMS.iter().take_while(|name| **name != room).copied();
    above.filter(|name| !(SIBLINGS.contains(&room) && SIBLINGS.contains(name))).collect()
}

/// Rooms named after `crate::` in a source, with their lines; groups (`crate::{a::X, b}`) may span lines. Comments do not count.
fn rooms_named(source: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let code: String = source
        .lines()
        // Tests sit at the bottom and may look anywhere.
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n")
        .collect();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
        let mut push = |offset: usize, name: String| {
            if name.starts_with(|c: char| c.is_lowercase()) {
                let line = code[..at + "crate::".len() + offset].matches('\n').count() + 1;
                out.push((line, name));
            }
        };
        if !rest.starts_with('{') {
            push(0, word(rest));
            continue;
        }
        let mut depth = 0;
        let mut fresh = false;
        for (offset, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(c, '{' | ',') {
                fresh = true;
            } else if fresh && !c.is_whitespace() {
                push(offset, word(&rest[offset..]));
                fresh = false;
            }
        }
    }
    out
}

/// Calls `visit` with each source file: its room, its path below the repository, its text.
fn sources(folder: &Path, visit: &mut dyn FnMut(&str, &str, &str)) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, visit);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let shown = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
            let room = shown.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            visit(&room, &shown, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn rooms_import_only_rooms_above_them() {
    let mut faults = Vec::new();
    let mut unknown = BTreeSet::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |room, path, text| {
        if matches!(room, "lib" | "main") {
            return;
        }
        if !ROOMS.contains(&room) {
            unknown.insert(room.to_owned());
            return;
        }
        let open = open_to(room);
        // `tests.rs` beside a `mod.rs` is its tests.
        if path.ends_with("/tests.rs") {
            return;
        }
        for (line, to) in rooms_named(text) {
            if to != room && !open.contains(&to.as_str()) {
                faults
                    .push(format!("{path}:{line}: `{room}` may not import `{to}`; it may import: {}", open.join(", ")));
            }
        }
    });
    assert!(
        unknown.is_empty(),
        "rooms that the table does not name: {unknown:?}; add them to ROOMS and docs/architecture.md"
    );
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_architecture_page_holds_the_same_table() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md")).unwrap();
    let rows: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(room, _)| room).collect();
    assert_eq!(rows, ROOMS, "docs/architecture.md and tests/doors.rs differ");
    let siblings = SIBLINGS.iter().map(|room| format!("`{room}`")).collect::<Vec<_>>();
    let sentence = format!("{}, {} and {} do not import each other", siblings[0], siblings[1], siblings[2]);
    assert!(page.contains(&sentence), "docs/architecture.md must say: {sentence}");
}

/// Rhai's syntax tree is internal to Rhai: one folder knows it, so that a new version changes one folder.
#[test]
fn only_one_folder_knows_the_tree_of_rhai() {
    const TYPES: [&str; 7] =
        ["ASTNode", "ASTFlags", "Expr", "Stmt", "StmtBlock", "FnCallExpr", "SwitchCasesCollection"];
    let mut faults = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |_, path, text| {
        for (at, _) in text.match_indices("rhai::") {
            let statement: String = text[at..].chars().take_while(|c| *c != ';' && *c != '(').collect();
            let words = statement.split(|c: char| !c.is_alphanumeric());
            let named: Vec<_> = words.filter(|word| TYPES.contains(word)).collect();
            if !named.is_empty() && !path.starts_with("src/script/syntax/") {
                faults.push(format!("{path} names {named:?} of rhai; only src/script/syntax/ may"));
            }
        }
    });
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    fn check(source: &str, expected: &[(usize, &str)]) {
        let found = rooms_named(source);
        assert_eq!(found.iter().map(|(line, room)| (*line, room.as_str())).collect::<Vec<_>>(), expected, "{source}");
    }
    check("use crate::spec::Section;", &[(1, "spec")]);
    check(
        "\nuse crate::{\n    ack::Ack,\n    message::{Batch, Message},\n    spec,\n};",
        &[(3, "ack"), (4, "message"), (5, "spec")],
    );
    check("pub(crate) fn f() { crate::lint::lint() }", &[(1, "lint")]);
    check("// crate::cli\nuse crate::Result;", &[]);
    check("use other_crate::x;\n#[cfg(test)]\nuse crate::cli;", &[]);
}
