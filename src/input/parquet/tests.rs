//! Archives that a test has made, read back.
use std::path::Path;

use super::*;
use crate::{
    ack::Ack,
    archive::{Keep, Settings, Store, frames},
    input::tests::context,
    message::SourceBuilder,
    metrics::FileMetrics,
};

/// The hour 2026-11-24T08:00Z.
const START: i64 = 1_795_507_200_000;

/// An archive of `count` messages, one a minute, of five devices. Number `n` says so in its payload.
fn archive(folder: &Path, count: i64) {
    let settings = Settings {
        folder: folder.to_owned(),
        pipeline: "p".to_owned(),
        roll_bytes: 1 << 20,
        roll_after: Duration::from_secs(3600),
        keep: Keep::default(),
        remote: None,
    };
    let mut source = SourceBuilder::new("mqtt");
    for n in 0..count {
        source
            .push(n.to_string().as_bytes(), |o, parts| {
                o.topic = parts.text(&format!("devices/d{}/telemetry", n % 5))?;
                o.key = (n % 2 == 0).then(|| parts.bytes(&[0xff, n as u8])).transpose()?;
                (o.offset, o.qos, o.received_at_ms) = (n, 1, START + n * 60_000);
                parts.header(o, "n", n.to_string().as_bytes())
            })
            .unwrap();
    }
    let store = Store::open(settings, FileMetrics::detached()).unwrap();
    store.append(&frames(Batch::new(source.finish()).iter(), 0)).unwrap();
    store.close(Duration::from_secs(60));
}

fn input(folder: &Path, yaml: &str) -> Box<dyn Input> {
    let mut section = Section::from_yaml(&format!("path: .\n{yaml}"));
    section.folder = folder.to_owned();
    match build(&section) {
        Ok(input) => input,
        Err(faults) => panic!("{faults:?}"),
    }
}

/// What one batch holds: the name of its range and the numbers in it.
type Seen = (String, Vec<i64>);

async fn next(input: &mut dyn Input) -> Option<(Seen, Ack)> {
    let (batch, ack) = input.read().await.unwrap()?;
    let name = batch.source().recorded().map_or(String::new(), |recorded| recorded.name.clone());
    Some(((name, batch.iter().map(|m| m.origin().offset).collect()), ack))
}

async fn all(input: &mut dyn Input) -> Vec<Seen> {
    let mut seen = Vec::new();
    input.connect(&context()).await.unwrap();
    while let Some((batch, ack)) = next(input).await {
        seen.push(batch);
        ack.delivered();
    }
    seen
}

async fn numbers(folder: &Path, yaml: &str) -> Vec<i64> {
    all(&mut *input(folder, yaml)).await.into_iter().flat_map(|(_, numbers)| numbers).collect()
}

#[tokio::test]
async fn messages_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 150);
    let mut input = input(folder.path(), "limit: 1");
    input.connect(&context()).await.unwrap();
    let (batch, ack) = input.read().await.unwrap().unwrap();
    let message = batch.get(0);
    let origin = message.origin();
    assert_eq!(
        (message.payload(), message.topic(), message.source().input()),
        (&b"0"[..], "devices/d0/telemetry", "mqtt")
    );
    assert_eq!(message.key(), Some(&[0xff, 0][..]));
    assert_eq!((origin.offset, origin.partition, origin.qos, origin.retain), (0, -1, 1, false));
    assert_eq!((origin.received_at_ms, origin.timestamp_ms), (START, None));
    assert_eq!(message.headers().collect::<Vec<_>>(), [("n", &b"0"[..])]);
    ack.delivered();
    assert!(input.read().await.unwrap().is_none());
}

#[tokio::test]
async fn a_selection_is_by_time_topic_key_and_number() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 150);
    let check =
        async |yaml: &str, expected: Vec<i64>| assert_eq!(numbers(folder.path(), yaml).await, expected, "{yaml}");
    check("", (0..150).collect()).await;
    check("from: 2026-11-24T08:58:00Z\nto: 2026-11-24T09:02:00Z", vec![58, 59, 60, 61]).await;
    check("from: 2026-11-24\nto: 2026-11-25\nlimit: 3", vec![0, 1, 2]).await;
    check("to: 2026-11-24", vec![]).await;
    check("from: 2026-11-25", vec![]).await;
    check("topics: devices/d3/#\nto: 2026-11-24T08:10:00", vec![3, 8]).await;
    check("topics: [devices/d3/telemetry, devices/d4/+]\nlimit: 3", vec![3, 4, 8]).await;
    check("keys: no-such-key", vec![]).await;
    let hour = folder.path().join("date=2026-11-24/hour=10");
    assert_eq!(numbers(&hour, "").await, (120..150).collect::<Vec<_>>());
}

