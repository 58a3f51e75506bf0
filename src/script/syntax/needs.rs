//! What a script reads of a message, told from its syntax tree, so that nothing else is decoded or built for it.
//!
//! Over-estimating is safe: a local variable that is also called `payload` only costs a parse.
use std::collections::BTreeSet;

use rhai::{AST, ASTFlags, ASTNode, Expr, Stmt};

/// What a script reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::script) struct Needs {
    pub payload: PayloadNeed,
    pub is_json: bool,
    pub text: bool,
    pub meta: MetaNeed,
}

/// How a script uses `payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::script) enum PayloadNeed {
    /// Not at all.
    #[default]
    None,
    /// As a part of the result only: nothing looks into it, so its bytes can be passed on.
    PassedOn,
    /// Looks into it.
    Decoded,
}

/// Which fields of `meta` a script uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::script) enum MetaNeed {
    /// These, by the first name after `meta.`.
    Fields(BTreeSet<String>),
    /// `meta` itself, or a field by a computed name.
    All,
}

impl Default for MetaNeed {
    fn default() -> Self {
        Self::Fields(BTreeSet::new())
    }
}

impl Needs {
    pub fn of(ast: &AST) -> Self {
        let mut needs = Self::default();
        let mut payloads = 0;
        ast.walk(&mut |path| {
            if let Some(ASTNode::Expr(Expr::Variable(variable, ..))) = path.last() {
                match variable.1.as_str() {
                    "payload" => payloads += 1,
                    "is_json" => needs.is_json = true,
                    "text" => needs.text = true,
                    "meta" => needs.meta.add(path),
                    _ => {}
                }
            }
            true
        });
        needs.payload = match payloads {
            0 => PayloadNeed::None,
            n if n == in_result(ast.statements()) => PayloadNeed::PassedOn,
            _ => PayloadNeed::Decoded,
        };
        needs
    }
}

impl MetaNeed {
    /// Takes the variable `meta` at the end of `path` into account.
    fn add(&mut self, path: &[ASTNode<'_>]) {
        let Self::Fields(fields) = self else { return };
        let field = path.len().checked_sub(2).and_then(|parent| match &path[parent] {
            ASTNode::Expr(Expr::Dot(chain, ..) | Expr::Index(chain, ..)) => match &chain.lhs {
                Expr::Variable(variable, ..) if variable.1.as_str() == "meta" => field_name(&chain.rhs),
                _ => None,
            },
            _ => None,
        });
        match field {
            Some(name) => {
                fields.insert(name.to_owned());
            }
            None => *self = Self::All,
        }
    }

    /// True when the script may read `name`.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Fields(fields) => fields.contains(name),
            Self::All => true,
        }
    }
}

/// The first name of a chain: `topic` in `.topic`, `.topic.len()` and `["topic"]`.
fn field_name(expression: &Expr) -> Option<&str> {
    match expression {
        Expr::Property(property, _) => Some(&property.2),
        Expr::StringConstant(name, _) => Some(name),
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => field_name(&chain.lhs),
        _ => None,
    }
}

/// How often `payload` stands where it becomes, whole, a part of the result.
fn in_result(statements: &[Stmt]) -> usize {
    match statements.last() {
        Some(Stmt::Expr(expression)) => in_value(expression),
        Some(Stmt::Block(block)) => in_result(block.statements()),
        Some(Stmt::If(branches, _)) => in_result(branches.body.statements()) + in_result(branches.branch.statements()),
        Some(Stmt::Return(Some(expression), flags, _)) if !flags.contains(ASTFlags::BREAK) => in_value(expression),
        _ => 0,
    }
}

fn in_value(expression: &Expr) -> usize {
    match expression {
        Expr::Variable(variable, ..) => usize::from(variable.1.as_str() == "payload"),
        Expr::Map(members, _) => members.0.iter().map(|(_, value)| in_value(value)).sum(),
        Expr::Array(items, _) => items.iter().map(in_value).sum(),
        Expr::Coalesce(choices, _) => choices.iter().map(in_value).sum(),
        Expr::Stmt(block) => in_result(block.statements()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::program::compile_for_tests;

    fn needs(script: &str) -> Needs {
        Needs::of(&compile_for_tests(script))
    }

    #[test]
    fn a_payload_that_is_only_passed_on_is_not_decoded() {
        for script in [
            "payload",
            "#{ a: payload, b: [payload, payload ?? 1] }",
            "#{ topic: meta.topic, payload: if is_json { payload } else { #{ raw: text } } }",
            "if meta.retain { drop(); } payload",
            "let t = meta.topic; if t == \"a\" { payload } else { return #{ x: payload }; }",
        ] {
            assert_eq!(needs(script).payload, PayloadNeed::PassedOn, "{script}");
        }
        for script in [
            "payload.a",
            "let p = payload; p",
            "#{ a: payload, b: payload.b }",
            "payload.x = 1; payload",
            "type_of(payload)",
            "if payload == 1 { 2 } else { 3 }",
            "[1].map(|x| payload)",
            "throw payload",
            "for x in payload { }",
            "switch payload { 1 => 2, _ => 3 }",
            "`${payload}`",
        ] {
            assert_eq!(needs(script).payload, PayloadNeed::Decoded, "{script}");
        }
        assert_eq!(needs("meta.topic").payload, PayloadNeed::None);
        assert_eq!(needs("text").payload, PayloadNeed::None);
    }

    #[test]
    fn only_the_fields_of_meta_that_are_used_are_built() {
        let fields = |names: &[&str]| MetaNeed::Fields(names.iter().map(ToString::to_string).collect());
        assert_eq!(needs("1").meta, fields(&[]));
        assert_eq!(needs("meta.topic + meta[\"key\"]").meta, fields(&["key", "topic"]));
        assert_eq!(needs("meta.levels[1] + meta.headers.trace.len()").meta, fields(&["headers", "levels"]));
        assert_eq!(needs("[1].map(|x| meta.device)").meta, MetaNeed::All);
        assert_eq!(needs("let f = \"topic\"; meta[f]").meta, MetaNeed::All);
        assert_eq!(needs("meta").meta, MetaNeed::All);
    }
}
