//! `streamer new`: a pipeline to start from, with a comment for each setting and a test that passes.
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};
use serde_json::Value as Json;

use super::{Command, eprint, files, print};
use crate::{
    config::{Document, Environment, Kind},
    diagnostic::{self, Diagnostic, Format, SourceFile, nearest},
    lint::lint,
    pipeline::{Pipeline, Sample, Trial},
    registry::{Found, Registry, fields},
};

pub(super) const COMMAND: Command = Command {
    name: "new",
    about: "Writes a pipeline to start from: `streamer new mqtt/map/kafka`",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  streamer new mqtt/map/kafka                writes pipelines/mqtt-to-kafka.yaml
  streamer new kafka/filter,map/clickhouse   several steps
  streamer new stdin/stdout --file -         to standard output

`streamer list` shows all inputs, steps and outputs.")]
struct Args {
    /// An input, steps with commas between them, and an output: INPUT/OUTPUT or INPUT/STEP,STEP/OUTPUT
    parts: String,
    /// The file to write; `-` for standard output. An existing file is never written over
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    plugins: files::PluginFolder,
}

/// The message of the test: what the examples of steps ask for.
const PAYLOAD: &str =
    r#"{"device_id":"phone-1","battery":84,"position":{"lat":52.5,"lon":13.4},"readings":[{"t":20.5},{"t":21}]}"#;

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let registry = args.plugins.registry(&[])?;
    let parts: Vec<&str> = args.parts.split('/').map(str::trim).collect();
    let (input, steps, output) = match parts.as_slice() {
        [input, output] => (*input, Vec::new(), *output),
        [input, steps, output] => (*input, steps.split(',').map(str::trim).collect(), *output),
        _ => anyhow::bail!(
            "`{}` is not INPUT/OUTPUT or INPUT/STEP,STEP/OUTPUT; write for example `mqtt/map/kafka`",
            args.parts
        ),
    };
    let input = find(&registry, Kind::Input, input)?;
    let output = find(&registry, Kind::Output, output)?;
    let steps = steps.into_iter().map(|name| find(&registry, Kind::Step, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let name = format!("{}-to-{}", input.name(), output.name());
    let path = args.file.clone().unwrap_or_else(|| Path::new("pipelines").join(format!("{name}.yaml")));
    let to_stdout = path.as_os_str() == "-";
    anyhow::ensure!(
        to_stdout || !path.exists(),
        "`{}` is there already; name another one with `--file`",
        path.display()
    );
    let text = text(&name, &input, &steps, &output, &registry)?;
    if to_stdout {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    // Also when it came into being meanwhile.
    let mut file = std::fs::File::create_new(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    let shown = path.display();
    eprint(&format!(
        "wrote `{shown}`; next:\n  streamer test {shown}   run its test\n  streamer map {shown}    try it on messages of your own\n  streamer run {shown}    run it\n"
    ));
    Ok(ExitCode::SUCCESS)
}

fn find(registry: &Registry, kind: Kind, name: &str) -> anyhow::Result<Found> {
    registry.find(kind, name).with_context(|| {
        let names = registry.names(kind);
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("{}: {}", kind.key(), names.join(", ")),
        };
        format!("no {} is called `{name}`; {hint}", kind.word())
    })
}

/// The pipeline's text. Its test expects what the pipeline gives.
fn text(name: &str, input: &Found, steps: &[Found], output: &Found, registry: &Registry) -> anyhow::Result<String> {
    let mut out = format!(
        "# Reads from {}, writes to {}. `streamer list NAME` shows every setting of a component.\nname: {name}\n\ninputs:\n",
        input.name(),
        output.name()
    );
    out += "  in:                          # a label of your own: it shows in logs and metrics\n";
    out += &component(input, 4, false);
    if !steps.is_empty() {
        out += "\nsteps:\n";
        steps.iter().for_each(|step| out += &component(step, 2, true));
    }
    out += "\noutputs:\n  out:\n";
    let written = component(output, 4, false);
    // What is read must not be written to.
    out += &match input.name() == output.name() {
        true => written.replace("topic: telemetry\n", "topic: telemetry.out\n"),
        false => written,
    };
    out += "\n# Messages that cannot be worked on or delivered, as they came and with the reason.\n";
    out += "dead_letter:\n  file:\n    path: dead-letters.ndjson\n";
    let test = test(&out, registry)?;
    out += &test;
    Ok(out)
}

/// A component's example, with what each of its settings means.
fn component(found: &Found, indent: usize, is_step: bool) -> String {
    let (blank, name) = (" ".repeat(indent), found.name());
    let lead = if is_step { "- " } else { "" };
    let body = found.example().trim_matches('\n');
    let inner = " ".repeat(indent + lead.len() + 2);
    let is_fields = serde_yaml::from_str::<serde_yaml::Value>(body).is_ok_and(|value| value.is_mapping());
    let mut out = format!("{blank}# {}\n", found.summary());
    if body.is_empty() || body == "{}" {
        out += &format!("{blank}{lead}{name}: {{}}\n");
        return out;
    }
    if !is_fields || body.starts_with('{') {
        // A script or a single value stands right after the key.
        let mut lines = body.lines();
        let _ = writeln!(out, "{blank}{lead}{name}: {}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{}", format!("{}{line}", " ".repeat(indent + lead.len())).trim_end());
        }
        return out;
    }
    let about = fields(&found.schema());
    let _ = writeln!(out, "{blank}{lead}{name}:");
    for line in body.lines() {
        let key = line.split(':').next().unwrap_or_default();
        if let Some(field) = about.iter().find(|field| field.name == key) {
            let first = field.description.split(". ").next().unwrap_or_default().trim_end_matches('.');
            let _ = writeln!(out, "{inner}# {first}.");
        }
        let _ = writeln!(out, "{}", format!("{inner}{line}").trim_end());
    }
    out
}

/// The `tests:` of the pipeline: what comes out of it for one message.
fn test(text: &str, registry: &Registry) -> anyhow::Result<String> {
    let file = SourceFile { path: "pipeline.yaml".to_owned(), text: text.to_owned() };
    let document = Document::read(file, &Environment::of_process(), registry);
    let shown = |found: &[Diagnostic]| diagnostic::render(found, Format::Concise, false);
    let found: Vec<_> =
        lint(std::slice::from_ref(&document), registry).into_iter().filter(Diagnostic::is_error).collect();
    anyhow::ensure!(found.is_empty(), "the examples of these components do not go together:\n{}", shown(&found));
    let config = document.pipeline(registry).context("the pipeline has an input and an output")?;
    let built = |faults: Vec<Diagnostic>| anyhow::anyhow!("{}", shown(&faults));
    let mut trial = Trial::new(Pipeline::build(&config, registry).map_err(built)?, None);
    let topic = "devices/phone-1/telemetry";
    let mut meta: BTreeMap<String, Json> = BTreeMap::new();
    meta.insert("topic".to_owned(), topic.into());
    meta.insert("received_at".to_owned(), 1_700_000_000.into());
    let sample = Sample { payload: PAYLOAD.as_bytes().to_vec(), meta, input: String::new() };
    let tried = trial.run(&sample).map_err(|reason| anyhow::anyhow!(reason))?;
    let mut out =
        String::from("\n# `streamer test` runs these; they need no broker.\ntests:\n  - name: passes one message on\n");
    let _ = writeln!(
        out,
        "    input:\n      meta: {{ topic: {topic}, received_at: 1700000000 }}\n      payload: '{PAYLOAD}'"
    );
    let outputs: Vec<_> = tried.outputs.iter().filter(|(_, messages)| !messages.is_empty()).collect();
    if !outputs.is_empty() {
        out += "    outputs:\n";
        for (label, messages) in outputs {
            let _ = writeln!(out, "      {label}:");
            for message in messages {
                let payload = String::from_utf8_lossy(&message.payload);
                let _ = writeln!(out, "        - payload: '{}'", payload.replace('\'', "''"));
            }
        }
    } else if tried.letters.is_empty() {
        out += "    dropped: 1\n";
    }
    if !tried.letters.is_empty() {
        out += "    dead_letters:\n";
        for letter in &tried.letters {
            let _ = writeln!(out, "      - {{ code: {}, stage: \"{}\" }}", letter.code, letter.stage);
        }
    }
    Ok(out)
}
