//! Tells a client its brokers again when it has forgotten all of them.
//!
//! Since librdkafka 2.10 a broker that a metadata answer does not list is dropped, the configured ones included. A broker
//! that its own controller has fenced, because it was frozen or slow for `broker.session.timeout.ms`, answers with the
//! topics but without any broker, and the client then knows nobody whom it could ask. It means to start again from the
//! configured brokers, but the answer that made it forget them may cancel that for good, when the thread of the last
//! broker ends before the answer is dealt with (<https://github.com/confluentinc/librdkafka/issues/5301>). The client
//! then stays without brokers for ever, although Kafka is well.
use std::{
    ffi::CString,
    sync::atomic::{AtomicBool, Ordering},
};

use rdkafka::{ClientContext, client::Client};
use tracing::{debug, warn};

/// What one client's statistics last said of its brokers. Every client needs its own.
#[derive(Debug, Default)]
pub struct Memory {
    lost: AtomicBool,
}

impl Memory {
    /// Notes how many brokers the client's statistics listed. From any thread.
    pub fn note(&self, brokers: usize) {
        self.lost.store(brokers == 0, Ordering::Release);
    }

    /// Gives the client `brokers` again if its last statistics listed none. One load otherwise, so that a loop may call
    /// it at every turn. From any thread.
    pub fn remind<C: ClientContext>(&self, client: &Client<C>, brokers: &str) {
        if self.lost.load(Ordering::Relaxed) && self.lost.swap(false, Ordering::AcqRel) {
            warn!(brokers, "the Kafka client had dropped all its brokers, giving them to it again");
            give(client, brokers);
        }
    }
}

/// Gives the client `brokers` again, whatever it knows. For who waits so long for an answer that no statistics arrive
/// either; those it has already change nothing. From any thread.
pub fn give<C: ClientContext>(client: &Client<C>, brokers: &str) {
    let Ok(list) = CString::new(brokers) else { return };
    // SAFETY: the borrow of `client` keeps the native client alive during the call, which takes its own locks and copies
    // the text.
    let given = unsafe { rdkafka_sys::rd_kafka_brokers_add(client.native_ptr(), list.as_ptr()) };
    debug!(brokers, given, "gave the Kafka client its brokers");
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::Arc,
        time::{Duration, Instant},
    };

    use rdkafka::{
        ClientConfig,
        producer::{BaseProducer, Producer as _},
    };

    use super::*;
    use crate::{client::kafka::Watch, metrics::HealthBoard};

    const API_VERSIONS: i16 = 18;
    const METADATA: i16 = 3;

    /// Answers what a client asks before anything else, with itself as the only broker, or with none when `fenced`.
    struct Broker {
        port: u16,
        fenced: Arc<AtomicBool>,
    }

    impl Broker {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let fenced = Arc::new(AtomicBool::new(false));
            std::thread::spawn({
                let fenced = fenced.clone();
                move || {
                    for client in listener.incoming().flatten() {
                        let fenced = fenced.clone();
                        std::thread::spawn(move || serve(client, port, &fenced));
                    }
                }
            });
            Self { port, fenced }
        }
    }

    /// Until the client hangs up. Requests and answers as in Kafka's protocol guide.
    fn serve(mut client: TcpStream, port: u16, fenced: &AtomicBool) -> Option<()> {
        loop {
            let mut size = [0; 4];
            client.read_exact(&mut size).ok()?;
            let mut request = vec![0; i32::from_be_bytes(size) as usize];
            client.read_exact(&mut request).ok()?;
            let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            let mut answer = request[4..8].to_vec();
            match (number(0), number(2)) {
                (API_VERSIONS, version) => {
                    let unsupported: i16 = if version == 0 { 0 } else { 35 };
                    answer.extend(unsupported.to_be_bytes());
                    answer.extend(2i32.to_be_bytes());
                    for [key, least, most] in [[METADATA, 0, 0], [API_VERSIONS, 0, 0]] {
                        [key, least, most].iter().for_each(|part| answer.extend(part.to_be_bytes()));
                    }
                }
                (METADATA, 0) => {
                    if fenced.load(Ordering::Acquire) {
                        answer.extend(0i32.to_be_bytes());
                    } else {
                        answer.extend(1i32.to_be_bytes());
                        answer.extend(1i32.to_be_bytes());
                        answer.extend(9i16.to_be_bytes());
                        answer.extend(b"127.0.0.1");
                        answer.extend(i32::from(port).to_be_bytes());
                    }
                    // One topic of eight partitions without leaders: librdkafka finds shorter answers too short.
                    answer.extend(1i32.to_be_bytes());
                    answer.extend(5i16.to_be_bytes());
                    answer.extend(1i16.to_be_bytes());
                    answer.extend(b"t");
                    answer.extend(8i32.to_be_bytes());
                    for partition in 0..8i32 {
                        answer.extend(5i16.to_be_bytes());
                        for number in [partition, -1, 1, 1, 1, 1] {
                            answer.extend(number.to_be_bytes());
                        }
                    }
                }
                other => panic!("asked for {other:?}"),
            }
            client.write_all(&(answer.len() as i32).to_be_bytes()).ok()?;
            client.write_all(&answer).ok()?;
        }
    }

    #[derive(Default)]
    struct Context {
        memory: Memory,
    }

    impl ClientContext for Context {
        fn stats_raw(&self, statistics: &[u8]) {
            let watch = Watch::new(String::new(), HealthBoard::default().add("x", Default::default()));
            if let Some(seen) = watch.statistics(statistics) {
                self.memory.note(seen.brokers);
            }
        }
    }

    impl rdkafka::producer::ProducerContext for Context {
        type DeliveryOpaque = ();
        fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
    }

    #[test]
    fn a_client_that_was_told_of_no_broker_is_given_its_brokers_again() {
        let broker = Broker::start();
        let brokers = format!("127.0.0.1:{}", broker.port);
        let producer: BaseProducer<Context> = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("statistics.interval.ms", "100")
            // What the race comes to: the client does not start again by itself.
            .set("metadata.recovery.strategy", "none")
            .create_with_context(Context::default())
            .expect("settings");
        let client = producer.client();
        let ask = |time| client.fetch_metadata(Some("t"), time).map(|found| found.brokers().len());
        assert_eq!(ask(Duration::from_secs(30)), Ok(1));
        broker.fenced.store(true, Ordering::Release);
        // Whoever asked is told too, unless the broker's thread is gone before.
        assert!(matches!(ask(Duration::from_secs(5)), Ok(0) | Err(_)));
        broker.fenced.store(false, Ordering::Release);
        assert!(ask(Duration::from_secs(2)).is_err(), "it has forgotten where to ask");
        let started = Instant::now();
        while ask(Duration::from_secs(1)) != Ok(1) {
            assert!(started.elapsed() < Duration::from_secs(60), "the client is still lost");
            producer.poll(Duration::from_millis(100));
            producer.context().memory.remind(client, &brokers);
        }
        assert_eq!(ask(Duration::from_secs(30)), Ok(1), "and it stays found");
    }
}
