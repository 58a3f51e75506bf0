//! Rule `integer-division`: see its text in `diagnostic/rules`. A note, since the rest may be cut off on purpose; units
//! of time nearly always are whole.
use super::{
    super::syntax::{Expr, ExprKind, Operator},
    Known, path, warning,
};
use crate::diagnostic::Fault;

const WHOLE: [i64; 7] = [60, 1000, 3600, 60_000, 86_400, 1_000_000, 1_000_000_000];

pub(super) fn check(expression: &Expr, known: &Known<'_>) -> Option<Fault> {
    let ExprKind::Operator(Operator::Divide, sides) = &expression.kind else { return None };
    let [value, Expr { kind: ExprKind::Int(by), .. }] = sides.as_slice() else { return None };
    let name = path(value)?;
    let root = name.split(['.', '[']).next().unwrap_or_default();
    // A payload that is a number by itself is rare, a parameter is one more often than not.
    if !known.is_foreign(root) || matches!(known, Known::Message) && !name.starts_with("payload.") {
        return None;
    }
    if WHOLE.contains(by) {
        return None;
    }
    let title = format!("`{name} / {by}` cuts the rest off where `{name}` is an integer");
    let fault = warning("integer-division", expression.at, title)?.label("a whole number");
    Some(fault.help(format!("write `{name} / {by}.0` for a number with a fraction")).into_note())
}
