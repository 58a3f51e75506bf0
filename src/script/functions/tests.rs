use std::time::{Duration, Instant};

use super::{Function, Group, functions};
use crate::{
    diagnostic::ScriptPlace,
    message::{Batch, SourceBuilder},
    script::{Emit, Mapping, ScriptError},
};

fn mapping(script: &str) -> Mapping {
    let place = ScriptPlace { file: "test".into(), line: 1, column: 1, exact: true };
    Mapping::compile(script, place).unwrap_or_else(|faults| panic!("{script}: {faults:?}"))
}

fn batch(payload: &str) -> Batch {
    let mut source = SourceBuilder::new("test");
    source.push(payload.as_bytes(), |_, _| Ok(())).unwrap();
    Batch::new(source.finish())
}

/// The value of a script as JSON, by the interpreter.
fn interpret(script: &str, payload: &str) -> Result<serde_json::Value, ScriptError> {
    let mut out = Vec::new();
    mapping(script).interpret(batch(payload).get(0), &mut out).map(|_| serde_json::from_slice(&out).unwrap())
}

/// The value of a script as JSON, by its plan.
fn plan(script: &str, payload: &str) -> Option<serde_json::Value> {
    let (mut mapping, mut batch, mut out) = (mapping(script), batch(payload), Vec::new());
    mapping.scan(&mut batch);
    let emit = mapping.run(batch.get(0), &mut out);
    (mapping.refusal().is_none() && mapping.interpreted() == Default::default() && emit == Ok(Emit::Written))
        .then(|| serde_json::from_slice(&out).unwrap())
}

#[test]
fn every_example_gives_what_it_says_both_ways() {
    for Function { name, example, gives, pure, .. } in functions() {
        assert!(example.contains(&format!("{name}(")), "{name}: its example does not call it");
        let value = interpret(example, "{}").unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(gives.is_empty(), !pure, "{name}: only what changes gives nothing");
        if *pure {
            assert_eq!(value, serde_json::from_str::<serde_json::Value>(gives).unwrap(), "{name}");
            assert_eq!(plan(example, "{}").as_ref(), Some(&value), "{name}: as a plan");
        } else {
            assert!(plan(example, "{}").is_some(), "{name}: as a plan");
        }
    }
}

