//! Everything that is evaluated for a message: Rhai scripts, JSONPath, and the templates of keys and topics.
mod meta;
mod template;

pub use meta::MetaField;
pub use template::Template;
