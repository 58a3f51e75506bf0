//! Dead letters that people act on: listed, shown, exported, sent again after a repair; counted at the far end.
mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use common::{
    Case, Stack, Streamer, at_least, complete, dice, equal, eventually,
    kafka::{self, Producer, Record},
    note,
    project::{Project, text},
    streamer::{free_port, output},
};
use rand::Rng as _;
use serde_json::Value;

/// A pipeline from topic to topic, whose mapping a test repairs.
struct Mended {
    case: Case,
    file: PathBuf,
}

impl Mended {
    fn new(name: &str) -> Self {
        let case = Case::new(&Stack::running(), name);
        let file = case.folder().join("devices.yaml");
        Self { case, file }
    }

    fn out(&self) -> String {
        format!("{}.out", self.case.id)
    }

    /// Saves the file with these steps.
    fn save(&self, steps: &str) {
        let (id, kafka) = (&self.case.id, &self.case.stack.kafka);
        let text = format!(
            "name: {id}\ninputs:\n  in:\n    kafka: {{ brokers: '{kafka}', topics: {id}, group: {id} }}\nsteps:\n{steps}\n\
             outputs:\n  out:\n    kafka: {{ brokers: '{kafka}', topic: {id}.out, message_bytes_max: 20000000 }}\n\
             dead_letter:\n  kafka: {{ brokers: '{kafka}', topic: {id}.dead }}\n"
        );
        std::fs::write(&self.file, text).unwrap();
    }

    /// Sends `count` messages, runs the pipeline until each is a dead letter, and stops it.
    fn fail(&self, count: u32) {
        let mut producer = Producer::new(&self.case.stack.kafka);
        for n in 0..count {
            let value = format!(r#"{{"n":{n},"t":"20.5 C"}}"#);
            producer.send(&self.case.id, None, &format!("d{}", n % 7), Some(value.as_bytes()));
        }
        producer.flush();
        self.run_until_dead(count);
    }

    fn run_until_dead(&self, count: u32) {
        let mut streamer = Streamer::start(&self.case, std::slice::from_ref(&self.file));
        self.case.dead_letters(&streamer, count as usize);
        assert!(streamer.terminate().success());
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let state = self.case.state();
        let whose = ["--pipeline", self.file.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
        output(&self.case, &[&["--log-level", "warn", "dead-letter"], arguments, &whose].concat())
    }

    /// Runs a command that does what it should.
    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments);
        assert!(status.success(), "{arguments:?}: {status}\n{}{}", text(&stdout), text(&stderr));
        text(&stdout) + text(&stderr).as_str()
    }

    /// Open and redriven letters.
    #[track_caller]
    fn counts(&self) -> (u64, u64) {
        let groups = self.does(&["list", "--format", "json"]);
        let groups = groups.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        groups.fold((0, 0), |(open, redriven), group| {
            (open + group["open"].as_u64().unwrap(), redriven + group["redriven"].as_u64().unwrap())
        })
    }

    fn letters(&self) -> Vec<Record> {
        let all = kafka::read_all(&self.case.stack.kafka, self.case.dead_letter_topic()).unwrap();
        all.into_iter().filter(|record| record.header("streamer_mark").is_none()).collect()
    }

    /// How many messages are at the far end, and their numbers.
    fn arrived(&self) -> Result<(usize, BTreeSet<u32>), String> {
        let records = kafka::read_all(&self.case.stack.kafka, &self.out())?;
        let numbers = records.iter().filter_map(|record| record.json()["n"].as_u64()).map(|n| n as u32);
        Ok((records.len(), numbers.collect()))
    }
}

const BROKEN: &str = "  - map: |\n      #{ n: payload.n, t: payload.t * 2.0 }\n";
const MENDED: &str = "  - map: |\n      #{ n: payload.n, t: numeric(payload.t.split(\" \")[0]) * 2.0 }\n";

