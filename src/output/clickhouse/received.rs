//! A message as it was received, as a row of an archive's table: no payload is looked into, so every message is one.
//!
//! The columns have fixed names, and of each a few types will do; they are checked when the table is read, so that no row
//! can be refused later. A message lacks a key, say, where its input has none: such columns must be Nullable, or what was
//! not there would read like what was empty.
use super::{
    encode::{put_bytes, put_len},
    rows::Layout,
    table::{Table, TableName},
};
use crate::{
    client::clickhouse::{Type, split},
    message::MessageRef,
};

/// The table that is shipped.
const SHIPPED: &str = include_str!("../../../schemas/raw_archive.sql");
/// Its name there.
const SHIPPED_NAME: &str = "iot.raw_archive";

/// Where the parts of a message go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The columns of `FIELDS`, in that order.
    layout: Layout,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Pipeline,
    Input,
    Topic,
    Key,
    Partition,
    Offset,
    Timestamp,
    ReceivedAt,
    Headers,
    Qos,
    Retain,
    Payload,
}

/// Names of the columns, and the types of the shipped table.
const FIELDS: [(Field, &str, &str); 12] = [
    (Field::Pipeline, "pipeline", "String"),
    (Field::Input, "input", "String"),
    (Field::Topic, "topic", "String"),
    (Field::Key, "key", "Nullable(String)"),
    (Field::Partition, "partition", "Nullable(Int32)"),
    (Field::Offset, "offset", "Nullable(Int64)"),
    (Field::Timestamp, "timestamp", "Nullable(DateTime64(3))"),
    (Field::ReceivedAt, "received_at", "DateTime64(3)"),
    (Field::Headers, "headers", "Array(Tuple(String, String))"),
    (Field::Qos, "qos", "UInt8"),
    (Field::Retain, "retain", "Bool"),
    (Field::Payload, "payload", "String"),
];

impl Received {
    /// Finds the columns.
    ///
    /// # Errors
    /// One is missing or of a type that cannot hold what goes there. The text names it and says what to do.
    pub fn new(table: &Table) -> Result<Self, String> {
        let mut columns = Vec::with_capacity(FIELDS.len());
        for (field, name, wanted) in FIELDS {
            let advice = "`schemas/raw_archive.sql` has a table that fits";
            let Some(at) = table.columns.iter().position(|column| column.name == name) else {
                return Err(format!("it has no column `{name}`, which an archive writes as `{wanted}`; {advice}"));
            };
            let column = &table.columns[at];
            if !field.fits(&column.ty) {
                return Err(format!(
                    "column `{name}` is of type `{}`, and an archive writes `{wanted}`; {advice}",
                    column.type_text
                ));
            }
            columns.push(at);
        }
        Ok(Self { layout: Layout { columns, flags: false } })
    }

    /// The columns of an insert.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Appends the row of a message.
    pub fn row(&self, table: &Table, pipeline: &str, message: MessageRef<'_>, out: &mut Vec<u8>) {
        let origin = message.origin();
        for ((field, ..), &column) in FIELDS.iter().zip(&self.layout.columns) {
            let ty = &table.columns[column].ty;
            match field {
                Field::Pipeline => put_some(ty, out, |_, out| put_bytes(pipeline.as_bytes(), out)),
                Field::Input => put_some(ty, out, |_, out| put_bytes(message.source().input().as_bytes(), out)),
                Field::Topic => put_some(ty, out, |_, out| put_bytes(message.topic().as_bytes(), out)),
                Field::Key => put(ty, message.key(), out, |_, key, out| put_bytes(key, out)),
                Field::Partition => put(ty, at_least_0(origin.partition.into()), out, put_integer),
                Field::Offset => put(ty, at_least_0(origin.offset), out, put_integer),
                Field::Timestamp => put(ty, origin.timestamp_ms, out, put_time),
                Field::ReceivedAt => put(ty, Some(origin.received_at_ms), out, put_time),
                Field::Headers => put_some(ty, out, |_, out| {
                    let headers = message.headers();
                    put_len(headers.clone().count(), out);
                    for (name, value) in headers {
                        put_bytes(name.as_bytes(), out);
                        put_bytes(value, out);
                    }
                }),
                Field::Qos => put(ty, Some(origin.qos.into()), out, put_integer),
                Field::Retain => put(ty, Some(origin.retain.into()), out, put_integer),
                Field::Payload => put_some(ty, out, |_, out| put_bytes(message.payload(), out)),
            }
        }
    }
}

