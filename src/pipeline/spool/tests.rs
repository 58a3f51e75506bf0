//! A spool between an input that remembers what was acknowledged and a test that plays lane and outputs. Time is paused,
//! files are real.
use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex as Lock;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Notify, time::sleep};

use super::*;
use crate::{
    ack::{Outcome, Settle},
    message::SourceBuilder,
    metrics::Metrics,
};

/// A broker with one session: it sends again what was not acknowledged.
#[derive(Default)]
struct Broker {
    /// Batches of numbered messages that it has still to send.
    waiting: Lock<VecDeque<Vec<u64>>>,
    sent: Lock<Vec<(Vec<u64>, Option<Outcome>)>>,
    more: Notify,
}

struct Session(Arc<Broker>);

impl Settle for Broker {
    fn settle(&self, token: u64, outcome: Outcome) {
        self.sent.lock()[token as usize].1 = Some(outcome);
    }
}

impl Broker {
    fn publish(&self, numbers: impl IntoIterator<Item = u64>) {
        self.waiting.lock().push_back(numbers.into_iter().collect());
        self.more.notify_one();
    }

    /// Batches that are acknowledged, in order of their sending.
    fn acknowledged(&self) -> usize {
        let sent = self.sent.lock();
        let count = sent.iter().take_while(|(_, outcome)| *outcome == Some(Outcome::Delivered)).count();
        let all = sent.iter().filter(|(_, outcome)| *outcome == Some(Outcome::Delivered)).count();
        assert_eq!(count, all, "acknowledged in the order of receipt");
        count
    }

    /// A new session after a crash: what was not acknowledged comes first.
    fn again(&self) -> Arc<Self> {
        let sent = self.sent.lock();
        let open = sent.iter().filter(|(_, outcome)| *outcome != Some(Outcome::Delivered));
        let waiting = open.map(|(numbers, _)| numbers.clone()).chain(self.waiting.lock().iter().cloned()).collect();
        Arc::new(Self { waiting: Lock::new(waiting), ..Self::default() })
    }
}

#[async_trait]
impl Input for Session {
    fn replay(&self) -> Replay {
        Replay::Unacknowledged
    }

    fn can_spool(&self) -> bool {
        true
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        loop {
            if let Some(numbers) = self.0.waiting.lock().pop_front() {
                let mut source = SourceBuilder::new("mqtt");
                for number in &numbers {
                    source.push(&payload(*number), |_, _| Ok(())).unwrap();
                }
                let token = {
                    let mut sent = self.0.sent.lock();
                    sent.push((numbers, None));
                    sent.len() as u64 - 1
                };
                return Ok(Some((Batch::new(source.finish()), Ack::new(self.0.clone(), token))));
            }
            self.0.more.notified().await;
        }
    }

    async fn close(&mut self, _: Duration) {}
}

/// 1000 bytes, so that limits are easy to reach.
fn payload(number: u64) -> Vec<u8> {
    format!("{number:01000}").into_bytes()
}

struct Bench {
    environment: Environment,
    context: InputContext,
    broker: Arc<Broker>,
    input: Box<dyn Input>,
    settings: Settings,
    state: tempfile::TempDir,
}

const SETTINGS: Settings = Settings { enabled: true, bytes_max: 10 << 20, after: Duration::from_millis(500) };

impl Bench {
    async fn new(settings: Settings) -> Self {
        Self::on(tempfile::tempdir().unwrap(), Arc::default(), settings).await
    }

    async fn on(state: tempfile::TempDir, broker: Arc<Broker>, settings: Settings) -> Self {
        let environment = Environment {
            metrics: Metrics::new(),
            health: HealthBoard::default(),
            memory: crate::pipeline::Memory::new(1 << 30),
            state: state.path().to_owned(),
        };
        let (metrics, health) = environment.component("p", "input", "in");
        let state_of_input = state.path().join("input");
        let context =
            InputContext { pipeline: "p".to_owned(), label: "in".to_owned(), metrics, health, state: state_of_input };
        let session = Box::new(Session(broker.clone()));
        let mut input = around(session, Some(settings), Duration::ZERO, &context, &environment);
        input.connect(&context).await.unwrap();
        context.health.ok();
        Self { environment, context, broker, input, settings, state }
    }

