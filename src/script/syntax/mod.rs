//! A script as a tree of our own, made from Rhai's. Only this folder knows how Rhai's tree looks: its layout is internal
//! to Rhai and may change with any version, so the version is pinned, and what is not known here becomes `Other`, which
//! nobody compiles.
mod calls;
mod needs;
mod read;
mod sharing;
mod visit;

use std::{collections::HashMap, rc::Rc};

pub(super) use calls::{each_call, other_than_definitions};
pub(super) use needs::{MetaNeed, Needs, PayloadNeed};
pub(super) use sharing::Untangled;
pub(super) use visit::{Node, walk};

/// Line and column in the script, both from 1; 0 where Rhai does not know.
pub(super) type At = (usize, usize);

/// Methods that change the value they are called on.
const CHANGING: &[&str] = &[
    "append",
    "chop",
    "clear",
    "crop",
    "dedup",
    "drain",
    "extract",
    "fill_with",
    "for_each",
    "insert",
    "make_lower",
    "make_upper",
    "mixin",
    "pad",
    "pop",
    "push",
    "remove",
    "replace",
    "retain",
    "reverse",
    "set",
    "shift",
    "sort",
    "sort_by",
    "sort_desc",
    "splice",
    "trim",
    "truncate",
    "+=",
];

/// True for a method that changes the value it is called on.
pub(super) fn changes(method: &str) -> bool {
    CHANGING.contains(&method)
}

/// A whole script.
pub(super) struct Tree {
    pub body: Block,
    /// The functions it defines, and those of the modules it was given.
    pub functions: Functions,
}

/// Functions by module, name and number of parameters. The module of the script's own functions has no name.
pub(super) type Functions = HashMap<(String, String, usize), Rc<Function>>;

/// A function that a script defines.
#[derive(Debug)]
pub(super) struct Function {
    pub parameters: Vec<String>,
    pub body: Block,
}

pub(super) type Block = Vec<Stmt>;

#[derive(Debug)]
pub(super) struct Stmt {
    pub kind: StmtKind,
    pub at: At,
}

#[derive(Debug)]
pub(super) enum StmtKind {
    Let(String, Expr),
    /// The target is a variable or a chain that starts with one.
    Assign(Expr, Option<Operator>, Expr),
    Expr(Expr),
    If(Expr, Block, Block),
    Switch(Expr, Vec<Case>),
    /// Variable, list, body.
    For(String, Expr, Block),
    Return(Option<Expr>),
    Throw,
    Break,
    Continue,
    Block(Block),
    Nothing,
    /// Anything else, in words.
    Other(&'static str),
}

/// One case of a `switch`; the first that fits is taken.
#[derive(Debug)]
pub(super) struct Case {
    pub fits: Fits,
    /// `if …` after it.
    pub condition: Option<Expr>,
    pub value: Expr,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fits {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// From, to (not included).
    Range(i64, i64),
    /// From, to (included).
    RangeTo(i64, i64),
    Any,
}

#[derive(Debug)]
pub(super) struct Expr {
    pub kind: ExprKind,
    pub at: At,
}

#[derive(Debug)]
pub(super) enum ExprKind {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Expr>),
    Map(Vec<(Key, Expr)>),
    Interpolated(Vec<Expr>),
    Variable(String),
    /// A value and what is taken of it: `a.b?.c[1].len()`.
    Chain(Box<Expr>, Vec<Link>),
    Call {
        module: String,
        name: String,
        arguments: Vec<Expr>,
    },
    Operator(Operator, Vec<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Coalesce(Vec<Expr>),
    Block(Block),
    /// Captured variables come first among the parameters of its function.
    Closure {
        captures: Vec<String>,
        function: Rc<Function>,
    },
    /// Anything else, in words.
    Other(&'static str),
}

/// The name of a member of a map, where the map is made.
#[derive(Debug)]
pub(super) struct Key {
    pub name: String,
    pub at: At,
}

#[derive(Debug)]
pub(super) struct Link {
    pub kind: LinkKind,
    /// `?.` or `?[`: on a missing value the rest of the chain is not looked at.
    pub optional: bool,
    pub at: At,
}

#[derive(Debug)]
pub(super) enum LinkKind {
    Field(String),
    Index(Expr),
    Method(String, Vec<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    Not,
    Minus,
    /// `a..b`.
    Range,
    /// `a..=b`.
    RangeTo,
}