#[test]
fn what_is_no_selection_is_said_by_lint() {
    for (yaml, field) in [
        ("from: yesterday", "from"),
        ("to: 2026-13-01", "to"),
        ("topics: a/#/b", "topics"),
        ("rate_per_s: 0", "rate_per_s"),
    ] {
        let faults = build(&Section::from_yaml(&format!("path: x\n{yaml}"))).err().unwrap();
        assert_eq!(faults[0].path, Fault::new("", field, "").path, "{yaml}: {}", faults[0].title);
    }
}

fn ranged(folder: &Path, messages_max: usize, progress: Arc<Progress>) -> Archive {
    let mut input = Archive::new(Selection::all(Place::Folder(folder.to_owned())), None, progress);
    input.record(Cuts { messages_max, bytes_max: 1 << 20, linger: Duration::ZERO });
    input
}

#[tokio::test]
async fn the_same_selection_makes_the_same_ranges() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 150);
    let first = all(&mut ranged(folder.path(), 50, Arc::default())).await;
    assert_eq!(first.iter().map(|(_, numbers)| numbers.len()).collect::<Vec<_>>(), [50, 10, 50, 10, 30]);
    let names: std::collections::BTreeSet<_> = first.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 5);
    assert_eq!(all(&mut ranged(folder.path(), 50, Arc::default())).await, first);
    // One that is interrupted goes on with the ranges that are left, the open one among them.
    let progress = Arc::<Progress>::default();
    let mut input = ranged(folder.path(), 50, progress.clone());
    input.connect(&context()).await.unwrap();
    let (_, ack) = next(&mut input).await.unwrap();
    let (_, lost) = next(&mut input).await.unwrap();
    let (_, later) = next(&mut input).await.unwrap();
    later.delivered();
    drop(lost);
    ack.delivered();
    assert_eq!(progress.counts(), (50, 150, 50));
    let resumed = Arc::new(Progress::resume(progress.position(), progress.divided()));
    assert_eq!(all(&mut ranged(folder.path(), 50, resumed.clone())).await, first[1..]);
    assert_eq!(resumed.counts(), (150, 150, 100));
}

#[tokio::test]
async fn a_range_is_divided_and_stays_divided() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 60);
    let progress = Arc::<Progress>::default();
    let mut input = ranged(folder.path(), 1000, progress.clone());
    input.connect(&context()).await.unwrap();
    let (whole, ack) = next(&mut input).await.unwrap();
    assert_eq!(whole.1.len(), 60);
    ack.divide();
    let mut pieces = Vec::new();
    let mut acks = Vec::new();
    for _ in 0..15 {
        let (piece, ack) = next(&mut input).await.unwrap();
        pieces.push(piece);
        acks.push(ack);
    }
    assert_eq!(pieces.iter().flat_map(|(_, numbers)| numbers.clone()).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    acks.drain(1..).for_each(Ack::delivered);
    assert_eq!(progress.counts().0, 0, "its first piece is open");
    acks.into_iter().for_each(Ack::delivered);
    assert!(next(&mut input).await.is_none());
    assert_eq!(progress.counts(), (60, 60, 60));
    let again = Arc::new(Progress::resume(None, progress.divided()));
    assert_eq!(all(&mut ranged(folder.path(), 1000, again)).await, pieces);
}

