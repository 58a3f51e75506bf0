//! What is most likely wrong in a script that can be run: warnings, one file each. All read the tree of `syntax`.
mod always_false;
mod integer_division;
mod missing_question_mark;
mod never_matches;
mod no_value;
mod unused_variable;

use super::syntax::{Expr, ExprKind, LinkKind, Node, Tree, walk};
use crate::diagnostic::Fault;

/// What a script is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its value is written somewhere.
    Value,
    /// It answers yes or no.
    Condition,
}

/// Warnings about a script, in the order of its text.
pub(super) fn review(source: &str, tree: &Tree, purpose: Purpose) -> Vec<Fault> {
    let mut found = Vec::new();
    match purpose {
        Purpose::Value => found.extend(no_value::check(tree)),
        Purpose::Condition => found.extend(never_matches::check(tree)),
    }
    found.extend(unused_variable::check(source, tree));
    let mut each = |node: Node<'_>| {
        let Node::Expr(expression) = node else { return };
        found.extend(always_false::check(expression));
        found.extend(missing_question_mark::check(expression));
        found.extend(integer_division::check(expression));
    };
    walk(&tree.body, &mut each);
    for function in tree.functions.iter().filter(|((module, ..), _)| module.is_empty()).map(|(_, function)| function) {
        walk(&function.body, &mut each);
    }
    found.sort_by_key(|fault| fault.at);
    found.dedup_by_key(|fault| (fault.at, fault.code));
    found
}

/// A warning at a place of the script; none where the place is not known.
fn warning(code: &'static str, at: (usize, usize), title: impl Into<String>) -> Option<Fault> {
    (at.0 > 0 && at.1 > 0).then(|| Fault::new(code, "", title).at(at.0, at.1).into_warning())
}

/// A variable, or fields of one, as it is written: `payload.a[0]`. None for anything that is worked out.
fn path(expression: &Expr) -> Option<String> {
    match &expression.kind {
        ExprKind::Variable(name) => Some(name.clone()),
        ExprKind::Chain(start, links) => {
            let mut text = path(start)?;
            for link in links {
                match &link.kind {
                    LinkKind::Field(name) => text.push_str(&format!(".{name}")),
                    LinkKind::Index(Expr { kind: ExprKind::Int(index), .. }) => text.push_str(&format!("[{index}]")),
                    LinkKind::Index(Expr { kind: ExprKind::Text(name), .. }) => text.push_str(&format!(".{name}")),
                    _ => return None,
                }
            }
            Some(text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::script::{Condition, Mapping};

    fn shown(notes: Vec<crate::diagnostic::Fault>) -> Vec<String> {
        let warnings = notes.into_iter().filter(|note| note.code != "interpreted");
        warnings.map(|n| format!("{:?} {}: {} ({})", n.at.unwrap(), n.code, n.title, n.label)).collect()
    }

    fn place() -> crate::diagnostic::ScriptPlace {
        crate::diagnostic::ScriptPlace { file: "x".into(), line: 1, column: 1, exact: true }
    }

    fn map(script: &str, expected: &[&str]) {
        assert_eq!(shown(Mapping::compile(script, place()).ok().unwrap().notes()), expected, "{script}");
    }

    fn condition(script: &str, expected: &[&str]) {
        assert_eq!(shown(Condition::compile(script, place()).ok().unwrap().notes()), expected, "{script}");
    }

    #[test]
    fn variables_that_nothing_reads() {
        map(
            "let a = 1;\nlet unused = payload.b;\n#{ a: a }",
            &["(2, 5) unused-variable: `unused` is never used (not used below)"],
        );
        map("let _a = 1; payload", &[]);
        map("let a = 1; `${a}`", &[]);
    }

    #[test]
    fn comparisons_that_never_hold() {
        condition(
            "meta.qos == \"1\"",
            &["(1, 10) always-false: `meta.qos` is an integer, and never equal to text (always false)"],
        );
        condition(
            "is_json == \"true\" || text == 5",
            &[
                "(1, 9) always-false: `is_json` is true or false, and never equal to text (always false)",
                "(1, 27) always-false: `text` is text, and never equal to an integer (always false)",
            ],
        );
        condition(
            "meta.topic == \"devices/+/x\"",
            &["(1, 12) always-false: a topic never has a wildcard, so it is never `devices/+/x` (always false)"],
        );
        condition(
            "payload.t > 5 && payload.t < 3",
            &["(1, 28) always-false: `payload.t` cannot be more than 5 and less than 3 (never together)"],
        );
        condition(
            "payload.x == 1 && payload.y == 3 && payload.x == 2",
            &["(1, 47) always-false: `payload.x` cannot be 1 and 2 (never together)"],
        );
        for fine in [
            "meta.qos == 1.0",
            "meta.key == ()",
            "meta.topic == \"a/b\"",
            "payload.t > 5 && payload.t < 6",
            "payload.t >= 5 && payload.t <= 5",
            "payload.x == 1 || payload.x == 2",
            "payload.x == 1 && payload.x != 2",
            "meta.device == 5",
            "meta.topic != \"a/#\"",
            "payload.x == 1 && payload.x == 1.0",
            "payload[meta.a] == 1 && payload[meta.b] == 2",
        ] {
            condition(fine, &[]);
        }
    }

    #[test]
    fn conditions_that_never_hold() {
        condition("false", &["(1, 1) never-matches: this condition is never true (always false)"]);
        condition("1 > 2 || \"a\" == \"b\"", &["(1, 1) never-matches: this condition is never true (always false)"]);
        map("false", &[]);
    }

    #[test]
    fn a_default_behind_a_chain_that_fails_first() {
        map(
            "payload.a.b ?? 0",
            &[
                "(1, 11) missing-question-mark: where `a` is missing, `payload.a.b` fails before `??` is asked (fails without `a`)",
            ],
        );
        map(
            "#{ x: payload?.a?.b.c ?? 0 }",
            &[
                "(1, 21) missing-question-mark: where `b` is missing, `payload.a.b.c` fails before `??` is asked (fails without `b`)",
            ],
        );
        for fine in ["payload.a ?? 0", "payload.a?.b ?? 0", "payload?.a?[0] ?? 0", "meta.headers.x ?? 0", "payload.a.b"]
        {
            map(fine, &[]);
        }
    }

    #[test]
    fn divisions_that_cut_off() {
        map(
            "payload.t / 10",
            &[
                "(1, 11) integer-division: `payload.t / 10` cuts the rest off where `payload.t` is an integer (a whole number)",
            ],
        );
        for fine in ["payload.t / 10.0", "payload.ts / 1000", "meta.received_at_ms / 7", "10 / payload.x"] {
            map(fine, &[]);
        }
    }

    #[test]
    fn scripts_without_a_value() {
        map(
            "let a = payload; a.x = 1;",
            &["(1, 18) no-value: the script ends without a value, so every payload becomes `null` (no value)"],
        );
        map(
            "payload.x = 5",
            &["(1, 1) no-value: the script ends without a value, so every payload becomes `null` (no value)"],
        );
        for fine in [
            "payload.x = 5; payload",
            "if is_json { payload } else { #{} }",
            "if is_json { throw 1 } payload",
            "return 1",
        ] {
            map(fine, &[]);
        }
    }
}