#[test]
fn a_thousand_letters_are_repaired_and_arrive() {
    let mended = Mended::new("repair");
    mended.save(BROKEN);
    mended.fail(1000);
    assert_eq!(mended.counts(), (1000, 0));
    let list = mended.does(&["list", "--by", "day"]);
    assert!(list.contains("1000 open, 0 redriven") && list.contains("steps[0]  script-error"), "{list}");
    let one = mended.does(&["list", "--key", "d3", "--format", "json"]);
    let group: Value = serde_json::from_str(one.lines().next().unwrap()).unwrap();
    assert_eq!(group["open"], 143, "{one}");

    let shown = mended.does(&["show", group["example"].as_str().unwrap()]);
    assert!(shown.contains("devices.yaml:7:") && shown.contains('^') && shown.contains("\"20.5 C\""), "{shown}");
    assert!(!shown.contains("the file has changed since"), "{shown}");

    let would = mended.does(&["redrive", "--dry-run", "--limit", "10"]);
    assert!(would.starts_with("10 letters would be redriven"), "{would}");
    assert_eq!(mended.counts(), (1000, 0), "a dry run sends nothing");

    mended.save(MENDED);
    let done = mended.does(&["redrive"]);
    assert!(done.contains("1000 letters redriven, 0 of them failed again"), "{done}");
    let (count, numbers) = mended.arrived().unwrap();
    complete(&numbers, 1000).unwrap();
    assert_eq!((count, mended.counts()), (1000, (0, 1000)));
    assert!(mended.does(&["redrive"]).starts_with("0 letters redriven"));
    assert_eq!(mended.arrived().unwrap().0, 1000, "nothing is redriven twice");
    note("1000 dead letters, 0 open after the repair, 1000 at the far end, none twice");
}

#[test]
fn a_broker_that_is_away_leaves_the_output_clean() {
    let mut mended = Mended::new("noise");
    // One of two brokers has no server: clients lose it again and again, and get on with the other.
    mended.case.stack.kafka = format!("127.0.0.1:{},{}", free_port(), mended.case.stack.kafka);
    mended.save(BROKEN);
    mended.fail(3);
    mended.save(MENDED);
    for _ in 0..10 {
        let Output { stdout, stderr, .. } = mended.command(&["redrive", "--dry-run"]);
        let topic = format!("topic `{}.dead` at `{}`", mended.case.id, mended.case.stack.kafka);
        assert_eq!(
            (text(&stdout), text(&stderr)),
            (String::new(), format!("3 letters would be redriven from {topic}\n"))
        );
    }
    let Output { stderr, .. } = mended.command(&["redrive"]);
    assert_eq!(text(&stderr), "3 letters redriven, 0 of them failed again\n");
}

#[test]
fn kill_9_while_redriving_loses_nothing() {
    let mended = Mended::new("killed");
    mended.save(BROKEN);
    mended.fail(1000);
    mended.save(MENDED);
    let mut dice = dice();
    for round in 1..=4 {
        let before = mended.arrived().map_or(0, |(count, _)| count);
        let mut child = Command::new(env!("CARGO_BIN_EXE_streamer"))
            .args(["--log-level", "warn", "dead-letter", "redrive", "--rate", "50", "--pipeline"])
            .arg(&mended.file)
            .env("STATE_DIR", mended.case.state())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("some letters have arrived", || at_least(mended.arrived()?.0, before + dice.random_range(1..60)));
        child.kill().unwrap();
        child.wait().unwrap();
        let (open, redriven) = mended.counts();
        assert_eq!(open + redriven, 1000);
        assert!(open > 0, "killed too late to show anything in round {round}");
    }
    mended.does(&["redrive"]);
    let (count, numbers) = mended.arrived().unwrap();
    complete(&numbers, 1000).unwrap();
    assert_eq!(mended.counts(), (0, 1000));
    note(format!("1000 dead letters, killed 4 times: 0 lost, {} doubled", count - 1000));
}

#[test]
fn a_letter_that_fails_again_tells_of_both_failures() {
    let mended = Mended::new("again");
    mended.save("  - map: throw \"the first\"\n");
    mended.fail(3);
    mended.save("  - map: throw \"the second\"\n");
    let Output { status, stderr, .. } = mended.command(&["redrive"]);
    assert_eq!(status.code(), Some(1), "{}", text(&stderr));
    assert!(text(&stderr).contains("3 letters redriven, 3 of them failed again"), "{}", text(&stderr));
    assert_eq!(mended.counts(), (3, 3));
    let redriven = |times: &str| {
        let letters = mended.letters().into_iter().filter(|letter| letter.header("streamer_redrives") == Some(times));
        letters.collect::<Vec<_>>()
    };
    assert_eq!(redriven("1").len(), 3);
    for letter in redriven("1") {
        let envelope = letter.json();
        assert!(envelope["reason"].as_str().unwrap().contains("the second"), "{envelope}");
        assert!(envelope["history"][0]["reason"].as_str().unwrap().contains("the first"), "{envelope}");
        assert_eq!(envelope["source"]["topic"], mended.case.id);
    }
    // No endless loop.
    let out = mended.does(&["redrive", "--attempts-max", "1"]);
    assert!(out.contains("3 letters left out") && out.contains("0 letters redriven"), "{out}");

    // Back to the source, where the pipeline fails on them once more.
    mended.save("  - map: throw \"the third\"\n");
    mended.does(&["redrive", "--to", "source"]);
    assert_eq!(mended.counts(), (0, 6));
    let mut streamer = Streamer::start(&mended.case, std::slice::from_ref(&mended.file));
    let letters = streamer.eventually("they have failed again", || {
        let letters = redriven("2");
        equal(letters.len(), 3).map(|()| letters)
    });
    assert!(streamer.terminate().success());
    for letter in letters {
        let envelope = letter.json();
        let reasons: Vec<_> =
            envelope["history"].as_array().unwrap().iter().map(|past| past["reason"].to_string()).collect();
        assert!(reasons[0].contains("the first") && reasons[1].contains("the second"), "{envelope}");
        assert_eq!((envelope["redrives"].as_u64(), &envelope["source"]["headers"]), (Some(2), &Value::Null));
    }
    mended.save(MENDED);
    mended.does(&["redrive"]);
    assert_eq!(mended.counts(), (0, 9));
    assert_eq!(mended.arrived().unwrap().1.len(), 3);
}

