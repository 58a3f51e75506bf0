//! `streamer lint` over files with faults: its exact output and exit code. `UPDATE=1 cargo test --test lint` writes the
//! `.out` files anew; read the difference before committing it.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

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
fn what_cannot_be_read_is_exit_code_2() {
    let output = streamer(&["lint", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.starts_with("error: cannot read `absent.yaml`: "), "{error}");
    assert_eq!(streamer(&["lint", "*.absent"]).status.code(), Some(2));
    assert_eq!(streamer(&["lint"]).status.code(), Some(2), "no folder `pipelines` here");
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
fn the_list_names_what_is_near() {
    let output = streamer(&["list", "no-such-component"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no input, step, output or function is called `no-such-component`"));
    let json: serde_json::Value =
        serde_json::from_slice(&streamer(&["list", "--format", "json"]).stdout).expect("JSON");
    assert!(json.is_array());
}
