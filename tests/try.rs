//! `streamer test` and `streamer map` as users meet them: exact output, exit codes, no server.
mod common;

use std::fs;

use common::project::{Project, text};

const PIPELINE: &str = "\
name: p
inputs:
  first: { mqtt: { url: mqtt://localhost, client_id: c, topics: ['devices/{device}/+'] } }
  second: { stdin: {} }
steps:
  - filter: payload?.drop != true
  - map: '#{ id: meta.device, n: payload.n + 1, at: now(), from: meta.topic }'
outputs:
  all: { kafka: { brokers: localhost:9092, topic: 'out-{meta.device}', key: '{payload.id}' } }
  large: { when: payload.n > 10, file: { path: large.jsonl } }
dead_letter: { drop: {} }
tests:
";

fn test(cases: &str, arguments: &[&str]) -> (String, String, i32) {
    let project =
        Project::new(&[("pipelines/p.yaml", &format!("{PIPELINE}{cases}")), ("pipelines/sample.json", "{\"n\": 41}")]);
    let output = project.streamer(&[&["test"], arguments].concat());
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

#[test]
fn tests_that_pass_say_so() {
    let cases = r#"
  - name: everything that can be expected
    clock: "2024-05-01T10:00:00Z"
    input: { payload: { n: 11 }, meta: { topic: devices/a/x, device: a, headers: { h: 1 } } }
    outputs:
      all: [ { payload: { id: a, n: 12.0, at: 1714557600, from: devices/a/x }, exact: true, key: a, topic: out-a, headers: { h: 1, x: null } } ]
      large: [ { payload: { n: 12 }, key: null } ]
  - name: several messages, in order, from files and Base64
    inputs:
      - { file: sample.json, meta: { device: b } }
      - { payload_base64: eyJuIjoxfQ==, meta: { device: c } }
      - { payload: '{"drop": true}' }
    outputs:
      all: [ { payload: { id: b, n: 42 }, key: b }, { payload: '{"id":"c","n":2}' } ]
      large: [ { payload: { id: b } } ]
    dropped: 1
  - name: dead letters
    inputs: [ { payload: "x", meta: { device: a } }, { payload: { n: 1 } } ]
    dead_letters:
      - { code: script-error, stage: "steps[1]", reason: "not JSON", place: "p.yaml:7:42" }
      - { code: missing-topic, stage: outputs.all }
"#;
    let (out, err, code) = test(cases, &[]);
    assert_eq!(
        out,
        "pipelines/p.yaml\n  ok    everything that can be expected\n  ok    several messages, in order, from files and Base64\n  ok    dead letters\n"
    );
    assert_eq!((err.as_str(), code), ("3 passed, 0 failed\n", 0));
}

const FAILING: &str = r#"
  - name: wrong in every way
    input: { payload: { n: 1 }, meta: { device: a } }
    outputs:
      all: [ { payload: { id: b, n: 2 }, key: b, topic: t, headers: { h: 1 } }, { payload: 5 } ]
      large: [ { payload: 1 } ]
    dead_letters: [ { code: x } ]
    dropped: 2
  - name: what is not expected
    inputs: [ { payload: { n: 20 }, meta: { device: a }, input: second }, { payload: "°C" } ]
  - name: fine
    input: { payload: { drop: true } }
    dropped: 1
"#;

#[test]
fn tests_that_fail_show_where_and_the_difference() {
    let (out, err, code) = test(FAILING, &[]);
    let expected = "\
pipelines/p.yaml
  FAIL  wrong in every way  (pipelines/p.yaml:14:5)
        output `all`, message 1: payload (- expected, + got)
          {
        -   \"id\": \"b\",
        +   \"id\": \"a\",
            \"n\": 2
          }
        output `all`, message 1: key: expected `b`, got `a`
        output `all`, message 1: topic: expected `t`, got `out-a`
        output `all`, message 1: header `h`: expected `1`, got none
        output `all`: message 2 did not come
        output `large`: message 1 did not come
        dead letter 1 did not come
        dropped: expected 2, got 0
  FAIL  what is not expected  (pipelines/p.yaml:21:5)
";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains("output `large`: not expected: {\"at\":"), "{out}");
    assert!(out.contains("a dead letter is not expected: steps[1]: script-error at pipelines/p.yaml:7:42: "), "{out}");
    assert!(out.ends_with("  ok    fine\n"), "{out}");
    assert_eq!((err.as_str(), code), ("1 passed, 2 failed\n", 1));
}

#[test]
fn results_are_there_for_machines_and_tests_can_be_chosen() {
    let (out, err, code) = test(FAILING, &["--format", "json", "--filter", "way"]);
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&line["result"], &line["line"], &line["name"]),
        (&"failed".into(), &14.into(), &"wrong in every way".into())
    );
    assert_eq!((err.as_str(), code), ("0 passed, 1 failed\n", 1));
    let (out, _, _) = test(FAILING, &["--format", "junit"]);
    assert!(
        out.contains("<testsuite name=\"pipelines/p.yaml\" tests=\"3\"") && out.contains("failures=\"2\""),
        "{out}"
    );
    assert!(out.contains("<failure message=\"pipelines/p.yaml:14:5\">"), "{out}");
}

#[test]
fn a_test_that_is_no_test_is_a_fault_at_its_place() {
    for (cases, fault) in [
        ("  - { nam: a }\n", "pipelines/p.yaml:13:7"),
        ("  - { name: a, outputs: { all: [ { playload: 1 } ] } }\n", "pipelines/p.yaml:13:36"),
        ("  - { name: a, dropped: x }\n", "pipelines/p.yaml:13:25"),
    ] {
        let (_, err, code) = test(cases, &[]);
        assert!(code == 1 && err.contains(fault) && err.contains("no test was run"), "{cases}{err}");
    }
    let (out, err, code) = test("  - { name: a, input: { meta: { qos: 7 } } }\n", &[]);
    assert!(code == 1 && out.contains("`meta.qos` must be a whole number from 0 to 2, not 7"), "{out}{err}");
    let (_, err, code) = test("  []\n", &[]);
    assert!(code == 0 && err.contains("there was no test to run"), "{err}");
}

