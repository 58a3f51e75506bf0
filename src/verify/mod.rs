//! What a ClickHouse table has of what its Kafka topics hold: the audit of a pipeline. Reads only.
//!
//! Three looks, in an order that lets the pipeline run meanwhile. First the group's positions: what lies below them is done
//! with, so its rows are in the table by now. Then the table. Then the topics, up to an end that lies behind every
//! message the table can know. A message between position and end may have its row or not.
mod keys;

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;

use crate::{
    config,
    input::{Past, Stretch},
    message::{Batch, MessageRef},
    output::clickhouse::{Compared, Judged},
    pipeline::{Pipeline, Trial},
};

use keys::{Key, Keys};

/// What to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Columns that tell rows apart; none to compare counts alone.
    pub by: Vec<String>,
    /// Most examples of each kind of difference.
    pub examples_max: usize,
    /// Most memory for keys, in bytes.
    pub memory_bytes_max: usize,
    /// Only messages of this time; by Kafka's timestamps. Needs `by`: which rows belong to it is told by their keys.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// The audit could not be done: what was tried, on what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VerifyError(String);

impl From<String> for VerifyError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The table and the topics, as texts name them.
    pub table: String,
    pub topics: String,
    pub group: String,
    /// Only messages from this time on were read, and only those before that.
    pub since: Option<String>,
    pub until: Option<String>,
    pub partitions: Vec<Partition>,
    /// Messages below the group's positions.
    pub messages: u64,
    /// Rows that they make.
    pub rows_due: u64,
    /// Messages of them that were filtered.
    pub filtered: u64,
    /// Dead letters of them: by the steps, or since the table cannot take the row.
    pub dead_letters: u64,
    /// Rows of messages from the positions on: they may be in the table or not.
    pub rows_ahead: u64,
    /// Rows of the table.
    pub rows: u64,
    /// Columns that the rows were told apart by.
    pub by: Vec<String>,
    /// Rows that should be in the table and are not.
    pub missing: u64,
    /// Rows more than messages with their key.
    pub doubled: u64,
    /// Rows that no message accounts for, while the topics still have their first messages.
    pub foreign: u64,
    /// Such rows while they no longer have them, or when only messages of some time were read: what was removed or left
    /// out cannot be told from the rest.
    pub unaccounted: u64,
    pub examples: Vec<Example>,
}

/// One partition of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
    /// Offset of the oldest message that is still there, or of the first one of the time that was asked for.
    pub first: i64,
    /// The group's position, if it has one.
    pub position: Option<i64>,
    /// Where the next message will come, or the end of that time.
    pub end: i64,
    /// Messages below the position, and from there on.
    pub done: u64,
    pub ahead: u64,
    /// Offsets without a message: marks of transactions, messages of aborted ones, what compaction has removed.
    pub empty: u64,
}

/// One row that is missing, or there too often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    pub difference: Difference,
    /// The columns of the key.
    pub key: BTreeMap<String, Json>,
    /// How often it should be there, and how often it is.
    pub due: u32,
    pub rows: u32,
    /// Where a message with this key lies, if there is one.
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    Missing,
    Doubled,
    Foreign,
    Unaccounted,
}

impl Report {
    /// The table has what it should have.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.foreign == 0
    }
}

