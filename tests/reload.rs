//! A running streamer follows its files: under load nothing is lost and nothing comes twice, and a faulty edit changes
//! nothing.
mod common;

use std::{fs, path::Path, time::Instant};

use common::{Case, KAFKA_TO_CLICKHOUSE, MQTT_TO_KAFKA, Stack, Streamer, at_least, equal, kafka, load::Load, note};

const RELOADS: &str = "streamer_reloads_total";
const STALE: &str = "streamer_config_stale";
const EDITS: u32 = 10;
/// Messages a second while files are edited.
const RATE: u32 = 2000;

/// Puts a new file in the place of an old one, as editors do.
fn save(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Waits until a pipeline was reloaded so often, and works again.
fn wait_reloads(streamer: &Streamer, result: &str, count: u32) {
    let label = format!("result=\"{result}\"");
    streamer.eventually("the change is noticed", || at_least(streamer.metric(RELOADS, &[&label])?, count.into()));
    streamer.wait_ready();
}

/// Waits until the only pipeline was replaced so often, and the last one is at work.
fn wait_replaced(streamer: &Streamer, count: u32) {
    wait_reloads(streamer, "ok", count);
    streamer.eventually("the new pipeline starts", || {
        at_least(streamer.log().matches("pipeline starts").count(), count as usize + 1)
    });
    streamer.wait_ready();
}

#[test]
fn a_mapping_edited_under_load_loses_nothing_and_repeats_nothing_from_mqtt_to_kafka() {
    let case = Case::new(&Stack::running(), "editm");
    let file = case.changed(MQTT_TO_KAFKA, &[]);
    let text = fs::read_to_string(&file).unwrap();
    let streamer = Streamer::start(&case, std::slice::from_ref(&file));
    streamer.wait_ready();
    let (load, started) = (Load::mqtt(&case, RATE), Instant::now());
    for edit in 1..=EDITS {
        let from = load.sent();
        save(&file, &text.replace("topic: meta.topic,", &format!("topic: meta.topic, edit: {edit},")));
        wait_replaced(&streamer, edit);
        streamer.eventually("more is sent", || at_least(load.sent(), from + 200));
    }
    let (rate, sent) = (f64::from(load.sent()) / started.elapsed().as_secs_f64(), load.stop());
    let duplicates = case.nothing_lost_in_topic(&streamer, sent);
    assert_eq!(duplicates, 0, "a reload repeats nothing that was acknowledged");
    let records = kafka::read_all(&case.stack.kafka, case.kafka_topic()).unwrap();
    let edits: std::collections::BTreeSet<_> = records.iter().filter_map(|r| r.json()["edit"].as_u64()).collect();
    note(format!("{sent} messages, {rate:.0} a second, edits seen in Kafka: {edits:?}"));
    assert!(edits.contains(&u64::from(EDITS)), "the last edit is at work: {edits:?}");
    assert_eq!(streamer.log_lines("ERROR"), [""; 0]);
}

#[test]
fn a_mapping_edited_under_load_loses_nothing_and_repeats_nothing_from_kafka_to_clickhouse() {
    let case = Case::new(&Stack::running(), "editk");
    case.create_table();
    let file = case.changed(KAFKA_TO_CLICKHOUSE, &[("create: ../schemas/telemetry.sql ", "# ")]);
    let text = fs::read_to_string(&file).unwrap();
    let streamer = Streamer::start(&case, std::slice::from_ref(&file));
    streamer.wait_ready();
    let (load, started) = (Load::kafka(&case, RATE), Instant::now());
    for edit in 1..=EDITS {
        let from = load.sent();
        save(
            &file,
            &text.replace("battery: numeric(p?.battery) ?? 0", &format!("battery: numeric(p?.battery) ?? {edit}")),
        );
        wait_replaced(&streamer, edit);
        streamer.eventually("more is sent", || at_least(load.sent(), from + 200));
    }
    let (rate, sent) = (f64::from(load.sent()) / started.elapsed().as_secs_f64(), load.stop());
    note(format!("{sent} messages, {rate:.0} a second"));
    let duplicates = case.nothing_lost_in_table(&streamer, sent);
    assert_eq!(duplicates, 0, "a reload repeats nothing that was committed");
}

/// A pipeline that needs no server and never ends: it counts slowly.
fn counter(name: &str, script: &str) -> String {
    format!(
        "name: {name}\ninputs: {{ in: {{ generate: {{ rate_per_s: 20, script: '#{{ n: meta.offset }}', topic: t }} }} }}\n\
         steps:\n  - map: {script}\noutputs: {{ out: {{ file: {{ path: {name}.jsonl }} }} }}\ndead_letter: {{ drop: {{}} }}\n"
    )
}

/// Waits until the last line of a pipeline's file has this text in it.
fn wait_written(streamer: &Streamer, case: &Case, name: &str, text: &str) {
    let path = case.folder().join(format!("{name}.jsonl"));
    streamer.eventually("messages are written", || {
        let written = fs::read_to_string(&path).unwrap_or_default();
        let last = written.lines().last().unwrap_or_default().to_owned();
        if last.contains(text) { Ok(()) } else { Err(format!("{last} does not have {text}")) }
    });
}

fn stale(streamer: &Streamer) -> Result<f64, String> {
    streamer.metric(STALE, &["pipeline=\"a\""])
}

#[test]
fn a_faulty_edit_keeps_the_old_pipeline_running_until_it_is_repaired() {
    let case = Case::new(&Stack::running(), "faulty");
    let file = case.write("a.yaml", &counter("a", "'#{ v: 1 }'"));
    let other = case.write("b.yaml", &counter("b", "'#{ v: 1 }'"));
    let streamer = Streamer::start(&case, &[file.clone(), other]);
    streamer.wait_ready();
    wait_written(&streamer, &case, "a", "\"v\":1");

    save(&file, &counter("a", "'#{ v: nope(2) }'"));
    wait_reloads(&streamer, "refused", 1);
    assert_eq!(stale(&streamer), Ok(1.0));
    let (_, body) = streamer.get("/health/ready").unwrap();
    assert!(body.contains("a.yaml:4:17: the script knows no function `nope`"), "{body}");
    assert!(streamer.log().contains("error[unknown-function]"), "the diagnostic is in the log");
    wait_written(&streamer, &case, "a", "\"v\":1");

    // Not even YAML.
    save(&file, "name: [");
    wait_reloads(&streamer, "refused", 2);
    wait_written(&streamer, &case, "a", "\"v\":1");

    save(&file, &counter("a", "'#{ v: 3 }'"));
    wait_reloads(&streamer, "ok", 1);
    wait_written(&streamer, &case, "a", "\"v\":3");
    assert_eq!(stale(&streamer), Ok(0.0));
    let (_, body) = streamer.get("/health/ready").unwrap();
    assert!(body.contains("\"notes\":[]"), "{body}");
    // The other one was left alone all the time.
    assert_eq!(streamer.metric(RELOADS, &["pipeline=\"b\""]), Ok(0.0));
    assert_eq!(streamer.log().matches("pipeline starts pipeline=b").count(), 1);
}

#[test]
fn scripts_and_plugins_are_followed_and_only_those_who_use_them_start_anew() {
    let case = Case::new(&Stack::running(), "plugs");
    fs::create_dir(case.folder().join("plugins")).unwrap();
    let module = case.write("plugins/m.rhai", "fn f() { 1 }\n");
    let script = case.write("s.rhai", "#{ v: 1 }\n");
    let a = case.write("a.yaml", &counter("a", "'#{ v: m::f() }'"));
    let b = case.write("b.yaml", &counter("b", "{ file: s.rhai }"));
    let streamer = Streamer::start(&case, &[a.clone(), b]);
    streamer.wait_ready();
    wait_written(&streamer, &case, "b", "\"v\":1");

    save(&module, "fn f() { 2 }\n");
    wait_written(&streamer, &case, "a", "\"v\":2");
    save(&script, "#{ v: 3 }\n");
    wait_written(&streamer, &case, "b", "\"v\":3");
    for name in ["a", "b"] {
        let label = format!("pipeline=\"{name}\"");
        assert_eq!(streamer.metric(RELOADS, &[&label]), Ok(1.0), "{name}");
    }
    // A file that is only touched is no change; the next one comes through all the same.
    fs::write(&a, fs::read_to_string(&a).unwrap()).unwrap();
    save(&script, "#{ v: 4 }\n");
    wait_written(&streamer, &case, "b", "\"v\":4");
    assert_eq!(streamer.metric(RELOADS, &["pipeline=\"a\""]), Ok(1.0));
}

#[test]
fn without_watching_only_a_signal_reloads() {
    let mut case = Case::new(&Stack::running(), "hup");
    case.environment.insert("STREAMER_WATCH", "off".to_owned());
    let file = case.write("a.yaml", &counter("a", "'#{ v: 1 }'"));
    let streamer = Streamer::start(&case, std::slice::from_ref(&file));
    streamer.wait_ready();
    wait_written(&streamer, &case, "a", "\"v\":1");
    let lines = || fs::read_to_string(case.folder().join("a.jsonl")).unwrap_or_default().lines().count();
    save(&file, &counter("a", "'#{ v: 2 }'"));
    // Time enough for 20 messages is time enough to notice a change, if anybody looked.
    let before = lines();
    streamer.eventually("it goes on", || at_least(lines(), before + 20));
    wait_written(&streamer, &case, "a", "\"v\":1");
    let done = std::process::Command::new("kill").args(["-s", "HUP", &streamer.pid().to_string()]).status().unwrap();
    assert!(done.success());
    wait_reloads(&streamer, "ok", 1);
    wait_written(&streamer, &case, "a", "\"v\":2");
}

#[test]
fn a_link_that_is_swapped_is_noticed() {
    let case = Case::new(&Stack::running(), "link");
    for (version, value) in [("v1", 1), ("v2", 2)] {
        fs::create_dir(case.folder().join(version)).unwrap();
        case.write(&format!("{version}/a.yaml"), &counter("a", &format!("'#{{ v: {value} }}'")));
    }
    let link = |target: &str, name: &str| {
        let new = case.folder().join("link.new");
        std::os::unix::fs::symlink(target, &new).unwrap();
        fs::rename(new, case.folder().join(name)).unwrap();
    };
    link("v1", "..data");
    link("..data/a.yaml", "a.yaml");
    let streamer = Streamer::start(&case, &[case.folder().join("a.yaml")]);
    streamer.wait_ready();
    wait_written(&streamer, &case, "a", "\"v\":1");
    link("v2", "..data");
    wait_reloads(&streamer, "ok", 1);
    wait_written(&streamer, &case, "a", "\"v\":2");
}

#[test]
fn files_that_come_start_and_files_that_go_stop() {
    let case = Case::new(&Stack::running(), "folder");
    let folder = case.folder().join("pipelines");
    fs::create_dir(&folder).unwrap();
    let path = |name: &str| folder.join(format!("{name}.yaml"));
    let in_folder = |name: &str, value: u32| {
        counter(name, &format!("'#{{ v: {value} }}'")).replace(&format!("{name}.jsonl"), &format!("../{name}.jsonl"))
    };
    fs::write(path("a"), in_folder("a", 1)).unwrap();
    let streamer = Streamer::start(&case, std::slice::from_ref(&folder));
    streamer.wait_ready();
    save(&path("b"), &in_folder("b", 7));
    wait_written(&streamer, &case, "b", "\"v\":7");
    fs::remove_file(path("a")).unwrap();
    streamer
        .eventually("the other one stops", || equal(streamer.log().matches("pipeline stopped pipeline=a").count(), 1));
    streamer.wait_ready();
    let (_, body) = streamer.get("/health/ready").unwrap();
    assert!(!body.contains("a/"), "{body}");
    // It comes back under another name.
    save(&path("a"), &in_folder("renamed", 5));
    wait_written(&streamer, &case, "renamed", "\"v\":5");
}
