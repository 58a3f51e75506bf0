//! Rules over components made for these tests, so that they hold whatever real components become.
use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::{
    ack::Ack,
    client::Contact,
    config::{Environment, Kind},
    diagnostic::{Fault, Format, SourceFile, render},
    input::{Input, InputContext, InputError, Replay},
    message::Batch,
    output::{Delivery, Output, OutputContext, OutputError, Parcel, WriteLimits},
    spec::{Section, Spec, decode, schema_of},
    step::{Step, StepReport},
};

/// An input with fields of every shape.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "most fields are only in the schema")]
struct Config {
    /// Address of the broker.
    url: String,
    /// What to subscribe to.
    topics: Topics,
    /// Name of the connection.
    client_id: Option<String>,
    /// Password.
    password: Option<String>,
    /// Quality of service.
    #[serde(default)]
    #[schemars(range(max = 2))]
    qos: u8,
    /// Mode of work.
    #[serde(default)]
    mode: Mode,
    /// Encryption.
    tls: Option<Tls>,
    /// Names to numbers.
    #[serde(default)]
    tags: BTreeMap<String, u16>,
    /// How to sign in.
    login: Option<Login>,
    #[serde(flatten)]
    shared: Shared,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Shared {
    /// Longest wait, in milliseconds.
    #[serde(default)]
    timeout_ms: u32,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Topics {
    One(String),
    Many(#[schemars(length(min = 1))] Vec<String>),
}

#[derive(Debug, Clone, Default, serde::Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Quick.
    #[default]
    Fast,
    /// Careful.
    Safe,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Tls {
    /// File with certificates.
    ca: Option<String>,
    /// Do not check names.
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
enum Login {
    /// By password.
    Plain {
        /// Who.
        user: String,
    },
    /// By token.
    Token {
        /// What.
        token: String,
    },
}

/// `none:` or nothing at all.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Empty {}

struct Part {
    replay: Replay,
    contact: Option<Contact>,
}

#[async_trait]
impl Input for Part {
    fn replay(&self) -> Replay {
        self.replay
    }
    fn contact(&self) -> Option<Contact> {
        self.contact.clone()
    }
    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        unreachable!("lint connects to nothing")
    }
    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        unreachable!("lint reads nothing")
    }
    async fn close(&mut self, _: Duration) {}
}

#[async_trait]
impl Output for Part {
    fn archive(&mut self, _: &str) -> Option<Vec<Fault>> {
        Some(Vec::new())
    }
    fn limits(&self) -> WriteLimits {
        WriteLimits::IMMEDIATE
    }
    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        unreachable!("lint connects to nothing")
    }
    async fn write(&mut self, _: &Parcel) -> Delivery {
        unreachable!("lint writes nothing")
    }
    async fn close(&mut self, _: Duration) {}
}

impl Step for Part {
    fn apply(&mut self, batch: Batch, _: &mut StepReport) -> Batch {
        batch
    }
}

fn build_broker(section: &Section) -> Result<Box<dyn Input>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let mut faults = Vec::new();
    if !config.url.contains("://") {
        faults.push(Fault::new("bad-url", "url", format!("`{}` is not a URL", config.url)).label("no `://`"));
    }
    if config.password.as_deref().is_some_and(|password| password.len() < 9) {
        let password = config.password.unwrap_or_default();
        faults.push(Fault::new("weak-password", "password", format!("`{password}` is too short")).label("short"));
    }
    let contact = Contact { server: config.url, client_id: config.client_id, ..Contact::default() };
    let replay = if config.qos == 0 { Replay::Never } else { Replay::Unacknowledged };
    if faults.is_empty() { Ok(Box::new(Part { replay, contact: Some(contact) })) } else { Err(faults) }
}

fn build_script(section: &Section) -> Result<Box<dyn Step>, Vec<Fault>> {
    let text = section.value.as_str().unwrap_or_default();
    match text
        .lines()
        .enumerate()
        .find_map(|(line, text)| Some((line + 1, text[..text.find("oops")?].chars().count() + 1)))
    {
        Some((line, column)) => {
            Err(vec![Fault::new("script", "", "`oops` is not known").label("here").at(line, column)])
        }
        None => Ok(Box::new(Part { replay: Replay::Never, contact: None })),
    }
}

