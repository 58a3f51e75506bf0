//! The thread that owns the consumer. Everything that touches the group happens on it: polling, the callbacks of a
//! rebalance, storing positions, commits. So a commit can never run beside a rebalance; an output that wants to write
//! more than positions into a commit finds its place here.
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};
use tracing::{debug, info, warn};

use super::{
    assignment::{Assignment, Place},
    draft::Draft,
    mailbox::Mailbox,
};
use crate::{
    ack::Outcome,
    client::kafka::{Watch, log},
    metrics::ComponentMetrics,
};

/// How long a full mailbox is waited for before the partitions are paused. Pausing throws away what librdkafka has
/// fetched ahead, so it is for real stalls, not for the ordinary give and take.
const STALL: Duration = Duration::from_secs(1);
/// How long a rebalance waits for batches of the partitions that go, so that the next owner need not repeat them.
const REVOKE_TIME: Duration = Duration::from_secs(5);
/// How often topics that are not there are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub messages_max: usize,
    pub bytes_max: usize,
}

/// What the callbacks work with. They run inside `poll`, on the consumer's thread, so the lock is never contended.
pub struct Group {
    pub watch: Arc<Watch>,
    pub mailbox: Arc<Mailbox>,
    pub metrics: ComponentMetrics,
    pub label: String,
    assignment: Mutex<Assignment>,
    /// Partitions taken away since the reading loop looked last.
    gone: Mutex<Vec<Place>>,
}

impl Group {
    /// No partitions yet.
    pub fn new(watch: Arc<Watch>, mailbox: Arc<Mailbox>, metrics: ComponentMetrics, label: String) -> Self {
        Self { watch, mailbox, metrics, label, assignment: Mutex::default(), gone: Mutex::default() }
    }

    /// Takes the answers in and stores the positions that moved.
    fn absorb(&self, consumer: &BaseConsumer<Self>) {
        let answers = self.mailbox.answers();
        if answers.is_empty() {
            return;
        }
        let mut assignment = self.assignment.lock();
        for (token, outcome) in answers {
            if outcome == Outcome::Undelivered {
                // Its positions stay open for good, so nothing behind it could ever be committed.
                self.mailbox.fail("a batch was not delivered; reading again from the last committed positions".into());
            }
            assignment.settle(token, outcome);
        }
        let mut positions = TopicPartitionList::new();
        for (topic, partition, position) in assignment.take_positions() {
            if let Err(error) = positions.add_partition_offset(topic, partition, Offset::Offset(position)) {
                debug!(topic, partition, position, %error, "cannot note a position");
            }
        }
        if positions.count() > 0
            && let Err(error) = consumer.store_offsets(&positions)
        {
            // `State` for a partition that was taken away meanwhile: its next owner reads these messages again.
            debug!(input = self.label, %error, "positions not stored");
        }
    }

