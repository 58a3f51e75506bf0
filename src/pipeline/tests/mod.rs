//! Pipelines over parts whose behaviour a test decides. Time is paused: back-off costs nothing.
mod supervisor;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    ack::{Ack, Outcome, Settle},
    input::{Input, InputContext, InputError, Replay},
    message::{Batch, SourceBuilder},
    metrics::{HealthBoard, Metrics},
    output::{
        Delivery, Output, OutputContext, OutputError, Parcel, Pending, Rejection, Retry, WriteError, WriteLimits,
    },
    step::{Failure, Step, StepReport},
};

#[derive(Default)]
struct Outcomes(Mutex<Vec<(u64, Outcome)>>);

impl Settle for Outcomes {
    fn settle(&self, token: u64, outcome: Outcome) {
        self.0.lock().push((token, outcome));
    }
}

/// Hands out the batches it is given, then ends or waits for ever.
struct FakeInput {
    batches: VecDeque<Vec<String>>,
    ends: bool,
    token: u64,
    outcomes: Arc<Outcomes>,
}

#[async_trait]
impl Input for FakeInput {
    fn replay(&self) -> Replay {
        Replay::Unacknowledged
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        let Some(batch) = self.batches.pop_front() else {
            return if self.ends { Ok(None) } else { futures_util::future::pending().await };
        };
        let mut source = SourceBuilder::new("fake");
        for (i, payload) in batch.iter().enumerate() {
            source
                .push(payload.as_bytes(), |o, _| {
                    o.offset = i as i64;
                    Ok(())
                })
                .unwrap();
        }
        self.token += 1;
        Ok(Some((Batch::new(source.finish()), Ack::new(self.outcomes.clone(), self.token))))
    }

    async fn close(&mut self, _: Duration) {}
}

type Answer = Box<dyn FnMut(&[String]) -> Option<Result<(), WriteError>> + Send>;

/// Answers writes as the test says: `None` never answers. Records every write.
struct FakeOutput {
    answer: Answer,
    writes: Arc<Mutex<Vec<Vec<String>>>>,
    limits: WriteLimits,
}

#[async_trait]
impl Output for FakeOutput {
    fn limits(&self) -> WriteLimits {
        self.limits
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        Ok(())
    }

    async fn write(&mut self, parcel: &Parcel) -> Delivery {
        let payloads: Vec<_> = parcel.iter().map(|m| String::from_utf8(m.payload().to_vec()).unwrap()).collect();
        let answer = (self.answer)(&payloads);
        self.writes.lock().push(payloads);
        match answer {
            Some(answer) => futures_util::future::ready(answer).boxed(),
            None => futures_util::future::pending().boxed(),
        }
    }

    async fn close(&mut self, _: Duration) {}
}

/// Nobody listens.
struct Unreachable;

#[async_trait]
impl Output for Unreachable {
    fn limits(&self) -> WriteLimits {
        WriteLimits { messages_max: 1, bytes_max: 1 << 20, linger: Duration::ZERO, in_flight_max: 1 }
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        Err(OutputError("nobody listens".into()))
    }

    async fn write(&mut self, _: &Parcel) -> Delivery {
        unreachable!("it never connects")
    }

    async fn close(&mut self, _: Duration) {}
}

/// Answers every write when the test says so.
struct SlowOutput {
    answered: futures_util::future::Shared<futures_util::future::BoxFuture<'static, Result<(), ()>>>,
}

#[async_trait]
impl Output for SlowOutput {
    fn limits(&self) -> WriteLimits {
        WriteLimits { messages_max: 1, bytes_max: 1 << 20, linger: Duration::ZERO, in_flight_max: 1 }
    }

    async fn connect(&mut self, _: &OutputContext) -> Result<(), OutputError> {
        Ok(())
    }

    async fn write(&mut self, _: &Parcel) -> Delivery {
        self.answered.clone().map(|_| Ok(())).boxed()
    }

    async fn close(&mut self, _: Duration) {}
}

/// Upper-cases payloads; fails on `bad`, panics on `panic`, drops `drop`.
struct FakeStep;

