//! The consumer's membership in its group. Everything that touches it happens on the thread of `consumer`: polling, the
//! callbacks of a rebalance, storing positions, commits. So a commit can never run beside a rebalance, and no record of a
//! partition is committed after the partition was taken away.
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, MutexGuard};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr as Response},
};
use tracing::{debug, info, warn};

use super::{
    assignment::{Assignment, Place},
    commit,
    ledger::{Entry, Ledger},
    mailbox::Mailbox,
    plan::Record,
    renewed::Renewed,
};
use crate::{
    ack::Outcome,
    client::kafka::{Memory, Watch, give, log},
    metrics::ComponentMetrics,
};

/// How long a rebalance waits for batches of the partitions that go, so that the next owner need not repeat them.
const REVOKE_TIME: Duration = Duration::from_secs(5);
/// How long Kafka has to say what is committed.
const ASK_TIME: Duration = Duration::from_secs(5);
/// A commit without an answer for so long is said to be.
const SILENT: Duration = Duration::from_secs(15);
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
    pub memory: Memory,
    books: Mutex<Books>,
    /// Partitions taken away since the reading loop looked last.
    pub gone: Mutex<Vec<Place>>,
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
    pub fn absorb(&self, consumer: &BaseConsumer<Self>) {
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
            let result = self.commit_patiently(consumer, Some(&list));
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
                Err(error) => {
                    debug!(input = self.label, %error, "committed positions not known");
                    give(consumer.client(), self.watch.brokers());
                }
            }
            if self.mailbox.stop_by().is_some() {
                break;
            }
        }
        // Without their record the partitions must not be read.
        self.mailbox.fail("Kafka does not say which positions the group has committed; connecting again".into());
    }

    /// Commits what is stored and waits for the answer.
    pub fn commit(&self, consumer: &BaseConsumer<Self>) {
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
        match self.commit_patiently(consumer, None) {
            Ok(()) | Err(KafkaError::ConsumerCommit(Code::NoOffset)) => {}
            Err(error) => {
                warn!(input = self.label, %error, "the last positions are not committed, some messages will come again")
            }
        }
    }

    /// Commits and waits for the answer. Meanwhile nobody polls the client, so its statistics do not tell when it has
    /// dropped all its brokers.
    pub fn commit_patiently(
        &self,
        consumer: &BaseConsumer<Self>,
        positions: Option<&TopicPartitionList>,
    ) -> KafkaResult<()> {
        let mut told = false;
        let result = commit::commit(consumer, positions, ASK_TIME, |waited| {
            give(consumer.client(), self.watch.brokers());
            if waited >= SILENT {
                told = true;
                let fault = "Kafka does not answer a commit of the group's positions; it is waited for. Look whether the \
                             brokers are well, above all the one that coordinates the group";
                self.watch.fault(COMMIT, Some(fault.to_owned()));
            }
        });
        if told {
            self.watch.fault(COMMIT, None);
        }
        result
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
