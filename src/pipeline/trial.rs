//! A pipeline tried out: its steps and conditions run for messages that somebody made up, and nothing is connected. What
//! runs is what runs in a lane.
use std::{collections::BTreeMap, path::Path, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value as Json;

use super::{
    run::{OutputPart, Pipeline},
    work::{Failed, Route, Share, Work, Worked},
};
use crate::{
    codec::json::{self, Content},
    config::{Expected, ExpectedLetter, TestCase, TestInput},
    message::{ArenaFull, Batch, Setting, SourceBuilder, Span},
    metrics::Metrics,
    output::Output,
    script::fix_clock,
};

/// A pipeline to try messages with.
pub struct Trial {
    /// One for each input, with its label.
    lanes: Vec<(String, Work)>,
    outputs: Vec<(String, Box<dyn Output>)>,
}

/// A message to try.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub payload: Vec<u8>,
    /// By the names that scripts use.
    pub meta: BTreeMap<String, Json>,
    /// Label of the input; empty for the first.
    pub input: String,
}

/// What came of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// For each output that gets something: its label, and what it gets.
    pub outputs: Vec<(String, Vec<TriedMessage>)>,
    pub letters: Vec<TriedLetter>,
    /// Messages that were filtered.
    pub dropped: u64,
}

/// A message that an output would send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriedMessage {
    pub payload: Vec<u8>,
    /// Empty where the output has no topics.
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A message that would become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriedLetter {
    pub stage: String,
    pub code: String,
    pub reason: String,
    /// `file:line:column`.
    pub place: Option<String>,
}

/// What came of a batch.
#[derive(Debug)]
pub struct Through {
    /// For each output, what it gets.
    pub outputs: Vec<Batch>,
    /// Messages, or parts of them, that would become dead letters.
    pub failed: u64,
    /// Messages that were filtered.
    pub filtered: u64,
}

impl Trial {
    /// Takes a pipeline that was built; `steps_max` leaves out the steps after so many.
    pub fn new(pipeline: Pipeline, steps_max: Option<usize>) -> Self {
        let Pipeline { inputs, outputs, name, .. } = pipeline;
        let metrics = Metrics::new();
        let mut conditions: Vec<_> = Vec::new();
        let mut kept = Vec::new();
        for OutputPart { label, output, when } in outputs {
            conditions.push((format!("outputs.{label}"), when.into_iter()));
            kept.push((label, output));
        }
        let lanes = inputs.into_iter().map(|part| {
            let steps = part.steps.into_iter().take(steps_max.unwrap_or(usize::MAX));
            let steps = steps.map(|step| (metrics.script(&name, &step.label), step)).collect();
            let routes = conditions.iter_mut().map(|(stage, when)| Route {
                stage: stage.clone(),
                when: when.next().map(|when| (when, metrics.script(&name, stage))),
            });
            (part.label, Work { steps, routes: routes.collect() })
        });
        Self { lanes: lanes.collect(), outputs: kept }
    }

    /// What keeps scripts from being compiled, with the step of each.
    pub fn interpreted(&self) -> Vec<(String, String)> {
        let steps = self.lanes.iter().take(1).flat_map(|(_, work)| &work.steps);
        let notes = steps.flat_map(|(_, part)| {
            let notes = part.step.notes().into_iter().filter(|note| note.code == "interpreted");
            notes.map(|note| (part.label.clone(), note.title))
        });
        notes.collect()
    }

    /// Runs one message through.
    ///
    /// # Errors
    /// The sample's metadata cannot be, or it names an input that there is not.
    pub fn run(&mut self, sample: &Sample) -> Result<Tried, String> {
        let batch = batch(sample)?;
        let lane = self.lanes.iter_mut().find(|(label, _)| sample.input.is_empty() || *label == sample.input);
        let Some((_, work)) = lane else { return Err(format!("there is no input `{}`", sample.input)) };
        let Worked { batch, shares, failed, filtered } = work.run(batch);
        let letter = |Failed { stage, failure }| TriedLetter {
            stage,
            code: failure.code,
            reason: failure.reason,
            place: failure.place,
        };
        let mut tried =
            Tried { letters: failed.into_iter().map(letter).collect(), dropped: filtered, ..Tried::default() };
        for ((label, output), share) in self.outputs.iter().zip(shares) {
            let wanted: Vec<u32> = match share {
                Share::All => (0..batch.len() as u32).collect(),
                Share::Some(indexes) => indexes,
            };
            let mut messages = Vec::new();
            for message in wanted.into_iter().map(|index| batch.get(index as usize)) {
                match output.address(message) {
                    Ok(address) => messages.push(TriedMessage {
                        payload: message.payload().to_vec(),
                        topic: address.topic,
                        key: address.key,
                        headers: address.headers,
                    }),
                    Err((code, reason)) => {
                        tried.letters.push(TriedLetter {
                            stage: format!("outputs.{label}"),
                            code,
                            reason,
                            place: None,
                        });
                    }
                }
            }
            if !messages.is_empty() {
                tried.outputs.push((label.clone(), messages));
            }
        }
        Ok(tried)
    }

