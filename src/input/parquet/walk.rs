//! Goes through the files of an archive, picks what is wanted, and cuts it into batches.
use std::{collections::HashSet, fmt, io, ops::Range, path::PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::ledger::{About, Position};
use crate::{
    archive::{Chunk, Part, Place, ReadError, rows},
    client::mqtt::topic::Filter,
    input::{Cuts, InputError, TopicNames},
    message::{Source, SourceBuilder},
};

/// Which messages of an archive are wanted.
#[derive(Clone, Debug)]
pub struct Selection {
    pub place: Place,
    /// When they were received, Unix milliseconds.
    pub time: Range<i64>,
    /// As they were written.
    topics: Vec<(String, Filter)>,
    /// All when empty.
    pub keys: Vec<Vec<u8>>,
    pub limit: Option<u64>,
}

impl Selection {
    /// Everything in `place`.
    pub fn all(place: Place) -> Self {
        Self { place, time: i64::MIN..i64::MAX, topics: Vec::new(), keys: Vec::new(), limit: None }
    }

    /// Only messages received at `text` or later.
    ///
    /// # Errors
    /// It is no time.
    pub fn from(&mut self, text: &str) -> Result<(), String> {
        self.time.start = time(text)?;
        Ok(())
    }

    /// Only messages received before `text`.
    ///
    /// # Errors
    /// It is no time.
    pub fn to(&mut self, text: &str) -> Result<(), String> {
        self.time.end = time(text)?;
        Ok(())
    }

    /// Also messages of topics that match `filter`.
    ///
    /// # Errors
    /// It is no topic filter.
    pub fn topic(&mut self, filter: &str) -> Result<(), String> {
        let parsed = Filter::parse(filter).map_err(|reason| format!("`{filter}` is no topic filter: {reason}"))?;
        self.topics.push((filter.to_owned(), parsed));
        Ok(())
    }

    /// A name for what is wanted, apart from where it is looked for and how many.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        let topics: Vec<_> = self.topics.iter().map(|(text, _)| text).collect();
        hash.update(format!("{:?} {topics:?} {:?}", self.time, self.keys));
        hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn wants(&self, chunk: &Chunk, index: usize) -> bool {
        let is_topic = || {
            let topic = chunk.topic(index);
            self.topics.iter().any(|(text, filter)| filter.matches(topic) || text == topic)
        };
        self.time.contains(&chunk.received_at_ms[index])
            && (self.topics.is_empty() || is_topic())
            && (self.keys.is_empty()
                || chunk.key(index).is_some_and(|key| self.keys.iter().any(|wanted| wanted == key)))
    }
}

/// Unix milliseconds of a day or a time.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let civil = text.parse::<jiff::civil::DateTime>().or_else(|_| text.parse::<jiff::civil::Date>().map(Into::into));
    let utc = civil.ok().and_then(|civil| jiff::tz::TimeZone::UTC.to_timestamp(civil).ok());
    utc.map(|time| time.as_millisecond())
        .ok_or_else(|| format!("`{text}` is no time; write a day, `2026-11-24`, or a time, `2026-11-24T08:00:00Z`"))
}

/// The files that have to be looked at.
#[derive(Debug, Default)]
pub struct Plan {
    parts: Vec<Part>,
    /// For each: messages in those before it.
    before: Vec<u64>,
    rows: u64,
}

/// A file that is no part of an archive.
#[derive(Debug)]
pub struct Unreadable {
    pub path: PathBuf,
    pub error: ReadError,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path.display(), self.error)
    }
}

