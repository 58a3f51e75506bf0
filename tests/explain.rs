//! `streamer explain`: its exact output. `UPDATE=1 cargo test --test explain` writes the `.out` and `.json` files anew; read
//! the difference before committing it.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/explain")
}

fn streamer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamer"))
        .args(arguments)
        .current_dir(folder())
        .env_clear()
        .env("KAFKA_PASSWORD", "hunter2-hunter2")
        .env("PREFIX", "site-7")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn every_fixture_is_explained_exactly_as_what_stands_beside_it() {
    let mut stale = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder()).expect("the fixtures are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        for (format, ending) in [("text", "out"), ("json", "json")] {
            let output = streamer(&["explain", name, "--format", format]);
            assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{name}");
            let mut now = text(&output.stdout);
            for secret in ["hunter2", "literal-secret"] {
                assert!(!now.contains(secret), "{name}: a secret is shown:\n{now}");
            }
            if format == "json" {
                let value: serde_json::Value = serde_json::from_str(&now).expect("it is JSON");
                now = serde_json::to_string_pretty(&value).unwrap() + "\n";
            }
            let stored = path.with_extension(ending);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&stored, &now).expect("the fixtures are writable");
            }
            let expected = fs::read_to_string(&stored).unwrap_or_default();
            if expected != now {
                stale.push(format!("--- {}: expected\n{expected}\n+++ printed\n{now}", stored.display()));
            }
        }
    }
    assert!(count >= 3);
    assert!(stale.is_empty(), "{}\nif that is right: UPDATE=1 cargo test --test explain", stale.join("\n"));
}

#[test]
fn a_file_with_faults_is_not_explained() {
    let output = streamer(&["explain", "../lint/labels.yaml"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(text(&output.stderr).contains("error["), "{}", text(&output.stderr));
}
