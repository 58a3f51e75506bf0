//! The thread that owns the consumer. Everything that touches the group happens on it: polling, the callbacks of a
//! rebalance, storing positions, commits. So a commit can never run beside a rebalance, and no record of a partition is
//! committed after the partition was taken away.
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, MutexGuard};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr as Response},
};
use tracing::{debug, info, warn};

use super::{
    assignment::{Assignment, Place},
    ledger::{Entry, Ledger},
    mailbox::Mailbox,
    plan::Record,
    reading::Reading,
    renewed::{self, Renewed},
};
use crate::{
    ack::Outcome,
    client::kafka::{Memory, Watch, log},
    metrics::ComponentMetrics,
};

/// How long a full mailbox is waited for before the partitions are paused. Pausing throws away what librdkafka has
/// fetched ahead, so it is for real stalls, not for the ordinary give and take.
const STALL: Duration = Duration::from_secs(1);
/// How long a rebalance waits for batches of the partitions that go, so that the next owner need not repeat them.
const REVOKE_TIME: Duration = Duration::from_secs(5);
/// How often topics that are not there are looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long Kafka has to say what is committed.
const ASK_TIME: Duration = Duration::from_secs(5);
/// How often that is asked when partitions are assigned, before the input starts over.
const ASK_ATTEMPTS: usize = 6;

/// Faults, by what they are about.
const COMMIT: &str = "commit";
const POSITIONS: &str = "positions";

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
    memory: Memory,
    books: Mutex<Books>,
    /// Partitions taken away since the reading loop looked last.
    gone: Mutex<Vec<Place>>,
    /// Topics that were deleted and made again.
    pub renewed: Renewed,
}

/// What is kept of the partitions that are ours.
#[derive(Debug)]
pub enum Books {
    /// Up to where each is settled. Librdkafka commits that.
    Positions(Assignment),
    /// Which ranges are recorded, too. Committed by hand, since librdkafka would commit without the record.
    Plans(Ledger),
}

/// A number that no chain of ranges had before: the time, and some dice.
pub fn new_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    (now << 16) | u64::from(rand::random::<u16>())
}

impl Group {
    /// No partitions yet.
    pub fn new(
        watch: Arc<Watch>,
        mailbox: Arc<Mailbox>,
        metrics: ComponentMetrics,
        label: String,
        books: Books,
    ) -> Self {
        Self {
            watch,
            mailbox,
            metrics,
            label,
            memory: Memory::default(),
            books: Mutex::new(books),
            gone: Mutex::default(),
            renewed: Renewed::default(),
        }
    }

    /// The books. Nobody holds them for long, and nobody during a call into librdkafka.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// Takes the answers in and stores the positions that moved.
    fn absorb(&self, consumer: &BaseConsumer<Self>) {
        let answers = self.mailbox.answers();
        if answers.is_empty() {
            return;
        }
        let mut divided = Vec::new();
        let mut positions = TopicPartitionList::new();
        for (token, outcome) in answers {
            if outcome == Outcome::Undelivered {
                // Its positions stay open for good, so nothing behind it could ever be committed.
                self.mailbox.fail("a batch was not delivered; reading again from the last committed positions".into());
            }
            match &mut *self.books() {
                Books::Positions(assignment) => assignment.settle(token, outcome),
                Books::Plans(ledger) => divided.extend(ledger.settle(token, outcome)),
            }
            if outcome == Outcome::Divide {
                self.commit_records(consumer, std::mem::take(&mut divided));
                self.mailbox.fail("a batch cannot be written as a whole; reading it again in smaller pieces".into());
            }
        }
        if let Books::Positions(assignment) = &mut *self.books() {
            for (topic, partition, position) in assignment.take_positions() {
                if let Err(error) = positions.add_partition_offset(topic, partition, Offset::Offset(position)) {
                    debug!(topic, partition, position, %error, "cannot note a position");
                }
            }
        }
        if positions.count() > 0
            && let Err(error) = consumer.store_offsets(&positions)
        {
            // `State` for a partition that was taken away meanwhile: its next owner reads these messages again.
            debug!(input = self.label, %error, "positions not stored");
        }
    }

    /// Records ranges that end at `cuts`, and the positions that moved. True when Kafka has confirmed all of it.
    pub fn record(&self, consumer: &BaseConsumer<Self>, cuts: &[(Place, i64)]) -> bool {
        if !self.ask_back(consumer) {
            return false;
        }
        let entries = match &*self.books() {
            Books::Plans(ledger) => ledger.propose(cuts),
            Books::Positions(_) => return true,
        };
        entries.is_empty() || self.commit_records(consumer, entries)
    }

