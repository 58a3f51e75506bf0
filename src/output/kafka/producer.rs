//! One librdkafka producer and the thread that takes its reports.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, KafkaResult},
    message::{DeliveryResult, Message},
    producer::{BaseProducer, Producer as _, ProducerContext},
    types::RDKafkaErrorCode,
};

use super::{errors, reports::Board};
use crate::client::kafka::{Memory, Watch, log};

/// The offset of a message that no broker gave one (`RD_KAFKA_OFFSET_INVALID`).
const OFFSET_INVALID: i64 = -1001;

/// Where librdkafka reports to. Called on the producer's thread.
pub struct Reports {
    pub board: Arc<Board>,
    watch: Arc<Watch>,
    memory: Memory,
    /// Counts reports that say a topic is not what it was.
    pub topics_changed: AtomicU32,
    fatal: Mutex<Option<String>>,
}

impl Reports {
    /// Why the brokers do not answer, as far as librdkafka has said.
    pub fn reason(&self, fallback: &str) -> String {
        self.watch.reason(fallback)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(seen) = self.watch.statistics(statistics) {
            self.memory.note(seen.brokers);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            *self.fatal.lock() = Some(reason.to_owned());
        }
        self.watch.error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(message) => {
                self.watch.up();
                // Without an offset the broker has not confirmed it. librdkafka concluded that it must be written, because
                // the broker refused it for a moment and took a later batch. That holds only for a broker that knows the
                // producer already: one that does not takes any batch as the first.
                if message.offset() == OFFSET_INVALID {
                    self.board.failed(opaque, errors::NOT_CONFIRMED, message.partition());
                } else {
                    self.board.delivered(opaque);
                }
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                if errors::is_about_topics(code) {
                    self.topics_changed.fetch_add(1, Ordering::AcqRel);
                }
                self.board.failed(opaque, code, message.partition());
            }
        }
    }
}

/// A producer. Dropping it gives up on what is still queued; `Board::idle` of its reports tells when nothing is.
pub struct Producer {
    base: Arc<BaseProducer<Reports>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// Makes the producer and starts its thread; connects in the background. `writes` may be open at a time.
    ///
    /// # Errors
    /// librdkafka refuses the settings, for example a certificate it cannot read.
    pub fn start(config: &ClientConfig, watch: Arc<Watch>, writes: u32) -> KafkaResult<Self> {
        let reports = Reports {
            board: Arc::new(Board::new(writes)),
            watch,
            memory: Memory::default(),
            topics_changed: AtomicU32::new(0),
            fatal: Mutex::new(None),
        };
        let base: Arc<BaseProducer<Reports>> = Arc::new(config.create_with_context(reports)?);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("kafka-output".into())
            .spawn({
                let (base, stop) = (base.clone(), stop.clone());
                move || {
                    while !stop.load(Ordering::Acquire) {
                        // Returns after the whole time, and handles reports as they come.
                        base.poll(Duration::from_millis(100));
                        let Reports { memory, watch, .. } = &**base.context();
                        memory.remind(base.client(), watch.brokers());
                    }
                }
            })
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start a thread: {error}")))?;
        Ok(Self { base, stop, thread: Some(thread) })
    }

    /// The crate's producer, for what is not in the fast path.
    pub fn base(&self) -> &Arc<BaseProducer<Reports>> {
        &self.base
    }

    /// Where its reports go.
    pub fn reports(&self) -> &Reports {
        self.base.context()
    }

    /// Why this producer can never send again, if that is so.
    pub fn fatal(&self) -> Option<String> {
        let reports = self.reports();
        let fatal = reports.fatal.lock().clone();
        fatal.or_else(|| self.base.client().fatal_error().map(|(_, reason)| reason))
    }

    /// Ends the thread and the client. What is still queued fails with `PurgeQueue` or `PurgeInflight`. Blocks for up
    /// to a second.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread only dies of a panic in a callback, which the panic hook has reported.
            let _ = thread.join();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
