//! What an error code of Kafka means for a write: the message's own fault, or the outside world.
use rdkafka::types::RDKafkaErrorCode as Code;

use super::reports::Failure;
use crate::output::Rejection;

/// Stands for a message that librdkafka takes for written although no broker has confirmed it.
pub const NOT_CONFIRMED: Code = Code::Inconsistent;

/// True for codes that speak of a message. Brokers judge the whole set a message travels in, so these condemn a message
/// only when it was sent alone.
pub fn is_about_messages(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
    )
}

/// True for codes after which partitions are looked up again.
pub fn is_about_topics(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::UnknownTopicId
            | Code::TopicAuthorizationFailed
    )
}

/// The dead letter of a message that Kafka refused although it came alone.
pub fn rejection(failure: &Failure, topic: &str, bytes: usize) -> Rejection {
    let (code, reason) = match failure.code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => (
            "message-too-large",
            format!("topic `{topic}` does not take a message of {bytes} bytes: its `max.message.bytes` is smaller"),
        ),
        Code::InvalidTimestamp => (
            "invalid-timestamp",
            format!("topic `{topic}` refuses the message's timestamp: too far from the broker's clock"),
        ),
        _ => (
            "invalid-message",
            format!(
                "topic `{topic}` refuses the message: {}; a compacted topic needs a key, other brokers may validate more",
                failure.code
            ),
        ),
    };
    Rejection { index: failure.index, code: code.into(), reason }
}

/// Why messages for `topic` must be sent again, and what to do.
pub fn retry_reason(code: Code, topic: &str, brokers: &str) -> String {
    let advice = match code {
        NOT_CONFIRMED => {
            return format!(
                "Kafka at `{brokers}` refused messages for topic `{topic}` for a moment and took later ones; \
                 they are written again, after those"
            );
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId => {
            return missing_topic(topic, brokers);
        }
        Code::UnknownPartition => "its partitions have changed; they are looked up again",
        Code::TopicAuthorizationFailed => "grant this user WRITE on the topic",
        Code::ClusterAuthorizationFailed => "grant this user IDEMPOTENT_WRITE on the cluster",
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend | Code::ISRInsufficient => {
            "fewer replicas are in sync than the topic's `min.insync.replicas` asks for; bring the brokers back"
        }
        Code::UnsupportedForMessageFormat | Code::UnsupportedVersion => {
            "the broker is older than Kafka 0.11, or the topic keeps an old message format"
        }
        Code::PurgeQueue | Code::PurgeInflight | Code::Fatal => "the producer is made anew",
        _ => "check the brokers",
    };
    format!("Kafka at `{brokers}` did not take messages for topic `{topic}`: {code}; {advice}")
}

/// Why nothing can be written to a topic that is not there.
pub fn missing_topic(topic: &str, brokers: &str) -> String {
    let first = brokers.split(',').next().unwrap_or(brokers);
    format!(
        "topic `{topic}` does not exist on Kafka at `{brokers}`, and the brokers do not create topics by themselves; \
         create it: `kafka-topics.sh --bootstrap-server {first} --create --topic {topic}`"
    )
}

/// What is wrong with a topic's name, if anything is. The rules are the broker's.
pub fn topic_fault(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("it is empty"),
        b"." | b".." => Some("`.` and `..` are reserved"),
        _ if name.len() > 249 => Some("it is longer than 249 characters"),
        _ if !name.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)) => {
            Some("only letters, digits, `.`, `_` and `-` are allowed")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_the_brokers_rules() {
        for (name, good) in [
            ("telemetry.v1_a-b", true),
            ("", false),
            ("..", false),
            ("devices/a", false),
            ("münchen", false),
            (&"x".repeat(249), true),
            (&"x".repeat(250), false),
        ] {
            assert_eq!(topic_fault(name.as_bytes()).is_none(), good, "{name}");
        }
    }

    #[test]
    fn configuration_and_outages_are_never_the_messages_fault() {
        for code in [
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::NotEnoughReplicas,
            Code::LeaderNotAvailable,
            Code::MessageTimedOut,
            Code::Fatal,
            Code::PolicyViolation,
            Code::UnsupportedForMessageFormat,
            Code::Unknown,
        ] {
            assert!(!is_about_messages(code), "{code}");
            assert!(retry_reason(code, "t", "a:1").contains("`t`"), "{code}");
        }
    }
}
