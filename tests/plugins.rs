//! Plugins as their writers meet them: a folder beside the pipelines, faults at their place, dead letters that name the
//! plugin's own line.
mod common;

use std::{fs, path::Path, process::Command};

use common::project::{Project, text};

const PIPELINE: &str = "inputs: { in: { generate: { count: 2, script: '#{ x: meta.offset }', topic: t } } }\n\
    outputs: { out: { stdout: {} } }\ndead_letter: { file: { path: dead.jsonl } }\n";

/// A pipeline of that name with these steps.
fn pipeline(name: &str, steps: &str) -> String {
    format!("name: {name}\n{PIPELINE}steps:\n{steps}")
}

#[test]
fn modules_call_each_other_and_their_private_parts_and_are_compiled() {
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - map: 'a::double(payload.x + 1)'\n  - filter: b::is_small(payload)\n")),
        ("plugins/a.rhai", "const TWO = 2;\nfn double(x) { twice(b::same(x)) }\nprivate fn twice(x) { 2 * x }\n"),
        ("plugins/b.rhai", "fn same(x) { x }\n/// Below 3.\nfn is_small(x) { x < 3 }\n"),
    ]);
    assert_eq!(project.lint(), (vec![], 0), "a note would say that a script is not compiled");
    let output = project.streamer(&["run"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("2\n", Some(0)), "{}", text(&output.stderr));
    let list = text(&project.streamer(&["list", "b"]).stdout);
    assert_eq!(list, "b::is_small(x)\n    Below 3.\n\nb::same(x)\n    \n");
}

#[test]
fn faults_of_modules_and_their_calls_are_told_at_their_places() {
    let project = Project::new(&[
        (
            "pipelines/p.yaml",
            &pipeline(
                "p",
                "  - map: |\n      let °c = 1;\n      geo::nope(1) + geos::x() + geo::far(1) + geo::hidden()\n",
            )
            .replace("°c", "c"),
        ),
        ("plugins/geo.rhai", "// °C\nfn far(a, b) { a }\nprivate fn hidden() { 1 }\n"),
        ("plugins/bad.rhai", "fn f(x) { /* °C */ nofunction(x) }\nlet y = 1;\n"),
        ("plugins/worse.rhai", "fn f(x) {\n  x +\n}\n"),
        ("plugins/No-Name.rhai", "fn f() {}\n"),
    ]);
    let (faults, code) = project.lint();
    let expected = [
        "plugins/No-Name.rhai:1:1: error[bad-name] `No-Name` cannot be the name of a module",
        "plugins/bad.rhai:1:20: error[unknown-function] the script knows no function `nofunction`",
        "plugins/bad.rhai:2:1: error[not-a-definition] a module holds functions and constants only",
        "plugins/worse.rhai:3:1: error[script-syntax]",
        "pipelines/p.yaml:8:12: error[unknown-function] module `geo` has no function `nope`",
        "pipelines/p.yaml:8:22: error[unknown-module] there is no module `geos`",
        "pipelines/p.yaml:8:39: error[wrong-arguments] function `geo::far` does not take 1 argument",
        "pipelines/p.yaml:8:53: error[unknown-function] module `geo` has no function `hidden`",
    ];
    assert_eq!(code, 1);
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\nshould be\n{expected}");
    }
}

/// A module with one of each that can be run and is most likely wrong.
const DOUBTFUL: &str = "// °C\n\
    fn shares(text, by) {\n  let spare = 1;\n  let half = by.a.b ?? 0;\n  \
    if text == 5 && by.n > 5 && by.n < 3 { return text / 8; }\n  half / 60\n}\n";

