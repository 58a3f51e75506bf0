//! `streamer map`: applies a pipeline's steps, or a bare script, to samples, and shows what comes out.
use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};
use notify::Watcher as _;
use serde_json::Value as Json;

use super::{
    COULD_NOT, Command, FAULTS,
    caret::{caret, parts},
    colour, eprint, files, print,
};
use crate::{
    client::kafka::tail,
    config::{Document, Environment},
    diagnostic::{self, Diagnostic, Format, Severity, SourceFile, byte_offset},
    lint::lint,
    pipeline::{Pipeline, Sample, Trial, Tried, bytes_text},
};

pub(super) const COMMAND: Command = Command {
    name: "map",
    about: "Tries the steps of a pipeline, or a script, on samples; connects to nothing but a topic to read them from",
    arguments: Args::augment_args,
    run: |matches| Args::from_arg_matches(matches)?.run(),
};

const EXAMPLES: &str = "\
A sample file holds one payload a line; a file that is one JSON document over several lines is one sample.
Without samples the inputs of the file's `tests:` are tried.

Examples:
  streamer map pipelines/mqtt-to-kafka.yaml samples.jsonl
  echo '{\"t\": 20.5}' | streamer map --script '#{ f: payload.t * 1.8 + 32 }'
  streamer map mapping.rhai --from-topic telemetry --count 5 --watch";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct Args {
    /// A pipeline file, or a script: a file that ends in `.rhai`
    file: Option<PathBuf>,
    /// Files with samples; `-` is standard input
    samples: Vec<PathBuf>,
    /// A script in place of a file
    #[arg(long, value_name = "RHAI")]
    script: Option<String>,
    /// Stops after so many steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Metadata of every sample, for example `topic=devices/a/telemetry`
    #[arg(long, value_name = "NAME=VALUE")]
    meta: Vec<String>,
    /// Takes the last messages of this Kafka topic as samples
    #[arg(long, value_name = "TOPIC")]
    from_topic: Option<String>,
    /// Brokers of that topic
    #[arg(long, env = "KAFKA_BOOTSTRAP", default_value = "localhost:9092", value_name = "HOST:PORT")]
    brokers: String,
    /// How many messages of that topic
    #[arg(long, default_value_t = 10, value_name = "N")]
    count: usize,
    /// Does it again whenever the file, its scripts or plugins, or a sample file is saved
    #[arg(long)]
    watch: bool,
    /// How it is shown
    #[arg(long, value_enum, default_value = "text")]
    format: Shown,
    #[command(flatten)]
    plugins: files::PluginFolder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shown {
    /// For people
    Text,
    /// One JSON object a sample
    Json,
}

/// What `--script` is called in places.
const SCRIPT: &str = "--script";
/// Line and column of its first character in the pipeline that is made up around it.
const SCRIPT_AT: (usize, usize) = (7, 7);

/// How long a burst of changes may last before it is looked at.
const CALM: Duration = Duration::from_millis(200);

