//! Rule `unused-variable`: see its text in `diagnostic/rules`. A name that begins with `_` is meant to be unused. Any
//! other mention of the name counts as use, be it in a comment.
use super::{
    super::syntax::{Node, Stmt, StmtKind, Tree, walk},
    warning,
};
use crate::diagnostic::Fault;

pub(super) fn check(source: &str, tree: &Tree) -> Vec<Fault> {
    let mut found = Vec::new();
    walk(&tree.body, &mut |node| {
        let Node::Stmt(Stmt { kind: StmtKind::Let(name, _), at }) = node else { return };
        if !name.starts_with('_') && mentions(source, name) == 1 {
            let place = place_of(source, name).unwrap_or(*at);
            let fault = warning("unused-variable", place, format!("`{name}` is never used"));
            found.extend(fault.map(|fault| {
                fault.label("not used below").help(format!("remove it, or call it `_{name}` to keep it"))
            }));
        }
    });
    found
}

/// Every place where the name stands as a word.
fn places<'a>(source: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    source
        .match_indices(name)
        .map(|(at, _)| at)
        .filter(move |at| !source[..*at].ends_with(is_letter) && !source[at + name.len()..].starts_with(is_letter))
}

fn mentions(source: &str, name: &str) -> usize {
    places(source, name).count()
}

fn place_of(source: &str, name: &str) -> Option<(usize, usize)> {
    places(source, name).next().map(|at| crate::diagnostic::line_column(source, at))
}