#[test]
fn what_is_most_likely_wrong_in_a_module_is_told_wherever_it_is_met() {
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - map: m::shares(payload.x, payload)\n")),
        ("plugins/m.rhai", DOUBTFUL),
        ("plugins/broken.rhai", "fn f(x) { nofunction(x) }\n"),
        ("plugins/odd.yaml", "step: odd\nsummary: Odd.\nmap: |\n  let unused = 1;\n  payload\n"),
    ]);
    let module = [
        "plugins/m.rhai:3:7: warning[unused-variable] `spare` is never used",
        "plugins/m.rhai:4:19: warning[missing-question-mark] where `a` is missing, `by.a.b` fails before `??` is asked",
        "plugins/m.rhai:5:36: warning[always-false] `by.n` cannot be more than 5 and less than 3",
        "plugins/m.rhai:5:54: note[integer-division] `text / 8` cuts the rest off where `text` is an integer",
    ];
    let broken = ["plugins/broken.rhai:1:11: error[unknown-function] the script knows no function `nofunction`"];
    let odd = ["plugins/odd.yaml:4:7: warning[unused-variable] `unused` is never used"];
    let all = [&broken[..], &module, &odd].concat();
    for (named, code, expected) in [
        (&[][..], 1, &all[..]),
        (&["plugins"], 1, &all),
        (&["plugins/"], 1, &all),
        (&["plugins/m.rhai"], 0, &module),
        (&["plugins/m.rhai", "plugins/odd.yaml"], 0, &[&module[..], &odd].concat()),
        (&["plugins/*.rhai"], 1, &[&broken[..], &module].concat()),
        (&["pipelines", "plugins/odd.yaml"], 1, &all),
    ] {
        let output = project.streamer(&[&["lint", "--format", "concise"], named].concat());
        assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), expected, "{named:?}");
        assert_eq!(output.status.code(), Some(code), "{named:?}");
    }
    let output = project.streamer(&["lint", "plugins/m.rhai"]);
    assert!(text(&output.stderr).starts_with("3 warnings, 1 note in 1 file\n"), "{}", text(&output.stderr));

    fs::write(project.path().join("pipelines/alone.rhai"), "payload").unwrap();
    let output = project.streamer(&["lint", "pipelines/alone.rhai"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("name the pipeline that has it under `file:`"), "{}", text(&output.stderr));
    let output = project.streamer(&["test", "plugins/m.rhai"]);
    assert!(text(&output.stderr).contains("`plugins/m.rhai` is a plugin, not a pipeline"), "{}", text(&output.stderr));
}

#[test]
fn the_shipped_plugins_are_clean() {
    let output = Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(["lint", "plugins"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program starts");
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("", "no faults in 3 files\n"));
}

#[test]
fn scripts_in_files_of_their_own_are_corrected_in_as_many_rounds_as_it_takes() {
    let mend = |project: &Project, arguments: &[&str]| {
        let output = project.streamer(&[&["lint"], arguments].concat());
        (text(&output.stdout), output.status.code().unwrap())
    };
    let read = |project: &Project, name: &str| fs::read_to_string(project.path().join(name)).unwrap();
    // The name of a variable comes to light before those of functions, and a file's own place is in front of all.
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - map: { file: ../mappings/m.rhai }\n  - map: m::f(payload)\n")),
        ("mappings/m.rhai", "\u{feff}// °C\n#{ a: nmu(paylod.x, 0), b: roundd(1.5) }\n"),
        ("plugins/m.rhai", "fn f(x) { roundd(x.a) + nmu(x.b, 0) }\n"),
    ]);
    let (faults, _) = mend(&project, &["--format", "concise"]);
    assert!(faults.contains("mappings/m.rhai:2:11: error[unknown-variable]"), "{faults}");
    let (shown, _) = mend(&project, &["--diff"]);
    assert_eq!(read(&project, "plugins/m.rhai"), "fn f(x) { roundd(x.a) + nmu(x.b, 0) }\n", "nothing is written");
    let (fixed, code) = mend(&project, &["--fix"]);
    assert!(fixed.starts_with(&shown) && code == 0, "{fixed}\n{shown}");
    assert_eq!(read(&project, "mappings/m.rhai"), "\u{feff}// °C\n#{ a: num(payload.x, 0), b: round(1.5) }\n");
    assert_eq!(read(&project, "plugins/m.rhai"), "fn f(x) { round(x.a) + num(x.b, 0) }\n");
}

#[test]
fn a_script_that_fails_inside_a_module_is_a_dead_letter_with_the_modules_line() {
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - map: m::outer(payload.x)\n")),
        ("plugins/m.rhai", "// °C\nfn outer(x) { inner(x) }\nfn inner(x) {\n  if x > 0 { throw \"no °C\" }\n  x\n}\n"),
    ]);
    let output = project.streamer(&["run"]);
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
    let letter: serde_json::Value = serde_json::from_str(
        &fs::read_to_string(project.path().join("pipelines/dead.jsonl"))
            .or_else(|_| fs::read_to_string(project.path().join("dead.jsonl")))
            .unwrap(),
    )
    .unwrap();
    assert_eq!((&letter["reason"], &letter["stage"]), (&"no °C".into(), &"steps[0]".into()));
    assert_eq!(letter["place"], "plugins/m.rhai:4:14");
}

