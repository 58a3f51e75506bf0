//! Whether a table leaves every row once when an insert is sent again: it and the tables behind its materialized views
//! must remember the tokens of past inserts. A plain MergeTree remembers none unless it is told to, and says nothing.
use std::collections::{HashMap, VecDeque};

use serde::Deserialize;

use super::table::{Abilities, TableName};
use crate::client::clickhouse::{Failure, Server, quote_text};

/// The setting that offers tokens at all.
const TOKEN: &str = "insert_deduplication_token";
/// Tables looked at behind one table.
const TABLES_MAX: usize = 64;

/// What came of looking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Why rows may be doubled, and what to do about it; none when they cannot.
    pub faults: Vec<String>,
    /// Materialized views hang on the table. An insert that such a view refuses may have reached the table all the same.
    pub has_views: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Listed {
    uuid: String,
    engine: String,
    engine_full: String,
    create_table_query: String,
    dependencies_database: Vec<String>,
    dependencies_table: Vec<String>,
}

/// Looks at `table` and at all that its materialized views write to.
///
/// # Errors
/// The server cannot be reached or refuses to answer.
pub async fn inspect(server: &Server, table: &TableName, abilities: &Abilities) -> Result<Memory, Failure> {
    let mut memory = Memory::default();
    if !abilities.knows(TOKEN) {
        memory
            .faults
            .push(format!("ClickHouse {} knows no `{TOKEN}`; a server of 2022 or later does", abilities.version));
        return Ok(memory);
    }
    let defaults = defaults(server).await?;
    let mut seen = Vec::new();
    let mut tables = VecDeque::from([table.clone()]);
    while let Some(name) = tables.pop_front() {
        if seen.contains(&name) || seen.len() == TABLES_MAX {
            continue;
        }
        seen.push(name.clone());
        let Some(listed) = look(server, &name).await? else {
            memory.faults.push(format!("the table `{name}` cannot be seen; grant SELECT on it"));
            continue;
        };
        if listed.engine == "MaterializedView" {
            memory.has_views = true;
            match target(&name, &listed) {
                Some(target) => tables.push_back(target),
                None => memory.faults.push(format!("where the materialized view `{name}` writes to cannot be told")),
            }
            continue;
        }
        memory.faults.extend(fault(&name, &listed, &defaults));
        let views = listed.dependencies_database.into_iter().zip(listed.dependencies_table);
        tables.extend(views.map(|(database, table)| TableName { database, table }));
    }
    Ok(memory)
}

/// Default windows, by setting.
async fn defaults(server: &Server) -> Result<HashMap<String, String>, Failure> {
    #[derive(Deserialize)]
    struct Setting {
        name: String,
        value: String,
    }
    let sql = "SELECT name, value FROM system.merge_tree_settings WHERE name LIKE '%replicated_deduplication_window'";
    let settings: Vec<Setting> = server.rows(sql).await?;
    Ok(settings.into_iter().map(|setting| (setting.name, setting.value)).collect())
}

async fn look(server: &Server, name: &TableName) -> Result<Option<Listed>, Failure> {
    let sql = format!(
        "SELECT toString(uuid) AS uuid, engine, engine_full, create_table_query, dependencies_database, \
         dependencies_table FROM system.tables WHERE database = {} AND name = {}",
        quote_text(&name.database),
        quote_text(&name.table)
    );
    Ok(server.rows::<Listed>(&sql).await?.into_iter().next())
}

fn fault(name: &TableName, listed: &Listed, defaults: &HashMap<String, String>) -> Option<String> {
    let Listed { engine, engine_full, .. } = listed;
    if engine == "Null" {
        // It keeps no rows; those of its views count.
        return None;
    }
    if !engine.ends_with("MergeTree") {
        return Some(format!(
            "the table `{name}` is of engine {engine}, which remembers no inserts; tables of the MergeTree family do"
        ));
    }
    let is_replicated = engine.starts_with("Replicated") || engine.starts_with("Shared");
    let setting = if is_replicated { "replicated_deduplication_window" } else { "non_replicated_deduplication_window" };
    let window = written(engine_full, setting).or(defaults.get(setting).map(String::as_str)).unwrap_or("0");
    (window.parse() == Ok(0_u64)).then(|| {
        format!(
            "the table `{name}` remembers no inserts (`{setting}` is 0); run `ALTER TABLE {} MODIFY SETTING {setting} = \
             10000`",
            name.quoted()
        )
    })
}