/// Compares the table of `config` with its topics. `progress` is told how many messages were read, of about how many.
/// `pipeline` is the one that was built from it. Blocks while it reads topics.
///
/// # Errors
/// A service does not answer as needed, the pipeline is not one from Kafka to ClickHouse, or the keys need too much memory.
pub async fn verify(
    config: &config::Pipeline,
    pipeline: Pipeline,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, VerifyError> {
    let (input, output, at) = ends(config)?;
    let mut past = Past::of(&input.section)?;
    let positions = past.positions()?;
    let table = Compared::open(&output.section, &options.by).await?;
    let mut keys = Keys::new(options.memory_bytes_max);
    let mut report = Report {
        table: table.shown(),
        topics: past.shown(),
        group: past.group().to_owned(),
        by: options.by.clone(),
        since: options.since.map(|time| time.to_string()),
        until: options.until.map(|time| time.to_string()),
        ..Report::default()
    };
    if options.by.is_empty() {
        report.rows = table.count().await?;
    } else {
        table
            .keys(false, |hash, _| {
                report.rows += 1;
                keys.of(hash)?.rows += 1;
                Ok(())
            })
            .await?;
    }
    let partition = |Stretch { topic, partition, low, end }: Stretch| {
        let position = positions.get(&(topic.clone(), partition)).copied();
        Partition { topic, partition, first: low, position, end, ..Partition::default() }
    };
    let ms = |time: Option<Timestamp>| time.map(Timestamp::as_millisecond);
    report.partitions = past.begin(ms(options.since), ms(options.until))?.into_iter().map(partition).collect();
    let mut steps = Steps { trial: Trial::new(pipeline, None), table: &table, output: at };
    let total = report.partitions.iter().map(|p| (p.end - p.first).max(0) as u64).sum();
    let mut read = 0;
    while let Some(batch) = past.next_batch()? {
        read += batch.len() as u64;
        report.take(&batch, &mut steps, &mut keys)?;
        progress(read, total);
    }
    for partition in &mut report.partitions {
        let offsets = (partition.end - partition.first).max(0) as u64;
        partition.empty = offsets.saturating_sub(partition.done + partition.ahead);
    }
    report.conclude(&keys);
    report.find_examples(options.examples_max, &keys, &mut past, &mut steps).await?;
    Ok(report)
}

/// The one input, the one output that is compared, and which output that is.
fn ends(config: &config::Pipeline) -> Result<(&config::Component, &config::Component, usize), VerifyError> {
    let refused = |what: String| Err(VerifyError(format!("pipeline `{}` {what}", config.name)));
    let [input] = &config.inputs[..] else {
        return refused(format!(
            "has {} inputs; only one with a single `kafka` input can be compared",
            config.inputs.len()
        ));
    };
    if input.component.name != "kafka" {
        return refused(format!(
            "reads from `{}`; only what comes from `kafka` can be read again",
            input.component.name
        ));
    }
    let mut tables = config.outputs.iter().enumerate().filter(|(_, entry)| entry.component.name == "clickhouse");
    match (tables.next(), tables.next()) {
        (Some((at, entry)), None) => Ok((&input.component, &entry.component, at)),
        (None, _) => refused("has no `clickhouse` output to compare with".to_owned()),
        (Some(_), Some(_)) => refused("has several `clickhouse` outputs; only one can be compared".to_owned()),
    }
}

/// From messages to rows, as the pipeline does it.
struct Steps<'a> {
    trial: Trial,
    table: &'a Compared,
    /// Which output is the table's.
    output: usize,
}

/// What came of messages.
struct Made {
    rows: Batch,
    /// One for each of `rows`.
    judged: Vec<Judged>,
    filtered: u64,
    failed: u64,
}

impl Steps<'_> {
    fn run(&mut self, batch: Batch) -> Result<Made, String> {
        let mut through = self.trial.run_batch(batch);
        let rows = through.outputs.swap_remove(self.output);
        Ok(Made { judged: self.table.judge(&rows)?, rows, filtered: through.filtered, failed: through.failed })
    }
}

impl Report {
    fn place(&self, message: MessageRef<'_>) -> Option<usize> {
        let fits = |p: &Partition| p.partition == message.origin().partition && p.topic == message.topic();
        self.partitions.iter().position(fits)
    }

    /// True when the pipeline is done with this message.
    fn is_done(&self, message: MessageRef<'_>) -> bool {
        let position = self.place(message).and_then(|at| self.partitions[at].position);
        position.is_some_and(|position| message.origin().offset < position)
    }

    fn take(&mut self, batch: &Batch, steps: &mut Steps<'_>, keys: &mut Keys) -> Result<(), String> {
        for message in batch.iter() {
            let is_done = self.is_done(message);
            let Some(at) = self.place(message) else { continue };
            let partition = &mut self.partitions[at];
            *(if is_done { &mut partition.done } else { &mut partition.ahead }) += 1;
        }
        for done in [true, false] {
            let mut part = batch.clone();
            part.retain(|message| self.is_done(message) == done);
            if part.is_empty() {
                continue;
            }
            let messages = part.len() as u64;
            let made = steps.run(part)?;
            let refused = made.judged.iter().filter(|judged| matches!(judged, Judged::Refused(_))).count() as u64;
            let rows = made.judged.len() as u64 - refused;
            if done {
                self.messages += messages;
                self.rows_due += rows;
                self.filtered += made.filtered;
                self.dead_letters += made.failed + refused;
            } else {
                self.rows_ahead += rows;
            }
            if self.by.is_empty() {
                continue;
            }
            for (message, judged) in made.rows.iter().zip(&made.judged) {
                let Judged::Row(hash) = judged else { continue };
                let place = self.place(message).unwrap_or_default() as u32;
                let key = keys.of(*hash)?;
                *(if done { &mut key.due } else { &mut key.ahead }) += 1;
                (key.place, key.offset) = (place, message.origin().offset);
            }
        }
        Ok(())
    }