#[test]
fn over_mqtt_a_letter_carries_its_past_in_user_properties() {
    let mended = Mended::new("past");
    let (case, id) = (&mended.case, &mended.case.id);
    let save = |steps: &str| {
        mended.save(steps);
        let text = std::fs::read_to_string(&mended.file).unwrap();
        let (before, rest) = text.split_once("    kafka: ").unwrap();
        let (_, after) = rest.split_once('\n').unwrap();
        let mqtt = format!(
            "    mqtt: {{ url: 'mqtt://{}', client_id: {id}, topics: {id}/+, user_properties: true }}",
            case.stack.mqtt
        );
        std::fs::write(&mended.file, [before, &mqtt, "\n", after].concat()).unwrap();
    };
    save("  - map: throw \"the first\"\n");
    let mut streamer = Streamer::start(case, std::slice::from_ref(&mended.file));
    streamer.wait_ready();
    case.publisher().publish(&[(format!("{id}/a"), b"1".to_vec()), (format!("{id}/b"), b"2".to_vec())]);
    case.dead_letters(&streamer, 2);
    assert!(streamer.terminate().success());

    // The broker keeps them for the session of the pipeline, which is away.
    mended.does(&["redrive", "--to", "source"]);
    save("  - map: throw \"the second\"\n");
    streamer.start_again();
    streamer.eventually("they have failed again", || equal(mended.letters().len(), 4));
    assert!(streamer.terminate().success());
    let mut again: Vec<Value> = mended.letters().iter().map(Record::json).filter(|e| e["redrives"] == 1).collect();
    again.sort_by_key(|envelope| envelope["source"]["topic"].to_string());
    assert_eq!(again.len(), 2);
    for (envelope, (topic, payload)) in again.iter().zip([("a", "1"), ("b", "2")]) {
        assert_eq!(
            (&envelope["source"]["topic"], &envelope["payload"]),
            (&format!("{id}/{topic}").into(), &payload.into())
        );
        assert!(envelope["reason"].to_string().contains("the second"), "{envelope}");
        assert!(envelope["history"][0]["reason"].to_string().contains("the first"), "{envelope}");
        assert_eq!(envelope["source"]["headers"], Value::Null, "nothing else came along");
    }
}

