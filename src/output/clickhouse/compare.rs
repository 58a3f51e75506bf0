//! The table as it is, against the rows that messages make: for an audit. Reads only.
//!
//! Keys are compared as the bytes that the output would write for them, which are the bytes that the server answers in
//! `RowBinary`: a text, a number and a time are the same key when they are the same value of the column.
use std::sync::Arc;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Writer,
    rows::{Encoder, Layout},
    table::{Abilities, Table},
};
use crate::{
    client::clickhouse::{Failure, Type, quote_name},
    message::Batch,
    spec::Section,
};

/// A table, and the columns that tell its rows apart.
pub struct Compared {
    writer: Arc<Writer>,
    table: Arc<Table>,
    abilities: Abilities,
    /// Indexes of the key's columns; empty when rows are only counted.
    by: Vec<usize>,
}

/// What would become of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// A row, with this key; 0 when rows are only counted.
    Row(u128),
    /// A dead letter: the code.
    Refused(String),
}

/// Why a comparison cannot go on.
#[derive(Debug)]
enum Stop {
    Server(Failure),
    Told(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Server(failure)
    }
}

impl Compared {
    /// Asks the server about the table of a `clickhouse` output.
    ///
    /// # Errors
    /// What was tried on which server, and what to do.
    pub async fn open(section: &Section, by: &[String]) -> Result<Self, String> {
        let parts = super::settings::output(section)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let writer = parts.writer;
        let Writer { server, name, url, .. } = &*writer;
        let abilities = Abilities::ask(server).await.map_err(|failure| {
            format!("cannot ask `{url}` as user `{}`: {failure}; {}", parts.user, failure.advice())
        })?;
        let listed = name.columns(server).await;
        let listed = listed.map_err(|failure| writer.explain("read the columns of", &failure))?;
        if listed.is_empty() {
            return Err(format!(
                "there is no table `{name}` at `{url}`, or user `{}` may not see it; grant SELECT on it",
                parts.user
            ));
        }
        let table =
            Table::new(listed, &abilities.time_zone, abilities.knows("input_format_binary_read_json_as_string"))
                .map_err(|what| format!("cannot compare with `{name}` at `{url}`: {what}"))?;
        let find = |column: &String| {
            let at = table.columns.iter().position(|known| known.name == *column).ok_or_else(|| {
                let names: Vec<_> = table.columns.iter().map(|column| format!("`{}`", column.name)).collect();
                format!("`{name}` has no column `{column}` that is written; it has {}", names.join(", "))
            })?;
            match can_be_a_key(&table.columns[at].ty) {
                true => Ok(at),
                false => Err(format!(
                    "column `{column}` is of type `{}`, which cannot be part of a key; name numbers, texts or times",
                    table.columns[at].type_text
                )),
            }
        };
        let by = by.iter().map(find).collect::<Result<_, String>>()?;
        Ok(Self { table: Arc::new(table), by, abilities, writer })
    }

    /// As it is named in texts.
    pub fn shown(&self) -> String {
        format!("table `{}` at `{}`", self.writer.name, self.writer.url)
    }

    /// What becomes of each message, in order.
    ///
    /// # Errors
    /// A column of the key is left to its DEFAULT, which only the server can compute.
    pub fn judge(&self, batch: &Batch) -> Result<Vec<Judged>, String> {
        let encoder =
            |layout| Encoder::new(self.table.clone(), layout, self.writer.rules, batch.len(), batch.payload_bytes());
        let mut whole = encoder(Layout::all(&self.table));
        for (index, message) in (0..).zip(batch.iter()) {
            whole.message(index, message.payload(), message.document());
        }
        let mut judged = vec![Judged::Row(0); batch.len()];
        for rejection in whole.finish(&self.abilities).rejected {
            judged[rejection.index as usize] = Judged::Refused(rejection.code);
        }
        if self.by.is_empty() {
            return Ok(judged);
        }
        // With flags, or a value that is missing would look like one that is zero.
        let mut keys = encoder(Layout { columns: self.by.clone(), flags: true }).in_one_block();
        for (index, message) in (0..).zip(batch.iter()) {
            if judged[index as usize] == Judged::Row(0) {
                keys.message(index, message.payload(), message.document());
            }
        }
        let mut key = Vec::new();
        for block in keys.finish(&self.abilities).blocks {
            for at in 0..block.len() {
                self.plain(block.row(at), &mut key)?;
                judged[block.message(at) as usize] = Judged::Row(xxh3_128(&key));
            }
        }
        Ok(judged)
    }

    /// A row with flags as the server answers it: without them, and with a zero for what is missing.
    fn plain(&self, mut row: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        for column in self.by.iter().map(|&at| &self.table.columns[at]) {
            let is_missing = row[0] == 1;
            row = &row[1..];
            if is_missing && column.has_default {
                return Err(format!(
                    "some messages have no `{}`, and the server computes its DEFAULT; a key needs columns that all messages \
                     have",
                    column.name
                ));
            }
            if is_missing {
                out.extend_from_slice(&column.zero);
            } else {
                let width = width(&column.ty, row).expect("the encoder writes whole values");
                out.extend_from_slice(&row[..width]);
                row = &row[width..];
            }
        }
        Ok(())
    }

    /// How many rows the table has.
    ///
    /// # Errors
    /// What was tried on which server, and what to do.
    pub async fn count(&self) -> Result<u64, String> {
        #[derive(Deserialize)]
        struct Count {
            // As text: servers before 25.8 write large numbers so.
            n: String,
        }
        let sql = format!("SELECT toString(count()) AS n FROM {}", self.writer.name.quoted());
        let rows: Result<Vec<Count>, Failure> = self.writer.server.rows(&sql).await;
        let rows = rows.map_err(|failure| self.writer.explain("count the rows of", &failure))?;
        rows.first().and_then(|count| count.n.parse().ok()).ok_or_else(|| format!("{sql}: no number came"))
    }