impl Step for FakeStep {
    fn apply(&mut self, batch: Batch, report: &mut StepReport) -> Batch {
        let mut out = batch.rewrite();
        for message in batch.iter() {
            match message.payload() {
                b"bad" => report.failures.push(Failure {
                    place: Some("p.yaml:3:7".into()),
                    ..Failure::of(message, "script-error", "it is bad")
                }),
                b"panic" => panic!("step died"),
                b"drop" => report.filtered += 1,
                payload => out
                    .push::<crate::message::ArenaFull>(message, |o| {
                        o.extend(payload.to_ascii_uppercase());
                        Ok(())
                    })
                    .unwrap(),
            }
        }
        out.finish()
    }
}

type Writes = Arc<Mutex<Vec<Vec<String>>>>;

fn output(
    answer: impl FnMut(&[String]) -> Option<Result<(), WriteError>> + Send + 'static,
) -> (Box<dyn Output>, Writes) {
    let writes = Writes::default();
    let output = FakeOutput { answer: Box::new(answer), writes: writes.clone(), limits: WriteLimits::IMMEDIATE };
    (Box::new(output), writes)
}

fn accepts() -> (Box<dyn Output>, Writes) {
    output(|_| Some(Ok(())))
}

struct Bench {
    pipeline: Pipeline,
    outcomes: Arc<Outcomes>,
    environment: Environment,
    state: tempfile::TempDir,
}

fn bench(batches: &[&[&str]], out: Box<dyn Output>, dead_letter: Option<Box<dyn Output>>) -> Bench {
    let outcomes = Arc::new(Outcomes::default());
    let batches = batches.iter().map(|b| b.iter().map(|s| (*s).to_owned()).collect()).collect();
    let input = FakeInput { batches, ends: true, token: 0, outcomes: outcomes.clone() };
    let state = tempfile::tempdir().unwrap();
    let pipeline = Pipeline {
        name: "p".into(),
        inputs: vec![InputPart {
            label: "in".into(),
            input: Box::new(input),
            steps: vec![StepPart { label: "steps[0]".into(), step: Box::new(FakeStep) }],
        }],
        outputs: vec![OutputPart { label: "out".into(), output: out, when: vec![] }],
        dead_letter,
        archive: None,
        limits: Limits { in_flight_bytes_max: 1 << 20, shutdown_timeout: Duration::from_secs(20) },
        once: Default::default(),
        spool: None,
    };
    let environment = Environment {
        metrics: Metrics::new(),
        health: HealthBoard::default(),
        state: state.path().to_owned(),
        memory: Memory::new(1 << 30),
    };
    Bench { pipeline, outcomes, environment, state }
}

impl Bench {
    async fn run(self) -> (Result<(), PipelineError>, Vec<(u64, Outcome)>) {
        let result = self.pipeline.run(&self.environment, CancellationToken::new()).await;
        let outcomes = self.outcomes.0.lock().clone();
        (result, outcomes)
    }
}

use Outcome::{Delivered, Undelivered};