#[test]
fn keys_headers_and_payloads_arrive_byte_for_byte() {
    let mended = Mended::new("bytes");
    let kafka = mended.case.stack.kafka.clone();
    for topic in [mended.case.id.clone(), mended.out()] {
        kafka::create(&kafka, &topic, 1, &[("max.message.bytes", "20000000")]);
    }
    let large: Vec<u8> = (0..10_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let messages: [(&[u8], &[u8]); 4] =
        [(b"\xff\x00k", b""), (b"", b"\x80\x81"), (b"text", b"{\"a\": 1.10}"), (b"big", &large)];
    let headers: [(&str, &[u8]); 3] = [("same", b"\xfe\x00"), ("same", b"text"), ("empty", b"")];
    let mut producer = Producer::new(&kafka);
    for (key, value) in messages {
        producer.send_bytes(&mended.case.id, key, value, &headers);
    }
    producer.flush();
    mended.save("  - map: throw \"not yet\"\n");
    mended.run_until_dead(4);
    let letters = mended.letters();
    let big = letters.iter().find(|letter| letter.key.as_deref() == Some("big")).unwrap();
    let envelope = big.json();
    let kept = PathBuf::from(envelope["payload_file"].as_str().unwrap());
    assert_eq!((&envelope["payload_bytes"], &envelope["payload"]), (&Value::from(10_000_000), &Value::Null));
    assert!(std::fs::read(&kept).unwrap() == large);
    let id = format!("{}:{}", big.partition, big.offset);
    assert!(mended.command(&["show", &id, "--payload", "raw"]).stdout == large, "show finds the file");

    // Without the file nothing is sent in its place, and the letter stays open.
    let aside = kept.with_extension("aside");
    std::fs::rename(&kept, &aside).unwrap();
    mended.save("  - filter: \"true\"\n");
    let Output { status, stderr, .. } = mended.command(&["redrive"]);
    let said = text(&stderr);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("cannot be read") && said.contains("3 letters redriven") && said.contains("1 letter still open"),
        "{said}"
    );
    std::fs::rename(&aside, &kept).unwrap();
    mended.does(&["redrive"]);
    assert_eq!(mended.counts(), (0, 4));

    let arrived = kafka::read_all(&kafka, &mended.out()).unwrap();
    assert_eq!(arrived.len(), 4);
    for (key, value) in messages {
        let record =
            arrived.iter().find(|record| record.key_bytes.as_deref() == Some(key)).expect("the key has arrived");
        assert!(record.value.as_deref() == Some(value), "the payload of {key:?}");
        let expected: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        assert_eq!(record.header_bytes, expected, "the headers of {key:?}");
    }
    let lines = mended.does(&["export", "--state", "redriven"]);
    let exported: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(exported.len(), 4);
    assert!(
        exported.iter().any(|letter| letter["payload_base64"].as_str().is_some_and(|text| text.len() > 13_000_000))
    );
}

