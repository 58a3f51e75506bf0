//! The settings, checked without a server.
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use super::{
    ClickHouse,
    encode::Surplus,
    insert::Writer,
    rows::Rules,
    table::{SETTINGS_ASKED, TableName},
};
use crate::{
    client::{
        Secret,
        clickhouse::{Access, Server, split},
    },
    diagnostic::{Fault, PathSegment},
    output::WriteLimits,
    spec::{Section, decode},
};

/// Settings of the `clickhouse` output.
///
/// Each payload is a JSON object whose fields are the table's columns. A missing field takes the column's DEFAULT (or
/// zero, an empty text, the enum's lowest value); `null` needs a Nullable column. Numbers may be written as text, whole
/// numbers with a point (`84.0`); a number that is too large, or has digits a Decimal cannot hold, is refused. Dates and
/// times are Unix numbers or text like `2024-05-01T10:00:00Z`; without an offset the column or the server must be in
/// UTC. A whole number for a DateTime64 counts seconds up to 9,908,870,399 and the column's own ticks from there on. A
/// String column takes any value, as its JSON text. For a `Nested` (`accel.x`, `accel.y`) the fields are `accel: {x, y}`,
/// `accel: [{x, y}, …]` or `accel.x`.
///
/// Under `archive:` each row is a message as it was received, whatever its payload holds: columns `pipeline`, `input`,
/// `topic`, `key`, `partition`, `offset`, `timestamp`, `received_at`, `headers`, `qos`, `retain`, `payload`, as in
/// `schemas/raw_archive.sql`. The table must have them all; further ones take their DEFAULT.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the server's HTTP interface, `http://` or `https://`; the port is 8123 or 8443 in most installations.
    url: String,
    /// User to log in as.
    #[serde(default = "user")]
    user: String,
    /// The user's password. Empty: none.
    #[serde(default)]
    password: Secret,
    /// Table to insert into: `database.table`, or the table's name alone together with `database`.
    table: String,
    /// The table's database. Left out, it is the part of `table` before the first dot, else `default`.
    #[serde(default)]
    database: Option<String>,
    /// File with SQL statements that create the table, relative to the pipeline file. They run when the table is missing.
    /// Lint holds what the steps make against the columns that it names.
    #[serde(default)]
    create: Option<PathBuf>,
    /// Most messages of one insert. A full batch is written at once.
    #[serde(default = "batch_messages_max")]
    #[schemars(range(min = 1, max = 1_000_000))]
    batch_messages_max: usize,
    /// Most payload bytes of one insert. A full batch is written at once; one larger message is written alone.
    #[serde(default = "batch_bytes_max")]
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    batch_bytes_max: usize,
    /// Longest time the first message of a batch waits for company, in milliseconds. ClickHouse wants few large inserts,
    /// about one a second for a table.
    #[serde(default = "linger_ms")]
    #[schemars(range(min = 0, max = 600_000))]
    linger_ms: u64,
    /// Most inserts that may wait for the server's answer at once. At the limit no further one is started.
    #[serde(default = "in_flight_max")]
    #[schemars(range(min = 1, max = 64))]
    in_flight_max: usize,
    /// Longest time for one insert or query, in milliseconds. After that it is tried again.
    #[serde(default = "timeout_ms")]
    #[schemars(range(min = 100, max = 3_600_000))]
    timeout_ms: u64,
    /// How bodies are compressed. Left out: `none` for a server on this machine, else `lz4`.
    #[serde(default)]
    compression: Option<Compression>,
    /// What happens to a field that the table has no column for.
    #[serde(default)]
    unknown_fields: UnknownFields,
    /// Turns a scalar for a member of a Nested (`accel: {x: 0.1}`) into an array of one. Off, such a message is refused.
    #[serde(default = "nested_scalar_wrap")]
    nested_scalar_wrap: bool,
    /// Further settings for the server, by name, sent with every insert. Those that delivery rests on are not allowed.
    #[serde(default)]
    settings: BTreeMap<String, SettingValue>,
}

/// How bodies of inserts are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Compression {
    /// Not at all: best on one machine.
    None,
    /// About half the bytes for little CPU.
    Lz4,
}

/// What happens to a field without a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UnknownFields {
    /// The message is refused, and the reason names the field.
    #[default]
    Reject,
    /// The field is left out and the rest is written.
    Drop,
}

