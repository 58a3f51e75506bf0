//! `streamer lint` over files with faults: its exact output and exit code. `UPDATE=1 cargo test --test lint` writes the
//! `.out` files anew; read the difference before committing it.
use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use streamer::{config::Kind, diagnostic::RULES, registry::Registry};

/// Runs the program in the folder of the fixtures, with an environment that holds nothing but what the fixtures use.
fn streamer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(arguments)
        .current_dir(folder())
        .env_clear()
        .env("FIXTURE_QOS", "7")
        .env("FIXTURE_PASSWORD", "hunter2-hunter2")
        .output()
        .expect("the program starts")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lint")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Every `NAME.yaml` is linted alone; `NAME.out` holds what is printed and the summary, and the first line the exit code.
#[test]
fn every_fixture_prints_exactly_what_stands_beside_it() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the fixtures are there")
        .filter_map(|entry| entry.expect("readable").file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let mut stale = Vec::new();
    for name in &names {
        let output = streamer(&["lint", name]);
        let code = output.status.code().expect("ended by itself");
        let now = format!("exit code {code}\n\n{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!now.contains("hunter2"), "{name}: a secret is shown:\n{now}");
        let path = folder().join(name.replace(".yaml", ".out"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &now).expect("the fixtures are writable");
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        if stored != now {
            stale.push(format!("--- {name}: expected\n{stored}\n+++ {name}: printed\n{now}"));
        }
    }
    assert!(stale.is_empty(), "{}\nif that is right: UPDATE=1 cargo test --test lint", stale.join("\n"));
}

#[test]
fn formats_show_the_same_faults() {
    let concise = streamer(&["lint", "--format", "concise", "syntax.yaml"]);
    assert_eq!(
        text(&concise.stdout),
        "syntax.yaml:4:12: error[yaml-syntax] mapping values are not allowed in this context\n"
    );
    assert_eq!(text(&concise.stderr), "1 error in 1 file\n");
    let json = streamer(&["lint", "--format", "json", "syntax.yaml"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
    assert_eq!((&value["line"], &value["column"], &value["code"]), (&4.into(), &12.into(), &"yaml-syntax".into()));
}

#[test]
fn sarif_is_written_also_when_there_is_nothing_to_say() {
    let output = streamer(&["lint", "--format", "sarif", "clean.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    let log: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(log["runs"][0]["results"], serde_json::json!([]));
    let output = streamer(&["lint", "--format", "sarif", "syntax.yaml", "utf8.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let log: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let results = log["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["region"]["startColumn"], 12);
    for rule in log["runs"][0]["tool"]["driver"]["rules"].as_array().expect("rules") {
        assert!(rule["help"]["markdown"].is_string(), "{rule}");
    }
}

#[test]
fn github_gets_annotations() {
    let output = streamer(&["lint", "--format", "github", "syntax.yaml"]);
    let line = text(&output.stdout);
    assert!(line.starts_with("::error file=syntax.yaml,line=4,endLine=4,col=12,"), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line}");
}

#[test]
fn standard_input_is_a_file_too() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(["lint", "--format", "concise", "-"])
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child.stdin.take().expect("piped").write_all(b"inputs: 5\noutputs: {o: {drop: {}}}\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.starts_with("<stdin>:1:9: error[wrong-type] `inputs` of the pipeline must be"), "{said}");
}

#[test]
fn pipelines_in_markdown_have_the_lines_of_the_page() {
    let output = streamer(&["lint", "--format", "concise", "page.md"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        "page.md:7:27: error[unknown-field] input `generate` has no field `cuont`\n\
         page.md:18:6: error[bad-label] `20 °C` cannot be a label\n\
         page.md:18:17: error[unknown-output] no output is called `dorp`\n"
    );
    assert_eq!(text(&output.stderr), "3 errors in 2 files\n", "blocks are runs of their own: no clash of names");
}

#[test]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let is_coloured = |arguments: &[&str]| text(&streamer(arguments).stdout).contains('\u{1b}');
    assert!(!is_coloured(&["lint", "syntax.yaml"]), "a pipe");
    assert!(is_coloured(&["lint", "--color", "always", "syntax.yaml"]));
    assert!(is_coloured(&["--color=always", "lint", "syntax.yaml"]));
    assert!(!is_coloured(&["lint", "--color", "never", "syntax.yaml"]));
    assert_eq!(streamer(&["lint", "--color", "sometimes", "syntax.yaml"]).status.code(), Some(2));
}

#[test]
fn every_code_explains_itself() {
    let output = streamer(&["lint", "--explain", "unknown-field"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("# `unknown-field`\n"));
    assert_eq!(streamer(&["lint", "--explain", "error[unknown-field]"]).stdout, output.stdout);
    let unknown = streamer(&["lint", "--explain", "unknwon-field"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(text(&unknown.stderr), "error: no code is called `unknwon-field`; did you mean `unknown-field`?\n");
    assert!(
        text(&streamer(&["lint", "--explain", "xyz"]).stderr)
            .contains("there are: absent-table, absent-topic, always-false, ")
    );
}

#[test]
fn what_cannot_be_read_is_exit_code_2() {
    let output = streamer(&["lint", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.starts_with("error: cannot read `absent.yaml`: "), "{error}");
    assert_eq!(streamer(&["lint", "*.absent"]).status.code(), Some(2));
    assert_eq!(streamer(&["lint"]).status.code(), Some(2), "no folder `pipelines` here");
    let page = streamer(&["lint", "no-pipeline.md"]);
    assert_eq!(page.status.code(), Some(2));
    assert!(text(&page.stderr).contains("a block of `yaml` with `inputs:` and `outputs:`"));
    assert_eq!(streamer(&["lint", "--format", "nope", "syntax.yaml"]).status.code(), Some(2));
}

#[test]
fn no_command_shows_what_to_do_next() {
    let output = streamer(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("streamer lint pipelines/*.yaml"));
    assert!(output.stdout.is_empty());
    let help = streamer(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&streamer(&["--version"]).stdout).starts_with("streamer "));
}

#[test]
fn wrong_arguments_answer_with_the_next_command() {
    let said = |arguments: &[&str]| {
        let output = streamer(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        text(&output.stderr)
    };
    assert!(said(&["lnt"]).contains("'lint'"), "{}", said(&["lnt"]));
    assert!(said(&["clean.yaml"]).contains("to run it: streamer run clean.yaml"));
    assert!(said(&["new", "mqqt/kafka"]).contains("no input is called `mqqt`; did you mean `mqtt`?"));
    assert!(said(&["new", "mqtt"]).contains("write for example `mqtt/map/kafka`"));
    assert!(said(&["man", "lnit"]).contains("there is no command `lnit`"));
}

#[test]
fn every_new_pipeline_is_clean_and_passes_its_test() {
    let list: serde_json::Value = serde_json::from_slice(&streamer(&["list", "--format", "json"]).stdout).unwrap();
    let names = |kind: &str| -> Vec<String> {
        let all = list.as_array().unwrap().iter().filter(|entry| entry["kind"] == kind);
        all.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let (inputs, steps, outputs) = (names("input"), names("step"), names("output"));
    assert!(inputs.len() > 3 && steps.len() > 3 && outputs.len() > 3, "{inputs:?} {steps:?} {outputs:?}");
    let mut all: Vec<String> = inputs.iter().flat_map(|i| outputs.iter().map(move |o| format!("{i}/{o}"))).collect();
    all.extend(steps.iter().map(|step| format!("stdin/{step}/stdout")));
    all.push("mqtt/filter,map/kafka".to_owned());
    let folder = tempfile::tempdir().unwrap();
    for (number, parts) in all.iter().enumerate() {
        let file = format!("p{number}.yaml");
        let made = run_in(folder.path(), &["new", parts, "--file", &file]);
        assert_eq!(made.status.code(), Some(0), "{parts}: {}", text(&made.stderr));
        let lint = run_in(folder.path(), &["lint", &file]);
        let said = format!("{}{}", text(&lint.stdout), text(&lint.stderr));
        assert!(said == "no faults in 1 file\n", "{parts}:\n{said}");
        let test = run_in(folder.path(), &["test", &file]);
        assert_eq!(test.status.code(), Some(0), "{parts}: {}{}", text(&test.stdout), text(&test.stderr));
    }
    let again = run_in(folder.path(), &["new", "stdin/stdout", "--file", "p0.yaml"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));
    let default = run_in(folder.path(), &["new", "mqtt/map/kafka"]);
    assert_eq!(default.status.code(), Some(0));
    assert!(folder.path().join("pipelines/mqtt-to-kafka.yaml").exists());
}

#[test]
fn pipelines_are_drawn_and_meet_in_their_topics() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "a.yaml",
        "inputs: { d: { mqtt: { url: mqtt://h, client_id: c, topics: [x/+], password: hunter2, username: u } } }\n\
        outputs: { t: { kafka: { brokers: b, topic: t } } }\n",
    );
    write(
        "b.yaml",
        "inputs: { t: { kafka: { brokers: 'b:9092', topics: t, group: g } } }\nsteps: [ { filter: 'payload.x > 1' } ]\n\
        outputs: { o: { when: 'payload.y == \"a\"', drop: {} } }\n",
    );
    let mermaid = text(&run_in(folder.path(), &["graph", "a.yaml", "b.yaml"]).stdout);
    assert!(mermaid.starts_with("flowchart LR\n  subgraph p0[\"a\"]\n    n0[\"d (mqtt)\"]\n"), "{mermaid}");
    assert_eq!(mermaid.matches("([\"t\"])").count(), 1, "the two pipelines meet:\n{mermaid}");
    assert!(mermaid.contains("-->|\"payload.y == #quot;a#quot;\"|"), "{mermaid}");
    let dot = text(&run_in(folder.path(), &["graph", "--format", "dot", "a.yaml", "b.yaml"]).stdout);
    assert!(dot.starts_with("digraph streamer {") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("[label=\"payload.y == \\\"a\\\"\"]"), "{dot}");
    assert!(!mermaid.contains("hunter2") && !dot.contains("hunter2"));
}

#[test]
fn completions_and_manual_know_every_command() {
    let commands = ["run", "lint", "test", "map", "new", "list", "graph", "schema", "completions", "man"];
    for shell in ["bash", "zsh", "fish"] {
        let output = streamer(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stdout);
        assert!(commands.iter().all(|command| said.contains(command)), "{shell}");
    }
    let page = text(&streamer(&["man", "lint"]).stdout);
    assert!(page.contains(".TH streamer-lint 1") && page.contains("\\-\\-explain"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run_in(folder.path(), &["man", "--folder", "man1"]).status.code(), Some(0));
    for command in commands {
        assert!(folder.path().join(format!("man1/streamer-{command}.1")).exists(), "{command}");
    }
}

#[test]
fn the_list_names_what_is_near() {
    let output = streamer(&["list", "no-such-component"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("no input, step, output, function or code of lint is called `no-such-component`")
    );
    let near = text(&streamer(&["list", "unknwon-field"]).stderr);
    assert!(near.contains("did you mean `unknown-field`?"), "{near}");
    let rule = text(&streamer(&["list", "unused-variable"]).stdout);
    assert!(rule.starts_with("warning unused-variable\n    "), "{rule}");
}

#[test]
fn the_list_has_everything_for_programs() {
    use serde_json::Value;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list: Vec<Value> = serde_json::from_slice(&run_in(root, &["list", "--format", "json"]).stdout).expect("JSON");
    let keys = |of: &Value| of.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    for one in &list {
        let expected = match one["kind"].as_str().expect("a text") {
            "input" | "step" | "output" => "archive example fields kind name plugin summary value",
            "function" => "example gives group kind name signature summary",
            "module function" => "kind name signature summary",
            "rule" => "kind level name summary text",
            other => panic!("a kind `{other}`"),
        };
        assert_eq!(keys(one), expected, "{one}");
        let texts = ["name", "summary", "example", "signature", "level", "text"].iter().filter_map(|key| one.get(key));
        assert!(texts.into_iter().all(|text| !text.as_str().expect("a text").is_empty()), "{one}");
        for field in one["fields"].as_array().into_iter().flatten() {
            assert_eq!(keys(field), "default description name required type", "{field}");
            assert!(
                field["default"].is_null() || !field["required"].as_bool().unwrap(),
                "required, with a default: {field}"
            );
        }
    }
    // Complete, by what the program itself goes by.
    let names = |kind: &str| {
        let of_kind = list.iter().filter(|one| one["kind"] == kind);
        of_kind.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let registry = Registry::built_in().with_plugins(&[root.join("plugins")]).expect("they are shipped");
    for kind in Kind::ALL {
        assert_eq!(names(kind.word()), registry.names(kind));
        // The schema that editors use has the same fields.
        for found in registry.all(kind) {
            let listed = list.iter().find(|one| one["kind"] == kind.word() && one["name"] == found.name()).unwrap();
            let top: BTreeSet<&str> = listed["fields"]
                .as_array()
                .unwrap()
                .iter()
                .map(|field| field["name"].as_str().unwrap())
                .filter(|name| !name.contains(['.', '[', '*']))
                .collect();
            let schema = found.schema();
            for property in schema["properties"].as_object().into_iter().flatten() {
                assert!(top.contains(property.0.as_str()), "{} {}: {}", kind.word(), found.name(), property.0);
            }
        }
    }
    assert_eq!(names("function"), streamer::script::functions().map(|f| f.name.to_owned()).collect::<Vec<_>>());
    assert_eq!(names("module function").len(), registry.plugins().functions.len());
    let levels: Vec<_> =
        list.iter().filter(|one| one["kind"] == "rule").map(|one| one["level"].as_str().unwrap()).collect();
    assert_eq!(levels, RULES.iter().map(|rule| rule.level.word()).collect::<Vec<_>>());
    let qos = list.iter().find(|one| one["kind"] == "output" && one["name"] == "mqtt").unwrap();
    let qos = qos["fields"].as_array().unwrap().iter().find(|field| field["name"] == "qos").unwrap();
    assert_eq!(
        (&qos["default"], &qos["type"], &qos["required"]),
        (&1.into(), &"integer, 0 to 2".into(), &false.into())
    );
}

/// A folder with one pipeline that has several faults with one right correction each.
fn faulty() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("p.yaml");
    let text = "# °C stay, and so do  two blanks\r\nname: fixes\ndescripton: x # descripton\n\
        inputs:\n  in: { generat: { cuont: \"1\", script: '#{ t: nwo() }' } }\n\
        outputs:\n  table: { kafak: { brokers: 'localhost:9092', topic: t, compresion: \"zsdt\" } }\n\
        dead_letter: { drop: {} }\n\
        tests: [ { name: n, input: { payload: '1' }, outputs: { tabel: [] } } ]\n";
    fs::write(&path, text).expect("a file can be written");
    (folder, path)
}

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts")
}

#[test]
fn corrections_touch_nothing_else_and_are_made_once() {
    let (folder, path) = faulty();
    let before = fs::read_to_string(&path).unwrap();
    let shown = run_in(folder.path(), &["lint", "--fix", "--dry-run", "p.yaml"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), before, "nothing is written");
    assert!(text(&shown.stderr).contains("would correct 1 file; nothing was written"), "{}", text(&shown.stderr));
    assert_eq!(run_in(folder.path(), &["lint", "--diff", "p.yaml"]).stdout, shown.stdout);
    let fixed = run_in(folder.path(), &["lint", "--fix", "p.yaml"]);
    assert!(text(&fixed.stdout).starts_with(&text(&shown.stdout)), "the same change is shown");
    assert_eq!(fixed.status.code(), Some(0), "{}{}", text(&fixed.stdout), text(&fixed.stderr));
    let after = fs::read_to_string(&path).unwrap();
    let expected = before
        .replace("descripton: x", "description: x")
        .replace("generat:", "generate:")
        .replace("cuont: \"1\"", "count: 1")
        .replace("nwo()", "now()")
        .replace("kafak", "kafka")
        .replace("compresion: \"zsdt\"", "compression: \"zstd\"")
        .replace("tabel", "table");
    assert_eq!(after, expected);
    let again = run_in(folder.path(), &["lint", "--fix", "p.yaml"]);
    assert!(text(&again.stderr).starts_with("nothing to correct\n"), "{}", text(&again.stderr));
    assert_eq!(fs::read_to_string(&path).unwrap(), after);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
}

#[test]
fn what_has_no_single_correction_is_left_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let text_of =
        "inputs: { in: { generate: { count: 1 } } }\noutputs: { o: { zzz: {} } }\ndead_letter: { drop: {} }\n";
    fs::write(folder.path().join("p.yaml"), text_of).unwrap();
    let output = run_in(folder.path(), &["lint", "--fix", "p.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("error[unknown-output]"));
    assert_eq!(fs::read_to_string(folder.path().join("p.yaml")).unwrap(), text_of);
    assert_eq!(run_in(folder.path(), &["lint", "--fix", "-"]).status.code(), Some(2));
}