static BROKER: Spec<dyn Input> = Spec {
    name: "broker",
    summary: "Reads nothing.",
    example: "{ url: a://b, topics: x }",
    scripts: &[],
    schema: schema_of::<Config>,
    build: build_broker,
};
static SCRIPT: Spec<dyn Step> = Spec {
    name: "script",
    summary: "Does nothing.",
    example: "a",
    scripts: &[""],
    schema: schema_of::<String>,
    build: build_script,
};
static NONE: Spec<dyn Output> = Spec {
    name: "none",
    summary: "Writes nothing.",
    example: "{}",
    scripts: &[],
    schema: schema_of::<Empty>,
    build: |section| {
        decode::<Empty>(section).map(|_| Box::new(Part { replay: Replay::Never, contact: None }) as Box<dyn Output>)
    },
};

static INPUTS: &[&Spec<dyn Input>] = &[&BROKER];
static STEPS: &[&Spec<dyn Step>] = &[&SCRIPT];
static OUTPUTS: &[&Spec<dyn Output>] = &[&NONE];

fn registry() -> Registry {
    Registry::of(INPUTS, STEPS, OUTPUTS)
}

fn read(path: &str, text: &str) -> Document {
    let environment = Environment::of([("QOS", "7"), ("QUEUE_TOKEN", "hunter2")]);
    Document::read(SourceFile { path: path.into(), text: text.into() }, &environment, &registry())
}

/// `line:column code: title (label)` of every fault of one file.
fn faults(text: &str) -> Vec<String> {
    lint(&[read("p.yaml", text)], &registry())
        .iter()
        .map(|fault| {
            let (line, column) = fault.line_column();
            format!("{line}:{column} {}: {} ({})", fault.code, fault.title, fault.label)
        })
        .collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(faults(text), expected, "{text}");
}