    /// Hands `each` the key of every row, and the columns of the key as text when `texts` are asked for.
    ///
    /// # Errors
    /// What was tried on which server, and what to do; or what `each` answers.
    pub async fn keys(
        &self,
        texts: bool,
        mut each: impl FnMut(u128, &[String]) -> Result<(), String>,
    ) -> Result<(), String> {
        let columns: Vec<_> = self.by.iter().map(|&at| &self.table.columns[at]).collect();
        let names: Vec<_> = columns.iter().map(|column| quote_name(&column.name)).collect();
        let mut asked = names.join(", ");
        if texts {
            names.iter().for_each(|name| asked += &format!(", ifNull(toString({name}), 'NULL')"));
        }
        let sql = format!("SELECT {asked} FROM {}", self.writer.name.quoted());
        let (mut rest, mut shown) = (Vec::new(), Vec::new());
        let read = |piece: &[u8]| {
            rest.extend_from_slice(piece);
            let mut done = 0;
            loop {
                let row: &[u8] = &rest[done..];
                let key = columns.iter().try_fold(0, |at, column| Some(at + width(&column.ty, &row[at..])?));
                let Some(key_end) = key.filter(|_| !row.is_empty()) else { break };
                let mut end = key_end;
                shown.clear();
                if texts {
                    for _ in &columns {
                        let Some(width) = width(&Type::String, &row[end..]) else { break };
                        let (prefix, len) = var_len(&row[end..]).expect("its width was known");
                        shown.push(String::from_utf8_lossy(&row[end + prefix..][..len]).into_owned());
                        end += width;
                    }
                    if shown.len() < columns.len() {
                        break;
                    }
                }
                each(xxh3_128(&row[..key_end]), &shown).map_err(Stop::Told)?;
                done += end;
            }
            rest.drain(..done);
            Ok(())
        };
        match self.writer.server.stream(&sql, "RowBinary", read).await {
            Ok(()) if rest.is_empty() => Ok(()),
            Ok(()) => Err(format!("the answer of {} ends inside a row; try again", self.shown())),
            Err(Stop::Server(failure)) => Err(self.writer.explain("read the rows of", &failure)),
            Err(Stop::Told(reason)) => Err(reason),
        }
    }

    /// Names of the key's columns.
    pub fn by(&self) -> impl Iterator<Item = &str> {
        self.by.iter().map(|&at| self.table.columns[at].name.as_str())
    }
}

fn can_be_a_key(ty: &Type) -> bool {
    match ty {
        Type::Nullable(inner) | Type::LowCardinality(inner) => can_be_a_key(inner),
        Type::Array(_) | Type::Tuple(_) | Type::Map(..) | Type::Json | Type::Other(_) => false,
        _ => true,
    }
}

/// Bytes of the value of type `ty` at the start of `bytes`; `None` when it is not all there.
///
/// # Panics
/// The type cannot be a key's.
fn width(ty: &Type, bytes: &[u8]) -> Option<usize> {
    let width = match ty {
        Type::UInt(width) | Type::Int(width) | Type::Enum(width, _) => usize::from(*width),
        Type::Bool => 1,
        Type::BFloat16 | Type::Date => 2,
        Type::Float32 | Type::Date32 | Type::DateTime(_) | Type::Time | Type::Ipv4 => 4,
        Type::Float64 | Type::DateTime64(..) | Type::Time64(_) => 8,
        Type::Uuid | Type::Ipv6 => 16,
        Type::FixedString(len) => *len,
        Type::Decimal(precision, _) => Type::decimal_bytes(*precision),
        Type::String => {
            let (prefix, len) = var_len(bytes)?;
            prefix.checked_add(len)?
        }
        Type::LowCardinality(inner) => width(inner, bytes)?,
        Type::Nullable(inner) => match bytes.first()? {
            0 => 1 + width(inner, &bytes[1..])?,
            _ => 1,
        },
        Type::Array(_) | Type::Tuple(_) | Type::Map(..) | Type::Json | Type::Other(_) => {
            unreachable!("it was checked what can be a key")
        }
    };
    (bytes.len() >= width).then_some(width)
}

/// A length, seven bits a byte, and how many bytes it takes.
fn var_len(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut len = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((at + 1, len));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_bytes_and_cut_values_wait() {
        let nullable = |ty| Type::Nullable(Box::new(ty));
        let long = [&[0xac, 0x02][..], &[b'x'; 300]].concat();
        for (ty, bytes, expected) in [
            (Type::UInt(4), &[1, 2, 3, 4, 5][..], Some(4)),
            (Type::UInt(4), &[1, 2, 3], None),
            (Type::String, &[3, b'a', b'b', b'c', 9], Some(4)),
            (Type::String, &[3, b'a'], None),
            (Type::String, &[0], Some(1)),
            (Type::String, &[0x80], None),
            (Type::String, &long, Some(302)),
            (Type::String, &long[..301], None),
            (nullable(Type::Float64), &[1, 9, 9], Some(1)),
            (nullable(Type::String), &[0, 1, b'a'], Some(3)),
            (nullable(Type::Uuid), &[0, 1], None),
            (Type::LowCardinality(Box::new(nullable(Type::String))), &[], None),
            (Type::Decimal(19, 2), &[0; 16], Some(16)),
        ] {
            assert_eq!(width(&ty, bytes), expected, "{ty:?}");
        }
    }
}
