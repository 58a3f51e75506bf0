//! The reading loop, on a thread of its own.
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use tracing::{debug, error, warn};

use super::{
    group::{Books, Group, places},
    reading::Reading,
    trouble::{fatal_reason, missing_topics, trouble},
};

/// How long a full mailbox is waited for before the partitions are paused. Pausing throws away what librdkafka has
/// fetched ahead, so it is for real stalls, not for the ordinary give and take.
const STALL: Duration = Duration::from_secs(1);
/// How often topics that are not there are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How often the positions in a topic that was made again are committed before that is given up, and how long a refused
/// commit rests.
const ATTEMPTS: usize = 20;
const REST: Duration = Duration::from_millis(250);

/// Reads until it is told to stop or cannot go on. Runs on a thread of its own and ends with it.
pub fn run(consumer: BaseConsumer<Group>, topics: &[String], reading: &mut dyn Reading, mut some_missing: bool) {
    let group = consumer.context().clone();
    let mailbox = &group.mailbox;
    let mut full_since: Option<Instant> = None;
    let mut paused = false;
    let mut looked = Instant::now();
    while mailbox.stop_by().is_none() && !mailbox.has_failed() {
        group.absorb(&consumer);
        group.memory.remind(consumer.client(), group.watch.brokers());
        reading.offer(&group, &consumer);
        if some_missing && looked.elapsed() >= LOOK_AGAIN {
            looked = Instant::now();
            if let Ok(missing) = missing_topics(&consumer, topics, Duration::from_secs(2)) {
                some_missing = !missing.is_empty();
                group.watch.fault("topics", some_missing.then(|| missing.join("; ")));
            }
        }
        if reading.is_full() {
            let stalled = full_since.get_or_insert_with(Instant::now).elapsed();
            if stalled < STALL {
                mailbox.wait(STALL - stalled, reading.wants_room());
                continue;
            }
            // Keeps the membership alive without taking messages. Also pauses what a rebalance has brought meanwhile.
            pause(&consumer, &group.label);
            paused = true;
            mailbox.wait(Duration::from_millis(100), reading.wants_room());
        } else {
            full_since = None;
            if paused {
                resume(&consumer, &group.label);
                paused = false;
            }
        }
        let mut wait = if paused { Duration::ZERO } else { reading.patience() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let mut first = true;
        loop {
            let polled = consumer.poll(wait);
            // Before any message of such a topic is looked at.
            if start_over(&group, &consumer) {
                break;
            }
            match polled {
                Some(Ok(message)) => {
                    if let Err(reason) = reading.push(&group, &message, now) {
                        mailbox.fail(reason);
                        break;
                    }
                    if std::mem::take(&mut first) {
                        group.watch.up();
                        group.watch.fault("consumer", None);
                    }
                }
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    mailbox.fail(fatal_reason(&consumer, code));
                    break;
                }
                Some(Err(error)) => some_missing |= trouble(&group, &error),
                None => {
                    // A rebalance happens inside `poll`, which answers with nothing right after it.
                    let gone = std::mem::take(&mut *group.gone.lock());
                    if !gone.is_empty() {
                        reading.forget(gone);
                    }
                    break;
                }
            }
            if reading.is_ready() {
                break;
            }
            wait = Duration::ZERO;
        }
    }
    group.absorb(&consumer);
    group.commit(&consumer);
    group.watch.disarm();
    // Leaves the group, unless it is a static member.
    drop(consumer);
}

fn pause(consumer: &BaseConsumer<Group>, label: &str) {
    if let Err(error) = consumer.assignment().and_then(|all| consumer.pause(&all)) {
        debug!(input = label, %error, "partitions not paused");
    }
}

fn resume(consumer: &BaseConsumer<Group>, label: &str) {
    if let Err(error) = consumer.assignment().and_then(|all| consumer.resume(&all)) {
        warn!(input = label, %error, "partitions not resumed");
    }
}

/// Starts over with topics that were made again. True when there were some; then the input connects anew, and messages
/// that were polled meanwhile are read again.
fn start_over(group: &Group, consumer: &BaseConsumer<Group>) -> bool {
    let topics = group.renewed.take();
    if topics.is_empty() {
        return false;
    }
    let ours = consumer.assignment().map(|all| places(&all)).unwrap_or_default();
    let ours: Vec<_> = ours.into_iter().filter(|(topic, _)| topics.contains(topic)).collect();
    if ours.is_empty() {
        return false;
    }
    match &mut *group.books() {
        Books::Positions(assignment) => ours.iter().for_each(|(topic, p)| assignment.revoke(topic, *p)),
        Books::Plans(ledger) => ours.iter().for_each(|place| ledger.revoke(place)),
    }
    let mut beginning = TopicPartitionList::new();
    for (topic, partition) in &ours {
        if let Err(error) = beginning.add_partition_offset(topic, *partition, Offset::Offset(0)) {
            debug!(topic, partition, %error, "cannot note a position");
        }
    }
    if matches!(&*group.books(), Books::Positions(_))
        && let Err(error) = consumer.store_offsets(&beginning)
    {
        debug!(input = group.label, %error, "positions not stored");
    }
    // Kafka dropped the group's positions along with the topic; what was committed since belongs to the old one.
    let mut result = group.commit_patiently(consumer, Some(&beginning));
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(REST);
        result = group.commit_patiently(consumer, Some(&beginning));
    }
    let topics = topics.join("`, `");
    if let Err(error) = result {
        error!(
            input = group.label, %error,
            "topic `{topics}` was deleted and made again, and Kafka does not take the group's new positions: its first \
             messages may be passed over; set the group's offsets to the beginning"
        );
    }
    group.mailbox.fail(format!("topic `{topics}` was deleted and made again; reading it from its beginning"));
    true
}
