//! `streamer dead-letter export`.
use std::{
    collections::HashMap,
    fs,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::Value as Json;

use super::{State, Which, Whose, letters, list::aside};
use crate::{
    cli::{COULD_NOT, eprint},
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
            let mut json: Json = serde_json::from_slice(&letter.json)?;
            match opened.kept.fill(&mut envelope) {
                Ok(()) if envelope.payload_file.is_some() => json = serde_json::to_value(&envelope)?,
                Ok(()) => {}
                Err(why) => {
                    without += 1;
                    eprint(&format!("{id}: {why}\n"));
                }
            }
            json["id"] = id.to_string().into();
            json["state"] = if *is_redriven { "redriven" } else { "open" }.into();
            match writeln!(out, "{json}") {
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
