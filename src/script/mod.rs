//! Everything that is evaluated for a message: Rhai scripts, JSONPath, and the templates of keys and topics.
mod condition;
mod meta;
mod template;

pub use condition::*;
pub use meta::MetaField;
pub use template::Template;
