//! What scripts answer, message by message.
use std::{sync::Arc, time::Instant};

use super::{Condition, Emit, Mapping, ScriptError};
use crate::{
    diagnostic::{Fault, ScriptPlace},
    message::{Batch, Captures, SourceBuilder},
};

fn place() -> ScriptPlace {
    ScriptPlace { file: "p.yaml".into(), line: 10, column: 5, exact: true }
}

fn batch(payload: &[u8]) -> Batch {
    let mut source = SourceBuilder::new("mqtt");
    source
        .push(payload, |o, parts| {
            o.topic = parts.text("devices/phone-1/telemetry")?;
            o.key = Some(parts.bytes(b"k\"1")?);
            o.offset = 7;
            o.filter = 0;
            o.qos = 1;
            o.received_at_ms = 1_700_000_000_999;
            parts.header(o, "trace", b"abc")
        })
        .unwrap();
    let captures = Captures { filters: vec![vec![("device".to_owned(), 1)]] };
    Batch::new(source.finish().with_captures(Arc::new(captures)))
}

fn run(script: &str, payload: impl AsRef<[u8]>) -> Result<Option<String>, ScriptError> {
    let mut mapping = Mapping::compile(script, place()).unwrap_or_else(|faults| panic!("{script}: {faults:?}"));
    let batch = batch(payload.as_ref());
    let mut out = b"before".to_vec();
    // Twice: the second run meets what the first one left.
    for _ in 0..2 {
        out.truncate(6);
        let answer = mapping.run(batch.get(0), &mut out);
        assert!(out.starts_with(b"before") && (matches!(answer, Ok(Emit::Written)) || out == b"before"));
        answer?;
    }
    Ok((out != b"before").then(|| String::from_utf8(out[6..].to_vec()).unwrap()))
}

fn check(script: &str, payload: &str, expected: &str) {
    assert_eq!(run(script, payload).unwrap().as_deref(), Some(expected), "{script} on {payload}");
}

fn fails(script: &str, payload: impl AsRef<[u8]>, code: &str, reason: &str, place: Option<&str>) {
    let error = run(script, payload).unwrap_err();
    assert_eq!((error.code, error.reason.as_str(), error.place.as_deref()), (code, reason, place), "{script}");
}

fn faults(script: &str) -> Vec<Fault> {
    Mapping::compile(script, place()).err().unwrap_or_default()
}

const ENVELOPE: &str =
    "#{ topic: meta.topic, payload: if is_json { payload } else { #{ raw: text } }, received_at: meta.received_at }";