    /// kill -9, and a new start on what is on disk just now.
    async fn crash(self) -> Self {
        let state = tempfile::tempdir().unwrap();
        let (from, to) = (self.folder(), state.path().join("spool/p/in"));
        std::fs::create_dir_all(&to).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // The cursor last: segments that are gone by then are below it.
        files.sort_by_key(|name| name == "cursor");
        for name in files {
            match std::fs::copy(from.join(&name), to.join(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
        Self::on(state, self.broker.again(), self.settings).await
    }

    async fn read(&mut self) -> (Vec<u64>, Ack) {
        let read = tokio::time::timeout(Duration::from_secs(60), self.input.read()).await.expect("there is more");
        let (batch, ack) = read.unwrap().unwrap();
        (batch.iter().map(|m| std::str::from_utf8(m.payload()).unwrap().parse().unwrap()).collect(), ack)
    }

    /// Reads up to message `last` and confirms each batch at once.
    async fn deliver(&mut self, last: u64) -> Vec<u64> {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let (numbers, ack) = self.read().await;
            seen.extend(numbers);
            ack.delivered();
        }
        seen
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.environment.metrics.text();
        let line = text.lines().find(|line| line.starts_with(&format!("streamer_spool_{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    async fn until(&self, what: &str, mut fact: impl FnMut(&Self) -> bool) {
        for _ in 0..6000 {
            if fact(self) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never happened: {what}; {:?}", self.environment.health.report());
    }

    async fn until_empty(&self) {
        self.until("the spool is empty", |b| b.metric("bytes") == 0.0 && b.metric("state") == 0.0).await;
        assert!(!log::holds_messages(&self.folder()));
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join("spool/p/in")
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_to_disk_while_outputs_confirm() {
    let mut bench = Bench::new(SETTINGS).await;
    for number in 0..100 {
        bench.broker.publish([number]);
        let (numbers, ack) = bench.read().await;
        assert_eq!(numbers, [number]);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(bench.broker.acknowledged() as u64, number);
        ack.delivered();
    }
    assert!(!log::holds_messages(&bench.folder()));
    assert_eq!(bench.metric("state"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn while_outputs_confirm_nothing_messages_are_acknowledged_from_disk_and_delivered_in_order_later() {
    let mut bench = Bench::new(SETTINGS).await;
    (0..10).for_each(|n| bench.broker.publish([2 * n, 2 * n + 1]));
    let mut in_flight = Vec::new();
    for n in 0..5 {
        let (numbers, ack) = bench.read().await;
        assert_eq!(numbers, [2 * n, 2 * n + 1]);
        in_flight.push(ack);
    }
    // Nobody reads any more: the lane waits for its outputs.
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 10).await;
    bench.until("its state is told", |bench| bench.metric("state") == 1.0).await;
    assert_eq!(bench.metric("messages"), 20.0);
    let note = bench.environment.health.report().notes.pop().unwrap();
    assert_eq!(note.0, "p/spool/in");
    assert!(note.1.starts_with("spooling: 20 messages wait on disk"), "{note:?}");
    for n in 10..20 {
        bench.broker.publish([2 * n, 2 * n + 1]);
    }
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 20).await;
    in_flight.into_iter().for_each(Ack::delivered);
    assert_eq!(bench.deliver(39).await, (10..40).collect::<Vec<_>>(), "what was in flight comes once");
    let reader = tokio::time::timeout(Duration::from_secs(5), bench.input.read());
    assert!(reader.await.is_err(), "there is no more");
    bench.until_empty().await;
    assert!(bench.environment.health.report().notes.is_empty());
    bench.broker.publish([40]);
    assert_eq!(bench.deliver(40).await, [40]);
    assert!(!log::holds_messages(&bench.folder()), "direct again");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_spool_comes_first_and_then_what_the_broker_still_has() {
    let mut bench = Bench::new(SETTINGS).await;
    (0..10).for_each(|n| bench.broker.publish([n]));
    let ack = bench.read().await.1;
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 10).await;
    bench.broker.publish(10..15);
    drop(ack);
    let mut bench = bench.crash().await;
    assert_eq!(bench.deliver(14).await, (0..15).collect::<Vec<_>>());
    bench.until_empty().await;
    let mut bench = bench.crash().await;
    bench.broker.publish([15]);
    assert_eq!(bench.deliver(15).await, [15], "what was delivered does not come again");
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_draining_repeats_only_what_was_delivered_since_the_cursor_was_saved() {
    let mut bench = Bench::new(SETTINGS).await;
    // Blocks of 1 MiB hold about 1000 messages.
    (0..100).for_each(|n| bench.broker.publish(n * 50..(n + 1) * 50));
    let ack = bench.read().await.1;
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 100).await;
    ack.delivered();
    let (first, first_ack) = bench.read().await;
    first_ack.delivered();
    bench.until("the cursor is saved", |bench| bench.metric("messages") == 4950.0 - first.len() as f64).await;
    sleep(Duration::from_secs(2)).await;
    let (second, second_ack) = bench.read().await;
    second_ack.delivered();
    let (_third, _open) = bench.read().await;
    let mut bench = bench.crash().await;
    let again = bench.deliver(4999).await;
    assert_eq!(again, (second[0]..5000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_nothing_more_is_acknowledged_and_nothing_is_lost() {
    let settings = Settings { bytes_max: 1 << 20, ..SETTINGS };
    let mut bench = Bench::new(settings).await;
    (0..300).for_each(|n| bench.broker.publish(n * 10..(n + 1) * 10));
    let ack = bench.read().await.1;
    bench
        .until("it says that it is full", |bench| {
            bench.environment.health.report().faults.iter().any(|(name, reason)| {
                name == "p/spool/in" && reason.contains("the spool is full: `bytes_max` is 1.0 MiB")
            })
        })
        .await;
    let acknowledged = bench.broker.acknowledged();
    assert!((1..=105).contains(&acknowledged), "{acknowledged} of batches of 10 kB");
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.broker.acknowledged(), acknowledged);
    assert!(bench.metric("bytes") <= f64::from(1 << 20));
    ack.delivered();
    assert_eq!(bench.deliver(2999).await, (10..3000).collect::<Vec<_>>());
    bench.until_empty().await;
    assert!(bench.environment.health.report().ready, "{:?}", bench.environment.health.report());
    assert_eq!(bench.broker.acknowledged(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_spool_waits_for_the_outputs() {
    let settings = Settings { bytes_max: 1 << 20, ..SETTINGS };
    let mut bench = Bench::new(settings).await;
    bench.broker.publish([0]);
    let ack = bench.read().await.1;
    bench.until("it is acknowledged", |bench| bench.broker.acknowledged() == 1).await;
    bench.broker.publish(1..2000);
    bench.broker.publish([2000]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.broker.acknowledged(), 1);
    ack.delivered();
    assert_eq!(bench.deliver(2000).await, (1..=2000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn turned_off_it_gives_out_what_it_holds_and_takes_no_more() {
    let mut bench = Bench::new(SETTINGS).await;
    (0..10).for_each(|n| bench.broker.publish([n]));
    let ack = bench.read().await.1;
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 10).await;
    drop(ack);
    bench.settings.enabled = false;
    let mut bench = bench.crash().await;
    bench.broker.publish([10]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.broker.acknowledged(), 0);
    assert_eq!(bench.deliver(10).await, (0..=10).collect::<Vec<_>>());
    bench.broker.publish([11]);
    let open = bench.read().await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.broker.acknowledged(), 1);
    open.1.delivered();
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn damage_stops_the_lane_with_file_and_byte_while_the_spool_goes_on() {
    let mut bench = Bench::new(SETTINGS).await;
    (0..40).for_each(|n| bench.broker.publish(n * 50..(n + 1) * 50));
    let ack = bench.read().await.1;
    bench.until("all is acknowledged", |bench| bench.broker.acknowledged() == 40).await;
    let file = bench.folder().join(format!("{:020}.log", 0));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    ack.delivered();
    let error = bench.input.read().await.expect_err("the next block is damaged").to_string();
    assert!(error.contains(&format!("`{}` is damaged at byte", file.display())), "{error}");
    let again = bench.input.connect(&bench.context).await.unwrap_err().to_string();
    assert_eq!(again, error, "and it stays so");
    bench.broker.publish([2000]);
    bench.until("more is acknowledged", |bench| bench.broker.acknowledged() == 41).await;
    bytes[60_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    bench.input.connect(&bench.context).await.unwrap();
    assert_eq!(bench.deliver(2000).await, (50..=2000).collect::<Vec<_>>());
}

/// Outputs that stall, confirm late and out of order, crashes at any moment, a disk that is often full: every message is
/// delivered, and each for the first time in the order of its publication.
#[tokio::test(start_paused = true)]
async fn thousands_of_messages_through_stalls_and_crashes_in_order() {
    for seed in 0..16 {
        let mut random = StdRng::seed_from_u64(seed);
        let bytes_max = if random.random_bool(0.3) { 1 << 20 } else { 16 << 20 };
        let settings = Settings { bytes_max, ..SETTINGS };
        let mut bench = Bench::new(settings).await;
        let (mut published, mut seen, mut delivered) = (0, 0, BTreeSet::new());
        let mut open: Vec<(Vec<u64>, Ack)> = Vec::new();
        let mut crashes = 0;
        for _ in 0..300 {
            match random.random_range(0..100) {
                0..35 => {
                    let count = random.random_range(1..120);
                    bench.broker.publish(published..published + count);
                    published += count;
                }
                35..60 => {
                    if let Ok(read) = tokio::time::timeout(Duration::from_millis(1), bench.read()).await {
                        for number in &read.0 {
                            let skipped = (seen..*number).find(|skipped| !delivered.contains(skipped));
                            assert_eq!(skipped, None, "seed {seed}: {number} came before it");
                            seen = seen.max(number + 1);
                        }
                        open.push(read);
                    }
                }
                60..85 if !open.is_empty() => {
                    let at = if random.random_bool(0.8) { 0 } else { random.random_range(0..open.len()) };
                    let (numbers, ack) = open.remove(at);
                    delivered.extend(numbers);
                    ack.delivered();
                }
                85..97 => sleep(Duration::from_millis(random.random_range(0..1500))).await,
                97 => {
                    open.clear();
                    crashes += 1;
                    bench = bench.crash().await;
                }
                _ => {}
            }
        }
        bench.broker.publish([published]);
        open.into_iter().for_each(|(numbers, ack)| {
            delivered.extend(numbers);
            ack.delivered();
        });
        delivered.extend(bench.deliver(published).await);
        let missing = (0..=published).find(|number| !delivered.contains(number));
        assert_eq!(missing, None, "seed {seed}: lost, after {crashes} crashes");
        bench.until_empty().await;
    }
}
