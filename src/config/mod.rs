//! Pipeline files: YAML to a tree that knows where everything stands, the environment put in, and the typed
//! [`Pipeline`] read from it. Knows the grammar of a file and nothing of any component's fields: what it must know of
//! them (which hold scripts, which want text) it asks the [`Catalog`].
//!
//! The way of a file: [`Document::open`] (syntax, duplicate keys, variables) → `lint` (everything
//! else) → [`Document::pipeline`]. Reading never stops at the first fault and never touches the network.
mod cases;
mod document;
mod environment;
mod expand;
mod grammar;
mod markdown;
mod pipeline;
mod scalar;
mod yaml;

pub use cases::{Expected, ExpectedLetter, TestCase, TestInput};
pub use document::{Document, Role, Slot, parse_plain};
pub use environment::{Environment, Origin};
pub use grammar::{Delivery, Limits, Spool, grammar_schema};
pub use pipeline::{Component, Labelled, OutputEntry, Pipeline, StepEntry, When};
pub use scalar::{Scalar, Typed};
pub use yaml::{Entry, Node, NodeValue};

use std::sync::Arc;

use crate::spec::{Modules, Texts};

/// What a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Input,
    Step,
    Output,
}

impl Kind {
    /// Every kind, in the order of the data.
    pub const ALL: [Self; 3] = [Self::Input, Self::Step, Self::Output];

    /// `input`, `step` or `output`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Step => "step",
            Self::Output => "output",
        }
    }

    /// The top-level key that holds components of this kind.
    pub fn key(self) -> &'static str {
        match self {
            Self::Input => "inputs",
            Self::Step => "steps",
            Self::Output => "outputs",
        }
    }
}

/// What reading a file needs to know of the components that exist.
pub trait Catalog {
    /// The component of that name, if there is one.
    fn facts(&self, kind: Kind, name: &str) -> Option<Facts>;

    /// The modules that scripts may call.
    fn modules(&self) -> Arc<Modules> {
        Arc::default()
    }

    /// How files of scripts are read.
    fn texts(&self) -> Arc<Texts> {
        Arc::default()
    }
}

/// What reading a file needs to know of one component.
pub struct Facts {
    /// As in `Spec::scripts`.
    pub scripts: Vec<&'static str>,
    /// The JSON Schema of its section.
    pub schema: serde_json::Value,
}