impl Field {
    /// True for types that hold whatever this part of a message may be.
    fn fits(self, ty: &Type) -> bool {
        let (plain, nullable) = plain(ty);
        let is_optional = matches!(self, Self::Key | Self::Partition | Self::Offset | Self::Timestamp);
        let holds = match self {
            Self::Pipeline | Self::Input | Self::Topic | Self::Key | Self::Payload => *plain == Type::String,
            Self::Partition => matches!(plain, Type::Int(4 | 8) | Type::UInt(4 | 8)),
            Self::Offset => matches!(plain, Type::Int(8) | Type::UInt(8)),
            Self::Timestamp | Self::ReceivedAt => matches!(plain, Type::DateTime64(3..=9, _)),
            Self::Headers => match plain {
                Type::Array(element) => {
                    matches!(&**element, Type::Tuple(parts) if matches!(parts.as_slice(), [(_, Type::String), (_, Type::String)]))
                }
                Type::Map(name, value) => self::plain(name) == (&Type::String, false) && **value == Type::String,
                _ => false,
            },
            Self::Qos => matches!(plain, Type::UInt(1..=8) | Type::Int(1..=8)),
            Self::Retain => matches!(plain, Type::Bool | Type::UInt(1)),
        };
        holds && (nullable || !is_optional)
    }
}

/// The type without what only says how values are stored or that they may be missing; and whether they may.
fn plain(ty: &Type) -> (&Type, bool) {
    match ty {
        Type::LowCardinality(inner) => plain(inner),
        Type::Nullable(inner) => (inner, true),
        other => (other, false),
    }
}

/// Appends a value that may be missing where the column is Nullable.
fn put<T>(ty: &Type, value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(&Type, T, &mut Vec<u8>)) {
    let (plain, nullable) = plain(ty);
    if nullable {
        out.push(value.is_none().into());
    }
    if let Some(value) = value {
        write(plain, value, out);
    }
}

fn put_some(ty: &Type, out: &mut Vec<u8>, write: impl FnOnce(&Type, &mut Vec<u8>)) {
    put(ty, Some(()), out, |ty, (), out| write(ty, out));
}

fn at_least_0(number: i64) -> Option<i64> {
    (number >= 0).then_some(number)
}

fn put_integer(ty: &Type, value: i64, out: &mut Vec<u8>) {
    let bytes = match ty {
        Type::Int(bytes) | Type::UInt(bytes) => (*bytes).into(),
        _ => 1,
    };
    out.extend_from_slice(&value.to_le_bytes()[..bytes]);
}

/// `value` in milliseconds.
fn put_time(ty: &Type, value: i64, out: &mut Vec<u8>) {
    let digits = if let Type::DateTime64(digits, _) = ty { *digits } else { 3 };
    let ticks = value.saturating_mul(10_i64.pow(u32::from(digits).saturating_sub(3)));
    out.extend_from_slice(&ticks.to_le_bytes());
}

/// The statement that creates the shipped table under another name, on one line.
pub fn statement(name: &TableName) -> String {
    let plain: String = SHIPPED.lines().map(|line| line.split("--").next().unwrap_or(line).to_owned() + " ").collect();
    let create = split(&plain).into_iter().find(|statement| statement.starts_with("CREATE TABLE")).unwrap_or_default();
    let line = create.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("( ", "(").replace(" )", ")").replace(SHIPPED_NAME, &name.to_string())
}

#[cfg(test)]
mod tests {
    use super::{super::table::ListedColumn, *};
    use crate::message::{Batch, SourceBuilder};