#[test]
fn a_letter_goes_only_to_the_output_that_had_refused_it() {
    let mended = Mended::new("refused");
    let (id, kafka) = (mended.case.id.clone(), mended.case.stack.kafka.clone());
    mended.save("  - filter: \"true\"\n");
    let whole = std::fs::read_to_string(&mended.file).unwrap();
    let small = |bytes: u32| {
        let output = format!(
            "outputs:\n  small:\n    kafka: {{ brokers: '{kafka}', topic: {id}.small, message_bytes_max: {bytes} }}\n"
        );
        std::fs::write(&mended.file, whole.replace("outputs:\n", &output)).unwrap();
    };
    small(2000);
    let mut producer = Producer::new(&kafka);
    let value = format!(r#"{{"n":0,"text":"{}"}}"#, "x".repeat(5000));
    producer.send(&id, None, "k", Some(value.as_bytes()));
    producer.flush();
    mended.run_until_dead(1);
    assert_eq!(mended.letters()[0].header("streamer_stage"), Some("outputs.small"));
    small(20_000);
    mended.does(&["redrive"]);
    assert_eq!(mended.counts(), (0, 1));
    let there = |topic: &str| kafka::read_all(&kafka, topic).unwrap().len();
    assert_eq!((there(&format!("{id}.small")), there(&mended.out())), (1, 1), "the other output had it already");
}

#[test]
fn a_dead_letter_topic_that_is_down_holds_the_message_back() {
    let mended = Mended::new("down");
    mended.save(BROKEN);
    let good = std::fs::read_to_string(&mended.file).unwrap();
    let (before, dead_letter) = good.split_once("dead_letter:").unwrap();
    let nobody = dead_letter.replace(&mended.case.stack.kafka, "127.0.0.1:1");
    std::fs::write(&mended.file, format!("{before}limits: {{ shutdown_timeout_ms: 2000 }}\ndead_letter:{nobody}"))
        .unwrap();
    let mut producer = Producer::new(&mended.case.stack.kafka);
    producer.send(&mended.case.id, None, "k", Some(br#"{"n":0,"t":"x"}"#));
    producer.flush();
    let mut streamer = Streamer::start(&mended.case, std::slice::from_ref(&mended.file));
    streamer
        .eventually("the message is read", || at_least(streamer.metric("streamer_received_messages_total", &[])?, 1.0));
    streamer.wait_fault(&format!("{}/dead_letter/dead_letter", mended.case.id));
    streamer.terminate();
    // It was not acknowledged, so it comes again.
    mended.save(BROKEN);
    mended.run_until_dead(1);
}

const FILES: &str = "name: p\ninputs: { in: { file: { path: in.jsonl } } }\nsteps:\n  - map: payload.a + 1\n\
    outputs: { out: { file: { path: out.jsonl } } }\ndead_letter: { file: { path: dead.jsonl } }\n";

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn letters_in_a_file_are_redriven_and_marked_beside_it() {
    let project = Project::new(&[("p.yaml", FILES), ("in.jsonl", "{\"a\":1}\n{\"b\":\"x\"}\n{\"a\":{}}\n")]);
    assert_eq!(project.streamer(&["run", "p.yaml"]).status.code(), Some(0));
    assert_eq!(lines(&project.path().join("dead.jsonl")).len(), 2);
    let run = |arguments: &[&str]| {
        let output = project.streamer(&[&["dead-letter"], arguments, &["--pipeline", "p.yaml"]].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, list, _) = run(&["list"]);
    assert!(code == Some(0) && list.starts_with("dead letters of `p` in file `./dead.jsonl`: 2 open"), "{list}");
    let (_, shown, _) = run(&["show", "1", "--payload", "hex"]);
    assert!(shown.contains("p.yaml:4:") && shown.contains("7b 22 62 22"), "{shown}");

    let mended = FILES.replace("payload.a + 1", "(payload?.a ?? 0) + 1");
    std::fs::write(project.path().join("p.yaml"), mended).unwrap();
    let (code, _, said) = run(&["redrive", "1"]);
    assert_eq!((code, said.as_str()), (Some(0), "1 letter redriven, 0 of them failed again\n"));
    let (code, _, said) = run(&["redrive"]);
    assert_eq!((code, said.as_str()), (Some(1), "1 letter redriven, 1 of them failed again\n"));
    assert_eq!(lines(&project.path().join("out.jsonl")), ["2", "1"]);
    let (_, list, _) = run(&["list"]);
    assert!(list.contains("1 open, 2 redriven"), "{list}");

    let (_, exported, _) = run(&["export", "--payloads", "payloads"]);
    let letter: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!((&letter["id"], &letter["state"], &letter["redrives"]), (&"3".into(), &"open".into(), &1.into()));
    assert_eq!(std::fs::read(project.path().join("payloads/3.payload")).unwrap(), b"{\"a\":{}}");
}

#[test]
fn what_cannot_be_done_says_why() {
    let project = Project::new(&[
        ("p.yaml", FILES),
        ("none.yaml", &FILES.replace("dead_letter: { file: { path: dead.jsonl } }\n", "")),
        ("drop.yaml", &FILES.replace("file: { path: dead.jsonl }", "drop: {}")),
        (
            "dead.jsonl",
            "nonsense\n{\"version\":9}\n{\"version\":1,\"pipeline\":\"other\",\"stage\":\"s\",\"code\":\"c\",\"reason\":\"r\",\"time\":\"t\",\"source\":{\"input\":\"i\"}}\n\
          {\"version\":1,\"pipeline\":\"p\",\"stage\":\"outputs.gone\",\"code\":\"c\",\"reason\":\"r\",\"time\":\"t\",\"source\":{\"input\":\"i\"},\"payload\":\"x\"}\n",
        ),
    ]);
    let check = |arguments: &[&str], words: &str| {
        let output = project.streamer(&[&["dead-letter"], arguments].concat());
        let said = text(&output.stdout) + text(&output.stderr).as_str();
        assert!(said.contains(words), "{arguments:?}: {said}");
        output.status.code().unwrap()
    };
    let p = ["--pipeline", "p.yaml"];
    assert_eq!(check(&["list", "--pipeline", "none.yaml"], "has no `dead_letter:`"), 2);
    assert_eq!(check(&["list", "--pipeline", "drop.yaml"], "dead letters that went to `drop` cannot be read back"), 2);
    assert_eq!(check(&["list", p[0], p[1]], "1 letter of pipeline `other` not counted"), 0);
    assert_eq!(check(&["list", p[0], p[1]], "2: its version is 9, and this streamer reads version 1"), 0);
    assert_eq!(
        check(&["show", "1", p[0], p[1]], "1 in file `./dead.jsonl` is no dead letter: it is no JSON object"),
        2
    );
    assert_eq!(check(&["show", "77", p[0], p[1]], "there is no dead letter 77"), 2);
    assert_eq!(check(&["show", "x", p[0], p[1]], "`x` names no dead letter"), 2);
    assert_eq!(check(&["list", "--since", "soon", p[0], p[1]], "`soon` is no time"), 2);
    assert_eq!(check(&["redrive", p[0], p[1]], "were refused by `outputs.gone`, which the pipeline no longer has"), 2);
    assert_eq!(check(&["redrive", "--to", "source", p[0], p[1]], "so there is no topic to go back to"), 2);
    std::fs::write(project.path().join("p.yaml"), FILES.replace("payload.a + 1", "payload.a +")).unwrap();
    assert_eq!(check(&["redrive", p[0], p[1]], "nothing was sent"), 1);
    assert_eq!(check(&["list", p[0], p[1]], "1 open"), 0);
}
