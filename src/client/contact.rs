//! Where a component meets the outside world, as far as its settings tell: what lint needs to see loops and clashes
//! between components that know nothing of each other.
use std::time::Duration;

use super::mqtt::topic::Filter;
use crate::script::Template;

/// What the settings of an input or output tell of its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Scheme, host and port; several of them sorted. The same text is the same server.
    pub server: String,
    /// What is read there or written to, each with the setting that names it.
    pub topics: Vec<(String, Topic)>,
    /// The name under which the server allows one connection at a time.
    pub client_id: Option<String>,
    /// Those of one group share what they read: each message comes to one of them.
    pub group: Option<String>,
    /// Most messages that wait for their acknowledgement, and the setting that says so; none where that is a matter of
    /// memory only.
    pub window: Option<(u32, &'static str)>,
    /// The setting for which messages that are on their way at a crash are lost.
    pub forgets: Option<&'static str>,
    /// Longest time an output waits for company before it writes.
    pub linger: Duration,
}

/// A topic, as far as settings name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    Name(String),
    /// What an MQTT broker compares topics with.
    Filter(Filter),
    /// A regular expression over the topics of Kafka.
    Pattern(String),
    /// Made for each message; values are `VALUE`.
    Made(String),
    /// The one that the message was received with.
    Received,
}

/// Stands for a value of the message in `Topic::Made`.
const VALUE: char = '\u{fffc}';

impl Topic {
    /// What a template makes.
    pub fn of(template: &Template) -> Self {
        match template.constant() {
            Some(name) => Self::Name(name.to_owned()),
            None if template.is_received_topic() => Self::Received,
            None => Self::Made(template.shape(VALUE)),
        }
    }

    /// True when what is written to `written` is surely read by this one. What a message decides is taken for one level
    /// of the topic.
    pub fn reads(&self, written: &Self) -> bool {
        match (self, written) {
            (_, Self::Received) => true,
            (Self::Name(own), Self::Name(name)) => own == name,
            (Self::Filter(filter), Self::Name(name) | Self::Made(name)) => filter.matches(name),
            (Self::Pattern(pattern), Self::Name(name)) => {
                regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name))
            }
            _ => false,
        }
    }

    /// True when some topic comes through both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Filter(one), Self::Filter(two)) => one.overlaps(two),
            (Self::Name(one), Self::Name(two)) | (Self::Pattern(one), Self::Pattern(two)) => one == two,
            (Self::Pattern(_), Self::Name(_)) => self.reads(other),
            (Self::Name(_), Self::Pattern(_)) => other.reads(self),
            _ => false,
        }
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Pattern(text) | Self::Made(text) => text,
            Self::Filter(filter) => &filter.wire,
            Self::Received => "{meta.topic}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Topic {
        Topic::Filter(Filter::parse(text).unwrap())
    }

    #[test]
    fn a_topic_is_read_where_it_is_written() {
        let name = |text: &str| Topic::Name(text.into());
        assert!(filter("devices/+/state").reads(&name("devices/a/state")));
        assert!(filter("devices/#").reads(&Topic::Made(format!("devices/{VALUE}/state"))));
        assert!(!filter("devices/a/state").reads(&Topic::Made(format!("devices/{VALUE}/state"))), "not surely");
        assert!(name("a").reads(&Topic::Received));
        assert!(Topic::Pattern("^tele".into()).reads(&name("telemetry")));
        assert!(!name("telemetry").reads(&name("telemetry.dead-letter")));
    }

    #[test]
    fn filters_overlap_where_one_topic_fits_both() {
        for (one, two, expected) in [
            ("devices/#", "devices/+/telemetry", true),
            ("devices/+/telemetry", "devices/a/+", true),
            ("devices/+/telemetry", "devices/+/state", false),
            ("#", "$SYS/#", false),
            ("a/#", "a", true),
            ("a/b", "a/b/c", false),
            ("+/+", "a/#", true),
            ("$share/g/a/+", "a/b", true),
        ] {
            assert_eq!(filter(one).overlaps(&filter(two)), expected, "{one} {two}");
            assert_eq!(filter(two).overlaps(&filter(one)), expected, "{two} {one}");
        }
    }
}