#[tokio::test]
async fn broken_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 10);
    let good = crate::archive::list(folder.path()).unwrap().remove(0).path;
    let bytes = std::fs::read(&good).unwrap();
    let make = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    make("cut.parquet", &bytes[..bytes.len() / 2]);
    make("empty.parquet", b"");
    make("text.parquet", b"no Parquet at all");
    let (plan, unreadable) = Plan::make(&Selection::all(Place::Folder(folder.path().to_owned()))).unwrap();
    assert_eq!((plan.files(), plan.rows()), (1, 10));
    let said: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|said| said.contains(".parquet` is no whole Parquet file: ")), "{said:?}");
    let error = input(folder.path(), "").connect(&context()).await.unwrap_err().to_string();
    assert!(error.contains("cut.parquet`"), "{error}");
    // One byte changed, wherever it is: read as something or named, and no panic.
    let flipped = folder.path().join("flipped.parquet");
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&flipped, bytes).unwrap();
        let read = || -> Result<usize, crate::archive::ReadError> {
            let mut reader = crate::archive::Reader::open(&flipped, &(i64::MIN..i64::MAX))?;
            let mut messages = 0;
            while let Some(chunk) = reader.next_chunk()? {
                messages += chunk.len();
            }
            Ok(messages)
        };
        refused += usize::from(read().is_err());
    }
    assert!(refused > bytes.len() / 10, "{refused} of {}", bytes.len());
    // Whole at its ends, broken in the middle.
    let mut broken = bytes.clone();
    broken[4..60].fill(0xff);
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("broken.parquet"), broken).unwrap();
    let mut input = input(&other, "");
    input.connect(&context()).await.unwrap();
    let error = input.read().await.unwrap_err().to_string();
    assert!(error.contains("broken.parquet` is no whole Parquet file: "), "{error}");
}

#[tokio::test]
async fn many_files_are_read_in_order() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path(), 1);
    let one = crate::archive::list(folder.path()).unwrap().remove(0).path;
    let files = if std::env::var("FAULTS").is_ok_and(|value| value == "full") { 100_000 } else { 2_000 };
    for n in 0..files {
        let hour = folder.path().join(format!("date=2026-10-{:02}/hour={:02}", 1 + n % 30, n % 24));
        std::fs::create_dir_all(&hour).unwrap();
        std::fs::hard_link(&one, hour.join(format!("{n:06}.parquet")))
            .or_else(|_| std::fs::copy(&one, hour.join(format!("{n:06}.parquet"))).map(drop))
            .unwrap();
    }
    // Their folders say another day than their messages: only the true one is in the range.
    assert_eq!(numbers(folder.path(), "from: 2026-11-24").await, [0]);
    assert_eq!(numbers(folder.path(), "").await.len(), files + 1);
}

/// A file as another tool, or an earlier version, might have written it: few columns, and a version if there is one.
fn write_foreign(path: &Path, version: Option<&str>) {
    use parquet::{
        data_type::{ByteArray, ByteArrayType, Int64Type},
        file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    let schema = "message m { OPTIONAL INT64 received_at (TIMESTAMP(MICROS,true)); REQUIRED BYTE_ARRAY payload; }";
    let version =
        version.map(|version| vec![KeyValue::new(crate::archive::VERSION_KEY.to_owned(), version.to_owned())]);
    let properties = WriterProperties::builder().set_key_value_metadata(version).build();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[START * 1000], Some(&[1, 0]), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let payloads = ["old", ""].map(ByteArray::from);
    column.typed::<ByteArrayType>().write_batch(&payloads, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn files_of_other_versions_are_read_or_refused_and_an_empty_day_is_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    write_foreign(&folder.path().join("a/part-0.parquet"), None);
    write_foreign(&folder.path().join("b/part-0.parquet"), Some("0"));
    std::fs::create_dir_all(folder.path().join("date=2026-11-24/hour=08")).unwrap();
    let mut input = ranged(folder.path(), 1, Arc::default());
    input.connect(&context()).await.unwrap();
    let (mut names, mut seen) = (std::collections::BTreeSet::new(), Vec::new());
    while let Some((batch, ack)) = input.read().await.unwrap() {
        names.insert(batch.source().recorded().unwrap().name.clone());
        let message = batch.get(0);
        assert_eq!((message.topic(), message.key(), message.source().input()), ("", None, ""));
        assert_eq!((message.origin().offset, message.origin().qos), (-1, 0));
        seen.push((String::from_utf8_lossy(message.payload()).into_owned(), message.origin().received_at_ms));
        ack.delivered();
    }
    let file = [("old".to_owned(), START), (String::new(), 0)];
    assert_eq!(seen, [file.clone(), file].concat());
    // Two files of one name are four ranges: a table must not take one for the other.
    assert_eq!(names.len(), 4);
    assert!(numbers(&folder.path().join("date=2026-11-24"), "").await.is_empty());
    for version in ["2", "next"] {
        write_foreign(&folder.path().join("c/newer.parquet"), Some(version));
        let (_, unreadable) = Plan::make(&Selection::all(Place::Folder(folder.path().to_owned()))).unwrap();
        let said = unreadable[0].to_string();
        assert!(
            said.contains(&format!("is of version {version} of the archive, this streamer reads up to 1")),
            "{said}"
        );
    }
}
