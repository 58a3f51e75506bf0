//! Reads the messages of one Parquet file, some at a time.
//!
//! Needed are `payload` and `received_at`; a column that a file of an older version lacks is empty. Other tools may have
//! written a file anew: which columns may be null, and the unit of times, is read from the file.
use std::{
    fs::File,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use parquet::{
    basic::{LogicalType, TimeUnit, Type},
    column::reader::{ColumnReaderImpl, get_typed_column_reader},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        reader::{FileReader as _, SerializedFileReader},
        statistics::Statistics,
    },
    schema::types::SchemaDescriptor,
};

use super::{
    VERSION, VERSION_KEY,
    place::{Blob, Unreachable, Window},
    remote::Object,
};
use crate::message::{ArenaFull, Origin, SourceBuilder};

/// Why a file cannot be read as a part of an archive.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file itself.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
    /// Cut off, or not Parquet at all.
    #[error("is no whole Parquet file: {0}")]
    Parquet(ParquetError),
    /// Parquet of somebody else.
    #[error("is no file of an archive: {0}")]
    Foreign(String),
    /// Made by a later streamer.
    #[error("is of version {0} of the archive, this streamer reads up to {VERSION}; use a newer one")]
    Newer(String),
}

impl From<ParquetError> for ReadError {
    fn from(error: ParquetError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if let Some(Unreachable(error)) = error.downcast_ref() {
                return Self::Io(std::io::Error::new(error.kind(), error.to_string()));
            }
            cause = error.source();
        }
        Self::Parquet(error)
    }
}

/// The `parquet` crate panics at some numbers that no writer writes: to us that is one more way to be broken.
fn guarded<T>(read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    let broken = |_| Err(ParquetError::General("its numbers contradict each other".to_owned()).into());
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(broken)
}

/// A file that is read from front to back.
pub struct Reader {
    file: SerializedFileReader<Blob>,
    /// Of an object: what is asked for before it is read.
    window: Option<Window>,
    places: Places,
    /// Row groups that are still to be read, and the number of the first message of each.
    groups: std::vec::IntoIter<(usize, u64)>,
    open: Option<Group>,
}

/// Messages that stand one after the other in a file.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Number of the first one in the file.
    pub first: u64,
    pub received_at_ms: Vec<i64>,
    topic: Vec<Option<ByteArray>>,
    key: Vec<Option<ByteArray>>,
    partition: Vec<Option<i32>>,
    offset: Vec<Option<i64>>,
    timestamp_ms: Vec<Option<i64>>,
    headers: Vec<Vec<(ByteArray, ByteArray)>>,
    qos: Vec<Option<i32>>,
    retain: Vec<Option<bool>>,
    input: Vec<Option<ByteArray>>,
    payload: Vec<Option<ByteArray>>,
}

/// Which column of the file is which.
struct Places {
    topic: Option<usize>,
    key: Option<usize>,
    partition: Option<usize>,
    offset: Option<usize>,
    timestamp: Option<usize>,
    received_at: usize,
    headers: Option<(usize, usize)>,
    qos: Option<usize>,
    retain: Option<usize>,
    input: Option<usize>,
    payload: usize,
    /// So many units of `received_at` and `timestamp` are a millisecond.
    units: (i64, i64),
}

/// A row group that is read.
struct Group {
    /// Number of the next message in the file.
    next: u64,
    end: u64,
    /// Most messages of one chunk.
    step: usize,
    topic: Option<Column<ByteArrayType>>,
    key: Option<Column<ByteArrayType>>,
    partition: Option<Column<Int32Type>>,
    offset: Option<Column<Int64Type>>,
    timestamp: Option<Column<Int64Type>>,
    received_at: Column<Int64Type>,
    headers: Option<(Column<ByteArrayType>, Column<ByteArrayType>)>,
    qos: Option<Column<Int32Type>>,
    retain: Option<Column<BoolType>>,
    input: Option<Column<ByteArrayType>>,
    payload: Column<ByteArrayType>,
}

/// A chunk holds about so many bytes, and so many messages at most.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_ROWS: usize = 4096;

impl Reader {
    /// Opens a file. Row groups without a message received in `time` are left out.
    ///
    /// # Errors
    /// It is no file of an archive that this version knows.
    pub fn open(path: &Path, time: &Range<i64>) -> Result<Self, ReadError> {
        Self::of(Blob::File(File::open(path).map_err(ReadError::Io)?), time)
    }

