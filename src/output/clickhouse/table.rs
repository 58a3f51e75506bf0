//! The table that is written to: its columns, and what the server can do.
use std::collections::HashMap;

use serde::Deserialize;

use super::encode::put_zero;
use crate::client::clickhouse::{Failure, Server, Type, quote_name, quote_text};

/// A column that can be inserted into.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub ty: Type,
    /// The type as the server writes it; the header of an insert repeats it letter by letter.
    pub type_text: String,
    /// It has a DEFAULT expression, which the server computes where a message has no value, or is EPHEMERAL.
    pub has_default: bool,
    /// What is written where a message has no value and there is no such expression.
    pub zero: Vec<u8>,
    /// The `Nested` it is a member of, by index.
    pub nested: Option<usize>,
}

/// Columns `accel.x`, `accel.y`, `accel.z`: arrays that must be of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct Nested {
    pub name: String,
    /// What stands after the dot, and the column's index.
    pub members: Vec<(String, usize)>,
}

/// Where a field of a message goes: a column, or past the last column a `Nested`.
pub type Target = usize;

/// Columns of one table, as they were when they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub nested: Vec<Nested>,
    lookup: HashMap<String, Target>,
}

/// A column as `system.columns` lists it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ListedColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub type_text: String,
    #[serde(default)]
    pub default_kind: String,
}

impl Table {
    /// Sorts out the columns of a table; `json_as_text` says whether the server reads `JSON` columns from text.
    ///
    /// # Errors
    /// A column can neither be written nor left to its DEFAULT. The text names it and says what to do.
    pub fn new(listed: Vec<ListedColumn>, time_zone: &str, json_as_text: bool) -> Result<Self, String> {
        let mut table = Self::default();
        for ListedColumn { name, type_text, default_kind } in listed {
            if matches!(default_kind.as_str(), "MATERIALIZED" | "ALIAS") {
                continue;
            }
            let mut ty = Type::parse(&type_text).map_err(|error| format!("column `{name}`: {error}"))?;
            if ty.has_json() && !json_as_text {
                ty = Type::Other(type_text.clone());
            }
            ty.set_time_zone(time_zone);
            let has_default = !default_kind.is_empty();
            if let Some(unsupported) = ty.unsupported().filter(|_| !has_default) {
                return Err(format!(
                    "column `{name}` is of type `{unsupported}`, which cannot be written; give it a DEFAULT expression, or \
                     insert into another table that feeds this one through a materialized view"
                ));
            }
            let mut zero = Vec::new();
            put_zero(&ty, &mut zero);
            table.columns.push(Column { name, ty, type_text, has_default, zero, nested: None });
        }
        for (index, column) in table.columns.iter_mut().enumerate() {
            if let (Some((prefix, member)), Type::Array(_)) = (column.name.split_once('.'), &column.ty) {
                let at = table.nested.iter().position(|n| n.name == prefix).unwrap_or_else(|| {
                    table.nested.push(Nested { name: prefix.to_owned(), members: Vec::new() });
                    table.nested.len() - 1
                });
                table.nested[at].members.push((member.to_owned(), index));
                column.nested = Some(at);
            }
            table.lookup.insert(column.name.clone(), index);
        }
        for (index, nested) in table.nested.iter().enumerate() {
            table.lookup.entry(nested.name.clone()).or_insert(table.columns.len() + index);
        }
        Ok(table)
    }

    /// Where the field `name` goes.
    pub fn target(&self, name: &str) -> Option<Target> {
        self.lookup.get(name).copied()
    }

    /// The field that goes to `target`.
    pub fn name(&self, target: Target) -> &str {
        match self.columns.get(target) {
            Some(column) => &column.name,
            None => &self.nested[target - self.columns.len()].name,
        }
    }

    /// How many targets there are.
    pub fn targets(&self) -> usize {
        self.columns.len() + self.nested.len()
    }

    /// Indexes of the columns that can be written.
    pub fn writable(&self) -> impl Iterator<Item = usize> {
        (0..self.columns.len()).filter(|&i| self.columns[i].ty.unsupported().is_none())
    }
}

/// What the server can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub version: String,
    pub time_zone: String,
    /// Those of `SETTINGS_ASKED` that it knows.
    pub settings: Vec<String>,
    /// Its formats of the family RowBinary.
    pub formats: Vec<String>,
    /// The user's `readonly` setting is not 0.
    pub read_only: bool,
}

/// Settings that are only sent to a server that knows them: an unknown one is an error there.
pub const SETTINGS_ASKED: &[&str] = &[
    "async_insert",
    "deduplicate_blocks_in_dependent_materialized_views",
    "deduplicate_insert",
    "input_format_allow_errors_num",
    "input_format_allow_errors_ratio",
    "input_format_binary_decode_types_in_binary_format",
    "input_format_binary_read_json_as_string",
    "input_format_parallel_parsing",
    "input_format_skip_unknown_fields",
    "input_format_with_names_use_header",
    "input_format_with_types_use_header",
    "insert_deduplicate",
    "insert_deduplication_token",
    "max_insert_block_size",
    "max_insert_block_size_bytes",
    "max_insert_threads",
];

