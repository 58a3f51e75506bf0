//! Rule `never-matches`: see its text in `diagnostic/rules`.
use super::{
    super::syntax::{ExprKind, StmtKind, Tree},
    warning,
};
use crate::diagnostic::Fault;

pub(super) fn check(tree: &Tree) -> Option<Fault> {
    let last = tree.body.iter().rev().find(|statement| !matches!(statement.kind, StmtKind::Nothing))?;
    if let StmtKind::Assign(target, ..) = &last.kind {
        let fault =
            warning("never-matches", target.at, "this condition sets a value and gives none, so it is never true")?;
        return Some(fault.label("`=` sets it").help("write `==` to compare"));
    }
    let [statement] = tree.body.as_slice() else { return None };
    let StmtKind::Expr(expression) = &statement.kind else { return None };
    let ExprKind::Bool(false) = expression.kind else { return None };
    let fault = warning("never-matches", (1, 1), "this condition is never true")?;
    Some(fault.label("always false").help("no message gets past it; what stands behind it can go, too"))
}