    /// The same for an object.
    pub(super) fn of_object(object: &Object, time: &Range<i64>) -> Result<Self, ReadError> {
        Self::of(Blob::of_object(object.clone()), time)
    }

    fn of(file: Blob, time: &Range<i64>) -> Result<Self, ReadError> {
        guarded(|| Self::begin(file, time))
    }

    fn begin(file: Blob, time: &Range<i64>) -> Result<Self, ReadError> {
        let window = file.window();
        let file = SerializedFileReader::new(file)?;
        let metadata = file.metadata();
        let about = metadata.file_metadata();
        let version = about.key_value_metadata().into_iter().flatten().find(|kv| kv.key == VERSION_KEY);
        if let Some(version) = version.and_then(|kv| kv.value.as_ref()) {
            if version.parse().is_ok_and(|version: u32| version <= VERSION) {
            } else {
                return Err(ReadError::Newer(version.clone()));
            }
        }
        let places = Places::find(about.schema_descr())?;
        let mut groups = Vec::new();
        let mut first = 0;
        for (index, group) in metadata.row_groups().iter().enumerate() {
            if may_hold(group, &places, time) {
                groups.push((index, first));
            }
            first += u64::try_from(group.num_rows()).unwrap_or(0);
        }
        Ok(Self { file, window, places, groups: groups.into_iter(), open: None })
    }

    /// How many messages the row groups hold that are still to be read.
    pub fn rows(&self) -> u64 {
        let rows = |index: usize| u64::try_from(self.file.metadata().row_group(index).num_rows()).unwrap_or(0);
        self.groups.as_slice().iter().map(|&(index, _)| rows(index)).sum()
    }

    /// Leaves out what stands before message number `first`, as far as whole row groups do.
    pub fn skip_to(&mut self, first: u64) {
        let rows = |index: usize| u64::try_from(self.file.metadata().row_group(index).num_rows()).unwrap_or(0);
        let left: Vec<_> =
            self.groups.as_slice().iter().copied().filter(|&(index, start)| start + rows(index) > first).collect();
        self.groups = left.into_iter();
    }

    /// The next messages, `None` at the end.
    ///
    /// # Errors
    /// The file is broken.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        guarded(|| self.next())
    }

    fn next(&mut self) -> Result<Option<Chunk>, ReadError> {
        loop {
            if let Some(group) = &mut self.open
                && let Some(chunk) = group.read(self.places.units)?
            {
                return Ok(Some(chunk));
            }
            let Some((index, first)) = self.groups.next() else { return Ok(None) };
            if let Some(window) = &self.window {
                let columns = self.file.metadata().row_group(index).columns().iter();
                let ranges = columns.map(ColumnChunkMetaData::byte_range);
                let bounds = ranges.map(|(start, length)| (start, start.saturating_add(length)));
                let (start, end) = bounds.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
                window.ahead(start..end)?;
            }
            self.open = Some(Group::open(&self.file, &self.places, index, first)?);
        }
    }
}

impl Chunk {
    /// How many messages.
    pub fn len(&self) -> usize {
        self.received_at_ms.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.received_at_ms.is_empty()
    }

    /// The topic of a message; empty when it has none.
    pub fn topic(&self, index: usize) -> &str {
        self.topic[index].as_ref().and_then(|text| text.as_utf8().ok()).unwrap_or("")
    }

    /// The key of a message.
    pub fn key(&self, index: usize) -> Option<&[u8]> {
        self.key[index].as_ref().map(ByteArray::data)
    }

    /// Name of the component that read a message.
    pub fn input(&self, index: usize) -> &str {
        self.input[index].as_ref().and_then(|text| text.as_utf8().ok()).unwrap_or("")
    }

    /// Bytes of a message's payload.
    pub fn payload_len(&self, index: usize) -> usize {
        self.payload[index].as_ref().map_or(0, ByteArray::len)
    }

