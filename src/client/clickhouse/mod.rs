//! ClickHouse over HTTP: a server to ask and to send inserts to, its data types, and what its errors mean.
//!
//! The `clickhouse` crate is the transport only. Its typed rows need the columns at compile time; here they are learnt
//! from the server. Queries are answered as JSON lines, which every server since 2018 can write.
mod failure;
mod statements;
mod types;

use std::time::Duration;

use bytes::Bytes;
use clickhouse::{Client, Compression};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;

pub use failure::{Failure, shorten};
pub use statements::{quote_name, quote_text, split};
pub use types::{Type, TypeError};

use super::Secret;

/// What may be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself: the same bytes again, after a pause.
    Transient,
    /// The server asks for fewer or smaller inserts: the same again, after a pause.
    Backpressure,
    /// Out of memory. Passes by itself, unless the insert is too big for the server.
    Memory,
    /// The insert touches too many partitions: smaller pieces.
    Split,
    /// The table is not what it was when its columns were read.
    Drift,
    /// Someone must change the settings, the table or a grant.
    Config,
    /// A row cannot be accepted, ever.
    Row,
}

/// Idle connections are closed after this; servers of old close theirs after 3 seconds.
const IDLE: Duration = Duration::from_secs(2);

/// Pieces in which a body is compressed and handed to the connection, in bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// One ClickHouse server, or whatever balances between several. Cheap to clone; connections are pooled.
#[derive(Clone)]
pub struct Server {
    queries: Client,
    inserts: Client,
    timeout: Duration,
}

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// `http://` or `https://`, without credentials.
    pub url: &'a str,
    pub user: &'a str,
    /// Empty: none is sent.
    pub password: &'a Secret,
    /// Bodies of inserts are compressed with LZ4.
    pub lz4: bool,
    /// Longest time for one request, from its first byte to the last of the answer.
    pub timeout: Duration,
}

impl Server {
    /// A server to talk to. No connection is made before the first request.
    pub fn new(access: &Access<'_>) -> Self {
        let client = if access.url.starts_with("http:") { plain_http() } else { Client::default() };
        let mut queries = client
            .with_url(access.url)
            .with_user(access.user)
            .with_compression(Compression::None)
            .with_product_info("streamer", env!("CARGO_PKG_VERSION"));
        if !access.password.expose().is_empty() {
            queries = queries.with_password(access.password.expose());
        }
        let inserts = queries.clone().with_compression(if access.lz4 { Compression::Lz4 } else { Compression::None });
        Self { queries, inserts, timeout: access.timeout }
    }

    /// The rows that a SELECT answers.
    ///
    /// # Errors
    /// The server refused or cannot be reached, or a row is not of type `T`.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let answer = self.limit(async { Ok(self.queries.query_raw(sql).fetch_bytes("JSONEachRow")?.collect().await?) });
        serde_json::Deserializer::from_slice(&answer.await?)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::Network(format!("unexpected answer to `{}`: {error}", shorten(sql, 80))))
    }

    /// Hands `each` the bytes that a SELECT answers in `format`, piece by piece as they come.
    ///
    /// # Errors
    /// The server refused, cannot be reached, or is silent for the time of a request; or what `each` answers.
    pub async fn stream<E: From<Failure>>(
        &self,
        sql: &str,
        format: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = self.queries.query_raw(sql).fetch_bytes(format).map_err(Failure::from)?;
        while let Some(piece) = self.limit(async { Ok(cursor.next().await?) }).await? {
            each(&piece)?;
        }
        Ok(())
    }

    /// Runs a statement that answers nothing, such as CREATE TABLE.
    ///
    /// # Errors
    /// The server refused or cannot be reached.
    pub async fn execute(&self, sql: &str) -> Result<(), Failure> {
        self.limit(async { Ok(self.queries.query_raw(sql).execute().await?) }).await
    }

    /// Sends one INSERT with its whole body, made of `parts`, and waits until the server says it is written.
    ///
    /// # Errors
    /// The server refused or cannot be reached. On `Timeout` and `Network` it may have written the rows all the same.
    ///
    /// # Cancel safety
    /// A dropped future breaks the request off; what the server has made of it then is not known.
    pub async fn insert(&self, sql: &str, settings: &[(String, String)], parts: [Bytes; 2]) -> Result<(), Failure> {
        let mut insert = self.inserts.insert_formatted_with(sql);
        for (name, value) in settings {
            insert = insert.with_setting(name, value);
        }
        self.limit(async {
            for mut part in parts {
                while !part.is_empty() {
                    insert.send(part.split_to(part.len().min(CHUNK_BYTES))).await?;
                }
            }
            Ok(insert.end().await?)
        })
        .await
    }

    /// Longest time for one request.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn limit<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.timeout, request).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// A client for plain HTTP that sends at once. The crate's own waits for the acknowledgement of a request's head before
/// it sends a short body, which costs every small insert the 40 ms of a delayed TCP acknowledgement.
fn plain_http() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    Client::with_http_client(HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(connector))
}