    /// Runs a batch through the steps of the first input.
    ///
    /// # Panics
    /// The pipeline has no input; one that was checked has.
    pub fn run_batch(&mut self, batch: Batch) -> Through {
        let (_, work) = self.lanes.first_mut().expect("a checked pipeline has an input");
        let Worked { batch, shares, failed, filtered } = work.run(batch);
        let outputs = shares.into_iter().map(|share| match share {
            Share::All => batch.clone(),
            Share::Some(indexes) => batch.select(&indexes),
        });
        Through { outputs: outputs.collect(), failed: failed.len() as u64, filtered }
    }

    /// Nanoseconds of the steps for one message, the best of several rounds over all samples.
    pub fn cost_ns(&mut self, samples: &[Sample]) -> Option<f64> {
        let batches: Vec<Batch> = samples.iter().filter_map(|sample| batch(sample).ok()).collect();
        let work = self.lanes.first_mut().map(|(_, work)| work).filter(|_| !batches.is_empty())?;
        let rounds = (20_000 / batches.len()).clamp(1, 2_000);
        let mut best = f64::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            for _ in 0..rounds {
                for batch in &batches {
                    work.run(batch.clone());
                }
            }
            best = best.min(started.elapsed().as_nanos() as f64 / (rounds * batches.len()) as f64);
        }
        Some(best)
    }
}

/// A batch of one message.
fn batch(sample: &Sample) -> Result<Batch, String> {
    let mut source = SourceBuilder::new("test");
    let mut named: Vec<(std::sync::Arc<str>, String)> = Vec::new();
    let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut fault = None;
    let full = |error: ArenaFull| error.to_string();
    source
        .push(&sample.payload, |origin, parts| {
            origin.received_at_ms = jiff::Timestamp::now().as_millisecond();
            for (name, value) in &sample.meta {
                let mut whole = |low: i64, high: i64| {
                    let number = value.as_i64().filter(|number| (low..=high).contains(number));
                    if number.is_none() {
                        fault = Some(format!("`meta.{name}` must be a whole number from {low} to {high}, not {value}"));
                    }
                    number.unwrap_or(low)
                };
                match name.as_str() {
                    "topic" => origin.topic = parts.text(&text(value))?,
                    "key" => origin.key = Some(parts.bytes(text(value).as_bytes())?),
                    "partition" => origin.partition = whole(0, i32::MAX.into()) as i32,
                    "offset" => origin.offset = whole(0, i64::MAX),
                    "timestamp_ms" => origin.timestamp_ms = Some(whole(i64::MIN, i64::MAX)),
                    "received_at" => origin.received_at_ms = whole(0, i64::MAX / 1000) * 1000,
                    "received_at_ms" => origin.received_at_ms = whole(0, i64::MAX),
                    "qos" => origin.qos = whole(0, 2) as u8,
                    "retain" => origin.retain = value.as_bool().unwrap_or(false),
                    "headers" => {
                        for (name, value) in value.as_object().into_iter().flatten() {
                            parts.header(origin, name, text(value).as_bytes())?;
                        }
                    }
                    "levels" => fault = Some("`meta.levels` come from `meta.topic`".to_owned()),
                    name => named.push((name.into(), text(value))),
                }
            }
            Ok(())
        })
        .map_err(full)?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    let mut batch = Batch::new(source.finish());
    if !named.is_empty() {
        let mut texts = Vec::new();
        let mut meta = Vec::new();
        for (name, value) in named {
            meta.push((name, Some(Span::new(texts.len(), value.len()).map_err(full)?)));
            texts.extend_from_slice(value.as_bytes());
        }
        let setting = Setting { texts: &texts, meta: &meta, ..Setting::default() };
        batch.change(|_, write| write(&setting), |_, _: ArenaFull| {});
    }
    Ok(batch)
}

