//! Everything that is evaluated for a message: Rhai scripts, JSONPath, and the templates of keys and topics.
mod check;
mod clock;
mod compiled;
mod document;
mod engine;
mod functions;
mod infer;
mod jsonpath;
mod mapping;
mod meta;
mod path;
mod plan;
mod program;
mod review;
mod scan;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use check::{ModuleFunction, check_module_file};
pub use clock::fix_clock;
pub use functions::{Function, Group, functions};
pub use jsonpath::{Found, JsonPaths, LookupError};
pub use mapping::{Condition, Emit, Interpreted, Mapping};
pub use meta::MetaField;
pub use plan::Refusal;
pub use program::ScriptError;
pub use scan::scan_batch;
pub use template::Template;
pub use text::{ScriptFile, ScriptText};
