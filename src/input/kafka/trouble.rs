//! What Kafka's answers mean to whoever reads topics, and what to do.
use std::time::Duration;

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};
use tracing::{debug, warn};

use super::group::Group;

/// What is wrong with topics that cannot be read, if any is. Blocks for up to `timeout` for each.
///
/// # Errors
/// No broker answers.
pub fn missing_topics(
    consumer: &BaseConsumer<Group>,
    topics: &[String],
    timeout: Duration,
) -> KafkaResult<Vec<String>> {
    let mut missing = Vec::new();
    // A pattern may match nothing for as long as it likes.
    for topic in topics.iter().filter(|t| !t.starts_with('^')) {
        let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
        let error = metadata.topics().iter().find(|t| t.name() == topic).and_then(|t| t.error());
        match error.map(Code::from) {
            None | Some(Code::LeaderNotAvailable) => {}
            Some(Code::UnknownTopicOrPartition) => {
                missing.push(format!("topic `{topic}` does not exist; create it or wait"))
            }
            Some(Code::TopicAuthorizationFailed) => {
                missing.push(format!("topic `{topic}` may not be read; grant this user READ on it"));
            }
            Some(error) => missing.push(format!("topic `{topic}`: {error}")),
        }
    }
    Ok(missing)
}

/// Reports an error that the consumer may recover from. Answers true when topics should be looked for.
pub fn trouble(group: &Group, error: &KafkaError) -> bool {
    let fault = match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition) => return true,
        Some(Code::TopicAuthorizationFailed) => {
            "the topics may not be read; grant this user READ on them and on the group"
        }
        Some(Code::GroupAuthorizationFailed) => "the group may not be used; grant this user READ on it",
        Some(Code::InconsistentGroupProtocol) => {
            "other members of the group divide partitions in another way; stop them, or use another `group`"
        }
        Some(Code::InvalidSessionTimeout) => "the broker does not allow this `session_timeout_ms`",
        Some(Code::GroupMaxSizeReached) => "the group is full (`group.max.size` of the broker)",
        Some(Code::UnsupportedVersion | Code::UnsupportedAssignor) => {
            "the broker does not know this group protocol; set `protocol: classic`"
        }
        Some(Code::UnreleasedInstanceId) => "another member uses this `group_instance_id`; give each its own",
        Some(Code::PollExceeded) => {
            warn!(input = group.label, "left the group: not polled for `max.poll.interval.ms`; joining again");
            return false;
        }
        _ => {
            debug!(input = group.label, %error, "librdkafka reports trouble");
            return false;
        }
    };
    group.watch.fault("consumer", Some(format!("{fault} ({error})")));
    false
}

/// Why the consumer cannot go on.
pub fn fatal_reason(consumer: &BaseConsumer<Group>, code: Code) -> String {
    let (code, text) = consumer.client().fatal_error().unwrap_or((code, code.to_string()));
    match code {
        Code::FencedInstanceId => {
            format!(
                "another consumer has joined with the same `group_instance_id`; give each instance its own ({text})"
            )
        }
        _ => format!("the consumer failed for good: {text}"),
    }
}
