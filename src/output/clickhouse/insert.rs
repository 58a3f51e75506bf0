//! One write: rows are made, sent as one INSERT, and what the server says of them is acted on.
//!
//! - A row the server names is taken out, the rest sent again: nothing of a refused block was written.
//! - When it names none, or one after the other, the block is halved until the culprits stand alone.
//! - When the table has changed, its columns are read again and the rows made anew, once.
//! - All else is for the pipeline to try again.
//!
//! A range that its input has recorded is one block under one token, so that the server drops it when it comes again.
//! Rows that the server names are taken out of it like of any other; but it is never halved here, since halves under
//! tokens of their own would be doubled by the whole after a crash. The input divides it and records that, and it is
//! asked to only when every earlier attempt is known to be over.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    block::{Block, BlockWriter},
    received::{self, Received},
    rows::{Encoded, Encoder, Layout, Rules},
    table::{Abilities, ListedColumn, Table, TableName},
};
use crate::{
    client::clickhouse::{Class, Failure, Server, quote_name},
    output::{Parcel, Pending, Rejection, Retry, WriteError},
};

/// What is known of server and table.
#[derive(Debug)]
pub struct Schema {
    pub table: Arc<Table>,
    pub abilities: Abilities,
    /// Materialized views hang on the table, or may.
    pub has_views: bool,
    /// For an archive, where in the table the parts of a message go.
    pub received: Option<Received>,
}

/// Writes parcels into one table; shared by all writes that are under way.
pub struct Writer {
    pub server: Server,
    /// As the user wrote it, for errors.
    pub url: String,
    pub name: TableName,
    pub rules: Rules,
    /// The user's own.
    pub settings: Vec<(String, String)>,
    /// The pipeline whose archive this is: rows are messages as they were received.
    pub archive: Option<String>,
    schema: RwLock<Option<Arc<Schema>>>,
    /// The layout that fitted last.
    layout: Mutex<Option<(Arc<Table>, Layout)>>,
    /// Inserts in a row that the server had no memory for.
    out_of_memory: AtomicU32,
    /// Whose ranges these are: pipeline and label of the output. None while nobody asks that they are written once.
    owner: Mutex<Option<String>>,
    /// Recorded ranges whose last attempt has no clear answer, by token, and when it was over for us.
    unclear: Mutex<HashMap<String, Instant>>,
    /// Messages in a row that the server has refused alone, without naming a row.
    refused_alone: AtomicU32,
}

/// A recorded range on its way to the server.
#[derive(Clone, Debug)]
struct Ranged {
    token: String,
    /// Another instance may have tried it before this.
    inherited: Option<Instant>,
    /// It holds a single message.
    is_single: bool,
}

/// So many rows named by the server are taken out one by one; after that halving is quicker.
const NAMED_MAX: usize = 8;
/// So many INSERTs of one write, then the pipeline hears what came of them and the rest is tried again.
const REQUESTS_MAX: usize = 256;
/// So many refused rows, and not one accepted, are the table's fault.
const HOPELESS_ROWS: usize = 20;
/// From this size on, more than half of the rows refused are the table's fault.
const JUDGED_ROWS_MIN: usize = 100;
/// Blocks are not halved below this size for want of memory, nor before so many failures.
const MEMORY_ROWS_MIN: usize = 1_000;
const MEMORY_FAILURES: u32 = 3;
/// The server's own bound of a block's rows; a larger insert raises it.
const BLOCK_ROWS: usize = 1_048_449;
/// How long after its time is up an attempt may still have an effect.
const OVER_AFTER: Duration = Duration::from_secs(1);
/// Rows that are made before others get a turn on this thread.
const ROWS_A_TURN: usize = 1_024;

/// What came of a list of blocks.
#[derive(Default)]
struct Progress {
    rejected: Vec<Rejection>,
    /// Messages that are not written, and why.
    left: Vec<u32>,
    stopped: Option<Stop>,
}

enum Stop {
    /// The table changed.
    Drift(Failure),
    Retry(String),
    /// Only in smaller pieces, and that is the input's to do.
    Divide(String),
}

