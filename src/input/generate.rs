//! Makes messages up: for demos, tests and benchmarks.
//!
//! Guarantee: at least once, by starting over: message 0 is the first one whenever the pipeline starts.
use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Input, InputContext, InputError, Replay,
    lines::{Nobody, unix_ms},
};
use crate::{
    ack::Ack,
    diagnostic::Fault,
    message::{ArenaFull, Batch, Origin, Source, SourceBuilder, Span},
    script::{Emit, Mapping, ScriptError},
    spec::{Section, Spec, decode, schema_of},
};

pub(super) static SPEC: Spec<dyn Input> = Spec {
    name: "generate",
    summary: "Makes messages up, for demos, tests and benchmarks.",
    example: "topic: devices/demo/telemetry\ncount: 1000\nrate_per_s: 10\nscript: |\n  #{ device_id: `demo-${meta.offset % 5}`, ts: now(), battery: 100 - meta.offset % 100 }\n",
    scripts: &["script"],
    schema: schema_of::<Config>,
    build,
};

/// Settings of `generate`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The payload of every message. Not used when there is a `script`.
    #[serde(default = "payload")]
    payload: String,
    /// Rhai script whose value is the payload, as JSON. `meta.offset` counts the messages from 0, `meta.topic` is the
    /// topic; `drop()` leaves a message out.
    #[serde(default)]
    script: Option<String>,
    /// The topic the messages seem to come from.
    #[serde(default)]
    topic: String,
    /// How many messages; then the input ends. Without it there is no end.
    #[serde(default)]
    count: Option<u64>,
    /// Messages a second. Without it, as fast as the pipeline takes them.
    #[serde(default)]
    #[schemars(range(min = 0.001, max = 1e9))]
    rate_per_s: Option<f64>,
    /// Most messages of one batch.
    #[serde(default = "batch_messages_max")]
    #[schemars(range(min = 1, max = 10_000))]
    batch_messages_max: u32,
}

fn payload() -> String {
    r#"{"device_id":"demo","ts":1700000000,"lat":48.137154,"lon":11.576124,"battery":84,"accel":{"x":0.01,"y":0.02,"z":9.81}}"#
        .to_owned()
}

fn batch_messages_max() -> u32 {
    1000
}

struct Generate {
    what: What,
    count: u64,
    rate_per_s: Option<f64>,
    batch_max: u64,
    started: Option<Instant>,
    made: u64,
}

enum What {
    /// Topic and payload of all messages, in this order, and the payload's place.
    Same { arena: Bytes, topic: Span, payload: Span },
    /// Made anew for each message, on this topic.
    Script { mapping: Box<Mapping>, topic: String },
}

fn build(section: &Section) -> Result<Box<dyn Input>, Vec<Fault>> {
    let config: Config = decode(section)?;
    let mut faults = Vec::new();
    if config.rate_per_s.is_some_and(|rate| !(0.001..=1e9).contains(&rate)) {
        faults.push(
            Fault::new("out-of-range", "rate_per_s", "`rate_per_s` is between 0.001 and 1e9").label("out of range"),
        );
    }
    if !(1..=10_000).contains(&config.batch_messages_max) {
        let title = "`batch_messages_max` is between 1 and 10000";
        faults.push(Fault::new("out-of-range", "batch_messages_max", title).label("out of range"));
    }
    let what = match config.script {
        Some(script) => match Mapping::compile(&script, section.script("script")) {
            Ok(mapping) => Some(What::Script { mapping: Box::new(mapping), topic: config.topic }),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| fault.within("script")));
                None
            }
        },
        None => {
            let topic = Span::new(0, config.topic.len());
            match (topic, Span::new(config.topic.len(), config.payload.len())) {
                (Ok(topic), Ok(payload)) => {
                    Some(What::Same { arena: format!("{}{}", config.topic, config.payload).into(), topic, payload })
                }
                _ => {
                    faults.push(Fault::new("out-of-range", "payload", ArenaFull.to_string()).label("too large"));
                    None
                }
            }
        }
    };
    match what {
        Some(what) if faults.is_empty() => Ok(Box::new(Generate {
            what,
            count: config.count.unwrap_or(u64::MAX),
            rate_per_s: config.rate_per_s,
            batch_max: config.batch_messages_max.into(),
            started: None,
            made: 0,
        })),
        _ => Err(faults),
    }
}

#[async_trait]
impl Input for Generate {
    fn replay(&self) -> Replay {
        Replay::Unacknowledged
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        self.started.get_or_insert_with(Instant::now);
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        loop {
            let left = (self.count - self.made).min(self.batch_max);
            if left == 0 {
                return Ok(None);
            }
            let due = self.wait(left).await;
            let source = self.make(due)?;
            self.made += due;
            // A script may leave out all of them.
            if !source.origins().is_empty() {
                return Ok(Some((Batch::new(source), Ack::new(Arc::new(Nobody), self.made))));
            }
        }
    }

