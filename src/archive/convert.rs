//! A segment becomes Parquet files, one for each hour of it.
//!
//! Files are written beside the segments and renamed into place; their names follow from the segment's. Whoever does it
//! again after a crash replaces each file by the same one.
use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, SortingColumn},
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};

use super::{
    Row, SEGMENTS, VERSION, VERSION_KEY,
    segment::{Content, Spot},
};

/// Columns, in order. Optional ones are empty where the input has no such thing.
const SCHEMA: &str = "message archive {
    REQUIRED BYTE_ARRAY topic (UTF8);
    OPTIONAL BYTE_ARRAY key;
    OPTIONAL INT32 partition;
    OPTIONAL INT64 offset;
    OPTIONAL INT64 timestamp (TIMESTAMP(MILLIS,true));
    REQUIRED INT64 received_at (TIMESTAMP(MILLIS,true));
    REQUIRED group headers (LIST) {
        REPEATED group list {
            REQUIRED group element { REQUIRED BYTE_ARRAY name (UTF8); REQUIRED BYTE_ARRAY value; }
        }
    }
    REQUIRED INT32 qos (INTEGER(8,false));
    REQUIRED BOOLEAN retain;
    REQUIRED BYTE_ARRAY pipeline (UTF8);
    REQUIRED BYTE_ARRAY input (UTF8);
    REQUIRED BYTE_ARRAY payload;
}";
/// Number of `received_at`, by which files are sorted.
const RECEIVED_AT: i32 = 5;

/// A row group is closed at this many bytes of messages, or at this many messages. It is what is held in memory at once.
const GROUP_BYTES: u64 = 8 << 20;
const GROUP_ROWS: usize = 128 << 10;

/// Writes the Parquet files of a segment and hands each to `place` with the name that it has in the archive. Answers how
/// many.
///
/// # Errors
/// One cannot be written or placed; nothing is lost, the segment is still there.
pub(super) fn convert(
    folder: &Path,
    id: &str,
    content: &mut Content,
    place: &dyn Fn(&Path, &str) -> io::Result<()>,
) -> io::Result<usize> {
    // Stable: messages of the same millisecond stay in the order they came.
    content.rows.sort_by_key(|spot| spot.received_at_ms);
    let mut files = 0;
    for rows in content.rows.chunk_by(|a, b| hour(a.received_at_ms) == hour(b.received_at_ms)) {
        let part = folder.join(SEGMENTS).join(format!("{id}.part"));
        let file = write(File::create(&part)?, content, rows).map_err(io::Error::other)?;
        file.sync_all()?;
        place(&part, &format!("{}/{id}.parquet", hour_folder(rows[0].received_at_ms)))?;
        files += 1;
    }
    Ok(files)
}

/// Renames a file to its place below `folder`.
pub(super) fn rename(folder: &Path, part: &Path, name: &str) -> io::Result<()> {
    let to = folder.join(name);
    let hour = to.parent().unwrap_or(folder);
    if !hour.is_dir() {
        fs::create_dir_all(hour)?;
        for made in hour.ancestors().skip(1).take(2) {
            File::open(made)?.sync_all()?;
        }
    }
    fs::rename(part, &to)?;
    File::open(hour)?.sync_all()
}

/// A time of the calendar: one beyond it, of a broken clock, counts as its last or first.
fn time(ms: i64) -> jiff::Timestamp {
    let last = if ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::from_millisecond(ms).unwrap_or(last)
}

/// Hours since 1970. Messages of the same hour go to the same file, those of two hours never to one name.
fn hour(ms: i64) -> i64 {
    time(ms).as_second().div_euclid(3600)
}

/// `date=2026-11-24/hour=09`, in UTC.
fn hour_folder(ms: i64) -> String {
    time(ms).strftime("date=%Y-%m-%d/hour=%H").to_string()
}

