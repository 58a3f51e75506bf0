//! The columns of a table, read from the statements that create it. Whatever is not read with certainty makes the
//! table unknown, or a single column one that takes any value.
//!
//! Source: <https://clickhouse.com/docs/sql-reference/statements/create/table>
use super::table::{ListedColumn, TableName};
use crate::client::clickhouse::Type;

/// The columns that `statements` give the table, as the server would list them. `None` when no statement creates it
/// with its columns, or a later one may change them.
pub fn columns(statements: &[String], name: &TableName) -> Option<Vec<ListedColumn>> {
    let mut found = None;
    for statement in statements {
        let text = without_comments(statement);
        let mut sql = Sql { rest: text.trim_start() };
        if sql.keyword("CREATE") {
            if let Some(body) = sql.table(name) {
                found = Some(listed(body)?);
            }
        } else if sql.keyword("SET") {
            // What columns become depends on settings.
            return None;
        } else if found.is_some() && !(sql.keyword("GRANT") || sql.keyword("INSERT") || sql.keyword("OPTIMIZE")) {
            return None;
        }
    }
    found
}

/// Comments become blanks.
fn without_comments(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let is_line = rest.starts_with("--") || rest.starts_with("# ") || rest.starts_with("#!");
        let len = match first {
            '\'' | '"' | '`' => quoted_len(rest, first),
            _ if is_line => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            first => first.len_utf8(),
        };
        let is_comment = is_line || rest.starts_with("/*");
        out.push_str(if is_comment { " " } else { &rest[..len] });
        rest = &rest[len..];
    }
    out
}

/// Bytes of the quoted text at the start of `text`, both quotes included.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// SQL without comments, read from its start.
#[derive(Clone, Copy)]
struct Sql<'s> {
    rest: &'s str,
}

/// What may follow the type of a column.
const MODIFIERS: [&str; 14] = [
    "NULL",
    "NOT",
    "DEFAULT",
    "MATERIALIZED",
    "EPHEMERAL",
    "ALIAS",
    "COMMENT",
    "CODEC",
    "STATISTICS",
    "TTL",
    "COLLATE",
    "PRIMARY",
    "SETTINGS",
    "AUTO_INCREMENT",
];

impl<'s> Sql<'s> {
    fn skip(&mut self, len: usize) {
        self.rest = self.rest[len..].trim_start();
    }

    /// The word at the start; stays before it.
    fn word(&self) -> &'s str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let is_it = self.word().eq_ignore_ascii_case(keyword);
        if is_it {
            self.skip(keyword.len());
        }
        is_it
    }

    fn sign(&mut self, sign: char) -> bool {
        let is_it = self.rest.starts_with(sign);
        if is_it {
            self.skip(sign.len_utf8());
        }
        is_it
    }

    /// A name, in quotes or not.
    fn name(&mut self) -> Option<String> {
        if let Some(quote @ ('`' | '"')) = self.rest.chars().next() {
            let len = quoted_len(self.rest, quote);
            let inner = self.rest.get(1..len - 1)?;
            // Escapes in names are too rare to be read here.
            let name = (!inner.contains(['\\', quote])).then(|| inner.to_owned());
            self.skip(len);
            return name;
        }
        let word = self.word();
        self.skip(word.len());
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// What is in brackets after `CREATE TABLE`, when it creates the table of that name.
    fn table(&mut self, wanted: &TableName) -> Option<&'s str> {
        if self.keyword("OR") {
            self.keyword("REPLACE");
        }
        if !self.keyword("TABLE") {
            return None;
        }
        if self.keyword("IF") {
            self.keyword("NOT");
            self.keyword("EXISTS");
        }
        let first = self.name()?;
        let (database, table) = match self.sign('.') {
            true => (first, self.name()?),
            // A session begins in the database `default`.
            false => ("default".to_owned(), first),
        };
        if self.keyword("UUID") {
            self.skip(quoted_len(self.rest, '\''));
        }
        if self.keyword("ON") {
            self.keyword("CLUSTER");
            let quoted = self.rest.starts_with('\'');
            if quoted { self.skip(quoted_len(self.rest, '\'')) } else { drop(self.name()?) }
        }
        let is_wanted = (database, table) == (wanted.database.clone(), wanted.table.clone());
        is_wanted.then(|| self.bracketed()).flatten()
    }

    /// What stands between the brackets at the start.
    fn bracketed(&mut self) -> Option<&'s str> {
        let text = self.rest.strip_prefix('(')?;
        let len = text.len() - end_of(text, ')')?.len();
        self.skip(len + 2);
        Some(&text[..len])
    }
}

