//! What became of a write, once every report is in.
use std::sync::Arc;

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::{alone::Alone, errors, plan::Address, reports::Failure};
use crate::output::{Parcel, Pending, Rejection, Retry, WriteError};

/// A write that was handed over, on the way to its answer.
pub struct Settlement {
    pub parcel: Parcel,
    pub rejected: Vec<Rejection>,
    /// Messages to write again, and the first reason.
    pub retry: Vec<u32>,
    pub reason: Option<String>,
    /// Messages not delivered, as far as that is known already; `answers` tells the rest.
    pub failures: Vec<Failure>,
    pub answers: Vec<oneshot::Receiver<Vec<Failure>>>,
    pub alone: Arc<Alone>,
    pub address: Arc<Address>,
    pub brokers: String,
}

impl Settlement {
    /// Notes a message to write again.
    pub fn postpone(&mut self, index: u32, code: RDKafkaErrorCode) {
        if self.reason.is_none() {
            self.reason = Some(errors::retry_reason(code, &self.topic(index), &self.brokers));
        }
        self.retry.push(index);
    }

    /// Waits for the reports.
    pub async fn settle(mut self) -> Result<(), WriteError> {
        for answer in std::mem::take(&mut self.answers) {
            let Ok(failures) = answer.await else {
                return Err(WriteError::retry(format!(
                    "the Kafka producer for `{}` was closed meanwhile",
                    self.brokers
                )));
            };
            self.failures.extend(failures);
        }
        let (suspects, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.failures).into_iter().partition(|f| errors::is_about_messages(f.code));
        for failure in others {
            self.postpone(failure.index, failure.code);
        }
        if let [first, ..] = suspects.as_slice() {
            tracing::warn!(
                messages = suspects.len(),
                topic = self.topic(first.index),
                error = %first.code,
                "kafka refused a set of messages, sending each alone; a smaller `message_bytes_max` avoids this when it is about size"
            );
            let mut suspects = suspects;
            suspects.sort_unstable_by_key(|f| f.index);
            match self.alone.send(&self.parcel, &suspects).await {
                Ok(failures) => failures.iter().for_each(|f| self.judge(f)),
                Err(reason) => {
                    self.retry.extend(suspects.iter().map(|f| f.index));
                    self.reason.get_or_insert(reason);
                }
            }
        }
        self.finish()
    }

    /// A message that came alone and was refused.
    fn judge(&mut self, failure: &Failure) {
        if errors::is_about_messages(failure.code) && failure.code != RDKafkaErrorCode::InvalidDifferentRecord {
            let topic = self.topic(failure.index);
            let bytes = self.parcel.get(failure.index as usize).payload().len();
            self.rejected.push(errors::rejection(failure, &topic, bytes));
        } else {
            self.postpone(failure.index, failure.code);
        }
    }

    fn topic(&self, index: u32) -> String {
        let mut topic = Vec::new();
        self.address.topic.write(self.parcel.get(index as usize), &mut topic);
        String::from_utf8_lossy(&topic).into_owned()
    }

    fn finish(mut self) -> Result<(), WriteError> {
        self.rejected.sort_unstable_by_key(|r| r.index);
        self.retry.sort_unstable();
        let retry = (!self.retry.is_empty()).then(|| Retry {
            reason: self.reason.unwrap_or_else(|| format!("Kafka at `{}` did not take all messages", self.brokers)),
            messages: if self.retry.len() + self.rejected.len() == self.parcel.len() {
                Pending::All
            } else {
                Pending::Only(self.retry)
            },
        });
        WriteError { rejected: self.rejected, retry, divide: None }.into_result()
    }
}