fn write(file: File, content: &Content, rows: &[Spot]) -> Result<File, ParquetError> {
    let column = |name: &str| ColumnPath::from(name.split('.').map(str::to_owned).collect::<Vec<_>>());
    let version = KeyValue::new(VERSION_KEY.to_owned(), VERSION.to_string());
    let sorting = SortingColumn { column_idx: RECEIVED_AT, descending: false, nulls_first: false };
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(format!("streamer {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(vec![version]))
        .set_sorting_columns(Some(vec![sorting]))
        .set_column_dictionary_enabled(column("payload"), false)
        .set_column_dictionary_enabled(column("offset"), false)
        .set_column_dictionary_enabled(column("received_at"), false)
        .set_column_statistics_enabled(column("payload"), EnabledStatistics::None)
        .set_column_statistics_enabled(column("headers.list.element.value"), EnabledStatistics::None)
        .build();
    let schema = parse_message_type(SCHEMA).expect("the schema is well formed");
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    let mut left = rows;
    while !left.is_empty() {
        let mut bytes = 0;
        let fits = left.iter().take(GROUP_ROWS).take_while(|spot| {
            let goes_on = bytes < GROUP_BYTES;
            bytes += u64::from(spot.length);
            goes_on
        });
        let (group, rest) = left.split_at(fits.count());
        let (bytes, places) = content.load(group)?;
        let group: Option<Vec<Row<'_>>> = places.iter().map(|&at| Row::read(&mut &bytes[at..])).collect();
        let group = group.ok_or_else(|| ParquetError::General("the segment changed while it was read".to_owned()))?;
        write_group(&mut writer, &content.pipeline, &bytes, &group)?;
        left = rest;
    }
    writer.into_inner()
}

/// Columns in the order of the schema.
fn write_group(
    writer: &mut SerializedFileWriter<File>,
    pipeline: &str,
    bytes: &Bytes,
    rows: &[Row<'_>],
) -> Result<(), ParquetError> {
    let bytes = |part: &[u8]| match part {
        [] => ByteArray::from(Bytes::new()),
        part => ByteArray::from(bytes.slice_ref(part)),
    };
    let mut open = writer.next_row_group()?;
    let group = &mut open;
    all::<ByteArrayType>(group, rows.iter().map(|row| bytes(row.topic.as_bytes())))?;
    some::<ByteArrayType>(group, rows.iter().map(|row| row.key.map(bytes)))?;
    some::<Int32Type>(group, rows.iter().map(|row| Some(row.partition).filter(|n| *n >= 0)))?;
    some::<Int64Type>(group, rows.iter().map(|row| Some(row.offset).filter(|n| *n >= 0)))?;
    some::<Int64Type>(group, rows.iter().map(|row| row.timestamp_ms))?;
    all::<Int64Type>(group, rows.iter().map(|row| row.received_at_ms))?;
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for row in rows {
        let levels = defined.len();
        for _ in row.headers {
            defined.push(1);
            repeated.push(i16::from(defined.len() - levels > 1));
        }
        if defined.len() == levels {
            defined.push(0);
            repeated.push(0);
        }
    }
    let headers = rows.iter().flat_map(|row| row.headers);
    let names: Vec<_> = headers.clone().map(|(name, _)| bytes(name.as_bytes())).collect();
    let values: Vec<_> = headers.map(|(_, value)| bytes(value)).collect();
    put::<ByteArrayType>(group, &names, Some(&defined), Some(&repeated))?;
    put::<ByteArrayType>(group, &values, Some(&defined), Some(&repeated))?;
    all::<Int32Type>(group, rows.iter().map(|row| row.qos.into()))?;
    all::<BoolType>(group, rows.iter().map(|row| row.retain))?;
    let pipeline = ByteArray::from(pipeline.as_bytes());
    all::<ByteArrayType>(group, rows.iter().map(|_| pipeline.clone()))?;
    all::<ByteArrayType>(group, rows.iter().map(|row| bytes(row.input.as_bytes())))?;
    all::<ByteArrayType>(group, rows.iter().map(|row| bytes(row.payload)))?;
    open.close().map(drop)
}

type Group<'a> = SerializedRowGroupWriter<'a, File>;

fn all<T: DataType>(group: &mut Group<'_>, values: impl Iterator<Item = T::T>) -> Result<(), ParquetError> {
    put::<T>(group, &values.collect::<Vec<_>>(), None, None)
}

fn some<T: DataType>(group: &mut Group<'_>, values: impl Iterator<Item = Option<T::T>>) -> Result<(), ParquetError> {
    let mut defined = Vec::new();
    let there: Vec<_> = values
        .filter_map(|value| {
            defined.push(i16::from(value.is_some()));
            value
        })
        .collect();
    put::<T>(group, &there, Some(&defined), None)
}

fn put<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has as many columns");
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}