/// Why a write is not done.
enum Undone {
    Retry(String),
    Divide(String),
}

impl From<String> for Undone {
    fn from(reason: String) -> Self {
        Self::Retry(reason)
    }
}

impl Writer {
    pub fn new(server: Server, url: String, name: TableName, rules: Rules, settings: Vec<(String, String)>) -> Self {
        Self {
            server,
            url,
            name,
            rules,
            settings,
            archive: None,
            schema: RwLock::default(),
            layout: Mutex::default(),
            out_of_memory: AtomicU32::new(0),
            owner: Mutex::default(),
            unclear: Mutex::default(),
            refused_alone: AtomicU32::new(0),
        }
    }

    /// Says whose ranges these are: ranges of others have other tokens. `None`: nobody asks that they are written once.
    pub fn set_owner(&self, owner: Option<String>) {
        *self.owner.lock() = owner;
    }

    /// Sorts out the columns of the table.
    ///
    /// # Errors
    /// It cannot be written to: which column is in the way, and what to do.
    pub fn schema(&self, listed: Vec<ListedColumn>, abilities: Abilities, has_views: bool) -> Result<Schema, String> {
        let unfit = |what| format!("cannot insert into `{}` at `{}`: {what}", self.name, self.url);
        let json_as_text = abilities.knows("input_format_binary_read_json_as_string");
        let table = Table::new(listed, &abilities.time_zone, json_as_text).map_err(unfit)?;
        let received = self.archive.as_ref().map(|_| Received::new(&table)).transpose().map_err(unfit)?;
        Ok(Schema { table: Arc::new(table), abilities, has_views, received })
    }

    /// Takes what `connect` has learnt.
    pub fn set_schema(&self, schema: Schema) {
        *self.schema.write() = Some(Arc::new(schema));
    }

    /// `failure` in words, with what was tried and what to do.
    pub fn explain(&self, tried: &str, failure: &Failure) -> String {
        format!("cannot {tried} `{}` at `{}`: {failure}; {}", self.name, self.url, failure.advice())
    }

    /// What to do when the table is missing.
    pub fn how_to_create(&self) -> String {
        let create = match self.archive {
            Some(_) => format!(
                "create it: `{}`; or name a file with that statement in `create`",
                received::statement(&self.name)
            ),
            None => "create it, name a file with its CREATE statements in `create`".to_owned(),
        };
        format!("{create}, or grant INSERT and SELECT on it")
    }

    /// Writes every message of `parcel` that can be written.
    ///
    /// # Errors
    /// What was refused, and what is to be written again.
    pub async fn deliver(&self, parcel: &Parcel) -> Result<(), WriteError> {
        let mut pending: Vec<u32> = (0..parcel.len() as u32).collect();
        let mut rejected = Vec::new();
        match self.deliver_pending(parcel, &mut pending, &mut rejected).await {
            Ok(()) => WriteError::rejected(rejected).into_result(),
            Err(Undone::Divide(reason)) => Err(WriteError { rejected, retry: None, divide: Some(reason) }),
            Err(Undone::Retry(reason)) => {
                let messages =
                    if pending.len() + rejected.len() == parcel.len() { Pending::All } else { Pending::Only(pending) };
                Err(WriteError { rejected, retry: Some(Retry { reason, messages }), divide: None })
            }
        }
    }