/// The value of a setting in the text of an engine: `… SETTINGS a = 1, b = 2`.
fn written<'a>(engine_full: &'a str, setting: &str) -> Option<&'a str> {
    let (_, settings) = engine_full.rsplit_once(" SETTINGS ")?;
    settings.split(", ").find_map(|pair| {
        let (name, value) = pair.split_once(" = ")?;
        (name.trim() == setting).then(|| value.trim())
    })
}

/// The table that a materialized view writes to: named by `TO`, else one of its own.
fn target(view: &TableName, listed: &Listed) -> Option<TableName> {
    let head = listed.create_table_query.split(" AS SELECT").next()?.split('(').next()?;
    if let Some((_, to)) = head.split_once(" TO ") {
        let parts = names(to.trim())?;
        return match &parts[..] {
            [table] => Some(TableName { database: view.database.clone(), table: table.clone() }),
            [database, table] => Some(TableName { database: database.clone(), table: table.clone() }),
            _ => None,
        };
    }
    let is_named = listed.uuid.chars().any(|c| c != '0' && c != '-');
    let table = if is_named { format!(".inner_id.{}", listed.uuid) } else { format!(".inner.{}", view.table) };
    Some(TableName { database: view.database.clone(), table })
}

/// The names in `a.b`, quoted or not, up to the first blank.
fn names(text: &str) -> Option<Vec<String>> {
    let mut names = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let name = names.last_mut().expect("there is one");
        match c {
            '`' => loop {
                match chars.next()? {
                    '`' => break,
                    '\\' => name.push(chars.next()?),
                    c => name.push(c),
                }
            },
            '.' => names.push(String::new()),
            c if c.is_whitespace() => break,
            c => name.push(c),
        }
    }
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(engine: &str, engine_full: &str, create: &str, uuid: &str) -> Listed {
        Listed {
            uuid: uuid.into(),
            engine: engine.into(),
            engine_full: engine_full.into(),
            create_table_query: create.into(),
            dependencies_database: Vec::new(),
            dependencies_table: Vec::new(),
        }
    }

    #[test]
    fn a_table_needs_a_window() {
        let name = TableName { database: "iot".into(), table: "t".into() };
        let defaults = HashMap::from([
            ("non_replicated_deduplication_window".to_owned(), "0".to_owned()),
            ("replicated_deduplication_window".to_owned(), "10000".to_owned()),
        ]);
        let set = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100, index_granularity = 8192";
        let table = [
            ("MergeTree", "MergeTree ORDER BY a SETTINGS index_granularity = 8192", true),
            ("MergeTree", set, false),
            ("ReplicatedMergeTree", "ReplicatedMergeTree('/x', 'r') ORDER BY a", false),
            ("ReplacingMergeTree", "ReplacingMergeTree ORDER BY a", true),
            ("Log", "Log", true),
            ("Null", "Null", false),
        ];
        for (engine, full, is_fault) in table {
            let found = fault(&name, &listed(engine, full, "", ""), &defaults);
            assert_eq!(found.is_some(), is_fault, "{engine}: {found:?}");
        }
        let said = fault(&name, &listed("MergeTree", "MergeTree ORDER BY a", "", ""), &defaults).unwrap();
        assert!(
            said.ends_with("run `ALTER TABLE `iot`.`t` MODIFY SETTING non_replicated_deduplication_window = 10000`"),
            "{said}"
        );
    }

    #[test]
    fn the_target_of_a_view_is_found() {
        let view = TableName { database: "iot".into(), table: "v".into() };
        let table = [
            ("CREATE MATERIALIZED VIEW iot.v TO iot.sums (`a` UInt8) AS SELECT a FROM iot.t", "iot.sums"),
            ("CREATE MATERIALIZED VIEW iot.v TO `my db`.`x.y` (`a` UInt8) AS SELECT 1", "my db.x.y"),
            ("CREATE MATERIALIZED VIEW iot.v TO sums AS SELECT a FROM iot.t", "iot.sums"),
            ("CREATE MATERIALIZED VIEW iot.v (`TO ` UInt8) ENGINE = Log AS SELECT 1 AS `TO `", "iot..inner_id.1-2"),
        ];
        for (create, expected) in table {
            let found = target(&view, &listed("MaterializedView", "", create, "1-2"));
            assert_eq!(found.map(|name| name.to_string()).as_deref(), Some(expected), "{create}");
        }
        let old = target(&view, &listed("MaterializedView", "", "CREATE MATERIALIZED VIEW iot.v (`a` UInt8)", "00-00"));
        assert_eq!(old.unwrap().table, ".inner.v");
    }
}
