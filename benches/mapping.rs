//! What a mapping costs for one message: compiled, interpreted, and written by hand in Rust with serde.
//!
//! One JSON line a case and engine on standard output: nanoseconds and allocations, both for one message. The payload is
//! read and checked each time. A case is run in rounds of some milliseconds, engines in turn, and the best round counts:
//! one in which nothing else had the processor, so that its time is CPU time. (The kernel's own account of a thread is too
//! coarse for that on some machines.) The allocator is the system's, which a plan never calls.
#![allow(clippy::print_stdout)]
use std::{collections::BTreeMap, fmt::Write as _, fs, hint::black_box, time::Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use streamer::{
    diagnostic::ScriptPlace,
    message::{Batch, SourceBuilder},
    script::Mapping,
};

const MESSAGES: u32 = 1000;
const ROUNDS: u32 = 100;

const ENVELOPE: &str = "#{ topic: meta.topic, payload: if is_json { payload } else { #{ raw: text } } }";
const ARRAY: &str = "#{ id: payload.device_id, hot: payload.readings.filter(|r| r.value > 20.0).map(|r| r.value) }";

fn phone(n: u32) -> String {
    format!(
        "{{\"device_id\":\"phone-{:03}\",\"ts\":{},\"lat\":52.5{n:04},\"lon\":13.4{n:04},\"battery\":{},\
         \"accel\":{{\"x\":0.0{n:03},\"y\":-0.2345,\"z\":9.8067}}}}",
        n % 20,
        1_767_225_600 + n,
        n % 101
    )
}

/// The payloads of a case.
fn payloads(case: &str) -> Vec<String> {
    let one = |n: u32| match case {
        "envelope" => phone(n),
        "consumer" => format!(
            "{{\"topic\":\"devices/phone-{:03}/telemetry\",\"payload\":{},\"received_at\":1767225600.{n:03}}}",
            n % 20,
            phone(n)
        ),
        _ => {
            let mut text = format!("{{\"device_id\":\"phone-{:03}\",\"readings\":[", n % 20);
            for i in 0..10 {
                let comma = if i > 0 { "," } else { "" };
                write!(text, "{comma}{{\"at\":{i},\"value\":{}.5}}", 15 + (n + i) % 10).expect("text grows");
            }
            text + "]}"
        }
    };
    (0..MESSAGES).map(one).collect()
}

/// The script of the shipped pipeline, so that what is measured is what is run.
fn consumer() -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/kafka-to-clickhouse.yaml");
    let yaml: serde_yaml::Value =
        serde_yaml::from_str(&fs::read_to_string(file).expect("it is shipped")).expect("it is YAML");
    yaml["steps"][0]["map"].as_str().expect("its first step is a script").to_owned()
}

#[derive(Deserialize)]
struct Enveloped<'a> {
    #[serde(borrow)]
    topic: Option<&'a str>,
    payload: Option<Telemetry<'a>>,
    received_at: Option<f64>,
}

#[derive(Deserialize)]
struct Telemetry<'a> {
    #[serde(borrow)]
    device_id: Option<&'a str>,
    ts: Option<f64>,
    lat: Option<f64>,
    lon: Option<f64>,
    battery: Option<i64>,
    accel: Option<Accel>,
}

#[derive(Deserialize, Serialize, Default)]
struct Accel {
    x: f64,
    y: f64,
    z: f64,
}

#[derive(Serialize)]
struct Row<'a> {
    accel: Accel,
    battery: i64,
    device_id: &'a str,
    lat: f64,
    lon: f64,
    received_at: f64,
    topic: &'a str,
    ts: f64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    topic: &'a str,
}

#[derive(Deserialize)]
struct Readings<'a> {
    device_id: &'a str,
    readings: Vec<Reading>,
}

#[derive(Deserialize)]
struct Reading {
    value: f64,
}

#[derive(Serialize)]
struct Hot<'a> {
    hot: Vec<f64>,
    id: &'a str,
}