impl Args {
    fn run(mut self) -> anyhow::Result<ExitCode> {
        // With `--script` the first path is a sample's.
        if self.script.is_some() {
            self.samples.splice(0..0, self.file.take());
        }
        if !self.watch {
            return self.once();
        }
        // One is enough: it says that something has changed, not what.
        let (changed, changes) = mpsc::sync_channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // When it is full, the change is known already.
                let _ = changed.try_send(());
            }
        })?;
        // Folders, since editors put a new file in the place of the old one.
        let mut folders: Vec<PathBuf> = Vec::new();
        for path in self.file.iter().chain(&self.samples).filter(|path| path.as_os_str() != "-") {
            folders.push(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned());
        }
        folders.extend(crate::plugin::folders(self.file.as_slice()));
        folders.sort();
        folders.dedup();
        for folder in &folders {
            watcher
                .watch(folder, notify::RecursiveMode::NonRecursive)
                .with_context(|| format!("cannot watch `{}`", folder.display()))?;
        }
        loop {
            if let Err(error) = self.once() {
                eprint(&format!("error: {error:#}\n"));
            }
            eprint("waiting for a change; Ctrl-C ends\n");
            if changes.recv().is_err() {
                return Ok(ExitCode::from(COULD_NOT));
            }
            while changes.recv_timeout(CALM).is_ok() {}
        }
    }

    fn once(&self) -> anyhow::Result<ExitCode> {
        let document_file = self.document()?;
        let paths: Vec<PathBuf> = self.file.iter().cloned().collect();
        let registry = self.plugins.registry(&paths)?;
        let document = Document::read(document_file, &Environment::of_process(), &registry);
        let documents = [document];
        let found = lint(&documents, &registry);
        let is_script = self.is_script();
        // Of a bare script only its own faults matter.
        let faults: Vec<_> = found.into_iter().filter(|fault| fault.severity == Severity::Error).collect();
        let faults: Vec<_> = faults.into_iter().map(|fault| self.in_script(fault)).collect();
        if !faults.is_empty() {
            eprint(&diagnostic::render(&faults, Format::Full, colour::stderr()));
            return Ok(ExitCode::from(FAULTS));
        }
        let [document] = &documents;
        let config = document.pipeline(&registry).context("the file has no input or no output")?;
        let built = |faults: Vec<Diagnostic>| anyhow::anyhow!("{}", diagnostic::render(&faults, Format::Full, false));
        let mut trial = Trial::new(Pipeline::build(&config, &registry).map_err(built)?, self.steps);
        let folder = document.folder().to_owned();
        let mut samples = self.samples()?;
        if samples.is_empty() && self.from_topic.is_none() {
            for input in config.tests.iter().flat_map(|(case, _)| case.input.iter().chain(&case.inputs)) {
                samples.push(Sample::of_input(input, &folder).map_err(anyhow::Error::msg)?);
            }
        }
        if samples.is_empty() {
            anyhow::bail!("there is no sample to try; name a file, pipe them in, or write `tests:` into the pipeline");
        }
        let extra = self.extra_meta()?;
        for sample in &mut samples {
            sample.meta.extend(extra.clone());
        }
        let mut count = Count::default();
        for sample in &samples {
            let mut tried = trial.run(sample).map_err(anyhow::Error::msg)?;
            for place in tried.letters.iter_mut().filter_map(|letter| letter.place.as_mut()) {
                if let Some((SCRIPT, line, column)) = parts(place) {
                    *place = format!(
                        "{SCRIPT}:{}:{}",
                        (line + 1).saturating_sub(SCRIPT_AT.0),
                        (column + 1).saturating_sub(SCRIPT_AT.1)
                    );
                }
            }
            count.add(&tried);
            print(&match self.format {
                Shown::Json => json(sample, &tried),
                Shown::Text => text(sample, &tried, is_script, self.script.as_deref()),
            })?;
        }
        let cost = trial.cost_ns(&samples).unwrap_or_default();
        let interpreted = trial.interpreted();
        let how = if interpreted.is_empty() { "compiled" } else { "interpreted" };
        let Count { out, dropped, failed } = count;
        let all = samples.len();
        eprint(&format!("{all} in, {out} out, {dropped} dropped, {failed} failed; {cost:.0} ns a message, {how}\n"));
        for (step, why) in interpreted {
            eprint(&format!("  {step}: {why}\n"));
        }
        Ok(if failed > 0 { ExitCode::from(FAULTS) } else { ExitCode::SUCCESS })
    }

    fn is_script(&self) -> bool {
        self.script.is_some() || self.file.as_ref().is_some_and(|file| file.extension().is_some_and(|e| e == "rhai"))
    }

    /// The pipeline file, or one made around a script.
    fn document(&self) -> anyhow::Result<SourceFile> {
        const AROUND: &str =
            "name: map\ninputs: { in: { stdin: {} } }\noutputs: { out: { stdout: {} } }\ndead_letter: { drop: {} }\n";
        if let Some(script) = &self.script {
            let lines: String = script.lines().map(|line| format!("      {line}\n")).collect();
            // The number keeps spaces at the start of the script's first line.
            return Ok(SourceFile { path: SCRIPT.into(), text: format!("{AROUND}steps:\n  - map: |2\n{lines}") });
        }
        let file = self.file.as_ref().context("name a pipeline file or a script to try, or give one with --script")?;
        if self.is_script() {
            anyhow::ensure!(file.exists(), "there is no file `{}`", file.display());
            // Beside the file that is made up, which has the same path.
            let name = file.file_name().context("a script has a name")?.to_string_lossy();
            let text = format!("{AROUND}steps:\n  - map: {{ file: {} }}\n", serde_json::to_string(&name)?);
            return Ok(SourceFile { path: file.display().to_string(), text });
        }
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(SourceFile { path: file.display().to_string(), text })
    }

    /// A fault of `--script` at its place in the script, not in the file that is made up around it.
    fn in_script(&self, fault: Diagnostic) -> Diagnostic {
        let Some(script) = self.script.as_ref().filter(|_| fault.file.path == SCRIPT) else { return fault };
        let (line, column) = fault.line_column();
        if line < SCRIPT_AT.0 || column < SCRIPT_AT.1 {
            return fault;
        }
        let start = byte_offset(script, line - SCRIPT_AT.0 + 1, column - SCRIPT_AT.1 + 1);
        let end = (start + fault.span.len()).min(script.len());
        let file = Arc::new(SourceFile { path: SCRIPT.into(), text: script.clone() });
        Diagnostic { file, span: start..end, ..fault }
    }

    fn samples(&self) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for path in &self.samples {
            let bytes = if path.as_os_str() == "-" {
                read_stdin()?
            } else {
                std::fs::read(path).with_context(|| format!("cannot read the sample `{}`", path.display()))?
            };
            samples.extend(split(&bytes));
        }
        if let Some(topic) = &self.from_topic {
            for message in tail(&self.brokers, topic, self.count).map_err(anyhow::Error::msg)? {
                let text = |bytes: &[u8]| Json::from(String::from_utf8_lossy(bytes).into_owned());
                let headers: serde_json::Map<String, Json> =
                    message.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
                let mut meta = BTreeMap::from([
                    ("topic".to_owned(), topic.as_str().into()),
                    ("partition".to_owned(), message.partition.into()),
                    ("offset".to_owned(), message.offset.into()),
                    ("headers".to_owned(), headers.into()),
                ]);
                meta.extend(message.key.map(|key| ("key".to_owned(), text(&key))));
                meta.extend(message.timestamp_ms.map(|ms| ("timestamp_ms".to_owned(), ms.into())));
                samples.push(Sample { payload: message.payload, meta, input: String::new() });
            }
            anyhow::ensure!(!samples.is_empty(), "topic `{topic}` at `{}` has no messages", self.brokers);
        } else if self.samples.is_empty() && !std::io::stdin().is_terminal() {
            samples.extend(split(&read_stdin()?));
        }
        Ok(samples)
    }

    fn extra_meta(&self) -> anyhow::Result<BTreeMap<String, Json>> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').with_context(|| {
                format!("`{text}` is no metadata; write for example --meta topic=devices/a/telemetry")
            })?;
            // A number where it is one: `qos=1`.
            let value = value.parse::<i64>().map_or_else(|_| value.into(), Json::from);
            Ok((name.to_owned(), value))
        };
        self.meta.iter().map(pair).collect()
    }
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

