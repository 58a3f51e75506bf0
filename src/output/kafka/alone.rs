//! Sends messages one by one: those with headers, and those that must travel in a set of their own.
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord},
    types::RDKafkaErrorCode,
};

use super::{
    WRITES_MAX,
    plan::Address,
    producer::{Producer, Reports},
    received,
    reports::Failure,
};
use crate::{client::kafka::Watch, message::MessageRef, output::Parcel};

/// What goes along with a message besides key and payload.
#[derive(Clone, Debug)]
pub struct Shape {
    pub headers: bool,
    pub timestamps: bool,
    /// The pipeline whose archive this is: all metadata goes along, as headers.
    pub archive: Option<Arc<str>>,
}

impl Shape {
    /// True when messages of `parcel` must be sent one by one: librdkafka takes only bare ones together.
    pub fn is_more(&self, parcel: &Parcel) -> bool {
        let has_headers = || parcel.parts().iter().any(|batch| batch.has_headers());
        self.archive.is_some() || self.timestamps || (self.headers && has_headers())
    }

    /// Puts one message into a producer's queue.
    pub fn send(
        &self,
        producer: &BaseProducer<Reports>,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        message: MessageRef<'_>,
        opaque: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(topic, opaque).partition(partition).payload(message.payload());
        record.key = key;
        if self.timestamps {
            record.timestamp = message.origin().timestamp_ms;
        }
        let headers = message.headers();
        let count = if self.headers { headers.clone().count() } else { 0 };
        let first = self.archive.as_ref().map(|pipeline| received::headers(pipeline, message, count));
        if count > 0 || first.is_some() {
            let first = first.unwrap_or_else(|| OwnedHeaders::new_with_capacity(count));
            record.headers =
                Some(headers.fold(first, |all, (name, value)| all.insert(Header { key: name, value: Some(value) })));
        }
        producer.send(record).map_err(|(error, _)| code_of(&error))
    }
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument)
}

/// A second producer that puts every message into a set of its own (`batch.num.messages=1`), made when first needed.
pub struct Alone {
    client: ClientConfig,
    watch: Arc<Watch>,
    address: Arc<Address>,
    shape: Shape,
    producer: Mutex<Option<Producer>>,
}

/// Messages sent alone and not yet confirmed.
const ALONE_MAX: usize = 1000;

impl Alone {
    /// Starts nothing yet.
    pub fn new(client: &ClientConfig, watch: Arc<Watch>, address: Arc<Address>, shape: Shape) -> Self {
        let mut client = client.clone();
        client.set("batch.num.messages", "1").set("linger.ms", "0");
        Self { client, watch, address, shape, producer: Mutex::new(None) }
    }

    /// Sends the messages that `suspects` name again, each by itself, to the partitions they were meant for. Answers
    /// those that were refused once more.
    ///
    /// # Errors
    /// Why nothing could be sent.
    pub async fn send(&self, parcel: &Parcel, suspects: &[Failure]) -> Result<Vec<Failure>, String> {
        let board = {
            let mut producer = self.producer.lock();
            if producer.as_ref().is_none_or(|p| p.fatal().is_some()) {
                let fresh = Producer::start(&self.client, self.watch.clone(), WRITES_MAX);
                *producer = Some(fresh.map_err(|error| format!("cannot make a Kafka producer: {error}"))?);
            }
            producer.as_ref().map(|p| p.reports().board.clone()).ok_or("the output is closed")?
        };
        let mut failures = Vec::new();
        for part in suspects.chunks(ALONE_MAX) {
            let (ticket, answer) = board.claim(part.len(), ALONE_MAX).await;
            {
                let producer = self.producer.lock();
                let Some(producer) = producer.as_ref() else { return Err("the output is closed".into()) };
                let (mut topic, mut key) = (Vec::new(), Vec::new());
                for suspect in part {
                    let message = parcel.get(suspect.index as usize);
                    topic.clear();
                    key.clear();
                    self.address.topic.write(message, &mut topic);
                    let key = match &self.address.key {
                        Some(template) => template.write(message, &mut key).then_some(&key[..]),
                        None => message.key(),
                    };
                    // It was a name before, or the message would not be here.
                    let topic = String::from_utf8_lossy(&topic);
                    ticket.expect(1);
                    let opaque = ticket.opaque(suspect.index);
                    let sent = self.shape.send(producer.base(), &topic, suspect.partition, key, message, opaque);
                    if let Err(code) = sent {
                        ticket.not_taken(1);
                        failures.push(Failure { code, ..*suspect });
                    }
                }
            }
            drop(ticket);
            failures.extend(answer.await.map_err(|_| "the output was closed meanwhile")?);
        }
        Ok(failures)
    }

    /// Waits until nothing is open.
    pub async fn idle(&self) {
        let board = self.producer.lock().as_ref().map(|p| p.reports().board.clone());
        if let Some(board) = board {
            board.idle().await;
        }
    }

    /// Ends the producer. Blocks for up to a second.
    pub fn stop(&self) {
        let producer = self.producer.lock().take();
        if let Some(producer) = producer {
            producer.stop();
        }
    }
}