#[test]
fn an_envelope_keeps_the_payload_as_it_came() {
    check(
        ENVELOPE,
        " {\"z\": 1.10, \"a\": 12345678901234567890123} ",
        r#"{"payload":{"z": 1.10, "a": 12345678901234567890123},"received_at":1700000000,"topic":"devices/phone-1/telemetry"}"#,
    );
    check(
        ENVELOPE,
        "hello \"you\"",
        r#"{"payload":{"raw":"hello \"you\""},"received_at":1700000000,"topic":"devices/phone-1/telemetry"}"#,
    );
    check("#{p: payload, j: is_json}", "null", r#"{"j":true,"p":null}"#);
    check("payload ?? 5", "null", "5");
    check("payload", "", "null");
    fails(ENVELOPE, b"\xff\xfe", "not-utf8", "the payload is not UTF-8, so the script cannot have it as `text`", None);
}

#[test]
fn a_script_finds_the_message() {
    check("payload.a.b", r#"{"a":{"b":[1]}}"#, "[1]");
    check("payload?.x?.y ?? 3", r#"{"a":1}"#, "3");
    check("payload.x = 1; payload", r#"{"a":9223372036854775808}"#, r#"{"a":9223372036854775808,"x":1}"#);
    check("payload[\"default\"]", r#"{"default":1}"#, "1");
    check("[is_json, text]", "x", r#"[false,"x"]"#);
    check("text", "null", "\"null\"");
    check("meta.levels[1] + meta.key + meta.headers.trace + meta.device", "", r#""phone-1k\"1abcphone-1""#);
    check(
        "meta",
        "",
        r#"{"device":"phone-1","headers":{"trace":"abc"},"key":"k\"1","levels":["devices","phone-1","telemetry"],"offset":7,"qos":1,"received_at":1700000000,"received_at_ms":1700000000999,"retain":false,"topic":"devices/phone-1/telemetry"}"#,
    );
    check("meta.partition ?? -1", "", "-1");
    check("meta.topic.split('/')[0]", "", "\"devices\"");
    check("[3, 1].map(|x| x + payload.n)", r#"{"n":1}"#, "[4,2]");
    check("fn twice(x) { x * 2 } twice(payload.n)", r#"{"n":4}"#, "8");
    check("let n = now(); n == now() && now_ms() / 1000 == n && n > 1700000000", "", "true");
}

#[test]
fn helpers_turn_values_into_numbers_and_text() {
    for (script, expected) in [
        ("num(84, 0)", "84"),
        ("num(\"84\", 0)", "84"),
        ("num(\" -8.5e1 \", 0)", "-85.0"),
        ("num(\"abc\", 0)", "0"),
        ("num((), 0)", "0"),
        ("num(true, 0.5)", "0.5"),
        ("num(\"18446744073709551616\", 0)", "18446744073709551616"),
        ("numeric(\"84\")", "84"),
        ("numeric(\"abc\")", "\"abc\""),
        ("numeric(payload?.a) ?? 7", "7"),
        ("int(84.0, 0)", "84"),
        ("int(84.5, 0)", "0"),
        ("int(\"84\", 0)", "84"),
        ("int(1e300, -1)", "-1"),
        ("float(84, 0.0)", "84.0"),
        ("float(\"x\", 0.5)", "0.5"),
        ("str(84, \"\")", "\"84\""),
        ("str((), \"none\")", "\"none\""),
        ("str(#{a:1}, \"\")", r#""{\"a\":1}""#),
        ("to_json(#{a:[1.5,()]})", r#""{\"a\":[1.5,null]}""#),
        ("parse_json(\"{\\\"a\\\":18446744073709551616}\").a", "18446744073709551616"),
        ("[min_of([3,1.5,2]), max_of([3,1.5]), sum_of([1,2]), mean_of([1,2])]", "[1.5,3.0,3.0,1.5]"),
        ("min_of([])", "null"),
        ("'x'", "\"x\""),
    ] {
        check(script, "", expected);
    }
}

#[test]
fn a_dropped_message_is_no_failure() {
    assert_eq!(run("if is_json { payload } else { drop() }", "x").unwrap(), None);
    assert_eq!(run("fn f() { drop() } try { f() } catch { 1 }", "x").unwrap(), None, "it cannot be caught");
    assert_eq!(run("[1].map(|x| drop())", "x").unwrap(), None);
}

#[test]
fn failures_say_where() {
    fails("let a = 1;\n  throw \"bad \" + a", "", "script-error", "bad 1", Some("p.yaml:11:7"));
    fails("throw #{code: 7}", "", "script-error", "{\"code\":7}", Some("p.yaml:10:5"));
    fails("1 +\npayload.a / 0", r#"{"a":1}"#, "script-error", "division by zero: 1 / 0", Some("p.yaml:11:15"));
    fails(
        "payload.a.b",
        "x",
        "script-error",
        "unknown property 'a' - a getter is not registered for type '()' (the payload is not JSON)",
        Some("p.yaml:10:13"),
    );
    fails("fn f(x) {\n throw x }\nf(1)", "", "script-error", "1", Some("p.yaml:11:6"));
    fails("[1].map(|x|\n throw x)", "", "script-error", "1", Some("p.yaml:11:6"));
    fails("1.0 / 0.0", "", "not-a-number", "the result is `inf`, which is not a number in JSON", Some("p.yaml:10:5"));
    fails(
        "#{ a: || 1 }",
        "",
        "not-json-value",
        "`a` of the result is of type `Fn`, which JSON cannot hold",
        Some("p.yaml:10:5"),
    );
    fails(
        "payload.a + 1",
        r#"{"a":9223372036854775808}"#,
        "script-error",
        "scripts calculate with 64 bits, and `9223372036854775808` needs more; it can only be passed on",
        Some("p.yaml:10:15"),
    );
    fails(
        "5 < payload.a",
        r#"{"a":9223372036854775808}"#,
        "script-error",
        "scripts calculate with 64 bits, and `9223372036854775808` needs more; it can only be passed on",
        Some("p.yaml:10:7"),
    );
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for script in ["payload", "payload[0]", "is_json"] {
        fails(script, &deep, "nested-too-deep", "the payload is JSON nested deeper than 128 levels", None);
    }
    assert!(run("meta.topic", &deep).is_ok(), "a script that does not look at the payload does not care");
}

#[test]
fn a_runaway_script_costs_its_limit() {
    for script in [
        "loop {}",
        "let a = []; a.pad(4000, 1); for i in 0..1_000_000 { a.map(|x| x); }",
        "let s = \"x\"; loop { s += s }",
        "let a = []; loop { a.push(1) }",
        "let a = [1]; loop { a += a }",
        "let a = []; loop { a = [a]; }",
        "let a = #{}; loop { a = #{a: a}; }",
        "let f = |x, y| 1; loop { f = f.curry(1); }",
        "fn f(x) { f(x + 1) } f(0)",
        "let m = #{}; let i = 0; loop { m[i.to_string()] = i; i += 1; }",
        "let n = 0; for i in 0..9223372036854775807 { n = i; }",
        "let f = |x| 1; loop { f = Fn(\"len\").curry(f); }",
        "\"x\".pad(1_000_000_000, 'y')",
        "let a = []; a.pad(1_000_000_000, 1); a",
    ] {
        let start = Instant::now();
        let error = std::thread::Builder::new().stack_size(2 << 20).spawn(move || run(script, "{}").unwrap_err());
        let error = error.unwrap().join().unwrap_or_else(|_| panic!("{script}"));
        assert_eq!(error.code, "script-limit", "{script}: {error}");
        assert!(error.place.is_some(), "{script}");
        assert!(start.elapsed().as_secs() < 5, "{script} took {:?}", start.elapsed());
    }
}

#[test]
fn the_world_outside_is_out_of_reach() {
    for script in
        ["eval(\"1\")", "import \"/etc/passwd\" as p; 1", "sleep(1)", "exit(1)", "timestamp()", "open_file(\"x\")"]
    {
        assert!(!faults(script).is_empty(), "{script}");
    }
    check("print(\"x\"); debug(1); 1", "", "1");
}

#[test]
fn faults_are_found_without_running() {
    for (script, at, code, title, label) in [
        ("let x = 1;\nx + fooo", (2, 5), "unknown-variable", "the script knows no variable `fooo`", "not defined here"),
        ("paylod.a", (1, 1), "unknown-variable", "the script knows no variable `paylod`", "did you mean `payload`?"),
        (
            "to_flot(1)",
            (1, 1),
            "unknown-function",
            "the script knows no function `to_flot`",
            "did you mean `to_float`?",
        ),
        (
            "text.splitt(\",\")",
            (1, 6),
            "unknown-function",
            "the script knows no method `splitt`",
            "did you mean `split`?",
        ),
        ("num(1)", (1, 1), "wrong-arguments", "function `num` does not take 1 argument", "takes 2"),
        ("fn f(a) { g(a) }\n1", (1, 11), "unknown-function", "the script knows no function `g`", "no such function"),
        (
            "[1].map(|x| nope(x))",
            (1, 13),
            "unknown-function",
            "the script knows no function `nope`",
            "no such function",
        ),
        (
            "payload.default",
            (1, 9),
            "script-syntax",
            "the script cannot be read: 'default' is a reserved keyword",
            "`default` is a word of the language",
        ),
        (
            "#{ a: 1\n b: 2 }",
            (2, 2),
            "script-syntax",
            "the script cannot be read: expecting ',' to separate the items of this object map literal",
            "here",
        ),
        ("let a = ", (1, 9), "script-syntax", "the script cannot be read: script is incomplete", "here"),
        (
            "import \"x\" as y; 1",
            (1, 1),
            "script-syntax",
            "the script cannot be read: 'import' is a reserved keyword",
            "scripts cannot `import`",
        ),
    ] {
        let found = faults(script);
        let [fault] = found.as_slice() else { panic!("{script}: {found:?}") };
        assert_eq!(
            (fault.at.unwrap(), fault.code, fault.title.as_str(), fault.label.as_str()),
            (at, code, title, label),
            "{script}"
        );
    }
    assert_eq!(faults("to_flot(1);\nnope(2);\nmax(1)").len(), 3, "all of them, not only the first");
    for script in [
        "let f = |x| x + 1; f.call(2)",
        "fn f(a) { this + a } 1.f(2)",
        "let a = [3, 1]; a.sort(); a.map(|x| x.to_string()).len()",
        "payload.keys().len() + text.len() + [1].filter(|x| x > 0).len()",
        "type_of(payload) + `${max(1, 2)}`",
        "let k = 1; [1].map(|x| x + k)",
        "switch meta.qos { 0 => \"a\", 1..3 => \"b\", _ => \"c\" }",
    ] {
        assert!(faults(script).is_empty(), "{script}: {:?}", faults(script));
    }
}

#[test]
fn a_condition_is_true_or_false() {
    let test = |script: &str, payload: &str| {
        Condition::compile(script, place()).unwrap().test(batch(payload.as_bytes()).get(0))
    };
    assert_eq!(test("is_json && payload.a > 1", r#"{"a":2}"#), Ok(true));
    assert_eq!(test("meta.qos == 0", ""), Ok(false));
    assert_eq!(test("drop()", ""), Ok(false));
    let error = test("payload.a", r#"{"a":2}"#).unwrap_err();
    assert_eq!(error.reason, "a condition answers true or false, and this one answered `an integer`");
    assert_eq!(test("payload.a > 1", "x").unwrap_err().code, "script-error");
}

#[test]
fn an_error_does_not_reach_into_the_next_message() {
    let mut mapping = Mapping::compile("let a = payload.a; { let b = 1; a.map(|x| x / b + 10 / x) }", place()).unwrap();
    let mut out = Vec::new();
    for (payload, expected) in
        [("{\"a\":[0]}", None), ("{\"a\":[5]}", Some("[7]")), ("x", None), ("{\"a\":[2]}", Some("[7]"))]
    {
        out.clear();
        let answer = mapping.run(batch(payload.as_bytes()).get(0), &mut out);
        assert_eq!(answer.is_ok().then(|| std::str::from_utf8(&out).unwrap()), expected);
    }
}

/// The two mappings that are shipped, with what they replace in mind: values of the wrong kind are not papered over.
#[test]
fn a_row_takes_defaults_and_numbers_written_as_text() {
    let script = r#"
        let p = payload?.payload;
        let accel = p?.accel;
        #{
            device_id: p?.device_id ?? "unknown",
            ts: numeric(p?.ts) ?? now(),
            lat: numeric(p?.lat) ?? 0.0,
            lon: numeric(p?.lon) ?? 0.0,
            battery: numeric(p?.battery) ?? 0,
            accel: #{ x: numeric(accel?.x) ?? 0.0, y: numeric(accel?.y) ?? 0.0, z: numeric(accel?.z) ?? 0.0 },
            topic: payload.topic,
            received_at: numeric(payload.received_at) ?? now(),
        }"#;
    check(
        script,
        r#"{"topic":"t","received_at":7,"payload":{"device_id":"d","ts":"5","lat":"48.5","battery":"84","accel":{"x":1}}}"#,
        r#"{"accel":{"x":1,"y":0.0,"z":0.0},"battery":84,"device_id":"d","lat":48.5,"lon":0.0,"received_at":7,"topic":"t","ts":5}"#,
    );
    check(
        script,
        r#"{"topic":"t","received_at":7,"payload":{"ts":1,"battery":"abc","lat":null,"accel":null}}"#,
        r#"{"accel":{"x":0.0,"y":0.0,"z":0.0},"battery":"abc","device_id":"unknown","lat":0.0,"lon":0.0,"received_at":7,"topic":"t","ts":1}"#,
    );
    for payload in [r#"{"topic":"t","received_at":7}"#, r#"{"topic":"t","received_at":7,"payload":{}}"#] {
        let row = run(script, payload).unwrap().unwrap();
        assert!(row.contains(r#""device_id":"unknown","lat":0.0"#) && row.contains(r#""ts":1"#), "{row}");
    }
    fails(
        script,
        r#"{"topic":"t","received_at":7,"payload":{"accel":5}}"#,
        "script-error",
        "unknown property 'x' - a getter is not registered for type 'i64'",
        Some("p.yaml:19:45"),
    );
}

#[test]
fn a_closure_may_look_at_what_its_chain_starts_with() {
    let payload = r#"{"a":5,"l":[1,2,3],"w":[{"m":[1,2]},{"m":[5,6]}]}"#;
    // A closure that is kept is none for a plan, so these are interpreted.
    for (script, expected) in [
        ("payload.l.map(|x| x + payload.a)", "[6,7,8]"),
        ("let p = payload; p.l.map(|x| p.a)", "[5,5,5]"),
        ("let p = payload; let f = |x| p.a; p.l.map(f)", "[5,5,5]"),
        ("let f = |x| payload.l.filter(|y| y < x).len(); payload.l.map(f)", "[0,1,2]"),
        ("payload.w.map(|x| x.m.map(|y| y + x.m.len()))", "[[3,4],[7,8]]"),
        ("payload[\"l\"].reduce(|a, b| a + b + payload.a, 0)", "21"),
        ("payload?.none?.map(|x| payload.a) ?? 1", "1"),
        ("let l = payload.l; l.push(4); l.map(|x| l.len())", "[4,4,4,4]"),
        ("let p = payload; p.a = p.l.map(|x| p.a).len(); p.a", "3"),
        ("fn f(p) { p.l.all(|x| p.l.some(|y| x == y)) } f(payload)", "true"),
        ("payload.w[payload.l.index_of(|x| payload.a > x)].m", "[1,2]"),
    ] {
        check(script, payload, expected);
        check(&format!("let keep = |x| x; {script}"), payload, expected);
    }
    let script = "let keep = |x| x;\n[payload.l.map(|x| payload.a), payload.l.map(|x| payload.a.b.c)]";
    let reason = "unknown property 'b' - a getter is not registered for type 'i64'";
    fails(script, payload, "script-error", reason, Some("p.yaml:11:64"));
}

#[test]
fn a_closure_in_the_way_of_a_change_is_a_fault() {
    let faults = faults("let l = payload.l;\nl.retain(|x| x > l[0]); l");
    let [fault] = faults.as_slice() else { panic!("{faults:?}") };
    assert_eq!((fault.code, fault.at), ("closure-in-the-way", Some((2, 18))));
    assert_eq!(
        fault.help.as_deref(),
        Some("take what the closure needs first, `let before = l;`, and use `before` in the closure")
    );
    check("let l = payload; let before = l; l.retain(|x| x > before[0]); l", "[1,2,3]", "[2,3]");
}

#[test]
fn waiting_for_a_variable_that_is_never_set_free_ends_with_the_time_limit() {
    // What no look at the script can tell: the closure comes out of a map.
    let once = "let l = payload; let m = #{ f: |x| l[0] }; l.retain(m.f); l";
    let reason = "a closure uses the variable that the chain it was given to starts with; give it a copy";
    fails(once, "[1,2]", "script-error", reason, Some("p.yaml:10:5"));
    let again = "let l = payload; let m = #{ f: |x| l[0] }; for i in 0..1000 { try { l.retain(m.f); } catch {} } l";
    let error = run(again, "[1,2]").unwrap_err();
    assert_eq!((error.code, error.reason.as_str()), ("script-limit", "the script took longer than 100 ms"));
}
