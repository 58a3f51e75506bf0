//! What a plan is made of.
use super::builtins::Builtin;
use crate::script::{
    MetaField,
    functions::Function,
    path::Segment,
    syntax::{Fits, Operator},
};

/// A compiled script.
pub(in crate::script) struct Plan {
    pub(super) body: Block,
    /// How many local variables it has at once.
    pub(super) locals: usize,
    /// The places of the payload it looks at, by the numbers that `Path` uses. The first is the payload itself; a
    /// place's parent comes before it.
    pub(super) places: Vec<Place>,
    /// Names of the members of the maps it may end with, sorted; none when it ends otherwise.
    pub(super) members: Vec<Box<str>>,
    /// For each map it may end with: the numbers of its members in `members`.
    pub(super) results: Vec<Vec<usize>>,
    /// True when it asks for the payload as JSON, so that a payload nested too deep is an error.
    pub(super) reads_json: bool,
}

/// A place in the payload: its parent's number and the step from there.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::script) struct Place {
    pub parent: usize,
    /// None for the payload itself.
    pub segment: Option<Segment>,
}

#[derive(Debug, Default)]
pub(super) struct Block {
    pub steps: Vec<S>,
    /// Its value; none is `()`.
    pub value: Option<E>,
}

#[derive(Debug)]
pub(super) enum S {
    Set(usize, E),
    /// Changes a part of a local variable.
    Update {
        local: usize,
        keys: Vec<Key>,
        change: Change,
    },
    Expr(E),
    If(E, Block, Block),
    For(usize, E, Block),
    /// From, to, whether `to` is included.
    ForRange {
        variable: usize,
        from: E,
        to: E,
        included: bool,
        body: Block,
    },
    /// The end of the script, with its value.
    Return(E),
    /// The end of a function, with its value.
    Leave(E),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) enum Key {
    Field(Box<str>),
    Index(E),
}

#[derive(Debug)]
pub(super) enum Change {
    Set(Option<Operator>, E),
    Push(E),
    Trim,
}

#[derive(Debug)]
pub(super) enum E {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    /// A text that needs no escapes in JSON.
    Clean(Box<str>),
    Path(Path),
    Payload,
    Meta(MetaField),
    /// `meta.levels`.
    Levels,
    /// The payload as text.
    PayloadText,
    IsJson,
    Local(usize),
    List(Vec<E>),
    /// The number in `Plan::results` when it is the script's value.
    Map(Vec<Member>, Option<usize>),
    Shown(Vec<E>),
    Binary(Operator, Box<(E, E)>),
    Not(Box<E>),
    Minus(Box<E>),
    And(Vec<E>),
    Or(Vec<E>),
    Coalesce(Vec<E>),
    If(Box<(E, Block, Block)>),
    Switch(Box<(E, Vec<Case>)>),
    Block(Box<Block>),
    Chain(Box<E>, Vec<Link>),
    /// `text.split(separator)[n]` without the list.
    Part(Box<E>, Box<str>, usize),
    Builtin(Builtin, Vec<E>),
    Function(&'static Function, Vec<E>),
    Each(Box<Each>),
    /// A function's body in place of its call: parameters are locals.
    Inline(Vec<(usize, E)>, Box<Block>),
    Drop,
    /// Left to the interpreter, which makes the error.
    Throw,
}

/// A way into the payload.
#[derive(Debug, Clone)]
pub(super) struct Path {
    /// Places from the payload to the value.
    pub places: Vec<usize>,
    /// One less: whether each step passes over a missing parent.
    pub optional: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub name: Box<str>,
    /// `{"name":` or `,"name":`, ready to be written.
    pub prefix: Box<[u8]>,
    pub value: E,
}

#[derive(Debug)]
pub(super) struct Case {
    pub fits: Fits,
    pub condition: Option<E>,
    pub value: E,
}

#[derive(Debug)]
pub(super) struct Link {
    pub kind: LinkKind,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) enum LinkKind {
    /// Leaves it to the interpreter when there is nothing.
    Present,
    Field(Box<str>),
    Index(E),
    Builtin(Builtin, Vec<E>),
    Function(&'static Function, Vec<E>),
    Each(How, Closure),
}

/// A closure over the items of a list.
#[derive(Debug)]
pub(super) struct Each {
    pub how: How,
    pub list: E,
    pub closure: Closure,
}

#[derive(Debug)]
pub(super) struct Closure {
    pub item: usize,
    pub index: Option<usize>,
    pub body: Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Map,
    Filter,
    All,
    Some,
    Find,
}
