//! `streamer dead-letter show`.
use std::{fmt::Write as _, path::Path, process::ExitCode};

use serde::de::IgnoredAny;

use super::{Opened, Which, Whose};
use crate::{
    cli::{
        caret::{caret, parts},
        print,
    },
    dead_letter::{Envelope, Found, Id, Stored},
    pipeline::bytes_text,
};

/// Shows one letter whole.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// What `list` calls it: `0:42`, in a file `42`
    id: String,
    #[command(flatten)]
    whose: Whose,
    /// How the original bytes are shown
    #[arg(long, value_enum, default_value = "auto")]
    payload: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// JSON over several lines, text as it is, other bytes as hex
    Auto,
    /// As it came
    Text,
    /// JSON over several lines
    Json,
    /// Bytes in rows of 16
    Hex,
    /// Nothing but the bytes themselves
    Raw,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = self.whose.open()?;
        let filter = Which::default().filter(std::slice::from_ref(&self.id))?;
        let wanted = filter.ids[0];
        let (letter, is_redriven) = find(&opened, wanted)?;
        let mut envelope = letter.envelope;
        let payload = match opened.kept.fill(&mut envelope) {
            Ok(()) => Ok(envelope.payload().unwrap_or_default()),
            Err(why) => Err(why),
        };
        if self.payload == Shown::Raw {
            use std::io::Write as _;
            let bytes = payload.map_err(anyhow::Error::msg)?;
            std::io::stdout().lock().write_all(&bytes)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = about(letter.id, &envelope, is_redriven);
        match payload {
            Ok(bytes) => {
                let _ = write!(out, "\npayload, {} bytes\n{}\n", bytes.len(), shown(&bytes, self.payload));
            }
            Err(why) => {
                let _ = write!(out, "\nthe payload is not there: {why}\n");
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The letter, and whether it was redriven.
fn find(opened: &Opened, wanted: Id) -> anyhow::Result<(Stored, bool)> {
    let (mut letter, mut marked) = (None, false);
    for found in opened.store.open()? {
        match found? {
            Found::Letter(found) if wanted.names(found.id) => letter = Some(*found),
            Found::Foreign(id, why) if wanted.names(id) => {
                anyhow::bail!("{id} in {} is no dead letter: {why}", opened.store.name())
            }
            Found::Mark(ids) => {
                marked |= letter.as_ref().is_some_and(|letter| ids.contains(&letter.id));
            }
            Found::Letter(_) | Found::Foreign(..) => {}
        }
    }
    let store = opened.store.name();
    let letter = letter.ok_or_else(|| {
        anyhow::anyhow!(
            "there is no dead letter {wanted} in {store}; `streamer dead-letter list` names some that are there"
        )
    })?;
    Ok((letter, marked))
}

fn about(id: Id, letter: &Envelope, is_redriven: bool) -> String {
    let mut out =
        format!("dead letter {id} of `{}`, {}\n", letter.pipeline, if is_redriven { "redriven" } else { "open" });
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(out, "  {name:<12}{value}");
        }
    };
    let source = &letter.source;
    row("time", Some(letter.time.clone()));
    row("part", letter.part.map(|part| part.to_string()));
    row("attempts", Some(letter.attempts.to_string()));
    row("redrives", (letter.redrives > 0).then(|| letter.redrives.to_string()));
    row("input", Some(source.input.clone()));
    row("topic", source.topic.clone());
    row("partition", source.partition.map(|n| n.to_string()));
    row("offset", source.offset.map(|n| n.to_string()));
    row("key", source.key().map(|key| bytes_text(&key)));
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string());
    row("timestamp", source.timestamp_ms.map(time));
    row("received_at", Some(time(source.received_at_ms)));
    for header in &source.headers {
        row("header", Some(format!("{}: {}", header.name, bytes_text(&header.bytes()))));
    }
    for past in &letter.history {
        let place = past.place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default();
        row("before", Some(format!("{}: {}: {}{place}: {}", past.time, past.stage, past.code, past.reason)));
    }
    out.push('\n');
    out += &caret(&letter.stage, &letter.code, &letter.reason, letter.place.as_deref(), None);
    if is_changed_since(letter) {
        out += "  the file has changed since: the line may have moved\n";
    }
    out
}

/// True when the file of the script was saved after the letter was written.
fn is_changed_since(letter: &Envelope) -> bool {
    let place = letter.place.as_deref().and_then(parts);
    let saved = place.and_then(|(path, ..)| Path::new(path).metadata().ok()?.modified().ok());
    let saved = saved.and_then(|time| jiff::Timestamp::try_from(time).ok());
    saved.zip(letter.time.parse::<jiff::Timestamp>().ok()).is_some_and(|(saved, written)| saved > written)
}

fn shown(bytes: &[u8], how: Shown) -> String {
    match how {
        Shown::Json | Shown::Auto if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => spread(bytes),
        Shown::Hex => hex(bytes),
        Shown::Auto => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => hex(bytes),
        },
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// JSON over several lines. Numbers, strings and the order of keys stay as they came.
fn spread(json: &[u8]) -> String {
    let (mut out, mut depth, mut in_string, mut escaped) = (Vec::with_capacity(json.len() * 2), 0, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 2, b' ');
    };
    // True right behind a bracket that opens: `{}` stays as it is.
    let mut opened = false;
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            out.push(byte);
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'}' | b']' => {
                depth -= 1;
                if !opened {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            _ => {
                if opened {
                    line(&mut out, depth);
                }
                out.push(byte);
                match byte {
                    b'{' | b'[' => depth += 1,
                    b',' => line(&mut out, depth),
                    b':' => out.push(b' '),
                    _ => in_string = byte == b'"',
                }
            }
        }
        opened = matches!(byte, b'{' | b'[');
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Rows of 16 bytes: where, as numbers, as letters.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 5);
    for (row, bytes) in bytes.chunks(16).enumerate() {
        let numbers: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let letter = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let letters: String = bytes.iter().map(letter).collect();
        let _ = writeln!(out, "{:08x}  {numbers:<48} {letters}", row * 16);
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        let spread = "{\n  \"b\": 1.10,\n  \"a\": [\n    {},\n    \"[,:\\\"{\"\n  ]\n}";
        assert_eq!(shown(b"{\"b\":1.10,\"a\": [{}, \"[,:\\\"{\"]}", Shown::Auto), spread);
        assert_eq!(shown(b"{\"a\":1}", Shown::Text), "{\"a\":1}");
        assert_eq!(shown(b"plain", Shown::Json), "plain");
        assert_eq!(shown(b"", Shown::Auto), "");
        let row = "00000000  ff 61 00                                         .a.";
        assert_eq!(shown(b"\xffa\x00", Shown::Auto), row);
        assert_eq!(hex(&[0; 17]).lines().count(), 2);
    }
}
