//! Messages that keep coming while a test does something else.
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Case, kafka::Producer};

/// How often messages are sent, and their acknowledgements waited for.
const GOES_PER_SECOND: u32 = 10;

pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Publishes to MQTT about `per_second` messages, numbered from 0. Counts what the broker has acknowledged.
    pub fn mqtt(case: &Case, per_second: u32) -> Self {
        let mut publisher = case.publisher();
        let case = case.id.clone();
        Self::start(per_second, move |numbers| {
            let messages: Vec<_> = numbers.map(|seq| super::case::telemetry(&case, seq)).collect();
            publisher.publish(&messages);
        })
    }

    /// Writes to Kafka what mqtt-to-kafka would. Counts what the broker has confirmed.
    pub fn kafka(case: &Case, per_second: u32) -> Self {
        let mut producer = Producer::new(&case.stack.kafka);
        let (id, topic) = (case.id.clone(), case.kafka_topic().to_owned());
        Self::start(per_second, move |numbers| {
            for seq in numbers {
                let (key, value) = super::case::wrapped(&id, seq);
                producer.send(&topic, None, &key, Some(&value));
            }
            producer.flush();
        })
    }

    /// Calls `send` with ever higher ranges of numbers until it is stopped.
    pub fn start(per_second: u32, mut send: impl FnMut(Range<u32>) + Send + 'static) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (stop.clone(), sent.clone());
        let pace = Duration::from_secs(1) / GOES_PER_SECOND;
        let step = per_second.div_ceil(GOES_PER_SECOND);
        let thread = std::thread::spawn(move || {
            // By the clock, so that the time a go takes does not make them fewer.
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                send(first..first + step);
                count.store(first + step, Ordering::Relaxed);
                due += pace;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// How many messages are sent and acknowledged by now.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and answers how many messages were sent and acknowledged.
    pub fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load stops once");
        thread.join().expect("every message of the load was acknowledged");
        self.sent()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
