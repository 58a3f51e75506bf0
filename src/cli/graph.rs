//! `streamer graph`: what is connected to what in pipeline files, as a diagram.
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use clap::{Args as _, FromArgMatches as _};

use super::{Command, files, print};
use crate::{
    client::Contact,
    config::{Document, Role, Slot},
    registry::Registry,
};

pub(super) const COMMAND: Command = Command {
    name: "graph",
    about: "Draws pipeline files: topics, inputs, steps and outputs, for Mermaid or Graphviz",
    arguments: Args::augment_args,
    run: |matches| run(&Args::from_arg_matches(matches)?),
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  streamer graph pipelines > pipelines.mmd      Markdown shows it in a block of `mermaid`
  streamer graph --format dot pipelines | dot -Tsvg > pipelines.svg")]
struct Args {
    #[command(flatten)]
    named: files::Named,
    /// The language of the diagram
    #[arg(long, value_enum, default_value = "mermaid")]
    format: Language,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Mermaid,
    Dot,
}

/// What is drawn. Nodes are known by their number.
#[derive(Default)]
struct Graph {
    /// Label, and the pipeline it is in; topics are in none.
    nodes: Vec<(String, Option<usize>)>,
    pipelines: Vec<String>,
    /// From, to, and what stands at the arrow.
    arrows: Vec<(usize, usize, String)>,
    /// Topics by server and name, so that pipelines meet in them.
    topics: BTreeMap<(String, String), usize>,
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (registry, documents) = args.named.read_all()?;
    let mut graph = Graph::default();
    documents.iter().for_each(|document| graph.add(document, &registry));
    print(&match args.format {
        Language::Mermaid => graph.mermaid(),
        Language::Dot => graph.dot(),
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Graph {
    fn add(&mut self, document: &Document, registry: &Registry) {
        let pipeline = self.pipelines.len();
        self.pipelines.push(document.name().to_owned());
        let slots = document.slots();
        let of = |role: Role| slots.iter().filter(move |slot| slot.role == role);
        let name = |slot: &Slot<'_>| slot.components().next().map_or("?", |entry| entry.key.as_str()).to_owned();
        let contact = |slot: &Slot<'_>| -> Option<Contact> {
            let component = document.component(slot, registry)?;
            registry.find(slot.role.kind(), &component.name)?.check(slot.role, &component.section).ok()?.contact
        };
        let mut before: Vec<usize> = Vec::new();
        for slot in of(Role::Input) {
            let node = self.node(format!("{} ({})", slot.label, name(slot)), Some(pipeline));
            before.push(node);
            if let Some(contact) = contact(slot) {
                for (_, topic) in &contact.topics {
                    let topic = self.topic(&contact, topic.text());
                    self.arrows.push((topic, node, String::new()));
                }
            }
        }
        let inputs = before.clone();
        for slot in of(Role::Step) {
            let node = self.node(name(slot), Some(pipeline));
            before.iter().for_each(|from| self.arrows.push((*from, node, String::new())));
            before = vec![node];
        }
        for slot in slots.iter().filter(|slot| slot.role.kind() == Role::Output.kind()) {
            let label = match slot.role {
                Role::DeadLetter => format!("dead letters ({})", name(slot)),
                Role::Archive => format!("archive ({})", name(slot)),
                _ => format!("{} ({})", slot.label, name(slot)),
            };
            let node = self.node(label, Some(pipeline));
            let (from, text) = match slot.role {
                Role::Archive => (&inputs, "as it came".to_owned()),
                Role::DeadLetter => (&before, "refused".to_owned()),
                _ => {
                    let when = slot.node.entry("when").and_then(|entry| entry.value.scalar());
                    (&before, when.map(|scalar| one_line(&scalar.text)).unwrap_or_default())
                }
            };
            from.iter().for_each(|from| self.arrows.push((*from, node, text.clone())));
            if let Some(contact) = contact(slot) {
                for (_, topic) in &contact.topics {
                    let topic = self.topic(&contact, topic.text());
                    self.arrows.push((node, topic, String::new()));
                }
            }
        }
    }

    fn node(&mut self, label: String, pipeline: Option<usize>) -> usize {
        self.nodes.push((label, pipeline));
        self.nodes.len() - 1
    }

    fn topic(&mut self, contact: &Contact, name: &str) -> usize {
        // What a message decides has no letters of its own.
        let name = name.replace('\u{fffc}', "…");
        let key = (contact.server.clone(), name.clone());
        if let Some(node) = self.topics.get(&key) {
            return *node;
        }
        let node = self.node(name, None);
        self.topics.insert(key, node);
        node
    }

    fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        for (index, name) in self.pipelines.iter().enumerate() {
            let _ = writeln!(out, "  subgraph p{index}[\"{}\"]", mermaid_text(name));
            for (node, (label, _)) in self.nodes.iter().enumerate().filter(|(_, (_, of))| *of == Some(index)) {
                let _ = writeln!(out, "    n{node}[\"{}\"]", mermaid_text(label));
            }
            out.push_str("  end\n");
        }
        for (node, (label, _)) in self.nodes.iter().enumerate().filter(|(_, (_, of))| of.is_none()) {
            let _ = writeln!(out, "  n{node}([\"{}\"])", mermaid_text(label));
        }
        for (from, to, text) in &self.arrows {
            let _ = match text.as_str() {
                "" => writeln!(out, "  n{from} --> n{to}"),
                text => writeln!(out, "  n{from} -->|\"{}\"| n{to}", mermaid_text(text)),
            };
        }
        out
    }

    fn dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let mut out = String::from("digraph streamer {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        for (index, name) in self.pipelines.iter().enumerate() {
            let _ = writeln!(out, "  subgraph cluster_{index} {{\n    label={};", quoted(name));
            for (node, (label, _)) in self.nodes.iter().enumerate().filter(|(_, (_, of))| *of == Some(index)) {
                let _ = writeln!(out, "    n{node} [label={}];", quoted(label));
            }
            out.push_str("  }\n");
        }
        for (node, (label, _)) in self.nodes.iter().enumerate().filter(|(_, (_, of))| of.is_none()) {
            let _ = writeln!(out, "  n{node} [label={}, shape=cylinder, style=solid];", quoted(label));
        }
        for (from, to, text) in &self.arrows {
            let label = if text.is_empty() { String::new() } else { format!(" [label={}]", quoted(text)) };
            let _ = writeln!(out, "  n{from} -> n{to}{label};");
        }
        out.push_str("}\n");
        out
    }
}

/// Mermaid knows entities by `#name;` inside quotes.
fn mermaid_text(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