    /// Commits what is stored and waits for the answer.
    fn commit(&self, consumer: &BaseConsumer<Self>) {
        if self.watch.is_down() {
            // It would wait for a broker for as long as a session lasts.
            return;
        }
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => {
                warn!(input = self.label, %error, "the last positions are not committed, some messages will come again")
            }
        }
    }

    /// Partitions are about to go: waits for their batches, then stores and commits.
    fn release(&self, consumer: &BaseConsumer<Self>, places: &[Place]) {
        let goes = |topic: &str, partition: i32| places.iter().any(|(t, p)| t == topic && *p == partition);
        let waiting = self.mailbox.withdraw(|m| !goes(m.topic(), m.origin().partition));
        {
            let mut assignment = self.assignment.lock();
            for token in waiting {
                assignment.withdraw(token, places);
            }
        }
        if !consumer.assignment_lost() {
            let mut deadline = Instant::now() + REVOKE_TIME;
            loop {
                self.absorb(consumer);
                if let Some(stop_by) = self.mailbox.stop_by() {
                    // The pipeline has waited for its batches already.
                    deadline = deadline.min(stop_by).min(Instant::now());
                }
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !self.assignment.lock().is_open(places) {
                    break;
                }
                self.mailbox.wait(left, false);
            }
            self.commit(consumer);
        }
        let mut assignment = self.assignment.lock();
        places.iter().for_each(|(topic, partition)| assignment.revoke(topic, *partition));
        self.gone.lock().extend_from_slice(places);
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(lag) = self.watch.statistics(statistics) {
            self.metrics.lag.set(lag);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(&error, reason);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let mut assignment = self.assignment.lock();
                for (topic, partition) in places(partitions) {
                    assignment.assign(&topic, partition);
                }
            }
            Rebalance::Revoke(partitions) => self.release(consumer, &places(partitions)),
            Rebalance::Error(_) => {}
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                info!(input = self.label, partitions = partitions.count(), "partitions assigned");
                self.watch.up();
                self.watch.fault("consumer", None);
            }
            Rebalance::Revoke(partitions) => {
                info!(input = self.label, partitions = partitions.count(), "partitions revoked");
            }
            Rebalance::Error(error) => warn!(input = self.label, %error, "rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _positions: &TopicPartitionList) {
        let fault = match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => None,
            // Part of every rebalance; the positions are committed by the next owner.
            Err(KafkaError::ConsumerCommit(
                Code::RebalanceInProgress | Code::IllegalGeneration | Code::UnknownMemberId | Code::StaleMemberEpoch,
            )) => return,
            Err(error) => Some(format!(
                "Kafka does not take the group's positions: {error}; after a restart messages would come again"
            )),
        };
        self.watch.fault("commit", fault);
    }
}

fn places(partitions: &TopicPartitionList) -> Vec<Place> {
    partitions.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect()
}

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

/// Reads until it is told to stop or cannot go on. Runs on a thread of its own and ends with it.
pub fn run(consumer: BaseConsumer<Group>, topics: &[String], bounds: Bounds, mut some_missing: bool) {
    let group = consumer.context().clone();
    let mailbox = &group.mailbox;
    let mut draft = Draft::new();
    let mut full_since: Option<Instant> = None;
    let mut paused = false;
    let mut looked = Instant::now();
    while mailbox.stop_by().is_none() && !mailbox.has_failed() {
        group.absorb(&consumer);
        if !draft.is_empty() && mailbox.has_room() {
            offer(&group, std::mem::replace(&mut draft, Draft::new()));
        }
        if some_missing && looked.elapsed() >= LOOK_AGAIN {
            looked = Instant::now();
            if let Ok(missing) = missing_topics(&consumer, topics, Duration::from_secs(2)) {
                some_missing = !missing.is_empty();
                group.watch.fault("topics", some_missing.then(|| missing.join("; ")));
            }
        }
        let full = draft.len() >= bounds.messages_max || draft.bytes() >= bounds.bytes_max;
        if full {
            let stalled = full_since.get_or_insert_with(Instant::now).elapsed();
            if stalled < STALL {
                mailbox.wait(STALL - stalled, true);
                continue;
            }
            // Keeps the membership alive without taking messages. Also pauses what a rebalance has brought meanwhile.
            pause(&consumer, &group.label);
            paused = true;
            mailbox.wait(Duration::from_millis(100), true);
        } else {
            full_since = None;
            if paused {
                resume(&consumer, &group.label);
                paused = false;
            }
        }
        let mut wait = match (paused, draft.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, true) => Duration::from_millis(100),
            (false, false) => Duration::from_millis(5),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let mut first = true;
        loop {
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    if draft.push(&message, now).is_err() {
                        mailbox.fail("a batch would hold more than 4 GiB; lower `batch_bytes_max`".into());
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
                        draft.forget(gone);
                    }
                    break;
                }
            }
            if draft.len() >= bounds.messages_max || draft.bytes() >= bounds.bytes_max {
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

fn offer(group: &Group, draft: Draft) {
    let (batch, ranges) = draft.finish();
    if !batch.is_empty() {
        let token = group.assignment.lock().hand_out(ranges);
        group.mailbox.offer(token, batch);
    }
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

/// Reports an error that the consumer may recover from. Answers true when topics should be looked for.
fn trouble(group: &Group, error: &KafkaError) -> bool {
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

fn fatal_reason(consumer: &BaseConsumer<Group>, code: Code) -> String {
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
