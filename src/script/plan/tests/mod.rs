//! Plans against the interpreter: whatever a plan answers, the interpreter answers, too.
mod scripts;

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{
    codec::json::{Kind, Reader},
    diagnostic::ScriptPlace,
    message::{Batch, SourceBuilder},
    script::{Emit, Mapping},
    shape::{Shape, admits},
};

/// JSON as values that can be compared: a number by its kind and value.
#[derive(Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Int(String),
    Float(u64),
    Text(String),
    List(Vec<Json>),
    Map(BTreeMap<String, Json>),
}

fn read(reader: &mut Reader<'_>) -> Json {
    match reader.value().unwrap() {
        Kind::Null => Json::Null,
        Kind::Bool(value) => Json::Bool(value),
        Kind::Number(number) if number.integer && number.text != "-0" => Json::Int(number.text.to_owned()),
        Kind::Number(number) => Json::Float(number.text.parse::<f64>().unwrap().to_bits()),
        Kind::String(text) => Json::Text(text.decode().into_owned()),
        Kind::Array => {
            let mut items = Vec::new();
            while reader.next_item(items.is_empty()).unwrap() {
                items.push(read(reader));
            }
            Json::List(items)
        }
        Kind::Object => {
            let (mut members, mut first) = (BTreeMap::new(), true);
            while let Some(key) = reader.next_key(first).unwrap() {
                first = false;
                members.insert(key.decode().into_owned(), read(reader));
            }
            Json::Map(members)
        }
    }
}

fn parse(bytes: &[u8]) -> Json {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut reader = Reader::new(text);
    let value = read(&mut reader);
    reader.end().unwrap_or_else(|error| panic!("{text}: {error}"));
    value
}

fn batch(payloads: &[&str]) -> Batch {
    let mut source = SourceBuilder::new("mqtt");
    for (at, payload) in payloads.iter().enumerate() {
        source
            .push(payload.as_bytes(), |origin, parts| {
                if at % 3 != 2 {
                    origin.topic = parts.text("devices/phone-°1/telemetry")?;
                    origin.key = Some(parts.bytes(b"k\"1")?);
                }
                origin.qos = 1;
                origin.received_at_ms = 1_700_000_000_999;
                parts.header(origin, "trace", b"abc")
            })
            .unwrap();
    }
    Batch::new(source.finish())
}

fn mapping(script: &str) -> Option<Mapping> {
    let place = ScriptPlace { file: "test".into(), line: 1, column: 1, exact: true };
    Mapping::compile(script, place).ok()
}

/// How a comparison came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The script is not compiled.
    Refused,
    /// The message was left to the interpreter.
    Left,
    Equal,
}

fn compare(mapping: &mut Mapping, script: &str, batch: &mut Batch, at: usize) -> Came {
    mapping.scan(batch);
    if mapping.refusal().is_some() {
        return Came::Refused;
    }
    let message = batch.get(at);
    let (mut planned, mut interpreted) = (b"before".to_vec(), b"before".to_vec());
    mapping.interpreted();
    let plan = mapping.run(message, &mut planned);
    if mapping.interpreted().message > 0 {
        return Came::Left;
    }
    let truth = mapping.interpret(message, &mut interpreted);
    mapping.interpreted();
    if matches!(&truth, Err(error) if error.code == "script-limit") {
        // A plan is quicker than the interpreter, and the machine may be busy.
        return Came::Left;
    }
    let payload = String::from_utf8_lossy(message.payload());
    assert_eq!(plan, truth, "\n--- script\n{script}\n--- payload\n{payload}\n");
    if plan == Ok(Emit::Written) {
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(
            parse(&planned[6..]),
            parse(&interpreted[6..]),
            "\n--- script\n{script}\n--- payload\n{payload}\n--- plan\n{}\n--- interpreter\n{}\n",
            show(&planned[6..]),
            show(&interpreted[6..])
        );
    }
    Came::Equal
}

