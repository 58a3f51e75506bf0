//! Shows a script's statements and expressions one by one, so that whoever looks for something names only that.
use super::{Block, Case, Expr, ExprKind, LinkKind, Stmt, StmtKind};

/// What stands at a place of a script.
#[derive(Clone, Copy)]
pub(in crate::script) enum Node<'t> {
    Stmt(&'t Stmt),
    Expr(&'t Expr),
}

/// Shows everything in a block, outer things first, in the order of the text; the bodies of closures are part of it.
pub(in crate::script) fn walk<'t>(block: &'t Block, visit: &mut dyn FnMut(Node<'t>)) {
    for statement in block {
        visit(Node::Stmt(statement));
        match &statement.kind {
            StmtKind::Let(_, value) | StmtKind::Expr(value) | StmtKind::Return(Some(value)) => inside(value, visit),
            StmtKind::Assign(target, _, value) => {
                inside(target, visit);
                inside(value, visit);
            }
            StmtKind::If(condition, then, otherwise) => {
                inside(condition, visit);
                walk(then, visit);
                walk(otherwise, visit);
            }
            StmtKind::Switch(value, cases) => {
                inside(value, visit);
                for Case { condition, value, .. } in cases {
                    condition.iter().for_each(|condition| inside(condition, visit));
                    inside(value, visit);
                }
            }
            StmtKind::For(_, list, body) => {
                inside(list, visit);
                walk(body, visit);
            }
            StmtKind::Block(block) => walk(block, visit),
            StmtKind::Return(None)
            | StmtKind::Throw
            | StmtKind::Break
            | StmtKind::Continue
            | StmtKind::Nothing
            | StmtKind::Other(_) => {}
        }
    }
}

fn inside<'t>(expression: &'t Expr, visit: &mut dyn FnMut(Node<'t>)) {
    visit(Node::Expr(expression));
    match &expression.kind {
        ExprKind::List(all)
        | ExprKind::Interpolated(all)
        | ExprKind::Operator(_, all)
        | ExprKind::And(all)
        | ExprKind::Or(all)
        | ExprKind::Coalesce(all)
        | ExprKind::Call { arguments: all, .. } => all.iter().for_each(|one| inside(one, visit)),
        ExprKind::Map(members) => members.iter().for_each(|(_, value)| inside(value, visit)),
        ExprKind::Chain(start, links) => {
            inside(start, visit);
            for link in links {
                match &link.kind {
                    LinkKind::Field(_) => {}
                    LinkKind::Index(index) => inside(index, visit),
                    LinkKind::Method(_, arguments) => arguments.iter().for_each(|one| inside(one, visit)),
                }
            }
        }
        ExprKind::Block(block) => walk(block, visit),
        ExprKind::Closure { function, .. } => walk(&function.body, visit),
        ExprKind::Unit
        | ExprKind::Bool(_)
        | ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Text(_)
        | ExprKind::Variable(_)
        | ExprKind::Other(_) => {}
    }
}