/// What begins with the first `end` that stands outside quotes and brackets.
fn end_of(text: &str, end: char) -> Option<&str> {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        if depth == 0 && char == end {
            return Some(rest);
        }
        let len = match char {
            '\'' | '"' | '`' => quoted_len(rest, char),
            char => {
                depth += usize::from(matches!(char, '(' | '['));
                depth = depth.checked_sub(usize::from(matches!(char, ')' | ']')))?;
                char.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    None
}

/// The parts between commas.
fn parts(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(rest) = end_of(text, ',') {
        parts.push(text[..text.len() - rest.len()].trim());
        text = &rest[1..];
    }
    parts.push(text.trim());
    parts
}

/// Columns, as they stand between the brackets of `CREATE TABLE`.
fn listed(body: &str) -> Option<Vec<ListedColumn>> {
    let mut columns = Vec::new();
    for part in parts(body) {
        let mut sql = Sql { rest: part };
        let word = sql.word().to_ascii_uppercase();
        let has = |wanted: &str| part.split_whitespace().any(|word| word.eq_ignore_ascii_case(wanted));
        let is_other = match word.as_str() {
            "PRIMARY" | "FOREIGN" => has("KEY"),
            "INDEX" => has("TYPE"),
            "CONSTRAINT" => has("CHECK") || has("ASSUME"),
            "PROJECTION" => part.contains('('),
            _ => false,
        };
        if is_other {
            continue;
        }
        let mut name = sql.name()?;
        while sql.sign('.') {
            name = format!("{name}.{}", sql.name()?);
        }
        column(name, sql, &mut columns)?;
    }
    (!columns.is_empty()).then_some(columns)
}

/// One column, or the columns of a `Nested`.
fn column(name: String, mut sql: Sql<'_>, columns: &mut Vec<ListedColumn>) -> Option<()> {
    let is_modifier = |word: &str| MODIFIERS.iter().any(|known| word.eq_ignore_ascii_case(known));
    let before = sql.rest;
    let ty = sql.word();
    let mut type_text = None;
    if !is_modifier(ty) {
        sql.skip(ty.len());
        if sql.rest.starts_with('(') {
            let inner = sql.bracketed()?;
            if ty == "Nested" {
                for part in parts(inner) {
                    let mut member = Sql { rest: part };
                    let member_name = member.name()?;
                    let type_text = known(Some(&format!("Array({})", member.rest)));
                    columns.push(ListedColumn {
                        name: format!("{name}.{member_name}"),
                        type_text,
                        ..Default::default()
                    });
                }
                return Some(());
            }
        }
        let text = before[..before.len() - sql.rest.len()].trim();
        // `DOUBLE PRECISION` and the like are one type.
        let is_whole = sql.rest.is_empty() || is_modifier(sql.word());
        type_text = is_whole.then(|| text.to_owned());
        while !sql.rest.is_empty() && !is_modifier(sql.word()) {
            sql.skip(sql.rest.chars().next().map_or(0, char::len_utf8).max(sql.word().len()));
        }
    }
    let mut default_kind = String::new();
    let mut is_nullable = false;
    loop {
        let word = sql.word().to_ascii_uppercase();
        match word.as_str() {
            "NOT" => {
                sql.skip(word.len());
                sql.keyword("NULL");
            }
            "NULL" => {
                sql.skip(word.len());
                is_nullable = true;
            }
            "DEFAULT" | "MATERIALIZED" | "EPHEMERAL" | "ALIAS" => {
                default_kind = word;
                // `DEFAULT 1 NULL` is known to the server, too.
                type_text = type_text.filter(|_| !sql.rest.to_ascii_uppercase().trim_end().ends_with(" NULL"));
                break;
            }
            _ => break,
        }
    }
    let type_text = type_text.map(|text| if is_nullable { format!("Nullable({text})") } else { text });
    columns.push(ListedColumn { name, type_text: known(type_text.as_deref()), default_kind });
    Some(())
}

/// The type as it is written, if it is one that the encoder knows. The server has more names for types than
/// `system.columns` shows: for any other this is a type that takes everything.
fn known(type_text: Option<&str>) -> String {
    let is_known = |text: &&str| Type::parse(text).is_ok_and(|ty| ty.unsupported().is_none());
    type_text.filter(is_known).unwrap_or("Nullable(String)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clickhouse::split;

    fn check(sql: &str, expected: Option<&str>) {
        let name = TableName { database: "iot".into(), table: "t".into() };
        let found = columns(&split(sql), &name).map(|columns| {
            let one = |c: ListedColumn| format!("{} {} {}", c.name, c.type_text, c.default_kind).trim_end().to_owned();
            columns.into_iter().map(one).collect::<Vec<_>>().join("; ")
        });
        assert_eq!(found.as_deref(), expected, "{sql}");
    }

    #[test]
    fn columns_are_read_as_the_server_lists_them() {
        for (sql, expected) in [
            ("CREATE TABLE iot.t (a UInt8, b String) ENGINE = Memory", "a UInt8; b String"),
            ("create database x; create table if not exists `iot`.\"t\" (`a b` Int8) engine Memory;", "a b Int8"),
            ("CREATE OR REPLACE TABLE iot.t ON CLUSTER 'c' (a Date) ENGINE = Log", "a Date"),
            ("CREATE TABLE iot.t ON CLUSTER c (a Date) ENGINE = Log", "a Date"),
            (
                "-- a, (b\nCREATE TABLE iot.t /* , */ (a Decimal(9, 2), -- digits, (\n b Enum8('x,y' = 1, ')' = 2)) ENGINE = Log",
                "a Decimal(9, 2); b Enum8('x,y' = 1, ')' = 2)",
            ),
            (
                "CREATE TABLE iot.t (a UInt8 DEFAULT f(1, 2), b UInt8 MATERIALIZED a + 1, c UInt8 ALIAS a, d UInt8 EPHEMERAL)",
                "a UInt8 DEFAULT; b UInt8 MATERIALIZED; c UInt8 ALIAS; d UInt8 EPHEMERAL",
            ),
            (
                "CREATE TABLE iot.t (a UInt8 NULL, b UInt8 NOT NULL DEFAULT 1, c String CODEC(ZSTD(3)) TTL d + INTERVAL 1 DAY, d DateTime64(3, 'UTC') COMMENT 'x, DEFAULT')",
                "a Nullable(UInt8); b UInt8 DEFAULT; c String; d DateTime64(3, 'UTC')",
            ),
            (
                "CREATE TABLE iot.t (accel Nested(x Float32, `y` Array(Float32)), a.b Array(UInt8))",
                "accel.x Array(Float32); accel.y Array(Array(Float32)); a.b Array(UInt8)",
            ),
            (
                "CREATE TABLE iot.t (a UInt8, INDEX i a TYPE minmax GRANULARITY 1, CONSTRAINT c CHECK a > 0, PROJECTION p (SELECT a ORDER BY a), PRIMARY KEY (a))",
                "a UInt8",
            ),
            // Other names of types, and what has none: columns that take everything.
            (
                "CREATE TABLE iot.t (a DOUBLE PRECISION, b INT, c VARCHAR(9) NOT NULL, d DEFAULT now(), e AggregateFunction(sum, UInt8), f Enum('x', 'y'), g UInt8 DEFAULT 1 NULL)",
                "a Nullable(String); b Nullable(String); c Nullable(String); d Nullable(String) DEFAULT; e Nullable(String); f Nullable(String); g Nullable(String) DEFAULT",
            ),
            ("CREATE TABLE iot.t (index UInt8, type String)", "index UInt8; type String"),
            ("CREATE TABLE iot.other (a UInt8); CREATE TABLE iot.t (b UInt8)", "b UInt8"),
            ("DROP TABLE IF EXISTS iot.t; CREATE TABLE iot.t (b UInt8); GRANT INSERT ON iot.t TO me", "b UInt8"),
        ] {
            check(sql, Some(expected));
        }
    }

    #[test]
    fn what_is_not_certain_is_not_known() {
        for sql in [
            "",
            "CREATE TABLE t (a UInt8)",
            "CREATE TABLE iot.other (a UInt8)",
            "CREATE TABLE iot.t AS iot.other",
            "CREATE TABLE iot.t ENGINE = Memory AS SELECT 1 AS a",
            "CREATE MATERIALIZED VIEW iot.t (a UInt8) ENGINE = Memory AS SELECT 1",
            "CREATE TEMPORARY TABLE iot.t (a UInt8)",
            "CREATE TABLE iot.t (a UInt8); ALTER TABLE iot.t ADD COLUMN b UInt8",
            "SET flatten_nested = 0; CREATE TABLE iot.t (a UInt8)",
            "CREATE TABLE iot.t (a UInt8); RENAME TABLE iot.t TO iot.u",
            "CREATE TABLE iot.t (a UInt8",
            "CREATE TABLE iot.t (a UInt8]",
            "CREATE TABLE iot.t ()",
            "CREATE TABLE iot.t (`a\\`b` UInt8)",
            "CREATE TABLE iot.t (a 'open",
            "CREATE TABLE iot.t (a Nested(",
        ] {
            check(sql, None);
        }
    }

    #[test]
    fn the_shipped_table_is_known() {
        let sql = include_str!("../../../schemas/telemetry.sql");
        let name = TableName { database: "iot".into(), table: "telemetry".into() };
        assert_eq!(columns(&split(sql), &name).unwrap().len(), 10);
    }
}
