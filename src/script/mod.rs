//! Everything that is evaluated for a message: Rhai scripts, JSONPath, and the templates of keys and topics.
mod check;
mod document;
mod engine;
mod jsonpath;
mod mapping;
mod meta;
mod needs;
mod path;
mod program;
mod template;
#[cfg(test)]
mod tests;
mod text;
#[expect(dead_code, reason = "the function library is being moved to it")]
mod value;

pub use jsonpath::{JsonPaths, LookupError};
pub use mapping::{Condition, Emit, Mapping};
pub use meta::MetaField;
pub use program::ScriptError;
pub use template::Template;
pub use text::{ScriptFile, ScriptText};