/// What a person would write in Rust for the same case.
fn by_hand(case: &str, payload: &[u8], out: &mut Vec<u8>) -> serde_json::Result<()> {
    match case {
        "envelope" => {
            let payload: &RawValue = serde_json::from_slice(payload)?;
            serde_json::to_writer(out, &Envelope { payload, topic: "devices/phone-001/telemetry" })
        }
        "consumer" => {
            let Enveloped { topic, payload, received_at } = serde_json::from_slice(payload)?;
            let p = payload.expect("these messages have one");
            serde_json::to_writer(
                out,
                &Row {
                    accel: p.accel.unwrap_or_default(),
                    battery: p.battery.unwrap_or(0),
                    device_id: p.device_id.unwrap_or("unknown"),
                    lat: p.lat.unwrap_or(0.0),
                    lon: p.lon.unwrap_or(0.0),
                    received_at: received_at.unwrap_or(0.0),
                    topic: topic.unwrap_or(""),
                    ts: p.ts.unwrap_or(0.0),
                },
            )
        }
        _ => {
            let Readings { device_id, readings } = serde_json::from_slice(payload)?;
            let hot = readings.into_iter().map(|reading| reading.value).filter(|value| *value > 20.0).collect();
            serde_json::to_writer(out, &Hot { hot, id: device_id })
        }
    }
}

/// A batch of these payloads.
fn batch(payloads: &[String]) -> Batch {
    let mut source = SourceBuilder::new("bench");
    for payload in payloads {
        source.push(payload.as_bytes(), |_, _| Ok(())).expect("they fit");
    }
    Batch::new(source.finish())
}

/// One round of an engine: what it wrote for the last message is compared, so none can leave work out.
fn round(engine: &str, case: &str, mapping: &mut Mapping, payloads: &[String], out: &mut Vec<u8>) {
    match engine {
        "struct" => {
            for payload in payloads {
                out.clear();
                by_hand(case, payload.as_bytes(), out).expect("they are well-formed");
                black_box(&out);
            }
        }
        _ => {
            let mut batch = batch(payloads);
            if engine == "plan" {
                mapping.scan(&mut batch);
            }
            for message in batch.iter() {
                out.clear();
                let done = if engine == "plan" { mapping.run(message, out) } else { mapping.interpret(message, out) };
                done.expect("they are well-formed");
                black_box(&out);
            }
        }
    }
}

/// JSON as values: numbers by their value, keys in any order.
fn values(json: &[u8]) -> serde_json::Value {
    fn plain(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(number) => number.as_f64().into(),
            serde_json::Value::Array(items) => items.into_iter().map(plain).collect(),
            serde_json::Value::Object(members) => {
                members.into_iter().map(|(name, value)| (name, plain(value))).collect()
            }
            other => other,
        }
    }
    plain(serde_json::from_slice(json).expect("all engines write JSON"))
}

fn main() {
    let place = || ScriptPlace { file: "bench".into(), line: 1, column: 1, exact: true };
    for (case, script) in [("envelope", ENVELOPE.to_owned()), ("consumer", consumer()), ("array", ARRAY.to_owned())] {
        let mut mapping = Mapping::compile(&script, place()).expect("it is a script");
        assert!(mapping.refusal().is_none(), "{case}: {:?}", mapping.refusal());
        let payloads = payloads(case);
        let mut best: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut written: Vec<Vec<u8>> = Vec::new();
        for _ in 0..ROUNDS {
            written.clear();
            for engine in ["plan", "interpreter", "struct"] {
                let mut out = Vec::with_capacity(4096);
                let start = Instant::now();
                round(engine, case, &mut mapping, &payloads, &mut out);
                let ns = u64::try_from(start.elapsed().as_nanos()).expect("it takes no centuries");
                // Counting costs time of its own.
                let count = |payloads: &[String], mapping: &mut Mapping, out: &mut Vec<u8>| {
                    allocation_counter::measure(|| round(engine, case, mapping, payloads, out)).count_total
                };
                // What a batch costs as a whole is not the messages': half a batch tells it apart.
                let whole = count(&payloads, &mut mapping, &mut out);
                let half = count(&payloads[..payloads.len() / 2], &mut mapping, &mut out);
                let allocations = (whole - half) * 2 / u64::from(MESSAGES);
                let entry = best.entry(engine).or_insert((u64::MAX, u64::MAX));
                *entry = (entry.0.min(ns), entry.1.min(allocations));
                written.push(out);
            }
        }
        // The envelope's topic is the struct's own.
        if case != "envelope" {
            assert_eq!(values(&written[0]), values(&written[1]), "{case}: plan and interpreter differ");
        }
        for (engine, (ns, allocations)) in best {
            let ns = ns / u64::from(MESSAGES);
            println!("{{\"case\":\"{case}\",\"engine\":\"{engine}\",\"ns\":{ns},\"allocations\":{allocations}}}");
        }
    }
}