    /// Adds a message as it was received; `filter` is the number of the topic filter with names that it matches.
    ///
    /// # Errors
    /// `ArenaFull` past 4 GiB.
    pub fn push_to(&self, index: usize, filter: u16, source: &mut SourceBuilder) -> Result<(), ArenaFull> {
        let payload = self.payload[index].as_ref().map(ByteArray::data).unwrap_or_default();
        source.push(payload, |origin: &mut Origin, parts| {
            origin.topic = parts.text(self.topic(index))?;
            origin.key = self.key(index).map(|key| parts.bytes(key)).transpose()?;
            origin.filter = filter;
            origin.partition = self.partition[index].unwrap_or(-1);
            origin.offset = self.offset[index].unwrap_or(-1);
            origin.timestamp_ms = self.timestamp_ms[index];
            origin.received_at_ms = self.received_at_ms[index];
            origin.qos = self.qos[index].and_then(|qos| u8::try_from(qos).ok()).unwrap_or(0);
            origin.retain = self.retain[index].unwrap_or(false);
            for (name, value) in &self.headers[index] {
                parts.header(origin, name.as_utf8().unwrap_or(""), value.data())?;
            }
            Ok(())
        })
    }
}

impl Places {
    fn find(schema: &SchemaDescriptor) -> Result<Self, ReadError> {
        let mut fault = None;
        let mut find = |path: &str, is: Type| {
            let at = schema.columns().iter().position(|column| column.path().string() == path)?;
            let column = schema.column(at);
            if column.physical_type() == is {
                return Some(at);
            }
            let found = column.physical_type();
            fault = Some(format!("its column `{path}` is of type {found}, not {is}"));
            None
        };
        let names = ["headers.list.element", "headers.list.item", "headers.bag.array_element"];
        let headers = names.iter().find_map(|path| {
            let name = find(&format!("{path}.name"), Type::BYTE_ARRAY)?;
            Some((name, find(&format!("{path}.value"), Type::BYTE_ARRAY)?))
        });
        let (received_at, payload) = (find("received_at", Type::INT64), find("payload", Type::BYTE_ARRAY));
        let mut places = Self {
            topic: find("topic", Type::BYTE_ARRAY),
            key: find("key", Type::BYTE_ARRAY),
            partition: find("partition", Type::INT32),
            offset: find("offset", Type::INT64),
            timestamp: find("timestamp", Type::INT64),
            received_at: received_at.unwrap_or_default(),
            headers,
            qos: find("qos", Type::INT32),
            retain: find("retain", Type::BOOLEAN),
            input: find("input", Type::BYTE_ARRAY),
            payload: payload.unwrap_or_default(),
            units: (1, 1),
        };
        if let Some(fault) = fault {
            return Err(ReadError::Foreign(fault));
        }
        for (name, found) in [("received_at", received_at), ("payload", payload)] {
            if found.is_none() {
                return Err(ReadError::Foreign(format!("it has no column `{name}`")));
            }
        }
        let unit = |at: usize| match schema.column(at).logical_type_ref() {
            Some(LogicalType::Timestamp(time)) => match time.unit {
                TimeUnit::MILLIS => 1,
                TimeUnit::MICROS => 1_000,
                TimeUnit::NANOS => 1_000_000,
            },
            _ => 1,
        };
        places.units = (unit(places.received_at), places.timestamp.map_or(1, unit));
        Ok(places)
    }
}

/// Whether a row group may hold a message received in `time`.
fn may_hold(group: &RowGroupMetaData, places: &Places, time: &Range<i64>) -> bool {
    let Some(Statistics::Int64(found)) = group.column(places.received_at).statistics() else { return true };
    let (Some(min), Some(max)) = (found.min_opt(), found.max_opt()) else { return true };
    min / places.units.0 < time.end && max / places.units.0 >= time.start
}

impl Group {
    fn open(file: &SerializedFileReader<Blob>, places: &Places, index: usize, first: u64) -> Result<Self, ReadError> {
        let group = file.get_row_group(index)?;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let bytes = usize::try_from(group.metadata().total_byte_size()).unwrap_or(0);
        let each = (bytes / rows.max(1)).max(1);
        let open = |at: usize| -> Result<(_, i16), ParquetError> {
            Ok((group.get_column_reader(at)?, group.metadata().schema_descr().column(at).max_def_level()))
        };
        // One for each type: a closure has no type of its own to give.
        macro_rules! column {
            ($at:expr) => {
                $at.map(|at| open(at).map(Column::new)).transpose()?
            };
        }
        Ok(Self {
            next: first,
            end: first + rows as u64,
            step: (CHUNK_BYTES / each).clamp(1, CHUNK_ROWS),
            topic: column!(places.topic),
            key: column!(places.key),
            partition: column!(places.partition),
            offset: column!(places.offset),
            timestamp: column!(places.timestamp),
            received_at: Column::new(open(places.received_at)?),
            headers: match places.headers {
                Some((name, value)) => Some((Column::new(open(name)?), Column::new(open(value)?))),
                None => None,
            },
            qos: column!(places.qos),
            retain: column!(places.retain),
            input: column!(places.input),
            payload: Column::new(open(places.payload)?),
        })
    }

