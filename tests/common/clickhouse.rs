//! ClickHouse over HTTP.
use serde_json::Value;

use super::http;

#[derive(Clone, Debug)]
pub struct ClickHouse {
    /// `http://host:port`
    pub url: String,
    pub user: String,
    pub password: String,
}

impl ClickHouse {
    /// The rows that answer a statement, one JSON object each; none for a statement that answers nothing. Float64 comes
    /// as text: `serde_json` reads numbers off by a last digit.
    pub fn query(&self, sql: &str) -> Result<Vec<Value>, String> {
        let body = self.send(sql.as_bytes()).map_err(|error| format!("`{sql}`: {error}"))?;
        Ok(body.lines().map(|line| serde_json::from_str(line).expect("ClickHouse writes JSON")).collect())
    }

    /// What answers a statement, perhaps with data behind it.
    pub fn send(&self, statement: &[u8]) -> Result<String, String> {
        let address = self.url.strip_prefix("http://").unwrap_or(&self.url).trim_end_matches('/');
        let headers = format!("X-ClickHouse-User: {}\r\nX-ClickHouse-Key: {}\r\n", self.user, self.password);
        let path = "/?default_format=JSONEachRow&wait_end_of_query=1&output_format_json_quote_64bit_integers=0\
                    &output_format_json_quote_64bit_floats=1";
        let (status, body) = http::request("POST", address, path, &headers, statement)?;
        if status == 200 { Ok(body) } else { Err(format!("{status} {body}")) }
    }

    /// The number of rows in a table.
    pub fn count(&self, table: &str) -> Result<u64, String> {
        let rows = self.query(&format!("SELECT count() AS n FROM {table}"))?;
        Ok(rows[0]["n"].as_u64().expect("a number"))
    }
}
