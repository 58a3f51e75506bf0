//! Which variables a script changes after it has made them: a plan keeps no value for them that may be another one later.
use std::collections::HashSet;

use crate::script::syntax::{Expr, ExprKind, LinkKind, Node, StmtKind, Tree, changes, walk};

/// Names that some statement changes, of the script itself or of its functions.
pub(super) fn changed(tree: &Tree) -> HashSet<String> {
    let mut changed = HashSet::new();
    let bodies = tree.functions.values().map(|function| &function.body);
    for body in std::iter::once(&tree.body).chain(bodies) {
        walk(body, &mut |node| match node {
            Node::Stmt(statement) => {
                if let StmtKind::Assign(target, ..) = &statement.kind {
                    note(target, &mut changed);
                }
            }
            Node::Expr(expression) => changed_by(expression, &mut changed),
        });
    }
    changed
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

/// What the call at hand changes.
fn changed_by(expression: &Expr, changed: &mut HashSet<String>) {
    match &expression.kind {
        ExprKind::Call { name, arguments, .. } if changes(name) => {
            arguments.iter().take(1).for_each(|first| note(first, changed));
        }
        ExprKind::Chain(base, links) => {
            let is_changing = |kind: &LinkKind| matches!(kind, LinkKind::Method(name, _) if changes(name));
            if links.iter().any(|link| is_changing(&link.kind)) {
                note(base, changed);
            }
        }
        _ => {}
    }
}