    fn read(&mut self, units: (i64, i64)) -> Result<Option<Chunk>, ReadError> {
        let rows = self.step.min((self.end - self.next) as usize);
        if rows == 0 {
            return Ok(None);
        }
        let whole = |received_at: Option<i64>| received_at.unwrap_or_default() / units.0;
        let chunk = Chunk {
            first: self.next,
            received_at_ms: self.received_at.read(rows)?.into_iter().map(whole).collect(),
            topic: read(&mut self.topic, rows)?,
            key: read(&mut self.key, rows)?,
            partition: read(&mut self.partition, rows)?,
            offset: read(&mut self.offset, rows)?,
            timestamp_ms: read(&mut self.timestamp, rows)?.into_iter().map(|ms| ms.map(|ms| ms / units.1)).collect(),
            headers: match &mut self.headers {
                Some((names, values)) => pairs(names.read_lists(rows)?, values.read_lists(rows)?),
                None => vec![Vec::new(); rows],
            },
            qos: read(&mut self.qos, rows)?,
            retain: read(&mut self.retain, rows)?,
            input: read(&mut self.input, rows)?,
            payload: self.payload.read(rows)?,
        };
        self.next += rows as u64;
        Ok(Some(chunk))
    }
}

/// One column of a row group.
struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    max_def: i16,
}

impl<T: DataType> Column<T> {
    fn new((reader, max_def): (parquet::column::reader::ColumnReader, i16)) -> Self {
        Self { reader: get_typed_column_reader(reader), max_def }
    }

    /// Values of the next `rows` messages, `None` for null.
    fn read(&mut self, rows: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
        let (mut values, mut defined) = (Vec::new(), Vec::new());
        let (read, ..) = self.reader.read_records(rows, Some(&mut defined), None, &mut values)?;
        short(rows, read)?;
        if self.max_def == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let value = |level| if level == self.max_def { values.next() } else { None };
        Ok(defined.into_iter().map(value).collect())
    }

    /// For each of the next `rows` messages its list, `None` for an element that is null.
    fn read_lists(&mut self, rows: usize) -> Result<Vec<Vec<Option<T::T>>>, ParquetError> {
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        let (read, ..) = self.reader.read_records(rows, Some(&mut defined), Some(&mut repeated), &mut values)?;
        short(rows, read)?;
        let mut values = values.into_iter();
        let mut lists: Vec<Vec<Option<T::T>>> = Vec::with_capacity(rows);
        for (level, repeat) in defined.into_iter().zip(repeated) {
            if repeat == 0 {
                lists.push(Vec::new());
            }
            let list = lists.last_mut().ok_or_else(|| ParquetError::General("a list has no beginning".to_owned()))?;
            list.push(if level == self.max_def { values.next() } else { None });
        }
        Ok(lists)
    }
}

fn short(rows: usize, read: usize) -> Result<(), ParquetError> {
    if read == rows {
        return Ok(());
    }
    Err(ParquetError::General(format!("a column ends {} messages before the others", rows - read)))
}

fn read<T: DataType>(column: &mut Option<Column<T>>, rows: usize) -> Result<Vec<Option<T::T>>, ParquetError> {
    column.as_mut().map_or_else(|| Ok(vec![None; rows]), |column| column.read(rows))
}

/// Headers have a name; one without a value has an empty one.
fn pairs(names: Vec<Vec<Option<ByteArray>>>, values: Vec<Vec<Option<ByteArray>>>) -> Vec<Vec<(ByteArray, ByteArray)>> {
    let pair = |(name, value): (Option<ByteArray>, Option<ByteArray>)| {
        Some((name?, value.unwrap_or_else(|| ByteArray::from(Vec::new()))))
    };
    names
        .into_iter()
        .zip(values)
        .map(|(names, values)| names.into_iter().zip(values).filter_map(pair).collect())
        .collect()
}
