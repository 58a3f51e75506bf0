//! `streamer dead-letter list`.
use std::process::ExitCode;

use serde_json::json;

use super::{Which, Whose, letters};
use crate::{
    cli::{eprint, print},
    dead_letter::{Group, Survey},
};

/// Shows what failed, in groups.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    which: Which,
    /// Groups by time, too
    #[arg(long, value_enum, value_name = "STRETCH")]
    by: Option<Stretch>,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One JSON object a group
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stretch {
    Minute,
    Hour,
    Day,
}

impl Stretch {
    fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = self.whose.open()?;
        let survey = opened.survey(&self.which.filter(&[])?, self.by.map(Stretch::seconds))?;
        if self.format == Shown::Json {
            survey.groups.iter().try_for_each(|group| print(&line(opened.name(), group)))?;
        } else {
            let open = survey.open().count();
            let redriven = survey.letters.len() - open;
            let (name, store) = (opened.name(), opened.store.name());
            print(&format!("dead letters of `{name}` in {store}: {open} open, {redriven} redriven\n"))?;
            survey.groups.iter().try_for_each(|group| print(&text(group)))?;
        }
        aside(&survey);
        Ok(ExitCode::SUCCESS)
    }
}

fn text(group: &Group) -> String {
    let Group { stage, code, open, redriven, example, reason, .. } = group;
    let redriven = if *redriven > 0 { format!(", {redriven} redriven") } else { String::new() };
    let from = group.from.map(|from| format!("from {from}  ")).unwrap_or_default();
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(|| "?".to_owned(), |time| format!("{time:.0}"));
    let times = match (time(group.first), time(group.last)) {
        (first, last) if first == last => first,
        (first, last) => format!("{first} to {last}"),
    };
    let place = group.place.as_ref().map(|place| format!("    at {place}\n")).unwrap_or_default();
    format!("\n{from}{open} open{redriven}  {stage}  {code}\n    {reason}\n{place}    {times}, for example {example}\n")
}

fn line(pipeline: &str, group: &Group) -> String {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    let line = json!({
        "pipeline": pipeline,
        "stage": group.stage,
        "code": group.code,
        "kind": group.kind,
        "reason": group.reason,
        "place": group.place,
        "from": time(group.from),
        "open": group.open,
        "redriven": group.redriven,
        "first": time(group.first),
        "last": time(group.last),
        "example": group.example.to_string(),
    });
    format!("{line}\n")
}

/// What else lies there.
pub(super) fn aside(survey: &Survey) {
    for (pipeline, count) in &survey.others {
        eprint(&format!("{} of pipeline `{pipeline}` not counted\n", letters(*count)));
    }
    if survey.foreign > 0 {
        eprint(&format!("{} there that are no dead letters:\n", survey.foreign));
        survey.foreign_reasons.iter().for_each(|(id, why)| eprint(&format!("  {id}: {why}\n")));
    }
}