impl Plan {
    /// Looks which files may hold what is wanted, and answers those that cannot be read too. Blocks; a store needs the
    /// runtime of the caller.
    ///
    /// # Errors
    /// The folder or store cannot be read.
    pub fn make(selection: &Selection) -> Result<(Self, Vec<Unreadable>), InputError> {
        let failed = |error: io::Error| InputError::new(format!("cannot read `{}`", selection.place), error);
        let (mut plan, mut unreadable) = (Self::default(), Vec::new());
        let mut parts = selection.place.list().map_err(failed)?;
        let time = &selection.time;
        parts.retain(|part| {
            let starts = part.hour.map(|hour| hour * 3_600_000);
            starts.is_none_or(|start| start < time.end && start + 3_600_000 > time.start)
        });
        let rows = rows(&parts, time);
        for (part, rows) in parts.into_iter().zip(rows) {
            match rows {
                Ok(rows) => {
                    plan.before.push(plan.rows);
                    plan.rows += rows;
                    plan.parts.push(part);
                }
                // A store that does not answer says nothing of its files: none of them may be left out for that.
                Err(ReadError::Io(error)) if part.is_object() => return Err(failed(error)),
                Err(error) => unreadable.push(Unreadable { path: part.path, error }),
            }
        }
        Ok((plan, unreadable))
    }

    /// How many files.
    pub fn files(&self) -> usize {
        self.parts.len()
    }

    /// How many messages they hold, wanted or not.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts what is wanted by reading all of it: messages and bytes of payload.
    ///
    /// # Errors
    /// A file is broken.
    pub fn count(&self, selection: &Selection) -> Result<(u64, u64), Unreadable> {
        let (mut messages, mut bytes) = (0, 0);
        for part in &self.parts {
            let failed = |error| Unreadable { path: part.path.clone(), error };
            let mut reader = part.open(&selection.time).map_err(failed)?;
            while let Some(chunk) = reader.next_chunk().map_err(failed)? {
                for index in (0..chunk.len()).filter(|&index| selection.wants(&chunk, index)) {
                    if selection.limit.is_some_and(|limit| messages >= limit) {
                        return Ok((messages, bytes));
                    }
                    messages += 1;
                    bytes += chunk.payload_len(index) as u64;
                }
            }
        }
        Ok((messages, bytes))
    }

    pub(super) fn position(&self, part: usize, row: u64) -> Position {
        Position { hour: self.parts[part].hour, name: self.parts[part].name.clone(), row }
    }

    /// Messages before a position, about: numbers within a file count what its statistics have ruled out, too.
    pub(super) fn rows_before(&self, position: &Position) -> u64 {
        let at = self.parts.partition_point(|part| key(part) < (position.hour, position.name.as_str()));
        let before = self.before.get(at).copied().unwrap_or(self.rows);
        let is_there = self.parts.get(at).is_some_and(|part| part.name == position.name);
        let end = self.before.get(at + 1).copied().unwrap_or(self.rows);
        if is_there { (before + position.row).min(end) } else { before }
    }

    /// The name of a range of messages: of the file, the rows and what is wanted of them.
    pub(super) fn name(&self, selection: &Selection, part: usize, first: u64, end: u64) -> String {
        format!("archive/{}/{}/{first}-{end}", self.parts[part].name, selection.id())
    }
}

fn key(part: &Part) -> (Option<i64>, &str) {
    (part.hour, part.name.as_str())
}

/// Messages of one file that are handed out together.
pub(super) struct Piece {
    /// `None` when nothing was wanted.
    pub source: Option<Source>,
    pub part: usize,
    /// The first message that was looked at, and one past the last.
    pub first: u64,
    pub end: u64,
    /// How many are wanted.
    pub messages: u64,
}

/// Into so many pieces a range is divided.
pub(super) const PIECES: u64 = 16;

/// A walk through all files.
pub(super) struct Walk {
    pub selection: std::sync::Arc<Selection>,
    pub plan: std::sync::Arc<Plan>,
    pub names: Option<TopicNames>,
    /// Where recorded ranges end.
    pub cuts: Option<Cuts>,
    /// Most messages of a batch, for the sake of a slow pace.
    pub slow: Option<usize>,
    pub from: Option<Position>,
    /// Names of ranges that go out in pieces.
    pub divided: HashSet<String>,
}

