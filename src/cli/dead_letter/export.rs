//! `streamer dead-letter export`.
use std::{
    collections::HashMap,
    fs,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use super::{State, Which, Whose, letters, list::aside};
use crate::{
    cli::{COULD_NOT, eprint},
    codec::json,
    dead_letter::{Found, Id},
};

/// Writes letters as JSON lines, and their payloads as files.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Only these letters, as `list` calls them
    ids: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    which: Which,
    /// Which letters
    #[arg(long, value_enum, default_value = "open")]
    state: State,
    /// Where the lines go; without it, to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Writes each payload into a file of this folder, too, named after its letter: `0-42.payload`
    #[arg(long, value_name = "FOLDER")]
    payloads: Option<PathBuf>,
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = self.whose.open()?;
        let survey = opened.survey(&self.which.filter(&self.ids)?, None)?;
        let chosen: HashMap<Id, bool> =
            survey.letters.iter().filter(|e| self.state.takes(e)).map(|e| (e.id, e.is_redriven)).collect();
        let mut out: Box<dyn Write> = match &self.output {
            Some(path) => {
                let file = fs::File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
                Box::new(BufWriter::new(file))
            }
            None => Box::new(BufWriter::new(std::io::stdout().lock())),
        };
        if let Some(folder) = &self.payloads {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        }
        let mut without = 0;
        for found in opened.store.open()? {
            let Found::Letter(letter) = found? else { continue };
            let Some(is_redriven) = chosen.get(&letter.id) else { continue };
            let (id, mut envelope) = (letter.id, letter.envelope);
            // As it lies there, with fields that this streamer may not know; what lies in files is put in.
            let mut json = letter.json;
            match opened.kept.fill(&mut envelope) {
                Ok(()) if envelope.payload_file.is_some() || envelope.source.file.is_some() => json = envelope.json(),
                Ok(()) => {}
                Err(why) => {
                    without += 1;
                    eprint(&format!("{id}: {why}\n"));
                }
            }
            match out.write_all(&line(id, *is_redriven, &json)) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written.context("cannot write the letters")?,
            }
            if let (Some(folder), Some(payload)) = (&self.payloads, envelope.payload()) {
                let file = folder.join(format!("{}.payload", id.to_string().replace(':', "-")));
                fs::write(&file, payload).with_context(|| format!("cannot write `{}`", file.display()))?;
            }
        }
        match out.flush() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        eprint(&format!("{} exported\n", letters(chosen.len() as u64)));
        aside(&survey);
        if without > 0 {
            eprint(&format!("{without} of them without their payload\n"));
            return Ok(ExitCode::from(COULD_NOT));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The letter on one line, with what it is called and how it stands.
fn line(id: Id, is_redriven: bool, letter: &[u8]) -> Vec<u8> {
    let state = if is_redriven { "redriven" } else { "open" };
    let mut line = format!(r#"{{"id":"{id}","state":"{state}","#).into_bytes();
    let mut whole = Vec::with_capacity(letter.len());
    let text = std::str::from_utf8(letter).expect("what was read as JSON is text");
    json::compact(text.trim(), &mut whole).expect("it was read as JSON");
    // Behind its bracket; an object without fields is no letter.
    line.extend_from_slice(&whole[1..]);
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_letter_with_its_id_and_state() {
        let id = Id { partition: Some(0), offset: 7, digest: 0 };
        let line = line(id, false, b" {\n \"version\": 1, \"z\": 1.10 }");
        assert_eq!(String::from_utf8(line).unwrap(), "{\"id\":\"0:7\",\"state\":\"open\",\"version\":1,\"z\":1.10}\n");
    }
}