    /// Commits records and waits for the answer. True when all are confirmed.
    fn commit_records(&self, consumer: &BaseConsumer<Self>, mut entries: Vec<Entry>) -> bool {
        match &*self.books() {
            Books::Plans(ledger) => ledger.still_ours(&mut entries),
            Books::Positions(_) => return false,
        }
        if consumer.assignment_lost() {
            return false;
        }
        // One commit a topic: when only some partitions are refused, the answer may still be yes.
        entries.sort_by(|a, b| a.place.cmp(&b.place));
        let mut all_done = true;
        for chunk in entries.chunk_by(|a, b| a.place.0 == b.place.0) {
            let mut list = TopicPartitionList::new();
            for entry in chunk {
                let Record { offset, text } = entry.record();
                let mut element = list.add_partition(&entry.place.0, entry.place.1);
                element.set_metadata(text);
                if let Err(error) = element.set_offset(Offset::Offset(offset)) {
                    debug!(topic = entry.place.0, partition = entry.place.1, offset, %error, "cannot note a position");
                }
            }
            let result = consumer.commit(&list, CommitMode::Sync);
            let is_done = result.is_ok();
            self.commit_fault(result);
            if let Books::Plans(ledger) = &mut *self.books() {
                if is_done { ledger.confirm(chunk.to_vec()) } else { ledger.doubt(chunk.to_vec()) }
            }
            all_done &= is_done;
        }
        all_done
    }

    /// After a commit that failed: asks Kafka what it has. False when that is not known yet, or somebody else's.
    fn ask_back(&self, consumer: &BaseConsumer<Self>) -> bool {
        let doubted = match &*self.books() {
            Books::Plans(ledger) => ledger.doubted(),
            Books::Positions(_) => return true,
        };
        if doubted.is_empty() {
            self.watch.fault(POSITIONS, None);
            return true;
        }
        let found = match committed(consumer, &doubted) {
            Ok(found) => found,
            Err(error) => {
                let fault = format!("Kafka does not say which positions the group has committed: {error}");
                self.watch.fault(POSITIONS, Some(fault));
                return false;
            }
        };
        self.watch.fault(POSITIONS, None);
        for (place, record) in found {
            let Books::Plans(ledger) = &mut *self.books() else { return false };
            if let Err(foreign) = ledger.read_back(&place, record) {
                let (topic, partition) = &foreign.place;
                self.mailbox.fail(format!(
                    "somebody else has moved the group's position in topic `{topic}`, partition {partition}; reading \
                     again from there"
                ));
                return false;
            }
        }
        true
    }

    /// Partitions become ours: learns what is recorded of them, and sets in `partitions` where reading goes on.
    fn restore(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let places = places(partitions);
        if places.is_empty() {
            return;
        }
        for _ in 0..ASK_ATTEMPTS {
            match committed(consumer, &places) {
                Ok(found) => {
                    for (place, record) in found {
                        if let Some(record) = &record {
                            let start = Offset::Offset(record.offset);
                            if let Err(error) = partitions.set_partition_offset(&place.0, place.1, start) {
                                self.mailbox.fail(format!("cannot set where reading starts: {error}"));
                            }
                        }
                        if let Books::Plans(ledger) = &mut *self.books() {
                            ledger.assign(&place, record, new_epoch());
                        }
                    }
                    return;
                }
                Err(error) => debug!(input = self.label, %error, "committed positions not known"),
            }
            if self.mailbox.stop_by().is_some() {
                break;
            }
        }
        // Without their record the partitions must not be read.
        self.mailbox.fail("Kafka does not say which positions the group has committed; connecting again".into());
    }

    /// Commits what is stored and waits for the answer.
    fn commit(&self, consumer: &BaseConsumer<Self>) {
        if self.watch.is_down() {
            // It would wait for a broker for as long as a session lasts.
            return;
        }
        if matches!(&*self.books(), Books::Plans(_)) {
            if !self.record(consumer, &[]) {
                debug!(input = self.label, "the last positions are not committed");
            }
            return;
        }
        match consumer.commit_consumer_state(CommitMode::Sync) {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => {
                warn!(input = self.label, %error, "the last positions are not committed, some messages will come again")
            }
        }
    }

