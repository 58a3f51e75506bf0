//! Which variables a script changes after it has made them: a plan keeps no value for them that may be another one later.
use std::collections::HashSet;

use crate::script::syntax::{Block, Expr, ExprKind, LinkKind, Node, StmtKind, Tree, changes, walk};

/// Names that some statement changes, of the script itself or of its functions.
pub(super) fn changed(tree: &Tree) -> HashSet<String> {
    let bodies = tree.functions.values().map(|function| &function.body);
    std::iter::once(&tree.body).chain(bodies).flat_map(changed_in).collect()
}

/// Names that some statement of `block` changes.
pub(in crate::script) fn changed_in(block: &Block) -> HashSet<String> {
    let mut changed = HashSet::new();
    walk(block, &mut |node| match node {
        Node::Stmt(statement) => {
            if let StmtKind::Assign(target, ..) = &statement.kind {
                note(target, &mut changed);
            }
        }
        Node::Expr(expression) => changed_by(expression, &mut changed),
    });
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
