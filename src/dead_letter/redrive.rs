//! Dead letters as an input: read back, handed out as they were received, and marked once they have arrived.
//!
//! At least once: a letter is marked after its outputs, or the dead-letter output when it has failed again, have confirmed
//! it. A process that dies before that leaves it open, and the next run sends it again. Letters that fail again lie behind
//! the end that the store had at the start, so one run meets none of them.
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    envelope::{Envelope, REDRIVEN_HEADER},
    found::{Found, Reader, StoreError, Stored},
    kept::Kept,
    mark::Id,
    store::{Marker, Store},
};
use crate::{
    ack::{Ack, Outcome, Settle},
    input::{Input, InputContext, InputError, Replay},
    message::{Batch, Captures, Redriven, SourceBuilder},
};

/// Letters of one batch, at most.
const BATCH_MAX: usize = 500;
/// Payload bytes of one batch; the letter that passes them is its last.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are handed out and not marked yet, at most.
const OPEN_MAX: usize = 64;

/// Where redriven letters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the steps of their pipeline. Those that one output had refused go to that one only, unless `everywhere`.
    Steps { everywhere: bool },
    /// Back to the topic they were received on, with a header that tells of their past.
    Source,
}

impl Way {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps { .. } => "steps",
            Self::Source => "source",
        }
    }
}

/// How far it is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Read and handed out.
    pub sent: AtomicU64,
    /// Arrived and marked.
    pub marked: AtomicU64,
    /// Not sent, since their file is not there.
    pub without: AtomicU64,
    /// What went wrong with them, and with marks; the first few.
    pub faults: Mutex<Vec<String>>,
}

impl Progress {
    fn fault(&self, fault: String) {
        let mut faults = self.faults.lock();
        if faults.len() < 10 {
            faults.push(fault);
        }
    }
}

/// The chosen letters of a store, as an input.
pub struct Letters {
    state: State,
    kept: Kept,
    chosen: HashSet<Id>,
    way: Way,
    /// Letters a second, at most.
    rate: Option<f64>,
    next_at: Instant,
    /// Read, and left over for the next batch.
    waiting: Option<Stored>,
    progress: Arc<Progress>,
    settled: Arc<Settled>,
    /// Marks what has arrived, until `settled` is dropped.
    marking: Option<JoinHandle<()>>,
    token: u64,
}

enum State {
    Closed(Store),
    Open(Reader),
    /// A read on another thread was given up; only while stopping.
    Gone,
}

/// Hears about batches and passes on those that have arrived.
struct Settled {
    /// The letters of the batches that are handed out.
    open: Mutex<BTreeMap<u64, Vec<Id>>>,
    arrived: mpsc::Sender<Vec<Id>>,
}

impl Settle for Settled {
    fn settle(&self, token: u64, outcome: Outcome) {
        let letters = self.open.lock().remove(&token);
        if let (Outcome::Delivered, Some(letters)) = (outcome, letters) {
            // There is room for every batch that is handed out.
            let _ = self.arrived.try_send(letters);
        }
    }
}

impl Letters {
    /// The letters `chosen` of `store`. `marker` says so when they have arrived.
    pub fn new(
        store: Store,
        kept: Kept,
        chosen: HashSet<Id>,
        way: Way,
        rate: Option<f64>,
        mut marker: Marker,
        progress: Arc<Progress>,
    ) -> Self {
        let (arrived, mut arriving) = mpsc::channel::<Vec<Id>>(OPEN_MAX);
        let noted = progress.clone();
        let marking = tokio::task::spawn_blocking(move || {
            while let Some(mut letters) = arriving.blocking_recv() {
                while let Ok(more) = arriving.try_recv() {
                    letters.extend(more);
                }
                match marker.mark(&letters) {
                    Ok(()) => drop(noted.marked.fetch_add(letters.len() as u64, Ordering::Relaxed)),
                    Err(error) => {
                        noted.fault(format!("{error}; {} letters stay open and may be sent again", letters.len()))
                    }
                }
            }
        });
        Self {
            state: State::Closed(store),
            kept,
            chosen,
            way,
            rate,
            next_at: Instant::now(),
            waiting: None,
            progress,
            settled: Arc::new(Settled { open: Mutex::default(), arrived }),
            marking: Some(marking),
            token: 0,
        }
    }

    /// How many letters the next batch may have.
    fn batch_max(&self) -> usize {
        // Ten batches a second, so that a slow rate is smooth.
        self.rate.map_or(BATCH_MAX, |rate| ((rate / 10.0) as usize).clamp(1, BATCH_MAX))
    }
}

/// What all letters of one batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Common {
    input: String,
    output: Option<String>,
    part: Option<u32>,
}

impl Common {
    fn of(letter: &Envelope, way: Way) -> Self {
        let output = match way {
            Way::Steps { everywhere: false } => letter.stage.strip_prefix("outputs.").map(str::to_owned),
            _ => None,
        };
        // What failed in a condition went to no output.
        let output = output.filter(|label| !label.ends_with(".when"));
        let part = letter.part.filter(|_| matches!(way, Way::Steps { .. }));
        Self { input: letter.source.input.clone(), output, part }
    }
}