    fn table(change: impl Fn(&str, &str) -> Option<String>) -> Table {
        let listed = FIELDS.iter().filter_map(|(_, name, ty)| {
            let type_text = change(name, ty)?;
            Some(ListedColumn { name: (*name).into(), type_text, default_kind: String::new() })
        });
        let day = ListedColumn { name: "day".into(), type_text: "Date".into(), default_kind: "MATERIALIZED".into() };
        Table::new([day].into_iter().chain(listed).collect(), "UTC", true).unwrap()
    }

    #[test]
    fn every_column_must_be_there_and_hold_what_goes_there() {
        assert!(Received::new(&table(|_, ty| Some(ty.to_owned()))).is_ok());
        for (column, ty, fits) in [
            ("topic", "LowCardinality(String)", true),
            ("topic", "LowCardinality(Nullable(String))", true),
            ("topic", "FixedString(8)", false),
            ("key", "String", false),
            ("key", "LowCardinality(Nullable(String))", true),
            ("offset", "Nullable(UInt64)", true),
            ("offset", "Int64", false),
            ("offset", "Nullable(Int32)", false),
            ("partition", "Nullable(UInt16)", false),
            ("received_at", "DateTime64(9, 'UTC')", true),
            ("received_at", "DateTime", false),
            ("headers", "Map(LowCardinality(String), String)", true),
            ("headers", "Array(Tuple(name String, value String))", true),
            ("headers", "Array(String)", false),
            ("retain", "UInt8", true),
            ("payload", "JSON", false),
        ] {
            let found = Received::new(&table(|name, usual| Some(if name == column { ty } else { usual }.to_owned())));
            assert_eq!(found.is_ok(), fits, "{column} {ty}: {found:?}");
        }
        let missing = Received::new(&table(|name, ty| (name != "retain").then(|| ty.to_owned()))).unwrap_err();
        assert!(missing.starts_with("it has no column `retain`, which an archive writes as `Bool`"), "{missing}");
    }

    #[test]
    fn a_row_holds_the_message_as_it_came() {
        let mut source = SourceBuilder::new("kafka");
        source
            .push(b"\xff\0", |origin, parts| {
                origin.topic = parts.text("a")?;
                origin.key = Some(parts.bytes(b"\xfe")?);
                (origin.partition, origin.offset) = (2, 3);
                (origin.timestamp_ms, origin.received_at_ms) = (Some(-1), 5);
                (origin.qos, origin.retain) = (1, true);
                parts.header(origin, "h", b"")
            })
            .unwrap();
        source.push(b"", |_, _| Ok(())).unwrap();
        let batch = Batch::new(source.finish());
        let table = table(|name, ty| {
            Some(match name {
                "pipeline" => "LowCardinality(String)".to_owned(),
                "timestamp" => "Nullable(DateTime64(6, 'UTC'))".to_owned(),
                _ => ty.to_owned(),
            })
        });
        let received = Received::new(&table).unwrap();
        let row = |index| {
            let mut out = Vec::new();
            received.row(&table, "p", batch.get(index), &mut out);
            out
        };
        let whole: &[&[u8]] = &[
            b"\x01p\x05kafka\x01a",
            b"\0\x01\xfe",
            b"\0\x02\0\0\0",
            b"\0\x03\0\0\0\0\0\0\0",
            b"\0",
            &(-1000_i64).to_le_bytes(),
            &5_i64.to_le_bytes(),
            b"\x01\x01h\0",
            b"\x01\x01",
            b"\x02\xff\0",
        ];
        assert_eq!(row(0), whole.concat());
        assert_eq!(row(1), b"\x01p\x05kafka\0\x01\x01\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_statement_for_a_missing_table_is_the_shipped_one() {
        let name = TableName { database: "logs".into(), table: "raw".into() };
        let statement = statement(&name);
        assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS logs.raw (pipeline "), "{statement}");
        assert!(statement.contains("ORDER BY (pipeline, topic, received_at)"), "{statement}");
        for (_, column, _) in FIELDS {
            assert!(statement.contains(&format!("{column} ")), "{column}: {statement}");
        }
        assert!(!statement.contains("--") && !statement.contains('\n'), "{statement}");
    }
}
