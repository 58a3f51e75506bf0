//! Values as functions take and give them: borrowed from the message, from the script, or from an arena.

/// One value. Copying it copies no text and no list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// Missing, or JSON's null.
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A number that neither an `i64` nor an `f64` can hold: its text.
    Big(&'a str),
    Text(&'a str),
    List(&'a [Value<'a>]),
    /// Sorted by key, each key once.
    Map(&'a [(&'a str, Value<'a>)]),
    /// What no function takes, such as a closure: the name of its type.
    Other(&'static str),
}