#[test]
fn names_are_unique_documented_and_not_rhais() {
    let mut names: Vec<_> = functions().map(|function| function.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    for function in functions() {
        assert!(function.signature.starts_with(&format!("{}(", function.name)), "{function:?}");
        assert!(function.summary.ends_with('.') && Group::ALL.contains(&function.group), "{function:?}");
        let given = function.signature.matches(['(', ',']).count() - usize::from(function.signature.ends_with("()"));
        let optional = function.signature.matches('?').count();
        assert_eq!(function.arguments, given - optional..=given, "{function:?}: the signature says another number");
    }
    // Rhai looks for a function of the very types first: one of the same name and number of arguments would hide ours.
    let theirs = crate::script::engine::arities_without_ours();
    // `to_json` is registered for maps, too; Rhai's `to_hex` is one of whole numbers, which ours refuses.
    for function in functions().filter(|function| !["to_json", "to_hex"].contains(&function.name)) {
        for count in function.arguments.clone() {
            let hidden = theirs.get(function.name).is_some_and(|counts| counts.contains(&count));
            assert!(!hidden, "Rhai has a function `{}` of {count} arguments", function.name);
        }
    }
    for name in names {
        assert_eq!(super::known_elsewhere(name), None, "{name}");
    }
}

#[test]
fn random_values_have_their_shape() {
    let uuid = interpret("uuid()", "{}").unwrap();
    assert_eq!((uuid.as_str().unwrap().len(), &uuid.as_str().unwrap()[14..15]), (36, "4"));
    assert_ne!(uuid, interpret("uuid()", "{}").unwrap());
    crate::script::fix_clock(Some(1_714_557_600_500));
    assert_eq!(interpret("[now(), now_ms()]", "{}").unwrap().to_string(), "[1714557600,1714557600500]");
    assert!(interpret("uuid_v7()", "{}").unwrap().as_str().unwrap().starts_with("018f3398-c2f4-7"));
    crate::script::fix_clock(None);
    assert!(interpret("now_ms()", "{}").unwrap().as_i64().unwrap() > 1_714_557_600_500);
}

/// Every kind of value; the last ones are large.
fn values() -> Vec<String> {
    let small = [
        "()",
        "true",
        "0",
        "1",
        "-7",
        "9223372036854775807",
        "(-9223372036854775807 - 1)",
        "0.0",
        "-0.0",
        "2.5",
        "1e300",
        "(0.0/0.0)",
        "(1.0/0.0)",
        "payload.big",
        "\"\"",
        "\"a\"",
        "\"°C 😀\"",
        "\"12\"",
        "\"Zm9v\"",
        "\"666f6f\"",
        "\"(\"",
        "\"2024-05-01T10:00:00Z\"",
        "\"%Y\"",
        "\"day\"",
        "[]",
        "[1, 2.5]",
        "[\"a\", [1], #{}, ()]",
        "#{}",
        "#{ a: 1, b: () }",
    ];
    small.iter().map(ToString::to_string).chain([format!("\"{}\"", "x°".repeat(20_000))]).collect()
}

#[test]
fn no_function_panics_or_takes_long_whatever_it_is_given() {
    let payload = "{\"big\": 123456789012345678901234567890}";
    let values = values();
    let mut refused = 0;
    for function in functions() {
        for count in function.arguments.clone() {
            let mut check = |arguments: &[&str]| {
                let script = format!("{}({})", function.name, arguments.join(", "));
                let started = Instant::now();
                let mut out = Vec::new();
                let result = mapping(&script).interpret(batch(payload).get(0), &mut out);
                // Far above what any takes, far below what quadratic work on 60 kB would.
                assert!(started.elapsed() < Duration::from_secs(20), "{script:.100}");
                match result {
                    Ok(_) => drop(serde_json::from_slice::<serde_json::Value>(&out).unwrap()),
                    Err(error) => {
                        assert!(!error.reason.contains("panicked"), "{script:.100}: {error}");
                        refused += 1;
                    }
                }
            };
            let all: Vec<&str> = values.iter().map(String::as_str).collect();
            match count {
                0 => check(&[]),
                1 => all.iter().for_each(|a| check(&[a])),
                2 => all.iter().for_each(|a| all.iter().for_each(|b| check(&[a, b]))),
                // Each place has every value once, beside others that fit somewhere.
                _ => {
                    for (at, a) in all.iter().enumerate() {
                        for place in 0..count {
                            for fill in ["1", "\"a\"", "2.5"] {
                                let mut arguments = vec![fill; count];
                                arguments[place] = a;
                                check(&arguments);
                            }
                            let mut mixed: Vec<&str> = (0..count).map(|n| all[(at + n * 7) % all.len()]).collect();
                            mixed[place] = a;
                            check(&mixed);
                        }
                    }
                }
            }
        }
    }
    assert!(refused > 1000, "only {refused} calls were refused: the values do not reach the functions");
}

#[test]
fn reasons_name_the_function_what_it_takes_and_what_it_was_given() {
    for (script, reason) in [
        ("clamp(\"a\", 0, 1)", "`clamp` takes a number, as argument 1, not a text"),
        ("sha256(5)", "`sha256` takes a text, not a number"),
        ("matches(\"a\", \"(\")", "`matches` cannot read the pattern `(`: unclosed group"),
        ("from_hex(\"zz\")", "`from_hex` cannot read its text: something else stands at byte 0"),
        (
            "from_base64(\"/////w==\")",
            "`from_base64` gives bytes that are not UTF-8; `bytes_int` reads numbers from bytes",
        ),
        (
            "format_ts(0, \"%Y\", \"Mars/Base\")",
            "`format_ts` knows no time zone `Mars/Base`; write one like `Europe/Berlin`",
        ),
        (
            "parse_ts(\"soon\")",
            "`parse_ts` cannot read `soon`; write a moment like `2024-05-01T10:00:00Z`, or give a format",
        ),
        ("geohash(91, 0)", "`geohash` takes a latitude of -90 to 90 and a longitude of -180 to 180, not 91 and 0"),
        ("sum_of([1, \"x\"])", "item 1 of the list is not a number"),
        ("pick(#{}, 5)", "`pick` takes a list, as argument 2, not a number"),
    ] {
        let error = interpret(script, "{}").unwrap_err();
        assert_eq!((error.reason.as_str(), error.code), (reason, "script-error"), "{script}");
        assert_eq!(error.place.as_deref(), Some("test:1:1"), "{script}");
    }
}

#[test]
fn times_are_read_in_every_unit_and_form() {
    for (script, expected) in [
        ("parse_ts(\"1714557600\")", 1_714_557_600_000_i64),
        ("parse_ts(1714557600123)", 1_714_557_600_123),
        ("parse_ts(1714557600123456)", 1_714_557_600_123),
        ("parse_ts(1714557600123456789)", 1_714_557_600_123),
        ("parse_ts(1714557600.25)", 1_714_557_600_250),
        ("parse_ts(1000, \"ms\")", 1000),
        ("parse_ts(-5, \"s\")", -5000),
        ("parse_ts(\"2024-05-01 10:00:00\")", 1_714_557_600_000),
        ("parse_ts(\"2024-05-01T12:00:00+02:00\")", 1_714_557_600_000),
        ("parse_ts(\"2024-05-01\", \"%Y-%m-%d\")", 1_714_521_600_000),
        ("parse_ts(\"01/May/2024:10:00:00 +0000\", \"%d/%b/%Y:%H:%M:%S %z\")", 1_714_557_600_000),
        ("start_of(1714557645500, \"minute\")", 1_714_557_600_000),
        ("start_of(1714557645500, \"day\", \"Europe/Berlin\")", 1_714_514_400_000),
        ("start_of(1714557645500, \"month\")", 1_714_521_600_000),
        ("start_of(1714557645500, \"year\")", 1_704_067_200_000),
    ] {
        assert_eq!(interpret(script, "{}").unwrap_or_else(|error| panic!("{script}: {error}")), expected, "{script}");
    }
}