/// A setting's value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum SettingValue {
    Switch(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

impl SettingValue {
    fn text(&self) -> String {
        match self {
            Self::Switch(on) => u8::from(*on).to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

fn user() -> String {
    "default".to_owned()
}

fn batch_messages_max() -> usize {
    50_000
}

fn batch_bytes_max() -> usize {
    64 << 20
}

fn linger_ms() -> u64 {
    1_000
}

fn in_flight_max() -> usize {
    2
}

fn timeout_ms() -> u64 {
    60_000
}

fn nested_scalar_wrap() -> bool {
    true
}

/// Parameters of the HTTP interface and settings that would change what an insert means, besides `SETTINGS_ASKED`.
const SETTINGS_REFUSED: &[&str] = &[
    "compress",
    "database",
    "decompress",
    "default_format",
    "insert_allow_materialized_columns",
    "input_format_null_as_default",
    "password",
    "query",
    "query_id",
    "readonly",
    "session_id",
    "user",
    "wait_end_of_query",
    "wait_for_async_insert",
];

/// Largest file of CREATE statements, in bytes.
const CREATE_BYTES_MAX: u64 = 1 << 20;

/// The output of a section.
///
/// # Errors
/// Every fault found.
pub fn output(section: &Section) -> Result<ClickHouse, Vec<Fault>> {
    let config: Config = decode(section)?;
    let mut faults = Vec::new();
    let is_local = check_url(&config.url, &mut faults);
    let name = table_name(&config, &mut faults);
    let create = read_create(&config, section, &mut faults);
    check_ranges(&config, &mut faults);
    for setting in config.settings.keys() {
        if SETTINGS_ASKED.contains(&setting.as_str()) || SETTINGS_REFUSED.contains(&setting.as_str()) {
            let mut fault = Fault::new("setting-not-allowed", "settings", format!("`{setting}` cannot be set here"))
                .label("delivery rests on this setting")
                .help("remove it; streamer sets it itself where it matters");
            // Not through `Fault::new`: a name with a dot is one key.
            fault.path.push(PathSegment::Key(setting.clone()));
            faults.push(fault);
        }
    }
    let (Some(name), Some(is_local), true) = (name, is_local, faults.is_empty()) else { return Err(faults) };

    let access = Access {
        url: &config.url,
        user: &config.user,
        password: &config.password,
        lz4: config.compression.map_or(!is_local, |compression| compression == Compression::Lz4),
        timeout: Duration::from_millis(config.timeout_ms),
    };
    let rules = Rules {
        surplus: match config.unknown_fields {
            UnknownFields::Reject => Surplus::Reject,
            UnknownFields::Drop => Surplus::Drop,
        },
        wrap_scalars: config.nested_scalar_wrap,
    };
    let mut of_payloads = Vec::new();
    of_payloads.extend((rules.surplus != Surplus::Reject).then_some("unknown_fields"));
    of_payloads.extend((!rules.wrap_scalars).then_some("nested_scalar_wrap"));
    let settings = config.settings.iter().map(|(name, value)| (name.clone(), value.text())).collect();
    let writer = Writer::new(Server::new(&access), config.url.clone(), name, rules, settings);
    Ok(ClickHouse {
        writer: Arc::new(writer),
        limits: WriteLimits {
            messages_max: config.batch_messages_max,
            bytes_max: config.batch_bytes_max,
            linger: Duration::from_millis(config.linger_ms),
            in_flight_max: config.in_flight_max,
        },
        user: config.user,
        of_payloads,
        create,
        said: None,
    })
}

/// Answers whether the server is on this machine, or `None` when the address is no good.
fn check_url(text: &str, faults: &mut Vec<Fault>) -> Option<bool> {
    const HELP: &str = "write the address of the HTTP interface: `http://localhost:8123`";
    let before = faults.len();
    let mut fault = |title: String, label: &str, help: &str| {
        faults.push(Fault::new("invalid-url", "url", title).label(label).help(help));
    };
    let url = match Url::parse(text) {
        _ if !text.contains("://") => {
            fault("the server's address does not begin with `http://`".to_owned(), "not a URL", HELP);
            return None;
        }
        Ok(url) => url,
        Err(error) => {
            fault(format!("the server's address cannot be read: {error}"), "not a URL", HELP);
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        fault(
            format!("`{}` is not a protocol of ClickHouse's HTTP interface", url.scheme()),
            "not http or https",
            HELP,
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        fault(
            "credentials in an address end up in logs".to_owned(),
            "holds a user or password",
            "use `user` and `password`",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        fault("parameters in the server's address are not sent".to_owned(), "holds `?` or `#`", "use `settings`");
    }
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    (faults.len() == before).then_some(is_local)
}

fn table_name(config: &Config, faults: &mut Vec<Fault>) -> Option<TableName> {
    let (database, table) = match (&config.database, config.table.split_once('.')) {
        (Some(database), _) => (database.as_str(), config.table.as_str()),
        (None, Some((database, table))) => (database, table),
        (None, None) => ("default", config.table.as_str()),
    };
    for (field, value, what) in [("table", table, "table"), ("database", database, "database")] {
        if value.is_empty() {
            let field = if config.database.is_some() { field } else { "table" };
            let fault = Fault::new("empty-name", field, format!("the name of the {what} is empty"));
            faults.push(fault.label("nothing to insert into").help("write `database.table`"));
        }
    }
    let is_named = !table.is_empty() && !database.is_empty();
    is_named.then(|| TableName { database: database.to_owned(), table: table.to_owned() })
}

fn read_create(config: &Config, section: &Section, faults: &mut Vec<Fault>) -> Vec<String> {
    let Some(path) = config.create.as_ref().filter(|path| !path.as_os_str().is_empty()) else { return Vec::new() };
    let path = section.folder.join(path);
    let shown = path.display();
    let read = std::fs::metadata(&path).and_then(|about| {
        if about.len() > CREATE_BYTES_MAX {
            return Err(std::io::Error::other(format!("larger than {CREATE_BYTES_MAX} bytes")));
        }
        std::fs::read_to_string(&path)
    });
    let fault = |title: String| Fault::new("unreadable-file", "create", title);
    match read.map(|sql| split(&sql)) {
        Ok(statements) if statements.is_empty() => {
            faults.push(
                fault(format!("`{shown}` holds no statement"))
                    .label("nothing to run")
                    .help("write a CREATE TABLE statement into it"),
            );
            Vec::new()
        }
        Ok(statements) => statements,
        Err(error) => {
            let help = "paths are relative to the pipeline file";
            faults.push(fault(format!("cannot read `{shown}`: {error}")).label("cannot be read").help(help));
            Vec::new()
        }
    }
}

fn check_ranges(config: &Config, faults: &mut Vec<Fault>) {
    let ranges: [(&str, u64, std::ops::RangeInclusive<u64>); 5] = [
        ("batch_messages_max", config.batch_messages_max as u64, 1..=1_000_000),
        ("batch_bytes_max", config.batch_bytes_max as u64, 1_024..=1 << 30),
        ("linger_ms", config.linger_ms, 0..=600_000),
        ("in_flight_max", config.in_flight_max as u64, 1..=64),
        ("timeout_ms", config.timeout_ms, 100..=3_600_000),
    ];
    for (field, value, range) in ranges {
        if !range.contains(&value) {
            let fault = Fault::new("out-of-range", field, format!("`{field}` is out of range: {value}"));
            faults.push(fault.label("out of range").help(format!("write {} to {}", range.start(), range.end())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        match output(&Section::from_yaml(yaml)) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_example_builds() {
        let output = output(&Section::from_yaml(super::super::SPEC.example)).unwrap();
        assert_eq!(output.limits.messages_max, 50_000);
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let found = faults(
            "url: tcp://me:secret@host:9000?x=1\ntable: iot.\ncreate: no/such.sql\ntimeout_ms: 1\nin_flight_max: 0\n\
             settings: { async_insert: 1, max_memory_usage: 1000 }\n",
        );
        assert_eq!(
            found,
            [
                "`url`: `tcp` is not a protocol of ClickHouse's HTTP interface",
                "`url`: credentials in an address end up in logs",
                "`url`: parameters in the server's address are not sent",
                "`table`: the name of the table is empty",
                "`create`: cannot read `./no/such.sql`: No such file or directory (os error 2)",
                "`in_flight_max`: `in_flight_max` is out of range: 0",
                "`timeout_ms`: `timeout_ms` is out of range: 1",
                "`settings.async_insert`: `async_insert` cannot be set here",
            ]
        );
        assert_eq!(
            faults("url: localhost:8123\ntable: t"),
            ["`url`: the server's address does not begin with `http://`"]
        );
    }

    #[test]
    fn statements_are_read_beside_the_pipeline_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut section = Section::from_yaml("{ url: 'http://h', table: a.b, create: t.sql, password: '' }");
        section.folder = folder.path().to_owned();
        assert!(output(&section).is_err());
        std::fs::write(folder.path().join("t.sql"), "-- nothing\n").unwrap();
        assert!(output(&section).is_err());
        std::fs::write(folder.path().join("t.sql"), "CREATE TABLE a.b (x UInt8) ENGINE = Memory;").unwrap();
        assert!(output(&section).is_ok());
    }

    #[test]
    fn the_table_is_found_with_and_without_its_database() {
        let table = [
            ("{ url: 'http://h', table: iot.telemetry }", "iot.telemetry"),
            ("{ url: 'http://h', table: telemetry }", "default.telemetry"),
            ("{ url: 'http://h', table: a.b, database: iot }", "iot.a.b"),
        ];
        for (yaml, expected) in table {
            let config: Config = decode(&Section::from_yaml(yaml)).unwrap();
            assert_eq!(table_name(&config, &mut Vec::new()).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn a_server_on_this_machine_is_known() {
        let table = [
            ("http://localhost:8123", Some(true)),
            ("http://127.0.0.1", Some(true)),
            ("https://[::1]:8443/", Some(true)),
            ("https://clickhouse.example.com/proxy", Some(false)),
            ("ftp://h", None),
        ];
        for (url, expected) in table {
            assert_eq!(check_url(url, &mut Vec::new()), expected, "{url}");
        }
    }
}
