//! Rule `integer-division`: see its text in `diagnostic/rules`. A note, since the rest may be cut off on purpose; units
//! of time nearly always are whole.
use super::{
    super::syntax::{Expr, ExprKind, Operator},
    path, warning,
};
use crate::diagnostic::Fault;

const WHOLE: [i64; 7] = [60, 1000, 3600, 60_000, 86_400, 1_000_000, 1_000_000_000];

pub(super) fn check(expression: &Expr) -> Option<Fault> {
    let ExprKind::Operator(Operator::Divide, sides) = &expression.kind else { return None };
    let [value, Expr { kind: ExprKind::Int(by), .. }] = sides.as_slice() else { return None };
    let name = path(value).filter(|name| name.starts_with("payload."))?;
    if WHOLE.contains(by) {
        return None;
    }
    let title = format!("`{name} / {by}` cuts the rest off where `{name}` is an integer");
    let fault = warning("integer-division", expression.at, title)?.label("a whole number");
    Some(fault.help(format!("write `{name} / {by}.0` for a number with a fraction")).into_note())
}