const STEP: &str = "step: add\nsummary: Adds.\nparameters:\n  by: { type: integer, required: true, min: 1, description: How much. }\n  \
    to: { type: text, default: x, one_of: [x, y], description: The field. }\n";

#[test]
fn a_step_of_a_plugin_is_used_and_checked_like_a_built_in_one() {
    let plugin = format!(
        "{STEP}example: 'by: 2'\nmap: |\n  payload[params.to] = (payload[params.to] ?? 0) + params.by;\n  payload\n"
    );
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - add: { by: 5 }\n  - add: { by: 1, to: y }\n")),
        ("plugins/add.yaml", &plugin),
    ]);
    assert_eq!(project.lint(), (vec![], 0));
    let output = project.streamer(&["run"]);
    assert_eq!(text(&output.stdout), "{\"x\":5,\"y\":1}\n{\"x\":6,\"y\":1}\n", "{}", text(&output.stderr));

    let project = Project::new(&[
        (
            "pipelines/p.yaml",
            &pipeline("p", "  - add: { by: 0 }\n  - add: { to: z, by: 1 }\n  - add: { bye: 1 }\n  - ad: { by: 1 }\n"),
        ),
        ("plugins/add.yaml", &plugin),
    ]);
    let (faults, code) = project.lint();
    assert_eq!(code, 1);
    for expected in [
        "pipelines/p.yaml:6:16: error[out-of-range]",
        "pipelines/p.yaml:7:16: error[unknown-value]",
        "pipelines/p.yaml:8:12: error[unknown-field]",
        "pipelines/p.yaml:9:5: error[unknown-step] no step is called `ad`",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{faults:#?}");
    }
    // The schema that editors use knows it, too.
    let schema: serde_json::Value = serde_json::from_slice(&project.streamer(&["schema"]).stdout).unwrap();
    assert!(schema.to_string().contains("How much."), "{schema:#}");
}

#[test]
fn faults_of_a_declared_step_are_told_in_its_file() {
    for (file, expected) in [
        (format!("{STEP}map: |\n  // °C\n  payload.x + nope\n"), "plugins/add.yaml:8:15: error[unknown-variable]"),
        (format!("{STEP}map: params.by\nfilter: 'true'\n"), "plugins/add.yaml:1:7: error[one-script]"),
        (
            STEP.replace("add", "map") + "map: params.by\n",
            "plugins/add.yaml:1:7: error[same-name] step `map` is built in",
        ),
        (STEP.replace("default: x", "default: 5") + "map: params.by\n", "plugins/add.yaml:5:30: error[wrong-type]"),
        (format!("{STEP}example: 'by: 0'\nmap: params.by\n"), "plugins/add.yaml:6:10: error[bad-example]"),
        (format!("{STEP}mapp: 1\n"), "plugins/add.yaml:"),
        ("step: [".to_owned(), "plugins/add.yaml:"),
    ] {
        let project =
            Project::new(&[("pipelines/p.yaml", &pipeline("p", "  - map: payload\n")), ("plugins/add.yaml", &file)]);
        let (faults, code) = project.lint();
        assert!(code == 1 && faults[0].starts_with(expected), "{file}\n{expected}\n{faults:#?}");
    }
}

#[test]
fn plugins_are_found_beside_the_pipelines_or_where_they_are_said_to_be() {
    let project = Project::new(&[
        ("a/p.yaml", &pipeline("p", "  - map: m::f()\n")),
        ("a/plugins/m.rhai", "fn f() { 1 }"),
        ("elsewhere/m.rhai", "fn g() { 1 }"),
    ]);
    let code = |arguments: &[&str]| project.streamer(arguments).status.code();
    assert_eq!(code(&["lint", "a/p.yaml"]), Some(0));
    assert_eq!(code(&["lint", "a/p.yaml", "--plugins", "elsewhere"]), Some(1), "there is no `f` in that one");
    let output = project.streamer(&["lint", "a/p.yaml", "--plugins", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read the plugins in `nowhere`"), "{}", text(&output.stderr));
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/geo.rhai").exists());
}

#[test]
fn a_module_cannot_reach_out() {
    let project = Project::new(&[
        ("pipelines/p.yaml", &pipeline("p", "  - map: m::f()\n")),
        ("plugins/m.rhai", "fn f() { import \"other\" as o; eval(\"1\") }"),
    ]);
    let (faults, code) = project.lint();
    assert!(code == 1 && faults[0].contains("script-syntax"), "{faults:#?}");
}