    async fn deliver_pending(
        &self,
        parcel: &Parcel,
        pending: &mut Vec<u32>,
        rejected: &mut Vec<Rejection>,
    ) -> Result<(), Undone> {
        let Some(mut schema) = self.schema.read().clone() else {
            return Err(format!("not connected to `{}` yet", self.url).into());
        };
        let owner = self.owner.lock().clone();
        let ranged = parcel.recorded().zip(owner).map(|(recorded, owner)| Ranged {
            token: format!("{owner}/{}", recorded.name),
            inherited: recorded.inherited,
            is_single: parcel.get(0).source().origins().len() == 1,
        });
        let mut is_fresh = false;
        let mut named = None;
        loop {
            let encoded = match (&schema.received, &self.archive) {
                (Some(received), Some(pipeline)) => {
                    encode_received(&schema.table, received, pipeline, parcel, pending).await
                }
                _ => self.encode(&schema, parcel, pending, ranged.is_some()).await,
            };
            let format = schema.abilities.format(encoded.layout.flags);
            let (format, is_typed) =
                format.ok_or_else(|| "the server knows no format of the family RowBinary".to_owned())?;
            // A message is only refused by columns that were read after it had come. A format without types is only
            // safe when the types are what we think.
            if !is_fresh && (encoded.blames_the_table() || !is_typed) {
                is_fresh = true;
                let fresh = self.refresh(&schema).await?;
                if fresh.table != schema.table {
                    schema = fresh;
                    continue;
                }
            }
            let Encoded { layout, blocks, .. } = &encoded;
            let mut progress = self.insert_all(&schema, layout, format, blocks.clone(), named, ranged.as_ref()).await;
            rejected.extend(encoded.rejected);
            rejected.append(&mut progress.rejected);
            rejected.sort_by_key(|r| r.index);
            progress.left.sort_unstable();
            *pending = progress.left;
            match progress.stopped {
                None => return Ok(()),
                Some(Stop::Retry(reason)) => return Err(Undone::Retry(reason)),
                Some(Stop::Divide(reason)) => return Err(Undone::Divide(reason)),
                Some(Stop::Drift(failure)) => {
                    // The second time with columns just read: not drift, unless the server blames the same row.
                    let culprit = failure.row().and_then(|row| pending.get(row).copied());
                    if is_fresh && (culprit.is_none() || named.is_some()) {
                        return Err(self.explain("insert into", &failure).into());
                    }
                    is_fresh = true;
                    named = culprit;
                    schema = self.refresh(&schema).await?;
                }
            }
        }
    }

    /// Reads the columns again. The same `Arc` of a table is kept while nothing has changed.
    async fn refresh(&self, known: &Schema) -> Result<Arc<Schema>, String> {
        let listed = self.name.columns(&self.server).await;
        let listed = listed.map_err(|failure| self.explain("read the columns of", &failure))?;
        if listed.is_empty() {
            return Err(format!("the table `{}` at `{}` is gone; create it again", self.name, self.url));
        }
        let mut fresh = self.schema(listed, known.abilities.clone(), known.has_views)?;
        if fresh.table == known.table {
            fresh.table = known.table.clone();
        }
        let fresh = Arc::new(fresh);
        *self.schema.write() = Some(fresh.clone());
        Ok(fresh)
    }