/// Holds what a script really gives against the shape that was inferred of it.
fn hold(shape: &Shape, mapping: &mut Mapping, script: &str, batch: &mut Batch, at: usize) {
    mapping.scan(batch);
    let mut out = Vec::new();
    if mapping.interpret(batch.get(at), &mut out) != Ok(Emit::Written) {
        return;
    }
    // What no `f64` holds is a number all the same.
    let text = String::from_utf8(out).unwrap();
    let Ok(value) = serde_json::from_str(&text) else { return };
    assert!(admits(shape, &value), "\n--- script\n{script}\n--- gave\n{text}\n--- inferred\n{shape:#?}");
}

/// Payloads with every kind of value in the places that the scripts below look at.
const PAYLOADS: &[&str] = &[
    r#"{"a":1,"b":{"c":2.5,"d":"x","e":{"f":true}},"l":[3,1.5,-2],"t":"hello °C","n":null,"u":"12","o":{}}"#,
    r#"{"a":-7,"b":{"c":84,"d":"a\"b\\c\n","e":{}},"l":["x","y","x"],"t":"A/b/C","u":" 4.5 ","z":[[1],[2,3]]}"#,
    r#"not JSON"#,
    r#"{}"#,
    r#"null"#,
    r#"[1,2,{"a":5}]"#,
    r#"{"a":18446744073709551615,"b":{"c":1e300,"d":"","e":5},"l":[],"t":"\u00e9\ud83d\ude00","u":"-0"}"#,
    r#"{"a":-0,"b":{"c":-0.0,"d":"5"},"l":[1,[2],{"x":1}],"t":"°","u":"1e400"}"#,
    r#"{"a":"text","b":[1],"l":{"x":1,"y":2},"t":7,"u":true}"#,
    r#"{"a":9223372036854775807,"b":{"c":9223372036854775808,"d":"9"},"l":[9223372036854775807,1],"t":"t"}"#,
    r#"{"a":1,"a":2,"b":{"c":1,"c":{"f":1}},"b":{"d":1.10},"l":[1],"l":[2,3]}"#,
    r#" { "a" : 1.10 , "b" : { "c" : 0.1 , "d" : "0.1" } , "l" : [ 0.1 , 0.2 , 0.3 ] , "t" : "x" } "#,
    r#"{"a":true,"b":{"c":false,"d":"true"},"l":[true,false,null],"t":"true","u":"TRUE"}"#,
    r#"{"\u0061":3,"b":{"\u0063":4,"x\u0022y":1},"t":"tab\there"}"#,
    r#""just text""#,
    r#"{"a":2147483648.0,"b":{"c":123456789.125,"d":"12345678901234567890"},"l":[5,4,3,2,1],"t":"  padded  "}"#,
];

fn all(script: &str) -> Vec<Came> {
    let mut mapping = mapping(script).unwrap_or_else(|| panic!("not a script: {script}"));
    let mut batch = batch(PAYLOADS);
    let shape = mapping.shape(&Shape::Any);
    (0..PAYLOADS.len()).for_each(|at| hold(&shape, &mut mapping, script, &mut batch, at));
    (0..PAYLOADS.len()).map(|at| compare(&mut mapping, script, &mut batch, at)).collect()
}