#[tokio::test(start_paused = true)]
async fn delivered_messages_are_acknowledged() {
    let (out, writes) = accepts();
    let (result, outcomes) = bench(&[&["a", "drop", "b"], &["c"]], out, None).run().await;
    result.unwrap();
    assert_eq!(*writes.lock(), [vec!["A", "B"], vec!["C"]]);
    assert_eq!(outcomes, [(1, Delivered), (2, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_filtered_away_is_acknowledged() {
    let (out, writes) = accepts();
    let (result, outcomes) = bench(&[&["drop"]], out, None).run().await;
    result.unwrap();
    assert!(writes.lock().is_empty());
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_becomes_a_dead_letter_and_the_rest_goes_on() {
    let (out, writes) = accepts();
    let (dead, letters) = accepts();
    let (result, outcomes) = bench(&[&["a", "bad", "b"]], out, Some(dead)).run().await;
    result.unwrap();
    assert_eq!(*writes.lock(), [vec!["A", "B"]]);
    let letters = letters.lock();
    let envelope: serde_json::Value = serde_json::from_str(&letters[0][0]).unwrap();
    assert_eq!((&envelope["payload"], &envelope["place"]), (&"bad".into(), &"p.yaml:3:7".into()));
    assert_eq!(envelope["source"]["offset"], 1);
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_its_dead_letters() {
    let (out, _) = accepts();
    let mut tries = 0;
    let (dead, letters) = output(move |_| {
        tries += 1;
        Some(if tries < 4 { Err(WriteError::retry("topic is down")) } else { Ok(()) })
    });
    let (result, outcomes) = bench(&[&["bad"]], out, Some(dead)).run().await;
    result.unwrap();
    assert_eq!(letters.lock().len(), 4);
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_a_bad_message_stops_the_pipeline_unacknowledged() {
    let (out, _) = accepts();
    let (result, outcomes) = bench(&[&["a"], &["bad", "b"]], out, None).run().await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("message 0 of input `fake`") && error.contains("dead_letter"), "{error}");
    assert!(outcomes.contains(&(2, Undelivered)), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_writes_the_same_messages_again_until_they_are_confirmed() {
    let mut tries = 0;
    let (out, writes) = output(move |_| {
        tries += 1;
        Some(if tries <= 3 { Err(WriteError::retry("server is away")) } else { Ok(()) })
    });
    let (result, outcomes) = bench(&[&["a", "b"]], out, None).run().await;
    result.unwrap();
    assert_eq!(*writes.lock(), vec![vec!["A", "B"]; 4]);
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn part_retried_part_rejected_part_delivered() {
    let mut tries = 0;
    let (out, writes) = output(move |_| {
        tries += 1;
        let rejected = vec![Rejection { index: 1, code: "too-large".into(), reason: "too large".into() }];
        let retry = Retry { reason: "busy".into(), messages: Pending::Only(vec![2, 3]) };
        Some(match tries {
            1 => Err(WriteError { rejected, retry: Some(retry), divide: None }),
            2 => Err(WriteError {
                rejected,
                retry: Some(Retry { reason: "busy".into(), messages: Pending::All }),
                divide: None,
            }),
            _ => Ok(()),
        })
    });
    let (dead, letters) = accepts();
    let (result, outcomes) = bench(&[&["a", "b", "c", "d"]], out, Some(dead)).run().await;
    result.unwrap();
    assert_eq!(*writes.lock(), [vec!["A", "B", "C", "D"], vec!["C", "D"], vec!["C"]]);
    let letters: Vec<serde_json::Value> =
        letters.lock().iter().flatten().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(letters.iter().map(|l| l["payload"].as_str().unwrap()).collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!((&letters[0]["stage"], &letters[0]["attempts"]), (&"outputs.out".into(), &1.into()));
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_too_large_keeps_its_payload_in_a_file() {
    let (out, _) = output(|_| {
        Some(Err(WriteError::rejected(vec![Rejection { index: 0, code: "x".into(), reason: "no".into() }])))
    });
    let (dead, letters) = output(|payloads| {
        let rejected = |(i, _)| Rejection { index: i as u32, code: "too-large".into(), reason: "too large".into() };
        let too_large: Vec<_> = payloads.iter().enumerate().filter(|(_, p)| p.len() > 2000).map(rejected).collect();
        Some(WriteError::rejected(too_large).into_result())
    });
    let big = "x".repeat(5000);
    let bench = bench(&[&[&big]], out, Some(dead));
    let folder = bench.state.path().join("dead-letter");
    let (outcomes, environment, pipeline) = (bench.outcomes.clone(), bench.environment.clone(), bench.pipeline);
    pipeline.run(&environment, CancellationToken::new()).await.unwrap();
    assert_eq!(*outcomes.0.lock(), [(1, Delivered)]);
    let letters = letters.lock();
    let envelope: serde_json::Value = serde_json::from_str(&letters[1][0]).unwrap();
    assert_eq!(envelope["payload_bytes"], 5000);
    let file = envelope["payload_file"].as_str().unwrap();
    assert!(std::path::Path::new(file).starts_with(folder));
    assert_eq!(std::fs::read_to_string(file).unwrap(), big);
    drop(bench.state);
}

#[tokio::test(start_paused = true)]
async fn a_stop_delivers_what_was_read() {
    let (out, writes) = accepts();
    let mut bench = bench(&[], out, None);
    let outcomes = Arc::new(Outcomes::default());
    let batches = VecDeque::from([vec!["a".to_owned()], vec!["b".to_owned()]]);
    bench.pipeline.inputs[0].input = Box::new(FakeInput { batches, ends: false, token: 0, outcomes: outcomes.clone() });
    let stop = CancellationToken::new();
    let later = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        later.cancel();
    });
    bench.pipeline.run(&bench.environment, stop).await.unwrap();
    assert_eq!(*writes.lock(), [["A"], ["B"]]);
    assert_eq!(*outcomes.0.lock(), [(1, Delivered), (2, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_up_on_an_output_that_never_answers_and_acknowledges_nothing() {
    let (out, _) = output(|_| None);
    let (result, outcomes) = bench(&[&["a"]], out, None).run().await;
    result.unwrap();
    assert_eq!(outcomes, [(1, Undelivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_budget_stops_reading() {
    let (out, writes) = output(|_| None);
    let payload = "x".repeat(300_000);
    let batches: Vec<&[&str]> = vec![&[]; 0];
    let mut bench = bench(&batches, out, None);
    let outcomes = Arc::new(Outcomes::default());
    let many = (0..50).map(|_| vec![payload.clone()]).collect();
    bench.pipeline.inputs[0].input =
        Box::new(FakeInput { batches: many, ends: false, token: 0, outcomes: outcomes.clone() });
    let stop = CancellationToken::new();
    let later = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        later.cancel();
    });
    bench.pipeline.run(&bench.environment, stop).await.unwrap();
    assert_eq!(writes.lock().len(), 1, "1 MiB holds one such batch and its mapped copy");
    assert!(outcomes.0.lock().iter().all(|(_, outcome)| *outcome == Undelivered));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_whose_output_never_connected_stops_at_once_when_it_has_nothing_to_deliver() {
    for (batches, waits) in [(&[][..], 0), (&[&["a"][..]][..], 20)] {
        let mut bench = bench(batches, Box::new(Unreachable), None);
        let batches = batches.iter().map(|batch| batch.iter().map(|text| (*text).to_owned()).collect()).collect();
        let outcomes = bench.outcomes.clone();
        bench.pipeline.inputs[0].input = Box::new(FakeInput { batches, ends: false, token: 0, outcomes });
        let stop = CancellationToken::new();
        let later = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            later.cancel();
        });
        let started = tokio::time::Instant::now();
        bench.pipeline.run(&bench.environment, stop).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 60 + waits);
        assert!(bench.outcomes.0.lock().iter().all(|(_, outcome)| *outcome == Undelivered));
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_does_not_answer_is_not_ready_until_it_does() {
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    let answered = answered.map(|_| Ok(())).boxed().shared();
    let output = SlowOutput { answered };
    let bench = bench(&[&["a"], &["b"]], Box::new(output), None);
    let (board, outcomes) = (bench.environment.health.clone(), bench.outcomes.clone());
    let run = tokio::spawn(async move { bench.run().await });
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert!(board.report().ready, "{:?}", board.report());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (component, fault) = board.report().faults.remove(0);
    assert_eq!(component, "p/output/out");
    assert!(fault.starts_with("no answer for 15 s to 1 write; what is not confirmed stays unacknowledged"), "{fault}");
    assert!(outcomes.0.lock().is_empty());
    answer.send(()).unwrap();
    let (result, outcomes) = run.await.unwrap();
    result.unwrap();
    assert_eq!(outcomes, [(1, Delivered), (2, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_step_ends_the_pipeline_and_acknowledges_nothing() {
    let (out, _) = accepts();
    let (result, outcomes) = bench(&[&["panic"]], out, None).run().await;
    assert!(matches!(result, Err(PipelineError::Panicked { .. })), "{result:?}");
    assert_eq!(outcomes, [(1, Undelivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_pipeline_makes_the_process_not_ready() {
    let (out, _) = accepts();
    let bench = bench(&[&["bad"]], out, None);
    let board = bench.environment.health.clone();
    bench.run().await.0.unwrap_err();
    let report = board.report();
    assert!(!report.ready);
    assert_eq!(report.faults[0].0, "p/stopped");
}

/// A pipeline whose only step splits lists.
fn splitting(batches: &[&[&str]], out: Box<dyn Output>, dead_letter: Option<Box<dyn Output>>) -> Bench {
    let mut bench = bench(batches, out, dead_letter);
    let spec = crate::registry::Registry::built_in().step("split").unwrap();
    bench.pipeline.inputs[0].steps[0].step = (spec.build)(&crate::spec::Section::from_yaml("payload")).unwrap();
    bench
}

#[tokio::test(start_paused = true)]
async fn a_split_message_is_acknowledged_when_all_its_parts_have_ended() {
    let mut tries = 0;
    // The second part is refused, the third has to be written again and again.
    let (out, writes) = output(move |payloads| {
        tries += 1;
        if payloads.len() == 3 {
            let rejected = vec![Rejection { index: 1, code: "too-large".into(), reason: "too large".into() }];
            let retry = Retry { reason: "busy".into(), messages: Pending::Only(vec![2]) };
            return Some(Err(WriteError { rejected, retry: Some(retry), divide: None }));
        }
        Some(if tries < 4 { Err(WriteError::retry("busy")) } else { Ok(()) })
    });
    let (dead, letters) = accepts();
    let (result, outcomes) = splitting(&[&["[1, 2, 3]"], &["[]"]], out, Some(dead)).run().await;
    result.unwrap();
    assert_eq!(writes.lock()[0], ["1", "2", "3"]);
    let envelope: serde_json::Value = serde_json::from_str(&letters.lock()[0][0]).unwrap();
    assert_eq!((&envelope["payload"], &envelope["part"]), (&"[1, 2, 3]".into(), &1.into()));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.1 == Delivered).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_split_message_of_which_one_part_never_arrives_is_not_acknowledged() {
    let (out, _) = output(|payloads| {
        let retry = Retry { reason: "busy".into(), messages: Pending::Only(vec![payloads.len() as u32 - 1]) };
        Some(Err(WriteError { rejected: Vec::new(), retry: Some(retry), divide: None }))
    });
    let mut bench = splitting(&[&["[1, 2, 3]"]], out, None);
    bench.pipeline.limits.shutdown_timeout = Duration::from_secs(5);
    let (_, outcomes) = bench.run().await;
    assert_eq!(outcomes, [(1, Undelivered)]);
}

#[tokio::test(start_paused = true)]
async fn the_archive_gets_every_message_as_it_came_and_acks_wait_for_it() {
    let (out, writes) = accepts();
    let (dead, letters) = accepts();
    let mut tries = 0;
    let (archive, archived) = output(move |_| {
        tries += 1;
        Some(if tries < 4 { Err(WriteError::retry("the disk is full")) } else { Ok(()) })
    });
    let mut bench = bench(&[&["a", "bad", "drop"]], out, Some(dead));
    bench.pipeline.archive = Some(archive);
    let (result, outcomes) = bench.run().await;
    result.unwrap();
    assert_eq!(*archived.lock(), vec![vec!["a", "bad", "drop"]; 4]);
    assert_eq!(*writes.lock(), [vec!["A"]]);
    assert_eq!(letters.lock().len(), 1);
    assert_eq!(outcomes, [(1, Delivered)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_archive_does_not_confirm_is_not_acknowledged() {
    let (out, writes) = accepts();
    let (archive, _) = output(|_| None);
    let mut bench = bench(&[&["a"]], out, None);
    bench.pipeline.archive = Some(archive);
    let (result, outcomes) = bench.run().await;
    result.unwrap();
    assert_eq!(*writes.lock(), [vec!["A"]], "the outputs do not wait for the archive");
    assert_eq!(outcomes, [(1, Undelivered)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_archive_refuses_becomes_a_dead_letter() {
    let (out, _) = accepts();
    let (dead, letters) = accepts();
    let refused = || vec![Rejection { index: 0, code: "too-large".into(), reason: "too large".into() }];
    let (archive, _) = output(move |_| Some(Err(WriteError::rejected(refused()))));
    let mut bench = bench(&[&["a"]], out, Some(dead));
    bench.pipeline.archive = Some(archive);
    let (result, outcomes) = bench.run().await;
    result.unwrap();
    let letter: serde_json::Value = serde_json::from_str(&letters.lock()[0][0]).unwrap();
    assert_eq!((&letter["stage"], &letter["payload"]), (&"archive".into(), &"a".into()));
    assert_eq!(outcomes, [(1, Delivered)]);
}