    /// Makes rows of the messages in `pending`, in the layout that they need.
    async fn encode(&self, schema: &Schema, parcel: &Parcel, pending: &[u32], in_one_block: bool) -> Encoded {
        let known = self.layout.lock().clone();
        let mut layout = match known {
            Some((table, layout)) if Arc::ptr_eq(&table, &schema.table) => layout,
            _ => Layout::all(&schema.table),
        };
        loop {
            let mut encoder = Encoder::new(schema.table.clone(), layout, self.rules, pending.len(), parcel.bytes());
            if in_one_block {
                encoder = encoder.in_one_block();
            }
            let mut wanted = pending.iter().copied().peekable();
            for (index, message) in (0_u32..).zip(parcel.iter()) {
                if wanted.next_if_eq(&index).is_none() {
                    continue;
                }
                encoder.message(index, message.payload(), message.document());
                if index as usize % ROWS_A_TURN == ROWS_A_TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            let mut encoded = encoder.finish(&schema.abilities);
            match encoded.better.take() {
                Some(better) => layout = better,
                None => {
                    *self.layout.lock() = Some((schema.table.clone(), encoded.layout.clone()));
                    return encoded;
                }
            }
        }
    }

    /// Inserts `blocks` one after the other. `named` is a message that the server has named before.
    async fn insert_all(
        &self,
        schema: &Schema,
        layout: &Layout,
        format: &str,
        mut blocks: Vec<Block>,
        named: Option<u32>,
        ranged: Option<&Ranged>,
    ) -> Progress {
        let columns: Vec<_> = layout.columns.iter().map(|&c| quote_name(&schema.table.columns[c].name)).collect();
        let sql = format!("INSERT INTO {} ({}) FORMAT {format}", self.name.quoted(), columns.join(", "));
        let head: Bytes =
            if format.contains("NamesAndTypes") { layout.header(&schema.table).into() } else { Bytes::new() };
        let total: usize = blocks.iter().map(Block::len).sum();
        let mut settings = self.insert_settings(&schema.abilities, ranged.map(|ranged| ranged.token.as_str()), total);
        // The server takes no second query of this name while the first one runs.
        settings.extend(ranged.map(|ranged| ("query_id".to_owned(), format!("streamer/{}", ranged.token))));

        let (mut requests, mut accepted, mut taken_out) = (0, 0, 0);
        // Rows that stood alone when the server refused them without naming one.
        let mut refused: Vec<Rejection> = Vec::new();
        let mut progress = Progress::default();
        blocks.reverse();
        while let Some(block) = blocks.pop() {
            requests += 1;
            let failure = match self.server.insert(&sql, &settings, [head.clone(), block.body()]).await {
                Ok(()) => {
                    self.out_of_memory.store(0, Ordering::Relaxed);
                    self.refused_alone.store(0, Ordering::Relaxed);
                    if let Some(ranged) = ranged {
                        self.unclear.lock().remove(&ranged.token);
                    }
                    accepted += block.len();
                    continue;
                }
                Err(failure) => failure,
            };
            let culprit = failure.row().filter(|&row| row < block.len());
            if let Some(ranged) = ranged.filter(|_| failure.class() == Class::Transient) {
                self.unclear.lock().insert(ranged.token.clone(), Instant::now());
            }
            let class = failure.class();
            let is_too_large = match class {
                Class::Split => true,
                Class::Memory => {
                    let failures = self.out_of_memory.fetch_add(1, Ordering::Relaxed) + 1;
                    failures >= MEMORY_FAILURES && block.len() >= MEMORY_ROWS_MIN
                }
                _ => false,
            };
            let stop = match (class, ranged) {
                (Class::Row | Class::Drift, _) if requests == REQUESTS_MAX => Some(Stop::Retry(format!(
                    "the server has refused many rows of one insert into `{}`, one by one; going on with the rest: {failure}",
                    self.name
                ))),
                (Class::Row, _) => None,
                (Class::Drift, _) if named.is_some() && culprit.map(|row| block.message(row)) == named => None,
                (Class::Drift, _) => Some(Stop::Drift(failure.clone())),
                (_, None) if is_too_large && block.len() > 1 => {
                    split(block, &mut blocks);
                    continue;
                }
                (_, Some(ranged)) if is_too_large && !ranged.is_single => Some(self.divide(ranged, schema, &failure)),
                (Class::Split, Some(_)) => None,
                _ => Some(Stop::Retry(self.explain("insert into", &failure))),
            };
            if stop.is_some() {
                blocks.push(block);
                progress.stopped = stop;
                break;
            }
            match (culprit, ranged) {
                (Some(row), _) if taken_out < NAMED_MAX || block.len() == 1 || ranged.is_some() => {
                    taken_out += 1;
                    progress.rejected.push(rejection(block.message(row), &failure));
                    let rest = block.without(row);
                    if !rest.is_empty() {
                        blocks.push(rest);
                    }
                }
                (_, Some(ranged)) => {
                    progress.stopped = if !ranged.is_single {
                        Some(self.divide(ranged, schema, &failure))
                    } else if self.refused_alone.fetch_add(1, Ordering::Relaxed) + 1 >= HOPELESS_ROWS as u32 {
                        Some(Stop::Retry(self.explain_all_refused(HOPELESS_ROWS, &failure)))
                    } else {
                        progress.rejected.extend(block.messages().map(|message| rejection(message, &failure)));
                        continue;
                    };
                    blocks.push(block);
                    break;
                }
                (_, None) if block.len() > 1 => split(block, &mut blocks),
                (_, None) => {
                    refused.push(rejection(block.message(0), &failure));
                    if accepted == 0 && refused.len() >= HOPELESS_ROWS {
                        progress.stopped = Some(Stop::Retry(self.explain_all_refused(refused.len(), &failure)));
                        break;
                    }
                }
            }
        }
        let is_most = total >= JUDGED_ROWS_MIN && refused.len() * 2 > total;
        if is_most || refused.len() >= HOPELESS_ROWS && accepted == 0 {
            progress.left.extend(refused.iter().map(|r| r.index));
            if progress.stopped.is_none() {
                let failure = Failure::Network(refused[0].reason.clone());
                progress.stopped = Some(Stop::Retry(self.explain_all_refused(refused.len(), &failure)));
            }
        } else {
            progress.rejected.append(&mut refused);
        }
        progress.left.extend(blocks.iter().flat_map(Block::messages));
        progress
    }

    /// What to do about a range that the server does not take as a whole.
    fn divide(&self, ranged: &Ranged, schema: &Schema, failure: &Failure) -> Stop {
        let refused = self.explain("insert into", failure);
        if schema.has_views {
            // The rows may be in the table already, and only a view's be missing: pieces would double them.
            return Stop::Retry(format!(
                "{refused}; the rows cannot be written in smaller pieces, because materialized views hang on the table: \
                 repair the view that refuses them"
            ));
        }
        let unclear = self.unclear.lock().get(&ranged.token).copied();
        let last = unclear.max(ranged.inherited);
        if last.is_some_and(|last| last.elapsed() < self.server.timeout() + OVER_AFTER) {
            return Stop::Retry(format!(
                "{refused}; waiting until earlier attempts are over, to write it in smaller pieces"
            ));
        }
        self.unclear.lock().remove(&ranged.token);
        Stop::Divide(format!("{refused}; writing it in smaller pieces"))
    }

    fn explain_all_refused(&self, rows: usize, failure: &Failure) -> String {
        format!(
            "cannot insert into `{}` at `{}`: the server refuses row after row ({rows}) without naming one, so the fault is \
             the table's or a materialized view's, not theirs: {failure}",
            self.name, self.url
        )
    }

    /// What makes an insert one block that is written as a whole when the server answers, on servers that know it.
    /// With a `token` the server drops the block when it has seen that token before. Without one nothing must be
    /// dropped: two batches may well be equal byte for byte, and by default a server takes the second for a repetition.
    fn insert_settings(&self, abilities: &Abilities, token: Option<&str>, rows: usize) -> Vec<(String, String)> {
        let block_rows = rows.max(BLOCK_ROWS).to_string();
        let pinned = [
            ("async_insert", "0"),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            // Since 26.x it overrides `insert_deduplicate`.
            ("deduplicate_insert", if token.is_some() { "enable" } else { "disable" }),
            ("input_format_allow_errors_num", "0"),
            ("input_format_allow_errors_ratio", "0"),
            ("input_format_binary_decode_types_in_binary_format", "0"),
            ("input_format_binary_read_json_as_string", "1"),
            ("input_format_parallel_parsing", "0"),
            ("input_format_skip_unknown_fields", "0"),
            ("input_format_with_names_use_header", "1"),
            ("input_format_with_types_use_header", "1"),
            ("insert_deduplicate", if token.is_some() { "1" } else { "0" }),
            ("insert_deduplication_token", token.unwrap_or_default()),
            ("max_insert_block_size", &block_rows),
            ("max_insert_block_size_bytes", "0"),
            ("max_insert_threads", "1"),
        ];
        let known = pinned.into_iter().filter(|(name, _)| abilities.knows(name));
        // Not a setting but a parameter of the HTTP interface, which every version has.
        let mut settings: Vec<_> =
            known.chain([("wait_end_of_query", "1")]).map(|(name, value)| (name.into(), value.into())).collect();
        settings.extend(self.settings.iter().cloned());
        settings
    }

    /// Sends an insert without rows: it shows missing grants, refused settings and a table that cannot be written.
    ///
    /// # Errors
    /// What an insert with rows would meet too.
    pub async fn probe(&self, schema: &Schema) -> Result<(), Failure> {
        let Some((format, true)) = schema.abilities.format(false) else { return Ok(()) };
        let layout = Layout::all(&schema.table);
        let columns: Vec<_> = layout.columns.iter().map(|&c| quote_name(&schema.table.columns[c].name)).collect();
        let sql = format!("INSERT INTO {} ({}) FORMAT {format}", self.name.quoted(), columns.join(", "));
        let settings = self.insert_settings(&schema.abilities, None, 0);
        self.server.insert(&sql, &settings, [layout.header(&schema.table).into(), Bytes::new()]).await
    }
}

/// Makes rows of the messages in `pending` as they were received. Every message is one.
async fn encode_received(
    table: &Table,
    received: &Received,
    pipeline: &str,
    parcel: &Parcel,
    pending: &[u32],
) -> Encoded {
    let mut rows = BlockWriter::with_capacity(pending.len(), parcel.bytes());
    for (at, &index) in pending.iter().enumerate() {
        let written: Result<(), std::convert::Infallible> = rows.row(index, |out| {
            received.row(table, pipeline, parcel.get(index as usize), out);
            Ok(())
        });
        written.unwrap_or_else(|never| match never {});
        if at % ROWS_A_TURN == ROWS_A_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    let blocks = if pending.is_empty() { Vec::new() } else { vec![rows.finish()] };
    Encoded { blocks, layout: received.layout().clone(), rejected: Vec::new(), better: None }
}

fn split(block: Block, blocks: &mut Vec<Block>) {
    let (first, second) = block.halves();
    blocks.push(second);
    blocks.push(first);
}

fn rejection(message: u32, failure: &Failure) -> Rejection {
    let code = match failure {
        Failure::Server { code, .. } => format!("clickhouse-{code}"),
        _ => "clickhouse".to_owned(),
    };
    Rejection { index: message, code, reason: format!("the server refused the row: {failure}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        client::{Secret, clickhouse::Access},
        output::clickhouse::encode::Surplus,
    };

    fn writer() -> Writer {
        let password = Secret::default();
        let access = Access {
            url: "http://127.0.0.1:1",
            user: "default",
            password: &password,
            lz4: false,
            timeout: Duration::from_secs(1),
        };
        let name = TableName { database: "iot".into(), table: "t".into() };
        let rules = Rules { surplus: Surplus::Reject, wrap_scalars: true };
        Writer::new(Server::new(&access), access.url.into(), name, rules, vec![("max_memory_usage".into(), "1".into())])
    }

    #[test]
    fn only_settings_that_the_server_knows_are_sent() {
        let abilities = |names: &[&str]| Abilities {
            settings: names.iter().map(|&n| n.to_owned()).collect(),
            ..Abilities::default()
        };
        let writer = writer();
        let old = writer.insert_settings(&abilities(&["max_insert_block_size"]), None, 1);
        assert_eq!(
            old.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(),
            ["max_insert_block_size", "wait_end_of_query", "max_memory_usage"]
        );
        let new = abilities(&["deduplicate_insert", "insert_deduplicate", "insert_deduplication_token"]);
        let value = |token, name: &str| {
            writer.insert_settings(&new, token, 1).into_iter().find(|s| s.0 == name).map(|s| s.1).unwrap()
        };
        assert_eq!(
            (value(None, "insert_deduplicate").as_str(), value(None, "deduplicate_insert").as_str()),
            ("0", "disable")
        );
        assert_eq!(value(Some("a-1"), "insert_deduplicate"), "1");
        assert_eq!(value(Some("a-1"), "deduplicate_insert"), "enable");
        assert_eq!(value(Some("a-1"), "insert_deduplication_token"), "a-1");
    }

    #[tokio::test]
    async fn a_write_before_connect_is_tried_again() {
        let error = writer().deliver(&Parcel::default()).await.unwrap_err();
        assert_eq!(error, WriteError::retry("not connected to `http://127.0.0.1:1` yet"));
    }
}