#[test]
fn what_users_write_is_compiled_and_gives_what_the_interpreter_gives() {
    for script in [
        "payload",
        "text",
        "meta.topic",
        "#{ topic: meta.topic, payload: if is_json { payload } else { #{ raw: text } }, received_at: meta.received_at }",
        "if !is_json { throw \"no\" } let p = payload?.b; #{ c: p?.c ?? 0.0, d: p?.d, all: payload }",
        "let p = payload?.b ?? #{}; #{ c: p.c, d: p?.d ?? \"none\", e: p.e?.f }",
        "let p = payload; p.extra = 1; p",
        "payload.extra = #{ x: 1 }; payload.b.c = payload.a; payload",
        "payload.a += 1; payload[\"new\"] = meta.key; payload",
        "let out = []; for x in payload.l { if x == 1 { continue; } out.push(x); } #{ out: out, n: out.len() }",
        "let sum = 0.0; for x in payload.l { sum += x; } sum",
        "let n = 0; for i in 0..5 { n += i; if i == 3 { break; } } n",
        "let n = 0; for i in 0..=5 { n += i; } n",
        "payload.l.map(|x| x * 2)",
        "let k = 10; payload.l.filter(|x| x > 1).map(|x, i| x * k + i)",
        "payload.l.all(|x| x > 0) || payload.l.some(|x| x < 0)",
        "payload.l.find(|x| x == 1) ?? \"none\"",
        "switch payload.a { 1 => \"one\", -7 => \"minus seven\", \"text\" => payload.t, 2..5 => \"few\", _ => () }",
        "switch payload.t { \"A/b/C\" => #{ x: 1 }, \"t\" => #{ y: payload.a }, _ => drop() }",
        "if payload.a == 1 { return #{ a: payload.a, b: 1 }; } #{ b: 2, c: [payload.l, payload?.t] }",
        "`${payload.a} and ${payload.t}: ${payload.b?.c}`",
        "let x = payload[\"t\"]?.len()?.contains(payload.l[0]); x",
        "payload?.t?.contains(if payload.a == 1 { drop() } else { \"x\" })",
        "payload?.t.str(\"none\")",
        "payload?.b?.c.num(5)",
        "let p = payload?.b?.e; p.x",
        "let p = payload?.b; p?.c.num(7)",
        "let p = payload?.b; p.num(7)",
        "payload.t.split(\"/\")[1]",
        "payload.t.split(\"/\").len()",
        "meta.levels[1].to_upper() + \"-\" + payload.t.to_lower()",
        "payload.t.sub_string(1, 3) + payload.t.sub_string(2)",
        "#{ k: payload.b.keys(), v: payload.b.values(), n: payload.b.len(), has: payload.b.contains(\"c\"), i: \"c\" in payload.b }",
        "fn twice(x) { if x == 1 { return 0; } x * 2 } #{ a: twice(payload.a), b: twice(3) }",
        "fn outer(x) { inner(x) + 1 } fn inner(x) { x * 10 } outer(payload.a)",
        "min(payload.a, 5) + max(2.5, payload.a)",
        "#{ f: payload.a.to_float(), i: payload.b.c.to_int(), s: payload.a.to_string(), r: payload.b.c.round() }",
        "parse_int(payload.u) ?? 1",
        "payload.a > 0 && payload.a < 10 || payload.t == \"°\"",
        "let t = payload.t; t.trim(); #{ t: t, n: t.len() }",
        "#{ \"a b\": 1, \"q\\\"\": payload?[\"t\"] ?? payload.a, z: [] , m: #{} }",
        "now() > 1600000000",
        "(payload.a ?? 0) + 1",
        "let x = if payload.a == 1 { 5 } else { payload.a }; x % 3",
        "if payload.a == 1 { drop() } payload.a",
        "-payload.a",
        "payload.l[0] + payload.l[1]",
        "let m = #{ x: payload.b }; m.x.c = 1; m.y = m.x; m",
    ] {
        let came = all(script);
        assert!(!came.contains(&Came::Refused), "not compiled: {script}: {:?}", mapping(script).unwrap().refusal());
        assert!(came.contains(&Came::Equal), "no message was mapped by the plan of: {script}");
    }
}

#[test]
fn what_a_plan_does_not_know_is_named_with_its_place() {
    for (script, what, at) in [
        ("let x = 1;\nwhile x < 5 { x += 1; }\nx", "`while` and `loop`", (2, 1)),
        ("#{ a: 1,\n   m: meta }", "`meta` as a whole", (2, 7)),
        ("payload.l.reduce(|a, b| a + b)", "the method `reduce`", (1, 11)),
        ("fn f(x) { if x > 1 { f(x - 1) } else { 1 } } f(payload.a)", "a function that calls itself", (1, 22)),
        ("let f = |x| x; 1", "a closure that is kept", (1, 9)),
        ("try { payload.a.b } catch { 2 }", "`try`", (1, 1)),
        ("payload.a << 2", "an operator", (1, 11)),
    ] {
        let refusal = mapping(script).unwrap().refusal().cloned().unwrap_or_else(|| panic!("compiled: {script}"));
        assert_eq!((refusal.what.as_str(), refusal.at), (what, at), "{script}");
    }
}

