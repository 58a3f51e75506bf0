//! Rule `no-value`: see its text in `diagnostic/rules`.
use super::{
    super::syntax::{StmtKind, Tree},
    warning,
};
use crate::diagnostic::Fault;

pub(super) fn check(tree: &Tree) -> Option<Fault> {
    let last = tree.body.iter().rev().find(|statement| !matches!(statement.kind, StmtKind::Nothing))?;
    let at = match &last.kind {
        // An assignment's own place is its `=`.
        StmtKind::Assign(target, ..) => target.at,
        StmtKind::Let(..) | StmtKind::For(..) => last.at,
        _ => return None,
    };
    let fault = warning("no-value", at, "the script ends without a value, so every payload becomes `null`")?;
    Some(fault.label("no value").help("end with what is to be written, for example a line `payload`"))
}