/// Whoever takes the pieces has gone.
struct Gone;

/// Why a walk ends early.
enum Stop {
    Gone,
    Failed(Unreadable),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Walk {
    /// Sends all pieces in order, then hangs up. Blocks while they are not taken.
    pub fn run(self, to: &mpsc::Sender<Result<Piece, InputError>>) {
        let mut left = self.selection.limit.unwrap_or(u64::MAX);
        for part in 0..self.plan.parts.len() {
            let start = match &self.from {
                Some(from) if key(&self.plan.parts[part]) < (from.hour, from.name.as_str()) => continue,
                Some(from) if self.plan.parts[part].name == from.name => from.row,
                _ => 0,
            };
            match self.part(part, start, &mut left, to) {
                Ok(()) => {}
                Err(Stop::Gone) => return,
                Err(Stop::Failed(unreadable)) => {
                    let _ = to.blocking_send(Err(InputError::message(unreadable.to_string())));
                    return;
                }
            }
            if left == 0 {
                return;
            }
        }
    }

    fn part(
        &self,
        part: usize,
        start: u64,
        left: &mut u64,
        to: &mpsc::Sender<Result<Piece, InputError>>,
    ) -> Result<(), Stop> {
        let bounds = match self.cuts {
            Some(Cuts { messages_max, bytes_max, .. }) => (messages_max, bytes_max),
            None => (self.slow.unwrap_or(usize::MAX), usize::MAX),
        };
        let bounds = (bounds.0.max(1), bounds.1);
        let mut cutter = Cutter::new(part, start, bounds, self.names.as_ref());
        let is_recorded = self.cuts.is_some();
        let mut send = |piece: Piece| self.hand_out(piece, to);
        read(&self.plan.parts[part], &self.selection, start..u64::MAX, left, &mut cutter, !is_recorded, &mut send)
    }

    /// A range that had to be divided once is divided for good, so that its pieces have the same names again.
    fn hand_out(&self, piece: Piece, to: &mpsc::Sender<Result<Piece, InputError>>) -> Result<(), Stop> {
        let about = About::from(&piece);
        let is_divided = self.cuts.is_some()
            && !self.divided.is_empty()
            && piece.messages > 1
            && self.divided.contains(&self.plan.name(&self.selection, about.part, about.first, about.end));
        if !is_divided {
            return to.blocking_send(Ok(piece)).map_err(|_| Stop::Gone);
        }
        let divided = read_pieces(&self.plan, &self.selection, self.names.as_ref(), about, PIECES);
        divided.map_err(Stop::Failed)?.into_iter().try_for_each(|piece| self.hand_out(piece, to))
    }
}

/// A range once more, in about so many pieces.
pub(super) fn pieces(
    plan: &Plan,
    selection: &Selection,
    names: Option<&TopicNames>,
    about: About,
    into: u64,
) -> Result<Vec<Piece>, InputError> {
    read_pieces(plan, selection, names, about, into).map_err(|unreadable| InputError::message(unreadable.to_string()))
}

fn read_pieces(
    plan: &Plan,
    selection: &Selection,
    names: Option<&TopicNames>,
    about: About,
    into: u64,
) -> Result<Vec<Piece>, Unreadable> {
    let most = usize::try_from(about.messages.div_ceil(into)).unwrap_or(usize::MAX).max(1);
    let mut cutter = Cutter::new(about.part, about.first, (most, usize::MAX), names);
    let (mut pieces, mut left) = (Vec::new(), about.messages);
    let mut keep = |piece| {
        pieces.push(piece);
        Ok(())
    };
    let range = about.first..about.end;
    match read(&plan.parts[about.part], selection, range, &mut left, &mut cutter, false, &mut keep) {
        Ok(()) => Ok(pieces),
        Err(Stop::Failed(unreadable)) => Err(unreadable),
        Err(Stop::Gone) => unreachable!("they are kept here"),
    }
}

/// Reads the messages `rows` of a file, at most `left` of those that are wanted. `flush` says that what one chunk brought
/// goes out at once.
fn read(
    part: &Part,
    selection: &Selection,
    rows: Range<u64>,
    left: &mut u64,
    cutter: &mut Cutter<'_>,
    flush: bool,
    send: &mut dyn FnMut(Piece) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let failed = |error: ReadError| Stop::Failed(Unreadable { path: part.path.clone(), error });
    let mut reader = part.open(&selection.time).map_err(failed)?;
    reader.skip_to(rows.start);
    'file: while let Some(chunk) = reader.next_chunk().map_err(failed)? {
        for index in 0..chunk.len() {
            let row = chunk.first + index as u64;
            if row < rows.start {
                continue;
            }
            if row >= rows.end || *left == 0 {
                break 'file;
            }
            if selection.wants(&chunk, index) {
                *left -= 1;
                if let Some(piece) = cutter.push(&chunk, index, row) {
                    send(piece)?;
                }
            }
            cutter.end = row + 1;
            if let Some(piece) = cutter.full() {
                send(piece)?;
            }
        }
        if flush && let Some(piece) = cutter.take() {
            send(piece)?;
        }
    }
    // Also when nothing of it was wanted: it is done.
    cutter.take().map_or(Ok(()), send)
}