impl Abilities {
    /// Asks the server.
    ///
    /// # Errors
    /// It cannot be reached or refuses to answer.
    pub async fn ask(server: &Server) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct About {
            version: String,
            time_zone: String,
        }
        #[derive(Deserialize)]
        struct Setting {
            name: String,
            value: String,
        }
        #[derive(Deserialize)]
        struct Format {
            name: String,
        }
        let about: Vec<About> = server.rows("SELECT version() AS version, timezone() AS time_zone").await?;
        let About { version, time_zone } =
            about.into_iter().next().ok_or_else(|| Failure::Network("no answer to `SELECT version()`".into()))?;
        let names: Vec<_> = SETTINGS_ASKED.iter().copied().chain(["readonly"]).map(quote_text).collect();
        let sql = format!("SELECT name, value FROM system.settings WHERE name IN ({})", names.join(", "));
        let settings: Vec<Setting> = server.rows(&sql).await?;
        let formats = match server.rows("SELECT name FROM system.formats WHERE name LIKE 'RowBinary%'").await {
            Ok(formats) => formats,
            // Servers of 2018 and older have no such table, and only this one format.
            Err(Failure::Server { code: 60, .. }) => vec![Format { name: "RowBinary".into() }],
            Err(failure) => return Err(failure),
        };
        Ok(Self {
            version,
            time_zone,
            read_only: settings.iter().any(|s| s.name == "readonly" && s.value != "0"),
            settings: settings.into_iter().map(|s| s.name).filter(|name| name != "readonly").collect(),
            formats: formats.into_iter().map(|f| f.name).collect(),
        })
    }

    /// True when the server knows the setting.
    pub fn knows(&self, setting: &str) -> bool {
        self.settings.iter().any(|name| name == setting)
    }

    /// The best format for an insert, `flags` for one where a row can leave a column to its DEFAULT; and whether it
    /// carries the column types, so that the server notices when they have changed.
    pub fn format(&self, flags: bool) -> Option<(&'static str, bool)> {
        let ladder: &[(&str, bool)] = if flags {
            &[("RowBinaryWithNamesAndTypesAndDefaults", true), ("RowBinaryWithDefaults", false)]
        } else {
            &[("RowBinaryWithNamesAndTypes", true), ("RowBinary", false)]
        };
        ladder.iter().copied().find(|(name, _)| self.formats.iter().any(|f| f == name))
    }
}

/// A table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    pub database: String,
    pub table: String,
}

impl TableName {
    /// As it is written in SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.database), quote_name(&self.table))
    }

    /// Its columns, in the order the server lists them, which is their own (`position` is missing on servers of 2018); empty when there is no such table, or the user may not see it.
    ///
    /// # Errors
    /// The server cannot be reached or refuses to answer.
    pub async fn columns(&self, server: &Server) -> Result<Vec<ListedColumn>, Failure> {
        let sql = format!(
            "SELECT name, type, default_kind FROM system.columns WHERE database = {} AND table = {}",
            quote_text(&self.database),
            quote_text(&self.table)
        );
        server.rows(&sql).await
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(columns: &[(&str, &str, &str)]) -> Vec<ListedColumn> {
        let listed = |&(name, ty, kind): &(&str, &str, &str)| ListedColumn {
            name: name.into(),
            type_text: ty.into(),
            default_kind: kind.into(),
        };
        columns.iter().map(listed).collect()
    }

    #[test]
    fn computed_columns_are_left_out_and_nested_ones_grouped() {
        let table = Table::new(
            listed(&[
                ("id", "UInt8", ""),
                ("day", "Date", "MATERIALIZED"),
                ("accel.x", "Array(Float32)", ""),
                ("twice", "UInt8", "ALIAS"),
                ("accel.y", "Array(Float32)", ""),
                ("at", "DateTime", "DEFAULT"),
                ("a.b", "UInt8", ""),
            ]),
            "UTC",
            true,
        )
        .unwrap();
        assert_eq!(table.columns.len(), 5);
        assert_eq!(table.nested, [Nested { name: "accel".into(), members: vec![("x".into(), 1), ("y".into(), 2)] }]);
        assert_eq!((table.target("accel"), table.target("accel.y")), (Some(5), Some(2)));
        assert_eq!((table.name(5), table.name(3)), ("accel", "at"));
        assert_eq!((table.target("day"), table.target("a")), (None, None));
        assert_eq!(table.columns[3].ty, Type::DateTime(Some("UTC".into())));
        assert_eq!(table.columns[3].type_text, "DateTime");
    }

    #[test]
    fn a_column_that_cannot_be_written_needs_a_default() {
        let columns = |kind| listed(&[("state", "AggregateFunction(sum, UInt64)", kind), ("a", "UInt8", "")]);
        let error = Table::new(columns(""), "UTC", true).unwrap_err();
        assert!(error.starts_with("column `state` is of type `AggregateFunction(sum, UInt64)`"), "{error}");
        let table = Table::new(columns("DEFAULT"), "UTC", true).unwrap();
        assert_eq!(table.writable().collect::<Vec<_>>(), [1]);
        assert!(Table::new(listed(&[("j", "JSON", "")]), "UTC", false).is_err());
        assert!(Table::new(listed(&[("j", "JSON", "")]), "UTC", true).is_ok());
    }

    #[test]
    fn the_best_format_that_the_server_has_is_taken() {
        let abilities = |formats: &[&str]| Abilities {
            formats: formats.iter().map(|&f| f.to_owned()).collect(),
            ..Abilities::default()
        };
        let old = abilities(&["RowBinary"]);
        assert_eq!((old.format(false), old.format(true)), (Some(("RowBinary", false)), None));
        let middle = abilities(&["RowBinary", "RowBinaryWithDefaults", "RowBinaryWithNamesAndTypes"]);
        assert_eq!(middle.format(false), Some(("RowBinaryWithNamesAndTypes", true)));
        assert_eq!(middle.format(true), Some(("RowBinaryWithDefaults", false)));
    }
}