    async fn close(&mut self, _: Duration) {}
}

impl Generate {
    /// Waits until the next messages are due, and answers how many of `left` are.
    async fn wait(&self, left: u64) -> u64 {
        let Some(rate) = self.rate_per_s else {
            // There is always something to read, so the others on this thread are let in here.
            tokio::task::yield_now().await;
            return left;
        };
        let started = self.started.expect("connect was called first");
        // At high rates some at a time: a timer's resolution is a millisecond.
        let together = ((rate / 100.0) as u64).clamp(1, left);
        let due_at = started + Duration::from_secs_f64((self.made + together) as f64 / rate);
        tokio::time::sleep_until(due_at).await;
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        due.saturating_sub(self.made).clamp(together, left)
    }

    /// The next `count` messages.
    fn make(&mut self, count: u64) -> Result<Source, InputError> {
        let received_at_ms = unix_ms();
        let offsets = self.made as i64..(self.made + count) as i64;
        match &mut self.what {
            What::Same { arena, topic, payload } => {
                let origin =
                    |offset| Origin { payload: *payload, topic: *topic, offset, received_at_ms, ..Origin::default() };
                Ok(Source::new("generate", arena.clone(), offsets.map(origin).collect(), Vec::new()))
            }
            What::Script { mapping, topic } => run(mapping, topic, offsets, received_at_ms)
                .map_err(|error| InputError::message(format!("cannot generate a message: {error}"))),
        }
    }
}

/// Runs the script once for each offset, on messages without payload.
fn run(
    mapping: &mut Mapping,
    topic: &str,
    offsets: std::ops::Range<i64>,
    received_at_ms: i64,
) -> Result<Source, String> {
    let mut empty = SourceBuilder::new("generate");
    let mut made = SourceBuilder::new("generate");
    let full = |error: ArenaFull| error.to_string();
    for offset in offsets.clone() {
        let described = empty.push(b"", |origin, parts| {
            origin.topic = parts.text(topic)?;
            (origin.offset, origin.received_at_ms) = (offset, received_at_ms);
            Ok(())
        });
        described.map_err(full)?;
    }
    let batch = Batch::new(empty.finish());
    let mut payload = Vec::new();
    for message in batch.iter() {
        payload.clear();
        let failed = |ScriptError { reason, place, .. }| match place {
            Some(place) => format!("{reason} ({place})"),
            None => reason,
        };
        if mapping.run(message, &mut payload).map_err(failed)? == Emit::Written {
            let copied = made.push(&payload, |origin, parts| {
                origin.topic = parts.text(topic)?;
                (origin.offset, origin.received_at_ms) = (message.origin().offset, received_at_ms);
                Ok(())
            });
            copied.map_err(full)?;
        }
    }
    Ok(made.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::tests::{context, read_all};

    async fn generate(yaml: &str) -> Result<Vec<(i64, String)>, InputError> {
        let mut input = (SPEC.build)(&Section::from_yaml(yaml)).unwrap();
        input.connect(&context()).await.unwrap();
        read_all(&mut *input).await
    }

    #[tokio::test]
    async fn messages_are_counted_from_zero() {
        let seen = generate("{ payload: x, count: 2500 }").await.unwrap();
        assert_eq!((seen.len(), seen[2499].clone()), (2500, (2499, "x".to_owned())));
        let seen = generate(
            "{ script: 'if meta.offset % 2 == 0 { drop() } `${meta.topic}-${meta.offset}`', topic: t, count: 4 }",
        );
        assert_eq!(seen.await.unwrap(), [(1, "\"t-1\"".to_owned()), (3, "\"t-3\"".to_owned())]);
    }

    #[tokio::test]
    async fn a_script_that_fails_says_where() {
        let error = generate("{ script: '1 / meta.offset', count: 4 }").await.unwrap_err().to_string();
        assert_eq!(error, "cannot generate a message: division by zero: 1 / 0 (test/test:1:3)");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        for (rate, count, seconds) in [(10.0, 50_u64, 5.0), (100_000.0, 300_000, 3.0), (0.5, 2, 4.0)] {
            let start = Instant::now();
            let seen = generate(&format!("{{ rate_per_s: {rate}, count: {count} }}")).await.unwrap();
            let took = start.elapsed().as_secs_f64();
            assert_eq!(seen.len() as u64, count);
            assert!((took - seconds).abs() < 0.05, "{count} at {rate}/s took {took} s");
        }
    }

    #[test]
    fn all_faults_are_found() {
        let faults = (SPEC.build)(&Section::from_yaml("{ script: nope(), rate_per_s: 0, batch_messages_max: 0 }"))
            .err()
            .unwrap();
        let codes: Vec<_> = faults.iter().map(|f| (f.code, f.to_string())).collect();
        assert_eq!(codes.len(), 3, "{codes:?}");
        assert!(faults.iter().any(|f| f.to_string().starts_with("`script`: ") && f.at == Some((1, 1))));
    }
}