impl Sample {
    /// The message of a test. `folder` is where its file's path starts.
    ///
    /// # Errors
    /// The payload cannot be read.
    pub fn of_input(input: &TestInput, folder: &Path) -> Result<Self, String> {
        let payload = match (&input.payload, &input.payload_base64, &input.file) {
            (Some(Json::String(text)), None, None) => text.clone().into_bytes(),
            (Some(value), None, None) => value.to_string().into_bytes(),
            (None, Some(text), None) => {
                BASE64.decode(text).map_err(|error| format!("`payload_base64` cannot be read: {error}"))?
            }
            (None, None, Some(file)) => {
                let path = folder.join(file);
                std::fs::read(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?
            }
            (None, None, None) => Vec::new(),
            _ => return Err("a message has one of `payload`, `payload_base64` and `file`".to_owned()),
        };
        Ok(Self { payload, meta: input.meta.clone(), input: input.input.clone().unwrap_or_default() })
    }
}

/// Runs one test of a pipeline. Answers what is not as it should be: nothing when it passes.
pub fn check_case(trial: &mut Trial, case: &TestCase, folder: &Path) -> Vec<String> {
    let clock = match &case.clock {
        None => None,
        Some(Json::String(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => Some(at.as_millisecond()),
            Err(error) => return vec![format!("`clock` cannot be read: {error}")],
        },
        Some(value) => match value.as_i64() {
            Some(ms) => Some(ms),
            None => return vec![format!("`clock` is a time or Unix milliseconds, not {value}")],
        },
    };
    let mut all = Tried::default();
    fix_clock(clock);
    let tried = case.input.iter().chain(&case.inputs).map(|input| {
        let mut sample = Sample::of_input(input, folder)?;
        if let Some(ms) = clock.filter(|_| !sample.meta.keys().any(|name| name.starts_with("received_at"))) {
            sample.meta.insert("received_at_ms".to_owned(), ms.into());
        }
        trial.run(&sample)
    });
    let tried: Result<Vec<Tried>, String> = tried.collect();
    fix_clock(None);
    for tried in match tried {
        Ok(tried) => tried,
        Err(reason) => return vec![reason],
    } {
        for (label, messages) in tried.outputs {
            match all.outputs.iter_mut().find(|(known, _)| *known == label) {
                Some((_, known)) => known.extend(messages),
                None => all.outputs.push((label, messages)),
            }
        }
        all.letters.extend(tried.letters);
        all.dropped += tried.dropped;
    }
    compare(case, &all)
}

fn compare(case: &TestCase, tried: &Tried) -> Vec<String> {
    let mut wrong = Vec::new();
    let got = |label: &str| tried.outputs.iter().find(|(known, _)| known == label).map_or(&[][..], |(_, all)| all);
    for (label, expected) in &case.outputs {
        let got = got(label);
        for (index, expected) in expected.iter().enumerate() {
            match got.get(index) {
                Some(message) => wrong.extend(
                    misfits(expected, message)
                        .into_iter()
                        .map(|what| format!("output `{label}`, message {}: {what}", index + 1)),
                ),
                None => wrong.push(format!("output `{label}`: message {} did not come", index + 1)),
            }
        }
        for message in got.iter().skip(expected.len()) {
            wrong.push(format!("output `{label}`: not expected: {}", show(message)));
        }
    }
    for (label, messages) in tried.outputs.iter().filter(|(label, _)| !case.outputs.contains_key(label)) {
        wrong.extend(messages.iter().map(|message| format!("output `{label}`: not expected: {}", show(message))));
    }
    for (index, letter) in tried.letters.iter().enumerate() {
        match case.dead_letters.get(index) {
            Some(expected) => wrong.extend(
                letter_misfits(expected, letter).into_iter().map(|what| format!("dead letter {}: {what}", index + 1)),
            ),
            None => {
                let TriedLetter { stage, code, reason, place } = letter;
                let place = place.as_ref().map_or(String::new(), |place| format!(" at {place}"));
                wrong.push(format!("a dead letter is not expected: {stage}: {code}{place}: {reason}"));
            }
        }
    }
    for index in tried.letters.len()..case.dead_letters.len() {
        wrong.push(format!("dead letter {} did not come", index + 1));
    }
    if tried.dropped != case.dropped {
        wrong.push(format!("dropped: expected {}, got {}", case.dropped, tried.dropped));
    }
    wrong
}

fn letter_misfits(expected: &ExpectedLetter, letter: &TriedLetter) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |what: &str, wanted: &Option<String>, got: &str, fits: &dyn Fn(&str, &str) -> bool| {
        if let Some(wanted) = wanted.as_ref().filter(|wanted| !fits(got, wanted)) {
            wrong.push(format!("{what}: expected `{wanted}`, got `{got}`"));
        }
    };
    check("code", &expected.code, &letter.code, &|got, wanted| got == wanted);
    check("stage", &expected.stage, &letter.stage, &|got, wanted| got == wanted);
    check("reason", &expected.reason, &letter.reason, &|got, wanted| got.contains(wanted));
    check("place", &expected.place, letter.place.as_deref().unwrap_or(""), &|got, wanted| got.ends_with(wanted));
    wrong
}

fn misfits(expected: &Expected, message: &TriedMessage) -> Vec<String> {
    let mut wrong = Vec::new();
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(wanted) = &expected.payload
        && !payload_fits(wanted, &message.payload, expected.exact)
    {
        let pretty = |value: &Json| serde_json::to_string_pretty(value).unwrap_or_default();
        let got = match serde_json::from_slice::<Json>(&message.payload) {
            // Only what was asked for, so that the difference is all that shows.
            Ok(got) if !expected.exact => pretty(&trim(&got, wanted)),
            Ok(got) => pretty(&got),
            Err(_) => bytes_text(&message.payload),
        };
        let wanted = match wanted {
            Json::String(text) => text.clone(),
            wanted => pretty(wanted),
        };
        let diff = similar::TextDiff::from_lines(&wanted, &got);
        let lines = diff.iter_all_changes().map(|change| {
            let sign = match change.tag() {
                similar::ChangeTag::Delete => "-",
                similar::ChangeTag::Insert => "+",
                similar::ChangeTag::Equal => " ",
            };
            format!("{sign} {}", change.value().trim_end_matches('\n'))
        });
        wrong.push(format!("payload (- expected, + got)\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
    let key = message.key.as_deref().map(bytes_text);
    if let Some(wanted) = &expected.key {
        let wanted = (!wanted.is_null()).then(|| plain(wanted));
        if wanted != key {
            let show = |key: &Option<String>| key.as_ref().map_or("none".to_owned(), |key| format!("`{key}`"));
            wrong.push(format!("key: expected {}, got {}", show(&wanted), show(&key)));
        }
    }
    if let Some(wanted) = expected.topic.as_ref().filter(|wanted| **wanted != message.topic) {
        wrong.push(format!("topic: expected `{wanted}`, got `{}`", message.topic));
    }
    for (name, wanted) in &expected.headers {
        let got = message.headers.iter().rev().find(|(known, _)| known == name).map(|(_, value)| bytes_text(value));
        let wanted = (!wanted.is_null()).then(|| plain(wanted));
        if got != wanted {
            let show = |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |value| format!("`{value}`"));
            wrong.push(format!("header `{name}`: expected {}, got {}", show(&wanted), show(&got)));
        }
    }
    wrong
}

fn payload_fits(wanted: &Json, payload: &[u8], exact: bool) -> bool {
    let got = serde_json::from_slice::<Json>(payload).ok();
    match wanted {
        Json::String(text) => {
            text.as_bytes() == payload
                || got.as_ref().is_some_and(|got| {
                    got.as_str() == Some(text)
                        || serde_json::from_str::<Json>(text).is_ok_and(|wanted| fits(&wanted, got, exact))
                })
        }
        wanted => got.is_some_and(|got| fits(wanted, &got, exact)),
    }
}

fn fits(wanted: &Json, got: &Json, exact: bool) -> bool {
    match (wanted, got) {
        (Json::Object(wanted), Json::Object(got)) => {
            (!exact || wanted.len() == got.len())
                && wanted.iter().all(|(name, wanted)| got.get(name).is_some_and(|got| fits(wanted, got, exact)))
        }
        (Json::Array(wanted), Json::Array(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got).all(|(wanted, got)| fits(wanted, got, exact))
        }
        (Json::Number(wanted), Json::Number(got)) => {
            wanted == got || (wanted.is_f64() || got.is_f64()) && wanted.as_f64() == got.as_f64()
        }
        (wanted, got) => wanted == got,
    }
}

/// Of objects only the members that are wanted.
fn trim(got: &Json, wanted: &Json) -> Json {
    match (got, wanted) {
        (Json::Object(got), Json::Object(wanted)) => {
            let kept = got.iter().filter_map(|(name, value)| Some((name.clone(), trim(value, wanted.get(name)?))));
            Json::Object(kept.collect())
        }
        (Json::Array(got), Json::Array(wanted)) => {
            let wanted = wanted.iter().map(Some).chain(std::iter::repeat(None));
            got.iter()
                .zip(wanted)
                .map(|(got, wanted)| wanted.map_or_else(|| got.clone(), |wanted| trim(got, wanted)))
                .collect()
        }
        (got, _) => got.clone(),
    }
}

fn show(message: &TriedMessage) -> String {
    let text = bytes_text(&message.payload);
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Bytes for people: text as it is, anything else in Base64.
pub fn bytes_text(bytes: &[u8]) -> String {
    match json::classify(bytes) {
        Content::NotUtf8 => format!("base64:{}", BASE64.encode(bytes)),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