/// Reads on until a batch is full, the next letter does not fit in with it, or the store ends. Answers what is left over.
fn gather(
    reader: &mut Reader,
    waiting: Option<Stored>,
    chosen: &HashSet<Id>,
    kept: &Kept,
    progress: &Progress,
    (way, max): (Way, usize),
) -> Result<(Vec<Stored>, Option<Stored>), StoreError> {
    let (mut batch, mut bytes): (Vec<Stored>, usize) = (Vec::new(), 0);
    let mut next = waiting;
    while batch.len() < max && bytes < BATCH_BYTES {
        let letter = match next.take() {
            Some(letter) => letter,
            None => match reader.next() {
                None => break,
                Some(Ok(Found::Letter(letter))) if chosen.contains(&letter.id) => *letter,
                Some(Ok(_)) => continue,
                // What was read goes first; the fault comes again.
                Some(Err(_)) if !batch.is_empty() => break,
                Some(Err(error)) => return Err(error),
            },
        };
        let fits =
            batch.first().is_none_or(|first| Common::of(&first.envelope, way) == Common::of(&letter.envelope, way));
        if !fits {
            return Ok((batch, Some(letter)));
        }
        let mut letter = letter;
        if let Err(why) = kept.fill(&mut letter.envelope) {
            progress.without.fetch_add(1, Ordering::Relaxed);
            progress.fault(format!("letter {}: {why}", letter.id));
            continue;
        }
        bytes += letter.json.len();
        batch.push(letter);
    }
    Ok((batch, None))
}

/// The messages as they were received.
fn messages(letters: &[Stored], way: Way) -> Result<Batch, crate::message::ArenaFull> {
    let common = Common::of(&letters[0].envelope, way);
    let mut source = SourceBuilder::new(common.input.as_str());
    let mut captures = Captures::default();
    let mut before = Vec::with_capacity(letters.len());
    for Stored { envelope, .. } in letters {
        let received = &envelope.source;
        let past = envelope.before();
        source.push(&envelope.payload().unwrap_or_default(), |origin, parts| {
            origin.topic = parts.text(received.topic.as_deref().unwrap_or_default())?;
            origin.key = received.key().map(|key| parts.bytes(&key)).transpose()?;
            (origin.partition, origin.offset) = (received.partition.unwrap_or(-1), received.offset.unwrap_or(-1));
            (origin.timestamp_ms, origin.received_at_ms) = (received.timestamp_ms, received.received_at_ms);
            (origin.qos, origin.retain) = (received.qos.min(2) as u8, received.retain);
            if !received.levels.is_empty() {
                let levels: Vec<_> = received.levels.iter().map(|(name, level)| (name.clone(), *level)).collect();
                let known = captures.filters.iter().position(|filter| *filter == levels);
                let number = known.unwrap_or_else(|| {
                    captures.filters.push(levels);
                    captures.filters.len() - 1
                });
                origin.filter = number as u16;
            }
            for header in &received.headers {
                parts.header(origin, &header.name, &header.bytes())?;
            }
            if way == Way::Source {
                parts.header(origin, REDRIVEN_HEADER, past.as_bytes())?;
            }
            Ok(())
        })?;
        before.push(past);
    }
    let redriven = Redriven { output: common.output, part: common.part, before };
    Ok(Batch::new(source.finish().with_captures(captures.into()).with_redriven(redriven)))
}

#[async_trait]
impl Input for Letters {
    fn replay(&self) -> Replay {
        Replay::Unacknowledged
    }

    async fn connect(&mut self, _: &InputContext) -> Result<(), InputError> {
        if let State::Closed(store) = &self.state {
            let store = store.clone();
            let opened = tokio::task::spawn_blocking(move || store.open()).await;
            let opened = opened.expect("opening a store does not panic");
            self.state = State::Open(opened.map_err(|error| InputError::message(error.to_string()))?);
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<(Batch, Ack)>, InputError> {
        sleep_until(self.next_at).await;
        // Marks come back one by one: what is handed out stays bounded.
        while self.settled.arrived.capacity() <= self.settled.open.lock().len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let State::Open(mut reader) = std::mem::replace(&mut self.state, State::Gone) else { return Ok(None) };
        let (waiting, chosen) = (self.waiting.take(), std::mem::take(&mut self.chosen));
        let (kept, progress, how) = (self.kept.clone(), self.progress.clone(), (self.way, self.batch_max()));
        let gathered = tokio::task::spawn_blocking(move || {
            let gathered = gather(&mut reader, waiting, &chosen, &kept, &progress, how);
            (reader, chosen, gathered)
        });
        let (reader, chosen, gathered) = gathered.await.expect("reading a store does not panic");
        (self.state, self.chosen) = (State::Open(reader), chosen);
        let (letters, left) = gathered.map_err(|error| InputError::message(error.to_string()))?;
        self.waiting = left;
        if letters.is_empty() {
            return Ok(None);
        }
        let batch = messages(&letters, self.way).map_err(|error| InputError::message(error.to_string()))?;
        if let Some(rate) = self.rate {
            self.next_at = self.next_at.max(Instant::now()) + Duration::from_secs_f64(letters.len() as f64 / rate);
        }
        self.token += 1;
        self.progress.sent.fetch_add(letters.len() as u64, Ordering::Relaxed);
        self.settled.open.lock().insert(self.token, letters.iter().map(|letter| letter.id).collect());
        Ok(Some((batch, Ack::new(self.settled.clone(), self.token))))
    }

    async fn close(&mut self, deadline: Duration) {
        self.state = State::Gone;
        // Without its sender the task marks what is left, and ends.
        self.settled = Arc::new(Settled { open: Mutex::default(), arrived: mpsc::channel(1).0 });
        if let Some(marking) = self.marking.take() {
            let _ = tokio::time::timeout(deadline, marking).await;
        }
    }
}