/// Checks the section of the input in a file that is otherwise clean; lines count from the section.
fn check_section(section: &str, expected: &[&str]) {
    let text =
        format!("outputs: {{ o: {{ none: }} }}\ndead_letter: {{ none: {{}} }}\ninputs:\n  i:\n    broker: {section}\n");
    let found: Vec<String> = faults(&text).iter().map(|fault| fault.split_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(found, expected, "{section}");
}

#[test]
fn a_clean_file_has_no_faults() {
    check(
        "name: p\ninputs:\n  i:\n    broker: { url: a://b, topics: [x], qos: 1, mode: safe, tags: { a: 1 }, tls: { ca: x }, login: { type: token, token: '${QUEUE_TOKEN}' } }\n\
         steps:\n  - script: a\noutputs:\n  o:\n    when: payload.x > 1\n    none:\ndead_letter: { none: {} }\ndelivery: at_least_once\nlimits: { shutdown_timeout_ms: 1000 }\n",
        &[],
    );
}

#[test]
fn sections_are_checked_by_their_schema() {
    check_section(
        "",
        &[
            "missing-field: input `broker` needs the field `url` (add `url:` here)",
            "missing-field: input `broker` needs the field `topics` (add `topics:` here)",
        ],
    );
    check_section(
        "{ url: a://b, topic: x }",
        &["unknown-field: input `broker` has no field `topic` (did you mean `topics`?)"],
    );
    let with =
        |field: &str, expected: &[&str]| check_section(&format!("{{ url: a://b, topics: x, {field} }}"), expected);
    with("url: 5", &["duplicate-key: `url` is defined twice (defined again here)"]);
    with("qos: 3", &["out-of-range: `qos` of input `broker` must be from 0 to 2 (3 is out of range)"]);
    with("qos: -1", &["out-of-range: `qos` of input `broker` must be from 0 to 2 (-1 is out of range)"]);
    with("qos: '${QOS}'", &["out-of-range: `qos` of input `broker` must be from 0 to 2 (7 is out of range)"]);
    with("qos: '1'", &["wrong-type: `qos` of input `broker` must be an integer (expected an integer, found text)"]);
    with("qos: 1.5", &["wrong-type: `qos` of input `broker` must be an integer (expected an integer, found a number)"]);
    with("qos:", &["wrong-type: `qos` of input `broker` must be an integer (expected an integer, found nothing)"]);
    with("client_id: 5", &["wrong-type: `client_id` of input `broker` must be text (expected text, found an integer)"]);
    with("client_id: '${QOS}'", &[]);
    with("client_id:", &[]);
    with("mode: fsat", &["unknown-value: `mode` of input `broker` cannot be `fsat` (did you mean `fast`?)"]);
    with("mode: [fast]", &["wrong-type: `mode` of input `broker` must be text (expected text, found a list)"]);
    with("timeout_ms: 5", &[]);
    with(
        "timeout_ms: 4294967296",
        &["out-of-range: `timeout_ms` of input `broker` must be from 0 to 4294967295 (4294967296 is out of range)"],
    );
    with("timeout: 5", &["unknown-field: input `broker` has no field `timeout` (did you mean `timeout_ms`?)"]);
    with(
        "qos: '${QOS}', tls: { insecure: '${QOS}' }",
        &[
            "out-of-range: `qos` of input `broker` must be from 0 to 2 (7 is out of range)",
            "wrong-type: `tls.insecure` of input `broker` must be `true` or `false` (expected `true` or `false`, found an integer)",
        ],
    );
    with("tls: { cax: x }", &["unknown-field: `tls` of input `broker` has no field `cax` (did you mean `ca`?)"]);
    with(
        "tls: { insecure: 1 }",
        &[
            "wrong-type: `tls.insecure` of input `broker` must be `true` or `false` (expected `true` or `false`, found an integer)",
        ],
    );
    with(
        "tls: yes",
        &[
            "wrong-type: `tls` of input `broker` must be fields (`key: value`) (expected fields (`key: value`), found text)",
        ],
    );
    with(
        "tags: { a: 70000, b: x }",
        &[
            "out-of-range: `tags.a` of input `broker` must be from 0 to 65535 (70000 is out of range)",
            "wrong-type: `tags.b` of input `broker` must be an integer (expected an integer, found text)",
        ],
    );
    with(
        "login: { type: tokn, token: '${QUEUE_TOKEN}' }",
        &["unknown-value: `login.type` of input `broker` cannot be `tokn` (did you mean `token`?)"],
    );
    with(
        "login: { type: token }",
        &["missing-field: `login` of input `broker` needs the field `token` (add `token:` here)"],
    );
    let topics =
        |topics: &str, expected: &[&str]| check_section(&format!("{{ url: a://b, topics: {topics} }}"), expected);
    topics(
        "5",
        &["wrong-type: `topics` of input `broker` must be text or a list (expected text or a list, found an integer)"],
    );
    topics("[a, 5]", &["wrong-type: `topics.1` of input `broker` must be text (expected text, found an integer)"]);
    topics(
        "{ a: b }",
        &["wrong-type: `topics` of input `broker` must be text or a list (expected text or a list, found fields)"],
    );
}

#[test]
fn a_component_names_its_own_faults_when_the_schema_finds_none() {
    check_section(
        "{ url: x, topics: x, password: secret }",
        &[
            "bad-url: `x` is not a URL (no `://`)",
            "weak-password: `secret` is too short (short)",
            "plain-secret: `password` stands in the file as it is (everybody who can read the file knows it)",
        ],
    );
    check_section(
        "{ url: x, topics: x, password: '${QUEUE_TOKEN}' }",
        &["bad-url: `x` is not a URL (no `://`)", "weak-password: `***` is too short (short)"],
    );
    check_section(
        "{ url: x, topics: x, qos: 9 }",
        &["out-of-range: `qos` of input `broker` must be from 0 to 2 (9 is out of range)"],
    );
    check_section("{ url: '${NO}', topics: x }", &["unset-variable: `NO` is not set (not set, and no default here)"]);
    check_section(
        "{ url: a://b, topics: x, mode: '${QUEUE_TOKEN}' }",
        &["unknown-value: `mode` of input `broker` cannot be this (not one of its values)"],
    );
}

#[test]
fn faults_of_scripts_stand_at_their_line_and_column() {
    let file = |steps: &str| {
        format!(
            "# °C\ninputs: {{ i: {{ broker: {{ url: a://b, topics: x }} }} }}\noutputs: {{ o: {{ none: }} }}\ndead_letter: {{ none: }}\nsteps:\n{steps}"
        )
    };
    check(
        &file("  - script: |\n      let °x = ${y};\n      °C + oops;\n"),
        &["8:12 script: `oops` is not known (here)"],
    );
    check(&file("  - script: a + oops\n"), &["6:17 script: `oops` is not known (here)"]);
    check(&file("  - script: >\n      a +\n      oops\n"), &["7:7 script: `oops` is not known (here)"]);
}

#[test]
fn the_top_level_is_checked() {
    check(
        "[]\n",
        &["1:1 wrong-type: the pipeline must be fields (`key: value`) (expected fields (`key: value`), found a list)"],
    );
    check(
        "name: x\n",
        &[
            "1:1 missing-field: the pipeline needs the field `inputs` (add `inputs:` here)",
            "1:1 missing-field: the pipeline needs the field `outputs` (add `outputs:` here)",
        ],
    );
    check(
        "inputs: {}\noutputs: []\ninput: x\nsteps: { script: a }\nlimits: { x: 1 }\ndelivery: once\n",
        &[
            "1:1 out-of-range: `inputs` of the pipeline must not be empty (empty)",
            "2:1 wrong-type: `outputs` of the pipeline must be fields (`key: value`) (expected fields (`key: value`), found a list)",
            "2:1 missing-dead-letter: pipeline `p` has no `dead_letter` (a message that cannot be delivered here stops the pipeline)",
            "3:1 unknown-field: the pipeline has no field `input` (did you mean `inputs`?)",
            "4:1 wrong-type: `steps` of the pipeline must be a list (expected a list, found fields)",
            "5:11 unknown-field: `limits` of the pipeline has no field `x` (unknown field)",
            "6:11 unknown-value: `delivery` of the pipeline cannot be `once` (not one of its values)",
        ],
    );
}

#[test]
fn a_key_that_turns_something_on_is_not_left_bare() {
    let head =
        "inputs: { i: { broker: { url: a://b, topics: x } } }\noutputs: { o: { none: } }\ndead_letter: { none: }\n";
    check(
        &format!("{head}archive:\nspool:\n"),
        &[
            "4:1 one-component: `archive` names no output (which output?)",
            "5:1 wrong-type: `spool` of the pipeline must be fields (`key: value`) (expected fields (`key: value`), found nothing)",
        ],
    );
}

#[test]
fn each_label_holds_one_known_component() {
    let good = "{ url: a://b, topics: x }";
    check(
        &format!(
            "inputs:\n  Bad One: {{ broker: {good} }}\n  a:\n  b: {{ brokr: {good} }}\n  c: {{ broker: {good}, none: {{}} }}\n  d: {{ none: {{}} }}\n  broker: {good}\n\
             outputs:\n  o: {{ none: {{}}, when: [x] }}\nsteps:\n  - script\n  - script: a\n    other: b\ndead_letter: none\narchive: {{ none: {{}} }}\n"
        ),
        &[
            "2:3 bad-label: `Bad One` cannot be a label (lower-case letters, digits, `_` and `-` only)",
            "3:3 one-component: input `a` names no input (which input?)",
            "4:8 unknown-input: no input is called `brokr` (did you mean `broker`?)",
            "5:43 one-component: input `c` holds 2 keys instead of one input: `broker`, `none` (one too many)",
            "6:8 unknown-input: no input is called `none` (unknown input)",
            "7:13 one-component: input `broker` holds 2 keys instead of one input: `url`, `topics` (one too many)",
            "9:18 wrong-type: `when` of output `o` must be text or `true` or `false` (expected text or `true` or `false`, found a list)",
            "11:5 one-component: `steps[0]` names no step (which step?)",
            "13:5 one-component: `steps[1]` holds 2 keys instead of one step: `script`, `other` (one too many)",
            "14:1 one-component: `dead_letter` names no output (which output?)",
        ],
    );
}

#[test]
fn a_guarantee_needs_parts_that_give_it() {
    let file = |qos: u8| {
        format!(
            "inputs: {{ i: {{ broker: {{ url: a://b, topics: x, qos: {qos} }} }} }}\noutputs: {{ o: {{ none: }} }}\ndead_letter: {{ none: }}\ndelivery: at_least_once\n"
        )
    };
    check(&file(1), &[]);
    check(
        &file(0),
        &["1:11 delivery-impossible: input `i` cannot give `at_least_once` (what it reads never comes again)"],
    );
}

#[test]
fn exactly_once_needs_one_output_that_recognises() {
    check(
        "inputs: { i: { broker: { url: a://b, topics: x, qos: 1 } } }\noutputs:\n  o: { none: }\n  p: { none: }\ndead_letter: { none: }\ndelivery: exactly_once\n",
        &[
            "1:11 delivery-impossible: input `i` cannot give `exactly_once` (it cannot hand out the same ranges again)",
            "3:3 delivery-impossible: output `o` cannot give `exactly_once` (it cannot tell that a message comes again)",
            "4:3 delivery-impossible: output `p` cannot give `exactly_once` (it cannot tell that a message comes again)",
            "6:11 delivery-impossible: `exactly_once` needs a single output, and there are 2 (more than one output)",
        ],
    );
}

#[test]
fn files_of_one_run_do_not_collide() {
    let text = "name: p\ninputs: { i: { broker: { url: a://b, topics: x, client_id: c } } }\noutputs: { o: { none: } }\ndead_letter: { none: }\n";
    let other = "inputs: { i: { broker: { url: a://b, topics: x, client_id: d } } }\noutputs: { o: { none: } }\ndead_letter: { none: }\n";
    let found = lint(&[read("a.yaml", text), read("c.yaml", other), read("b.yaml", text)], &registry());
    let rendered = render(&found, Format::Concise, false);
    assert_eq!(
        rendered,
        "b.yaml:1:7: error[same-name] two pipelines are called `p`\n\
         b.yaml:2:60: error[same-client-id] client id `c` is used twice on one server\n"
    );
    assert_eq!(found[0].label, "also in a.yaml:1");
    assert_eq!(found[1].label, "also at a.yaml:2:60");
}

/// The reader leaves out what is malformed, so every malformed thing must be an error here.
#[test]
fn what_the_reader_leaves_out_lint_reports() {
    let text = "name: p\ndescription: d\ninputs:\n  i:\n    broker: { url: a://b, topics: x }\nsteps:\n  - script: a\noutputs:\n  o:\n    when: payload.x\n    none: {}\ndead_letter:\n  none: {}\ndelivery: best_effort\nlimits: { shutdown_timeout_ms: 5 }\n";
    let whole = summary(&read("p.yaml", text)).unwrap();
    let paths = [
        "name",
        "description",
        "inputs",
        "inputs.i",
        "inputs.i.broker",
        "steps",
        "steps.0",
        "steps.0.script",
        "outputs",
        "outputs.o",
        "outputs.o.when",
        "outputs.o.none",
        "dead_letter",
        "dead_letter.none",
        "delivery",
        "limits",
        "limits.shutdown_timeout_ms",
    ];
    for path in paths {
        for value in ["5", "~", "text", "[]", "[a]", "{}", "{ a: b }"] {
            let mut tree: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
            let mut at = &mut tree;
            for key in path.split('.') {
                at = match key.parse::<usize>() {
                    Ok(index) => &mut at[index],
                    Err(_) => &mut at[key],
                };
            }
            *at = serde_yaml::from_str(value).unwrap();
            let document = read("p.yaml", &serde_yaml::to_string(&tree).unwrap());
            let errors = lint(std::slice::from_ref(&document), &registry()).iter().filter(|d| d.is_error()).count();
            let now = summary(&document);
            // Optional things may be left out openly: null, an empty list of steps.
            let openly =
                matches!(value, "~" | "[]") && ["steps", "dead_letter", "delivery", "limits", "name"].contains(&path);
            if errors == 0 && !openly {
                assert_eq!(now, Some(whole), "`{path}: {value}` is neither reported nor read");
            }
        }
    }
}

fn summary(document: &Document) -> Option<(usize, usize, usize, bool, bool, bool)> {
    let pipeline = document.pipeline(&registry())?;
    let when = pipeline.outputs.iter().all(|output| output.when.is_some());
    let (inputs, steps, outputs) = (pipeline.inputs.len(), pipeline.steps.len(), pipeline.outputs.len());
    Some((inputs, steps, outputs, when, pipeline.dead_letter.is_some(), pipeline.delivery.is_some()))
}

/// Offsets come from a parser that counts characters, so any text must be safe to point into.
#[test]
fn no_text_makes_lint_panic() {
    use proptest::prelude::*;
    const TEXT: &str = "name: p # °C\ninputs:\n  i:\n    broker: { url: \"a://${NO:-é}\", topics: [x] }\nsteps:\n  - script: |\n      °C + oops;\n  - script: >-\n      a\n\n      ${b}\noutputs: &o\n  o:\n    when: payload.x > 1\n    none: *o\n    <<: *o\n";
    let pieces = prop::sample::select(vec![
        "", "°", "\n", "\r\n", "\t", " ", ":", "- ", "\"", "'", "{", "}", "[", "${", "|", "&a ", "*a", "!t ",
        "\u{feff}", "\0", "---\n", "#", "?", ">",
    ]);
    let edits = prop::collection::vec((0..TEXT.chars().count(), 0..4usize, pieces), 1..6);
    proptest!(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() }, |(edits in edits)| {
        let mut text: Vec<char> = TEXT.chars().collect();
        for (at, length, piece) in edits {
            let at = at.min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let document = read("p.yaml", &text.into_iter().collect::<String>());
        let found = lint(std::slice::from_ref(&document), &registry());
        for format in [Format::Full, Format::Concise, Format::Json] {
            render(&found, format, false);
        }
        if found.iter().all(|diagnostic| !diagnostic.is_error()) {
            prop_assert!(document.pipeline(&registry()).is_some(), "clean, yet not readable: {}", document.file.text);
        }
    });
}

/// Every example of the built-in components is a file without faults.
#[test]
fn every_example_lints_clean() {
    let registry = Registry::built_in();
    for found in Kind::ALL.into_iter().flat_map(|kind| registry.all(kind)) {
        let component = |by: &str| {
            let body: String = found.example().trim_end().lines().map(|line| format!("{by}  {line}\n")).collect();
            let block = found.example().trim_start().starts_with(['|', '>']);
            let start = if block { format!(" {}", body.trim_start()) } else { format!("\n{body}") };
            format!("{by}{}:{start}", found.name())
        };
        let text = match found.kind() {
            Kind::Step => format!("steps:\n  -\n{}", component("    ")),
            kind => format!("{}:\n  example:\n{}", kind.key(), component("    ")),
        };
        let file = SourceFile { path: format!("{}.yaml", found.name()), text };
        let document = Document::read(file, &Environment::default(), &registry);
        let slots = document.slots();
        let file = File {
            document: &document,
            registry: &registry,
            root: document.root.as_ref().unwrap(),
            slots: Vec::new(),
            parts: Vec::new(),
        };
        let mut faults = document.faults.clone();
        component_fault::check(&file, &slots[0], &mut faults);
        let rendered = render(&faults, Format::Full, false);
        assert!(faults.is_empty(), "the example of {} `{}` has faults:\n{rendered}", found.kind().word(), found.name());
    }
}