#[test]
fn samples_are_mapped_one_by_one_and_counted() {
    let project = Project::new(&[
        ("pipelines/p.yaml", &format!("{PIPELINE}  []\n")),
        ("samples.jsonl", "{\"n\":1}\n\n{\"n\":50}\r\n{\"drop\":true}\nx\n"),
        ("one.json", "{\n  \"n\": 7\n}\n"),
        ("m.rhai", "// °C\nlet twice = payload.n * 2;\ntwice\n"),
    ]);
    let output = project.streamer(&[
        "map",
        "pipelines/p.yaml",
        "samples.jsonl",
        "one.json",
        "--meta",
        "device=a",
        "--meta",
        "topic=t/1",
    ]);
    let out = text(&output.stdout);
    let expected = "in   {\"n\":1}\nout  [all topic=out-a key=a] {\"at\":";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains("out  [large] {\"at\":") && out.contains("in   {\"drop\":true}\ndropped\n"), "{out}");
    assert!(out.contains("pipelines/p.yaml:7:42") && out.contains("script-error in steps[1]"), "{out}");
    let err = text(&output.stderr);
    assert!(
        err.starts_with("5 in, 4 out, 1 dropped, 1 failed; ") && err.ends_with(" ns a message, compiled\n"),
        "{err}"
    );
    assert_eq!(output.status.code(), Some(1));

    let output = project.pipe(&["map", "m.rhai"], "{\"n\":4}\n{\"n\":\"x\"}");
    let out = text(&output.stdout);
    assert!(out.starts_with("in   {\"n\":4}\nout  8\n") && out.contains("m.rhai:2:23"), "{out}");

    let output = project.pipe(
        &["map", "--script", "if payload.n > 1 { drop() } payload.n", "--format", "json"],
        "{\"n\":1}\n{\"n\":2}\n",
    );
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["outputs"][0]["payload"], &lines[1]["dropped"]), (&1.into(), &1.into()));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn places_in_a_script_are_those_of_the_script() {
    let project = Project::new(&[]);
    let script = "let n = payload.n;\n  n.wrong.way";
    let output = project.pipe(&["map", "--script", script], "{\"n\": 1}\n");
    let out = text(&output.stdout);
    assert!(out.contains("--> --script:2:5") && out.contains("2 |   n.wrong.way"), "{out}");
    let output = project.pipe(&["map", "--script", script, "--format", "json"], "{\"n\": 1}\n");
    assert!(text(&output.stdout).contains("\"place\":\"--script:2:5\""), "{}", text(&output.stdout));
    let output = project.pipe(&["map", "--script", "  1 +\n nope(2)"], "{}\n");
    let err = text(&output.stderr);
    assert!(err.contains("--> --script:2:2") && err.contains("2 |  nope(2)"), "{err}");
}

#[test]
fn a_script_that_is_not_compiled_is_told_with_the_reason() {
    let project = Project::new(&[]);
    let output = project.pipe(&["map", "--script", "let x = payload; while x > 10 { x -= 10; } x"], "25\n");
    assert_eq!(text(&output.stdout), "in   25\nout  5\n\n");
    let err = text(&output.stderr);
    assert!(
        err.contains("interpreted\n  steps[0]: the script is interpreted: plans do not know `while` and `loop`"),
        "{err}"
    );
}

#[test]
fn what_cannot_be_tried_is_said() {
    let project = Project::new(&[("bad.rhai", "payload +"), ("p.yaml", "inputs: {}\n")]);
    for (arguments, code, expected) in [
        (&["map", "none.yaml"][..], 2, "cannot read `none.yaml`"),
        (&["map", "none.rhai"], 2, "there is no file `none.rhai`"),
        (&["map", "--script", "1", "none.json"], 2, "cannot read the sample `none.json`"),
        (&["map", "--script", "1"], 2, "there is no sample to try"),
        (&["map", "--script", "1", "--meta", "x"], 2, "`x` is no metadata"),
        (&["map", "bad.rhai"], 1, "bad.rhai:1:10"),
        (&["map", "p.yaml"], 1, "p.yaml:1:"),
        (&["map"], 2, "--script"),
    ] {
        // One sample, where it comes to that.
        let input = if arguments.contains(&"--meta") { "1\n" } else { "" };
        let output = project.pipe(arguments, input);
        let err = text(&output.stderr);
        assert!(err.contains(expected) && output.status.code() == Some(code), "{arguments:?}: {err}");
    }
}

#[test]
fn a_saved_file_is_tried_again() {
    use std::io::{BufRead as _, BufReader};
    let project = Project::new(&[("m.rhai", "payload"), ("s.json", "1")]);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(["map", "m.rhai", "s.json", "--watch"])
        .current_dir(project.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait = |expected: &str| loop {
        let line = lines.next().expect("it goes on").unwrap();
        if line == expected {
            break;
        }
    };
    wait("out  1");
    // As editors save: a new file in the place of the old one.
    fs::write(project.path().join("new"), "payload + 1").unwrap();
    fs::rename(project.path().join("new"), project.path().join("m.rhai")).unwrap();
    wait("out  2");
    fs::write(project.path().join("s.json"), "41").unwrap();
    wait("out  42");
    child.kill().unwrap();
    child.wait().unwrap();
}
