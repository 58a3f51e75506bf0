//! First contact: the first message to a partition goes alone, and the next ones after it is confirmed.
//!
//! A broker checks the sequence of a producer's batches only from the first one on that it took; it takes any batch of a
//! producer it does not know (KIP-360). So when it refuses a first batch for a moment, as it does when the partition was
//! made or moved just now, and takes a second one sent close behind, the first can never be written in its place.
//! librdkafka even believes that it was. Once a message is confirmed, every in-sync replica knows the producer, and what
//! comes out of turn is refused. This costs one round trip for each partition and producer.
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use tokio::{sync::oneshot, time::timeout};

use super::{
    Live, QUEUE_FULL_PAUSE,
    alone::Shape,
    errors,
    plan::{Group, Plan},
    put,
    reports::Failure,
};
use crate::output::Parcel;

/// Longest wait for first messages: a partition without a leader must not hold up the others for ever. What follows is
/// then sent all the same, and at worst comes before a first message that is refused and written again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of first messages.
#[derive(Default)]
pub struct Met {
    /// Messages that librdkafka did not take, by index in the parcel.
    pub refused: Vec<(u32, RDKafkaErrorCode)>,
    /// Messages that were not delivered.
    pub failures: Vec<Failure>,
    /// Answers that are still to come.
    pub answers: Vec<oneshot::Receiver<Vec<Failure>>>,
}

/// Takes out of the plan, and sends, what must go before the rest may.
pub async fn meet(live: &mut Live, plan: &mut Plan, parcel: &Parcel, one_by_one: Option<&Shape>, max: usize) -> Met {
    let mut met = Met::default();
    loop {
        let strangers: Vec<(usize, Group)> = plan
            .groups()
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, g)| g.start < g.end && !live.topics.get(g.topic).has_met(g.partition))
            .collect();
        if strangers.is_empty() {
            return met;
        }
        let board = live.producer.reports().board.clone();
        let (ticket, mut answer) = board.claim(strangers.len(), max).await;
        let mut sent = Vec::with_capacity(strangers.len());
        let mut full = false;
        for (at, group) in strangers {
            let first = Group { end: group.start + 1, ..group };
            match put(live, plan, parcel, first, &ticket, one_by_one).first() {
                None => sent.push((at, group)),
                Some((_, RDKafkaErrorCode::QueueFull)) => full = true,
                Some(&(_, code)) => {
                    let count = condemned(code, group);
                    met.refused.extend((group.start..group.start + count).map(|entry| (plan.index(entry), code)));
                    plan.skip(at, count);
                }
            }
        }
        drop(ticket);
        let failures = match timeout(PATIENCE, &mut answer).await {
            Ok(failures) => failures.expect("the board, which is held here, answers every write"),
            Err(_) => {
                met.answers.push(answer);
                Vec::new()
            }
        };
        for (at, group) in sent {
            let index = plan.index(group.start);
            let Some(&failure) = failures.iter().find(|failure| failure.index == index) else {
                live.topics.get(group.topic).meet(group.partition);
                plan.skip(at, 1);
                continue;
            };
            let count = condemned(failure.code, group);
            let entries = group.start..group.start + count;
            met.failures.extend(entries.map(|entry| Failure { index: plan.index(entry), ..failure }));
            plan.skip(at, count);
        }
        if full {
            let _ = timeout(QUEUE_FULL_PAUSE, board.next_answer()).await;
        }
    }
}

/// How many messages of a group fail with its first: that one alone, or all when the fault is not its own.
fn condemned(code: RDKafkaErrorCode, group: Group) -> usize {
    if errors::is_about_messages(code) { 1 } else { group.end - group.start }
}