/// One sample a line; the whole when it is one JSON document over several lines.
fn split(bytes: &[u8]) -> Vec<Sample> {
    let sample = |bytes: &[u8]| Sample { payload: bytes.to_vec(), ..Sample::default() };
    let whole = bytes.trim_ascii();
    if whole.contains(&b'\n') && serde_json::from_slice::<serde::de::IgnoredAny>(whole).is_ok() {
        return vec![sample(whole)];
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).map(sample).collect()
}

/// What came of all samples.
#[derive(Default)]
struct Count {
    out: usize,
    dropped: u64,
    failed: usize,
}

impl Count {
    fn add(&mut self, tried: &Tried) {
        self.out += tried.outputs.iter().map(|(_, messages)| messages.len()).sum::<usize>();
        self.dropped += tried.dropped;
        self.failed += tried.letters.len();
    }
}

fn json(sample: &Sample, tried: &Tried) -> String {
    let value = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes).unwrap_or_else(|_| bytes_text(bytes).into());
    let outputs = tried.outputs.iter().flat_map(|(label, messages)| {
        messages.iter().map(move |message| {
            serde_json::json!({
                "output": label,
                "payload": value(&message.payload),
                "topic": (!message.topic.is_empty()).then_some(&message.topic),
                "key": message.key.as_deref().map(bytes_text),
                "headers": message.headers.iter().map(|(n, v)| (n.clone(), bytes_text(v).into())).collect::<serde_json::Map<_, _>>(),
            })
        })
    });
    let letters = tried.letters.iter().map(|letter| {
        serde_json::json!({ "stage": letter.stage, "code": letter.code, "reason": letter.reason, "place": letter.place })
    });
    let line = serde_json::json!({
        "input": value(&sample.payload),
        "outputs": outputs.collect::<Vec<_>>(),
        "dead_letters": letters.collect::<Vec<_>>(),
        "dropped": tried.dropped,
    });
    format!("{line}\n")
}

fn text(sample: &Sample, tried: &Tried, is_script: bool, script: Option<&str>) -> String {
    let pretty = |bytes: &[u8]| match serde_json::from_slice::<Json>(bytes) {
        Ok(value) if colour::stdout() => serde_json::to_string_pretty(&value).unwrap_or_default(),
        _ => bytes_text(bytes),
    };
    let mut out = format!("in   {}\n", pretty(&sample.payload));
    for (label, message) in tried.outputs.iter().flat_map(|(l, messages)| messages.iter().map(move |m| (l, m))) {
        let mut about = Vec::new();
        if !is_script {
            about.push(label.clone());
        }
        if !message.topic.is_empty() {
            about.push(format!("topic={}", message.topic));
        }
        about.extend(message.key.as_deref().map(|key| format!("key={}", bytes_text(key))));
        about.extend(message.headers.iter().map(|(name, value)| format!("{name}={}", bytes_text(value))));
        let about = if about.is_empty() { String::new() } else { format!("[{}] ", about.join(" ")) };
        out += &format!("out  {about}{}\n", pretty(&message.payload));
    }
    if tried.dropped > 0 {
        out += "dropped\n";
    }
    tried.letters.iter().for_each(|letter| {
        let given = script.map(|script| (SCRIPT, script));
        out += &caret(&letter.stage, &letter.code, &letter.reason, letter.place.as_deref(), given);
    });
    out + "\n"
}
