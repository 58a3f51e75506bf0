use serde_json::Value;

use crate::{
    diagnostic::ScriptPlace,
    message::{Batch, SourceBuilder},
    script::{Emit, Mapping, functions},
    shape::{Shape, admits},
};

fn mapping(script: &str) -> Mapping {
    let place = ScriptPlace { file: "test".into(), line: 1, column: 1, exact: true };
    Mapping::compile(script, place).unwrap_or_else(|faults| panic!("{script}: {faults:?}"))
}

/// What a script gives for a payload; none when it fails or drops the message.
fn run(mapping: &mut Mapping, payload: &str) -> Option<Value> {
    let mut source = SourceBuilder::new("mqtt");
    source.push(payload.as_bytes(), |_, _| Ok(())).unwrap();
    let mut batch = Batch::new(source.finish());
    mapping.scan(&mut batch);
    let mut out = Vec::new();
    let written = mapping.run(batch.get(0), &mut out) == Ok(Emit::Written);
    written.then(|| serde_json::from_slice(&out).unwrap())
}

/// A shape in few words: `{a: int, b?: "x" | text, …}`.
fn words(shape: &Shape) -> String {
    use crate::shape::Kind;
    let Some(kinds) = shape.kinds() else { return "any".into() };
    let kind = |kind: &Kind| match kind {
        Kind::Exactly(json) => json.clone(),
        Kind::Bool => "bool".into(),
        Kind::Int => "int".into(),
        Kind::Float => "float".into(),
        Kind::Number => "number".into(),
        Kind::Text => "text".into(),
        Kind::Like(_) => "like".into(),
        Kind::List(items) => format!("[{}]", words(items)),
        Kind::Map(fields) => {
            let field = |field: &crate::shape::Field| {
                let mark = if field.certain { "" } else { "?" };
                format!("{}{mark}: {}", field.name, words(&field.shape))
            };
            let known = fields.known.iter().map(field).chain(fields.open.then(|| "…".to_owned()));
            format!("{{{}}}", known.collect::<Vec<_>>().join(", "))
        }
    };
    match kinds {
        [] => "never".into(),
        kinds => kinds.iter().map(kind).collect::<Vec<_>>().join(" | "),
    }
}

const PAYLOADS: [&str; 6] = [
    r#"{"a":1,"b":{"c":2.5,"d":"x"},"l":[3,1.5,-2],"t":"hello"}"#,
    r#"{"a":"7","b":null,"l":[],"t":"n/a"}"#,
    r#"{"a":null,"l":["x"],"t":""}"#,
    "{}",
    "not JSON",
    r#"[1,{"a":2}]"#,
];