/// Gathers messages of one file until a bound is reached.
struct Cutter<'a> {
    part: usize,
    /// The first message that was looked at since the last cut, and one past the last.
    first: u64,
    end: u64,
    messages_max: usize,
    bytes_max: usize,
    names: Option<&'a TopicNames>,
    input: String,
    source: Option<SourceBuilder>,
}

impl<'a> Cutter<'a> {
    fn new(part: usize, first: u64, (messages_max, bytes_max): (usize, usize), names: Option<&'a TopicNames>) -> Self {
        Self { part, first, end: first, messages_max, bytes_max, names, input: String::new(), source: None }
    }

    /// Adds a message. Answers what was gathered before when that came from another input, or an arena is full.
    fn push(&mut self, chunk: &Chunk, index: usize, row: u64) -> Option<Piece> {
        let input = chunk.input(index);
        let before = if self.source.is_some() && self.input != input { self.take() } else { None };
        let filter = self.names.map_or(u16::MAX, |names| names.filter(chunk.topic(index)));
        if self.source.is_none() {
            input.clone_into(&mut self.input);
        }
        let source = self.source.get_or_insert_with(|| SourceBuilder::new(input));
        if chunk.push_to(index, filter, source).is_ok() {
            return before;
        }
        // Past 4 GiB, which bounds and budgets never let happen but for a single huge message.
        self.end = row;
        let full = self.take();
        let source = self.source.get_or_insert_with(|| SourceBuilder::new(input));
        chunk.push_to(index, filter, source).expect("one message fits into an arena: it was read into one");
        full
    }

    /// What was gathered, when a bound is reached.
    fn full(&mut self) -> Option<Piece> {
        let source = self.source.as_ref()?;
        let is_full = source.len() >= self.messages_max || source.bytes() >= self.bytes_max;
        is_full.then(|| self.take()).flatten()
    }

    /// What was gathered; `None` when nothing was looked at.
    fn take(&mut self) -> Option<Piece> {
        if self.end == self.first {
            return None;
        }
        let source = self.source.take();
        let messages = source.as_ref().map_or(0, SourceBuilder::len) as u64;
        let finish = |source: SourceBuilder| {
            let source = source.finish();
            match self.names {
                Some(names) => source.with_captures(names.captures.clone()),
                None => source,
            }
        };
        let piece = Piece { source: source.map(finish), part: self.part, first: self.first, end: self.end, messages };
        self.first = self.end;
        Some(piece)
    }
}