/// Generated scripts, each with every payload. `PROPTEST_CASES=200000 cargo test --release generated_scripts` for a long
/// run.
#[test]
fn generated_scripts_give_what_the_interpreter_gives() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let counts = std::cell::Cell::new([0_u32; 3]);
    // Scripts of whose values something was inferred, and others.
    let inferred = std::cell::Cell::new([0_u32; 2]);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let bytes = proptest::collection::vec(any::<u8>(), 0..240);
    let result = runner.run(&bytes, |bytes| {
        let script = scripts::script(&bytes);
        // What Rhai's own optimiser or checks refuse is no script.
        let Some(mut mapping) = mapping(&script) else { return Ok(()) };
        let mut batch = batch(PAYLOADS);
        let shape = mapping.shape(&Shape::Any);
        let mut known = inferred.get();
        known[usize::from(shape == Shape::Any)] += 1;
        inferred.set(known);
        for at in 0..PAYLOADS.len() {
            if shape != Shape::Any {
                hold(&shape, &mut mapping, &script, &mut batch, at);
            }
            let mut seen = counts.get();
            seen[compare(&mut mapping, &script, &mut batch, at) as usize] += 1;
            counts.set(seen);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let [refused, left, equal] = counts.get();
    assert!(equal * 3 > left + equal, "plans answered only {equal} of {} messages", left + equal);
    let [known, unknown] = inferred.get();
    assert!(known * 5 > unknown, "something was inferred of only {known} of {} scripts", known + unknown);
    assert!(refused * 10 < left + equal, "{refused} of the scripts' messages were not compiled");
}

/// A message of telemetry as the shipped pipelines get it.
const TELEMETRY: &str = r#"{"topic":"devices/phone-7/telemetry","payload":{"device_id":"phone-007","ts":1767225600.25,"lat":52.52,"lon":13.404954,"battery":84,"accel":{"x":0.0123,"y":-0.2345,"z":9.8067}},"received_at":1767225600.5,"readings":[{"at":1,"value":19.5},{"at":2,"value":25}]}"#;

/// What may stand in the place of a value.
const VALUES: &[&str] = &[
    "null",
    "0",
    "-0",
    "84",
    "84.0",
    "1.10",
    "1e400",
    "18446744073709551615",
    "-9223372036854775808",
    "true",
    "\"\"",
    "\"12.5\"",
    "\" 7\"",
    "\"n/a\"",
    "\"\\u00b0C\"",
    "\"\\ud800\"",
    "[]",
    "[1,2]",
    "{}",
    "{\"x\":1}",
    "{\"x\":{\"x\":\"1\"}}",
    "{\"value\":21}",
    "[{\"value\":\"30\"},{\"value\":null},5]",
    "nul",
    "01",
    "",
];

/// `text` with one change: another value, a byte less, a byte more, an end too early, or something behind it.
fn change(text: &str, (kind, at, what): (u8, usize, usize)) -> String {
    let bytes = text.as_bytes();
    let at = at % (bytes.len() + 1);
    let end = bytes.len();
    let is_in_value = |byte: &u8| !b",:{}[]".contains(byte);
    let changed = match kind % 8 {
        // A value reaches from a `:` or `[` to the next sign.
        0..=4 => {
            let start = bytes[..at].iter().rposition(|byte| b":[".contains(byte)).map_or(0, |found| found + 1);
            let len = bytes[start..].iter().take_while(|byte| is_in_value(byte)).count();
            [&bytes[..start], VALUES[what % VALUES.len()].as_bytes(), &bytes[start + len..]].concat()
        }
        5 => [&bytes[..at], &bytes[(at + 1).min(end)..]].concat(),
        6 => [&bytes[..at], &[b"\"\\,:{}[]0e x\x80"[what % 13]][..], &bytes[at..]].concat(),
        _ if what % 2 == 0 => bytes[..at].to_vec(),
        _ => [bytes, b" x"].concat(),
    };
    String::from_utf8_lossy(&changed).into_owned()
}

/// The first script of a shipped pipeline.
fn shipped(pipeline: &str) -> String {
    let file = format!("{}/pipelines/{pipeline}.yaml", env!("CARGO_MANIFEST_DIR"));
    let yaml: serde_yaml::Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    yaml["steps"][0]["map"].as_str().unwrap().to_owned()
}

/// Messages that are changed at random, for the shipped mappings and one over a list.
/// `PROPTEST_CASES=200000 cargo test --release mutated_messages` for a long run.
#[test]
fn mutated_messages_give_what_the_interpreter_gives() {
    let list =
        "#{ id: payload?.payload?.device_id, hot: payload.readings.filter(|r| r.value > 20.0).map(|r| r.value) }";
    crate::script::fix_clock(Some(1_700_000_000_123));
    for script in [shipped("mqtt-to-kafka"), shipped("kafka-to-clickhouse"), list.to_owned()] {
        let mut mapping = mapping(&script).unwrap();
        assert_eq!(compare(&mut mapping, &script, &mut batch(&[TELEMETRY]), 0), Came::Equal);
        let mapping = std::cell::RefCell::new(mapping);
        let equal = std::cell::Cell::new(0_u32);
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let cases = config.cases;
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let changes = proptest::collection::vec(any::<(u8, usize, usize)>(), 1..4);
        let result = runner.run(&changes, |changes| {
            let payload = changes.into_iter().fold(TELEMETRY.to_owned(), |text, how| change(&text, how));
            let came = compare(&mut mapping.borrow_mut(), &script, &mut batch(&[&payload]), 0);
            assert_ne!(came, Came::Refused);
            equal.set(equal.get() + u32::from(came == Came::Equal));
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        assert!(equal.get() * 10 > cases, "the plan answered only {} of {cases} messages", equal.get());
    }
    crate::script::fix_clock(None);
}

#[test]
fn every_builtin_gives_what_the_interpreter_gives_for_every_kind_of_value() {
    let values = [
        "()",
        "true",
        "0",
        "-5",
        "9223372036854775807",
        "(-9223372036854775807 - 1)",
        "0.0",
        "-1.5",
        "2.5",
        "1e19",
        "1e300",
        "(1.0/0.0)",
        "\"\"",
        "\"a\"",
        "\"Straße °C\"",
        "\"12\"",
        "\" 7 \"",
        "\"1.5\"",
        "\"x1\"",
        "[]",
        "[1, \"a\", ()]",
        "#{}",
        "#{ a: 1, b: 2 }",
        "payload.a",
        "payload.t",
        "payload.l",
        "payload.b",
        "payload.u",
    ];
    let payloads = [PAYLOADS[0], PAYLOADS[6]];
    let mut batch = batch(&payloads);
    let mut equal = std::collections::BTreeSet::new();
    for (name, count, _) in super::builtins::BUILTINS {
        let mut check = |arguments: &[&str]| {
            let script = format!("{name}({})", arguments.join(", "));
            let Some(mut mapping) = mapping(&script) else { return };
            // A look at each of the many pairs would take long.
            let shape = if *count == 1 { mapping.shape(&Shape::Any) } else { Shape::Any };
            for at in 0..payloads.len() {
                hold(&shape, &mut mapping, &script, &mut batch, at);
                if compare(&mut mapping, &script, &mut batch, at) == Came::Equal {
                    equal.insert(*name);
                }
            }
        };
        for a in values {
            match count {
                1 => check(&[a]),
                2 => values.iter().for_each(|b| check(&[a, b])),
                _ => ["0", "1", "-1", "99"].iter().for_each(|b| check(&[a, b, "2"])),
            }
        }
    }
    let all: std::collections::BTreeSet<_> = super::builtins::BUILTINS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(equal, all, "the others were never worked out by a plan");
}