#[test]
fn what_a_script_ends_with_is_inferred() {
    for (script, expected) in [
        (
            "#{ a: 1, b: -2.5, c: \"x\", d: true, e: (), f: [1, \"y\"] }",
            r#"{a: 1, b: -2.5, c: "x", d: true, e: null, f: [1 | "y"]}"#,
        ),
        ("#{ a: payload?.a, b: #{ c: now() }, t: `x${1}` }", "{a: any, b: {c: int}, t: text}"),
        (
            "#{ a: num(payload?.a, \"none\"), b: payload?.a ?? 0, c: numeric(payload?.t) }",
            r#"{a: number | "none", b: any, c: any}"#,
        ),
        (
            "#{ a: 1 + 2, b: 1 / 2.0, c: \"x\" + 1, d: payload?.a == 1, e: !is_json }",
            "{a: int, b: float, c: text, d: bool, e: bool}",
        ),
        ("let m = #{ a: 1 }; m.b = 2; m[\"c\"] = now(); m.a = \"x\"; m", r#"{b: 2, c: int, a: "x"}"#),
        ("let m = #{ a: #{} }; m.a.b = 1; m", "{a: {b: 1}}"),
        ("let m = #{}; if is_json { m.a = 1 } else { m.b = 2 } m", "{a?: 1, b?: 2}"),
        ("if is_json { #{ a: 1 } } else { #{ a: \"x\", b: 2 } }", r#"{a: 1 | "x", b?: 2}"#),
        ("if !is_json { throw \"no\" } #{ a: 1 }", "{a: 1}"),
        ("if !is_json { return #{ b: 1 } } #{ a: 1 }", "{b?: 1, a?: 1}"),
        ("if is_json { #{ a: 1 } }", "{a: 1} | null"),
        ("if !is_json { drop() } else { #{ a: 1 } }", "{a: 1}"),
        ("switch payload?.a { 1 => #{ a: 1 }, _ => #{ b: 2 } }", "{a?: 1, b?: 2}"),
        ("switch payload?.a { 1 => \"x\", 2 => \"y\" }", r#""x" | "y" | null"#),
        ("fn f(x) { if x == 1 { return \"one\"; } x } #{ a: f(1), b: f(\"y\") }", r#"{a: "one" | 1, b: "one" | "y"}"#),
        ("fn f(x) { f(x) } #{ a: f(1) }", "{a: any}"),
        ("payload.x = 1; payload", "{x: 1, …}"),
        ("let n = 0; for x in [1, 2] { n += 1; } #{ n: n, k: 1 }", "{n: any, k: 1}"),
        ("let m = #{ a: 1 }; m.remove(\"a\"); m", "any"),
        ("let m = #{ a: 1 }; remove(m, \"a\"); #{ m: m }", "{m: any}"),
        ("let m = #{ a: 1 }; [1].map(|x| { m.b = x; x }); m", "any"),
        ("let n = 1; while n < 5 { n += 1; } n", "any"),
        ("#{ a: meta.received_at, b: meta.topic }", "{a: int, b: any}"),
        ("let meta = #{ received_at: \"x\" }; meta.received_at", r#""x""#),
        ("#{ a: 1 } + #{ b: 2, a: \"x\" }", r#"{a: "x", b: 2}"#),
        ("#{ a: () ?? 5, b: payload?.none?.len() ?? \"x\" }", "{a: 5, b: \"x\" | int}"),
        ("payload?.t.len()", "int | null"),
        ("let x = 1; { let x = \"s\"; } #{ x: x }", "{x: 1}"),
        ("let x = 1; { x = \"s\"; } #{ x: x }", r#"{x: "s"}"#),
        ("#{ t: format_ts(now_ms()), u: uuid() }", "{t: like, u: like}"),
    ] {
        let mut mapping = mapping(script);
        let shape = mapping.shape(&Shape::Any);
        assert_eq!(words(&shape), expected, "{script}");
        for payload in PAYLOADS {
            if let Some(value) = run(&mut mapping, payload) {
                assert!(admits(&shape, &value), "{script} of {payload} gave {value}");
            }
        }
    }
}

#[test]
fn what_one_step_makes_the_next_one_knows() {
    let first = mapping("#{ a: 1, b: #{ c: \"x\" } }").shape(&Shape::Any);
    for (script, expected) in [
        ("payload", r#"{a: 1, b: {c: "x"}}"#),
        ("#{ x: payload.a, y: payload.b.c, z: payload.none }", r#"{x: 1, y: "x", z: null}"#),
        ("payload.d = 2; payload", r#"{a: 1, b: {c: "x"}, d: 2}"#),
    ] {
        let shape = mapping(script).shape(&first);
        assert_eq!(words(&shape), expected, "{script}");
        let value = run(&mut mapping(script), r#"{"a":1,"b":{"c":"x"}}"#).unwrap();
        assert!(admits(&shape, &value), "{script} gave {value}");
    }
}

#[test]
fn keys_stand_where_they_are_written() {
    let script = "let m = #{ °: 1,\n  \"b c\": #{ d: 2 } };\nm.e = 3;\nm".replace('°', "a");
    let shape = mapping(&script).shape(&Shape::Any);
    let fields = shape.fields().unwrap();
    let places: Vec<_> = fields.known.iter().map(|field| (field.name.as_str(), field.place.at.unwrap())).collect();
    assert_eq!(places, [("a", (1, 12)), ("b c", (2, 3)), ("e", (3, 3))]);
    assert_eq!(fields.known[1].shape.fields().unwrap().known[0].place.at, Some((2, 13)));
    let passed_on = mapping("\n payload").shape(&shape);
    assert_eq!(passed_on.fields().unwrap().known[0].place.at, Some((2, 2)));
}

#[test]
fn every_function_gives_what_is_inferred_of_it() {
    let mut known = 0;
    for function in functions() {
        let mut mapping = mapping(function.example);
        let shape = mapping.shape(&Shape::Any);
        let value = run(&mut mapping, PAYLOADS[0]).unwrap_or_else(|| panic!("{} fails", function.example));
        assert!(admits(&shape, &value), "{} gave {value}, and was inferred as {}", function.example, words(&shape));
        known += u32::from(!words(&shape).contains("any"));
    }
    assert!(known > 20, "{known}");
}
