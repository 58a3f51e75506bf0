//! Rule `missing-question-mark`: see its text in `diagnostic/rules`.
use super::{
    super::syntax::{Expr, ExprKind, LinkKind},
    Known, path, warning,
};
use crate::diagnostic::Fault;

pub(super) fn check(expression: &Expr, known: &Known<'_>) -> Option<Fault> {
    let ExprKind::Coalesce(parts) = &expression.kind else { return None };
    let (_, asked) = parts.split_last()?;
    asked.iter().find_map(|part| {
        let ExprKind::Chain(start, links) = &part.kind else { return None };
        if !matches!(&start.kind, ExprKind::Variable(name) if known.is_foreign(name)) {
            return None;
        }
        let name = path(part)?;
        links.windows(2).find_map(|pair| {
            let (LinkKind::Field(before), false) = (&pair[0].kind, pair[1].optional) else { return None };
            let title = format!("where `{before}` is missing, `{name}` fails before `??` is asked");
            let fault = warning("missing-question-mark", pair[1].at, title)?;
            let write = if matches!(pair[1].kind, LinkKind::Index(_)) { "?[" } else { "?." };
            Some(fault.label(format!("fails without `{before}`")).help(format!("write `{write}` behind `{before}`")))
        })
    })
}