    fn after_rebalance(&self, response: Response, partitions: &TopicPartitionList) {
        if response == Response::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(input = self.label, partitions = partitions.count(), "partitions assigned");
            self.watch.up();
            self.watch.fault("consumer", None);
        } else if response == Response::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS {
            info!(input = self.label, partitions = partitions.count(), "partitions revoked");
        }
    }

    /// Tells of a commit that failed, until one succeeds.
    fn commit_fault(&self, result: KafkaResult<()>) {
        let code = result.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let fault = match result {
            Ok(()) => None,
            Err(_) if code == Some(Code::NoOffset) => None,
            // Part of every rebalance; the positions are committed by the next owner.
            Err(_)
                if matches!(
                    code,
                    Some(
                        Code::RebalanceInProgress
                            | Code::IllegalGeneration
                            | Code::UnknownMemberId
                            | Code::StaleMemberEpoch
                    )
                ) =>
            {
                return;
            }
            Err(error) => Some(format!(
                "Kafka does not take the group's positions: {error}; after a restart messages would come again"
            )),
        };
        self.watch.fault(COMMIT, fault);
    }

    /// Partitions are about to go: waits for their batches, then stores and commits.
    fn release(&self, consumer: &BaseConsumer<Self>, places: &[Place]) {
        let goes = |topic: &str, partition: i32| places.iter().any(|(t, p)| t == topic && *p == partition);
        let waiting = self.mailbox.withdraw(|m| !goes(m.topic(), m.origin().partition));
        for token in waiting {
            match &mut *self.books() {
                Books::Positions(assignment) => assignment.withdraw(token, places),
                Books::Plans(ledger) => ledger.withdraw(token, places),
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
                let is_open = match &*self.books() {
                    Books::Positions(assignment) => assignment.is_open(places),
                    Books::Plans(ledger) => ledger.is_open(places),
                };
                if left.is_zero() || !is_open {
                    break;
                }
                self.mailbox.wait(left, false);
            }
            self.commit(consumer);
        }
        match &mut *self.books() {
            Books::Positions(assignment) => places.iter().for_each(|(topic, p)| assignment.revoke(topic, *p)),
            Books::Plans(ledger) => places.iter().for_each(|place| ledger.revoke(place)),
        }
        // What went wrong with them is no longer ours to mend. What concerns others will be said again.
        self.watch.fault(COMMIT, None);
        self.watch.fault(POSITIONS, None);
        self.gone.lock().extend_from_slice(places);
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.renewed.note(text);
        log(level, facility, text);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(seen) = self.watch.statistics(statistics) {
            self.memory.note(seen.brokers);
            self.metrics.lag.set(seen.lag);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(&error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, response: Response, partitions: &mut TopicPartitionList) {
        let is_cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match response {
            Response::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let restores = match &mut *self.books() {
                    Books::Positions(assignment) => {
                        places(partitions).iter().for_each(|(topic, p)| assignment.assign(topic, *p));
                        false
                    }
                    Books::Plans(_) => true,
                };
                if restores {
                    self.restore(consumer, partitions);
                }
                if is_cooperative { consumer.incremental_assign(partitions) } else { consumer.assign(partitions) }
            }
            Response::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.release(consumer, &places(partitions));
                if is_cooperative { consumer.incremental_unassign(partitions) } else { consumer.unassign() }
            }
            other => {
                warn!(input = self.label, error = %KafkaError::Rebalance(other.into()), "rebalance failed");
                consumer.unassign()
            }
        };
        match done {
            Ok(()) => self.after_rebalance(response, partitions),
            Err(error) => self.mailbox.fail(format!("cannot take part in a rebalance: {error}")),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _positions: &TopicPartitionList) {
        self.commit_fault(result);
    }
}

/// The partitions of a list.
pub fn places(partitions: &TopicPartitionList) -> Vec<Place> {
    partitions.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect()
}

/// What Kafka has committed of `places`.
fn committed(consumer: &BaseConsumer<Group>, places: &[Place]) -> KafkaResult<Vec<(Place, Option<Record>)>> {
    let mut asked = TopicPartitionList::new();
    for (topic, partition) in places {
        asked.add_partition(topic, *partition);
    }
    let answer = consumer.committed_offsets(asked, ASK_TIME)?;
    let found = answer.elements();
    found
        .iter()
        .map(|element| {
            element.error()?;
            let record = match element.offset() {
                Offset::Offset(offset) => Some(Record { offset, text: element.metadata().to_owned() }),
                _ => None,
            };
            Ok(((element.topic().to_owned(), element.partition()), record))
        })
        .collect()
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
            if renewed::start_over(&group, &consumer) {
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

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;
    use crate::metrics::{HealthBoard, Metrics};

    #[test]
    fn what_was_wrong_with_partitions_goes_with_them() {
        let (metrics, board) = (Metrics::new(), HealthBoard::default());
        let metrics = metrics.component("p", "input", "in");
        let watch = Arc::new(Watch::new("127.0.0.1:1".into(), board.add("p/input/in", metrics.up.clone())));
        watch.arm();
        let place = ("t".to_owned(), 0);
        let mut ledger = Ledger::default();
        ledger.assign(&place, None, 1);
        let group = Group::new(watch, Arc::new(Mailbox::new(1)), metrics, "in".into(), Books::Plans(ledger));
        let consumer: BaseConsumer<Group> = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "g")
            .create_with_context(group)
            .expect("settings");
        let group = consumer.context();
        group.commit_fault(Err(KafkaError::ConsumerCommit(Code::NotCoordinator)));
        group.watch.fault(POSITIONS, Some("Kafka does not say".into()));
        assert!(!board.report().ready);
        group.release(&consumer, &[place]);
        assert!(board.report().ready, "{:?}", board.report().faults);
    }
}
