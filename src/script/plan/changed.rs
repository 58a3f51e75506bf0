//! Which variables a script changes after it has made them: a plan keeps no value for them that may be another one later.
use std::collections::HashSet;

use crate::script::syntax::{Expr, ExprKind, LinkKind, Stmt, StmtKind, Tree, changes};

/// Names that some statement changes, of the script itself or of its functions.
pub(super) fn changed(tree: &Tree) -> HashSet<String> {
    let mut changed = HashSet::new();
    changed_in(&tree.body, &mut changed);
    for function in tree.functions.values() {
        changed_in(&function.body, &mut changed);
    }
    changed
}

/// Names that some statement of `block` changes.
pub(in crate::script) fn changed_in(block: &[Stmt], changed: &mut HashSet<String>) {
    for statement in block {
        match &statement.kind {
            StmtKind::Let(_, value) => changed_by(value, changed),
            StmtKind::Assign(target, _, value) => {
                note(target, changed);
                changed_by(target, changed);
                changed_by(value, changed);
            }
            StmtKind::Expr(expression) => changed_by(expression, changed),
            StmtKind::If(condition, then, otherwise) => {
                changed_by(condition, changed);
                changed_in(then, changed);
                changed_in(otherwise, changed);
            }
            StmtKind::Switch(value, cases) => {
                changed_by(value, changed);
                for case in cases {
                    case.condition.iter().for_each(|condition| changed_by(condition, changed));
                    changed_by(&case.value, changed);
                }
            }
            StmtKind::For(_, list, body) => {
                changed_by(list, changed);
                changed_in(body, changed);
            }
            StmtKind::Return(value) => value.iter().for_each(|value| changed_by(value, changed)),
            StmtKind::Block(block) => changed_in(block, changed),
            StmtKind::Throw | StmtKind::Break | StmtKind::Continue | StmtKind::Nothing | StmtKind::Other(_) => {}
        }
    }
}

/// The variable at the start of a target.
fn note(target: &Expr, changed: &mut HashSet<String>) {
    match &target.kind {
        ExprKind::Variable(name) => {
            changed.insert(name.clone());
        }
        ExprKind::Chain(base, _) => note(base, changed),
        _ => {}
    }
}

fn changed_by(expression: &Expr, changed: &mut HashSet<String>) {
    let mut all = |expressions: &[Expr]| expressions.iter().for_each(|expression| changed_by(expression, changed));
    match &expression.kind {
        ExprKind::List(items) | ExprKind::Interpolated(items) => all(items),
        ExprKind::And(items) | ExprKind::Or(items) | ExprKind::Coalesce(items) => all(items),
        ExprKind::Operator(_, items) => all(items),
        ExprKind::Map(members) => members.iter().for_each(|(_, value)| changed_by(value, changed)),
        ExprKind::Call { name, arguments, .. } => {
            all(arguments);
            if changes(name) {
                arguments.iter().take(1).for_each(|first| note(first, changed));
            }
        }
        ExprKind::Chain(base, links) => {
            changed_by(base, changed);
            for link in links {
                match &link.kind {
                    LinkKind::Field(_) => {}
                    LinkKind::Index(index) => changed_by(index, changed),
                    LinkKind::Method(name, arguments) => {
                        arguments.iter().for_each(|argument| changed_by(argument, changed));
                        if changes(name) {
                            note(base, changed);
                        }
                    }
                }
            }
        }
        ExprKind::Block(block) => changed_in(block, changed),
        ExprKind::Closure { function, .. } => changed_in(&function.body, changed),
        ExprKind::Unit
        | ExprKind::Bool(_)
        | ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Text(_)
        | ExprKind::Variable(_)
        | ExprKind::Other(_) => {}
    }
}