    /// True when not all messages were read that the topics ever had.
    fn has_lost(&self) -> bool {
        self.has_bounds() || self.partitions.iter().any(|partition| partition.first > 0)
    }

    /// True when only messages of some time were read.
    pub fn has_bounds(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    fn conclude(&mut self, keys: &Keys) {
        let foreign = if self.by.is_empty() {
            self.missing = self.rows_due.saturating_sub(self.rows);
            self.rows.saturating_sub(self.rows_due + self.rows_ahead)
        } else {
            self.missing = keys.iter().map(|(_, key)| u64::from(key.missing())).sum();
            let surplus = |is_foreign| {
                let these = keys.iter().filter(move |(_, key)| key.is_foreign() == is_foreign);
                these.map(|(_, key)| u64::from(key.surplus())).sum()
            };
            self.doubled = surplus(false);
            surplus(true)
        };
        *(if self.has_lost() { &mut self.unaccounted } else { &mut self.foreign }) = foreign;
    }

    fn difference(&self, key: &Key) -> Option<Difference> {
        match (key.missing(), key.surplus(), key.is_foreign()) {
            (0, 0, _) => None,
            (0, _, false) => Some(Difference::Doubled),
            (0, _, true) if self.has_lost() => Some(Difference::Unaccounted),
            (0, _, true) => Some(Difference::Foreign),
            _ => Some(Difference::Missing),
        }
    }

    /// The first of each kind: by their place in the topics, or as the table answers them.
    async fn find_examples(
        &mut self,
        most: usize,
        keys: &Keys,
        past: &mut Past,
        steps: &mut Steps<'_>,
    ) -> Result<(), VerifyError> {
        for wanted in [Difference::Missing, Difference::Doubled] {
            let of_kind = keys.iter().filter(|(_, key)| self.difference(key) == Some(wanted));
            let mut first: Vec<(u128, Key)> = Vec::new();
            for (hash, key) in of_kind {
                // Kept in order, and no longer than asked for.
                let at = first.partition_point(|(_, known)| (known.place, known.offset) <= (key.place, key.offset));
                first.insert(at, (hash, *key));
                first.truncate(most);
            }
            for (hash, key) in first {
                let partition = &self.partitions[key.place as usize];
                let place = (partition.topic.clone(), partition.partition);
                let key_values = match past.one(&place, key.offset)? {
                    Some(batch) => key_of(&steps.run(batch)?, hash, &self.by),
                    None => BTreeMap::new(),
                };
                self.examples.push(Example {
                    difference: wanted,
                    key: key_values,
                    due: key.due,
                    rows: key.rows,
                    topic: Some(place.0),
                    partition: Some(place.1),
                    offset: Some(key.offset),
                });
            }
        }
        // Rows of other times are no finding.
        let mut left = if self.by.is_empty() || self.has_bounds() {
            0
        } else {
            (self.foreign + self.unaccounted).min(most as u64)
        };
        if left == 0 {
            return Ok(());
        }
        let difference = if self.has_lost() { Difference::Unaccounted } else { Difference::Foreign };
        let (mut found, mut told) = (Vec::new(), HashSet::new());
        let by: Vec<String> = steps.table.by().map(str::to_owned).collect();
        steps
            .table
            .keys(true, |hash, texts| {
                let Some(key) = keys.get(hash).filter(|key| left > 0 && key.is_foreign() && key.rows > 0) else {
                    return Ok(());
                };
                if told.insert(hash) {
                    left -= 1;
                    let texts = texts.iter().map(|text| Json::from(text.as_str()));
                    found.push(Example {
                        difference,
                        key: by.iter().cloned().zip(texts).collect(),
                        due: 0,
                        rows: key.rows,
                        topic: None,
                        partition: None,
                        offset: None,
                    });
                }
                Ok(())
            })
            .await?;
        self.examples.extend(found);
        Ok(())
    }
}

/// The values of the key's columns in the row with this key.
fn key_of(made: &Made, hash: u128, by: &[String]) -> BTreeMap<String, Json> {
    let row = made.rows.iter().zip(&made.judged).find(|(_, judged)| **judged == Judged::Row(hash));
    let row = row.and_then(|(message, _)| serde_json::from_slice::<Json>(message.payload()).ok());
    let Some(Json::Object(row)) = row else { return BTreeMap::new() };
    by.iter().map(|column| (column.clone(), row.get(column).cloned().unwrap_or_default())).collect()
}
