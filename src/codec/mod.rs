//! Formats: bytes to documents and back, one file or folder each.
pub mod json;
